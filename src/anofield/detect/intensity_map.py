"""Smooth map of a scan's intensities, fitted together with the code: gain, gamma and a bias field of low order.

log x' = log x − (gain + gamma · log x̂ + polynomial of the position), fitted robustly so that x' agrees with the
expected healthy intensity x̂. A lesion is an outlier of this regression and has little influence on it.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from anofield.data.classes import assign_brain
from anofield.data.lattice import field_coordinates
from anofield.data.prepared import Prepared
from anofield.typing import FloatVolume

ORDER_SD = (0.15, 0.15, 0.10, 0.10)  # prior SD of gain, gamma, linear and quadratic terms, log intensity
TUKEY = 4.685  # standard deviations beyond which an outlier has weight 0; 95 % efficient (Beaton & Tukey 1974)
ROUNDS = 8  # reweightings; the result converges after about five
SPREAD_SD = 0.5  # weight of the prior, in percent of the voxels: neighbouring voxels are correlated
Values = NDArray[np.float64]


@dataclass(frozen=True)
class IntensityMap:
    """A fitted intensity map.

    Attributes:
        coefficients: Coefficients of gain, gamma, x, y, z, x², y², z², xy, xz, yz, (11,).
        pivot: Log intensity that gamma leaves unchanged.
    """

    coefficients: Values
    pivot: float

    @property
    def gain(self) -> float:
        """Factor on the scan's intensities at the centre of the box."""
        return float(np.exp(self.coefficients[0]))

    def corrected(self, prepared: Prepared) -> Prepared:
        """The scan with the map inverted: new intensities and classes, everything else unchanged."""
        shift, scale = prepared.scale
        place = places(prepared)
        native = np.maximum(prepared.intensity[prepared.brain] * scale + shift, _least(prepared))
        log = np.log(native)
        expected = (log - self.pivot - place @ self.coefficients[2:] - self.coefficients[0]) / (
            1 + self.coefficients[1]
        )
        intensity = np.zeros_like(prepared.intensity)
        intensity[prepared.brain] = np.clip((np.exp(expected + self.pivot) - shift) / scale, 0.0, 1.0)
        classes = assign_brain(intensity, prepared.brain, prepared.recipe.centers)
        return replace(prepared, intensity=intensity, classes=classes)


def places(prepared: Prepared) -> Values:
    """Polynomials of the field coordinates at the brain voxels, (voxel, 9)."""
    resolution = prepared.lattice.resolution
    axis = field_coordinates(np.arange(resolution, dtype=np.float64), resolution)
    x, y, z = (axis[index] for index in np.nonzero(prepared.brain))
    return np.stack([x, y, z, x * x, y * y, z * z, x * y, x * z, y * z], axis=1)


def fit_intensity_map(expected: FloatVolume, prepared: Prepared, rows: NDArray[np.intp]) -> IntensityMap:
    """Regress the scan on its expected healthy intensity.

    Args:
        expected: Normalised intensity expected at some brain voxels, (n,).
        prepared: The scan on its lattice.
        rows: Indices of these voxels in `numpy.flatnonzero(prepared.brain)`, (n,).
    """
    shift, scale = prepared.scale
    least = _least(prepared)
    hat = np.log(np.maximum(expected * scale + shift, least)).astype(np.float64)
    seen = np.log(np.maximum(prepared.intensity[prepared.brain][rows] * scale + shift, least)).astype(np.float64)
    pivot = float(np.median(hat))
    basis = np.column_stack([np.ones(len(rows)), hat - pivot, places(prepared)[rows]])
    coefficients = _robust(basis, seen - hat)
    return IntensityMap(coefficients, pivot)


def _robust(basis: Values, target: Values) -> Values:
    """Iteratively reweighted least squares with Tukey's weights and a Gaussian prior, (n, k), (n,) → (k,)."""
    gain, gamma, linear, square = ORDER_SD
    sd = np.array([gain, gamma, *[linear] * 3, *[square] * 6])
    found: Values = np.zeros(basis.shape[1])
    for _ in range(ROUNDS):
        residual = target - basis @ found
        spread = max(1.4826 * float(np.median(np.abs(residual - np.median(residual)))), 1e-3)
        weight = np.clip(1 - (residual / (TUKEY * spread)) ** 2, 0, None) ** 2
        prior = np.diag((spread / sd) ** 2) * max(len(target) * 0.01 * SPREAD_SD, 1.0)
        normal = basis.T @ (basis * weight[:, None]) + prior
        found = np.asarray(np.linalg.solve(normal, basis.T @ (weight * target)), dtype=np.float64)
    return found


def _least(prepared: Prepared) -> float:
    """Lower limit of the scan's intensities, applied before the logarithm."""
    shift, scale = prepared.scale
    return 0.02 * abs(scale + shift) + 1e-12
