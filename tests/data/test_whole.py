"""Whether a brain is whole: cuts at every side, halves and a missing cerebellum are named, whole brains are not."""

from __future__ import annotations

import os
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest

from anofield.data.brain import as_stripped
from anofield.data.check import check_case, check_cohort
from anofield.data.cohort.case import Case
from anofield.data.cohort.find import find_cases
from anofield.data.lattice import bounding_box
from anofield.data.whole import SIDE_NAMES, doubts, half

REAL = os.environ.get("ANOFIELD_REAL")
RAS = np.diag([2.0, 2.0, 2.0, 1.0])


def brain(tilt: float = 0.0) -> np.ndarray:
    """Two ellipsoids, cerebrum and cerebellum, in RAS voxels of 2 mm; `tilt` degrees about the left-right axis."""
    x, y, z = np.indices((90, 110, 96), dtype=np.float32) - np.array([44, 54, 50], np.float32)[:, None, None, None]
    c, s = np.cos(np.deg2rad(tilt)), np.sin(np.deg2rad(tilt))
    y, z = c * y - s * z, s * y + c * z
    cerebrum = (x / 34) ** 2 + (y / 44) ** 2 + (z / 30) ** 2 < 1
    cerebellum = (x / 26) ** 2 + ((y + 24) / 18) ** 2 + ((z + 24) / 15) ** 2 < 1
    return np.asarray(cerebrum | cerebellum)


def cut(mask: np.ndarray, axis: int, end: int, mm: float) -> np.ndarray:
    """The mask without its outermost `mm` at one end of an axis of RAS voxels of 2 mm."""
    filled = np.flatnonzero(mask.any(axis=tuple(other for other in range(3) if other != axis)))
    left = mask.copy()
    drop = slice(None, filled[0] + round(mm / 2)) if end == 0 else slice(filled[-1] + 1 - round(mm / 2), None)
    left[tuple(drop if other == axis else slice(None) for other in range(3))] = False
    return left


@pytest.mark.parametrize("tilt", [-15.0, 0.0, 15.0])
def test_a_whole_brain_is_whole_also_in_its_bounding_box(tilt: float) -> None:
    whole = brain(tilt)
    box = bounding_box(whole)
    assert box is not None
    assert doubts(whole, RAS) == doubts(whole[box], RAS) == ()


@pytest.mark.parametrize("step", [1, 2, 3])
@pytest.mark.parametrize("axis", range(3))
def test_thick_slices_are_no_cut(axis: int, step: int) -> None:
    every = tuple(slice(None, None, step if other == axis else 1) for other in range(3))
    affine = np.diag([*(2.0 * step if other == axis else 2.0 for other in range(3)), 1.0])
    assert doubts(brain()[every], affine) == ()


@pytest.mark.parametrize("order", [(0, 1, 2), (2, 0, 1)])
@pytest.mark.parametrize("flip", [1, -1])
@pytest.mark.parametrize("end", [0, 1])
@pytest.mark.parametrize("axis", range(3))
def test_a_cut_is_named_by_its_side_in_every_orientation(
    axis: int, end: int, flip: int, order: tuple[int, ...]
) -> None:
    image = nib.Nifti1Image(cut(brain(), axis, end, 24).astype(np.uint8), RAS)
    turned = image.as_reoriented(np.array([(other, flip) for other in order], dtype=float))
    (told,) = doubts(np.asarray(turned.dataobj) > 0, turned.affine)
    assert f"cut off flat at the {SIDE_NAMES[axis][end]} (inside the scan" in told


def test_a_cut_at_the_border_of_the_scan_says_so() -> None:
    (told,) = doubts(brain()[:, :, 30:], RAS)
    assert "bottom (at the border of the scan" in told


@pytest.mark.parametrize("angle", [0.0, 20.0, 45.0])
def test_half_a_brain_is_half_whatever_the_direction_of_the_cut(angle: float) -> None:
    x, y, _ = np.indices((90, 110, 96)) - np.array([44, 54, 50])[:, None, None, None]
    side = np.cos(np.deg2rad(angle)) * x + np.sin(np.deg2rad(angle)) * y > 0
    told = half(brain() & side, RAS)
    if angle < 30:  # the cut from corner to corner leaves a piece that is less narrow; it is lopsided
        assert told is not None and doubts(brain() & side, RAS) == (told,)
    assert doubts(brain() & side, RAS)


def test_a_missing_cerebellum_leaves_nothing_below_and_behind() -> None:
    _, y, z = np.indices((90, 110, 96)) - np.array([44, 54, 50])[:, None, None, None]
    assert "cerebellum" in doubts(brain() & ~((z < -12) & (y < -4)), RAS)[0]


def test_a_side_that_is_missing_without_a_flat_end_is_lopsided() -> None:
    x, y, z = np.indices((90, 110, 96)) - np.array([44, 54, 50])[:, None, None, None]
    some = brain() & ((x > 0) | (np.abs(y) < 10) & (np.abs(z) < 10))
    assert "on the right" in " ".join(doubts(some, RAS)) or half(some, RAS)


def test_check_and_detection_judge_alike(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    rng = np.random.default_rng(0)
    for name, mask in (("whole", brain()), ("cut", cut(brain(), 2, 1, 24)), ("half", cut(brain(), 0, 0, 68))):
        data = np.where(mask, rng.normal(100, 10, mask.shape), 0).astype(np.float32)
        nib.Nifti1Image(data, RAS).to_filename(tmp_path / f"{name}.nii.gz")
    rows = {name: check_case(Case(name, tmp_path / f"{name}.nii.gz")) for name in ("whole", "cut", "half")}
    assert not rows["whole"].problems and not rows["whole"].warnings
    for name, told in (("cut", rows["cut"].warnings), ("half", rows["half"].problems)):
        native = as_stripped(tmp_path / f"{name}.nii.gz")
        assert len(native.doubts) == len(told) == 1 and told[0].startswith(native.doubts[0]) and "Remedy" in told[0]
        assert native.doubts[0] in capsys.readouterr().err


@pytest.mark.skipif(REAL is None, reason="ANOFIELD_REAL names no folder of real scans")
@pytest.mark.slow
def test_real_brains_are_whole_and_cut_ones_are_not() -> None:
    folder = Path(str(REAL))
    rows = check_cohort(find_cases(folder / "oasis/participants.tsv"))
    assert len(rows) == 24 and not any("cut off" in text for row in rows for text in row.warnings + row.problems)
    image = nib.as_closest_canonical(nib.load(folder / "oasis/brains/oas1000_T1w.nii.gz"))
    whole = np.asarray(image.dataobj) > 0
    for axis in range(3):
        for end in (0, 1):
            assert doubts(cut(whole, axis, end, 40), image.affine)  # voxels of 1 mm: 20 mm
    assert half(cut(whole, 0, 0, 146), image.affine)
