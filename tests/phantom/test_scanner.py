"""The scanner: noise by voxel volume, ringing, slices and motion, on objects whose image is known."""

from __future__ import annotations

import numpy as np
import pytest

from anofield.phantom.scanner import Protocol, Quality, acquired
from anofield.phantom.signal import SpinEcho
from anofield.typing import FloatVolume, Volume

SPACING = (1.0, 1.0, 1.0)
STILL = Quality(noise=0.0, motion=0.0, filtered=0.0)


def _scan(
    volume: Volume, quality: Quality = STILL, voxel: tuple[float, float, float] = SPACING, **how: object
) -> FloatVolume:
    protocol = Protocol(sequence=SpinEcho(3000, 90), voxel=voxel, **how)  # type: ignore[arg-type]
    return acquired(volume.astype(np.float32), SPACING, protocol, quality, np.random.default_rng(0))


def _ball() -> FloatVolume:
    x, y, z = np.indices((40, 48, 44)) - 20.0
    return np.where(x**2 + y**2 + z**2 < 14**2, 1 + 0.3 * np.sin(x / 3), 0).astype(np.float32)


def test_a_perfect_scanner_changes_nothing() -> None:
    np.testing.assert_allclose(_scan(_ball()), _ball(), atol=1e-5)


@pytest.mark.parametrize(
    ("voxel", "expected"),
    [
        ((1.0, 1.0, 1.0), 0.05),
        ((2.0, 2.0, 2.0), 0.05 / 8),
        ((1.0, 2.0, 1.0), 0.05 / 2),
        ((0.5, 0.5, 0.5), 0.05 * 8 / np.sqrt(8)),  # eight small voxels average in one of the lattice
    ],
)
def test_noise_falls_with_the_volume_of_the_acquired_voxel(voxel: tuple[float, float, float], expected: float) -> None:
    noisy = _scan(np.full((48, 48, 48), 3.0), Quality(noise=0.05, motion=0.0, filtered=0.0), voxel)
    assert noisy.std() == pytest.approx(expected, rel=0.08)


def test_noise_of_nothing_is_rayleigh() -> None:
    empty = _scan(np.zeros((40, 40, 40)), Quality(noise=0.05, motion=0.0, filtered=0.0))
    assert empty.mean() == pytest.approx(0.05 * np.sqrt(np.pi / 2), rel=0.02)


def test_a_hard_end_of_k_space_rings_by_nine_percent_and_a_soft_one_does_not() -> None:
    step = np.zeros((8, 128, 8), np.float32)
    step[:, 32:96] = 1
    hard = _scan(step, voxel=(1.0, 4.0, 1.0))
    soft = _scan(step, Quality(noise=0.0, motion=0.0, filtered=1.0), voxel=(1.0, 4.0, 1.0))
    assert 0.07 < hard.max() - 1 < 0.12  # Gibbs: 8.9 %
    assert soft.max() - 1 < 0.02
    assert np.ptp(hard, axis=(0, 2)).max() < 1e-5  # along the other axes nothing rings


@pytest.mark.parametrize(("axis", "phase"), [(0, 1), (1, 0), (2, 1)])
@pytest.mark.parametrize("tilt", [0.0, 12.0])
def test_slices_keep_what_is_linear_along_them(axis: int, phase: int, tilt: float) -> None:
    ramp = 10 + 0.1 * np.indices((40, 40, 40))[axis].astype(np.float32)
    voxel = tuple(5.0 if i == axis else 1.0 for i in range(3))
    image = _scan(ramp, voxel=voxel, slices=axis, gap=1.0, tilt=tilt, phase=phase)  # type: ignore[arg-type]
    inner = (slice(12, 28),) * 3
    np.testing.assert_allclose(image[inner], ramp[inner], rtol=0.01)


def test_a_thin_plate_becomes_as_thick_as_a_slice_but_keeps_its_signal() -> None:
    plate = np.zeros((16, 16, 60), np.float32)
    plate[:, :, 30] = 1
    column = np.mean([_scan(np.roll(plate, shift, 2), voxel=(1, 1, 5), slices=2)[8, 8] for shift in range(5)], axis=0)
    assert column.sum() == pytest.approx(1, rel=0.05)
    assert 5 <= (column > 0.25 * column.max()).sum() <= 14


def test_motion_leaves_ghosts_along_the_phase_axis() -> None:
    still, moved = _scan(_ball()), _scan(_ball(), Quality(noise=0.0, motion=1.0, filtered=0.0))
    outside = (_ball() == 0) & (np.abs(np.indices(still.shape)[1] - 20) > 17)
    assert still[outside].max() < 1e-4 < 0.003 < moved[outside].max()
    assert moved[_ball() > 0].mean() == pytest.approx(still[_ball() > 0].mean(), rel=0.05)
