"""What the name of a file says about it: a lesion label, a brain mask, or neither."""

from __future__ import annotations

import re
from enum import Enum

LESIONS = ("lesion", "tumor", "tumour", "infarct", "stroke", "metasta", "wmh")  # anywhere in a word
TRUTH = frozenset(("truth", "gt", "groundtruth"))
SEGMENTATIONS = TRUTH | frozenset(
    ("seg", "segs", "segm", "segmentation", "segmentations", "dseg", "label", "labels", "labelmap", "roi", "rois",
     "annotation", "annotations", "delineation", "contour")
)  # fmt: skip
MASKS = frozenset(("mask", "masks", "msk"))  # msk: ISLES 2022
BRAINS = frozenset(("bet", "hdbet", "synthstrip", "robex", "strip", "stripped", "skullstrip", "skullstripped", "icv"))
TISSUES = ("aseg", "aparc", "wmparc", "probseg", "parcellation", "anofield")  # anywhere in a word: never a label
OTHERS = frozenset(  # guesses of programs, tissues and results: never a label either
    ("pred", "preds", "prediction", "predictions", "predicted", "prob", "probs", "probability", "score", "anomaly",
     "restoration", "gm", "wm", "csf", "tissue", "tissues", "atlas", "ventricle", "ventricles")
)  # fmt: skip
CONTRASTS = frozenset(
    ("t1", "t1w", "t1n", "t1c", "t1ce", "t1gd", "t2", "t2w", "t2f", "t2star", "t2starw", "flair", "pd", "pdw", "swi",
     "dwi", "adc", "bold", "asl", "unit1", "mprage", "inplanet2")
)  # fmt: skip
NEUTRAL = frozenset(  # who drew it, which side, which version
    ("rater", "reader", "expert", "annotator", "observer", "manual", "consensus", "majority", "left", "right", "l", "r",
     "lh", "rh", "final", "corrected", "edited", "space", "native", "orig", "original", "desc", "binary", "bin", "v",
     "version", "ground", "resampled", "registered", "reg", "ms", "acute", "chronic", "whole", "total", "merged",
     "both")
)  # fmt: skip


class FileKind(Enum):
    """What a file is, as its name says."""

    LESION = "lesion label"
    SEGMENTATION = "segmentation"
    MASK = "mask"
    BRAIN_MASK = "brain mask"
    BRAIN = "brain"
    PLAIN = "file with the name of the case"
    OTHER = "other file"


def kind_of(text: str, *, strict: bool = False) -> FileKind | None:
    """What a file is, by the part of its name that follows the name of its case.

    Args:
        text: The part of the name; empty if the file has the name of its case.
        strict: Whether every word must be known, except single letters after the first word (`_rater_a_seg`). An
            unknown word may belong to the name of another case.

    Returns:
        The kind; None if `strict` and a word is unknown.

    >>> [kind_of(text).name for text in ("_lesion_mask", "-seg", "_desc-brain_mask", "_mask", "_bet", "", "_rater1")]
    ['LESION', 'SEGMENTATION', 'BRAIN_MASK', 'MASK', 'BRAIN', 'PLAIN', 'PLAIN']
    >>> kind_of("_FLAIR").name, kind_of("_2_seg", strict=True), kind_of("_seg_2", strict=True).name
    ('OTHER', None, 'SEGMENTATION')
    """
    words = [word for word in re.split("[^0-9a-z]+", text.lower()) if word]
    classes = [_class(word) for word in words]
    first, further = words[:1], zip(words[1:], classes[1:], strict=True)
    unknown = classes[:1] == ["unknown"] or any(kind == "unknown" and len(word) > 1 for word, kind in further)
    if strict and (unknown or (first and first[0].isdecimal())):
        return None
    found = set(classes)
    if "other" in found:
        return FileKind.OTHER
    if "lesion" in found:
        return FileKind.LESION
    if "brain" in found:
        drawn = "segmentation" in found or any("mask" in word for word in words)
        return FileKind.BRAIN_MASK if drawn else FileKind.BRAIN
    for name, kind in (("segmentation", FileKind.SEGMENTATION), ("mask", FileKind.MASK)):
        if name in found:
            return kind
    return FileKind.PLAIN if found <= {"neutral"} else FileKind.OTHER


def _class(word: str) -> str:
    """Class of one word in lower case, without regard to digits at its ends."""
    bare = word.strip("0123456789")
    if any(part in word for part in TISSUES) or bare in OTHERS:
        return "other"
    if any(part in word for part in LESIONS):
        return "lesion"
    if "brain" in word or bare in BRAINS:
        return "brain"
    if "segmentation" in word:
        return "segmentation"
    for words, name in ((SEGMENTATIONS, "segmentation"), (MASKS, "mask"), (NEUTRAL | {""}, "neutral")):
        if bare in words and word not in CONTRASTS:
            return name
    return "contrast" if word in CONTRASTS else "unknown"
