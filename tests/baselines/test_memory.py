"""Feature memory: what it remembers, where it looks, and that the order of the people does not matter."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from anofield.baselines.memory import MemorySettings, PatchMemory
from anofield.baselines.patches import FEATURES, Cells, coreset, described, principal, spread
from anofield.data.cohort.case import Case
from anofield.data.recipe import Recipe
from anofield.data.store import Store
from helpers import CENTERS, make_prepared, make_store, with_lesion

RECIPE = Recipe(resolution=12, centers=CENTERS)


def taught(store: Store, **changes: Any) -> PatchMemory:
    wanted = {"patches": 64, "candidates": 64, "neighbours": 4, "window_mm": 40.0, **changes}
    method = PatchMemory(store.recipe, MemorySettings(**wanted))
    method.train(store)
    return method


def store_of(path: Path, people: list[int]) -> Store:
    """People in the given order; a person is the same scan in every store."""
    store = Store.create(path, [Case(f"case{p}", Path("x")) for p in people], RECIPE, labels=False, side=12)
    for row, person in enumerate(people):
        store.write(row, replace(make_prepared(person), content=f"{person:064x}"), f"{person:064x}")
    return Store(path)


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Store:
    return make_store(tmp_path_factory.mktemp("memory") / "train.zarr", people=5)


@pytest.mark.parametrize("choice", [False, True])
def test_the_order_of_the_people_changes_nothing(tmp_path: Path, choice: bool) -> None:
    states = [
        taught(store_of(tmp_path / f"{i}.zarr", people), coreset=choice).state()
        for i, people in enumerate(([0, 1, 2, 3], [2, 0, 3, 1]))
    ]
    for name, value in states[0].items():
        assert torch.equal(value, states[1][name]), name


def test_a_lesion_is_far_from_every_healthy_patch(store: Store) -> None:
    method, healthy = taught(store), make_prepared(0)
    ill = with_lesion(healthy)
    lesion = ill.classes != healthy.classes
    found = method.score(ill, "x", "bright")
    assert found.anomaly[lesion].mean() > 5 * found.anomaly[ill.brain & ~lesion].mean()
    assert found.restoration is not None and found.restoration[lesion].mean() < 0.6  # not its own 0.7
    assert not method.score(ill, "x", "dark").anomaly[lesion].any()
    assert not found.anomaly[~ill.brain].any()


def test_people_of_the_memory_are_at_no_distance(tmp_path: Path) -> None:
    method = taught(store_of(tmp_path / "s.zarr", [3]), candidates=200, patches=64, neighbours=1, window_mm=0.0)
    found = method.score(make_prepared(3), "x", "both")
    assert found.anomaly.max() < 1e-2
    assert found.restoration is not None
    np.testing.assert_allclose(found.restoration, np.where(make_prepared(3).brain, make_prepared(3).intensity, 0))


def test_a_brain_where_nobody_has_brain_is_served_by_the_nearest_cell(store: Store) -> None:
    body = make_prepared(0)
    everywhere = replace(body, brain=np.ones_like(body.brain), classes=np.maximum(body.classes, 1))
    found = taught(store).score(everywhere, "x", "both")
    assert np.isfinite(found.anomaly).all()
    assert found.restoration is not None and (found.restoration > 0).all()


def test_the_coreset_covers_better_than_an_even_choice() -> None:
    generator = torch.Generator().manual_seed(0)
    patches = torch.randn((3, 400, 5), generator=generator)
    valid = torch.rand((3, 400), generator=generator) < 0.8
    farthest = []
    for choose in (coreset, spread):
        chosen = choose(patches, valid, 30)
        assert valid.gather(1, chosen).all()
        kept = patches[torch.arange(3)[:, None], chosen]
        apart = torch.cdist(patches, kept).amin(2).masked_fill(~valid, 0)
        farthest.append(apart.amax(1))
    assert (farthest[0] < farthest[1]).all()


def test_a_cell_with_few_patches_repeats_them() -> None:
    patches, valid = torch.arange(8.0).reshape(1, 8, 1), torch.zeros((1, 8), dtype=torch.bool)
    valid[0, [2, 5]] = True
    for choose in (coreset, spread):
        assert set(choose(patches, valid, 6)[0].tolist()) == {2, 5}


@pytest.mark.parametrize("resolution", [12, 16, 48, 65, 160])
def test_every_voxel_has_a_cell_and_a_lattice_few_cells(resolution: int) -> None:
    cells = Cells(resolution)
    corners = np.array([[0, 0, 0], [resolution - 1] * 3])
    assert cells.of(corners).tolist() == [0, int(np.prod(cells.shape)) - 1]
    assert max(cells.shape) <= 16


def test_drawn_voxels_are_brain_near_their_cell() -> None:
    brain, cells = make_prepared(0, 32).brain, Cells(32)
    drawn = cells.draw(brain, 3, 20, np.random.default_rng(0))
    cell, number = np.nonzero(drawn[..., 0] >= 0)
    voxels = drawn[cell, number]
    assert brain[tuple(voxels.T)].all()
    start = np.stack(np.unravel_index(cell, cells.shape), axis=1) * cells.side
    assert (voxels >= start - 3).all() and (voxels < start + cells.side + 3).all()


def test_a_description_holds_the_patch_and_ignores_the_outline() -> None:
    values = np.random.default_rng(0).random((12, 12, 12), dtype=np.float32)
    brain = np.ones_like(values, dtype=bool)
    (found,) = described(values, brain, np.array([[5, 6, 7]]), 3.0)
    np.testing.assert_array_equal(found[:27], values[4:7, 5:8, 6:9].ravel())
    assert found.shape == (FEATURES,)
    flat = np.full_like(values, 0.5)
    brain[8:] = False
    flat[8:] = 0
    (edge,) = described(flat, brain, np.array([[7, 6, 7]]), 3.0)
    np.testing.assert_allclose(edge, 0.5, atol=1e-6)


def test_components_are_the_directions_of_largest_variance() -> None:
    cloud = torch.randn((500, 6), generator=torch.Generator().manual_seed(0)) * torch.tensor([1.0, 5, 1, 3, 1, 1])
    mean, basis = principal(cloud, 2)
    torch.testing.assert_close(mean, cloud.mean(0))
    assert basis.abs().argmax(0).tolist() == [1, 3]
    torch.testing.assert_close(basis.T @ basis, torch.eye(2), atol=1e-5, rtol=0)
