"""Intensity map: gain, gamma and bias are undone, a lesion does not bend them."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from anofield.data.prepared import Prepared
from anofield.detect.intensity_map import fit_intensity_map, places
from helpers import make_prepared

SCALE = (0.0, 1000.0)


def healthy(seed: int = 0) -> Prepared:
    """A brain of many intensities."""
    body = make_prepared(seed, 16)
    drawn = np.random.default_rng(seed).uniform(0.25, 0.75, body.brain.shape).astype(np.float32)
    return replace(body, intensity=np.where(body.brain, drawn, 0).astype(np.float32), scale=SCALE)


def distorted(body: Prepared, gain: float, gamma: float, slope: float, noise: float = 0.02) -> Prepared:
    """The same brain as another scanner shows it."""
    expected = body.intensity[body.brain] * 1000
    pivot = np.median(np.log(expected))
    bias = places(body)[:, 0] * slope
    log = np.log(expected) + np.log(gain) + gamma * (np.log(expected) - pivot) + bias
    log += np.random.default_rng(9).normal(0, noise, log.shape)
    volume = np.zeros_like(body.intensity)
    volume[body.brain] = np.exp(log) / 1000
    return replace(body, intensity=volume)


@pytest.mark.parametrize(
    ("gain", "gamma", "slope"), [(1.0, 0.0, 0.0), (1.15, 0.0, 0.0), (1.0, 0.1, 0.0), (0.9, -0.1, 0.12)]
)
def test_a_known_distortion_is_undone(gain: float, gamma: float, slope: float) -> None:
    body = healthy()
    seen = distorted(body, gain, gamma, slope)
    expected = body.intensity[body.brain]
    found = fit_intensity_map(expected, seen, np.arange(len(expected)))
    assert found.gain == pytest.approx(gain, rel=0.03)
    assert found.coefficients[1] == pytest.approx(gamma, abs=0.04)
    assert found.coefficients[2] == pytest.approx(slope, abs=0.03)
    mended = found.corrected(seen)
    before, after = (np.abs(b.intensity[b.brain] - expected).mean() for b in (seen, mended))
    assert after < max(0.02, 0.3 * before)
    assert not mended.intensity[~body.brain].any()
    assert (mended.classes[body.brain] > 0).all()


def test_a_lesion_does_not_bend_the_map() -> None:
    body = healthy()
    seen = distorted(body, 1.1, 0.0, 0.0)
    sick = seen.intensity.copy()
    sick[4:8, 4:12, 4:12] = np.where(body.brain[4:8, 4:12, 4:12], 0.95, 0)
    expected = body.intensity[body.brain]
    plain, bent = (
        fit_intensity_map(expected, scan, np.arange(len(expected))) for scan in (seen, replace(seen, intensity=sick))
    )
    assert bent.gain == pytest.approx(plain.gain, rel=0.02)
