"""The lattice: what lies somewhere in millimetres lies there on the lattice, and again in the scan's voxels."""

from __future__ import annotations

import itertools
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from nibabel.affines import apply_affine
from nibabel.eulerangles import euler2mat
from scipy import ndimage

from anofield.data.lattice import (
    Lattice,
    bounding_box,
    box_lattice,
    brain_to_lattice,
    field_coordinates,
    index_to_field,
    posed_lattice,
    to_lattice,
    to_native,
)
from anofield.data.published import zoom_cube
from anofield.data.scan import Scan

ORIENTATIONS = [  # signed permutation matrices: all 48 orders in which a file can store the axes
    np.eye(3)[:, list(order)] * signs
    for order in itertools.permutations(range(3))
    for signs in itertools.product((1, -1), repeat=3)
]
TURNS = {"straight": np.eye(3), "oblique": euler2mat(0.3, -0.2, 0.25)}
SPACINGS = {"isotropic": (3.0, 3.0, 3.0), "anisotropic": (2.2, 3.1, 4.4)}
SIZE_MM, CENTER = 84.0, np.array([12.0, -8.0, 5.0])
BLOB, WIDTH = CENTER + np.array([7.3, -4.1, 5.9]), 7.0


def grid(orientation: np.ndarray, turn: str = "straight", spacing: str = "isotropic") -> Scan:
    """An empty scan of about `SIZE_MM` a side around `CENTER`."""
    shape = tuple(round(SIZE_MM / step) for step in SPACINGS[spacing])
    affine = np.eye(4)
    affine[:3, :3] = TURNS[turn] @ orientation @ np.diag(SPACINGS[spacing])
    affine[:3, 3] = CENTER - affine[:3, :3] @ ((np.array(shape) - 1) / 2)
    return Scan(np.zeros(shape, np.float32), affine, None, Path("scan.nii"))


def world(shape: tuple[int, ...], affine: np.ndarray) -> np.ndarray:
    """World mm of every voxel, (i, j, k, 3)."""
    return np.asarray(apply_affine(affine, np.moveaxis(np.indices(shape), 0, -1)))


def blob(shape: tuple[int, ...], affine: np.ndarray) -> np.ndarray:
    """A Gaussian of `WIDTH` mm around `BLOB`, set to zero where it has faded."""
    square = ((world(shape, affine) - BLOB) ** 2).sum(-1)
    return np.where(square < (3 * WIDTH) ** 2, np.exp(-square / (2 * WIDTH**2)), 0).astype(np.float32)


def center_mm(volume: np.ndarray, affine: np.ndarray) -> np.ndarray:
    return np.asarray(apply_affine(affine, ndimage.center_of_mass(volume)))


every_orientation = pytest.mark.parametrize("orientation", ORIENTATIONS, ids=range(48))
every_grid = pytest.mark.parametrize(
    ("orientation", "turn", "spacing"),
    [
        pytest.param(matrix, turn, spacing, id=f"{number}-{turn}-{spacing}")
        for number, matrix in enumerate(ORIENTATIONS)
        for turn in TURNS
        for spacing in SPACINGS
    ],
)


@every_grid
def test_a_blob_stays_in_place_to_the_lattice_and_back(orientation: np.ndarray, turn: str, spacing: str) -> None:
    scan = grid(orientation, turn, spacing)
    lattice = box_lattice(scan, np.ones(scan.data.shape, bool), 24, 84.0)
    there = to_lattice(blob(scan.data.shape, scan.affine), lattice)
    back = to_native(there, lattice)
    assert back.shape == scan.data.shape
    tenth = min(*scan.spacing, *lattice.spacing) / 10  # the design asks for half a voxel; linear sampling does better
    np.testing.assert_allclose(center_mm(there, lattice.affine), BLOB, atol=tenth)
    np.testing.assert_allclose(center_mm(back, scan.affine), BLOB, atol=tenth)


