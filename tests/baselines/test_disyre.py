"""Restoration learnt from synthetic anomalies: its schedule, and the arithmetic of its restorations."""

from __future__ import annotations

import importlib.util
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from anofield.baselines.base import observed
from anofield.baselines.disyre import Restoring, RestoringSettings, inference_levels, nearest_level, padded, schedule
from helpers import make_prepared, make_store, with_lesion


class Perfect:
    """Knows the healthy head, and restores it whatever it is told; keeps what it was told."""

    def __init__(self, healthy: Tensor) -> None:
        self.healthy, self.told = healthy, list[float]()

    def restore(self, images: Tensor, severity: Tensor) -> Tensor:
        self.told.append(float(severity))
        return self.healthy


def score(cold: bool, tail: Any = "both", count: int = 4) -> tuple[Any, np.ndarray, Perfect]:
    """Result of a perfect restoration of a head with a lesion, the true change, and what the network was told."""
    healthy = make_prepared(0)
    ill = with_lesion(healthy)
    before, after = (observed(p.classes, p.brain, p.recipe) for p in (healthy, ill))
    box = tuple(slice(np.nonzero(line)[0][0], np.nonzero(line)[0][-1] + 1) for line in
                (ill.brain.any((1, 2)), ill.brain.any((0, 2)), ill.brain.any((0, 1))))  # fmt: skip
    method = Restoring(healthy.recipe, RestoringSettings(cold=cold, restorations=count))
    method.net = Perfect(padded(torch.from_numpy(before[box])))
    return method.score(ill, "x", tail), after - before, method.net


def test_levels_decrease_from_severe_to_almost_nothing() -> None:
    levels = schedule()
    assert (levels.diff() < 0).all() and 0.99 < levels[0] < 1 and levels[-1] < 0.01
    few = inference_levels(5)
    assert few == sorted(few, reverse=True) and few[-1] == float(levels[-1])
    assert inference_levels(100) == levels.tolist()
    torch.testing.assert_close(nearest_level(levels), levels)
    assert nearest_level(torch.tensor([0.0, 1.0])).tolist() == [float(levels[-1]), float(levels[0])]


def test_apart_restorations_score_the_whole_change() -> None:
    found, change, net = score(cold=False)
    np.testing.assert_allclose(found.anomaly, np.abs(change), atol=1e-6)
    assert net.told == pytest.approx(inference_levels(4))


def test_cold_restorations_go_all_the_way_and_add_up_their_parts() -> None:
    """With a perfect network the share of the anomaly that is left is the ratio of the severities."""
    found, change, net = score(cold=True)
    levels = np.array(inference_levels(4))
    np.testing.assert_allclose(found.anomaly, np.abs(change) * (levels / levels[0]).mean(), atol=1e-6)
    healthy = make_prepared(0)
    np.testing.assert_allclose(found.restoration, observed(healthy.classes, healthy.brain, healthy.recipe), atol=1e-6)
    assert net.told == pytest.approx(levels.tolist())


@pytest.mark.parametrize("cold", [False, True])
def test_the_tail_is_that_of_the_change(cold: bool) -> None:
    bright, change, _ = score(cold, "bright")
    dark, _, _ = score(cold, "dark")
    both, _, _ = score(cold, "both")
    assert (change >= 0).all() and not dark.anomaly.any()
    np.testing.assert_array_equal(bright.anomaly, both.anomaly)


def test_volumes_are_filled_up_to_what_the_network_takes() -> None:
    scan = torch.rand((5, 16, 30))
    found = padded(scan)
    assert found.shape == (1, 1, 16, 16, 32)
    assert torch.equal(found[0, 0, :5, :16, :30], scan) and found.sum() == pytest.approx(float(scan.sum()), rel=1e-5)


@pytest.mark.slow
@pytest.mark.skipif(importlib.util.find_spec("monai") is None, reason="MONAI is not installed")
def test_learns_to_remove_a_bright_spot(tmp_path: Path) -> None:
    store = make_store(tmp_path / "train.zarr", people=5)
    method = Restoring(store.recipe, RestoringSettings(steps=40, batch=4, width=8, crop=16, augment=False))
    method.train(store)
    healthy = make_prepared(0)
    ill = with_lesion(healthy)
    lesion = ill.classes != healthy.classes
    found = method.score(ill, "x", "bright").anomaly
    assert found[lesion].mean() > 2 * found[ill.brain & ~lesion].mean()
