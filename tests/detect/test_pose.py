"""Pose: a head that lies turned, shifted or sized otherwise is found where it lies."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from scipy.spatial.transform import Rotation

from anofield.detect.pose import TILT_MARGIN, Pose, losses_of, quarter_turns, rotation, search


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
def test_search_starts_near_the_true_turn_unless_it_is_hardly_better(turn: tuple[float, float, float]) -> None:
    """A landscape whose only valley is where the turned points look as they did."""
    generator = torch.Generator().manual_seed(1)
    points, weight = torch.rand(500, 3, generator=generator) * 2 - 1, torch.randn(3, 3, generator=generator)
    seen = points @ rotation(torch.tensor(turn)).T @ weight

    def started(depth: float) -> Pose:
        """The start in a valley this much deeper, nats, than where nothing is tilted."""
        level = float(((points @ weight - seen) ** 2).mean()) or 1.0
        return search(lambda moved: ((moved @ weight - seen) ** 2).mean(dim=(1, 2)) * (depth / level), points)

    assert started(1.2 * TILT_MARGIN).turn.tolist() == pytest.approx(turn)
    assert not started(0.8 * TILT_MARGIN).turn.any()


def test_of_the_turns_by_right_angles_the_true_one_fits_best() -> None:
    points = torch.rand(500, 3, generator=torch.Generator().manual_seed(1)) * 2 - 1
    quarter = torch.tensor([[0.0, -1.0, 0.0], [1.0, 0.0, 0.0], [0.0, 0.0, 1.0]])
    seen = points @ quarter.T
    turns = quarter_turns()
    losses = losses_of(lambda moved: ((moved - seen) ** 2).mean(dim=(1, 2)), points, turns)
    torch.testing.assert_close(turns[losses.argmin()], quarter)
    assert len(turns) == 23 and not any(torch.equal(turn, torch.eye(3)) for turn in turns)


def affine(seed: int, size: float = 0.1) -> Pose:
    drawn = torch.randn(12, generator=torch.Generator().manual_seed(seed)) * size
    return Pose(drawn[:3], drawn[3:6], drawn[6:9], drawn[9:])


@pytest.mark.parametrize("pose", [place(1), affine(2)], ids=["similarity", "affine"])
def test_the_matrix_maps_points_as_the_pose_does(pose: Pose) -> None:
    points = torch.randn(20, 3, generator=torch.Generator().manual_seed(0))
    matrix = pose.matrix
    np.testing.assert_allclose(points.numpy() @ matrix[:3, :3].T + matrix[:3, 3], pose(points).numpy(), atol=1e-5)
    assert matrix.dtype == np.float64 and matrix[3].tolist() == [0, 0, 0, 1]


@pytest.mark.parametrize("seed", range(3))
def test_every_affine_map_near_the_identity_is_an_affine_pose(seed: int) -> None:
    """Rotation, sizes and shears are a QR decomposition: nine numbers for the nine of the matrix."""
    wanted = np.eye(3) + 0.1 * np.random.default_rng(seed).normal(size=(3, 3))
    turn, upper = np.linalg.qr(wanted)
    signs = np.sign(np.diag(upper))
    turn, upper = turn * signs, upper * signs[:, None]
    sizes = np.diag(upper)
    shear = (upper / sizes)[np.triu_indices(3, 1)]
    numbers = (Rotation.from_matrix(turn).as_rotvec(), np.zeros(3), np.log(sizes), shear)
    pose = Pose(*(torch.tensor(number, dtype=torch.float32) for number in numbers))
    np.testing.assert_allclose(pose.matrix[:3, :3], wanted, atol=1e-5)


def test_an_affine_pose_starts_where_its_similarity_lies() -> None:
    similar = place(3)
    grown = similar.as_kind("affine")
    np.testing.assert_allclose(grown.matrix, similar.matrix, atol=1e-6)
    assert similar.as_kind("similarity") is similar
    assert [tuple(value.shape) for value in grown.parameters()] == [(3,), (3,), (3,), (3,)]


def test_a_similarity_is_bit_for_bit_what_it_was() -> None:
    pose, points = place(4), torch.randn(50, 3, generator=torch.Generator().manual_seed(0))
    before = (points * pose.log_size.exp()) @ rotation(pose.turn).T + pose.shift
    assert torch.equal(pose(points), before)
    parts = ((pose.turn, 0.2), (pose.shift, 0.05), (pose.log_size, 0.1))
    assert torch.equal(pose.cost(), torch.stack([(value / sd).square().sum() for value, sd in parts]).sum())
    assert set(pose.describe()) == {"turn_degrees", "shift", "size"}


def test_sizes_and_shears_cost_and_are_told() -> None:
    straight = Pose.start(torch.zeros(3)).as_kind("affine")
    assert float(straight.cost()) == 0.0
    sheared = Pose(straight.turn, straight.shift, torch.tensor([0.1, 0.0, 0.0]), torch.tensor([0.0, 0.05, 0.0]))
    assert float(sheared.cost()) == pytest.approx(2.0)
    assert sheared.describe()["sizes"] == pytest.approx([0.9048, 1.0, 1.0])
    assert sheared.describe()["shears"] == pytest.approx([0.0, -0.05, 0.0])
