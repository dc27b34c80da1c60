"""Cases of a BIDS tree, raw or derivative, and the files in it that are named as masks.

Source: Brain Imaging Data Structure 1.10.
"""

from __future__ import annotations

import itertools
from collections import Counter
from collections.abc import Collection, Iterator, Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

from anofield._words import counted
from anofield.data.cohort.case import Case
from anofield.data.cohort.cohort import LeftOut
from anofield.data.cohort.contrast import contrast_in
from anofield.data.cohort.loose import OTHER_CONTRAST
from anofield.data.cohort.own import own_folder
from anofield.data.cohort.walk import broken_folders, entries_of
from anofield.data.scan import is_scan_name, stem
from anofield.errors import CohortError, UsageError

BIDS_DATATYPES = ("anat", "perf", "dwi", "func", "fmap", "pet")  # the suffix decides; these folders may hold volumes
BIDS_INDICES = ("run", "echo", "flip", "inv", "split", "chunk")  # entities that are numbers: run-01 is run-1
BIDS_FOLDERS = ("derivatives", "sourcedata", "rawdata", "code", "stimuli", "phenotype")  # beside the sub-* folders
BIDS_MASKS = ("mask", "dseg", "roi")  # suffixes of lesion and brain masks


def find_bids(
    root: Path,
    wanted: Sequence[str] = ("T2w",),
    entities: Mapping[str, str | Sequence[str]] | None = None,
    left: list[LeftOut] | None = None,
) -> list[Case]:
    """BIDS tree, raw or derivative: `sub-*/[ses-*/]<datatype>/*_<suffix>.nii.gz`.

    Args:
        root: Folder that holds the `sub-*` folders.
        wanted: BIDS suffixes of the scans.
        entities: Entities that a scan's name must have, each with one value or several that it may have; a missing
            entity does not match, indices match as numbers.
        left: Gets the other scans of the tree.

    Raises:
        CohortError: No scan has a suffix, or none has the entities; the error lists those that exist.
    """
    left = [] if left is None else left
    files = [_bids_name(path) for path in _bids_files(str(root), left)]
    of_suffix = [file for file in files if file.suffix in wanted]
    scans = [file for file in of_suffix if _has(file, entities or {})]
    for suffix in wanted:
        if not any(file.suffix == suffix for file in scans):
            raise _nothing_in_bids(root, files, [f for f in of_suffix if f.suffix == suffix], suffix, entities or {})
    _leave_out(files, set(of_suffix), set(scans), left)
    return [
        Case(_id(file, wanted), Path(file.path), subject=file.subject, contrast=contrast)
        for file in scans
        for contrast in [contrast_in(stem(file.path), wanted) or file.suffix]
    ]


def mask_files(root: Path) -> list[Path]:
    """Files of a BIDS tree and its derivatives that are named as masks (`BIDS_MASKS`)."""
    paths = itertools.chain(_bids_files(str(root)), _bids_files(str(root / "derivatives"), levels=3))
    return sorted(Path(path) for path in paths if stem(path).rpartition("_")[2] in BIDS_MASKS)


def parse_entities(texts: Sequence[str]) -> dict[str, tuple[str, ...]]:
    """Parse BIDS entities as written on the command line, in one text or several.

    Returns:
        The values of every entity; a scan may have any of them.

    >>> parse_entities(["acq=highres,run=1", "run=2"])
    {'acq': ('highres',), 'run': ('1', '2')}

    Raises:
        UsageError: A text is not a list of `key=value` pairs.
    """
    found: dict[str, tuple[str, ...]] = {}
    for text in texts:
        pairs = [pair.strip().partition("=") for pair in text.split(",") if pair.strip()]
        if not all(key and sign and value for key, sign, value in pairs):
            raise UsageError(f"--filter {text}", remedy="write it like acq=highres,run=1")
        for key, _, value in ((key.strip(), sign, value.strip()) for key, sign, value in pairs):
            found[key] = (*found.get(key, ()), value.removeprefix(f"{key}-"))
    return found


