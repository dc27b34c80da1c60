"""Lesion labels and brain masks: whole numbers on the voxels of a scan, and the checks that both must pass."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from anofield._words import counted
from anofield.data.cohort.own import is_result
from anofield.data.scan import Scan, Source, voxels_of
from anofield.errors import ScanError
from anofield.typing import Affine, Mask, Volume

NOISE = 0.002  # distance from a whole number that rounding explains; 1/255, a label stored as a share, is larger
NOTHING = 1e-6  # largest value of a map that is empty up to rounding; 1/65535 is larger
HIGHEST = float(np.iinfo(np.int32).max)
APART = 0.5  # voxels that a corner may be off along an axis of the scan
LARGEST_LABEL = 0.5  # share of the brain; lesions are smaller, brain masks and maps of tissues larger


def as_labels(source: Source | Volume, like: Scan, what: str = "label map") -> Volume:
    """A label map or mask (i, j, k) as integers, which must lie on the voxels of `like`.

    Args:
        source: A path, a `Scan`, a nibabel image, a pair `(array, affine)`, or an array on the voxels of `like`.
        like: The scan.
        what: Name of the map in errors.

    Returns:
        The values as int32.

    Raises:
        ScanError: The file cannot be read (but a constant map is allowed), was written by this package or is the scan
            itself; its shape differs from the scan's, or its corners lie more than half a voxel from the scan's along
            an axis of the scan; it holds values that are not finite, negative or not whole numbers.
    """
    if isinstance(source, str | Path) and is_result(Path(source)):
        raise ScanError(
            f"the {what} is a result of anofield",
            where=source,
            why="what a detection found is not the truth about the scan",
            remedy=f"give a {what} from another source",
        )
    data, affine, path = voxels_of(source, like)
    _check_place(data.shape, affine, like, path, what)
    _check_values(data, path, what)
    if data.any() and np.array_equal(data, like.data.astype(data.dtype, copy=False)):
        remedy = f"give the {what}; a scan and its {what} may not have the same name"
        raise ScanError(f"the {what} is the scan itself, voxel by voxel", where=path, remedy=remedy)
    return np.rint(data).astype(np.int32)


def read_truth(paths: Sequence[Path], scan: Scan, brain: Mask | None) -> Volume:
    """The lesion truth of a scan (i, j, k), int32; in several files the largest value of each voxel.

    Args:
        paths: Label files, at least one.
        scan: The scan.
        brain: Its brain voxels; None if they are unknown, then the size of the truth is not checked.

    Raises:
        ScanError: See `as_labels`; or the truth covers more than `LARGEST_LABEL` of the brain.
    """
    truth: Volume = np.maximum.reduce([as_labels(path, scan) for path in paths])
    brain_voxels = 0 if brain is None else np.count_nonzero(brain)
    share = np.count_nonzero((truth > 0) & brain) / brain_voxels if brain is not None and brain_voxels else 0.0
    if share > LARGEST_LABEL:
        raise ScanError(
            f"the label covers {100 * share:.0f} % of the brain",
            where=" and ".join(map(str, paths)),
            why="it shows the brain or its tissues, not lesions",
            remedy="name the lesion labels with --label, or with -t when you evaluate",
        )
    return truth


def corners_apart(affine: Affine, like: Affine, shape: Sequence[int]) -> tuple[float, float]:
    """Largest distance between the corners of two grids of one shape.

    Args:
        affine: Voxel index → world, RAS+ mm, (4, 4).
        like: The same of the grid whose voxels are the unit.
        shape: Voxels per axis of both grids.

    Returns:
        Voxels of `like` along the axis where the corners are furthest apart, and mm along a world axis.
    """
    index = np.array(np.meshgrid(*[(0, n - 1) for n in shape[:3]], indexing="ij")).reshape(3, -1)
    moved = (affine - like)[:3, :3] @ index + (affine - like)[:3, 3:]
    voxels = np.linalg.solve(like[:3, :3], moved)
    return float(np.abs(voxels).max()), float(np.abs(moved).max())


def _check_place(shape: tuple[int, ...], affine: Affine, like: Scan, path: Path, what: str) -> None:
    if shape != like.data.shape:
        raise ScanError(
            f"the {what} has shape {shape}, its scan {like.data.shape} ({like.path.name})",
            where=path,
            why="the two are compared voxel by voxel",
            remedy=f"resample the {what} to the scan with nearest-neighbour interpolation",
        )
    voxels, mm = corners_apart(affine, like.affine, shape)
    if voxels > APART:
        raise ScanError(
            f"the {what}'s affine puts its corners {voxels:.1f} voxels ({mm:.1f} mm away) from the scan's "
            f"({like.path.name})",
            where=path,
            why="the two would be compared at different positions",
            remedy=f"copy the scan's affine into the {what} if the voxels correspond, otherwise resample it",
        )


def _check_values(data: Volume, path: Path, what: str) -> None:
    """Refuse values that no label has; rounding would make some of them 0, which is healthy."""
    if not np.isfinite(data).all():
        raise ScanError(f"the {what} holds NaN or infinity", where=path, remedy="write it as whole numbers")
    low, high = float(data.min()), float(data.max())
    if low < -NOISE:
        what_is, why = (
            f"the {what} holds negative values, down to {low:g}",
            "a voxel is labelled if its value is above 0",
        )
        raise ScanError(what_is, where=path, why=why, remedy="write 0 where nothing is labelled")
    if high > HIGHEST:
        raise ScanError(f"the {what} holds {high:g}", where=path, remedy="write labels as small whole numbers")
    fractions = int(np.count_nonzero(np.abs(data - np.rint(data)) > NOISE))
    if fractions or NOTHING < high < 0.5:
        odd = counted(fractions or int(np.count_nonzero(data > NOTHING)), "voxel")
        raise ScanError(
            f"the {what} is not made of whole numbers: {odd} with fractions, the largest value is {high:g}",
            where=path,
            why="it is a probability map, was interpolated, or has a scale factor in its header",
            remedy="threshold it, and store it as whole numbers without a scale factor",
        )
