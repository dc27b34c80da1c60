"""Counts of float32 scores in fine bins: quantiles, ROC and precision-recall of many voxels in constant memory.

A bin holds the scores that share sign, exponent and the leading 11 bits of the fraction, so it is at most 0.05 % wide.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

DROPPED_BITS = 12
BINS = 1 << (32 - DROPPED_BITS)


@dataclass(frozen=True)
class Curve:
    """Counts above every distinct threshold, from the highest to the lowest.

    Attributes:
        thresholds: Scores above (not at) these are called positive, (t,).
        true_positives, false_positives: (t,) int64.
        positives, negatives: Totals.
    """

    thresholds: NDArray[np.float32]
    true_positives: NDArray[np.int64]
    false_positives: NDArray[np.int64]
    positives: int
    negatives: int

    @property
    def recall(self) -> NDArray[np.float64]:
        """TP / positives, (t,)."""
        return np.asarray(self.true_positives / max(self.positives, 1))

    @property
    def precision(self) -> NDArray[np.float64]:
        """TP / (TP + FP), (t,)."""
        return np.asarray(self.true_positives / (self.true_positives + self.false_positives))

    @property
    def fpr(self) -> NDArray[np.float64]:
        """FP / negatives, (t,)."""
        return np.asarray(self.false_positives / max(self.negatives, 1))

    @property
    def dice(self) -> NDArray[np.float64]:
        """2 TP / (TP + FP + positives), (t,)."""
        return np.asarray(2 * self.true_positives / (self.true_positives + self.false_positives + self.positives))

    def average_precision(self) -> float:
        """Σ (R_n − R_{n−1}) P_n, as scikit-learn; NaN without positives."""
        if not self.positives:
            return float("nan")
        return float(np.sum(np.diff(self.recall, prepend=0.0) * self.precision))

    def roc_auc(self) -> float:
        """Area under the ROC by trapezoids, as scikit-learn; NaN without positives or negatives."""
        if not (self.positives and self.negatives):
            return float("nan")
        return float(np.trapezoid(np.r_[0.0, self.recall], np.r_[0.0, self.fpr]))

    def fpr_at_recall(self, recall: float = 0.95) -> float:
        """Smallest false-positive rate with a true-positive rate above `recall`; NaN without positives."""
        reached = self.fpr[self.recall > recall]
        return float(reached.min()) if self.positives and reached.size else float("nan")

    def best_dice(self) -> tuple[float, float]:
        """Largest Dice over all thresholds and its threshold: an oracle, for it looks at the truth."""
        if not self.positives:
            return float("nan"), float("nan")
        best = int(np.argmax(self.dice))
        return float(self.dice[best]), float(self.thresholds[best])


def exact_curve(scores: NDArray[np.float32], truth: NDArray[np.bool_]) -> Curve:
    """The curve of scores that fit into memory, without bins.

    Args:
        scores: (n,), finite.
        truth: (n,), whether each is anomalous.
    """
    values, where = np.unique(scores, return_inverse=True)
    positives = np.bincount(where, weights=truth, minlength=len(values)).astype(np.int64)[::-1]
    negatives = np.bincount(where, minlength=len(values))[::-1] - positives
    below = np.nextafter(values[::-1], np.float32(-np.inf))  # a threshold is exceeded, not reached
    return Curve(below, positives.cumsum(), negatives.cumsum(), int(positives.sum()), int(negatives.sum()))


class ScoreHistogram:
    """Streamed counts of scores, apart for healthy and anomalous voxels.

    >>> histogram = ScoreHistogram()
    >>> histogram.add(np.array([0.0, 1.0, 2.0, 3.0], np.float32), np.array([False, False, True, True]))
    >>> histogram.curve().average_precision()
    1.0
    """

    def __init__(self) -> None:
        self.counts = np.zeros((2, BINS), dtype=np.int64)  # (truth, bin)

    def add(self, scores: NDArray[np.float32], truth: NDArray[np.bool_] | None = None) -> None:
        """Count some voxels.

        Args:
            scores: (n,), finite.
            truth: (n,), whether each is anomalous; None means none is.
        """
        keys = _key(scores)
        for value in (0, 1):
            chosen = (
                keys if truth is None and not value else keys[truth == bool(value)] if truth is not None else keys[:0]
            )
            self.counts[value] += np.bincount(chosen, minlength=BINS)

    def quantile(self, q: float) -> float:
        """Smallest threshold that at most a share 1 − q of the healthy voxels exceeds (to the bin's width)."""
        below = np.cumsum(self.counts[0])
        if not below[-1]:
            return float("nan")
        return float(_upper_edge(np.searchsorted(below, q * below[-1], side="left")))

    def curve(self) -> Curve:
        """Counts above the lower edge of every filled bin."""
        filled = np.flatnonzero(self.counts.any(axis=0))[::-1]
        negatives, positives = np.cumsum(self.counts[:, filled], axis=1)
        return Curve(
            _upper_edge(filled - 1), positives, negatives, int(self.counts[1].sum()), int(self.counts[0].sum())
        )


def _key(scores: NDArray[np.float32]) -> NDArray[np.int64]:
    """Bins of scores, in the order of the scores: the bits of a float sort like an integer once signs are turned."""
    bits = (np.asarray(scores, dtype=np.float32) + np.float32(0.0)).view(np.uint32)  # + 0 turns −0 into 0
    ordered = np.where(bits >> 31, ~bits, bits | np.uint32(1 << 31))
    return (ordered >> DROPPED_BITS).astype(np.int64)


def _upper_edge(bins: NDArray[np.int64] | np.int64) -> NDArray[np.float32]:
    """Largest float32 of each bin; −0, which equals the 0 of the next bin, belongs to none."""
    ordered = ((np.asarray(bins).astype(np.uint64) << DROPPED_BITS) | ((1 << DROPPED_BITS) - 1)).astype(np.uint32)
    bits = np.where(ordered >> 31, ordered & np.uint32(0x7FFFFFFF), ~ordered).astype(np.uint32)
    return np.asarray(np.where(bits == 1 << 31, bits + np.uint32(1), bits).view(np.float32))