def subject_folder(image: Path) -> Path | None:
    """The `sub-*` folder of a scan whose name begins with the same subject; None for a scan in no BIDS tree."""
    above = (folder for folder in image.absolute().parents if folder.name.startswith("sub-"))
    return next((folder for folder in above if image.name.startswith(f"{folder.name}_")), None)


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


def _id(file: _BidsName, wanted: Sequence[str]) -> str:
    """Id of a case: the entities of its name, with the suffix if scans of several suffixes are cases."""
    name = stem(file.path)
    return name if len(wanted) > 1 else name[: -len(file.suffix) - 1]


def _bids_files(folder: str, left: list[LeftOut] | None = None, levels: int = 0, depth: int = 0) -> Iterator[str]:
    """Volumes in `sub-*/[ses-*/]<datatype>/`; the `sub-*` folders may lie up to `levels` folders deeper.

    What lies elsewhere and could be meant as a scan is added to `left`.
    """
    entries = entries_of(folder)
    if left is not None:
        left += broken_folders(entries)
    for entry in entries:
        if not entry.is_dir():
            if left is not None and is_scan_name(entry.name):
                left.append(LeftOut(Path(entry.path), "outside sub-*/[ses-*/]<datatype>/"))
        elif entry.name in BIDS_DATATYPES:
            yield from (e.path for e in entries_of(entry.path) if is_scan_name(e.name))
        elif entry.name.startswith(("sub-", "ses-")):
            yield from _bids_files(entry.path, left, depth=depth + 1)
        elif levels and not own_folder(Path(entry.path)):
            yield from _bids_files(entry.path, left, levels - 1)
        elif left is not None and depth == 0 and entry.name not in BIDS_FOLDERS:
            other = Path(entry.path)
            left.append(LeftOut(other, own_folder(other) or "no sub-* folder", what="folder"))


def _leave_out(
    files: Sequence[_BidsName],
    of_suffix: Collection[_BidsName],
    scans: Collection[_BidsName],
    left: list[LeftOut],
) -> None:
    """Add the other scans of a tree: those without the entities, and anatomical ones of other contrasts."""
    for file in files:
        if file in of_suffix and file not in scans:
            left.append(LeftOut(Path(file.path), "without the wanted entities"))
        elif file not in of_suffix and contrast_in(file.suffix):
            left.append(LeftOut(Path(file.path), OTHER_CONTRAST, file.suffix))


def _has(file: _BidsName, wanted: Mapping[str, str | Sequence[str]]) -> bool:
    own = dict(file.entities)
    return all(
        key in own and _index(key, own[key]) in {_index(key, value) for value in _values(values)}
        for key, values in wanted.items()
    )


def _values(values: str | Sequence[str]) -> Sequence[str]:
    return (values,) if isinstance(values, str) else values


def _index(key: str, value: str) -> str | int:
    return int(value) if key in BIDS_INDICES and value.isdecimal() else value


def _nothing_in_bids(
    root: Path,
    files: list[_BidsName],
    of_suffix: list[_BidsName],
    modality: str,
    wanted: Mapping[str, str | Sequence[str]],
) -> CohortError:
    if of_suffix:
        pairs = sorted({pair for file in of_suffix for pair in file.entities if pair[0] != "sub"})
        there = [f"{key} ({', '.join(v for _, v in some)})" for key, some in itertools.groupby(pairs, lambda p: p[0])]
        asked = ", ".join(f"{key}-{'/'.join(_values(values))}" for key, values in wanted.items())
        what = f"none of {counted(len(of_suffix), f'{modality} scan')} has {asked}"
        return CohortError(what, where=root, remedy=f"filter by existing entities: {', '.join(there) or 'no entities'}")
    counts = Counter(file.suffix for file in files if file.suffix not in BIDS_MASKS)
    there = [f"{suffix} ({count})" for suffix, count in counts.most_common()]
    remedy = "give the folder that holds the sub-* folders, or another layout: --dataset"
    if there:
        remedy = f"choose an existing suffix with --modality: {', '.join(there)}"
    return CohortError(f"no {modality} scans found in sub-*/[ses-*/]*/", where=root, remedy=remedy)
