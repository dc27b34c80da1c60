"""Find the cases of a cohort wherever they are: a tree, a folder, a glob, a manifest, a file."""

from __future__ import annotations

import glob
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path

from anofield.data.cohort.bids import find_bids
from anofield.data.cohort.case import Case
from anofield.data.cohort.manifest import read_manifest
from anofield.data.cohort.patterns import by_pattern
from anofield.data.cohort.trees import find_brats, find_folder, find_hcp, loose_scans, recognise
from anofield.data.scan import SUFFIXES, stem
from anofield.errors import CohortError, UsageError
from anofield.typing import PathLike

DATASETS = ("auto", "hcp", "brats", "bids", "folder")
LABEL_ENDINGS = ("", "_label", "_seg", "_lesion", "_lesion_mask", "_label-lesion_mask", "_dseg", "_mask")
MASK_ENDINGS = ("", "_mask", "_brain_mask", "_brainmask", "_desc-brain_mask", "_seg")
_FINDERS: dict[str, Callable[[Path, str], list[Case]]] = {"hcp": find_hcp, "brats": find_brats, "folder": find_folder}


def find_cases(
    source: PathLike,
    *,
    dataset: str = "auto",
    modality: str = "T2w",
    entities: Mapping[str, str] | None = None,
    label: str | None = None,
    mask: str | None = None,
) -> list[Case]:
    """Find the cases of a cohort, sorted by id.

    Args:
        source: A scan, a folder, a glob pattern or a manifest (`.tsv`, see `read_manifest`).
        dataset: How the folder is laid out, one of `DATASETS`; `auto` looks for the marks of each.
        modality: Which scan of an HCP, BraTS or BIDS tree is meant: `T2w`, `T1w`, `FLAIR`, `T1c`; BIDS: any suffix.
        entities: BIDS entities that a scan's name must have, for example `{"acq": "highres", "run": "1"}`.
        label: Where the lesion truth lies, instead of where the layout has it: a file pattern with `{id}`, `{name}`
            (the scan's file name without suffix) and `{dir}` (its folder), or a folder of files named after the cases.
            A relative one counts from the scan's folder.
        mask: Where the brain masks lie, in the same way.

    Raises:
        CohortError: Nothing there, no scan found, two scans with one id, a manifest that cannot be used, or a label
            or mask that is found for no case.
        UsageError: Unknown data set, placeholder or modality, or entities for a layout that has none.
    """
    if dataset not in DATASETS:
        raise UsageError(f"unknown data set {dataset!r}", remedy=f"choose one of {', '.join(DATASETS)}")
    cases = _unique(_find(source, dataset, modality, entities or {}), source)
    labels = [case.label for case in cases] if label is None else by_pattern(cases, label, "label", LABEL_ENDINGS)
    masks = [case.mask for case in cases] if mask is None else by_pattern(cases, mask, "mask", MASK_ENDINGS)
    return [replace(case, label=lb, mask=mk) for case, lb, mk in zip(cases, labels, masks, strict=True)]


def _find(source: PathLike, dataset: str, modality: str, entities: Mapping[str, str]) -> list[Case]:
    if not str(source).strip():
        raise UsageError("the input is empty", remedy="name a scan, a folder, a glob or a manifest")
    path = Path(source)
    if path.is_file():
        kind = "manifest" if path.suffix == ".tsv" else "file"
    else:
        kind = (recognise(path) if dataset == "auto" else dataset) if path.is_dir() else "glob"
    if kind == "bids":
        return find_bids(path, modality, entities)
    if entities:
        raise UsageError(
            f"entities ({', '.join(entities)}) were asked for",
            where=str(source),
            why=f"only BIDS trees are filtered by entities, and this is taken for a {kind}",
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
    first: dict[str, Case] = {}
    for case in cases:
        if case.id in first:
            raise CohortError(
                f"two scans have the id {case.id!r}: {first[case.id].image} and {case.image}",
                where=str(source),
                why="one would overwrite the results of the other",
                remedy="rename one, or run the two folders one by one",
            )
        first[case.id] = case
    return sorted(cases, key=lambda case: case.id)
