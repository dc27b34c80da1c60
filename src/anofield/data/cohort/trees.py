"""Cases of an HCP tree and of a BraTS tree, and the recognition of a folder's layout."""

from __future__ import annotations

import os
from collections.abc import Collection, Sequence
from pathlib import Path

from anofield.data.cohort.case import Case
from anofield.data.cohort.cohort import LeftOut
from anofield.data.cohort.loose import OTHER_CONTRAST, looks_like_a_label, subject_of
from anofield.data.cohort.walk import files_below
from anofield.data.scan import is_scan_name, stem
from anofield.errors import UsageError

HCP_FILES = {"T2w": "T2w_acpc_dc_restore_brain.nii.gz", "T1w": "T1w_acpc_dc_restore_brain.nii.gz"}  # HCP 1200 release
BRATS_ENDINGS = {  # file names of BraTS 2018 to 2021, and of 2023
    "T2w": ("_t2", "-t2w"),
    "T1w": ("_t1", "-t1n"),
    "FLAIR": ("_flair", "-t2f"),
    "T1c": ("_t1ce", "-t1c"),
}
_OF_BRATS = {ending: contrast for contrast, endings in BRATS_ENDINGS.items() for ending in endings}
_OF_HCP = {name: contrast for contrast, name in HCP_FILES.items()}


def find_hcp(root: Path, wanted: Sequence[str], left: list[LeftOut]) -> list[Case]:
    """HCP 1200 tree: `<id>/T1w/T2w_acpc_dc_restore_brain.nii.gz`, at any depth below `root`.

    Args:
        root: Folder to search, also a subject's own folder.
        wanted: Contrasts.
        left: Gets the scans of subjects that have none of these contrasts, and scans beside the subjects' folders.

    Raises:
        UsageError: HCP has no scans of a contrast.
    """
    _check_contrasts("HCP", wanted, HCP_FILES)
    cases, others = [], []
    for path in files_below(root, left):
        subject, folder = _folders(path)
        contrast = _OF_HCP.get(path.name) if folder == "T1w" else None
        if contrast is not None and contrast in wanted:
            cases.append(_case(subject, path, contrast, wanted))
        elif contrast is not None:
            others.append(LeftOut(path, OTHER_CONTRAST, contrast))
        elif path.parent == root and is_scan_name(path) and folder != "T1w":
            left.append(LeftOut(path, "outside <subject>/T1w/"))
    return _with_others(cases, others, left)


def find_brats(root: Path, wanted: Sequence[str], left: list[LeftOut]) -> list[Case]:
    """BraTS tree: `<case>/<case>_t2.nii.gz`, at any depth below `root`.

    Args:
        root: Folder to search, also the folder of one case.
        wanted: Contrasts.
        left: Gets the scans of subjects that have none of these contrasts, and scans with other names.

    Raises:
        UsageError: BraTS has no scans of a contrast.
    """
    _check_contrasts("BraTS", wanted, BRATS_ENDINGS)
    cases, others = [], []
    for path in files_below(root, left):
        name, ending = _brats_name(path)
        contrast = _OF_BRATS.get(ending)
        if contrast is not None and contrast in wanted:
            cases.append(_case(name, path, contrast, wanted))
        elif contrast is not None:
            others.append(LeftOut(path, OTHER_CONTRAST, contrast))
        elif is_scan_name(path) and not looks_like_a_label(path, root):
            left.append(LeftOut(path, "not named like scans of BraTS"))
    return _with_others(cases, others, left)


def recognise(root: Path) -> str:
    """Layout of a folder, by a BIDS description or tree, else by the first scan; `folder` if it is none of them."""
    if (root / "dataset_description.json").is_file() or any(
        next(root.glob(f"sub-*/{session}anat"), None) for session in ("", "ses-*/")
    ):
        return "bids"
    for path in files_below(root, []):
        if path.name in _OF_HCP and _folders(path)[1] == "T1w":
            return "hcp"
        if _brats_name(path)[1]:
            return "brats"
    return "folder"


def _check_contrasts(layout: str, wanted: Sequence[str], known: Collection[str]) -> None:
    unknown = [contrast for contrast in wanted if contrast not in known]
    if unknown:
        raise UsageError(f"{layout} has no {unknown[0]} scans", remedy=f"choose one of {', '.join(known)}")


def _folders(path: Path) -> tuple[str, str]:
    """Names of the folder above a file's folder and of that folder, even if the path is relative; empty for none."""
    parts = ("", "", *Path(os.path.normpath(path.absolute())).parts[1:])  # a link keeps its own name
    return parts[-3], parts[-2]


def _brats_name(path: Path) -> tuple[str, str]:
    """Name of a scan's folder, and the ending that the scan's own name adds to it; empty for none of BraTS."""
    folder = _folders(path)[1]
    ending = stem(path).removeprefix(folder)
    return (folder, ending) if folder and is_scan_name(path) and ending in _OF_BRATS else ("", "")


def _case(name: str, image: Path, contrast: str, wanted: Sequence[str]) -> Case:
    """A case of a tree, named after its folder, and after its contrast as well if several are wanted."""
    alone = len(wanted) == 1
    subject = subject_of(name) or ("" if alone else name)
    return Case(name if alone else f"{name}_{contrast}", image, subject=subject, contrast=contrast)


def _with_others(cases: list[Case], others: list[LeftOut], left: list[LeftOut]) -> list[Case]:
    """The cases; scans in folders that have none of them are left out."""
    there = {_folders(case.image) for case in cases}
    left += [one for one in others if _folders(one.path) not in there]
    return cases
