"""Find the cases of a cohort in a tree, a folder, a glob, a manifest or a file."""

from __future__ import annotations

import glob
from collections.abc import Callable, Mapping
from pathlib import Path

from anofield.data.cohort.attach import with_given, with_own
from anofield.data.cohort.bids import find_bids
from anofield.data.cohort.case import Case, cohort_of
from anofield.data.cohort.manifest import read_manifest
from anofield.data.cohort.trees import find_brats, find_folder, find_hcp, loose_scans, recognise
from anofield.data.scan import SUFFIXES, stem
from anofield.errors import CohortError, UsageError
from anofield.typing import PathLike

DATASETS = ("auto", "hcp", "brats", "bids", "folder")
_FINDERS: dict[str, Callable[[Path, str], list[Case]]] = {"hcp": find_hcp, "brats": find_brats, "folder": find_folder}


def find_cases(
    source: PathLike,
    *,
    dataset: str = "auto",
    modality: str = "T2w",
    entities: Mapping[str, str] | None = None,
    label: str | None = None,
    mask: str | None = None,
    unite: bool = False,
) -> list[Case]:
    """Find the cases of a cohort, sorted by id.

    Args:
        source: A scan, a folder, a glob pattern or a manifest (`.tsv`, see `read_manifest`).
        dataset: Layout of the folder, one of `DATASETS`; `auto` recognises it.
        modality: Modality of the scans in an HCP, BraTS or BIDS tree: `T2w`, `T1w`, `FLAIR`, `T1c`; BIDS: any suffix.
        entities: BIDS entities that a scan's name must have, for example `{"acq": "highres", "run": "1"}`.
        label: Place of the lesion labels, if they are not where the layout has them: a file pattern with `{id}`,
            `{name}` (the scan's file name without suffix) and `{dir}` (its folder), a folder or glob of files named
            after the cases, or a manifest. A relative path starts at the scan's folder or the working directory.
        mask: Place of the brain masks, in the same forms; every case must have one.
        unite: Whether a case may have several labels, which are then united: a voxel counts if one of them labels it.

    Raises:
        CohortError: The source does not exist or holds no scan, two scans have the same id, a manifest cannot be used,
            `label` finds no file for any case or `mask` none for one of them, or a case has several labels or masks.
        UsageError: The data set, placeholder or modality is unknown, or the layout has no entities.
    """
    if dataset not in DATASETS:
        raise UsageError(f"unknown data set {dataset!r}", remedy=f"choose one of {', '.join(DATASETS)}")
    layout = _layout(source, dataset)
    cases = _unique(_find(source, layout, modality, entities or {}), source)
    cases = with_own(cases, layout, Path(source), labels=label is None, masks=mask is None, unite=unite)
    return with_given(cases, label=label, mask=mask, unite=unite)


def _layout(source: PathLike, dataset: str) -> str:
    """What a source is: a `manifest`, `file` or `glob`, or the layout of a folder."""
    if not str(source).strip():
        raise UsageError("the input is empty", remedy="name a scan, a folder, a glob or a manifest")
    path = Path(source)
    if path.is_file():
        return "manifest" if path.suffix == ".tsv" else "file"
    if not path.is_dir():
        return "glob"
    return recognise(path) if dataset == "auto" else dataset


def _find(source: PathLike, kind: str, modality: str, entities: Mapping[str, str]) -> list[Case]:
    path = Path(source)
    if kind == "bids":
        return find_bids(path, modality, entities)
    if entities:
        raise UsageError(
            f"entities ({', '.join(entities)}) were asked for",
            where=str(source),
            why=f"only BIDS trees can be filtered by entities, and this looks like a {kind}",
            remedy="leave the filter out, name the layout with --dataset bids, or give a quoted glob",
        )
    if kind == "manifest":
        return read_manifest(path)
    if kind == "file":
        return [Case(stem(path), path)]
    if kind == "glob":
        return loose_scans(map(Path, sorted(glob.glob(str(source), recursive=True))), None)
    return _FINDERS[kind](path, modality)


def _unique(cases: list[Case], source: PathLike) -> list[Case]:
    if not cases:
        raise CohortError(
            "no scans found",
            where=str(source),
            remedy=f"give a file, a folder or a quoted glob ({', '.join(SUFFIXES)}), or name the layout: --dataset",
        )
    return sorted(cohort_of(cases, source), key=lambda case: case.id)
