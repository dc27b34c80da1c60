"""Levels of grey and white matter in a brain's intensities, from a mixture of tissues, and the scale that they give.

The rule knows no contrast. Grey and white matter are the two narrow parts of the mixture, in the order of the contrast.
A broad part on the dark side (T1w, FLAIR) or on the bright side (T2w), whichever explains the intensities better, takes
fluid and what is partly fluid; a small broad part on the other side takes lesions and vessels.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray

# Normalised values, chosen by hand: `robust` puts the tissues of T1w brains at 0.39 and 0.49 (OASIS), so that a scan
# that falls back to it stays close to the others of its cohort.
LOWER, UPPER = 0.39, 0.49  # the darker and the brighter one of grey and white matter
LEAST, MOST = 0.08, 0.95  # the ends of the intensities come to lie between these; the tissues give way
EDGE = 0.5  # percentile that counts as the end
FINE = 65_536  # bins of the first histogram, over all intensities; percentiles are read from it
BINS = 256  # of the histogram that the mixture is fitted to
ENDS = (0.1, 99.9)  # percentiles between which it lies, so that single bright voxels do not coarsen it
ROUNDS = 60  # of expectation maximisation
NARROWEST = 1.5  # smallest standard deviation of a part, bins
SMALL_SHARE = 0.05  # largest share of the broad part opposite to fluid; more would take white matter of T1w brains
BROADER = 2.0  # times as broad as grey and white matter, at least
LEAST_SHARE = 0.1  # of the brain in each of grey and white matter; with less, they are taken as one tissue
USUAL_WIDTH = 0.12  # interquartile range where they are one tissue, as in `normalise_robust`
BRIGHT_FLUID = 1.0  # gaps of the tissues by which bright fluid exceeds them: 4 on T2w; a lesion in FLAIR 0 to 0.4
Side = Literal["dark", "bright"]


@dataclass(frozen=True)
class _Start:
    """Where a fit starts: percentiles of four levels, and their shares; the parts of fluid and of the other end."""

    percentiles: tuple[float, ...]
    shares: tuple[float, ...]
    fluid: int
    other: int


STARTS: dict[Side, _Start] = {
    "dark": _Start((5, 35, 80, 99), (0.30, 0.32, 0.32, 0.06), fluid=0, other=3),
    "bright": _Start((1, 20, 60, 95), (0.06, 0.32, 0.32, 0.30), fluid=3, other=0),
}


@dataclass(frozen=True)
class Tissues:
    """Levels of a brain in the unit of the scan.

    Attributes:
        lower: Level of the darker one of grey and white matter.
        upper: Level of the brighter one; equal to `lower` where the two cannot be told apart.
        ends: Darkest and brightest half percent of the brain.
        width: Interquartile range of the brain.
    """

    lower: float
    upper: float
    ends: tuple[float, float]
    width: float


@dataclass(frozen=True)
class _Mixture:
    """Levels of four Gaussians in bins (4,), grey and white matter in the middle; shares (4,); mean log density."""

    level: NDArray[np.float64]
    share: NDArray[np.float64]
    fit: float

    @property
    def tissues(self) -> NDArray[np.float64]:
        """Levels of grey and white matter, (2,); twice their mean if one of them is hardly there."""
        level, share = self.level[1:3], self.share[1:3]
        return level if share.min() >= LEAST_SHARE else np.full(2, level @ share / share.sum())


def normalise_tissue(values: NDArray[np.float32]) -> tuple[float, float] | None:
    """(a, b) so that (x − a)/b puts grey and white matter at 0.39 and 0.49, in the order of the contrast.

    Where the darkest or brightest half percent would come to lie outside of 0.08 to 0.95, the two are put closer to
    each other, around 0.44. This happens in FLAIR, where grey and white matter are hardly different. Where they cannot
    be told apart at all, their common level comes to 0.44 and the interquartile range to 0.12, as `robust` has it.

    Args:
        values: Brain intensities of one scan, any number.

    Returns:
        Shift and scale; None if all voxels are alike.
    """
    found = find_tissues(values)
    if found is None:
        return None
    middle, target = (found.lower + found.upper) / 2, (LOWER + UPPER) / 2
    apart, (dark, bright) = found.upper - found.lower, found.ends
    b = max(
        apart / (UPPER - LOWER) if apart else found.width / USUAL_WIDTH,
        (middle - dark) / (target - LEAST),
        (bright - middle) / (MOST - target),
    )
    return middle - target * b, b


def find_tissues(values: NDArray[np.float32]) -> Tissues | None:
    """Levels of grey and white matter, and the ends of the intensities.

    Args:
        values: Brain intensities of one scan, any number.

    Returns:
        The levels; None if all voxels are alike.
    """
    low, high = float(values.min()), float(values.max())
    if not high > low:
        return None
    counts, edges = np.histogram(values, FINE, (low, high))
    at = np.array([ENDS[0], EDGE, 25, 75, 100 - EDGE, ENDS[1]]) / 100
    low, dark, first, third, bright, high = np.interp(at, np.cumsum(counts) / len(values), edges[1:]).tolist()
    if not high > low:
        return None
    weights = np.histogram(edges[1:], BINS, (low, high), weights=counts / len(values))[0]
    found = _likelier(_mixture(weights, STARTS["dark"]), _mixture(weights, STARTS["bright"]))
    lower, upper = sorted(low + float(level) * (high - low) / BINS for level in found.tissues)
    return Tissues(lower, upper, (dark, bright), third - first)


def _likelier(dark: _Mixture, bright: _Mixture) -> _Mixture:
    """The mixture that explains the brain better; with bright fluid only if that is far brighter than the tissues."""
    _, lower, upper, fluid = bright.level
    return bright if bright.fit > dark.fit and fluid - upper > BRIGHT_FLUID * (upper - lower) else dark


def _mixture(weights: NDArray[np.float64], start: _Start) -> _Mixture:
    """Fit a histogram by two Gaussians of one width, a broad one of fluid and a small broad one at the other end.

    Expectation maximisation on the bins, at the same cost for every size of scan (McLachlan & Peel 2000).
    """
    bins, fluid, other = np.arange(len(weights)) + 0.5, start.fluid, start.other
    level = np.interp(np.array(start.percentiles) / 100, np.cumsum(weights), bins)
    sd, share, fit = np.full(4, (level[2] - level[1]) / 3 + NARROWEST), np.array(start.shares), -np.inf
    for _ in range(ROUNDS):
        density = share * np.exp(-0.5 * ((bins[:, None] - level) / sd) ** 2) / sd + 1e-300  # (bin, part)
        whole = density.sum(axis=1, keepdims=True)
        mine = weights[:, None] * density / whole
        fit, share = float(weights @ np.log(whole[:, 0])), mine.sum(axis=0) + 1e-9
        level = bins @ mine / share
        variance = ((bins[:, None] - level) ** 2 * mine).sum(axis=0) / share
        variance[1:3] = variance[1:3] @ share[1:3] / share[1:3].sum()
        variance[fluid] = max(variance[fluid], variance[1])
        variance[other] = max(variance[other], BROADER**2 * variance[1])
        sd = np.sqrt(variance).clip(NARROWEST)
        share[other] = min(share[other], SMALL_SHARE)
        share = share / share.sum()
    return _Mixture(level, share, fit)
