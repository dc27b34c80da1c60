"""The brain of a scan without a mask: whatever value lies around it; noise, heads and masks of anything are refused."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from anofield.data.background import holes, not_background
from anofield.data.brain import as_stripped, brain_mask
from anofield.data.check import check_case
from anofield.data.cohort.case import Case
from anofield.data.prepare import prepare_scan
from anofield.data.recipe import Recipe
from anofield.data.scan import as_scan, read_scan
from anofield.errors import ScanError

AFFINE = np.array([[-7.0, 0, 0, 80], [0, 7, 0, -95], [0, 0, 7, -70], [0, 0, 0, 1]])
SaveBrain = Callable[..., Path]


def tight(data: np.ndarray, margin: int = 0) -> np.ndarray:
    """The bounding box of what is not 0."""
    at = np.argwhere(data != 0)
    return data[tuple(slice(a - margin, b + 1 + margin) for a, b in zip(at.min(0), at.max(0), strict=True))]


def around(data: np.ndarray, value: float) -> np.ndarray:
    """The brain with another value around it."""
    return np.where(data == 0, np.float32(value), data)


@pytest.mark.parametrize("crop", [False, True])
@pytest.mark.parametrize("value", [0.0, -1024.0, 7.0, 3000.0, np.nan, -np.inf, np.inf])
def test_any_value_may_lie_around_the_brain(value: float, crop: bool, brain_data: np.ndarray) -> None:
    data = tight(brain_data) if crop else brain_data
    clean, scan = as_scan((data, AFFINE)), as_scan((around(data, value), AFFINE))
    np.testing.assert_array_equal(brain_mask(scan), data != 0)
    assert scan.content_hash == clean.content_hash


@pytest.mark.parametrize("crop", [False, True])
def test_a_scan_normalised_over_all_voxels_has_the_same_brain(crop: bool, brain_data: np.ndarray) -> None:
    data = tight(brain_data) if crop else brain_data
    whole = ((data - data.mean()) / data.std()).astype(np.float32)
    np.testing.assert_array_equal(brain_mask(as_scan((whole, AFFINE))), data != 0)


@pytest.mark.parametrize("value", [np.nan, -50.0])
def test_brain_voxels_of_0_are_kept_beside_another_background(value: float, brain_data: np.ndarray) -> None:
    inside = brain_data != 0
    data = around(brain_data, value)
    data[inside] -= 200
    data[12, 14, 11] = 0
    scan = as_scan((data, AFFINE))
    np.testing.assert_array_equal(brain_mask(scan), inside)
    np.testing.assert_array_equal(scan.data[inside], data[inside])


@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_one_bad_voxel_inside_is_refused(value: float, brain_data: np.ndarray) -> None:
    data = brain_data.copy()
    data[12, 14, 11] = value
    with pytest.raises(ScanError, match="NaN or infinity in 1 voxel"):
        as_scan((data, AFFINE))


NOISE: dict[str, Callable[[np.random.Generator, tuple[int, ...]], np.ndarray]] = {
    "gauss": lambda generator, shape: np.abs(generator.normal(0, 20, shape)),
    "counts": lambda generator, shape: generator.poisson(1.0, shape),
    "few counts": lambda generator, shape: generator.poisson(0.2, shape),
    "two values": lambda generator, shape: np.where(generator.random(shape) < 0.9, -1000, -999),
}


@pytest.mark.parametrize("crop", [False, True])
@pytest.mark.parametrize("kind", NOISE)
def test_noise_around_the_brain_is_refused_also_in_a_tight_field_of_view(
    kind: str, crop: bool, brain_data: np.ndarray
) -> None:
    data = tight(brain_data) if crop else brain_data
    noise = NOISE[kind](np.random.default_rng(0), data.shape).astype(np.float32)
    scan = as_scan((np.where(data == 0, noise, data), AFFINE))
    with pytest.raises(ScanError, match=r"reaches the border on all sides|background is not one value") as caught:
        brain_mask(scan)
    assert "--mask" in caught.value.remedy and caught.value.why
    np.testing.assert_array_equal(brain_mask(scan, data != 0), data != 0)


def test_a_scan_padded_with_another_value_is_refused(brain_data: np.ndarray) -> None:
    whole = np.pad(around(brain_data, -300.0), 1)
    whole[1:-1, 1:-1, 0] = -300
    with pytest.raises(ScanError, match=r"not one value \(0 in \d+%, -300 in \d+% of the border\)"):
        brain_mask(as_scan((whole, AFFINE)))


@pytest.mark.parametrize(
    "cut",
    [np.s_[:, :, 9:], np.s_[:, :, 5:-5], np.s_[:, 6:, 6:], np.s_[5:-5, :, 5:]],
    ids=["neck", "slab", "two", "three"],
)
def test_a_brain_that_is_cut_off_on_some_sides_passes(cut: tuple[slice, ...], brain_data: np.ndarray) -> None:
    data = tight(brain_data)[cut]
    np.testing.assert_array_equal(brain_mask(as_scan((data, AFFINE))), data != 0)


def test_a_brain_without_surroundings_is_refused(brain_data: np.ndarray) -> None:
    with pytest.raises(ScanError, match="all sides"):
        brain_mask(as_scan((tight(brain_data)[4:-4, 4:-4, 4:-4], AFFINE)))


@pytest.mark.parametrize("kind", ["all", "inverted"])
def test_a_mask_that_is_none_of_a_brain_is_refused(kind: str, brain_data: np.ndarray) -> None:
    data = tight(brain_data, margin=1)
    mask = np.ones(data.shape) if kind == "all" else (data == 0)
    affine = AFFINE @ np.diag([0.8, 0.8, 0.8, 1])
    with pytest.raises(ScanError, match="all sides"):
        brain_mask(as_scan((data, affine)), mask.astype(np.uint8))


class TestHoles:
    def test_what_is_not_0_is_brain_as_published(self) -> None:
        data = np.random.default_rng(0).integers(0, 3, (20, 20, 20)).astype(np.float32)
        np.testing.assert_array_equal(not_background(data, 0), data != 0)

    def test_rounding_to_0_makes_no_holes_in_a_scan_of_mean_0(self, brain_data: np.ndarray) -> None:
        inside = brain_data != 0
        data = np.where(inside, np.rint((brain_data - 200) / 10), 0).astype(np.int16)
        enclosed = (data == 0) & holes(data != 0)
        assert np.count_nonzero(enclosed) > 100
        np.testing.assert_array_equal(brain_mask(as_scan((data, AFFINE))), (data != 0) | enclosed)

    def test_a_large_hole_stays_one(self, brain_data: np.ndarray) -> None:
        data = np.where(brain_data != 0, brain_data - 200, 0)
        data[10:14, 12:16, 9:13] = 0
        np.testing.assert_array_equal(brain_mask(as_scan((data, AFFINE))), data != 0)

    def test_check_warns_of_a_brain_that_is_not_solid(self, save_brain: SaveBrain, brain_data: np.ndarray,
                                                      tmp_path: Path) -> None:  # fmt: skip
        bright = np.where(brain_data > np.percentile(brain_data[brain_data > 0], 96), 0, brain_data)
        sound, odd = (save_brain(tmp_path / name, data) for name, data in (("a.nii", brain_data), ("b.nii", bright)))
        assert not check_case(Case("a", sound)).warnings
        (warning,) = check_case(Case("b", odd)).warnings
        assert "enclosed voxels" in warning and "--mask" in warning


@pytest.mark.parametrize("recipe", ["ifl2021-hcp", "ifl2021-brats"])
def test_the_published_recipes_take_another_background_as_they_take_0(recipe: str) -> None:
    from anofield.data.published import GRIDS

    grid = GRIDS[recipe]  # type: ignore[index]
    data = np.zeros(grid.shape, np.float32)
    middle = tuple(slice(n // 2 - 40, n // 2 + 40) for n in grid.shape)
    data[middle] = np.random.default_rng(0).integers(1, 900, (80, 80, 80))
    affine = np.diag([-1.0, -1.0, 1.0, 1.0])
    chosen = Recipe(name=recipe, resolution=24, centers=(0.0, 0.3, 0.6), normalise="clip-minmax")  # type: ignore[arg-type]
    classes = [
        prepare_scan(as_stripped((around(data, value), affine), dtype=np.float64), None, chosen).classes
        for value in (0.0, -1024.0, np.nan)
    ]
    np.testing.assert_array_equal(classes[1], classes[0])
    np.testing.assert_array_equal(classes[2], classes[0])


def test_reading_turns_the_background_of_a_file_to_0(
    save_brain: SaveBrain, brain_data: np.ndarray, tmp_path: Path
) -> None:
    clean = read_scan(save_brain(tmp_path / "a.nii.gz", brain_data))
    for name, value in (("b.nii.gz", np.nan), ("c.nii", -1024.0)):
        scan = read_scan(save_brain(tmp_path / name, around(brain_data, value)))
        assert scan.content_hash == clean.content_hash
