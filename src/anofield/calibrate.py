"""Healthy reference of a model: thresholds as quantiles of each score over the brain voxels of healthy scans."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from typing import Any

import numpy as np

from anofield.baselines import BASELINES
from anofield.cluster import Outcome, map_cases
from anofield.cohort import Case
from anofield.detect import DetectOptions, calibrated_settings, detect_case
from anofield.errors import CohortError, UsageError
from anofield.experiment import Experiment
from anofield.histogram import ScoreHistogram
from anofield.model import CALIBRATION_FILE, Model
from anofield.scan import write_json
from anofield.score import SCORES
from anofield.scorer import RunOptions, Scorer
from anofield.typing import Json

QUANTILE = 0.998  # 2.6 ml of a brain of 1.3 litres; stricter than 0.995 gave better Dice on the phantom (benchmarks)


def calibrate(
    cases: Sequence[Case], model: Model | Scorer, options: RunOptions, *, quantile: float = QUANTILE
) -> tuple[Json, list[Outcome[Any]]]:
    """Measure every score on healthy scans and store their quantiles with the experiment.

    Args:
        cases: Healthy people that the model was not trained on.
        model: From `load_model`, or another method from `load_baseline`.
        options: Fit and filter options that the thresholds will hold for.
        quantile: Share of healthy brain voxels at or below the threshold.

    Returns:
        Content of `calibration.json`, and the outcome of every case.

    Raises:
        UsageError: The quantile is not between 0 and 1, or a case is a training case.
        CohortError: No case could be used.
    """
    if not 0 < quantile < 1:
        raise UsageError(f"quantile {quantile}", remedy="give a number between 0 and 1, for example 0.995")
    _refuse_training_cases(cases, model)
    every = options.model_copy(update={"also": (*SCORES, *BASELINES)})  # of the field: they cost next to nothing
    all_scores = every if isinstance(options, DetectOptions) else options
    histograms = {name: ScoreHistogram() for name in all_scores.names}
    outcomes, fits, brain_ml, used = [], [], 0.0, 0
    for outcome in map_cases(partial(detect_case, model=model, options=all_scores), cases, label="calibrate"):
        if outcome.value is not None:
            found = outcome.value
            for name, histogram in histograms.items():
                histogram.add(found.maps[name][found.brain])
            brain_ml += float(found.brain.sum()) * found.scan.voxel_ml
            used += 1
            if found.fit is not None:
                fits.append((found.fit.loss, found.fit.code_distance))
        outcomes.append(Outcome(outcome.case, outcome.case.id if outcome.value else None, outcome.failure))
    if not used:
        raise CohortError("no healthy scan could be used", remedy="look at the failures named above")
    content = {
        "quantile": quantile,
        "thresholds": {name: histogram.quantile(quantile) for name, histogram in histograms.items()},
        "meaning": meaning(quantile, brain_ml / used),
        "cases": [outcome.case.id for outcome in outcomes if outcome.failure is None],
        "fit": _percentiles(np.array(fits)) if fits else {},
        "options": calibrated_settings(options),
        "model_hash": model.hash,
    }
    write_json(model.path / CALIBRATION_FILE, content)
    return content, outcomes


def meaning(quantile: float, brain_ml: float) -> str:
    """What the threshold promises, in a sentence.

    >>> meaning(0.995, 1200.0)
    'on healthy scans like these, 0.5 % of the brain (6.0 ml of 1200 ml) lies above the threshold'
    """
    share = 1 - quantile
    return (
        f"on healthy scans like these, {100 * share:.3g} % of the brain "
        f"({share * brain_ml:.1f} ml of {brain_ml:.0f} ml) lies above the threshold"
    )


def _percentiles(fits: np.ndarray) -> Json:
    """5th, 50th and 95th percentile of loss and code distance over healthy scans."""
    low, middle, high = np.percentile(fits, (5, 50, 95), axis=0)
    names = ("loss", "code_distance")
    return {name: [float(low[i]), float(middle[i]), float(high[i])] for i, name in enumerate(names)}


def _refuse_training_cases(cases: Sequence[Case], model: Model | Scorer) -> None:
    known = set(Experiment(model.path).load().code_ids if isinstance(model, Model) else model.training_ids)
    shared = sorted(known & {case.id for case in cases})
    if shared:
        raise UsageError(
            f"{len(shared)} of the healthy scans were trained on ({', '.join(shared[:3])})",
            why="the model knows them by heart, so the threshold would be too low",
            remedy="calibrate on healthy people that were held out",
        )
