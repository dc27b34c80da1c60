"""Cases of an HCP tree, a BraTS tree and a plain folder, and the recognition of a folder's layout."""

from __future__ import annotations

import re
from collections.abc import Iterable
from pathlib import Path

from anofield._words import counted
from anofield.data.cohort.case import Case
from anofield.data.cohort.walk import files_below
from anofield.data.scan import SUFFIXES, stem
from anofield.errors import CohortError, UsageError

HCP_FILES = {"T2w": "T2w_acpc_dc_restore_brain.nii.gz", "T1w": "T1w_acpc_dc_restore_brain.nii.gz"}  # HCP 1200 release
BRATS_ENDINGS = {  # file names of BraTS 2018 to 2021, and of 2023
    "T2w": ("_t2", "-t2w"),
    "T1w": ("_t1", "-t1n"),
    "FLAIR": ("_flair", "-t2f"),
    "T1c": ("_t1ce", "-t1c"),
}
LABEL_WORDS = frozenset(
    (*("seg", "dseg", "probseg", "aseg", "segmentation", "segmentations", "roi", "rois"),
     *("mask", "masks", "brainmask", "lesionmask", "label", "labels", "labelmap"),
     *("labelstr", "labelsts"))  # labelsTr, labelsTs: Medical Segmentation Decathlon
)  # fmt: skip


def find_hcp(root: Path, modality: str = "T2w") -> list[Case]:
    """HCP 1200 tree: `<id>/T1w/T2w_acpc_dc_restore_brain.nii.gz`, at any depth below `root`."""
    if modality not in HCP_FILES:
        raise UsageError(f"HCP has no {modality} scans", remedy=f"choose one of {', '.join(HCP_FILES)}")
    found = (p for p in files_below(root) if p.name == HCP_FILES[modality] and p.parent.name == "T1w")
    return [Case(image.parents[1].name, image) for image in found]


def find_brats(root: Path, modality: str = "T2w") -> list[Case]:
    """BraTS tree: `<case>/<case>_t2.nii.gz`, at any depth below `root`."""
    if modality not in BRATS_ENDINGS:
        raise UsageError(f"BraTS has no {modality} scans", remedy=f"choose one of {', '.join(BRATS_ENDINGS)}")
    found = ((p, ending) for p in files_below(root) for ending in BRATS_ENDINGS[modality] if _is_brats(p, ending))
    return [Case(p.parent.name, p) for p, _ in found]


def find_folder(root: Path, modality: str = "T2w") -> list[Case]:
    """Every scan of any modality below `root`, without the files for which `looks_like_a_label` holds."""
    return loose_scans(sorted(files_below(root)), root)


def looks_like_a_label(path: Path, root: Path | None = None) -> bool:
    """Whether a file is named like a label or mask: by its first or last word (`LABEL_WORDS`), or by a `label-`.

    Words are runs of letters; digits and signs separate them. The folders between `root` and the file count as well.

    >>> [looks_like_a_label(Path(name)) for name in ("b_seg.nii", "a_dseg_2.nii", "labelsTr/a.nii", "Seganita_T2w.nii")]
    [True, True, False, False]
    >>> looks_like_a_label(Path("x/labelsTr/a.nii"), Path("x"))
    True
    """
    folders = path.parent.relative_to(root).parts if root else ()
    words = [re.findall("[a-z]+", name.lower()) for name in (stem(path), *folders)]
    outer = {word for run in words if run for word in (run[0], run[-1])}
    return bool(outer & LABEL_WORDS) or re.search("(^|_)label-", stem(path)) is not None


def recognise(root: Path) -> str:
    """Layout of a folder, by a BIDS description or tree, else by the first scan; `folder` if it is none of them."""
    if (root / "dataset_description.json").is_file() or any(
        next(root.glob(f"sub-*/{session}anat"), None) for session in ("", "ses-*/")
    ):
        return "bids"
    for path in files_below(root):
        if path.name in HCP_FILES.values() and path.parent.name == "T1w":
            return "hcp"
        if any(_is_brats(path, ending) for endings in BRATS_ENDINGS.values() for ending in endings):
            return "brats"
    return "folder"


def _is_brats(path: Path, ending: str) -> bool:
    return path.name.endswith(SUFFIXES) and stem(path) == path.parent.name + ending


def loose_scans(paths: Iterable[Path], root: Path | None) -> list[Case]:
    """The scans among some files, each a case named after its file; files that look like labels are left out.

    Args:
        paths: Files in the order of the cases.
        root: Folder whose subfolders' names count as well; None for none.

    Raises:
        CohortError: All scans are named like labels.
    """
    scans = [p for p in paths if p.name.endswith(SUFFIXES) and not p.name.startswith(".") and not p.is_dir()]
    kept = [Case(stem(p), p) for p in scans if not looks_like_a_label(p, root)]
    if scans and not kept:
        raise CohortError(
            f"{counted(len(scans), 'file')}, all named like labels or masks ({scans[0].name})",
            where=root or scans[0].parent,
            remedy="give one of them by its own name, or list the scans in a manifest",
        )
    return kept
