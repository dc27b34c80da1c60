"""Bands of curves: what each resample is, against scikit-learn on voxels that are really repeated; cost and size."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from sklearn.metrics import precision_recall_curve, roc_curve

from anofield import bootstrap
from anofield.evaluation.bands import RATES, RECALLS, curve_bands
from anofield.evaluation.pooled import count_case

CASES, VOXELS = 6, 400


def voxels(seed: int) -> tuple[Any, Any]:
    """Scores on a few levels, so that no bin rounds any, and the truth; higher seeds are told apart better."""
    generator = np.random.default_rng(seed)
    truth = generator.random(VOXELS) < 0.2
    scores = generator.integers(1, 30, VOXELS) + generator.integers(0, 6 * seed + 2) * truth
    return scores.astype(np.float32), truth


def evidence(seeds: list[int], froc: Any = None, subjects: list[str] | None = None) -> Any:
    """The parts of the evidence that bands need; found and false findings per threshold in `froc`."""
    people = subjects or [str(place) for place in range(len(seeds))]
    found = {"s": [0.0] * len(froc[0])} if froc else {}
    return SimpleNamespace(
        pooled_cases=np.ones(len(seeds), bool),
        ill=np.ones(len(seeds), bool),
        scored=[
            SimpleNamespace(counts={"s": count_case(*voxels(seed))}, subject=person)
            for seed, person in zip(seeds, people, strict=True)
        ],
        measured=[SimpleNamespace(froc={"s": f}, n_lesions=2) for f in froc or [[]] * len(seeds)],
        froc=found,
    )


@pytest.mark.parametrize("drawn", [[2, 0, 1, 0, 3, 0], [1] * CASES, [0, 0, 6, 0, 0, 0]])
def test_a_single_resample_is_the_curve_of_the_repeated_voxels(drawn: list[int]) -> None:
    bands = curve_bands(evidence(list(range(CASES))), "s", np.array([drawn], float))
    repeated = [voxels(seed) for seed, times in enumerate(drawn) for _ in range(times)]
    scores, truth = (np.concatenate(parts) for parts in zip(*repeated, strict=True))
    precision, recall, _ = precision_recall_curve(truth, scores)
    rising = np.searchsorted(recall[::-1][1:], RECALLS[1:])
    np.testing.assert_allclose(bands["precision_recall"].low[1:], precision[::-1][1:][rising], atol=1e-5)
    fpr, tpr, _ = roc_curve(truth, scores, drop_intermediate=False)
    np.testing.assert_allclose(bands["roc"].high, np.interp(RATES, fpr, tpr), atol=1e-5)
    assert bands["roc"].low == bands["roc"].high


def test_scans_of_one_subject_have_no_band_and_more_subjects_a_narrower_one() -> None:
    def width(subjects: list[str], seeds: list[int]) -> float:
        weights = bootstrap.draw(subjects, 200, np.random.default_rng(0))
        found = curve_bands(evidence(seeds, subjects=subjects), "s", weights).get("precision_recall")
        if found is None:
            return 0.0
        assert (np.array(found.low) <= found.high).all()
        return float(np.mean(np.array(found.high) - found.low))

    one = width(["a"] * CASES, list(range(CASES)))
    few = width([str(n) for n in range(CASES)], list(range(CASES)))
    many = width([str(n) for n in range(5 * CASES)], list(range(CASES)) * 5)
    assert one == 0 and 0 < many < 0.7 * few


def test_the_froc_band_goes_along_the_points_as_they_are_drawn() -> None:
    counts = [[(0, 0), (1, 2), (2, 4)], [(1, 0), (1, 0), (2, 8)]]  # (found, false) at falling thresholds
    both = evidence([1, 2], counts)
    found = curve_bands(both, "s", np.array([[1.0, 1.0]]))["froc"]
    assert found.x == [0, 1, 6] and found.low == found.high == [0.25, 0.5, 1.0]
    first = curve_bands(both, "s", np.array([[2.0, 0.0]]))["froc"]
    assert first.low == [0, 0.25, 1.0]  # at 1 half way between its own points at 0 and 2, level beyond 4


def test_what_is_undefined_has_no_band() -> None:
    none = evidence([1, 1])
    scores, truth = voxels(1)
    for case in none.scored:
        case.counts["s"] = count_case(scores, np.zeros_like(truth))
    assert curve_bands(none, "s", np.ones((3, 2))) == {}
