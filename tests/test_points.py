"""Points: every voxel has one place in the field, and a batch is a function of its generator."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from anofield.lattice import Convention, field_coordinates
from anofield.points import Volumes, axis_coordinates, coordinates_of
from helpers import CLASSES, make_prepared

RESOLUTION = 12


def volumes(people: int = 3) -> Volumes:
    prepared = [make_prepared(seed, RESOLUTION) for seed in range(people)]
    return Volumes.stack([p.classes for p in prepared], [p.brain for p in prepared], "center", torch.device("cpu"))


def indices_of(points: torch.Tensor) -> torch.Tensor:
    """Lattice indices (…, 3) of field coordinates at voxel centres."""
    return (((points + 1) * RESOLUTION - 1) / 2).round().long()


@pytest.mark.parametrize("convention", ["center", "corner"])
@pytest.mark.parametrize("resolution", [1, 2, 7, 16])
def test_flat_indices_and_field_coordinates_agree_at_every_voxel(resolution: int, convention: Convention) -> None:
    axis = axis_coordinates(resolution, convention)
    found = coordinates_of(torch.arange(resolution**3), resolution, axis)
    grid = np.indices((resolution,) * 3).reshape(3, -1).T.astype(float)
    np.testing.assert_allclose(found, field_coordinates(grid, resolution, convention), atol=1e-6)


def test_centres_are_symmetric_and_corners_start_at_minus_one() -> None:
    center, corner = axis_coordinates(8, "center"), axis_coordinates(8, "corner")
    torch.testing.assert_close(center, -center.flip(0))
    assert (float(corner[0]), float(corner[-1])) == (-1.0, 0.75)


def test_targets_are_the_classes_at_the_points() -> None:
    people = volumes()
    rows = torch.tensor([2, 0])
    points, targets = people.batch(rows, 400, 0.5, torch.Generator().manual_seed(1))
    assert points.shape == (2, 400, 3)
    assert points.dtype == torch.float32
    assert targets.dtype == torch.int64
    for case, row in enumerate((2, 0)):
        i, j, k = indices_of(points[case]).unbind(-1)
        np.testing.assert_array_equal(targets[case], make_prepared(row, RESOLUTION).classes[i, j, k])
    assert set(targets.flatten().tolist()) == set(range(CLASSES))


def test_a_batch_is_a_function_of_its_generator() -> None:
    people, rows = volumes(), torch.tensor([1, 0, 2])
    first = people.batch(rows, 50, 0.8, torch.Generator().manual_seed(5))
    torch.rand(100)
    again = people.batch(rows, 50, 0.8, torch.Generator().manual_seed(5))
    other = people.batch(rows, 50, 0.8, torch.Generator().manual_seed(6))
    assert all(torch.equal(a, b) for a, b in zip(first, again, strict=True))
    assert not torch.equal(first[0], other[0])


@pytest.mark.parametrize("fraction", [0.0, 0.25, 1.0])
def test_at_least_the_asked_share_of_points_lies_in_somebodys_brain(fraction: float) -> None:
    people = volumes()
    count = 2000
    points, _ = people.batch(torch.tensor([0, 1, 2]), count, fraction, torch.Generator().manual_seed(0))
    union = np.any([make_prepared(seed, RESOLUTION).brain for seed in range(3)], axis=0)
    i, j, k = indices_of(points).unbind(-1)
    inside = union[i, j, k].mean(axis=1)
    expected = fraction + (1 - fraction) * union.mean()
    np.testing.assert_allclose(inside, expected, atol=0.04)
    assert (inside >= fraction).all()


def test_uniform_draws_reach_every_voxel() -> None:
    points, _ = volumes(1).batch(torch.tensor([0]), 40_000, 0.0, torch.Generator().manual_seed(0))
    assert len(torch.unique(indices_of(points[0]), dim=0)) == RESOLUTION**3
