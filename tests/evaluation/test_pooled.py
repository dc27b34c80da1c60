"""Pooled scores: what is kept is scikit-learn's to the last digits, what is rounded lies within its proven bounds."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.metrics import average_precision_score, precision_recall_curve, roc_auc_score, roc_curve

from anofield.bootstrap import voxel_metrics
from anofield.curves import exact_curve
from anofield.evaluation.pooled import PooledScores, count_case, stack_counts

ANY = st.floats(-(2.0**100), 2.0**100, width=32)
TIED = st.integers(-4, 4).map(float)
PAIRS = st.lists(st.tuples(st.one_of(ANY, TIED), st.booleans()), min_size=2, max_size=80)


def arrays(pairs: list[tuple[float, bool]]) -> tuple[np.ndarray, np.ndarray]:
    return np.array([value for value, _ in pairs], np.float32), np.array([truth for _, truth in pairs])


def pooled_of(scores: np.ndarray, truth: np.ndarray, keep: int, pieces: int = 3) -> PooledScores:
    pooled = PooledScores(keep)
    for part in np.array_split(np.arange(len(scores)), pieces):
        pooled.add(scores[part], truth[part])
    return pooled


@pytest.mark.slow
@given(PAIRS)
@settings(max_examples=150, deadline=None)
def test_what_is_kept_equals_scikit_learn_ties_included(pairs: list[tuple[float, bool]]) -> None:
    scores, truth = arrays(pairs)
    pooled = pooled_of(scores, truth, keep=1000)
    curve = pooled.curve()
    assert pooled.exact
    if truth.any():
        assert curve.average_precision() == pytest.approx(average_precision_score(truth, scores), abs=1e-12)
        precision, recall, _ = precision_recall_curve(truth, scores)
        with np.errstate(invalid="ignore"):
            f1 = np.nan_to_num(2 * precision * recall / (precision + recall))
        assert curve.best_dice()[0] == pytest.approx(f1.max(), abs=1e-12)
    if truth.any() and not truth.all():
        assert curve.roc_auc() == pytest.approx(roc_auc_score(truth, scores), abs=1e-12)
        fpr, tpr, _ = roc_curve(truth, scores, drop_intermediate=False)
        assert curve.fpr_at_recall(0.95) == pytest.approx(fpr[tpr > 0.95].min(), abs=1e-12)
    assert pooled.bounds(curve)["ap"] == pytest.approx((curve.average_precision(),) * 2, nan_ok=True)


@pytest.mark.slow
@given(PAIRS)
@settings(max_examples=60, deadline=None)
def test_every_corner_gives_its_counts(pairs: list[tuple[float, bool]]) -> None:
    scores, truth = arrays(pairs)
    found = exact_curve(scores, truth)
    assert (np.diff(found.thresholds) < 0).all()
    for threshold, true, false in zip(found.thresholds, found.true_positives, found.false_positives, strict=True):
        above = scores > threshold
        assert (int((above & truth).sum()), int((above & ~truth).sum())) == (true, false)
    assert (found.true_positives[-1], found.false_positives[-1]) == (truth.sum(), (~truth).sum())


@pytest.mark.slow
@given(PAIRS, st.floats(1.0, 1.001))
@settings(max_examples=20, deadline=None)  # each fills two rows of 4 million counters
def test_what_is_rounded_lies_within_its_bounds(pairs: list[tuple[float, bool]], spread: float) -> None:
    scores, truth = arrays(pairs)
    scores = np.r_[scores, scores * np.float32(spread)].astype(np.float32)  # neighbours within one bin
    truth = np.r_[truth, ~truth]
    pooled = pooled_of(scores, truth, keep=3, pieces=2)
    curve = pooled.curve()
    assert not pooled.exact
    for key, exact in (("ap", average_precision_score(truth, scores)), ("auroc", roc_auc_score(truth, scores))):
        low, high = pooled.bounds(curve)[key]
        assert low - 1e-12 <= exact <= high + 1e-12


@pytest.mark.slow
def test_rounding_millions_of_scores_moves_the_metrics_by_less_than_a_ten_thousandth() -> None:
    generator = np.random.default_rng(0)
    truth = generator.random(400_000) < 0.02
    scores = np.maximum(generator.normal(size=truth.size) + 1.5 * truth, 0).astype(np.float32)  # half of them 0
    rounded, kept = (pooled_of(scores, truth, keep) for keep in (1000, 1 << 20))
    for key, metric in (("ap", "average_precision"), ("auroc", "roc_auc")):
        low, high = rounded.bounds(rounded.curve())[key]
        exact = getattr(kept.curve(), metric)()
        assert low <= exact <= high < low + 1e-3
        assert getattr(rounded.curve(), metric)() == pytest.approx(exact, abs=1e-4)


@pytest.mark.slow
def test_memory_is_given_back_when_scores_are_rounded() -> None:
    pooled = PooledScores(keep=100)
    for seed in range(5):
        values = np.random.default_rng(seed).random(60).astype(np.float32)
        pooled.add(values, values > 0.9)
    assert not pooled.exact
    assert [part for kept in pooled._keys for part in kept] == []
    assert pooled.curve().positives + pooled.curve().negatives == 300


@pytest.mark.slow
@pytest.mark.parametrize("keep", [10, 10_000])
def test_the_quantile_of_healthy_voxels_is_exceeded_by_few_enough(keep: int) -> None:
    scores = np.random.default_rng(0).normal(size=5000).astype(np.float32)
    pooled = pooled_of(np.r_[scores, np.full(50, 99, np.float32)], np.arange(5050) >= 5000, keep)
    shares = (0.9, 0.999)
    for q, threshold in zip(shares, pooled.quantiles(shares), strict=True):
        assert (scores > threshold).mean() <= 1 - q + 1e-12
        assert threshold == pytest.approx(np.quantile(scores, q), rel=0.02)
    assert math.isnan(PooledScores().quantiles([0.5])[0])


def test_coarse_counts_of_all_cases_give_nearly_the_pooled_metrics() -> None:
    generator = np.random.default_rng(0)
    cases = []
    for _ in range(4):
        truth = generator.random(20_000) < 0.05
        cases.append(((generator.normal(size=truth.size) + 2 * truth).astype(np.float32), truth))
    table = stack_counts([count_case(*case) for case in cases])
    found = voxel_metrics(table, np.ones((1, 4)))
    scores, truth = (np.concatenate(parts) for parts in zip(*cases, strict=True))
    assert table.sum() == truth.size
    assert found["ap"][0] == pytest.approx(average_precision_score(truth, scores), abs=2e-3)
    assert found["auroc"][0] == pytest.approx(roc_auc_score(truth, scores), abs=1e-4)
    assert found["dice_oracle"][0] == pytest.approx(exact_curve(scores, truth).best_dice()[0], abs=2e-3)
    assert found["fpr95"][0] == pytest.approx(exact_curve(scores, truth).fpr_at_recall(), abs=5e-3)
