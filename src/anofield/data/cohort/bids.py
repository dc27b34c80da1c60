"""Cases of a BIDS tree, raw or derivative, and the files in it that are named as masks.

Source: Brain Imaging Data Structure 1.10.
"""

from __future__ import annotations

import itertools
from collections import Counter
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import NamedTuple

from anofield._words import counted
from anofield.data.cohort.case import Case
from anofield.data.cohort.own import own_folder
from anofield.data.cohort.walk import entries_of
from anofield.data.scan import SUFFIXES, stem
from anofield.errors import CohortError, UsageError

BIDS_DATATYPES = ("anat", "perf", "dwi", "func", "fmap", "pet")  # the suffix decides; these folders may hold volumes
BIDS_INDICES = ("run", "echo", "flip", "inv", "split", "chunk")  # entities that are numbers: run-01 is run-1
BIDS_MASKS = ("mask", "dseg", "roi")  # suffixes of lesion and brain masks


def find_bids(root: Path, modality: str = "T2w", entities: Mapping[str, str] | None = None) -> list[Case]:
    """BIDS tree, raw or derivative: `sub-*/[ses-*/]<datatype>/*_<suffix>.nii.gz`.

    Args:
        root: Folder that holds the `sub-*` folders.
        modality: BIDS suffix of the scans.
        entities: Entities that a scan's name must have; a missing entity does not match, indices match as numbers.

    Raises:
        CohortError: No scan has the suffix and the entities; the error lists those that exist.
    """
    files = [_bids_name(path) for path in _bids_files(str(root))]
    of_suffix = [file for file in files if file.suffix == modality]
    scans = [file for file in of_suffix if _has(file, entities or {})]
    if not scans:
        raise _nothing_in_bids(root, files, of_suffix, modality, entities or {})
    return [Case(stem(file.path)[: -len(modality) - 1], Path(file.path), subject=file.subject) for file in scans]


def mask_files(root: Path) -> list[Path]:
    """Files of a BIDS tree and its derivatives that are named as masks (`BIDS_MASKS`)."""
    paths = itertools.chain(_bids_files(str(root)), _bids_files(str(root / "derivatives"), levels=3))
    return sorted(Path(path) for path in paths if stem(path).rpartition("_")[2] in BIDS_MASKS)


def parse_entities(text: str) -> dict[str, str]:
    """Parse BIDS entities as written on the command line.

    >>> parse_entities("acq=highres,run=1")
    {'acq': 'highres', 'run': '1'}

    Raises:
        UsageError: The text is not a list of `key=value` pairs.
    """
    pairs = [pair.strip().partition("=") for pair in text.split(",") if pair.strip()]
    if not all(key and sign and value for key, sign, value in pairs):
        raise UsageError(f"--filter {text}", remedy="write it like acq=highres,run=1")
    return {key.strip(): value.strip().removeprefix(f"{key.strip()}-") for key, _, value in pairs}


class _BidsName(NamedTuple):
    """A file of a BIDS tree and the parts of its name; sorts by path."""

    path: str
    entities: tuple[tuple[str, str], ...]
    suffix: str

    @property
    def subject(self) -> str:
        """`sub-` and the subject's label."""
        return "sub-" + dict(self.entities).get("sub", "")


def _bids_name(path: str) -> _BidsName:
    *parts, suffix = stem(path).split("_")
    pairs = [part.partition("-") for part in parts]
    entities = tuple((key, value) for key, sign, value in pairs if sign)
    return _BidsName(path, entities, suffix)


def _bids_files(folder: str, levels: int = 0) -> Iterator[str]:
    """Volumes in `sub-*/[ses-*/]<datatype>/`; the `sub-*` folders may lie up to `levels` folders deeper."""
    for entry in entries_of(folder):
        if entry.name in BIDS_DATATYPES and entry.is_dir():
            yield from (e.path for e in entries_of(entry.path) if e.name.endswith(SUFFIXES))
        elif entry.name.startswith(("sub-", "ses-")) and entry.is_dir():
            yield from _bids_files(entry.path)
        elif levels and entry.is_dir() and not own_folder(Path(entry.path)):
            yield from _bids_files(entry.path, levels - 1)


def _has(file: _BidsName, wanted: Mapping[str, str]) -> bool:
    own = dict(file.entities)
    return all(key in own and _index(key, own[key]) == _index(key, value) for key, value in wanted.items())


def _index(key: str, value: str) -> str | int:
    return int(value) if key in BIDS_INDICES and value.isdecimal() else value


def _nothing_in_bids(
    root: Path, files: list[_BidsName], of_suffix: list[_BidsName], modality: str, wanted: Mapping[str, str]
) -> CohortError:
    if of_suffix:
        pairs = sorted({pair for file in of_suffix for pair in file.entities if pair[0] != "sub"})
        there = [f"{key} ({', '.join(v for _, v in some)})" for key, some in itertools.groupby(pairs, lambda p: p[0])]
        asked = ", ".join(f"{key}-{value}" for key, value in wanted.items())
        what = f"none of {counted(len(of_suffix), f'{modality} scan')} has {asked}"
        return CohortError(what, where=root, remedy=f"filter by existing entities: {', '.join(there) or 'no entities'}")
    counts = Counter(file.suffix for file in files if file.suffix not in BIDS_MASKS)
    there = [f"{suffix} ({count})" for suffix, count in counts.most_common()]
    remedy = "give the folder that holds the sub-* folders, or another layout: --dataset"
    if there:
        remedy = f"choose an existing suffix with --modality: {', '.join(there)}"
    return CohortError(f"no {modality} scans found in sub-*/[ses-*/]*/", where=root, remedy=remedy)
