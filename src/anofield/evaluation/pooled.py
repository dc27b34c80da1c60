"""Scores of the voxels of many scans: exact while they fit into memory, then fine bins with a proven bound."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from anofield.curves import Curve, ScoreHistogram, curve_of_keys, ordered_keys

KEEP = 1 << 25  # voxels kept exactly, 4 bytes each: 8 scans of 160³
FINE_BITS = 10  # bins hold scores that agree to 1 part in 8192 (0.012 %); two rows of 4 million counters, 64 MB
COARSE_BITS = 15  # bins of one case for the bootstrap: 0.4 % wide

ZERO = np.uint32(1 << 31)  # key of 0, a frequent score: background, and values that a filter clipped
BELOW_ZERO = np.nextafter(np.float32(0), np.float32(-1))

Bounds = tuple[float, float]


@dataclass(frozen=True)
class VoxelKeys:
    """Scores of the voxels of one case as `ordered_keys`.

    Attributes:
        healthy: Keys of the healthy voxels, (n,).
        anomalous: Keys of the anomalous voxels, (m,).
    """

    healthy: NDArray[np.uint32]
    anomalous: NDArray[np.uint32]

    @classmethod
    def of(cls, scores: NDArray[np.float32], truth: NDArray[np.bool_]) -> VoxelKeys:
        """Keys of the scores (n,), separately for healthy and anomalous voxels."""
        keys = ordered_keys(scores)
        return cls(keys[~truth], keys[truth])

    def curve(self) -> Curve:
        """The exact curve; sorts the keys in place."""
        return curve_of_keys(self.anomalous, self.healthy)


class PooledScores:
    """Scores of healthy and anomalous voxels, added case by case.

    Args:
        keep: Number of voxels up to which no score is rounded; for more voxels, memory stays at 64 MB.

    >>> pooled = PooledScores()
    >>> pooled.add(np.array([0.0, 1.0, 2.0, 3.0], np.float32), np.array([False, False, True, True]))
    >>> pooled.curve().average_precision(), pooled.exact
    (1.0, True)
    """

    def __init__(self, keep: int = KEEP) -> None:
        self.keep = keep
        self._keys: tuple[list[NDArray[np.uint32]], list[NDArray[np.uint32]]] = ([], [])  # healthy, anomalous
        self._bins: ScoreHistogram | None = None
        self._zeros_tied = True

    @property
    def exact(self) -> bool:
        """Whether no score was rounded."""
        return self._bins is None

    def add(self, scores: NDArray[np.float32], truth: NDArray[np.bool_]) -> None:
        """Count some voxels.

        Args:
            scores: Finite scores, (n,).
            truth: Whether each voxel is anomalous, (n,).
        """
        self.add_keys(VoxelKeys.of(scores, truth))

    def add_keys(self, keys: VoxelKeys) -> None:
        """Count the voxels of a case; the order of the cases does not matter, because counts are added."""
        self._keys[0].append(keys.healthy)
        self._keys[1].append(keys.anomalous)
        if self._bins is not None or sum(len(part) for kept in self._keys for part in kept) > self.keep:
            self._round()

    def curve(self) -> Curve:
        """Counts above the relevant thresholds: the corners of an exact curve, else the edges of the filled bins."""
        if self._bins is not None:
            return self._bins.curve()
        healthy, anomalous = (_joined(kept) for kept in self._keys)
        return curve_of_keys(anomalous, healthy)

    def quantiles(self, shares: Sequence[float]) -> list[float]:
        """Per share q the smallest threshold that at most 1 − q of the healthy voxels exceeds (up to the fine bins)."""
        counts = self._bins
        if counts is None:
            counts = ScoreHistogram(FINE_BITS)
            for keys in self._keys[0]:
                counts.add_keys(keys, anomalous=False)
        return [counts.quantile(share) for share in shares]

    def bounds(self, curve: Curve) -> dict[str, Bounds]:
        """Limits of `ap` and `auroc` of the unrounded scores; both are the value itself if nothing was rounded.

        Args:
            curve: Result of `curve`.
        """
        if self.exact:
            ap, auroc = curve.average_precision(), curve.roc_auc()
            return {"ap": (ap, ap), "auroc": (auroc, auroc)}
        tied = (curve.thresholds == BELOW_ZERO) & self._zeros_tied
        return {"ap": average_precision_bounds(curve, tied), "auroc": auroc_bounds(curve, tied)}

    def _round(self) -> None:
        self._bins = self._bins or ScoreHistogram(FINE_BITS)
        for anomalous, kept in enumerate(self._keys):
            while kept:  # one array after the other, so that memory falls while the bins are filled
                keys = kept.pop()
                self._zeros_tied &= not np.any((keys > ZERO) & (keys < ZERO + (1 << FINE_BITS)))
                self._bins.add_keys(keys, anomalous=bool(anomalous))


def auroc_bounds(curve: Curve, tied: NDArray[np.bool_]) -> Bounds:
    """Limits of the area under the ROC, for any order of the scores inside each bin.

    A bin's p anomalous and n healthy voxels form p n pairs, which the trapezoid counts by half.

    Args:
        curve: Curve of bins.
        tied: Bins that hold a single score and therefore no unknown order, (bin,).
    """
    if not (curve.positives and curve.negatives):
        return float("nan"), float("nan")
    pairs = _steps(curve.true_positives).astype(float) * _steps(curve.false_positives)
    half = float(np.sum(pairs[~tied])) / (2.0 * curve.positives * curve.negatives)
    return max(0.0, curve.roc_auc() - half), min(1.0, curve.roc_auc() + half)


def average_precision_bounds(curve: Curve, tied: NDArray[np.bool_]) -> Bounds:
    """Limits of the average precision, for any order of the scores inside each bin.

    At the score of an anomalous voxel, the anomalous voxels counted are at least itself and those of higher bins, at
    most those of its own bin too; the healthy ones are at least those of higher bins, at most those of its own too.

    Args:
        curve: Curve of bins.
        tied: Bins that hold a single score, (bin,).
    """
    if not curve.positives:
        return float("nan"), float("nan")
    here, true, false = _steps(curve.true_positives), curve.true_positives, curve.false_positives
    least_true = np.where(tied, true, true - here + 1)
    least_false = np.where(tied, false, false - _steps(false))
    weight, filled = here / curve.positives, here > 0
    low, high = least_true[filled] / (least_true + false)[filled], true[filled] / (true + least_false)[filled]
    return float(np.sum(weight[filled] * low)), float(np.sum(weight[filled] * high))


@dataclass(frozen=True)
class CaseCounts:
    """Voxels of one case in coarse bins; few enough to keep for every case.

    Attributes:
        bins: Filled bins, ascending, (b,).
        negatives, positives: Healthy and anomalous voxels in each bin, (b,).
    """

    bins: NDArray[np.int32]
    negatives: NDArray[np.int32]
    positives: NDArray[np.int32]


def count_case(scores: NDArray[np.float32], truth: NDArray[np.bool_]) -> CaseCounts:
    """Coarse counts of the scores (n,) of one case, separately for healthy and anomalous voxels."""
    keys = ordered_keys(scores) >> np.uint32(COARSE_BITS)
    size = 1 << (32 - COARSE_BITS)
    positives = np.bincount(keys[truth], minlength=size)
    negatives = np.bincount(keys, minlength=size) - positives
    filled = np.flatnonzero(positives + negatives)
    return CaseCounts(*(part.astype(np.int32) for part in (filled, negatives[filled], positives[filled])))


def stack_counts(cases: list[CaseCounts]) -> NDArray[np.float32]:
    """Counts of all cases in the bins that any of them fills, the highest scores first, (case, 2, bin); healthy first.

    Counts above 2²⁴ in one bin of one case would be rounded by float32: no scan has that many voxels.
    """
    bins = np.unique(np.concatenate([case.bins for case in cases]))
    table = np.zeros((len(cases), 2, len(bins)), dtype=np.float32)
    for row, case in zip(table, cases, strict=True):
        at = len(bins) - 1 - np.searchsorted(bins, case.bins)
        row[0, at], row[1, at] = case.negatives, case.positives
    return table


def _steps(counts: NDArray[np.int64]) -> NDArray[np.int64]:
    return np.diff(counts, prepend=0)


def _joined(parts: list[NDArray[np.uint32]]) -> NDArray[np.uint32]:
    return np.concatenate(parts) if parts else np.zeros(0, np.uint32)
