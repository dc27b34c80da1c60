"""The background of a scan: the one value that fills the space around a stripped brain. It need not be 0."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from anofield.typing import Mask, Volume

BACKGROUND_SHARE = 0.5  # of the border, also in the bounding box of a brain; a slab of a brain has less
HOLE_VOXELS = 27  # largest hole in a brain that rounding of its intensities makes
BRAIN_PERCENTILES = (2, 98)  # a background value between them may be that of a brain voxel


def faces(data: Volume) -> list[Volume]:
    """The six outer planes of a volume, which share their edges."""
    return [data[(slice(None),) * axis + (end,)] for axis in range(3) for end in (0, -1)]


def border_values(data: Volume) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Values on the six faces, the most frequent one first, and the share of the border that each fills."""
    border = np.concatenate([face.reshape(-1) for face in faces(data)])
    values, counts = np.unique(border, return_counts=True)
    order = np.argsort(-counts, kind="stable")
    return values[order].astype(np.float64), counts[order] / border.size


def background_value(data: Volume) -> float:
    """The value that fills more of the border than any other; that of the background, if the brain is stripped."""
    return float(border_values(data)[0][0])


def with_zero_background(data: Volume) -> Volume:
    """The volume with 0 as its background, where a program wrote NaN, infinity or another value in its place.

    A value is background if it fills more of the border than any other, and a number also at least half of it. If a
    voxel elsewhere is 0, a number stays as it is, and NaN or infinity becomes the next number below all others. Any
    other volume is returned as it is.
    """
    values, shares = border_values(data)
    value, finite = values[0], bool(np.isfinite(values[0]))
    if value == 0 or (finite and shares[0] < BACKGROUND_SHARE):
        return data
    outside = np.isnan(data) if np.isnan(value) else data == value
    inside = data[~outside]
    zero_is_free = bool((inside != 0).all())
    if not inside.size or (finite and not zero_is_free):
        return data
    changed = data.copy(order="K")
    changed[outside] = 0 if zero_is_free else np.nextafter(inside.min(), data.dtype.type(-np.inf))
    return changed


def not_background(data: Volume, value: float) -> Mask:
    """Voxels that are brain if the background has this value, (i, j, k).

    Where the value is one that brain voxels have (0 in a scan of mean 0 and whole numbers), small holes are brain too.
    """
    brain = np.asarray(data != value, dtype=np.bool_)
    values = data[brain]
    if not values.size or values.min() >= value or values.max() <= value:
        return brain
    low, high = np.percentile(values, BRAIN_PERCENTILES)
    return brain | (holes(brain, HOLE_VOXELS) if low < value < high else False)


def holes(brain: Mask, most: float = np.inf) -> Mask:
    """Voxels outside a brain from which no way along faces leads to the border, (i, j, k).

    Args:
        brain: Brain voxels, (i, j, k).
        most: Voxels of the largest hole that counts.
    """
    if brain.flags.f_contiguous and not brain.flags.c_contiguous:  # as files are read; the other order is faster
        return holes(brain.T, most).T
    found = np.zeros(brain.shape, dtype=np.bool_)
    for box in ndimage.find_objects(brain.view(np.uint8), 1):  # what is open at its faces is open
        if box is not None:
            labels, count = ndimage.label(~brain[box])
            sizes = np.bincount(labels.reshape(-1), minlength=count + 1)
            sizes[0] = 0  # the brain
            for face in faces(labels):
                sizes[np.unique(face)] = 0
            found[box] = ((sizes > 0) & (sizes <= most))[labels]
    return found