@every_orientation
def test_the_lattice_sees_the_world_where_its_affine_says(orientation: np.ndarray) -> None:
    scan = grid(orientation, "oblique", "anisotropic")
    lattice = box_lattice(scan, np.ones(scan.data.shape, bool), 9, 36.0)  # its corners lie inside the turned scan
    millimetres = world(scan.data.shape, scan.affine)
    seen = np.stack([to_lattice(millimetres[..., axis], lattice) for axis in range(3)], axis=-1)
    np.testing.assert_allclose(seen, world(lattice.shape, lattice.affine), atol=1e-3)


@every_orientation
def test_the_box_is_a_ras_cube_around_the_brain(orientation: np.ndarray) -> None:
    scan = grid(orientation, "oblique", "anisotropic")
    brain = blob(scan.data.shape, scan.affine) > 0.5
    lattice = box_lattice(scan, brain, 10, 50.0)
    np.testing.assert_allclose(lattice.affine[:3, :3], 5.0 * np.eye(3), atol=1e-9)
    np.testing.assert_allclose(lattice.spacing, 5.0)
    ends = apply_affine(lattice.affine, [[-0.5] * 3, [9.5] * 3])  # outer faces of the outer voxels
    np.testing.assert_allclose(ends.mean(0), center_mm(brain, scan.affine), atol=1e-9)
    np.testing.assert_allclose(ends[1] - ends[0], 50.0)
    np.testing.assert_allclose(lattice.affine, lattice.native_affine @ lattice.to_native)


@pytest.mark.parametrize("resolution", [8, 16, 30])
@pytest.mark.parametrize("orientation", ORIENTATIONS[::11])
def test_the_weighted_mean_neither_moves_nor_darkens_the_brain(orientation: np.ndarray, resolution: int) -> None:
    scan = grid(orientation, "oblique", "anisotropic")
    brain = ((world(scan.data.shape, scan.affine) - CENTER) ** 2).sum(-1) < 30.0**2
    lattice = box_lattice(scan, brain, resolution, 80.0)
    ramp = np.where(brain, 100 + (world(scan.data.shape, scan.affine) - CENTER)[..., 2], 900)
    flat = to_lattice(np.where(brain, 7.0, 900.0), lattice, brain=brain)
    np.testing.assert_allclose(flat[flat > 0], 7.0, rtol=1e-4)
    inside = world(lattice.shape, lattice.affine) - CENTER
    deep = (inside**2).sum(-1) < 12.0**2
    seen = to_lattice(ramp, lattice, brain=brain)
    np.testing.assert_allclose(seen[deep], 100 + inside[deep][:, 2], atol=1.0)


def test_labels_are_carried_without_new_values() -> None:
    scan = grid(ORIENTATIONS[13], "oblique", "anisotropic")
    label = (4 * (blob(scan.data.shape, scan.affine) > 0.5)).astype(np.uint8)
    lattice = box_lattice(scan, np.ones(label.shape, bool), 20, 84.0)
    assert set(np.unique(to_lattice(label, lattice, order=0))) == {0, 4}
    assert set(np.unique(to_native(to_lattice(label, lattice, order=0), lattice, order=0))) == {0, 4}


def test_outside_the_scan_and_outside_the_box_is_zero() -> None:
    scan = grid(np.eye(3))
    ones = np.ones(scan.data.shape, np.float32)
    wide, narrow = (box_lattice(scan, ones > 0, 20, side) for side in (200.0, 30.0))
    beyond = np.abs(world(wide.shape, wide.affine) - CENTER).max(-1) > SIZE_MM / 2 + 3
    assert not to_lattice(ones, wide)[beyond].any()
    away = np.abs(world(scan.data.shape, scan.affine) - CENTER).max(-1) > 15.0 + 1.5
    carried = to_native(np.ones(narrow.shape), narrow)
    assert not carried[away].any() and carried.max() == 1.0


def test_the_same_lattice_is_the_identity() -> None:
    lattice = Lattice(6, np.eye(4), (6, 6, 6), np.diag([2.0, 3.0, 4.0, 1.0]))
    volume = np.random.default_rng(0).normal(size=(6, 6, 6)).astype(np.float32)
    np.testing.assert_allclose(to_native(to_lattice(volume, lattice), lattice), volume, rtol=1e-6)
    np.testing.assert_allclose(lattice.spacing, (2, 3, 4))


