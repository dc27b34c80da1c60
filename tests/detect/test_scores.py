"""Scores against their definitions, filters in millimetres that see the brain only, lesions in world space."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from anofield.data.lattice import Lattice
from anofield.detect.filters import EDGE_NOISE, NATIVE_EDGE_NOISE, guided, masked_mean, sharpen, smooth
from anofield.detect.findings import find_findings
from anofield.detect.options import ScoreOptions, Tail
from anofield.detect.scores import DEVIATION_FLOOR, SCORES, cross_entropy, crps, deviation, tail_probability
from helpers import make_scan, oblique_affine

SIDE = 15


def filters(minimum_mm: float = 0.0, gaussian_mm: float = 0.0, rim_mm: float = 0.0) -> ScoreOptions:
    """These widths and no other filter."""
    return ScoreOptions(minimum_mm=minimum_mm, gaussian_mm=gaussian_mm, rim_mm=rim_mm)


FILTERS = [filters(), filters(minimum_mm=6.0), filters(gaussian_mm=7.0), filters(6.0, 7.0)]


@st.composite
def distributions(draw: st.DrawFn) -> tuple[list[float], int]:
    """Probabilities of some ordered classes, zeros included, and an observed class."""
    weights = draw(st.lists(st.sampled_from([0.0, 0.001, 0.1, 0.5, 1.0, 3.0]), min_size=2, max_size=8))
    weights[draw(st.integers(0, len(weights) - 1))] += 1.0
    return [w / sum(weights) for w in weights], draw(st.integers(0, len(weights) - 1))


def tensors(p: list[float], observed: int) -> tuple[torch.Tensor, torch.Tensor]:
    return torch.tensor([p], dtype=torch.float64).log(), torch.tensor([observed])


@pytest.mark.slow
@given(distributions())
@settings(max_examples=80, deadline=None)
def test_scores_equal_their_definitions(case: tuple[list[float], int]) -> None:
    p, y = case
    log_p, observed = tensors(p, y)
    pairs = [(a, b) for a in range(len(p)) for b in range(len(p))]
    expected_crps = sum(q * abs(x - y) for x, q in enumerate(p)) - 0.5 * sum(p[a] * p[b] * abs(a - b) for a, b in pairs)
    assert float(crps(log_p, observed)[0]) == pytest.approx(expected_crps, abs=1e-9)
    mean = sum(x * q for x, q in enumerate(p))
    spread = math.sqrt(sum(q * (x - mean) ** 2 for x, q in enumerate(p)) + DEVIATION_FLOOR**2)
    assert float(deviation(log_p, observed)[0]) == pytest.approx(max(0.0, (y - mean) / spread), abs=1e-7)
    if p[y] > 0:
        assert float(cross_entropy(log_p, observed)[0]) == pytest.approx(-math.log(p[y]), abs=1e-9)


@pytest.mark.slow
@given(distributions())
@settings(max_examples=50, deadline=None)
def test_dark_mirrors_bright_and_both_is_their_sum(case: tuple[list[float], int]) -> None:
    p, y = case
    bright, dark, both = (float(deviation(*tensors(p, y), tail)[0]) for tail in ("bright", "dark", "both"))
    mirrored = float(deviation(*tensors(p[::-1], len(p) - 1 - y), "bright")[0])
    assert dark == pytest.approx(mirrored, abs=1e-6)
    assert both == pytest.approx(bright + dark, abs=1e-12)
    assert min(bright, dark) == 0.0


@pytest.mark.parametrize("name", SCORES)
def test_every_voxel_is_scored_on_its_own(name: str) -> None:
    generator = torch.Generator().manual_seed(0)
    log_p = torch.log_softmax(torch.randn(20, 5, generator=generator), dim=-1)
    observed = torch.randint(5, (20,), generator=generator)
    together = SCORES[name](log_p, observed, "bright")
    alone = torch.cat([SCORES[name](log_p[i : i + 1], observed[i : i + 1], "bright") for i in range(20)])
    torch.testing.assert_close(together, alone)
    assert together.shape == (20,)


def lattice(spacing: float) -> Lattice:
    return Lattice(SIDE, np.eye(4), (SIDE,) * 3, oblique_affine(spacing))


def brain(seed: int = 0) -> np.ndarray:
    """A ragged brain with holes."""
    grid = np.indices((SIDE,) * 3) - SIDE // 2
    return ((grid**2).sum(0) < 42) & (np.random.default_rng(seed).random((SIDE,) * 3) > 0.1)


@pytest.mark.parametrize(("spacing", "voxels"), [(9.0, 1), (3.0, 3), (9 / 5, 5), (1.0, 9)])
def test_a_width_is_in_millimetres(spacing: float, voxels: int) -> None:
    everywhere = np.ones((SIDE,) * 3, bool)
    point = np.zeros((SIDE,) * 3, np.float32)
    point[7, 7, 7] = 1.0
    eroded = smooth(1 - point, everywhere, lattice(spacing), filters(minimum_mm=9.0))
    assert np.count_nonzero(eroded == 0) == voxels**3


@pytest.mark.parametrize("spacing", [2.0, 4.0])
def test_the_gaussian_falls_to_half_at_half_its_width_in_millimetres(spacing: float) -> None:
    point = np.zeros((SIDE,) * 3, np.float32)
    point[7, 7, 7] = 1.0
    everywhere = np.ones((SIDE,) * 3, bool)
    spread = smooth(point, everywhere, lattice(spacing), filters(gaussian_mm=8.0))
    away = int(4 / spacing)
    assert float(spread[7 + away, 7, 7] / spread[7, 7, 7]) == pytest.approx(0.5, abs=0.01)


@pytest.mark.parametrize("spacing", [1.0, 2.0])
def test_the_rim_is_a_depth_in_millimetres(spacing: float) -> None:
    inside = np.zeros((SIDE,) * 3, bool)
    inside[1:-1, 1:-1, 1:-1] = True
    found = smooth(np.ones((SIDE,) * 3, np.float32), inside, lattice(spacing), filters(rim_mm=4.0))
    cut = 1 + int(4 / spacing)  # the surface lies on the faces of the outermost voxels
    left = np.zeros_like(inside)
    left[cut:-cut, cut:-cut, cut:-cut] = True
    np.testing.assert_array_equal(found > 0, left)


def test_the_mean_is_taken_over_the_brains_voxels_of_the_window() -> None:
    inside, values = brain(), np.random.default_rng(1).random((SIDE,) * 3).astype(np.float32)
    found = masked_mean(values, inside, 3)
    for i, j, k in np.argwhere(inside)[::37]:
        window = tuple(slice(max(0, n - 1), n + 2) for n in (i, j, k))
        assert found[i, j, k] == pytest.approx(values[window][inside[window]].mean(), rel=1e-5)


@pytest.mark.parametrize("options", FILTERS)
def test_a_constant_score_stays_constant_up_to_the_rim(options: ScoreOptions) -> None:
    inside = brain()
    found = smooth(np.full((SIDE,) * 3, 0.7, np.float32), inside, lattice(2.0), options)
    np.testing.assert_allclose(found[inside], 0.7, rtol=1e-5)
    assert not found[~inside].any()


@pytest.mark.parametrize("outside", [-1e6, 1e6, np.nan, np.inf])
@pytest.mark.parametrize("options", FILTERS)
def test_nothing_leaks_in_from_outside_the_brain(options: ScoreOptions, outside: float) -> None:
    inside, values = brain(), np.random.default_rng(1).random((SIDE,) * 3).astype(np.float32)
    dirty = np.where(inside, values, np.float32(outside))
    clean = np.where(inside, values, np.float32(0.0))
    found, expected = (smooth(v, inside, lattice(2.0), options) for v in (dirty, clean))
    np.testing.assert_array_equal(found, expected)


def test_mean_far_from_any_brain_is_zero() -> None:
    inside = np.zeros((SIDE,) * 3, bool)
    inside[3, 3, 3] = True
    found = masked_mean(np.ones((SIDE,) * 3, np.float32), inside, 3)
    assert np.count_nonzero(found) == 27
    np.testing.assert_allclose(found[2:5, 2:5, 2:5], 1.0, rtol=1e-5)


class TestLesions:
    shape = (20, 16, 12)
    scan = make_scan(shape, oblique_affine(2.0))  # a voxel is 8 mm³

    def find(self, *voxels: tuple[int, int, int], min_ml: float = 0.0) -> tuple[np.ndarray, list]:
        mask = np.zeros(self.shape, bool)
        mask[tuple(np.array(voxels, dtype=int).reshape(-1, 3).T)] = True
        anomaly = np.arange(mask.size, dtype=np.float32).reshape(self.shape)
        return find_findings(anomaly, mask, self.scan, min_ml)

    def test_voxels_that_touch_at_a_corner_are_one_lesion(self) -> None:
        _, lesions = self.find((3, 3, 3), (4, 4, 4), (5, 3, 3))
        assert [lesion.volume_ml for lesion in lesions] == pytest.approx([0.024])

    def test_a_gap_of_one_voxel_parts_two(self) -> None:
        _, lesions = self.find((3, 3, 3), (5, 3, 3), (5, 4, 3))
        assert [lesion.volume_ml for lesion in lesions] == pytest.approx([0.016, 0.008])

    def test_centre_is_in_world_millimetres(self) -> None:
        _, (lesion,) = self.find((10, 2, 7), (11, 2, 7), (12, 2, 7))
        np.testing.assert_allclose(lesion.center_mm, (oblique_affine(2.0) @ (11, 2, 7, 1))[:3], rtol=1e-9)

    def test_peak_and_mean_are_those_of_the_anomaly_inside(self) -> None:
        _, (lesion,) = self.find((0, 0, 1), (0, 0, 2), (0, 1, 1))
        assert (lesion.peak, lesion.mean) == (13.0, pytest.approx((1 + 2 + 13) / 3))

    def test_small_components_are_no_finding_and_leave_the_mask(self) -> None:
        mask, lesions = self.find((0, 0, 0), (5, 5, 5), (5, 5, 6), min_ml=0.016)
        assert [lesion.volume_ml for lesion in lesions] == pytest.approx([0.016])
        assert np.argwhere(mask).tolist() == [[5, 5, 5], [5, 5, 6]]

    def test_an_empty_mask_holds_no_lesion(self) -> None:
        mask, lesions = self.find()
        assert lesions == []
        assert mask.dtype == bool
        assert not mask.any()


@pytest.mark.slow
@given(distributions())
@settings(max_examples=60, deadline=None)
def test_the_tail_probability_is_that_of_the_classes_beyond(case: tuple[list[float], int]) -> None:
    p, y = case
    above, below = sum(p[y + 1 :]) + p[y] / 2, sum(p[:y]) + p[y] / 2
    expected: dict[Tail, float] = {"bright": above, "dark": below, "both": 2 * min(above, below)}
    for tail, share in expected.items():
        found = float(tail_probability(*tensors(p, y), tail)[0])
        assert found == pytest.approx(-math.log(min(max(share, 1e-6), 1.0)), abs=1e-6)


class TestGuidedFilter:
    @pytest.mark.slow
    def test_is_the_mean_of_the_linear_fits_of_all_windows(self) -> None:
        rng = np.random.default_rng(3)
        inside, values, guide = brain(), *rng.random((2, SIDE, SIDE, SIDE)).astype(np.float32)
        slopes, offsets = np.zeros((2, SIDE, SIDE, SIDE))
        for at in np.ndindex(inside.shape):
            window = tuple(slice(max(0, n - 1), n + 2) for n in at)
            here = inside[window]
            if here.any():
                g, v = guide[window][here].astype(float), values[window][here].astype(float)
                slopes[at] = ((g * v).mean() - g.mean() * v.mean()) / (g.var() + EDGE_NOISE)
                offsets[at] = v.mean() - slopes[at] * g.mean()
        found = guided(values, guide, inside, 3)
        for i, j, k in np.argwhere(inside)[::29]:
            window = tuple(slice(max(0, n - 1), n + 2) for n in (i, j, k))
            here = inside[window]
            expected = slopes[window][here].mean() * guide[i, j, k] + offsets[window][here].mean()
            assert found[i, j, k] == pytest.approx(max(expected, 0.0), abs=2e-3)
        assert not found[~inside].any()

    def test_a_blurred_map_takes_the_edge_of_the_scan(self) -> None:
        everywhere = np.ones((SIDE,) * 3, bool)
        scan = np.where(np.arange(SIDE) < 7, 0.3, 0.6)[:, None, None] * np.ones((SIDE,) * 3, np.float32)
        truth = (scan > 0.5).astype(np.float32)
        options = filters(gaussian_mm=10.0).model_copy(update={"edge_mm": 10.0})
        blurred = smooth(truth, everywhere, lattice(2.0), options)
        sharp = smooth(truth, everywhere, lattice(2.0), options, scan)
        steps = [float((found[7] - found[6]).mean()) for found in (sharp, blurred)]
        assert steps[0] > 2 * steps[1]

    @pytest.mark.parametrize("outside", [-1e6, np.nan, np.inf])
    def test_nothing_leaks_in_from_outside_the_brain(self, outside: float) -> None:
        rng, inside = np.random.default_rng(3), brain()
        clean = rng.random((2, SIDE, SIDE, SIDE)).astype(np.float32) * inside
        dirty = np.where(inside, clean, np.float32(outside))
        found, expected = (guided(values, guide, inside, 5) for values, guide in (dirty, clean))
        np.testing.assert_array_equal(found, expected)

    def test_a_constant_map_stays_constant(self) -> None:
        inside, guide = brain(), np.random.default_rng(3).random((SIDE,) * 3).astype(np.float32)
        found = guided(np.full((SIDE,) * 3, 0.7, np.float32), guide, inside, 5)
        np.testing.assert_allclose(found[inside], 0.7, rtol=1e-4)

    def test_on_native_voxels_the_width_is_in_millimetres_and_the_box_hides_nothing(self) -> None:
        rng, inside = np.random.default_rng(3), np.zeros((SIDE,) * 3, bool)
        inside[4:12, 3:9, 5:11] = True
        values, intensity = rng.random((2, SIDE, SIDE, SIDE)).astype(np.float32) * inside
        options = filters().model_copy(update={"native_edge_mm": 10.0})
        for spacing, width in ((2.0, 5), (3.0, 3)):
            found = sharpen(values, intensity, inside, oblique_affine(spacing), options)
            expected = guided(values, intensity, inside, width, NATIVE_EDGE_NOISE)
            np.testing.assert_allclose(found, expected, atol=1e-5)
        none = filters().model_copy(update={"native_edge_mm": 0.0})
        assert sharpen(values, intensity, inside, oblique_affine(2.0), none) is values
