"""Counts of float32 scores in fine bins: quantiles, ROC and precision-recall of many voxels in constant memory.

A bin holds the scores that share sign, exponent and the leading 11 bits of the fraction, so it is at most 0.05 % wide.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

DROPPED_BITS = 12


@dataclass(frozen=True)
class Curve:
    """Counts above every distinct threshold, from the highest to the lowest.

    Attributes:
        thresholds: Thresholds, (t,); scores above one (not equal to it) are positive.
        true_positives, false_positives: Counts above each threshold, (t,) int64.
        positives, negatives: Total numbers of voxels.
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
        """Σ (R_n − R_{n−1}) P_n, as in scikit-learn; NaN without positives."""
        if not self.positives:
            return float("nan")
        return float(np.sum(np.diff(self.recall, prepend=0.0) * self.precision))

    def roc_auc(self) -> float:
        """Area under the ROC by trapezoids, as in scikit-learn; NaN without positives or negatives."""
        if not (self.positives and self.negatives):
            return float("nan")
        return float(np.trapezoid(np.r_[0.0, self.recall], np.r_[0.0, self.fpr]))

    def fpr_at_recall(self, recall: float = 0.95) -> float:
        """Smallest false-positive rate with a true-positive rate above `recall`; NaN without positives."""
        reached = self.fpr[self.recall > recall]
        return float(reached.min()) if self.positives and reached.size else float("nan")

    def best_dice(self) -> tuple[float, float]:
        """Largest Dice over all thresholds, and its threshold: an oracle, because the choice uses the truth."""
        if not self.positives:
            return float("nan"), float("nan")
        best = int(np.argmax(self.dice))
        return float(self.dice[best]), float(self.thresholds[best])


def exact_curve(scores: NDArray[np.float32], truth: NDArray[np.bool_]) -> Curve:
    """Curve of scores that fit into memory, without bins.

    Args:
        scores: Finite scores, (n,).
        truth: Whether each voxel is anomalous, (n,).
    """
    keys = ordered_keys(scores)
    return curve_of_keys(keys[truth], keys[~truth])


def curve_of_keys(positives: NDArray[np.uint32], negatives: NDArray[np.uint32]) -> Curve:
    """Corners of the exact curve: just above and just below every distinct anomalous score, and the end of the curve.

    Between two corners only healthy voxels are added. Average precision, ROC area, FPR at a recall and the best Dice
    therefore equal those of the curve with all points, although only the few anomalous voxels have points.

    Args:
        positives, negatives: Keys (`ordered_keys`) of the anomalous and the healthy voxels; both arrays are sorted in
            place.
    """
    positives.sort()
    negatives.sort()  # numpy sorts 32-bit integers with vector instructions, much faster than it sorts indices
    first = np.flatnonzero(np.diff(positives, prepend=np.uint32(0)))  # 0 is the key of a NaN
    values = positives[first][::-1]
    last = np.append(first[1:], len(positives))[: len(first)][::-1]
    at = [  # (threshold key, true positives, false positives): above and below each value, then all voxels
        (values, len(positives) - last, len(negatives) - np.searchsorted(negatives, values, side="right")),
        (values - np.uint32(1), len(positives) - first[::-1], len(negatives) - np.searchsorted(negatives, values)),
    ]
    lowest = min((int(keys[0]) for keys in (positives, negatives) if len(keys)), default=1)
    keys, true, false = (
        np.append(np.stack([above, below], axis=1).reshape(-1), end).astype(np.int64)
        for above, below, end in zip(*at, (lowest - 1, len(positives), len(negatives)), strict=True)
    )
    new = np.flatnonzero(np.diff(true + false, prepend=0) > 0)
    return Curve(scores_of(keys[new]), true[new], false[new], len(positives), len(negatives))


class ScoreHistogram:
    """Streamed counts of scores, separate for healthy and anomalous voxels.

    >>> histogram = ScoreHistogram()
    >>> histogram.add(np.array([0.0, 1.0, 2.0, 3.0], np.float32), np.array([False, False, True, True]))
    >>> histogram.curve().average_precision()
    1.0
    """

    def __init__(self, dropped_bits: int = DROPPED_BITS) -> None:
        self.dropped_bits = dropped_bits
        self.counts = np.zeros((2, 1 << (32 - dropped_bits)), dtype=np.int64)  # (truth, bin)

    def add(self, scores: NDArray[np.float32], truth: NDArray[np.bool_] | None = None) -> None:
        """Count some voxels.

        Args:
            scores: Finite scores, (n,).
            truth: Whether each voxel is anomalous, (n,); None if none is.
        """
        keys = ordered_keys(scores)
        if truth is None:
            self.add_keys(keys, anomalous=False)
        else:
            self.add_keys(keys[~truth], anomalous=False)
            self.add_keys(keys[truth], anomalous=True)

    def add_keys(self, keys: NDArray[np.uint32], *, anomalous: bool) -> None:
        """Count the `ordered_keys` of voxels that are all anomalous or all healthy."""
        bins = self.counts.shape[1]
        self.counts[int(anomalous)] += np.bincount(keys >> np.uint32(self.dropped_bits), minlength=bins)

    def quantile(self, q: float) -> float:
        """Smallest threshold that at most a share 1 − q of the healthy voxels exceeds (to the bin's width)."""
        below = np.cumsum(self.counts[0])
        if not below[-1]:
            return float("nan")
        return float(self._upper_edge(np.searchsorted(below, q * below[-1], side="left")))

    def curve(self) -> Curve:
        """Counts above the lower edge of every filled bin."""
        filled = np.flatnonzero(self.counts.any(axis=0))[::-1]
        negatives, positives = np.cumsum(self.counts[:, filled], axis=1)
        totals = int(self.counts[1].sum()), int(self.counts[0].sum())
        return Curve(self._upper_edge(filled - 1), positives, negatives, *totals)

    def _upper_edge(self, bins: NDArray[np.int64] | np.int64) -> NDArray[np.float32]:
        """Largest float32 of each bin."""
        return scores_of(((np.asarray(bins, dtype=np.int64) + 1) << self.dropped_bits) - 1)


def top_mean(scores: NDArray[np.float32], count: int) -> float:
    """Mean of the highest scores (n,): of `count` of them, at least one and at most all.

    >>> top_mean(np.arange(200, dtype=np.float32), 2)
    198.5
    """
    count = min(max(1, count), len(scores))
    return float(np.partition(scores, len(scores) - count)[-count:].mean(dtype=np.float64))


def ordered_keys(scores: NDArray[np.float32]) -> NDArray[np.uint32]:
    """Integers that sort like the scores: float bits sort like integers once those of negative numbers are flipped."""
    bits = (np.asarray(scores, dtype=np.float32) + np.float32(0.0)).view(np.uint32)  # + 0 turns −0 into 0
    return np.asarray(bits ^ ((bits >> np.uint32(31)) * np.uint32(0x7FFFFFFF) + np.uint32(1 << 31)))


def scores_of(keys: NDArray[np.int64]) -> NDArray[np.float32]:
    """Scores of keys; the key of −0 gives the next lower score, because −0 equals 0."""
    ordered = keys.astype(np.uint32)
    bits = np.where(ordered >> 31, ordered & np.uint32(0x7FFFFFFF), ~ordered).astype(np.uint32)
    return np.asarray(np.where(bits == 1 << 31, bits + np.uint32(1), bits).view(np.float32))
