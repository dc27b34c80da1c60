"""Filters of a score over brain voxels: first on the lattice, then on the scan's own voxels; widths are in mm."""

from __future__ import annotations

from functools import partial

import numpy as np
from scipy import ndimage

from anofield.data.lattice import Lattice, bounding_box
from anofield.detect.options import ScoreOptions
from anofield.typing import Affine, FloatVolume, Mask

EDGE_NOISE = 3e-4  # ε of the guided filter, variance of normalised intensity: 1e-3 and 1e-4 differ by 0.003 AP
NATIVE_EDGE_NOISE = 1e-3  # on the scan's own, noisier voxels; 3e-3 costs 0.005 AP


def smooth(
    values: FloatVolume, brain: Mask, lattice: Lattice, options: ScoreOptions, guide: FloatVolume | None = None
) -> FloatVolume:
    """Apply the rim, minimum, Gaussian and guided filters over brain voxels; (R, R, R) → (R, R, R), 0 outside.

    Args:
        values: Score, any value outside the brain.
        brain: Brain voxels of the lattice.
        lattice: Lattice of the scan, for the spacing.
        options: Widths of the filters, mm.
        guide: Normalised intensity for the guided filter; None skips that filter.
    """
    step = float(lattice.spacing.mean())
    minimum, edge = _odd(options.minimum_mm / step), _odd(options.edge_mm / step)
    if options.rim_mm > 0:
        depth = ndimage.distance_transform_edt(brain, sampling=lattice.spacing) - step / 2
        values = np.where(depth > options.rim_mm, values, 0.0).astype(np.float32)
    if minimum > 1:
        high = np.float32(np.finfo(np.float32).max)
        values = ndimage.minimum_filter(np.where(brain, values, high), size=minimum, mode="nearest")
    if options.gaussian_mm > 0:
        values = _masked_gaussian(values, brain, options.gaussian_mm / step / 2.355)  # FWHM = 2.355 σ
    if edge > 1 and guide is not None:
        values = guided(values, guide, brain, edge)
    return np.where(brain, values, 0.0).astype(np.float32)


def sharpen(
    values: FloatVolume, intensity: FloatVolume, brain: Mask, affine: Affine, options: ScoreOptions
) -> FloatVolume:
    """Apply the guided filter of `native_edge_mm` to the scan's own voxels (i, j, k) in the brain's bounding box.

    Args:
        values: Map, 0 outside the brain.
        intensity: Normalised intensity, any value outside the brain.
        brain: Brain voxels.
        affine: Voxel → world mm.
        options: Width of the filter, mm; 0 skips it.
    """
    step = float(np.linalg.norm(affine[:3, :3], axis=0).mean())
    width = _odd(options.native_edge_mm / step)
    box = bounding_box(brain)
    if width <= 1 or box is None:
        return values
    found = np.zeros_like(values)
    found[box] = guided(values[box], intensity[box], brain[box], width, NATIVE_EDGE_NOISE)
    return found


def guided(values: FloatVolume, guide: FloatVolume, brain: Mask, width: int, noise: float = EDGE_NOISE) -> FloatVolume:
    """Guided filter over the brain voxels of cubes of `width` voxels, clipped at 0 (He, Sun & Tang 2013, eqs. 5 to 8).

    In each cube, the linear function of the guide that is nearest to the values is fitted; the fits are averaged.
    """
    values, guide = (np.where(brain, v, 0.0).astype(np.float32) for v in (values, guide))
    mean = partial(_mean, brain=brain, weight=_share(brain, width), width=width)
    of_guide, of_values = mean(guide), mean(values)
    slope = (mean(guide * values) - of_guide * of_values) / (mean(guide**2) - of_guide**2 + np.float32(noise))
    found = mean(slope) * guide + mean(of_values - slope * of_guide)
    return np.asarray(np.maximum(found, 0.0) * brain, dtype=np.float32)


def masked_mean(values: FloatVolume, brain: Mask, width: int) -> FloatVolume:
    """Mean over the brain voxels of a cube of `width` voxels; 0 where there are none."""
    return _mean(values, brain, _share(brain, width), width)


def _share(brain: Mask, width: int) -> FloatVolume:
    """Share of brain voxels in a cube of `width` voxels around every voxel."""
    return np.asarray(ndimage.uniform_filter(brain.astype(np.float32), width, mode="constant"))


def _mean(values: FloatVolume, brain: Mask, weight: FloatVolume, width: int) -> FloatVolume:
    """`masked_mean` with the share of brain voxels already known."""
    total = ndimage.uniform_filter(np.where(brain, values, 0.0).astype(np.float32), width, mode="constant")
    return np.asarray(np.divide(total, weight, out=np.zeros_like(total), where=weight > 0.5 / width**3))


def _masked_gaussian(values: FloatVolume, brain: Mask, sigma: float) -> FloatVolume:
    """Gaussian mean over brain voxels; σ in voxels."""
    weight = ndimage.gaussian_filter(brain.astype(np.float32), sigma, mode="constant")
    total = ndimage.gaussian_filter(np.where(brain, values, 0.0).astype(np.float32), sigma, mode="constant")
    return np.asarray(np.divide(total, weight, out=np.zeros_like(total), where=weight > 1e-4))


def _odd(width: float) -> int:
    """Nearest odd number of voxels, at least 1."""
    return max(1, 2 * round((width - 1) / 2) + 1)
