"""A scan with its brain voxels, read from a file or from memory, and the checks of both."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from anofield.data.labels import as_labels
from anofield.data.scan import Scan, as_scan
from anofield.errors import ScanError
from anofield.typing import Mask, PathLike, Volume

BRAIN_VOLUME_ML = (300.0, 2400.0)  # newborn brain to far above the largest adult brain; a whole head is 3 to 5 litres


def brain_voxels(scan: Scan, mask: Any = None) -> Mask:
    """Voxels above 0 in the mask, or without a mask those of the scan that are not 0; their volume is not checked.

    Raises:
        ScanError: The mask cannot be used.
    """
    return (scan.data != 0) if mask is None else (as_labels(mask, scan, "brain mask") > 0)


def brain_mask(scan: Scan, mask: Any = None) -> Mask:
    """Brain voxels of a scan: those above 0 in the mask, or without a mask the scan's own non-zero voxels.

    Args:
        scan: The scan.
        mask: A mask in one of the forms of `as_labels`, for example a path; None for no mask.

    Raises:
        ScanError: The mask cannot be used, or the brain's volume is outside `BRAIN_VOLUME_ML`, because the scan is not
            skull-stripped or holds no brain.
    """
    brain = brain_voxels(scan, mask)
    volume = float(np.count_nonzero(brain)) * scan.voxel_ml
    low, high = BRAIN_VOLUME_ML
    where = mask if isinstance(mask, str | Path) else scan.path
    if volume > high:
        raise ScanError(
            f"{volume:.0f} ml are not zero, more than any brain ({high:.0f} ml)",
            where=where,
            why="the scan is not skull-stripped, and skull and scalp would be reported as anomalies",
            remedy="remove the skull (HD-BET, SynthStrip, BET set the outside to 0), or give a brain mask with --mask",
        )
    if volume < low:
        raise ScanError(
            f"only {volume:.0f} ml are not zero, less than any brain ({low:.0f} ml)",
            where=where,
            why="there is too little brain to fit",
            remedy="open the file in a viewer; check that its voxel size is in millimetres",
        )
    return np.asarray(brain, dtype=np.bool_)


def check_contrast(values: Volume, path: PathLike) -> None:
    """Refuse a scan whose brain has a single intensity: the file is a mask, or a conversion went wrong.

    Args:
        values: Intensities of the brain's voxels, any shape.
        path: The scan.

    Raises:
        ScanError: All values are the same.
    """
    if values.min() == values.max():
        raise ScanError(
            f"every brain voxel has the same intensity ({float(values.flat[0]):g})",
            where=path,
            why="there is nothing to see in it",
            remedy="check that it is the scan and not its mask; check the conversion that wrote it",
        )


@dataclass(frozen=True)
class StrippedScan:
    """A scan in its own voxels, and those of them that are brain.

    Attributes:
        scan: The scan.
        brain: Brain voxels, (i, j, k).
    """

    scan: Scan
    brain: Mask

    @property
    def brain_ml(self) -> float:
        """Volume of the brain, ml."""
        return float(self.brain.sum()) * self.scan.voxel_ml


def as_stripped(source: Any, mask: Any = None, *, dtype: type[np.floating[Any]] = np.float32) -> StrippedScan:
    """Read a scan and its brain from a path or from memory.

    Args:
        source: A path, a `Scan`, a nibabel image, or an array with its affine `(array, affine)`.
        mask: Brain mask in the same forms, or an array on the scan's voxels; None takes the voxels that are not 0.
        dtype: Type of the intensities.

    Raises:
        ScanError: The scan or its mask cannot be used, or every brain voxel has the same intensity.
    """
    scan = as_scan(source, dtype=dtype)
    brain = brain_mask(scan, mask)
    check_contrast(scan.data[brain], scan.path)
    return StrippedScan(scan, brain)
