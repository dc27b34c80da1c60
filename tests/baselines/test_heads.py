"""Training heads that are moved: what is sampled is what resampling the whole head gives."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from scipy import ndimage

from anofield.baselines.base import observed_in
from anofield.baselines.heads import (
    AS_THEY_LIE,
    SCALES,
    SHIFT_MM,
    Heads,
    Moves,
    brain_centers,
    moved_crops,
    moved_points,
    random_moves,
    rotations,
    snapped,
    voxel_mm,
)
from anofield.baselines.slices import Slicing, moved_slices
from anofield.data.recipe import Recipe
from anofield.data.store import Store
from helpers import CENTERS, make_store

RECIPE = Recipe(resolution=12, centers=CENTERS)


def generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Store:
    return make_store(tmp_path_factory.mktemp("heads") / "train.zarr", people=3)


@pytest.fixture(scope="module")
def heads(store: Store) -> Heads:
    return Heads.of(store)


def grid(side: int) -> torch.Tensor:
    axis = torch.arange(side, dtype=torch.float32)
    return torch.cartesian_prod(axis, axis, axis)


def test_at_the_voxels_a_head_is_as_it_was(store: Store, heads: Heads) -> None:
    people = torch.tensor([2, 0])
    found = heads.sample(people, grid(12).expand(2, -1, -1)).reshape(2, 12, 12, 12)
    for row, person in enumerate(people.tolist()):
        np.testing.assert_allclose(found[row].numpy(), observed_in(store, person), atol=1e-6)


def test_beyond_the_lattice_there_is_no_brain(heads: Heads) -> None:
    away = torch.tensor([[[-3.0, 5, 5], [5, 14, 5], [5, 5, 400]]])
    assert not heads.sample(torch.tensor([0]), away).any()


def test_a_moved_head_is_the_resampled_head(store: Store, heads: Heads) -> None:
    """Against scipy: mean over the brain with linear weights, brain where more than half of the weight is."""
    moves = random_moves(RECIPE, 6, generator(3))
    points = moved_points(grid(12).expand(6, -1, -1), moves, 12)
    found = heads.sample(torch.zeros(6, dtype=torch.long), points).reshape(6, 12, 12, 12).numpy()
    values, brain = observed_in(store, 0), store.brain(0) > 0
    for row in range(6):
        places = points[row].numpy().T
        weight, total = (
            ndimage.map_coordinates(np.pad(part.astype(float), 1), places + 1, order=1, mode="nearest")
            for part in (brain, values)
        )
        mean = torch.from_numpy(np.divide(total, weight, out=np.zeros_like(total), where=weight > 0)).float()
        wanted = np.where(weight > 0.5, snapped(mean, RECIPE).numpy(), 0).reshape(12, 12, 12)
        assert (np.abs(found[row] - wanted) > 1e-6).mean() < 2e-3  # where a weight or mean is half-way, to rounding


def test_values_are_those_that_a_scan_can_have(heads: Heads) -> None:
    found = moved_slices(heads, Slicing(2, 12), 50, generator())
    allowed = {0.0, *brain_centers(RECIPE).tolist()}
    assert set(found.unique().tolist()) <= allowed
    assert found.shape == (50, 1, 16, 16)
    assert (found.flatten(1) > 0).any(1).float().mean() > 0.9  # hardly any slice is empty


def test_moves_have_the_stated_sizes() -> None:
    moves = random_moves(RECIPE, 2000, generator())
    still = (moves.linear == torch.eye(3)).flatten(1).all(1) & (moves.shift == 0).all(1)
    assert float(still.float().mean()) == pytest.approx(AS_THEY_LIE, abs=0.03)
    assert float(moves.shift.abs().max()) * voxel_mm(RECIPE) <= SHIFT_MM
    linear = moves.linear[~still]
    size = torch.linalg.det(linear)
    assert float((size < 0).float().mean()) == pytest.approx(0.5, abs=0.04)  # mirror images
    scale = size.abs() ** (1 / 3)
    assert SCALES[0] - 1e-4 < float(scale.min()) < 0.91 and 1.09 < float(scale.max()) < SCALES[1] + 1e-4
    turns = linear / scale[:, None, None]
    torch.testing.assert_close(turns @ turns.transpose(1, 2), torch.eye(3).expand_as(turns), atol=1e-4, rtol=0)
    assert (turns[:, [1, 2], [1, 2]] > 0.9).all()  # no turn of more than about 21 degrees in all
    assert not torch.equal(turns[0], turns[1])


def test_only_left_and_right_are_exchanged() -> None:
    published = Recipe(name="ifl2021-hcp", resolution=12, centers=CENTERS, normalise="clip-minmax")
    for recipe, axis in ((RECIPE, 0), (published, 2)):
        linear = random_moves(recipe, 100, generator()).linear
        signs = linear.diagonal(dim1=1, dim2=2).sign()
        assert (signs[:, axis] < 0).any()
        assert (signs[:, [i for i in range(3) if i != axis]] > 0).all()


def test_rotations_turn_about_the_axes_in_order() -> None:
    quarter = torch.pi / 2
    turned = rotations(torch.tensor([[quarter, 0, 0], [0, quarter, 0], [0, 0, quarter], [quarter, quarter, 0]]))
    x, y = torch.eye(3)[0], torch.eye(3)[1]
    torch.testing.assert_close(turned[0] @ x, x)
    torch.testing.assert_close(turned[1] @ y, y)
    torch.testing.assert_close(turned[2] @ x, y, atol=1e-6, rtol=0)
    torch.testing.assert_close(turned[3], turned[1] @ turned[0], atol=1e-6, rtol=0)


def test_crops_lie_in_the_box_of_the_brain_and_repeat_with_the_seed(heads: Heads) -> None:
    whole = moved_crops(heads, 16, 4, generator(), moved=False)  # larger than the lattice: the whole brain in each
    assert sorted(set((whole > 0).flatten(1).sum(1).tolist())) <= sorted((heads.codes > 0).flatten(1).sum(1).tolist())
    small = moved_crops(heads, 4, 60, generator(), moved=False)
    assert (small > 0).flatten(1).any(1).all()
    for moved in (False, True):
        one, again, other = (moved_crops(heads, 4, 8, generator(seed), moved) for seed in (1, 1, 2))
        assert torch.equal(one, again) and not torch.equal(one, other)


def test_identity_moves_nothing(heads: Heads) -> None:
    still = Moves(torch.eye(3)[None], torch.zeros((1, 3)))
    torch.testing.assert_close(moved_points(grid(12)[None], still, 12), grid(12)[None])


def test_voxel_size_follows_the_recipe(tmp_path: Path) -> None:
    assert voxel_mm(Recipe(resolution=50, centers=CENTERS)) == 4.0
    brats = Recipe(name="ifl2021-brats", resolution=None, centers=CENTERS, normalise="clip-minmax")
    assert voxel_mm(brats) == pytest.approx(1.0, abs=0.3)
