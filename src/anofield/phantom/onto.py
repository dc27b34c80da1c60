"""Lesions with truth, implanted into real scans of healthy people in the scans' own intensities."""

from __future__ import annotations

from dataclasses import dataclass

from anofield.data.brain import StrippedScan
from anofield.typing import Classes, FloatVolume, Mask


@dataclass(frozen=True)
class Implanted:
    """A scan with a lesion.

    Attributes:
        image: Intensities in the scan's units, (i, j, k), float32.
        label: Lesion label, 0 for healthy tissue, (i, j, k), uint8.
        touched: Voxels that may differ from the scan: the lesion and the tissue that it displaces, (i, j, k).
    """

    image: FloatVolume
    label: Classes
    touched: Mask


def implant(native: StrippedScan, kind: str, seed: int, *, modality: str) -> Implanted:
    """Implant a lesion into a skull-stripped scan.

    Args:
        native: The scan and its brain.
        kind: One of `LESION_KINDS`.
        seed: Seed of the lesion.
        modality: Contrast of the scan, one of `MODALITIES`.
    """
    raise NotImplementedError
