"""Levels of grey and white matter in a brain's intensities, from a mixture of three tissues, and the scale they give.

The rule knows no contrast. Of the three levels, fluid is the outer one that is farther from the middle; the other two
are grey and white matter, in an order that depends on the contrast. This holds for T1w, T2w and FLAIR.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

LOWER, UPPER = 0.35, 0.45  # normalised level of the darker and the brighter of grey and white matter; chosen by hand
FLUID_LEAST, FLUID_MOST = (
    0.10,
    0.90,
)  # fluid must come to lie between these; the tissues come closer for that
BINS = 256  # of the histogram; its ends are percentiles, so that single bright voxels do not coarsen it
ENDS = (0.1, 99.9)
STARTS = ((10, 40, 80), (20, 50, 90), (5, 30, 70), (30, 70, 95), (5, 25, 60))  # percentiles at which the levels start
ROUNDS = 60
LEAST_SHARE = 0.02  # of the brain in each tissue; fluid inside a tight mask is about 5 %
LEAST_GAP = 0.5  # of grey and white matter, in standard deviations of the narrower; below, they are one tissue
NARROWEST = 1.5  # smallest standard deviation of a tissue, bins


@dataclass(frozen=True)
class Tissues:
    """Three levels of a brain in the unit of the scan.

    Attributes:
        fluid: Level of fluid.
        lower: Level of the darker one of grey and white matter.
        upper: Level of the brighter one.
    """

    fluid: float
    lower: float
    upper: float


def normalise_tissue(values: NDArray[np.float32]) -> tuple[float, float] | None:
    """(a, b) so that (x − a)/b puts the middle between grey and white matter at 0.4, and them 0.1 apart.

    If fluid came to lie outside of 0.1 to 0.9, the tissues are put closer to each other (FLAIR, where grey and white
    matter are hardly different).

    Args:
        values: Brain intensities of one scan, any number.

    Returns:
        Shift and scale; None where three tissues cannot be told apart.
    """
    found = find_tissues(values)
    if found is None:
        return None
    middle, gap = (found.lower + found.upper) / 2, found.upper - found.lower
    target = (LOWER + UPPER) / 2
    room = FLUID_MOST - target if found.fluid > middle else target - FLUID_LEAST
    b = max(gap / (UPPER - LOWER), abs(found.fluid - middle) / room)
    return middle - target * b, b


def find_tissues(values: NDArray[np.float32]) -> Tissues | None:
    """Levels of fluid, grey and white matter; None where they cannot be told apart.

    Args:
        values: Brain intensities of one scan, any number.
    """
    low, high = np.percentile(values, ENDS)
    if not high > low:
        return None
    counts = np.histogram(values, BINS, (low, high))[0].astype(np.float64)
    fits = [_mixture(counts, start) for start in STARTS]
    level, sd, share, _ = max(fits, key=lambda fit: fit[3])
    below, above = level[1] - level[0], level[2] - level[1]
    fluid = 0 if below > above else 2
    one, other = (1, 2) if fluid == 0 else (0, 1)
    apart = level[other] - level[one] > LEAST_GAP * min(sd[one], sd[other])
    if not apart or share.min() < LEAST_SHARE:
        return None
    step = (high - low) / BINS
    levels = low + (level + 0.5) * step
    return Tissues(float(levels[fluid]), float(levels[one]), float(levels[other]))


def _mixture(
    counts: NDArray[np.float64], start: tuple[int, int, int]
) -> tuple[NDArray[np.float64], NDArray[np.float64], NDArray[np.float64], float]:
    """Levels, standard deviations and shares of three Gaussians, (3,) in bins by rising level; mean log density.

    Expectation maximisation on a histogram, at the same cost for every size of scan (McLachlan & Peel 2000).
    """
    bins, share_of_bin = np.arange(len(counts), dtype=np.float64), counts / counts.sum()
    level = np.interp(np.array(start) / 100, np.cumsum(share_of_bin), bins)
    sd, share = np.full(3, np.diff(level).mean() / 2 + NARROWEST), np.full(3, 1 / 3)
    for _ in range(ROUNDS):
        density = share * np.exp(-0.5 * ((bins[:, None] - level) / sd) ** 2) / sd + 1e-300  # (bin, tissue)
        weight = share_of_bin[:, None] * density / density.sum(axis=1, keepdims=True)
        share = weight.sum(axis=0) + 1e-12
        level = bins @ weight / share
        sd = np.sqrt(((bins[:, None] - level) ** 2 * weight).sum(axis=0) / share).clip(NARROWEST)
    order = np.argsort(level)
    return level[order], sd[order], share[order], float(share_of_bin @ np.log(density.sum(axis=1)))
