"""Streamed metrics: what the fine bins say is what scikit-learn says of all the scores at once."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.metrics import average_precision_score, roc_auc_score

from anofield.curves import Curve, ScoreHistogram

PAIRS = st.lists(st.tuples(st.integers(-64, 128), st.booleans()), min_size=2, max_size=60)


def arrays(pairs: list[tuple[int, bool]]) -> tuple[np.ndarray, np.ndarray]:
    """Scores that are multiples of 1/64, so that each has a bin of its own, with many ties; and the truth."""
    return np.array([value for value, _ in pairs], np.float32) / 64, np.array([truth for _, truth in pairs])


def curve(scores: np.ndarray, truth: np.ndarray) -> Curve:
    histogram = ScoreHistogram()
    histogram.add(scores, truth)
    return histogram.curve()


def brute_dice(scores: np.ndarray, truth: np.ndarray, threshold: float) -> float:
    above = scores > threshold
    return 2 * int((above & truth).sum()) / int(above.sum() + truth.sum())


@pytest.mark.slow
@given(PAIRS)
@settings(max_examples=60, deadline=None)
def test_metrics_equal_scikit_learns_on_representable_scores(pairs: list[tuple[int, bool]]) -> None:
    scores, truth = arrays(pairs)
    found = curve(scores, truth)
    if not truth.any():
        assert math.isnan(found.average_precision())
        assert math.isnan(found.best_dice()[0])
        assert math.isnan(found.fpr_at_recall())
        return
    assert found.average_precision() == pytest.approx(average_precision_score(truth, scores), abs=1e-12)
    candidates = [*(float(s) for s in np.unique(scores)), -10.0]
    best, at = found.best_dice()
    assert best == pytest.approx(max(brute_dice(scores, truth, t) for t in candidates), abs=1e-12)
    assert best == pytest.approx(brute_dice(scores, truth, at), abs=1e-12)
    if truth.all():
        assert math.isnan(found.roc_auc())
        return
    assert found.roc_auc() == pytest.approx(roc_auc_score(truth, scores), abs=1e-12)
    reached = [t for t in candidates if (scores[truth] > t).mean() > 0.95]
    assert found.fpr_at_recall() == pytest.approx(min((scores[~truth] > t).mean() for t in reached), abs=1e-12)


def test_metrics_are_close_to_scikit_learns_on_continuous_scores() -> None:
    generator = np.random.default_rng(0)
    truth = generator.random(20_000) < 0.05
    scores = (generator.normal(size=20_000) + 1.5 * truth).astype(np.float32)
    found = curve(scores, truth)
    assert found.average_precision() == pytest.approx(average_precision_score(truth, scores), abs=2e-3)
    assert found.roc_auc() == pytest.approx(roc_auc_score(truth, scores), abs=1e-4)


@pytest.mark.slow
@given(PAIRS)
@settings(max_examples=40, deadline=None)
def test_every_threshold_of_a_curve_gives_its_counts(pairs: list[tuple[int, bool]]) -> None:
    scores, truth = arrays(pairs)
    found = curve(scores, truth)
    assert (np.diff(found.thresholds) < 0).all()
    for threshold, true, false in zip(found.thresholds, found.true_positives, found.false_positives, strict=True):
        above = scores > threshold
        assert (int((above & truth).sum()), int((above & ~truth).sum())) == (true, false)


@pytest.mark.slow
@given(PAIRS, st.integers(0, 60))
@settings(max_examples=30, deadline=None)
def test_adding_in_pieces_is_adding_at_once(pairs: list[tuple[int, bool]], cut: int) -> None:
    scores, truth = arrays(pairs)
    whole, pieces = ScoreHistogram(), ScoreHistogram()
    whole.add(scores, truth)
    for part in (slice(None, cut), slice(cut, None)):
        pieces.add(scores[part], truth[part])
    np.testing.assert_array_equal(whole.counts, pieces.counts)


def test_scores_without_truth_are_healthy() -> None:
    one, other = ScoreHistogram(), ScoreHistogram()
    one.add(np.array([1.0, 2.0], np.float32))
    other.add(np.array([1.0, 2.0], np.float32), np.array([False, False]))
    np.testing.assert_array_equal(one.counts, other.counts)


@pytest.mark.parametrize("q", [0.01, 0.5, 0.9, 0.995, 1.0])
@pytest.mark.parametrize("shift", [-5.0, 0.0, 5.0])
def test_quantile_is_the_smallest_threshold_that_few_enough_exceed(q: float, shift: float) -> None:
    scores = (np.random.default_rng(0).normal(size=5000) + shift).astype(np.float32)
    histogram = ScoreHistogram()
    histogram.add(scores)
    threshold = histogram.quantile(q)
    exact = float(np.sort(scores)[math.ceil(q * len(scores)) - 1])
    assert threshold >= exact
    assert threshold == pytest.approx(exact, rel=1e-3, abs=1e-6)
    assert (scores > threshold).mean() <= 1 - q + 1e-12


def test_quantile_sees_healthy_voxels_only_and_is_unknown_without_any() -> None:
    histogram = ScoreHistogram()
    histogram.add(np.array([9.0], np.float32), np.array([True]))
    assert math.isnan(histogram.quantile(0.5))
    histogram.add(np.array([1.0], np.float32), np.array([False]))
    assert histogram.quantile(0.5) == pytest.approx(1.0, rel=1e-3)


def test_negative_scores_lie_below_positive_ones_and_larger_ones_further() -> None:
    scores = np.array([-1e20, -3.0, -1e-3, 0.0, 1e-3, 3.0, 1e20], np.float32)
    truth = np.array([False, False, False, False, True, True, True])
    assert curve(scores, truth).average_precision() == 1.0
    assert curve(-scores, ~truth).roc_auc() == pytest.approx(1.0)


def test_both_zeros_are_one_score() -> None:
    scores, truth = np.array([0.0, -0.0, 0.0, -0.0, 1.0], np.float32), np.array([True, False, False, True, True])
    found = curve(scores, truth)
    assert found.average_precision() == pytest.approx(average_precision_score(truth, scores))
    assert found.roc_auc() == pytest.approx(roc_auc_score(truth, scores))
    assert (scores > found.thresholds[-1]).all()
