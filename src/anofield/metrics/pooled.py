"""Scores of the voxels of many scans: exact while they fit into memory, then fine bins with a proven bound."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from anofield.histogram import Curve, ScoreHistogram, curve_of_keys, ordered_keys

KEEP = 1 << 25  # voxels kept exactly, 4 bytes each: 8 scans of 160³
FINE_BITS = 10  # bins hold scores that agree to 1 part in 8192 (0.012 %); two rows of 4 million counters, 64 MB
COARSE_BITS = 15  # bins of one case for the bootstrap: 0.4 % wide

Bounds = tuple[float, float]


class PooledScores:
    """Scores of healthy and anomalous voxels, added case by case.

    Args:
        keep: Voxels up to which nothing is rounded; beyond, memory stays at 64 MB.

    >>> pooled = PooledScores()
    >>> pooled.add(np.array([0.0, 1.0, 2.0, 3.0], np.float32), np.array([False, False, True, True]))
    >>> pooled.curve().average_precision(), pooled.exact
    (1.0, True)
    """

    def __init__(self, keep: int = KEEP) -> None:
        self.keep = keep
        self._keys: tuple[list[NDArray[np.uint32]], list[NDArray[np.uint32]]] = ([], [])  # healthy, anomalous
        self._bins: ScoreHistogram | None = None

    @property
    def exact(self) -> bool:
        """Whether no score was rounded."""
        return self._bins is None

    def add(self, scores: NDArray[np.float32], truth: NDArray[np.bool_]) -> None:
        """Count some voxels.

        Args:
            scores: (n,), finite.
            truth: (n,), whether each is anomalous.
        """
        keys = ordered_keys(scores)
        self._keys[0].append(keys[~truth])
        self._keys[1].append(keys[truth])
        if self._bins is not None or sum(len(part) for kept in self._keys for part in kept) > self.keep:
            self._round()

    def curve(self) -> Curve:
        """Counts above the thresholds that matter: the corners while exact, the edges of the filled bins after."""
        if self._bins is not None:
            return self._bins.curve()
        healthy, anomalous = (_joined(kept) for kept in self._keys)
        return curve_of_keys(anomalous, healthy)

    def quantile(self, q: float) -> float:
        """Smallest threshold that at most a share 1 − q of the healthy voxels exceeds; NaN without any."""
        counts = self._bins
        if counts is None:
            counts = ScoreHistogram(FINE_BITS)
            counts.add_keys(_joined(self._keys[0]), anomalous=False)
        return counts.quantile(q)

    def _round(self) -> None:
        self._bins = self._bins or ScoreHistogram(FINE_BITS)
        for anomalous, kept in enumerate(self._keys):
            while kept:
                self._bins.add_keys(kept.pop(), anomalous=bool(anomalous))


def auroc_bounds(curve: Curve) -> Bounds:
    """Where the ROC area lies, whatever the order of the scores inside each bin.

    A bin's p anomalous and n healthy voxels form p n pairs, which the trapezoid counts by half.
    """
    if not (curve.positives and curve.negatives):
        return float("nan"), float("nan")
    pairs = float(np.sum(_steps(curve.true_positives).astype(float) * _steps(curve.false_positives)))
    half = pairs / (2.0 * curve.positives * curve.negatives)
    return max(0.0, curve.roc_auc() - half), min(1.0, curve.roc_auc() + half)


def average_precision_bounds(curve: Curve) -> Bounds:
    """Where the average precision lies, whatever the order of the scores inside each bin.

    An anomalous voxel of a bin has at least itself and the anomalous ones of higher bins above its score, at most
    those of its own bin too; the healthy ones likewise. That bounds the precision at its score.
    """
    if not curve.positives:
        return float("nan"), float("nan")
    here = _steps(curve.true_positives)
    filled = here > 0
    true, false = curve.true_positives[filled], curve.false_positives[filled]
    before_true, before_false = true - here[filled], false - _steps(curve.false_positives)[filled]
    weight = here[filled] / curve.positives
    low = float(np.sum(weight * (before_true + 1) / (before_true + 1 + false)))
    return low, float(np.sum(weight * true / (true + before_false)))


@dataclass(frozen=True)
class CaseCounts:
    """Voxels of one case in coarse bins; few enough to keep for every case.

    Attributes:
        bins: Filled bins, ascending, (b,).
        negatives, positives: Healthy and anomalous voxels in each, (b,).
    """

    bins: NDArray[np.int64]
    negatives: NDArray[np.int64]
    positives: NDArray[np.int64]


def count_case(scores: NDArray[np.float32], truth: NDArray[np.bool_]) -> CaseCounts:
    """Coarse counts of the scores (n,) of one case, apart for healthy and anomalous voxels."""
    keys = ordered_keys(scores) >> np.uint32(COARSE_BITS)
    size = 1 << (32 - COARSE_BITS)
    positives = np.bincount(keys[truth], minlength=size)
    negatives = np.bincount(keys, minlength=size) - positives
    filled = np.flatnonzero(positives + negatives)
    return CaseCounts(filled, negatives[filled], positives[filled])


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
