"""Trust: usual fits are trusted, scans that the field cannot know are named."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
import pytest
import torch
from scipy import ndimage

from anofield.data.cohort.case import Case
from anofield.detect.fit import Fit
from anofield.detect.options import DetectOptions, FitOptions
from anofield.detect.trust import TURNED, Verdict, judge
from helpers import World, found_in, small_world
from images import load_image

HEALTHY = {
    "loss": (0.9, 1.0, 1.1),
    "code_distance": (0.5, 0.8, 1.2),
    "contrast": (0.8, 0.85, 0.9),
    "outside": (0.01, 0.02, 0.03),
    "brain_ml": (1100.0, 1300.0, 1500.0),
}
USUAL = Fit(
    code=torch.zeros(3),
    loss=1.0,
    code_distance=0.9,
    contrast=0.84,
    outside=0.02,
    turned=False,
    pose=None,
    intensity=None,
)


def test_a_usual_fit_is_trusted_and_a_lesions_as_well() -> None:
    assert judge(USUAL, 1250.0, HEALTHY) == Verdict(True)
    assert judge(replace(USUAL, loss=1.35, code_distance=1.8), 1250.0, HEALTHY) == Verdict(True)


def test_without_calibration_nothing_is_promised() -> None:
    assert judge(USUAL, 1250.0, {}) == Verdict(None)
    assert judge(replace(USUAL, turned=True), 1250.0, {}) == Verdict(False, (TURNED,))


@pytest.mark.parametrize("unmeasured", ["contrast", "turned"])
def test_what_was_not_measured_is_not_judged(unmeasured: str) -> None:
    nothing: Any = {unmeasured: None}
    fit = replace(USUAL, **nothing)
    assert judge(fit, 1250.0, HEALTHY) == Verdict(None)
    assert judge(replace(fit, loss=3.0), 1250.0, HEALTHY).trusted is False


@pytest.mark.parametrize(
    ("change", "brain_ml", "word"),
    [
        ({"loss": 3.0}, 1250.0, "no healthy anatomy"),
        ({"code_distance": 9.0}, 1250.0, "unlike those of the training"),
        ({"contrast": -0.4}, 1250.0, "modality"),
        ({"outside": 0.4}, 1250.0, "skull"),
        ({}, 2600.0, "far larger"),
        ({}, 300.0, "far smaller"),
    ],
)
def test_what_is_unusual_is_named_with_its_value(change: dict[str, Any], brain_ml: float, word: str) -> None:
    found = judge(replace(USUAL, **change), brain_ml, HEALTHY)
    (reason,) = found.reasons
    assert found.trusted is False
    assert word in reason
    assert "healthy" in reason


@pytest.fixture(scope="session")
def world(tmp_path_factory: pytest.TempPathFactory) -> World:
    return small_world(tmp_path_factory.getbasetemp() / "world")


def judged(world: World, data: np.ndarray, affine: np.ndarray, folder: Path) -> tuple[bool | None, str]:
    """The verdict on these voxels."""
    path = folder / "scan.nii.gz"
    nib.save(nib.Nifti1Image(data.astype(np.float32), affine), path)
    options = DetectOptions(also=(), fit=FitOptions(iterations=15, points=512))
    found = found_in(Case("case", path), world.model, options)
    return found.trusted, " ".join(found.reasons)


@pytest.fixture
def scan(world: World) -> nib.Nifti1Image:
    return load_image(world.healthy[0].image)


def test_a_healthy_scan_is_trusted(world: World, scan: nib.Nifti1Image, tmp_path: Path) -> None:
    assert judged(world, scan.get_fdata(), scan.affine, tmp_path) == (True, "")


def test_inverted_contrast_is_caught(world: World, scan: nib.Nifti1Image, tmp_path: Path) -> None:
    data = scan.get_fdata()
    inverted = np.where(data > 0, data.max() * 1.05 - data, 0)
    trusted, why = judged(world, inverted, scan.affine, tmp_path)
    assert trusted is False
    assert "contrast" in why


def test_an_unstripped_skull_is_caught(world: World, scan: nib.Nifti1Image, tmp_path: Path) -> None:
    data = scan.get_fdata()
    head = ndimage.binary_dilation(data > 0)
    scalp = np.random.default_rng(0).uniform(0.2, 1.0, data.shape) * np.percentile(data[data > 0], 90)
    trusted, why = judged(world, np.where(data > 0, data, head * scalp), scan.affine, tmp_path)
    assert trusted is False
    assert "skull" in why


@pytest.mark.parametrize("axis", [1, 2])
def test_a_flipped_orientation_is_caught(world: World, scan: nib.Nifti1Image, tmp_path: Path, axis: int) -> None:
    """Front and back, or top and bottom, are exchanged, as by a header that lies."""
    trusted, why = judged(world, np.flip(scan.get_fdata(), axis), scan.affine, tmp_path)
    assert trusted is False
    assert "orientation" in why
