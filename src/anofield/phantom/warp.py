"""Smooth invertible displacements of the template frame, as exponentials of velocity fields.

A stationary velocity field is integrated by scaling and squaring (Arsigny et al. 2006). Fields are `(3, i, j, k)` in
mm on a lattice of `STEP` mm that begins at the first voxel of the frame.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache

import numpy as np
from scipy import ndimage

from anofield.phantom.spline import Axes
from anofield.typing import FloatVolume, Shape3

STEP = 3.0  # mm
FRAME_ORIGIN = (-85.0, -103.0, -90.0)  # template coordinates of the first voxel, mm
LATTICE: Shape3 = (57, 69, 61)  # points of the frame, which has 171 x 207 x 181 voxels of 1 mm
SMALLEST_STEP = 0.5  # mm that the longest velocity may have after scaling


@dataclass(frozen=True)
class Displacement:
    """The displacement `(3, i, j, k)` in mm at the points of the lattice."""

    shift: FloatVolume

    @classmethod
    def exponential(cls, velocity: FloatVolume) -> Displacement:
        """The flow of a velocity field `(3, i, j, k)` in mm after unit time."""
        longest = float(np.sqrt((velocity**2).sum(0).max()))
        halvings = max(0, int(np.ceil(np.log2(max(longest, 1e-6) / SMALLEST_STEP))))
        shift = (velocity / np.float32(2**halvings)).astype(np.float32)
        for _ in range(halvings):
            shift = shift + _at(shift, _indices() + shift / np.float32(STEP))
        return cls(shift)

    def moved(self, points: FloatVolume) -> FloatVolume:
        """Template coordinates `(3, ...)` after the displacement."""
        first = np.array(FRAME_ORIGIN, np.float32).reshape(3, *[1] * (points.ndim - 1))
        return points + _at(self.shift, (points - first) / np.float32(STEP))

    def after(self, first: Displacement) -> Displacement:
        """The displacement that moves a point by `first` and then by this one."""
        return Displacement(first.shift + _at(self.shift, _indices() + first.shift / np.float32(STEP)))

    def jacobian(self) -> FloatVolume:
        """Change of volume `(i, j, k)`; space is folded where it is not positive."""
        slopes = np.stack([np.stack(np.gradient(channel, STEP)) for channel in self.shift])  # (channel, axis, i, j, k)
        matrices = np.moveaxis(slopes, (0, 1), (-2, -1)) + np.eye(3, dtype=np.float32)
        return np.asarray(np.linalg.det(matrices), dtype=np.float32)


def lattice_points() -> FloatVolume:
    """Template coordinates `(3, i, j, k)` of the lattice."""
    first = np.array(FRAME_ORIGIN, np.float32).reshape(3, 1, 1, 1)
    return np.asarray(first + np.float32(STEP) * _indices(), dtype=np.float32)


def lattice_axes() -> Axes:
    """Template coordinates along the three axes of the lattice."""
    x, y, z = (
        first + STEP * np.arange(count, dtype=np.float64) for first, count in zip(FRAME_ORIGIN, LATTICE, strict=True)
    )
    return x, y, z


@lru_cache(maxsize=1)
def _indices() -> FloatVolume:
    """Indices `(3, i, j, k)` of the lattice."""
    return np.indices(LATTICE).astype(np.float32)


def _at(field: FloatVolume, places: FloatVolume) -> FloatVolume:
    """Linear interpolation of a field at lattice indices `(3, ...)`."""
    result = np.empty((3, *places.shape[1:]), np.float32)
    for channel, out in zip(field, result, strict=True):
        ndimage.map_coordinates(channel, places, order=1, mode="nearest", prefilter=False, output=out)
    return result
