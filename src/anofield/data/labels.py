"""Lesion labels and brain masks: whole numbers on the voxels of a scan, and the checks that both must pass."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from anofield._words import counted
from anofield.data.cohort.own import is_result
from anofield.data.scan import Scan, Source, format_spacing, orientation, voxels_of
from anofield.errors import ScanError
from anofield.typing import Affine, Mask, Volume

NOISE = 0.002  # distance from a whole number that rounding explains; 1/255, a label stored as a share, is larger
NOTHING = 1e-6  # largest value of a map that is empty up to rounding; 1/65535 is larger
HIGHEST = float(np.iinfo(np.int32).max)
APART = 0.5  # voxels that a corner may be off along an axis of the scan
MASK = "brain mask"
OVERLAPPING = 0.5  # share of a mask that must lie inside the scan; a brain that is cut off by half is refused elsewhere
OUTSIDE = 0.02  # share of a mask outside the scan that is not worth a word; resampling changes a volume by less
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
    _refuse_result(source, what)
    data, affine, path = voxels_of(source, like)
    _check_place(data, affine, like, path, what)
    return _as_integers(data, like, path, what)


def as_mask(source: Source | Volume, like: Scan) -> tuple[Mask, str | None]:
    """A brain mask (i, j, k) on the voxels of `like`: values above 0; a mask on another grid is resampled.

    A mask on another grid is laid over the scan by the two affines, with linear interpolation; a voxel is brain from
    one half on. A plain array has no affine, and neither is one of the same shape at another place resampled: one of
    the two affines is wrong, and nothing says which.

    Args:
        source: A mask in one of the forms of `as_labels`.
        like: The scan.

    Returns:
        The mask, and a sentence that says so if it was resampled.

    Raises:
        ScanError: See `as_labels`; or the mask does not overlap the scan in the world.
    """
    _refuse_result(source, MASK)
    data, affine, path = voxels_of(source, like)
    placed = not isinstance(source, np.ndarray) and data.ndim == like.data.ndim  # a plain array has no affine
    if not placed or not _elsewhere(data, affine, like) or _moved(data, affine, like):
        _check_place(data, affine, like, path, MASK)
        return _as_integers(data, like, path, MASK) > 0, None
    _check_values(data, path, MASK)
    found = on_voxels(data > 0, affine, like)
    grids = f"the brain mask has {_grid(data, affine)}, its scan {_grid(like.data, like.affine)}"
    whole_ml = np.count_nonzero(data) * float(abs(np.linalg.det(affine[:3, :3]))) / 1000.0
    share = np.count_nonzero(found) * like.voxel_ml / whole_ml if whole_ml else 1.0
    if share < OVERLAPPING:
        raise ScanError(
            f"the brain mask does not lie on the scan: {100 * share:.0f} % of it are inside the scan's grid in world "
            f"coordinates ({grids}; {like.path.name})",
            where=path,
            why="the two are of different scans, or one of them was moved without the other",
            remedy="give the mask of this scan, or make one in its space",
        )
    outside = "" if share > 1 - OUTSIDE else f"; {100 * (1 - share):.0f} % of it lie outside the scan"
    return found, f"{grids}: it was resampled to the scan by world coordinates{outside}"


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


def on_voxels(mask: Mask, affine: Affine, like: Scan) -> Mask:
    """A mask of any grid on the voxels of a scan, (i, j, k): linear interpolation in the world, brain from one half on.

    Args:
        mask: Mask on its own grid, three axes.
        affine: Voxel index of the mask → world, RAS+ mm, (4, 4).
        like: The scan.
    """
    to_mask = np.linalg.inv(affine) @ like.affine
    values = ndimage.affine_transform(
        mask.astype(np.float32), to_mask[:3, :3], to_mask[:3, 3], output_shape=like.data.shape, order=1
    )
    return np.asarray(values >= 0.5)


def _refuse_result(source: Source | Volume, what: str) -> None:
    if isinstance(source, str | Path) and is_result(Path(source)):
        raise ScanError(
            f"the {what} is a result of anofield",
            where=source,
            why="what a detection found is not the truth about the scan",
            remedy=f"give a {what} from another source",
        )


def _as_integers(data: Volume, like: Scan, path: Path, what: str) -> Volume:
    """Checked values on the voxels of a scan, int32."""
    _check_values(data, path, what)
    if data.any() and np.array_equal(data, like.data.astype(data.dtype, copy=False)):
        remedy = f"give the {what}; a scan and its {what} may not have the same name"
        raise ScanError(f"the {what} is the scan itself, voxel by voxel", where=path, remedy=remedy)
    return np.rint(data).astype(np.int32)


def _elsewhere(data: Volume, affine: Affine, like: Scan) -> bool:
    """Whether a map does not lie on the voxels of a scan."""
    return data.shape != like.data.shape or corners_apart(affine, like.affine, data.shape)[0] > APART


def _moved(data: Volume, affine: Affine, like: Scan) -> bool:
    """Whether a map has the scan's shape, but lies in another part of the world: one of the affines is wrong."""
    if data.shape != like.data.shape:
        return False
    return any(
        np.abs(ends - others).max() > APART * max(like.spacing)
        for ends, others in zip(_extent(data, affine), _extent(like.data, like.affine), strict=True)
    )


def _extent(data: Volume, affine: Affine) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Lowest and highest world coordinates of a grid's corners, mm, each (3,)."""
    corners = np.array(list(np.ndindex(2, 2, 2))) * (np.array(data.shape) - 1)
    world = corners @ affine[:3, :3].T + affine[:3, 3]
    return world.min(axis=0), world.max(axis=0)


def _grid(data: Volume, affine: Affine) -> str:
    spacing = np.linalg.norm(affine[:3, :3], axis=0)
    return f"shape {data.shape} at {format_spacing(spacing)} mm and axes {orientation(affine)}"


def _check_place(data: Volume, affine: Affine, like: Scan, path: Path, what: str) -> None:
    shape = data.shape
    if shape != like.data.shape:
        hint = _like_a_brain(data, affine, like) if what != MASK and data.ndim == like.data.ndim else ""
        raise ScanError(
            f"the {what} has shape {shape}, its scan {like.data.shape} ({like.path.name}){hint}",
            where=path,
            why="the two are compared voxel by voxel",
            remedy=f"resample the {what} to the scan with nearest-neighbour interpolation"
            + (", or give it with --mask if it is the brain" if hint else ""),
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


def _like_a_brain(data: Volume, affine: Affine, like: Scan) -> str:
    """Words about a label of another shape that covers the brain of its scan as a brain mask does; else empty."""
    brain = like.data != 0
    share = np.count_nonzero(on_voxels(data > 0, affine, like) & brain) / max(int(np.count_nonzero(brain)), 1)
    return "; it covers most of the scan, so it is a brain mask rather than a label" if share > LARGEST_LABEL else ""


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
