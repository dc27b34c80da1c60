"""Agreement of a scan with its fitted anatomy in most parts of the brain, so that a lesion in one part does not count.

The brain is cut into 27 blocks of about equal volume. Every measure is the median over the blocks: a focal lesion
changes it little, another contrast, protocol or population changes it everywhere.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

THIRDS = (1 / 3, 2 / 3)
LEAST_POINTS = 20  # of a block; blocks at the corners of a brain may be nearly empty
RARE = 0.02  # probability of a departure that counts as rare


@dataclass(frozen=True)
class Agreement:
    """Medians over the blocks of a brain.

    Attributes:
        usual_loss: Mean cross-entropy of the observed class given the brain, nats.
        brighter: Share of voxels whose class, or a brighter one, has a probability below `RARE`; about that if the scan
            is like those of the training.
        darker: The same for darker classes.
        pattern: Correlation of observed and expected class.
    """

    usual_loss: float
    brighter: float
    darker: float
    pattern: float


def agreement_of(p: NDArray[np.floating], observed: NDArray[np.integer], places: NDArray[np.integer]) -> Agreement:
    """Measure the agreement.

    Args:
        p: Class probabilities given the brain, (n, class).
        observed: Observed classes, (n,).
        places: Lattice indices of the voxels, (n, 3).
    """
    own = np.take_along_axis(p, observed[:, None], axis=1)[:, 0].clip(1e-6)
    below = np.take_along_axis(p.cumsum(axis=1), observed[:, None], axis=1)[:, 0] - own / 2
    loss, expected = -np.log(own), p @ np.arange(p.shape[1])
    blocks = [block for block in _blocks(places) if len(block) >= LEAST_POINTS] or [np.arange(len(p))]
    found = [
        (loss[b].mean(), (below[b] > 1 - RARE).mean(), (below[b] < RARE).mean(), _correlation(observed[b], expected[b]))
        for b in blocks
    ]
    return Agreement(*(float(value) for value in np.median(np.array(found), axis=0)))


def _correlation(one: NDArray[np.number], other: NDArray[np.number]) -> float:
    """Correlation of two series; 0 if one of them is constant."""
    one, other = one - one.mean(), other - other.mean()
    size = float(np.sqrt((one**2).sum() * (other**2).sum()))
    return float((one * other).sum()) / size if size > 0 else 0.0


def _blocks(places: NDArray[np.integer]) -> list[NDArray[np.intp]]:
    """Rows of the voxels in each of 27 blocks, cut at the thirds of each axis."""
    thirds = [np.searchsorted(np.quantile(axis, THIRDS), axis, side="right") for axis in places.T]
    number = 9 * thirds[0] + 3 * thirds[1] + thirds[2]
    return [np.flatnonzero(number == one) for one in range(27)]
