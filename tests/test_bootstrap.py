"""Bootstrap: people are drawn, not scans; intervals cover what they claim; a thing equals itself."""

from __future__ import annotations

import numpy as np
import pytest
from sklearn.metrics import average_precision_score, roc_auc_score

from anofield import bootstrap


def test_all_scans_of_a_subject_are_drawn_together_and_every_resample_holds_as_many_subjects() -> None:
    weights = bootstrap.draw(["a", "b", "a", "c"], 200, np.random.default_rng(0))
    np.testing.assert_array_equal(weights[:, 0], weights[:, 2])
    assert (weights[:, [0, 1, 3]].sum(axis=1) == 3).all()
    np.testing.assert_array_equal(weights, bootstrap.draw(["a", "b", "a", "c"], 200, np.random.default_rng(0)))
    assert (weights != bootstrap.draw(["a", "b", "a", "c"], 200, np.random.default_rng(1))).any()


@pytest.mark.slow
def test_the_interval_of_a_mean_covers_the_truth_about_as_often_as_it_claims() -> None:
    generator = np.random.default_rng(0)
    covered = []
    for _ in range(300):
        values = generator.exponential(size=40)
        weights = bootstrap.draw([str(i) for i in range(40)], 300, generator)
        low, high = bootstrap.interval(bootstrap.mean(values, weights))  # type: ignore[misc]
        covered.append(low <= 1.0 <= high)
    assert 0.87 <= np.mean(covered) <= 0.98  # 95 % claimed; percentile intervals of skewed data are a little narrow


def test_weights_mean_repetition() -> None:
    """A resample's pooled metrics are those of the data with its cases repeated."""
    generator = np.random.default_rng(0)
    values = np.arange(6, dtype=np.float32)
    tables, cases = [], []
    for _ in range(3):
        scores, truth = generator.choice(values, 50), generator.random(50) < 0.4
        cases.append((scores, truth))
        tables.append([[np.sum((scores == v) & (truth == t)) for v in values[::-1]] for t in (False, True)])
    weights = np.array([[1, 1, 1], [2, 0, 1], [0, 3, 0]], dtype=float)
    found = bootstrap.voxel_metrics(np.array(tables, np.float32), weights)
    for row, chosen in enumerate(weights.astype(int)):
        scores, truth = (
            np.concatenate([part for case, n in zip(cases, chosen, strict=True) for part in [case[i]] * n])
            for i in (0, 1)
        )
        assert found["ap"][row] == pytest.approx(average_precision_score(truth, scores))
        assert found["auroc"][row] == pytest.approx(roc_auc_score(truth, scores))


def test_resamples_without_lesions_have_no_pooled_metrics() -> None:
    table = np.zeros((2, 2, 3), np.float32)
    table[0, 0], table[1] = 5, 5
    found = bootstrap.voxel_metrics(table, np.array([[2.0, 0.0], [0.0, 2.0]]))
    for name, samples in found.items():
        assert np.isnan(samples[0]), name
        assert not np.isnan(samples[1]), name
        assert bootstrap.interval(samples) == pytest.approx([samples[1]] * 2)
    assert bootstrap.interval(np.array([np.nan])) is None


def test_auroc_of_scans_equals_scikit_learns_ties_included() -> None:
    generator = np.random.default_rng(0)
    scores, truth = generator.integers(0, 5, 30).astype(float), generator.random(30) < 0.5
    weights = bootstrap.draw([str(i) for i in range(30)], 20, generator)
    found = bootstrap.auroc(scores, truth, weights)
    for row, weight in zip(found, weights, strict=True):
        assert row == pytest.approx(roc_auc_score(truth, scores, sample_weight=weight))


def test_means_leave_out_what_is_unknown() -> None:
    values = np.array([1.0, np.nan, 3.0, np.inf])
    found = bootstrap.mean(values, np.array([[1.0, 1, 1, 1], [3, 0, 1, 0], [0, 2, 0, 2]]))
    np.testing.assert_array_equal(found, [2.0, 1.5, np.nan])


def test_sign_share_is_small_only_where_the_sign_is_sure_and_never_zero() -> None:
    assert bootstrap.sign_share(np.zeros(1000), 20) == 1.0
    assert bootstrap.sign_share(np.ones(999), 20) == pytest.approx(2 / 1000)
    assert bootstrap.sign_share(np.r_[np.ones(500), -np.ones(500)], 20) == 1.0
    assert np.isnan(bootstrap.sign_share(np.array([np.nan]), 20))


@pytest.mark.parametrize(("subjects", "least"), [(2, 0.5), (4, 0.125), (6, 0.03125)])
def test_sign_share_is_no_smaller_than_that_of_all_sign_flips(subjects: int, least: float) -> None:
    assert bootstrap.sign_share(np.ones(999), subjects) == least
