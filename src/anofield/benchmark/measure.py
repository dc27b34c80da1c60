"""The figures of one row: calibrate, score the test people in memory, compare with the truth, resample the people.

No volume is written, so a benchmark needs little space and a row that was stopped is measured again from its start.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from anofield import bootstrap
from anofield._progress import track
from anofield.bootstrap import RESAMPLES, Samples, Weights
from anofield.curves import top_mean
from anofield.data.brain import as_stripped
from anofield.data.cohort.case import Case
from anofield.data.labels import read_truth
from anofield.data.scan import Scan
from anofield.detect.calibration import Calibrated
from anofield.detect.detection import examine, verdict_of
from anofield.detect.method import Method
from anofield.detect.options import RunOptions
from anofield.detect.trust import Verdict
from anofield.evaluation.case import TOP_SHARE, Measured, Scored, Truth
from anofield.evaluation.evidence import Evidence
from anofield.evaluation.gather import froc_thresholds
from anofield.evaluation.metrics import figures
from anofield.evaluation.oracle import mean_threshold, not_below_known
from anofield.evaluation.pooled import PooledScores, VoxelKeys, count_case
from anofield.evaluation.rules import Kind, Rules
from anofield.typing import FloatVolume, Json, Mask

NAMES = {  # figure of a row → metric of the evaluation
    "ap": "ap",
    "auroc": "auroc",
    "dice": "dice_calibrated_mean",
    "dice_oracle": "dice_oracle_mean",
    "recall_at_1": "froc_recall_at_1",
    "false_ml": "healthy_ml_calibrated",
}
UNJUDGED = Verdict(None)
DIGITS = 6  # of the samples in a row's file


@dataclass(frozen=True, kw_only=True)
class MappedScan:
    """A scan of the test with the map of a method; volumes (i, j, k).

    Attributes:
        case: The case.
        group: Name of the group of people.
        scan: Geometry of the scan.
        brain: Brain voxels.
        labelled: Labelled voxels in the brain.
        map: Filtered score.
        seconds: Duration of preparation, scoring and filters.
        verdict: Whether the fit can be trusted; not judged for a method that fits nothing.
    """

    case: Case
    group: str
    scan: Scan
    brain: Mask
    labelled: Mask
    map: FloatVolume
    seconds: float
    verdict: Verdict = UNJUDGED

    @property
    def healthy(self) -> bool:
        """Whether nothing is labelled."""
        return not self.labelled.any()

    @property
    def keys(self) -> VoxelKeys:
        """Scores of the brain, healthy and anomalous."""
        return VoxelKeys.of(self.map[self.brain], self.labelled[self.brain])


@dataclass(frozen=True)
class Resampled:
    """A figure and its value in every resample of the people.

    Attributes:
        value: The figure.
        samples: Its value in every resample, (resample,); None if it was not resampled.
    """

    value: float
    samples: Samples | None = None

    def plain(self) -> Json:
        """Value and 95 % interval; None where they are not known."""
        ci = None if self.samples is None else bootstrap.interval(self.samples)
        return {"value": self.value if math.isfinite(self.value) else None, "ci": None if ci is None else list(ci)}

    def plain_samples(self) -> list[float | None]:
        """The samples for JSON."""
        samples = [] if self.samples is None else self.samples.tolist()
        return [round(sample, DIGITS) if math.isfinite(sample) else None for sample in samples]


Figures = dict[str, Resampled]
More = Callable[[Sequence[MappedScan], float, Weights], Figures]  # scans, threshold, resamples (resample, case)


def see(
    groups: Mapping[str, Sequence[Case]], method: Method, options: RunOptions, calibrated: Calibrated
) -> list[MappedScan]:
    """Score all scans of the test; only the reference maps of the calibration are used, not its thresholds.

    Args:
        groups: Cases of every group.
        method: The method.
        options: Options of the run.
        calibrated: Calibration.
    """
    cases = [(name, case) for name, cases in groups.items() for case in cases]
    ordered = sorted(cases, key=lambda pair: pair[1].id)  # the bootstrap draws in the order of the ids
    return [_seen(name, case, method, options, calibrated) for name, case in track(ordered, "detect", len(ordered))]


def _seen(group: str, case: Case, method: Method, options: RunOptions, calibrated: Calibrated) -> MappedScan:
    native = as_stripped(case.image, case.mask, dtype=method.recipe.kind.dtype)
    start = time.perf_counter()
    examined = examine(native, method, options)
    values = examined.native_map(options.score, calibrated)
    seconds = time.perf_counter() - start
    verdict = verdict_of(examined.analysis.fit, case, native, method, calibrated)
    scan, brain = native.scan, native.brain
    labelled = read_truth(case.labels, scan, brain) > 0 if case.labels else np.zeros(brain.shape, bool)
    return MappedScan(
        case=case,
        group=group,
        scan=scan,
        brain=brain,
        labelled=labelled & brain,
        map=values,
        seconds=seconds,
        verdict=verdict,
    )


def measure(
    seen: Sequence[MappedScan], options: RunOptions, calibrated: Calibrated, seed: int, more: More | None = None
) -> Figures:
    """All figures of a part.

    Args:
        seen: The scans with their maps.
        options: Options of the run.
        calibrated: Calibration with the threshold.
        seed: Seed of the bootstrap; the same people are drawn for every method.
        more: Further figures of the suite.
    """
    threshold = calibrated.thresholds[options.score]
    evidence = evidence_of(seen, options, threshold)
    weights = evidence.draw(RESAMPLES, seed)
    sampled = figures(evidence, options.score, weights)
    found = {
        name: Resampled(sampled.values[key], sampled.samples[key])
        for name, key in NAMES.items()
        if key in sampled.values
    }
    found["false_promise"] = _against_promise(evidence, options.score, 1 - calibrated.quantile, weights)
    judged = [one.verdict.trusted for one in seen if one.verdict.trusted is not None]
    found["trusted"] = Resampled(float(np.mean(judged)) if judged else float("nan"))
    return {**found, **_by_group(seen), **(more(seen, threshold, weights) if more else {})}


def evidence_of(seen: Sequence[MappedScan], options: RunOptions, threshold: float) -> Evidence:
    """The evidence of maps in memory; voxels of healthy people count for the false volume only."""
    name, rules = options.score, Rules(min_lesion_ml=options.filters.min_lesion_ml, surface=False)
    pool = PooledScores()
    for one in seen:
        if not one.healthy:
            pool.add_keys(one.keys)
    curve = pool.curve()
    scored = {one.case.id: _scored(one, name) for one in seen}
    ill = [one.case.id for one in seen if not one.healthy]
    at: dict[Kind, float] = {"calibrated": threshold}
    if ill:
        at["oracle"] = mean_threshold(curve, [scored[case_id].counts[name] for case_id in ill])
    froc = froc_thresholds(pool) if ill else []
    measured = {one.case.id: _measured(one, name, rules, at, froc) for one in seen}
    thresholds, measured = not_below_known({name: at}, measured, ill) if ill else ({name: at}, measured)
    return Evidence(
        run="",
        score=name,
        baselines=[],
        rules=rules,
        thresholds=thresholds,
        froc={name: froc},
        scored=list(scored.values()),
        measured=[measured[case_id] for case_id in scored],
        curves={name: curve},
        bounds={},
        exact={name: pool.exact},
    )


def _scored(one: MappedScan, name: str) -> Scored:
    values, truth = one.map[one.brain], one.labelled[one.brain]
    curve, ml = one.keys.curve(), one.scan.voxel_ml
    return Scored(
        id=one.case.id,
        subject=one.case.subject or one.case.id,
        lesion_ml=float(truth.sum()) * ml,
        outside_ml=0.0,
        voxels_ml=len(truth) * ml,
        detected_ml=float("nan"),
        ap={name: curve.average_precision()},
        auroc={name: curve.roc_auc()},
        top={name: top_mean(values, round(TOP_SHARE * len(values)))},
        case_score=float("nan"),
        counts={name: count_case(values, truth)},
        inputs="",
        healthy_run=one.healthy,
    )


def _measured(
    one: MappedScan, name: str, rules: Rules, thresholds: Mapping[Kind, float], froc: Sequence[float]
) -> Measured:
    truth = Truth.of(one.scan, one.brain, one.labelled, rules)
    at, curve = truth.measure(one.map, thresholds, froc)
    return Measured({name: at}, {name: curve}, 0 if truth.lesions is None else len(truth.lesions.volumes_ml))


def _against_promise(evidence: Evidence, name: str, promise: float, weights: Weights) -> Resampled:
    """Share of the healthy people's brain above the threshold, as a multiple of the promised share."""
    above = np.where(evidence.healthy, evidence.column(name, "calibrated", "above_ml"), 0.0)
    sizes = np.where(evidence.healthy, [promise * case.voxels_ml for case in evidence.scored], 0.0)
    once: NDArray[np.float64] = np.ones((1, len(sizes)))
    drawn = evidence.healthy.sum() >= bootstrap.LEAST_SUBJECTS
    samples = bootstrap.ratio(above, sizes, weights) if drawn else None
    return Resampled(float(bootstrap.ratio(above, sizes, once)[0]), samples)


def _by_group(seen: Sequence[MappedScan]) -> Figures:
    """AP of every group of people with lesions, if there are several."""
    groups = sorted({one.group for one in seen if not one.healthy})
    if len(groups) < 2:
        return {}
    return {f"ap {group}": Resampled(pooled_ap([one for one in seen if one.group == group])) for group in groups}


def pooled_ap(seen: Sequence[MappedScan]) -> float:
    """AP over all brain voxels of the scans with lesions."""
    pool = PooledScores()
    for one in seen:
        if not one.healthy:
            pool.add_keys(one.keys)
    return pool.curve().average_precision()