@pytest.mark.slow
@given(st.integers(1, 512))
def test_field_coordinates_are_voxel_centres_or_lower_corners(resolution: int) -> None:
    index = np.arange(resolution, dtype=float)
    center, corner = field_coordinates(index, resolution), field_coordinates(index, resolution, "corner")
    np.testing.assert_allclose(center, -center[::-1], atol=1e-12)
    np.testing.assert_allclose(center, corner + 1 / resolution, atol=1e-12)
    assert corner[0] == -1.0 and center[0] > -1.0 and center[-1] < 1.0
    np.testing.assert_allclose(corner, 2 * index / resolution - 1, atol=1e-12)
    edges = field_coordinates(np.array([-0.5, resolution - 0.5]), resolution)
    np.testing.assert_allclose(edges, [-1.0, 1.0], atol=1e-12)


@pytest.mark.parametrize("order", [0, 1])
@pytest.mark.parametrize("spacing", list(SPACINGS))
@every_orientation
def test_the_straight_path_samples_as_scipy_does(orientation: np.ndarray, spacing: str, order: int) -> None:
    scan = grid(orientation, "straight", spacing)
    volume = np.random.default_rng(0).integers(0, 9, scan.data.shape).astype(np.float32)
    lattice = box_lattice(scan, np.ones(volume.shape, bool), 13, 90.0)
    matrix = lattice.to_native
    expected = ndimage.affine_transform(
        volume, matrix[:3, :3], matrix[:3, 3], output_shape=lattice.shape, order=order, mode="grid-constant"
    )
    np.testing.assert_allclose(to_lattice(volume, lattice, order=order), expected, atol=1e-5)


def whole_brain_to_lattice(volume: np.ndarray, brain: np.ndarray, lattice: Lattice) -> tuple[np.ndarray, np.ndarray]:
    """The weighted mean over the whole scan, nothing cropped, and the share of brain."""
    native_mm = np.linalg.norm(lattice.native_affine[:3, :3], axis=0)
    ratio = lattice.spacing.min() / native_mm
    sigma = np.where(ratio > 1.25, ratio / 2.355, 0)
    parts = []
    for part in (brain, volume * brain, np.ones(brain.shape)):
        blurred = ndimage.gaussian_filter(part.astype(np.float64), sigma, mode="constant", truncate=3.0)
        matrix, place = lattice.to_native[:3, :3], lattice.to_native[:3, 3]
        parts.append(
            ndimage.affine_transform(blurred, matrix, place, output_shape=lattice.shape, order=1, mode="grid-constant")
        )
    weight, value, whole = parts
    mean = np.divide(value, weight, out=np.zeros_like(value), where=weight > 1e-3)
    return mean, np.divide(weight, whole, out=np.zeros_like(weight), where=whole > 1e-3)


@pytest.mark.parametrize("turn", list(TURNS))
@pytest.mark.parametrize("shift", [0.0, 24.0], ids=["inside", "cut by the scan's face"])
@pytest.mark.parametrize("resolution", [9, 40])
@pytest.mark.parametrize("orientation", ORIENTATIONS[::7])
def test_the_brain_on_the_lattice_does_not_depend_on_the_crop(
    orientation: np.ndarray, resolution: int, shift: float, turn: str
) -> None:
    scan = grid(orientation, turn, "anisotropic")
    place = world(scan.data.shape, scan.affine) - CENTER - [shift, 0, 0]
    brain = (place**2).sum(-1) < 25.0**2
    volume = np.random.default_rng(0).uniform(0.2, 1, brain.shape).astype(np.float32)
    lattice = box_lattice(scan, brain, resolution, 80.0)
    mean, inside = brain_to_lattice(volume, brain, lattice)
    expected, share = whole_brain_to_lattice(volume, brain, lattice)
    certain = abs(share - 0.5) > 1e-5
    np.testing.assert_array_equal(inside[certain], share[certain] > 0.5)
    np.testing.assert_allclose(mean[inside], expected[inside], atol=1e-5)


