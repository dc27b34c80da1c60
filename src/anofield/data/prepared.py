"""A scan on the lattice of the field: the input of every method."""

from __future__ import annotations

from dataclasses import dataclass

from anofield.data.lattice import Lattice
from anofield.data.recipe import Recipe
from anofield.typing import Classes, FloatVolume, Mask


@dataclass(frozen=True, kw_only=True)
class Prepared:
    """A scan on the lattice of the field; the scan in its own voxels stays a `StrippedScan`.

    Attributes:
        classes: Intensity class, (R, R, R) uint8.
        brain: Brain voxels, (R, R, R).
        intensity: Normalised intensity, (R, R, R) float32, 0 outside the brain.
        label: Lesion truth, (R, R, R) uint8, or None.
        lattice: Lattice and its position in the scan.
        recipe: Recipe that prepared the scan: class centres, field coordinates, meaning of class 0.
        scale: Pair (a, b) with normalised = (native − a)/b.
        content: `Scan.content_hash` of the scan in its own voxels; empty if it was not asked for.
    """

    classes: Classes
    brain: Mask
    intensity: FloatVolume
    label: Classes | None
    lattice: Lattice
    recipe: Recipe
    scale: tuple[float, float]
    content: str = ""
