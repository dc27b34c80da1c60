"""A cohort: cases (id, scan, label, mask) found in an HCP, BraTS or BIDS tree, a folder, a glob or one file."""

from __future__ import annotations

import glob
import itertools
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from anofield.errors import CohortError, UsageError
from anofield.scan import SUFFIXES, stem
from anofield.typing import PathLike

DATASETS = ("auto", "hcp", "brats", "bids", "folder")
HCP_FILES = {"T2w": "T2w_acpc_dc_restore_brain.nii.gz", "T1w": "T1w_acpc_dc_restore_brain.nii.gz"}  # HCP 1200 release
BRATS_SUFFIX = {"T2w": "t2", "T1w": "t1", "FLAIR": "flair"}  # BraTS 2018 file names
LESION_MASKS = ("lesion_mask", "label-lesion_mask")


@dataclass(frozen=True)
class Case:
    """One scan of a cohort.

    Attributes:
        id: Unique in the cohort; also the name of the case's folder in a run.
        image: Scan file.
        label: Lesion truth on the scan's voxels, if there is one.
        mask: Brain mask on the scan's voxels, if there is one.
        subject: Whom it shows; splits never separate the scans of one subject. Empty means the id.
    """

    id: str
    image: Path
    label: Path | None = None
    mask: Path | None = None
    subject: str = ""


def find_cases(source: PathLike, *, dataset: str = "auto", modality: str = "T2w") -> list[Case]:
    """Find the cases of a cohort, sorted by id.

    Args:
        source: A scan, a folder, or a glob pattern.
        dataset: How the folder is laid out, one of `DATASETS`; `auto` looks for the marks of each.
        modality: `T2w`, `T1w` or `FLAIR`; which scan of an HCP, BraTS or BIDS tree is meant.

    Raises:
        CohortError: Nothing there, no scan found, or two scans with one id.
        UsageError: Unknown data set.
    """
    if dataset not in DATASETS:
        raise UsageError(f"unknown data set {dataset!r}", remedy=f"choose one of {', '.join(DATASETS)}")
    path = Path(source)
    if path.is_file():
        return [Case(stem(path), path)]
    if not path.is_dir():
        return _unique(_loose(sorted(map(Path, glob.glob(str(source), recursive=True)))), source)
    kind = _recognise(path, modality) if dataset == "auto" else dataset
    return _unique(_FINDERS[kind](path, modality), source)


def split_by_subject(
    cases: Sequence[Case], fractions: Sequence[float], generator: np.random.Generator
) -> list[list[Case]]:
    """Split cases at random into parts of about the given fractions (summing to at most 1), subjects kept whole."""
    subjects = sorted({case.subject or case.id for case in cases})
    order = [subjects[i] for i in generator.permutation(len(subjects))]
    ends = [round(len(order) * end) for end in np.cumsum([0.0, *fractions])]
    parts = [set(order[start:end]) for start, end in itertools.pairwise(ends)]
    return [[case for case in cases if (case.subject or case.id) in part] for part in parts]


def find_hcp(root: Path, modality: str = "T2w") -> list[Case]:
    """HCP 1200 tree: `<id>/T1w/T2w_acpc_dc_restore_brain.nii.gz`, at any depth below `root`."""
    if modality not in HCP_FILES:
        raise UsageError(f"HCP has no {modality} scans", remedy=f"choose one of {', '.join(HCP_FILES)}")
    found = sorted(root.glob(f"**/T1w/{HCP_FILES[modality]}"))
    return [Case(image.parents[1].name, image, _beside(image, "lesion_mask.nii.gz")) for image in found]


def find_brats(root: Path, modality: str = "T2w") -> list[Case]:
    """BraTS'18 tree: `<case>/<case>_t2.nii.gz` with `<case>_seg.nii.gz`, at any depth below `root`."""
    suffix = BRATS_SUFFIX[modality]
    found = sorted(p for p in root.glob(f"**/*_{suffix}.nii*") if p.name.startswith(p.parent.name))
    return [Case(p.parent.name, p, _beside(p, p.name.replace(f"_{suffix}.nii", "_seg.nii"))) for p in found]


def find_bids(root: Path, modality: str = "T2w") -> list[Case]:
    """BIDS tree: `sub-*/[ses-*/]anat/*_T2w.nii.gz`; lesion and brain masks are looked for under `derivatives/`."""
    found = sorted([*root.glob(f"sub-*/anat/*_{modality}.nii*"), *root.glob(f"sub-*/ses-*/anat/*_{modality}.nii*")])
    masks = _bids_masks(root)
    cases = []
    for image in found:
        prefix = stem(image)[: -len(modality) - 1]
        label = next((masks[key] for key in (f"{prefix}_{name}" for name in LESION_MASKS) if key in masks), None)
        cases.append(Case(prefix, image, label, masks.get(f"{prefix}_desc-brain_mask"), prefix.split("_")[0]))
    return cases


def find_folder(root: Path, modality: str = "T2w") -> list[Case]:
    """Every scan below `root`, whatever its modality; labels and masks (`*_seg`, `*mask*`, `*label*`) left out."""
    return _loose(sorted(p for p in root.rglob("*") if p.name.endswith(SUFFIXES)))


_FINDERS: dict[str, Callable[[Path, str], list[Case]]] = {
    "hcp": find_hcp,
    "brats": find_brats,
    "bids": find_bids,
    "folder": find_folder,
}


def _recognise(root: Path, modality: str) -> str:
    if (root / "dataset_description.json").is_file():
        return "bids"
    if next(root.glob(f"**/T1w/{HCP_FILES.get(modality, HCP_FILES['T2w'])}"), None):
        return "hcp"
    return "brats" if find_brats(root, modality) else "folder"


def _loose(paths: Iterable[Path]) -> list[Case]:
    scans = [p for p in paths if p.is_file() and p.name.endswith(SUFFIXES)]
    truth = ("_seg", "mask", "label")
    return [Case(stem(p), p) for p in scans if not any(word in stem(p) for word in truth)]


def _bids_masks(root: Path) -> dict[str, Path]:
    return {stem(p): p for p in sorted(root.glob("derivatives/**/anat/*_mask.nii*"))}


def _beside(image: Path, name: str) -> Path | None:
    path = image.with_name(name)
    return path if path.is_file() else None


def _unique(cases: list[Case], source: PathLike) -> list[Case]:
    cases = [case for case in cases if not case.image.name.startswith(".")]  # macOS's `._*`, half-written files
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
