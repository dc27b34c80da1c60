"""Smooth random fields of the head frame: cubic B-splines with random coefficients, exact on any lattice."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from anofield.typing import FloatVolume, Volume

HALF_WIDTH_MM = 128.0  # the head frame reaches this far from the centre of the head, on every axis
WIDTH_IN_SPACINGS = 2.0  # full width at half maximum of the autocorrelation, in control-point spacings
SUM_OF_SQUARES = 0.479  # mean over a cell of the sum of squared cubic B-spline weights, per axis

Axes = tuple[NDArray[np.float64], NDArray[np.float64], NDArray[np.float64]]


@dataclass(frozen=True)
class Spline:
    """A field over the head frame; `coefficients` is `(channel, i, j, k)`, `spacing` in mm."""

    spacing: float
    coefficients: FloatVolume

    def on(self, axes: Axes) -> FloatVolume:
        """Values `(channel, i, j, k)` at the lattice of three axes of head coordinates, in mm."""
        values = self.coefficients
        for axis in axes:
            # The contracted axis leaves the front of the space axes and comes back last: (c, j, k, i).
            values = np.tensordot(values, self._basis(axis), axes=([1], [1]))
        return values

    def at(self, points: FloatVolume) -> FloatVolume:
        """Values `(channel, n)` at any head coordinates `(3, n)` in mm; `on` is cheaper for a lattice."""
        places = points / np.float32(self.spacing) + np.float32((self.coefficients.shape[1] - 1) / 2)
        channels = [
            ndimage.map_coordinates(one, places, order=3, prefilter=False, output=np.float32)
            for one in self.coefficients
        ]
        return np.stack(channels)

    def _basis(self, axis: NDArray[np.float64]) -> NDArray[np.float32]:
        """Weights `(point, control point)` of the cubic B-spline at head coordinates in mm."""
        count = self.coefficients.shape[1]
        place = axis / self.spacing + (count - 1) / 2
        return cubic(np.abs(place[:, None] - np.arange(count)[None, :])).astype(np.float32)


def cubic(t: Volume) -> Volume:
    """The cubic B-spline at distance `t >= 0` from its knot, in knot spacings."""
    near, far = 2 / 3 - t**2 + t**3 / 2, np.maximum(2 - t, 0) ** 3 / 6
    return np.where(t < 1, near, far)


def draw_field(rng: np.random.Generator, width: float, sd: float, channels: int = 1) -> Spline:
    """A random field of standard deviation `sd` whose features are about `width` mm wide."""
    spacing = width / WIDTH_IN_SPACINGS
    count = 2 * int(np.ceil(HALF_WIDTH_MM / spacing)) + 4
    values = rng.standard_normal((channels, count, count, count), dtype=np.float32)
    return Spline(spacing, values * np.float32(sd / SUM_OF_SQUARES**1.5))
