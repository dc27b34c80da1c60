"""Points: every voxel has one place in the field, and a batch is a function of its generator."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from anofield.data.lattice import Convention, field_coordinates
from anofield.field.points import Sampler, axis_coordinates, coordinates_of
from helpers import CLASSES, make_prepared

RESOLUTION = 12


def sampler(count: int, fraction: float) -> Sampler:
    brain = np.any([make_prepared(seed, RESOLUTION).brain for seed in range(3)], axis=0)
    return Sampler(axis_coordinates(RESOLUTION, "center"), torch.from_numpy(np.flatnonzero(brain)), count, fraction)


def person(seed: int = 0) -> torch.Tensor:
    return torch.from_numpy(make_prepared(seed, RESOLUTION).classes.reshape(-1))


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
    points, targets = sampler(400, 0.5).draw(person(2), torch.Generator().manual_seed(1))
    assert (points.shape, points.dtype, targets.dtype) == ((400, 3), torch.float32, torch.int64)
    i, j, k = indices_of(points).unbind(-1)
    np.testing.assert_array_equal(targets, make_prepared(2, RESOLUTION).classes[i, j, k])
    assert set(targets.tolist()) == set(range(CLASSES))


def test_a_draw_is_a_function_of_its_generator() -> None:
    draws = [sampler(50, 0.8).draw(person(), torch.Generator().manual_seed(seed))[0] for seed in (5, 5, 6)]
    assert torch.equal(draws[0], draws[1])
    assert not torch.equal(draws[0], draws[2])


@pytest.mark.parametrize("fraction", [0.0, 0.25, 1.0])
def test_at_least_the_asked_share_of_points_lies_in_somebodys_brain(fraction: float) -> None:
    draw = sampler(4000, fraction)
    union = np.zeros(RESOLUTION**3, bool)
    union[draw.brain] = True
    i, j, k = indices_of(draw.draw(person(), torch.Generator().manual_seed(0))[0]).unbind(-1)
    inside = union.reshape((RESOLUTION,) * 3)[i, j, k].mean()
    assert inside == pytest.approx(fraction + (1 - fraction) * union.mean(), abs=0.04)
    assert inside >= fraction


def test_uniform_draws_reach_every_voxel() -> None:
    points, _ = sampler(40_000, 0.0).draw(person(), torch.Generator().manual_seed(0))
    assert len(torch.unique(indices_of(points), dim=0)) == RESOLUTION**3
