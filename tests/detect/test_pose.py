"""Pose: a head that lies turned, shifted or sized otherwise is found where it lies."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from scipy.spatial.transform import Rotation

from anofield.detect.pose import Pose, rotation, search


def place(seed: int, size: float = 0.1) -> Pose:
    drawn = torch.randn(7, generator=torch.Generator().manual_seed(seed)) * size
    return Pose(drawn[:3], drawn[3:6], drawn[6:])


@pytest.mark.parametrize("turn", [(0.0, 0.0, 0.0), (0.3, -0.2, 0.9), (0.0, 0.0, 3.0)])
def test_a_rotation_vector_means_what_scipy_means(turn: tuple[float, float, float]) -> None:
    expected = Rotation.from_rotvec(turn).as_matrix()
    np.testing.assert_allclose(rotation(torch.tensor(turn)).numpy(), expected, atol=1e-5)


def test_no_displacement_moves_nothing_and_costs_nothing() -> None:
    pose = Pose.start(torch.zeros(3))
    points = torch.randn(10, 3, generator=torch.Generator().manual_seed(0))
    torch.testing.assert_close(pose(points), points)
    assert float(pose.cost()) == 0.0
    assert pose.describe() == {"turn_degrees": [0.0, 0.0, 0.0], "shift": [0.0, 0.0, 0.0], "size": 1.0}


@pytest.mark.parametrize("seed", range(3))
def test_distances_grow_by_the_size_alone(seed: int) -> None:
    pose, points = place(seed), torch.randn(10, 3, generator=torch.Generator().manual_seed(seed))
    expected = torch.pdist(points) * pose.log_size.exp()
    torch.testing.assert_close(torch.pdist(pose(points)), expected, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("turn", [(0.3, 0.0, 0.0), (0.0, -0.3, 0.3), (0.0, 0.0, 0.0)])
def test_search_starts_near_the_true_turn(turn: tuple[float, float, float]) -> None:
    """A landscape whose only valley is where the turned points look as they did."""
    generator = torch.Generator().manual_seed(1)
    points, weight = torch.rand(500, 3, generator=generator) * 2 - 1, torch.randn(3, 3, generator=generator)
    seen = points @ rotation(torch.tensor(turn)).T @ weight

    found, turned = search(lambda moved: ((moved @ weight - seen) ** 2).mean(dim=(1, 2)), points)
    assert found.turn.tolist() == pytest.approx(turn)
    assert not turned


def test_a_turn_by_a_quarter_is_named() -> None:
    points = torch.rand(500, 3, generator=torch.Generator().manual_seed(1)) * 2 - 1
    quarter = torch.tensor([[0.0, -1.0, 0.0], [1.0, 0.0, 0.0], [0.0, 0.0, 1.0]])
    seen = points @ quarter.T
    assert search(lambda moved: ((moved - seen) ** 2).mean(dim=(1, 2)), points)[1]
