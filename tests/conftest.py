"""Shared fixtures: small brains on disk, a few phantom people, and the command line run in this process."""

from __future__ import annotations

import signal
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import nibabel as nib
import numpy as np
import pytest
from hypothesis import settings

if TYPE_CHECKING:
    from anofield.phantom.person import Person

settings.register_profile("anofield", deadline=None, derandomize=True)  # the same examples on every machine
settings.load_profile("anofield")

BRAIN_AFFINE = np.array([[-7.0, 0, 0, 80], [0, 7, 0, -95], [0, 0, 7, -70], [0, 0, 0, 1]])


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Mark every test that needs a fixture as slow whose making takes each process some seconds."""
    for item in items:
        if isinstance(item, pytest.Function) and {"world", "people"} & set(item.fixturenames):
            item.add_marker(pytest.mark.slow)


@dataclass(frozen=True)
class Ended:
    """How a command ended."""

    code: int
    out: str
    err: str


@pytest.fixture(scope="session")
def brain_data() -> np.ndarray:
    """Skull-stripped ellipsoid of about one litre at 7 mm, brighter to one side of every axis, (24, 28, 22)."""
    x, y, z = (np.indices((24, 28, 22)).T * 7.0 - [80.0, 95.0, 74.0]).T
    inside = (x / 60) ** 2 + (y / 76) ** 2 + (z / 56) ** 2 < 1
    noise = np.random.default_rng(0).normal(0, 10, inside.shape)
    return np.where(inside, np.maximum(200 + 0.5 * x + 0.3 * y + 0.2 * z + noise, 1), 0).astype(np.float32)


@pytest.fixture(scope="session")
def save_brain(brain_data: np.ndarray) -> Callable[..., Path]:
    """Write a brain (default: the ellipsoid, made person number `seed` by its intensities) and return its path."""

    def save(path: Path, data: np.ndarray | None = None, affine: np.ndarray = BRAIN_AFFINE, seed: int = 0) -> Path:
        if data is None:
            data = brain_data * np.random.default_rng(seed).uniform(0.9, 1.1, brain_data.shape).astype(np.float32)
        path.parent.mkdir(parents=True, exist_ok=True)
        nib.Nifti1Image(data, affine).to_filename(path)
        return path

    return save


@pytest.fixture(scope="session")
def people() -> list[Person]:
    """Three healthy phantom people at 40³, 5.2 mm."""
    from anofield.phantom.layouts import grid_of
    from anofield.phantom.person import make_person

    return [make_person(0, number, grid_of("hcp", 40)) for number in range(3)]


@pytest.fixture
def anofield(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Iterator[Callable[..., Ended]]:
    """Run the command line in this process."""
    from anofield._signals import STOPS
    from anofield.cli import main

    def run(*words: object) -> Ended:
        monkeypatch.setattr(sys, "argv", ["anofield", *map(str, words)])
        monkeypatch.setenv("ANOFIELD_DEBUG", "")
        with pytest.raises(SystemExit) as stop:
            main()
        captured = capsys.readouterr()
        return Ended(int(stop.value.code or 0), captured.out, captured.err)

    handlers = {number: signal.getsignal(number) for number in STOPS}
    yield run
    for number, handler in handlers.items():
        signal.signal(number, handler)
