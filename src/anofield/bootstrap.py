"""Bootstrap over subjects: resample people, not voxels or scans; percentile intervals (Efron & Tibshirani 1993)."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np
from numpy.typing import NDArray

from anofield.typing import Json

RESAMPLES = 1000
LEVEL = 0.95
LEAST_SUBJECTS = 2  # below, resamples of the subjects do not differ: no interval and no p
FEW_SUBJECTS = 10  # below some ten subjects percentile intervals are too narrow (docs/explanation/metrics.md)
CHUNK = 50  # resamples of pooled counts at a time: 50 × 2 × some thousand bins

Weights = NDArray[np.float64]  # (resample, case), how often each case was drawn
Samples = NDArray[np.float64]  # (resample,)


def draw(subjects: Sequence[str], resamples: int, generator: np.random.Generator) -> Weights:
    """How often each case is drawn when subjects are drawn with replacement, (resample, case).

    Args:
        subjects: Whom each case shows; all scans of a subject are drawn together.
        resamples: Number of resamples.
        generator: Source of randomness.
    """
    names, of_case = np.unique(np.array(subjects), return_inverse=True)
    drawn = generator.multinomial(len(names), np.full(len(names), 1 / len(names)), size=resamples)
    return np.asarray(drawn[:, of_case], dtype=np.float64)


def interval(samples: Samples) -> list[float] | None:
    """Percentile interval of the resamples in which the metric is defined; None if it never is."""
    known = samples[~np.isnan(samples)]
    if not known.size:
        return None
    tail = 50 * (1 - LEVEL)
    low, high = np.percentile(known, (tail, 100 - tail))
    return [float(low), float(high)]


def sign_share(differences: Samples, subjects: int) -> float:
    """Twice the share of resamples on the rarer side of 0, ties to both: read like a two-sided p-value.

    The value itself counts as one resample on the rarer side, so that 0 is never claimed; and it is never below
    2^(1 − n), the least that an exact sign-flip test of n paired subjects can give.
    """
    known = differences[~np.isnan(differences)]
    if not known.size:
        return float("nan")
    rarer = min(int((known <= 0).sum()), int((known >= 0).sum()))
    return min(1.0, max(2 * (rarer + 1) / (known.size + 1), 2.0 ** (1 - subjects)))


def mean(values: NDArray[np.float64], weights: Weights) -> Samples:
    """Weighted mean of the values (case,) that are finite; NaN where none was drawn."""
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
        counts: From `stack_counts`, (case, 2, bin), the highest scores first.
        weights: (resample, case).
    """
    parts = [_voxel_chunk(pooled) for pooled in pooled_chunks(counts, weights)]
    return {name: np.concatenate([part[name] for part in parts]) for name in parts[0]}


def pooled_chunks(counts: NDArray[np.float32], weights: Weights) -> Iterator[NDArray[np.float64]]:
    """Cumulated counts (resample, 2, bin) of some resamples at a time."""
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


def summary(value: float, samples: Samples) -> Json:
    """A figure with its interval; `resamples` counts those in which it is defined."""
    return {"value": value, "ci": interval(samples), "resamples": int((~np.isnan(samples)).sum())}


def _divided(above: NDArray[np.float64], below: NDArray[np.float64]) -> NDArray[np.float64]:
    """above / below, NaN where below is 0."""
    above, below = np.broadcast_arrays(above, below)
    return np.asarray(np.divide(above, below, out=np.full(above.shape, np.nan), where=below != 0))
