"""Elastic alignment: it undoes displacements, leaves lesions, and looks the field up where it says."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
from scipy import ndimage

from anofield.data.lattice import field_coordinates
from anofield.detect.detection import examine
from anofield.detect.elastic import Elastic, align, demons
from anofield.detect.fit import decode
from anofield.detect.pose import Pose
from anofield.detect.run import DetectOptions
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


def test_a_smooth_displacement_is_undone(folds: np.ndarray) -> None:
    target, brain = displaced(folds, 1.5), np.ones(folds.shape, bool)
    shift = demons(folds, target, brain, np.ones(3))
    inner = (slice(4, -4),) * 3
    before, after = (np.abs(v - target)[inner].mean() for v in (folds, moved_by(shift, folds)))
    assert after < 0.3 * before


def test_a_lesion_that_no_displacement_explains_stays(folds: np.ndarray) -> None:
    lesion = np.zeros(folds.shape, bool)
    lesion[15:18, 15:18, 15:18] = True
    target = np.where(lesion, folds.min() + 9, displaced(folds, 1.0)).astype(np.float32)
    shift = demons(folds, target, np.ones(folds.shape, bool), np.ones(3))
    left = (target - moved_by(shift, folds))[lesion].mean()
    assert left > 0.8 * (target - folds)[lesion].mean()


def test_outside_the_brain_nothing_pulls(folds: np.ndarray) -> None:
    assert not demons(folds, displaced(folds, 2.0), np.zeros(folds.shape, bool), np.ones(3)).any()


def test_a_brain_one_voxel_thick_is_left_where_it_is() -> None:
    prepared = make_prepared(0, 16)
    brain = np.zeros_like(prepared.brain)
    brain[4:9, 7, 3:12] = True
    place = align(np.where(brain, 3, 0).astype(np.float32), replace(prepared, brain=brain), None, 7.0)
    assert not place.shift.any()


@pytest.mark.parametrize("stride", [1, 2])
@pytest.mark.parametrize("convention", ["center", "corner"])
def test_the_displacement_is_looked_up_at_its_nodes(stride: int, convention: str) -> None:
    """Its value at node j must be found at the field coordinate of lattice voxel stride · j."""
    nodes, resolution = 5, 5 * stride
    values = torch.from_numpy(np.random.default_rng(1).standard_normal((3, nodes, nodes, nodes))).float()
    place = Elastic(values, None, stride, resolution, convention == "corner")
    axis = field_coordinates(np.arange(nodes) * float(stride), resolution, convention)
    points = torch.from_numpy(np.stack(np.meshgrid(axis, axis, axis, indexing="ij"), -1).reshape(-1, 3)).float()
    torch.testing.assert_close(place(points) - points, values.reshape(3, -1).T, atol=1e-5, rtol=0)


def test_the_pose_comes_after_the_displacement() -> None:
    pose = Pose(torch.tensor([0.1, 0.2, 0.3]), torch.tensor([0.05, 0.0, 0.1]), torch.tensor([0.1]))
    push = torch.tensor([0.1, -0.2, 0.05])
    place = Elastic(push[:, None, None, None].expand(3, 4, 4, 4), pose, 1, 4, False)
    points = torch.rand(7, 3) - 0.5
    torch.testing.assert_close(place(points), pose(points + push))


def test_alignment_lowers_the_misfit_and_is_used_by_every_score(world: World) -> None:
    case, options = world.healthy[0], QUICK.fit
    plain = examine(case, world.model, list(OWN_SCORES), options, "bright")
    bent = examine(case, world.model, list(OWN_SCORES), options.model_copy(update={"elastic_mm": 15.0}), "bright")
    brain = plain.prepared.brain
    for name in ("cross-entropy", "crps"):
        assert bent.values[name][brain].mean() < plain.values[name][brain].mean()
    for name in OWN_SCORES:
        assert not np.array_equal(bent.values[name], plain.values[name])


def test_without_displacement_the_decoding_is_the_pose_alone(world: World) -> None:
    one = examine(world.healthy[0], world.model, ["crps"], QUICK.fit, "bright")
    assert one.fit is not None
    place = align(np.where(one.prepared.brain, one.prepared.classes, 0).astype(np.float32), one.prepared, one.pose, 7.0)
    still = replace(place, shift=torch.zeros_like(place.shift))
    with_it = decode(world.model.field, one.fit.code, one.prepared, world.model.device, still)
    without = decode(world.model.field, one.fit.code, one.prepared, world.model.device, one.pose)
    torch.testing.assert_close(with_it, without)
    assert float(place.shift.abs().max()) < 1e-6  # the scan itself needs no displacement to fit itself


def test_the_preset_keeps_what_the_default_filters_take_away() -> None:
    options = DetectOptions.small_lesions()
    assert options.filters.standardise
    assert options.fit.elastic_mm > 0
    assert options.filters.minimum_mm == options.filters.edge_mm == 0
