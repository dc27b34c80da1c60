"""Noise and fine texture of a real scan, to be kept on what is drawn into it."""

from __future__ import annotations

import numpy as np
from scipy import ndimage

from anofield.typing import FloatVolume, Mask

GRAIN_MM = 2.0  # what varies over less than this (standard deviation) is noise or texture
LIMIT = 2.5  # robust standard deviations; what is larger is no noise
BORDER = 3.0  # slope of the denoised scan, in its usual ones, from which a voxel is a border of tissues
STILL = 1e-6


def grain_of(
    rest: FloatVolume,
    denoised: FloatVolume,
    near: Mask,
    spacing: tuple[float, float, float],
    rng: np.random.Generator,
) -> FloatVolume:
    """Noise and texture `(n,)` at the voxels `near` `(i, j, k)`.

    Borders of tissues would show through a lesion as ghosts of gyri. There the grain is replaced by random numbers of
    the same size and correlation.

    Args:
        rest: The scan without what its tissues explain, `(n,)`.
        denoised: The scan with less noise, `(n,)`.
        near: The voxels, `n` of them true.
        spacing: Voxel widths in mm.
        rng: Source of the random numbers.
    """
    volume = _filled(near, rest)
    grain = volume - np.where(near, smoothed(volume, near, [GRAIN_MM / one for one in spacing]), 0)
    values = grain[near]
    usual = max(1.4826 * float(np.median(np.abs(values))), STILL)
    values = np.clip(values, -LIMIT * usual, LIMIT * usual)
    own = _homogeneous(denoised, near)
    other = _alike(_filled(near, values * (own > 0.5)), usual, rng)[near]
    return np.asarray(own * values + np.sqrt(1 - own**2) * other, dtype=np.float32)


def smoothed(volume: FloatVolume, brain: Mask, sigma: list[float]) -> FloatVolume:
    """Gaussian mean over the brain `(i, j, k)`, `sigma` in voxels; far outside the brain its mean value."""
    weight = ndimage.gaussian_filter(brain.astype(np.float32), sigma, truncate=3.0)
    total = ndimage.gaussian_filter(np.where(brain, volume, 0).astype(np.float32), sigma, truncate=3.0)
    mean = float(volume[brain].mean())
    return np.asarray((total + np.float32(1e-4 * mean)) / (weight + np.float32(1e-4)))


def _filled(near: Mask, values: FloatVolume) -> FloatVolume:
    """A volume with values `(n,)` at the voxels `near`."""
    volume = np.zeros(near.shape, np.float32)
    volume[near] = values
    return volume


def _homogeneous(denoised: FloatVolume, near: Mask) -> FloatVolume:
    """1 where the denoised scan is flat, 0 at borders of tissues, `(n,)`."""
    filled = np.where(near, _filled(near, denoised), np.float32(denoised.mean()))
    slope = np.sqrt(sum(ndimage.sobel(filled, axis) ** 2 for axis in range(3)))[near]
    flat = max(float(np.percentile(slope, 25)), STILL)
    return np.asarray(np.exp(-((slope / (BORDER * flat)) ** 2)), dtype=np.float32)


def _alike(grain: FloatVolume, usual: float, rng: np.random.Generator) -> FloatVolume:
    """Random numbers `(i, j, k)` of a standard deviation, as much alike between neighbours as the grain is."""
    made = rng.standard_normal(grain.shape, dtype=np.float32)
    made = ndimage.gaussian_filter(made, [_width(grain, axis) for axis in range(3)], truncate=3.0)
    return np.asarray(made * np.float32(usual / max(float(made.std()), STILL)))


def _width(grain: FloatVolume, axis: int) -> float:
    """Standard deviation in voxels of the blur that makes white noise as alike along an axis as the grain."""
    lines = np.moveaxis(grain, axis, 0)
    one, next_one = lines[:-1], lines[1:]
    both = (one != 0) & (next_one != 0)
    if both.sum() < 100:
        return 0.0
    alike = float((one[both] * next_one[both]).mean() / (one[both] ** 2).mean())
    return float(0.5 / np.sqrt(-np.log(np.clip(alike, 1e-3, 0.8))))
