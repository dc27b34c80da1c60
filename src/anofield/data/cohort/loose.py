"""Scans that lie in no known tree: in a folder, matched by a glob, or named one by one."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from dataclasses import replace
from pathlib import Path

from anofield._words import counted
from anofield.data.cohort.case import Case, printable
from anofield.data.cohort.cohort import LeftOut
from anofield.data.cohort.contrast import channels_of, contrasts_of, counts_of, without_contrast
from anofield.data.cohort.kinds import MASKS, NEUTRAL, OTHERS, SEGMENTATIONS, TRUTH, FileKind, kind_of
from anofield.data.cohort.walk import files_below
from anofield.data.scan import SUFFIXES, is_scan_name, stem
from anofield.errors import CohortError

OTHER_CONTRAST = "of another contrast"
APART = frozenset({"derivatives", "sourcedata"})  # of BIDS: what was made from the scans, and what they were made from
BESIDE = frozenset(
    {FileKind.LESION, FileKind.SEGMENTATION, FileKind.MASK, FileKind.BRAIN_MASK}
)  # only if named after a scan
# labelsTr and labelsTs are folders of the Medical Segmentation Decathlon.
LABEL_WORDS = SEGMENTATIONS - TRUTH | MASKS | {"probseg", "aseg", "brainmask", "lesionmask", "labelstr", "labelsts"}
AFTER_LABEL = NEUTRAL | {"auto"}  # words that may follow the word for a label: a_seg_final, a_mask_left
_BIDS_SUBJECT = re.compile(r"^(sub-[0-9A-Za-z]+)_")
# A repeated scan of a subject: p1_ses-2, p1_visit1, p1_tp02_run-1, p1_baseline.
_AGAIN = re.compile(
    r"(?<=[0-9a-z])[_\-. ]+(?:ses|session|visit|timepoint|tp|run|baseline|bl|follow-?up|fu|retest|rescan|repeat)"
    r"(?:[_\-]?[0-9]+[a-z]?|-[0-9a-z]+)?(?=$|[_\-. ])",
    re.IGNORECASE,
)
_BRATS_2023 = re.compile(r"^(BraTS-[A-Za-z]+-\d+)-\d{3}(?![0-9])")  # the last number is the visit


def find_folder(root: Path, wanted: Sequence[str], left: list[LeftOut]) -> list[Case]:
    """Every scan below `root`, without labels, masks, results of this package, and folders of derived data.

    Args:
        root: Folder to search.
        wanted: Contrasts; empty for any.
        left: Gets the files that are left out.
    """
    return loose_scans(sorted(files_below(root, left, APART)), root, wanted, left)


def loose_scans(paths: Iterable[Path], root: Path | None, wanted: Sequence[str], left: list[LeftOut]) -> list[Case]:
    """The scans among some files, each a case named after its file; files that look like labels are left out.

    Args:
        paths: Files in the order of the cases.
        root: Folder whose subfolders' names count as well; None for none.
        wanted: Contrasts; empty for any.
        left: Gets the files that are left out.

    Raises:
        CohortError: All scans are named like labels, or none has a wanted contrast.
    """
    scans = _volumes(paths, left)
    names = {name for path in scans for name in (stem(path), without_contrast(stem(path)))}
    labels = {path for path in scans if looks_like_a_label(path, root) or _belongs_to_a_scan(path, names)}
    if scans and len(labels) == len(scans):
        raise CohortError(
            f"{counted(len(scans), 'file')}, all named like labels or masks ({printable(scans[0].name)})",
            where=root or scans[0].parent,
            remedy="give one of them by its own name, or list the scans in a manifest",
        )
    left += [LeftOut(path, "named like labels or masks") for path in scans if path in labels]
    return named_scans([path for path in scans if path not in labels], root, wanted, left)


def named_scans(paths: Sequence[Path], root: Path | None, wanted: Sequence[str], left: list[LeftOut]) -> list[Case]:
    """Cases of files that are known to be scans, with the contrast and subject that their names state.

    Arguments and errors are those of `loose_scans`.
    """
    channels = channels_of(paths)
    contrasts = contrasts_of(paths, root, wanted, channels)
    names = {path: stem(path)[: -len("_0000")] if path in channels else stem(path) for path in paths}
    subjects = {path: subject_of(name) or (name if path in channels else "") for path, name in names.items()}
    cases = [Case(stem(path), path, subject=subjects[path], contrast=contrasts[path]) for path in paths]
    return of_contrasts(cases, wanted, left)


def of_contrasts(cases: Sequence[Case], wanted: Sequence[str], left: list[LeftOut]) -> list[Case]:
    """The cases of the wanted contrasts; all if no contrast is wanted, or if no name states another one.

    If no name states a contrast, the cases get the wanted one; if only some do, the others stay without one.

    Raises:
        CohortError: Names state other contrasts, and none that is wanted.
    """
    if not wanted:
        return list(cases)
    stated = {case.contrast for case in cases} - {""}
    if stated <= set(wanted):
        meant = wanted[0] if len(wanted) == 1 and not stated else ""
        return [replace(case, contrast=case.contrast or meant) for case in cases]
    kept = [case for case in cases if case.contrast in wanted]
    if not kept:
        raise CohortError(
            f"no {' or '.join(wanted)} scan",
            where=printable(str(cases[0].image.parent)),
            why=f"by their names the scans are {counts_of(case.contrast or 'of unknown contrast' for case in cases)}",
            remedy="choose another contrast with --modality, or list the scans in a manifest",
        )
    left += [LeftOut(c.image, OTHER_CONTRAST, c.contrast or "unknown") for c in cases if c.contrast not in wanted]
    return kept


def looks_like_a_label(path: Path, root: Path | None = None) -> bool:
    """Whether a file is named like a label or mask: by its last word (`LABEL_WORDS`), by a `label-`, or by a folder.

    Words are runs of letters; digits and signs separate them, and words such as `left` may follow the last. A folder
    between `root` and the file counts if its whole name ends in such a word, unless the file is named after it.

    >>> names = ("b_seg.nii", "a_dseg_2.nii", "labelsTr/a.nii", "SEG01_T2w.nii", "a_mask_left.nii")
    >>> [looks_like_a_label(Path(name)) for name in names]
    [True, True, False, False, True]
    >>> looks_like_a_label(Path("x/labelsTr/a.nii"), Path("x")), looks_like_a_label(Path("x/SEG/SEG_a.nii"), Path("x"))
    (True, False)
    """
    name = stem(path).lower()
    words = re.findall("[a-z]+", name)
    while len(words) > 1 and words[-1] in AFTER_LABEL:
        words.pop()
    if (words and words[-1] in LABEL_WORDS) or re.search("(^|_)label-", name):
        return True
    folders = [folder.lower() for folder in path.parent.relative_to(root).parts] if root else []
    ends = [(folder, match[0]) for folder in folders if (match := re.search("[a-z]+$", folder))]
    return any(end in LABEL_WORDS and not name.startswith(folder) for folder, end in ends)


def subject_of(name: str) -> str:
    """The subject that the name of a scan states; empty if it states none.

    >>> [subject_of(name) for name in ("sub-01_ses-2_T2w", "BraTS-GLI-00003-001", "p1_visit2_FLAIR", "p1")]
    ['sub-01', 'BraTS-GLI-00003', 'p1', '']
    """
    if match := _BIDS_SUBJECT.match(name) or _BRATS_2023.match(name):
        return match[1]
    bare = _AGAIN.sub("", without_contrast(name))
    return bare if bare != name else ""


def _volumes(paths: Iterable[Path], left: list[LeftOut]) -> list[Path]:
    """The files that are named like scans; a pair of `.hdr` and `.img` is one."""
    paths = [path for path in paths if not path.name.startswith(".") and not path.is_dir()]
    found = dict.fromkeys(path for path in paths if is_scan_name(path))
    for path in paths:
        if path.suffix.lower() == ".img":
            header = next((p for end in (".hdr", ".HDR", ".Hdr") if (p := path.with_suffix(end)).exists()), None)
            if header is None:
                left.append(LeftOut(path, "without their header (.hdr)"))
            else:
                found.setdefault(header)
    return list(found)


def _belongs_to_a_scan(path: Path, names: set[str]) -> bool:
    """Whether a name is that of another scan, with or without its contrast, and a word for a label or a result.

    Such names are `mask_p1`, `p1_lesion`, `p1_wmh` beside `p1` or `p1_T2w`; also one word alone: `lesion`, `wmh`.

    Args:
        path: File whose name is judged.
        names: Names of the scans that were found with it, also without contrast; files beside it count as well.
    """
    name = stem(path)
    if re.fullmatch("[A-Za-z]+", name):
        return kind_of(name) in BESIDE

    def is_scan(other: str) -> bool:
        """Whether there is a scan of this name."""
        return other in names or any(path.with_name(other + end).exists() for end in SUFFIXES)

    before, _, rest = name.partition("_")
    if kind_of(before) in BESIDE and is_scan(rest):
        return True
    ends = (match.start() for match in re.finditer("[_-]", name))
    return any(_is_no_scan(name[end:]) and is_scan(name[:end]) for end in ends if end)


def _is_no_scan(rest: str) -> bool:
    """Whether the rest of a name, after that of a scan, says label, mask, or result of a program."""
    return kind_of(rest, strict=True) in BESIDE or rest[1:].lower() in OTHERS
