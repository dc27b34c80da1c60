"""The oracle: no threshold is better than its own, for the same cases and the same kind of Dice."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from anofield.evaluation.case import Detected, Measured, Scored
from anofield.evaluation.evidence import Evidence
from anofield.evaluation.metrics import figures
from anofield.evaluation.oracle import mean_threshold, not_below_known, pooled_threshold
from anofield.evaluation.pooled import PooledScores, count_case
from anofield.evaluation.rules import Rules, Thresholds
from anofield.evaluation.summary import all_figures

Case = tuple[np.ndarray, np.ndarray]  # scores and truth, both (voxel,)
VOXEL = st.tuples(st.integers(-3, 12), st.booleans())
CASES = st.lists(st.lists(VOXEL, min_size=3, max_size=12), min_size=1, max_size=5)


def cases_of(drawn: list[list[tuple[int, bool]]], scale: float = 1.0) -> list[Case]:
    """Cases from drawn voxels; the first one has a lesion."""
    found = [(np.array([s for s, _ in one], np.float32) * scale, np.array([t for _, t in one])) for one in drawn]
    found[0][1][0] = True
    return found


def dice(case: Case, threshold: float) -> float:
    scores, truth = case
    total = truth.sum() + (scores > threshold).sum()
    return float(2 * (truth & (scores > threshold)).sum() / total) if truth.any() else float("nan")


def pooled(cases: list[Case]) -> Case:
    scores, truth = (np.concatenate(parts) for parts in zip(*cases, strict=True))
    return scores, truth


def detected(case: Case, threshold: float) -> Detected:
    scores, truth = case
    above = scores > threshold
    hit, n = int((truth & above).sum()), int(above.sum())
    return Detected(dice(case, threshold), hit, n, int(truth.sum()), float(n), None, float("nan"), float("nan"))


def scored(number: int, case: Case) -> Scored:
    scores, truth = case
    none: dict[str, float] = {"s": 0.0}
    lesion = float(truth.sum())
    counts = {"s": count_case(scores, truth)}
    return Scored(
        id=str(number), subject=str(number), lesion_ml=lesion, outside_ml=0, voxels_ml=len(truth), detected_ml=0,
        ap=none, auroc=none, top=none, case_score=0, counts=counts, inputs="",
    )  # fmt: skip


def evidence_of(cases: list[Case], calibrated: float, keep: int = 1 << 20) -> Evidence:
    """The evidence of some cases with a calibrated threshold, as `gather` makes it."""
    pool = PooledScores(keep)
    for case in cases:
        pool.add(*case)
    firsts, curve = [scored(number, case) for number, case in enumerate(cases)], pool.curve()
    thresholds: Thresholds = {
        "s": {"calibrated": calibrated, "oracle": mean_threshold(curve, [one.counts["s"] for one in firsts])}
    }
    at = {
        str(n): Measured({"s": {kind: detected(case, value) for kind, value in thresholds["s"].items()}}, {}, 0)
        for n, case in enumerate(cases)
    }
    thresholds, at = not_below_known(thresholds, at, list(at))
    return Evidence(
        run="", score="s", baselines=[], rules=Rules(surface=False), thresholds=thresholds, froc={}, scored=firsts,
        measured=list(at.values()), curves={"s": curve}, bounds={"s": pool.bounds(curve)}, exact={"s": pool.exact},
    )  # fmt: skip


@settings(deadline=None, max_examples=60)
@given(CASES, st.floats(-4, 13, width=32))
def test_no_threshold_is_better_than_the_oracles(drawn: list[list[tuple[int, bool]]], calibrated: float) -> None:
    cases = cases_of(drawn)
    found = all_figures(evidence_of(cases, calibrated), "s")
    everywhere = np.append(np.arange(-4, 13), calibrated)
    assert found.dice_oracle_mean == pytest.approx(max(np.nanmean([dice(c, t) for c in cases]) for t in everywhere))
    assert found.dice_oracle == pytest.approx(max(dice(pooled(cases), t) for t in everywhere))
    assert found.threshold_oracle_mean is not None
    assert np.nanmean([dice(c, found.threshold_oracle_mean) for c in cases]) == pytest.approx(found.dice_oracle_mean)


@settings(deadline=None, max_examples=60)
@given(CASES, st.integers(0, 12))
def test_the_calibrated_threshold_is_never_better_also_between_the_edges_of_bins_and_in_resamples(
    drawn: list[list[tuple[int, bool]]], place: int
) -> None:
    cases = cases_of(drawn, scale=1e-4)
    cases = [(scores + np.float32(1), truth) for scores, truth in cases]  # many scores in one bin of 0.4 %
    evidence = evidence_of(cases, float(np.float32(1) + np.float32(place * 1e-4)), keep=5)
    found, sampled = all_figures(evidence, "s"), figures(evidence, "s", evidence.draw(20, 0))
    assert found.dice_calibrated_mean is not None and found.dice_calibrated_pooled is not None
    assert found.dice_oracle_mean >= found.dice_calibrated_mean
    assert found.dice_oracle >= found.dice_calibrated_pooled
    for key in ("mean", "pooled"):
        oracle, known = (sampled.samples[f"dice_{kind}_{key}"] for kind in ("oracle", "calibrated"))
        assert np.all((oracle >= known - 1e-12) | np.isnan(known))
        assert sampled.values[f"dice_oracle_{key}"] >= sampled.values[f"dice_calibrated_{key}"] - 1e-12


def test_the_best_threshold_of_the_pooled_voxels_is_not_that_of_the_scans() -> None:
    """The fault that was seen: the mean Dice over scans at the pooled threshold was below the calibrated one."""
    large = np.r_[np.full(100, 5), np.full(60, 3), np.full(60, 3)].astype(np.float32), np.arange(220) < 160
    small = np.r_[np.full(4, 5), np.full(5, 3)].astype(np.float32), np.arange(9) < 4
    cases = [large, small, small]
    curve = evidence_of(cases, 4.0).curves["s"]
    at = pooled_threshold(curve, [])
    found = all_figures(evidence_of(cases, 4.0), "s")
    assert np.mean([dice(case, at) for case in cases]) < np.mean([dice(case, 4.0) for case in cases])
    assert found.dice_oracle_mean >= (found.dice_calibrated_mean or 0)
    assert found.dice_oracle == pytest.approx(dice(pooled(cases), at))


def test_one_scan_has_one_oracle_and_a_healthy_run_none() -> None:
    scores = np.float32(1) + np.arange(6, dtype=np.float32) * np.float32(1e-4)
    ill, well = (scores, np.arange(6) > 3), (scores, np.zeros(6, bool))
    found = all_figures(evidence_of([ill], 0.5), "s")
    assert found.dice_oracle_mean == found.dice_oracle == 1
    assert found.threshold_oracle == found.threshold_oracle_mean
    counts = [scored(0, well).counts["s"]]
    assert np.isnan(mean_threshold(PooledScores().curve(), counts))