@pytest.mark.slow
@pytest.mark.parametrize("order", [0, 1])
@pytest.mark.parametrize(("side", "resolution"), [(20, 13), (20, 27), (240, 160), (300, 160), (31, 31)])
def test_the_zoomed_cube_is_scipys_bit_for_bit(side: int, resolution: int, order: int) -> None:
    shape, start = (min(side, 20), 3, 4), (0, side - 3, 2)  # at two faces of the cube
    part = np.random.default_rng(0).normal(size=shape)
    cube = np.zeros((side, side, side))
    cube[tuple(slice(s, s + n) for s, n in zip(start, shape, strict=True))] = part
    place, values = zoom_cube(part, start, side, resolution, order, np.float64)
    found = np.zeros((resolution,) * 3)
    found.reshape(-1)[place] = values
    np.testing.assert_array_equal(found, ndimage.zoom(cube, resolution / side, order=order))


def test_the_bounding_box_of_nothing_is_none() -> None:
    mask = np.zeros((4, 5, 6), bool)
    assert bounding_box(mask) is None
    mask[1:3, 4, 2:5] = True
    assert bounding_box(mask) == (slice(1, 3), slice(4, 5), slice(2, 5))


def turned(seed: int = 0, size: float = 0.15) -> np.ndarray:
    """A pose: rotated, sized, sheared and shifted."""
    pose = np.eye(4)
    pose[:3] += size * np.random.default_rng(seed).normal(size=(3, 4))
    return pose


@pytest.mark.parametrize("convention", ["center", "corner"])
@pytest.mark.parametrize("orientation", ORIENTATIONS[::17])
def test_a_posed_lattice_reads_the_scan_where_the_pose_says(orientation: np.ndarray, convention: str) -> None:
    scan, pose = grid(orientation, "oblique", "anisotropic"), turned()
    box = box_lattice(scan, np.ones(scan.data.shape, bool), 16, 80.0)
    posed = posed_lattice(box, pose, convention)  # type: ignore[arg-type]
    index = np.array([3.0, 9.0, 12.0])
    there = apply_affine(index_to_field(16, convention), index)  # type: ignore[arg-type]
    here = apply_affine(np.linalg.inv(pose), there)  # field coordinates in the scan's box
    box_index = apply_affine(np.linalg.inv(index_to_field(16, convention)), here)  # type: ignore[arg-type]
    np.testing.assert_allclose(apply_affine(posed.affine, index), apply_affine(box.affine, box_index), atol=1e-9)


@every_orientation
def test_a_blob_stays_in_place_to_a_posed_lattice_and_back(orientation: np.ndarray) -> None:
    scan = grid(orientation, "oblique", "anisotropic")
    lattice = posed_lattice(box_lattice(scan, np.ones(scan.data.shape, bool), 32, 100.0), turned())
    there = to_lattice(blob(scan.data.shape, scan.affine), lattice)
    back = to_native(there, lattice)
    np.testing.assert_allclose(center_mm(there, lattice.affine), BLOB, atol=0.3)
    np.testing.assert_allclose(center_mm(back, scan.affine), BLOB, atol=0.3)


def test_the_identity_poses_nothing() -> None:
    scan = grid(np.eye(3))
    lattice = box_lattice(scan, np.ones(scan.data.shape, bool), 20, 84.0)
    np.testing.assert_allclose(posed_lattice(lattice, np.eye(4)).to_native, lattice.to_native, atol=1e-12)


@pytest.mark.parametrize("axis", range(3))
def test_stripes_finer_than_a_posed_lattice_voxel_fade_and_do_not_alias(axis: int) -> None:
    scan = Scan(np.zeros((60, 60, 60), np.float32), np.eye(4), None, Path("scan.nii"))
    brain = np.ones(scan.data.shape, bool)
    stripes = (100 + 50 * (-1.0) ** np.indices(brain.shape)[axis]).astype(np.float32)
    lattice = posed_lattice(box_lattice(scan, brain, 12, 45.0), turned(1, 0.1))  # 3.75 mm voxels
    seen, inside = brain_to_lattice(stripes, brain, lattice)
    assert seen[inside].std() < 2.0  # of 50
