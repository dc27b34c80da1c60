"""Baselines without training: intensity, histogram-equalised intensity, left-right asymmetry, chance."""

from __future__ import annotations

import numpy as np
from scipy import stats

from anofield._random import seed_of
from anofield.baselines.base import Baseline, Scored, observed, tail_of
from anofield.data.prepared import Prepared
from anofield.detect.options import Tail
from anofield.detect.scores import intensity_score
from anofield.typing import FloatVolume, Mask

SHIFT_SHARE = 8  # the mirror image is shifted by up to R / SHIFT_SHARE voxels to find the plane of symmetry


class Intensity(Baseline):
    """Normalised intensity of the scan."""

    title = "raw intensity"
    paper = "Meissen, Kaissis & Rueckert 2021, BrainLes (arXiv 2109.06023)"

    def score(self, prepared: Prepared, key: str, tail: Tail) -> Scored:
        """Score a scan by its intensity; for dark lesions inverted, for both tails the distance from the median."""
        return Scored(intensity_score(prepared, tail))


class Equalised(Baseline):
    """Rank of every voxel's intensity among the voxels of its brain."""

    title = "histogram-equalised intensity"
    paper = "Meissen, Kaissis & Rueckert 2021, BrainLes (arXiv 2109.06023)"

    def score(self, prepared: Prepared, key: str, tail: Tail) -> Scored:
        """Share of the brain that is not brighter, in (0, 1]; ties share a rank.

        For dark lesions it is 1 − share, for both tails the distance of the share from ½.
        """
        values = prepared.intensity[prepared.brain]
        rank = stats.rankdata(values, method="average") / max(values.size, 1)
        if tail != "bright":
            rank = 1 - rank if tail == "dark" else np.abs(rank - 0.5)
        volume = np.zeros(prepared.lattice.shape, dtype=np.float32)
        volume[prepared.brain] = rank
        return Scored(volume)


class Random(Baseline):
    """Uniform noise: shows the value of every metric for a method without any information."""

    title = "random"
    paper = "chance"

    def score(self, prepared: Prepared, key: str, tail: Tail) -> Scored:
        """Independent random numbers in [0, 1) that depend only on the seed and the scan."""
        generator = np.random.default_rng(seed_of(self.settings.seed, key))
        return Scored(generator.random(prepared.lattice.shape, dtype=np.float32))


class Asymmetry(Baseline):
    """Difference from the mirror image, after Erihov et al. 2015 in its simplest form.

    The plane of symmetry is perpendicular to the left-right axis of the lattice and near the lattice's centre, which is
    the brain's. Its position, to half a voxel, is the one with the best correlation between the brain and its mirror
    image. A rotated head is not corrected.
    """

    title = "left-right asymmetry"
    paper = "Erihov et al. 2015, MICCAI (A cross saliency approach to asymmetry-based tumor detection)"

    def score(self, prepared: Prepared, key: str, tail: Tail) -> Scored:
        """Score a scan by its intensity minus that of the mirrored voxel; 0 where the mirrored voxel is not brain."""
        axis = self.recipe.kind.left_right
        values = observed(prepared.classes, prepared.brain, self.recipe)
        shift = symmetry_shift(values, axis)
        mirrored = mirror(values, axis, shift)
        paired = prepared.brain & (mirror(prepared.brain.astype(np.float32), axis, shift) > 0)
        mirrored = np.where(paired, mirrored, values)
        return Scored(tail_of(values - mirrored, tail), mirrored)


def mirror(values: FloatVolume, axis: int, shift: int) -> FloatVolume:
    """A volume flipped along an axis, then shifted by `shift` voxels along it and filled with 0."""
    turned = np.moveaxis(np.flip(values, axis), axis, 0)
    moved = np.zeros_like(turned)
    count = len(turned)
    moved[max(shift, 0) : count + min(shift, 0)] = turned[max(-shift, 0) : count - max(shift, 0)]
    return np.moveaxis(moved, 0, axis)


def symmetry_shift(values: FloatVolume, axis: int) -> int:
    """Shift with which `mirror` gives the image that correlates best with the volume; the smallest if several do."""
    reach = values.shape[axis] // SHIFT_SHARE
    candidates = sorted(range(-reach, reach + 1), key=abs)
    return max(candidates, key=lambda shift: _correlation(values, mirror(values, axis, shift)))


def _correlation(one: FloatVolume, other: FloatVolume) -> float:
    """Pearson correlation over the voxels where either volume is above 0, so that the outline counts too."""
    near: Mask = (one > 0) | (other > 0)
    a, b = one[near].astype(np.float64), other[near].astype(np.float64)
    a, b = a - a.mean(), b - b.mean()
    return float(a @ b / max(np.sqrt((a @ a) * (b @ b)), 1e-12))
