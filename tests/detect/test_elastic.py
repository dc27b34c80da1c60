"""Elastic alignment: it undoes displacements, leaves lesions, and looks the field up where it says."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
from scipy import ndimage

from anofield.data.brain import as_stripped
from anofield.data.lattice import Convention, field_coordinates
from anofield.detect.decode import Person, decode
from anofield.detect.detection import examine
from anofield.detect.elastic import Elastic, align, demons
from anofield.detect.options import SMALL_LESIONS
from anofield.detect.pose import Pose
from anofield.detect.scores import OWN_SCORES
from helpers import QUICK, World, make_prepared, small_world

SIDE = 32


@pytest.fixture(scope="session")
def world(tmp_path_factory: pytest.TempPathFactory) -> World:
    return small_world(tmp_path_factory.getbasetemp() / "world")


@pytest.fixture
def folds() -> np.ndarray:
    """A volume of smooth folds, 0 to 9."""
    noise = ndimage.gaussian_filter(np.random.default_rng(0).standard_normal((SIDE,) * 3), 2.5)
    return (4.5 * (1 + noise / np.abs(noise).max())).astype(np.float32)


def displaced(volume: np.ndarray, amount: float) -> np.ndarray:
    """Moved along each axis by a smooth wave of so many voxels."""
    index = np.indices(volume.shape, dtype=np.float32)
    waves = [amount * np.sin(2 * np.pi * index[(axis + 1) % 3] / SIDE) for axis in range(3)]
    return ndimage.map_coordinates(volume, index + np.stack(waves), order=1, mode="nearest")


def moved_by(shift: np.ndarray, volume: np.ndarray) -> np.ndarray:
    return ndimage.map_coordinates(volume, np.indices(volume.shape) + shift, order=1, mode="nearest")


@pytest.mark.slow
def test_a_smooth_displacement_is_undone(folds: np.ndarray) -> None:
    target, brain = displaced(folds, 1.5), np.ones(folds.shape, bool)
    shift = demons(folds, target, brain, np.ones(3))
    inner = (slice(4, -4),) * 3
    before, after = (np.abs(v - target)[inner].mean() for v in (folds, moved_by(shift, folds)))
    assert after < 0.3 * before


@pytest.mark.slow
def test_a_lesion_that_no_displacement_explains_stays(folds: np.ndarray) -> None:
    lesion = np.zeros(folds.shape, bool)
    lesion[15:18, 15:18, 15:18] = True
    target = np.where(lesion, folds.min() + 9, displaced(folds, 1.0)).astype(np.float32)
    shift = demons(folds, target, np.ones(folds.shape, bool), np.ones(3))
    left = (target - moved_by(shift, folds))[lesion].mean()
    assert left > 0.8 * (target - folds)[lesion].mean()


@pytest.mark.slow
def test_outside_the_brain_nothing_pulls(folds: np.ndarray) -> None:
    assert not demons(folds, displaced(folds, 2.0), np.zeros(folds.shape, bool), np.ones(3)).any()


def test_a_brain_one_voxel_thick_is_left_where_it_is() -> None:
    prepared = make_prepared(0, 16)
    brain = np.zeros_like(prepared.brain)
    brain[4:9, 7, 3:12] = True
    place = align(np.where(brain, 3, 0).astype(np.float32), replace(prepared, brain=brain), None, 7.0)
    assert not place.shift.any()


@pytest.mark.slow
@pytest.mark.parametrize("stride", [1, 2])
@pytest.mark.parametrize("convention", ["center", "corner"])
def test_the_displacement_is_looked_up_at_its_nodes(stride: int, convention: Convention) -> None:
    """Its value at node j must be found at the field coordinate of lattice voxel stride · j."""
    nodes, resolution = 5, 5 * stride
    values = torch.from_numpy(np.random.default_rng(1).standard_normal((3, nodes, nodes, nodes))).float()
    place = Elastic(values, None, stride, resolution, convention == "corner")
    axis = field_coordinates(np.arange(nodes, dtype=np.float64) * stride, resolution, convention)
    points = torch.from_numpy(np.stack(np.meshgrid(axis, axis, axis, indexing="ij"), -1).reshape(-1, 3)).float()
    torch.testing.assert_close(place(points) - points, values.reshape(3, -1).T, atol=1e-5, rtol=0)


@pytest.mark.slow
def test_the_pose_comes_after_the_displacement() -> None:
    pose = Pose(torch.tensor([0.1, 0.2, 0.3]), torch.tensor([0.05, 0.0, 0.1]), torch.tensor([0.1]))
    push = torch.tensor([0.1, -0.2, 0.05])
    place = Elastic(push[:, None, None, None].expand(3, 4, 4, 4), pose, 1, 4, False)
    points = torch.rand(7, 3) - 0.5
    torch.testing.assert_close(place(points), pose(points + push))


def test_alignment_lowers_the_misfit_and_is_used_by_every_score(world: World) -> None:
    native = as_stripped(world.healthy[0].image)
    every = QUICK.model_copy(update={"also": tuple(OWN_SCORES)})
    elastic = every.model_copy(update={"fit": every.fit.model_copy(update={"elastic_mm": 15.0})})
    plain, bent = (examine(native, world.model, options) for options in (every, elastic))
    brain = plain.prepared.brain
    for name in ("cross-entropy", "crps"):
        assert bent.analysis.maps[name][brain].mean() < plain.analysis.maps[name][brain].mean()
    for name in OWN_SCORES:
        assert not np.array_equal(bent.analysis.maps[name], plain.analysis.maps[name])


def test_without_displacement_the_decoding_is_the_pose_alone(world: World) -> None:
    found = examine(as_stripped(world.healthy[0].image), world.model, QUICK)
    prepared, fit = found.prepared, found.analysis.fit
    assert fit is not None
    place = align(np.where(prepared.brain, prepared.classes, 0).astype(np.float32), prepared, fit.pose, 7.0)
    still = replace(place, shift=torch.zeros_like(place.shift))
    trained = world.model.trained
    with_it, without = (
        decode(Person(trained.field, fit.code, trained.device, where), prepared) for where in (still, fit.pose)
    )
    torch.testing.assert_close(with_it, without)
    assert float(place.shift.abs().max()) < 1e-6  # the scan itself needs no displacement to fit itself


def test_the_preset_keeps_what_the_default_filters_take_away() -> None:
    options = SMALL_LESIONS
    assert options.filters.standardise
    assert options.fit.elastic_mm > 0
    assert options.filters.minimum_mm == options.filters.edge_mm == 0
