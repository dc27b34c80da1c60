"""Surface distances: those of shifted cubes are known, those of any two masks are the brute-force ones."""

from __future__ import annotations

import math
import sys

import numpy as np
import pytest
from scipy import ndimage

from anofield.errors import MachineError
from anofield.evaluation import surface
from anofield.evaluation.surface import surface_distances


def cube(start: int, side: int = 6, shape: tuple[int, int, int] = (24, 16, 16)) -> np.ndarray:
    mask = np.zeros(shape, bool)
    mask[start : start + side, 4 : 4 + side, 4 : 4 + side] = True
    return mask


def brute(a: np.ndarray, b: np.ndarray, spacing: tuple[float, float, float]) -> tuple[float, float]:
    rims = [np.argwhere(mask & ~ndimage.binary_erosion(mask)) * spacing for mask in (a, b)]
    apart = np.linalg.norm(rims[0][:, None] - rims[1][None], axis=2)
    there, back = apart.min(axis=1), apart.min(axis=0)
    return max(np.percentile(there, 95), np.percentile(back, 95)), float(np.r_[there, back].mean())


def test_without_monai_the_error_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "monai.metrics.hausdorff_distance", None)
    with pytest.raises(MachineError, match=r"anofield\[metrics\]"):
        surface_distances(cube(4), cube(5), (1.0, 1.0, 1.0))


def test_empty_masks_have_no_distance() -> None:
    none = np.zeros_like(cube(4))
    assert all(math.isnan(value) for value in surface_distances(none, none, (1.0, 1.0, 1.0)))
    assert surface_distances(none, cube(4), (1.0, 1.0, 1.0)) == (math.inf, math.inf)
    assert surface_distances(cube(4), none, (1.0, 1.0, 1.0)) == (math.inf, math.inf)


@pytest.mark.slow
@pytest.mark.skipif(not surface.available(), reason="needs MONAI (extra: metrics)")
class TestWithMonai:
    @pytest.mark.parametrize("spacing", [(1.0, 1.0, 1.0), (2.5, 1.0, 0.8)])
    @pytest.mark.parametrize("shift", [0, 1, 3])
    def test_hd95_of_a_cube_moved_along_an_axis_is_the_way_it_moved(
        self, spacing: tuple[float, float, float], shift: int
    ) -> None:
        far, apart = surface_distances(cube(4), cube(4 + shift), spacing)
        assert far == pytest.approx(shift * spacing[0])
        assert apart <= far

    @pytest.mark.parametrize("seed", range(3))
    def test_any_two_masks(self, seed: int) -> None:
        spacing = (1.0, 2.0, 0.7)
        fields = ndimage.gaussian_filter(np.random.default_rng(seed).normal(size=(2, 14, 15, 13)), (0, 1.5, 1.5, 1.5))
        a, b = fields > np.quantile(fields, 0.93)  # some of them reach the border of the array
        assert surface_distances(a, b, spacing) == pytest.approx(brute(a, b, spacing), rel=1e-5)
        assert surface_distances(b, a, spacing) == pytest.approx(surface_distances(a, b, spacing))
