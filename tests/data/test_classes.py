"""Intensity classes: nearest centre, most frequent class, centres that find the clusters."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from anofield.data.classes import MAX_CLASSES, PAPER_CENTERS, assign, assign_brain, fit_centers, mode_pool
from anofield.errors import UsageError

sixteenths = st.integers(-8, 24).map(lambda n: n / 16)  # exact in binary, so that a tie is a tie


def nearest(values: np.ndarray, centers: np.ndarray) -> np.ndarray:
    """Index of the nearest centre, the first of equal ones."""
    return np.abs(values[..., None] - centers).argmin(-1)


@pytest.mark.slow
@given(st.lists(sixteenths, min_size=2, max_size=12, unique=True), st.lists(sixteenths, min_size=1, max_size=50))
def test_assign_takes_the_nearest_centre_and_the_lower_of_two(centers: list[float], values: list[float]) -> None:
    ordered, intensity = sorted(centers), np.array(values)
    np.testing.assert_array_equal(assign(intensity, ordered), nearest(intensity, np.array(ordered)))


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("shape", [(1000,), (10, 9, 8)])
def test_assign_with_the_published_centres(shape: tuple[int, ...], dtype: type) -> None:
    intensity: np.ndarray = np.random.default_rng(0).uniform(-0.2, 1.2, shape).astype(dtype)
    found = assign(intensity, PAPER_CENTERS)
    assert found.dtype == np.uint8 and found.shape == shape
    np.testing.assert_array_equal(found, nearest(intensity, np.array(PAPER_CENTERS)))


def test_class_zero_is_outside_the_brain_and_nowhere_else() -> None:
    generator = np.random.default_rng(0)
    intensity, brain = generator.uniform(0, 1, (8, 8, 8)).astype(np.float32), generator.random((8, 8, 8)) > 0.5
    found = assign_brain(intensity, brain, PAPER_CENTERS)
    np.testing.assert_array_equal(found == 0, ~brain)
    np.testing.assert_array_equal(found[brain], np.maximum(nearest(intensity, np.array(PAPER_CENTERS)), 1)[brain])


def slow_mode_pool(classes: np.ndarray, width: int) -> np.ndarray:
    """The published mode pool, voxel by voxel: pad with zeros, count the window, first of the most frequent."""
    before, after = (1, 1) if width % 2 else (1, 0)
    padded = np.pad(classes, [(before, after)] * 3)
    pooled = np.zeros_like(classes)
    for i, j, k in np.ndindex(classes.shape):
        window = padded[i : i + width, j : j + width, k : k + width]
        pooled[i, j, k] = np.bincount(window.ravel()).argmax()
    return pooled


@pytest.mark.parametrize("width", [2, 3])
@pytest.mark.parametrize("count", [2, 3, 10, 64])
@pytest.mark.parametrize("shape", [(5, 6, 7), (4, 4, 4), (1, 3, 5)])
def test_mode_pool_equals_the_published_one_voxel_by_voxel(shape: tuple[int, int, int], count: int, width: int) -> None:
    classes = np.random.default_rng(count).integers(0, count, shape).astype(np.uint8)
    np.testing.assert_array_equal(mode_pool(classes, width, count), slow_mode_pool(classes, width))


@pytest.mark.parametrize("width", [2, 3])
def test_mode_pool_gives_ties_to_the_lowest_class_and_lets_padding_vote(width: int) -> None:
    halves = np.zeros((4, 4, 4), np.uint8)
    halves[::2], halves[1::2] = 5, 3
    assert mode_pool(halves, 2, 6)[1:, 1:, 1:].tolist() == np.full((3, 3, 3), 3).tolist()
    full = np.full((6, 6, 6), 4, np.uint8)
    pooled = mode_pool(full, width, 5)
    assert pooled[0, 0, 0] == 0 and (pooled[1:-1, 1:-1, 1:-1] == 4).all()
    assert pooled[-1, -1, -1] == (4 if width == 2 else 0)


@pytest.mark.parametrize("width", [0, 1, 4])
def test_other_windows_are_refused(width: int) -> None:
    with pytest.raises(UsageError, match=r"Remedy.*2 or 3"):
        mode_pool(np.zeros((3, 3, 3), np.uint8), width, 2)


CLUSTERS = np.array([0.1, 0.25, 0.5, 0.8])


def clustered(seed: int = 0, count: int = 3000) -> np.ndarray:
    generator = np.random.default_rng(seed)
    return (generator.choice(CLUSTERS, count) + generator.normal(0, 0.008, count)).astype(np.float32)


def test_centres_find_well_separated_clusters() -> None:
    centers = fit_centers(clustered(), 5)
    assert centers[0] == 0.0
    np.testing.assert_allclose(centers[1:], CLUSTERS, atol=0.003)


@pytest.mark.parametrize("count", [3, 10, MAX_CLASSES])
def test_centres_increase_from_zero_and_depend_on_nothing_but_the_intensities(count: int) -> None:
    values = np.random.default_rng(1).beta(2, 3, 20_000).astype(np.float32)
    centers = fit_centers(values, count)
    assert len(centers) == count and centers[0] == 0.0
    assert (np.diff(centers) > 0).all() and centers[-1] <= 1.0
    assert fit_centers(values, count) == centers
    assert fit_centers(np.random.default_rng(2).permutation(values), count) == centers


@pytest.mark.parametrize("count", [0, 2, MAX_CLASSES + 1])
def test_a_number_of_classes_that_makes_no_sense_is_refused(count: int) -> None:
    with pytest.raises(UsageError, match="Remedy"):
        fit_centers(clustered(), count)


@pytest.mark.parametrize(
    "values",
    [np.full(100, 0.5), np.linspace(0.3, 0.31, 4), 0.5 + 1e-6 * np.arange(100), np.array([])],
    ids=["one", "four", "nearly one", "none"],
)
def test_too_few_different_intensities_are_refused(values: np.ndarray) -> None:
    with pytest.raises(UsageError, match=r"fewer than 5 different.*Remedy"):
        fit_centers(values.astype(np.float32), 5)


@pytest.mark.parametrize(
    "centers", [PAPER_CENTERS, (-1.0, 0.1, 0.3), (0.1, 0.7, 1e6)], ids=["paper", "around 0", "wide"]
)
def test_assign_agrees_with_the_nearest_centre_at_the_last_bit_of_a_tie(centers: tuple[float, ...]) -> None:
    ordered = np.array(centers)
    middle = (ordered[:-1] + ordered[1:]) / 2
    steps = np.arange(-8, 9) * np.spacing(middle)[:, None]
    values = (middle[:, None] + steps).ravel()
    np.testing.assert_array_equal(assign(values, centers), nearest(values, ordered))


@pytest.mark.parametrize("width", [2, 3])
@pytest.mark.parametrize("corner", [(0, 0, 0), (30, 2, 1), (17, 3, 4)])
def test_mode_pool_of_a_small_brain_in_a_large_volume(corner: tuple[int, int, int], width: int) -> None:
    classes = np.zeros((36, 9, 8), np.uint8)
    spot = classes[tuple(slice(c, c + 6) for c in corner)]
    spot[...] = np.random.default_rng(0).integers(0, 4, spot.shape)
    np.testing.assert_array_equal(mode_pool(classes, width, 4), slow_mode_pool(classes, width))
    assert not mode_pool(np.zeros_like(classes), width, 4).any()
