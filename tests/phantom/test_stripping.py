"""Errors of skull stripping, in mm."""

from __future__ import annotations

import numpy as np
import pytest

from anofield.phantom.stripping import Stripping, edge_distance, stripped

AXES = tuple(np.arange(-60.0, 61.0, 2.0) for _ in range(3))
FAR = np.sqrt(sum(np.square(axis) for axis in np.meshgrid(*AXES, indexing="ij")))
BALL = FAR < 45


def _mask(shift: float, local: float = 0.0, holes: float = 0.0) -> np.ndarray:
    errors = Stripping(shift=(shift, shift), local=local, holes=holes)
    return stripped(edge_distance(BALL, (2.0, 2.0, 2.0)), AXES, errors, np.random.default_rng(1))  # type: ignore[arg-type]


def _radius(mask: np.ndarray) -> float:
    return float((3 * mask.sum() * 8 / (4 * np.pi)) ** (1 / 3))


@pytest.mark.parametrize("shift", [-3.0, 0.0, 3.0])
def test_the_edge_shifts_by_as_many_millimetres_as_it_should(shift: float) -> None:
    assert _radius(_mask(shift)) == pytest.approx(45 + shift, abs=0.5)


def test_local_errors_go_both_ways() -> None:
    mask = _mask(0.0, local=1.5)
    assert (mask & ~BALL).sum() > 50 and (BALL & ~mask).sum() > 50
    assert np.abs(FAR[mask ^ BALL] - 45).max() < 8


def test_holes_are_bites_out_of_the_edge() -> None:
    cut = BALL & ~_mask(0.0, holes=3.0)
    assert 4 / 3 * np.pi * 5**3 / 3 < cut.sum() * 8 and FAR[cut].min() > 45 - 2 * 10
