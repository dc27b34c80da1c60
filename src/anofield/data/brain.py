"""A scan with its brain voxels, read from a file or from memory, and the checks of both."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np

from anofield._progress import say_once
from anofield.data.background import background_value, border_values, faces, not_background
from anofield.data.labels import as_mask
from anofield.data.scan import Scan, as_scan
from anofield.data.whole import doubts
from anofield.errors import ScanError
from anofield.typing import Mask, PathLike, Volume

BRAIN_VOLUME_ML = (300.0, 2400.0)  # newborn brain to far above the largest adult brain; a whole head is 3 to 5 litres
SECOND_VALUE = 0.05  # share of the border; voxels of brain that reach the border have many values
FACE_COVERED = 0.5  # share of a face; a brain that is cut off covers one or two faces like this, at most three
FACES_COVERED = 4
FACE_TOUCHED = 0.25  # share of each of the six faces; a brain in its bounding box touches them with less
STRIP = "remove the skull (HD-BET, SynthStrip, BET set the outside to 0), or give a brain mask with --mask"


def brain_voxels(scan: Scan, mask: Any = None) -> Mask:
    """Voxels above 0 in the mask, or without a mask those that are not background; nothing else is checked.

    Raises:
        ScanError: The mask cannot be used.
    """
    if mask is None:
        return not_background(scan.data, background_value(scan.data))
    return as_mask(mask, scan)[0]


def brain_mask(scan: Scan, mask: Any = None) -> Mask:
    """Brain voxels of a scan; see `read_brain`."""
    return read_brain(scan, mask)[0]


def read_brain(scan: Scan, mask: Any = None) -> tuple[Mask, tuple[str, ...]]:
    """Brain voxels of a scan: those above 0 in the mask, or without a mask those that are not background.

    The background is the value that fills most of the scan's border: 0, or what a program wrote in its place. The brain
    of a scan with background 0 is what is not 0, as published in 2021. Small holes are brain if the brain has values
    below and above that of the background, so that a few of its voxels have that value by rounding.

    Args:
        scan: The scan.
        mask: A mask in one of the forms of `as_mask`, for example a path; None for no mask.

    Returns:
        The brain voxels, (i, j, k), and what is to be known about them, one sentence each.

    Raises:
        ScanError: The mask cannot be used, the background is not one value, or the brain's volume or what it covers of
            the border is not that of a brain: the scan is not skull-stripped, or holds no brain.
    """
    value = background_value(scan.data) if mask is None else None
    brain, note = (brain_voxels(scan), None) if mask is None else as_mask(mask, scan)
    where = mask if isinstance(mask, str | Path) else scan.path
    if value is not None:
        _check_one_background(scan)
    try:
        _check_faces(brain, where)
        _check_volume(brain, scan, where, value)
    except ScanError as error:
        what = f"{error.what}; {note}" if note else error.what
        raise ScanError(what, where=error.where, why=error.why, remedy=error.remedy) from None
    return brain, (note,) if note else ()


def _check_volume(brain: Mask, scan: Scan, where: PathLike, value: float | None) -> None:
    """Refuse a volume that no brain has."""
    volume = float(np.count_nonzero(brain)) * scan.voxel_ml
    low, high = BRAIN_VOLUME_ML
    are = "are in it" if value is None else "are not zero" if value == 0 else f"are not background ({value:g})"
    if volume > high:
        raise ScanError(
            f"{volume:.0f} ml {are}, more than any brain ({high:.0f} ml)",
            where=where,
            why="the scan is not skull-stripped, and skull and scalp would be reported as anomalies",
            remedy=STRIP,
        )
    if volume < low:
        raise ScanError(
            f"only {volume:.0f} ml {are}, less than any brain ({low:.0f} ml)",
            where=where,
            why="there is too little brain to fit",
            remedy="open the file in a viewer; check that its voxel size is in millimetres",
        )


def _check_one_background(scan: Scan) -> None:
    """Refuse a scan whose border holds a second value so often that it is not brain."""
    values, shares = border_values(scan.data)
    if len(values) > 1 and shares[1] >= SECOND_VALUE:
        raise ScanError(
            f"its background is not one value ({values[0]:g} in {shares[0]:.0%}, {values[1]:g} in {shares[1]:.0%} of "
            "the border)",
            where=scan.path,
            why="the outside would be taken for brain",
            remedy="set all voxels outside the brain to 0, or give a brain mask with --mask",
        )


def _check_faces(brain: Mask, where: PathLike) -> None:
    """Refuse a brain that fills its field of view: the background is noise, or the mask is not one of a brain."""
    shares = [float(np.mean(face)) for face in faces(brain)]
    covered = sum(share > FACE_COVERED for share in shares)
    if covered >= FACES_COVERED or min(shares) > FACE_TOUCHED:
        raise ScanError(
            f"what would be brain reaches the border on all sides ({np.mean(shares):.0%} of its six faces)",
            where=where,
            why="the scan is not skull-stripped, or its background is noise, which would be reported as anomalies",
            remedy=STRIP,
        )


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
        notes: What is to be known about the brain mask, one sentence each.
    """

    scan: Scan
    brain: Mask
    notes: tuple[str, ...] = ()

    @cached_property
    def doubts(self) -> tuple[str, ...]:
        """Signs that a part of the brain is missing, in words; none for a whole brain (`anofield.data.whole`)."""
        return doubts(self.brain, self.scan.affine)

    @property
    def brain_ml(self) -> float:
        """Volume of the brain, ml."""
        return float(self.brain.sum()) * self.scan.voxel_ml


def as_stripped(source: Any, mask: Any = None, *, dtype: type[np.floating[Any]] = np.float32) -> StrippedScan:
    """Read a scan and its brain from a path or from memory; doubts and notes about the brain are said on stderr.

    Args:
        source: A path, a `Scan`, a nibabel image, or an array with its affine `(array, affine)`.
        mask: Brain mask in the same forms, or an array on the scan's voxels; None takes what is not background.
        dtype: Type of the intensities.

    Raises:
        ScanError: The scan or its mask cannot be used, or every brain voxel has the same intensity.
    """
    scan = as_scan(source, dtype=dtype)
    brain, notes = read_brain(scan, mask)
    check_contrast(scan.data[brain], scan.path)
    native = StrippedScan(scan, brain, notes)
    for text in (*native.doubts, *notes):
        say_once(f"{scan.path}: {text}")
    return native
