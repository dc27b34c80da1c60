"""Healthy reference maps: standardised scores of healthy people are about N(0, 1); nobody is measured by himself."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from anofield.data.prepared import Prepared
from anofield.detect.pose import Pose
from anofield.detect.reference import Moments, Standard, Sums, read_reference, write_reference
from anofield.errors import ExperimentError
from helpers import make_prepared

SIDE = 16
WHOLE = np.ones((SIDE,) * 3, bool)


def body() -> Prepared:
    """All of the box is brain."""
    return replace(make_prepared(0, SIDE), brain=WHOLE)


def person(seed: int) -> dict[str, np.ndarray]:
    """Scores whose mean and spread grow along the first axis."""
    place = np.linspace(0, 1, SIDE, dtype=np.float32)[:, None, None]
    noise = np.random.default_rng(seed).standard_normal((SIDE,) * 3).astype(np.float32)
    return {"a": 5 + 3 * place + (0.5 + 2 * place) * noise}


def counted(people: range) -> Moments:
    moments = Moments.none(["a"], sums(people[0]))
    for seed in people:
        moments = moments.plus(sums(seed))
    return moments


def sums(seed: int) -> Sums:
    return Moments.sums_of(["a"], person(seed), body(), None)


def signed(values: np.ndarray, standard: Standard) -> np.ndarray:
    """Standardised, both signs: what `applied` cuts below 0 is taken from the mirrored score."""
    mirrored = replace(standard, mean=-standard.mean)
    return standard.applied(values, body(), None) - mirrored.applied(-values, body(), None)


def test_a_healthy_person_not_seen_is_standard_normal_everywhere() -> None:
    standard = counted(range(60)).standards(5.0)["a"]
    found = np.stack([signed(person(100 + i)["a"], standard) for i in range(5)])
    for part in (found[:, :5], found[:, 5:11], found[:, 11:]):
        assert float(part.mean()) == pytest.approx(0.0, abs=0.15)
        assert float(part.std()) == pytest.approx(1.0, abs=0.15)


def test_nobody_is_measured_by_himself() -> None:
    everybody, others = counted(range(6)), counted(range(1, 6))
    left = everybody.without(sums(0)).standards(float(body().lattice.spacing.mean()))["a"]
    expected = others.standards(float(body().lattice.spacing.mean()))["a"]
    np.testing.assert_allclose(left.mean, expected.mean, rtol=1e-4)
    np.testing.assert_allclose(left.sd, expected.sd, rtol=1e-3)


def test_few_people_are_shrunk_towards_the_whole_brains_figures() -> None:
    few, many = (counted(range(n)).standards(5.0)["a"] for n in (2, 60))
    for part in ("sd", "mean"):
        assert np.ptp(regions(getattr(few, part))) < 0.8 * np.ptp(regions(getattr(many, part)))


def regions(volume: np.ndarray) -> list[float]:
    """Means of three slabs of the box, whose figures differ."""
    return [float(part.mean()) for part in (volume[:5], volume[5:11], volume[11:])]


def test_a_turned_head_is_looked_up_where_it_lies() -> None:
    mean = np.linspace(0, 1, SIDE, dtype=np.float32)[:, None, None] * np.ones((SIDE,) * 3, np.float32)
    standard = Standard(mean, np.ones_like(mean))
    quarter = Pose.start(torch.tensor([0.0, 0.0, np.pi / 2]))  # (x, y) is looked up at (−y, x)
    found = standard.applied(np.full_like(mean, 2.0), body(), quarter)
    np.testing.assert_allclose(found, 2.0 - mean[::-1].transpose(1, 0, 2), atol=1e-5)


def test_what_is_written_is_read_again(tmp_path: Path) -> None:
    standards = counted(range(3)).standards(5.0)
    path = tmp_path / "calibrations" / "maps.npz"
    found = read_reference(path, write_reference(path, standards))
    np.testing.assert_array_equal(found["a"].sd, standards["a"].sd)
    assert list(path.parent.iterdir()) == [path]


def test_another_calibrations_maps_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "maps.npz"
    before = write_reference(path, counted(range(3)).standards(5.0))
    write_reference(path, counted(range(4)).standards(5.0))
    with pytest.raises(ExperimentError, match=r"maps.npz.*its calibration names.*anofield calibrate"):
        read_reference(path, before)
    path.unlink()
    with pytest.raises(ExperimentError, match="cannot be read"):
        read_reference(path, before)


def test_a_flipped_bit_of_the_maps_is_refused(tmp_path: Path) -> None:
    path, generator = tmp_path / "maps.npz", np.random.default_rng(0)
    wanted = write_reference(path, counted(range(2)).standards(5.0))
    data = path.read_bytes()
    for _ in range(300):
        place = int(generator.integers(len(data)))
        path.write_bytes(data[:place] + bytes([data[place] ^ (1 << int(generator.integers(8)))]) + data[place + 1 :])
        with pytest.raises(ExperimentError, match=r"maps\.npz"):
            read_reference(path, wanted)
