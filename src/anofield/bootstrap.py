"""Bootstrap that draws subjects, not voxels or scans, with percentile intervals (Efron & Tibshirani 1993)."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np
from numpy.typing import NDArray

RESAMPLES = 1000
LEVEL = 0.95
LEAST_SUBJECTS = 2  # with fewer, all resamples are equal: no interval and no p-value
FEW_SUBJECTS = 10  # with fewer than about ten, percentile intervals are too narrow (docs/explanation/metrics.md)
CHUNK = 50  # resamples pooled at a time, to limit memory: 50 × 2 × several thousand bins

Weights = NDArray[np.float64]  # (resample, case), how often each case was drawn
Samples = NDArray[np.float64]  # (resample,)


def draw(subjects: Sequence[str], resamples: int, generator: np.random.Generator) -> Weights:
    """How often each case is drawn when subjects are drawn with replacement, (resample, case).

    Args:
        subjects: Subject of each case; all scans of a subject are drawn together.
        resamples: Number of resamples.
        generator: Source of random numbers.
    """
    names, of_case = np.unique(np.array(subjects), return_inverse=True)
    drawn = generator.multinomial(len(names), np.full(len(names), 1 / len(names)), size=resamples)
    return np.asarray(drawn[:, of_case], dtype=np.float64)


def defined(samples: Samples) -> int:
    """Number of resamples in which the metric is defined."""
    return int((~np.isnan(samples)).sum())


def interval(samples: Samples) -> tuple[float, float] | None:
    """Percentile interval of the resamples in which the metric is defined; None if it never is."""
    known = samples[~np.isnan(samples)]
    if not known.size:
        return None
    tail = 50 * (1 - LEVEL)
    low, high = np.percentile(known, (tail, 100 - tail))
    return float(low), float(high)


def sign_share(differences: Samples, subjects: int) -> float:
    """Twice the share of resamples on the rarer side of 0, read like a two-sided p-value; ties count on both sides.

    The observed value counts as one resample on the rarer side, so the result is never 0. It is also never below
    2^(1 − n), the smallest p-value of an exact sign-flip test with n paired subjects.
    """
    known = differences[~np.isnan(differences)]
    if not known.size:
        return float("nan")
    rarer = min(int((known <= 0).sum()), int((known >= 0).sum()))
    return min(1.0, max(2 * (rarer + 1) / (known.size + 1), 2.0 ** (1 - subjects)))


def mean(values: NDArray[np.float64], weights: Weights) -> Samples:
    """Weighted mean of the finite values (case,), (resample,); NaN where none was drawn."""
    known = np.isfinite(values)
    return ratio(np.where(known, values, 0.0), known.astype(float), weights)


def ratio(above: NDArray[np.float64], below: NDArray[np.float64], weights: Weights) -> Samples:
    """Weighted Σ above / Σ below over cases; NaN where the denominator is 0."""
    return _divided(weights @ above, weights @ below)


def auroc(scores: NDArray[np.float64], positive: NDArray[np.bool_], weights: Weights) -> Samples:
    """Area under the ROC of one score per case (case,); ties count half."""
    ill, well = scores[positive], scores[~positive]
    wins = (ill[:, None] > well[None]) + 0.5 * (ill[:, None] == well[None])
    heavy, light = weights[:, positive], weights[:, ~positive]
    return _divided(((heavy @ wins) * light).sum(axis=1), heavy.sum(axis=1) * light.sum(axis=1))


def voxel_metrics(counts: NDArray[np.float32], weights: Weights) -> dict[str, Samples]:
    """Pooled `ap`, `auroc`, `fpr95` and `dice_oracle` of every resample.

    Args:
        counts: Counts from `stack_counts`, (case, 2, bin), the highest scores first.
        weights: How often each case was drawn, (resample, case).
    """
    parts = [_voxel_chunk(pooled) for pooled in pooled_chunks(counts, weights)]
    return {name: np.concatenate([part[name] for part in parts]) for name in parts[0]}


def pooled_chunks(counts: NDArray[np.float32], weights: Weights) -> Iterator[NDArray[np.float64]]:
    """Cumulative counts (resample, 2, bin), for `CHUNK` resamples at a time."""
    flat = counts.reshape(len(counts), -1)
    for start in range(0, len(weights), CHUNK):
        some = weights[start : start + CHUNK]
        pooled = (some.astype(np.float32) @ flat).reshape(len(some), *counts.shape[1:])
        yield np.cumsum(pooled, axis=2, dtype=np.float64)


def _voxel_chunk(pooled: NDArray[np.float64]) -> dict[str, Samples]:
    false, true = pooled[:, 0], pooled[:, 1]
    n_false, n_true = false[:, -1:], true[:, -1:]
    recall, fpr = _divided(true, n_true), _divided(false, n_false)
    gained = np.diff(recall, axis=1, prepend=0.0)
    with np.errstate(invalid="ignore", divide="ignore"):
        precision = np.nan_to_num(true / (true + false))
    area = (np.diff(fpr, axis=1, prepend=0.0) * (recall - gained / 2)).sum(axis=1)
    reached = np.argmax(recall > 0.95, axis=1)[:, None]
    ill = n_true[:, 0] > 0
    return {
        "ap": (gained * precision).sum(axis=1),
        "auroc": area,
        "fpr95": np.where(ill, np.take_along_axis(fpr, reached, axis=1)[:, 0], np.nan),
        "dice_oracle": np.where(ill, _divided(2 * true, true + false + n_true).max(axis=1), np.nan),
    }


def _divided(above: NDArray[np.float64], below: NDArray[np.float64]) -> NDArray[np.float64]:
    """above / below, NaN where below is 0."""
    above, below = np.broadcast_arrays(above, below)
    return np.asarray(np.divide(above, below, out=np.full(above.shape, np.nan), where=below != 0))
