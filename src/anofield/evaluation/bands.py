"""Bands of curves: pointwise percentile intervals of precision–recall, ROC and FROC over resampled subjects."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from anofield import bootstrap
from anofield.bootstrap import Weights
from anofield.evaluation.evidence import Evidence
from anofield.evaluation.metrics import froc_samples, rests_on
from anofield.evaluation.parts import Band
from anofield.evaluation.pooled import stack_counts

RECALLS = np.linspace(0, 1, 101)  # at which a band is measured; more would not be visible
RATES = RECALLS**2  # false-positive rates, dense near 0, where the curve is steep

Rows = NDArray[np.float64]  # (resample, place)


def curve_bands(evidence: Evidence, name: str, weights: Weights) -> dict[str, Band]:
    """Bands of a score's curves; undefined curves are left out.

    Cases are pooled from their coarse counts (bins of 0.4 %), some resamples at a time, so that memory does not grow
    with the number of voxels. Bands of few subjects are too narrow, like all such intervals; fewer than two subjects
    give no band.

    Args:
        evidence: Evidence of the run.
        name: The score.
        weights: Number of times that each case was drawn, (resample, case).

    Returns:
        `precision_recall` (precision at a recall), `roc` (sensitivity at a false-positive rate) and `froc` (lesion
        recall at a number of false findings per scan).
    """
    if rests_on(evidence, name, "ap") < bootstrap.LEAST_SUBJECTS:
        return {}
    own = weights * evidence.pooled_cases
    counts = stack_counts([case.counts[name] for case in evidence.scored])
    chunks = [_heights(pooled) for pooled in bootstrap.pooled_chunks(counts, own)]
    precision, sensitivity = (np.concatenate(parts) for parts in zip(*chunks, strict=True))
    bands = {
        "precision_recall": band(RECALLS, precision),
        "roc": band(RATES, sensitivity),
        "froc": _froc_band(evidence, name, own),
    }
    return {key: found for key, found in bands.items() if found is not None}


def band(places: NDArray[np.float64], samples: Rows) -> Band | None:
    """Interval at each place over the resamples with a defined curve; None if there are none."""
    known = samples[np.isfinite(samples).all(axis=1)]
    if not known.size:
        return None
    tail = 50 * (1 - bootstrap.LEVEL)
    low, high = np.percentile(known, (tail, 100 - tail), axis=0)
    return Band(x=places.round(5).tolist(), low=low.round(5).tolist(), high=high.round(5).tolist())


def _heights(pooled: NDArray[np.float64]) -> tuple[Rows, Rows]:
    """Precision at `RECALLS` and sensitivity at `RATES` of cumulated counts (resample, 2, bin), NaN where undefined."""
    precision, sensitivity = np.full((2, len(pooled), len(RECALLS)), np.nan)
    for row, (false, true) in enumerate(pooled):
        if not true.size or not true[-1] or not false[-1]:
            continue
        recall = true / true[-1]
        at = np.searchsorted(recall, RECALLS).clip(0, len(recall) - 1)
        at[0] = np.argmax(true > 0)  # precision at a recall of 0 is that of the first anomalous voxel
        precision[row] = (true / np.maximum(true + false, 1))[at]
        sensitivity[row] = np.interp(RATES, np.r_[0.0, false / false[-1]], np.r_[0.0, recall])
    return precision, sensitivity


def _froc_band(evidence: Evidence, name: str, own: Weights) -> Band | None:
    """Band of the FROC at the false findings per scan of its own points."""
    if not evidence.froc.get(name):
        return None
    recall, false = froc_samples(evidence, name, own)
    places = np.unique(froc_samples(evidence, name, np.ones((1, own.shape[1])))[1])
    heights = [_along(places, x, y) for x, y in zip(false, recall, strict=True)]
    return band(places, np.stack(heights)) if np.isfinite(places).all() else None


def _along(places: NDArray[np.float64], x: NDArray[np.float64], y: NDArray[np.float64]) -> NDArray[np.float64]:
    """Height of the line through the points (x, y) at the places; constant beyond its ends."""
    order = np.lexsort((y, x))
    return np.asarray(np.interp(places, x[order], y[order]))
