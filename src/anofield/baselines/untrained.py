"""Baselines that learn nothing: intensity, histogram-equalised intensity, left-right asymmetry, chance."""

from __future__ import annotations

import numpy as np
from scipy import stats

from anofield._random import seed_of
from anofield.baselines.base import LEFT_RIGHT, Baseline, Scored, observed, tail_of
from anofield.data.prepare import Prepared
from anofield.detect.intensity import intensity_score
from anofield.detect.scores import Tail
from anofield.typing import FloatVolume, Mask

SHIFT_SHARE = 8  # the plane of symmetry is looked for within R / SHIFT_SHARE voxels of the box's middle


class Intensity(Baseline):
    """Normalised intensity of the scan."""

    title = "raw intensity"
    paper = "Meissen, Kaissis & Rueckert 2021, BrainLes (arXiv 2109.06023)"

    def score(self, prepared: Prepared, key: str, tail: Tail) -> Scored:
        """Intensity, turned round for dark lesions, distance from the median for both."""
        return Scored(intensity_score(prepared, tail))


class Equalised(Baseline):
    """Rank of every voxel's intensity among the voxels of its brain."""

    title = "histogram-equalised intensity"
    paper = "Meissen, Kaissis & Rueckert 2021, BrainLes (arXiv 2109.06023)"

    def score(self, prepared: Prepared, key: str, tail: Tail) -> Scored:
        """Share of the brain that is not brighter, in (0, 1]; ties share a rank; distance from ½ for both tails."""
        values = prepared.intensity[prepared.brain]
        rank = stats.rankdata(values, method="average") / max(values.size, 1)
        if tail != "bright":
            rank = 1 - rank if tail == "dark" else np.abs(rank - 0.5)
        volume = np.zeros(prepared.lattice.shape, dtype=np.float32)
        volume[prepared.brain] = rank
        return Scored(volume)


class Random(Baseline):
    """Uniform noise: what every metric says of a method that knows nothing."""

    title = "random"
    paper = "chance"

    def score(self, prepared: Prepared, key: str, tail: Tail) -> Scored:
        """Independent numbers in [0, 1), a function of the seed and the case alone."""
        generator = np.random.default_rng(seed_of(self.settings.seed, key))
        return Scored(generator.random(prepared.lattice.shape, dtype=np.float32))


class Asymmetry(Baseline):
    """Difference from the mirror image, after Erihov et al. 2015 in its simplest form.

    The plane of symmetry is perpendicular to the left-right axis of the lattice, whose centre is the brain's; where it
    lies along the axis is found by the best correlation of the brain with its mirror image, to half a voxel. A head
    that is turned in the scanner is not turned back.
    """

    title = "left-right asymmetry"
    paper = "Erihov et al. 2015, MICCAI (A cross saliency approach to asymmetry-based tumor detection)"

    def score(self, prepared: Prepared, key: str, tail: Tail) -> Scored:
        """Intensity minus that of the mirrored voxel; 0 where the mirrored voxel is no brain."""
        axis = LEFT_RIGHT[self.recipe.name]
        values = observed(prepared.classes, prepared.brain, self.recipe)
        shift = symmetry_shift(values, axis)
        mirrored = mirror(values, axis, shift)
        paired = prepared.brain & (mirror(prepared.brain.astype(np.float32), axis, shift) > 0)
        mirrored = np.where(paired, mirrored, values)
        return Scored(tail_of(values - mirrored, tail), mirrored)


def mirror(values: FloatVolume, axis: int, shift: int) -> FloatVolume:
    """A volume turned round along an axis, then moved `shift` voxels along it; 0 comes in from outside."""
    turned = np.moveaxis(np.flip(values, axis), axis, 0)
    moved = np.zeros_like(turned)
    count = len(turned)
    moved[max(shift, 0) : count + min(shift, 0)] = turned[max(-shift, 0) : count - max(shift, 0)]
    return np.moveaxis(moved, 0, axis)


def symmetry_shift(values: FloatVolume, axis: int) -> int:
    """The shift for `mirror` that correlates a volume best with its mirror image; the smallest of equals."""
    reach = values.shape[axis] // SHIFT_SHARE
    candidates = sorted(range(-reach, reach + 1), key=abs)
    return max(candidates, key=lambda shift: _correlation(values, mirror(values, axis, shift)))


def _correlation(one: FloatVolume, other: FloatVolume) -> float:
    """Pearson's, over the voxels where either is above 0; the outline counts as well as what is inside."""
    near: Mask = (one > 0) | (other > 0)
    a, b = one[near].astype(np.float64), other[near].astype(np.float64)
    a, b = a - a.mean(), b - b.mean()
    return float(a @ b / max(np.sqrt((a @ a) * (b @ b)), 1e-12))
