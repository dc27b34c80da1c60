"""Rules of an evaluation: the voxels and lesions that count, and the kinds of threshold."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from anofield.evaluation.lesions import OVERLAP

Space = Literal["brain", "all"]
Kind = Literal["calibrated", "validation", "oracle"]  # source of a threshold
KINDS: tuple[Kind, ...] = ("calibrated", "validation", "oracle")
KIND_WORDS: dict[Kind, str] = {
    "calibrated": "healthy-calibrated",
    "validation": "validation",
    "oracle": "oracle (test labels)",
}
SPACES = {"brain": "native voxels, inside the brain", "all": "native voxels, background included"}

Thresholds = dict[str, dict[Kind, float]]  # per score and kind


@dataclass(frozen=True)
class Rules:
    """The rules by which voxels and lesions count.

    Attributes:
        space: Voxels inside the brain, or all voxels of the scan's grid.
        min_lesion_ml: Volume below which a component is neither a lesion nor a finding.
        overlap: Share of a lesion that must be covered for it to be found.
        surface: Whether surface distances are measured.
    """

    space: Space = "brain"
    min_lesion_ml: float = 0.1
    overlap: float = OVERLAP
    surface: bool = True
