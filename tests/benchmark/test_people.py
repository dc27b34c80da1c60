"""Changes of scans: heads displaced by the affine alone, and thick slices that hold the mean of what they cover."""

from __future__ import annotations

from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from anofield.benchmark.people import THICK_MM, Changed, displaced, thick
from anofield.data.cohort.case import Case


def image(data: np.ndarray, spacing: float = 2.0) -> nib.Nifti1Image:
    affine = np.diag([spacing, spacing, spacing, 1.0])
    affine[:3, 3] = (-10.0, 5.0, 30.0)
    return nib.Nifti1Image(data, affine)


def affine_of(path: Path | None) -> np.ndarray:
    assert path is not None
    found = nib.Nifti1Image.from_filename(path).affine
    assert found is not None
    return found


@given(st.integers(0, 10_000))
@settings(max_examples=30, deadline=None)
def test_a_displaced_head_is_turned_shifted_and_scaled_within_the_limits(seed: int) -> None:
    plain = image(np.zeros((3, 4, 5), np.int16))
    moved = displaced(plain, False, np.random.default_rng(seed))
    move = moved.affine @ np.linalg.inv(plain.affine)
    size = np.cbrt(np.linalg.det(move[:3, :3]))
    turn = move[:3, :3] / size
    assert 0.9 <= size <= 1.1
    np.testing.assert_allclose(turn @ turn.T, np.eye(3), atol=1e-9)
    assert np.degrees(np.arccos(np.clip((np.trace(turn) - 1) / 2, -1, 1))) <= 30 + 1e-6
    assert (np.abs(move[:3, 3]) <= 30).all()
    assert np.array_equal(moved.dataobj, plain.dataobj)


@pytest.mark.parametrize("spacing", [1.0, 2.0, 208 / 96])
def test_a_thick_slice_is_the_mean_of_what_it_covers(spacing: float) -> None:
    random = np.random.default_rng(0)
    data = random.integers(100, 200, (4, 5, 40)).astype(np.int16)
    made = thick(image(data, spacing), False, random)
    assert np.linalg.norm(made.affine[:3, 2]) == pytest.approx(THICK_MM)
    fine = np.repeat(data, 60, axis=2)  # every slice in sixty, as fine as the edges need
    step = spacing / 60
    for k in range(made.shape[2]):
        centres = (np.arange(fine.shape[2]) + 0.5) * step
        inside = (centres >= k * THICK_MM) & (centres < (k + 1) * THICK_MM)
        np.testing.assert_allclose(np.asarray(made.dataobj)[..., k], fine[..., inside].mean(axis=2), atol=1.5)


def test_a_thick_slice_lies_in_the_middle_of_what_it_covers() -> None:
    ramp = np.broadcast_to(np.arange(1, 41, dtype=np.float32), (2, 2, 40)).copy()
    plain = image(ramp, 1.0)
    made = thick(plain, False, np.random.default_rng(0))
    world = (made.affine @ [0, 0, 3, 1])[2]
    index = np.linalg.inv(plain.affine) @ [0, 0, world, 1]
    assert np.asarray(made.dataobj)[0, 0, 3] == pytest.approx(1 + index[2], abs=0.5)


def test_brain_and_label_of_a_thick_slice_fill_at_least_half_of_it() -> None:
    data, label = np.zeros((1, 1, 20), np.int16), np.zeros((1, 1, 20), np.uint8)
    data[..., 3:20], label[..., 5:7], label[..., 11:14] = 100, 4, 2
    scan, truth = (np.asarray(thick(image(d, 1.0), is_label, np.random.default_rng(0)).dataobj)[0, 0]
                   for d, is_label in ((data, False), (label, True)))  # fmt: skip
    assert scan.tolist() == [0, 100, 100, 100]
    assert truth.tolist() == [0, 0, 1, 0]
    assert (scan.dtype, truth.dtype) == (np.int16, np.uint8)


def test_scan_and_label_move_together_and_are_written_once(tmp_path: Path) -> None:
    paths = [tmp_path / "a_7_t2.nii.gz", tmp_path / "a_7_seg.nii.gz"]
    for path in paths:
        nib.save(image(np.ones((3, 3, 3), np.int16)), path)

    class Fixed:
        name = "fixed"

        def cases(self, folder: Path, seed: int) -> list[Case]:
            return [Case("a_7", paths[0], paths[1])]

    group = Changed(people=Fixed(), change=displaced)
    (case,) = group.cases(tmp_path / "out", 5)
    affines = [affine_of(path) for path in (case.image, case.label)]
    np.testing.assert_array_equal(affines[0], affines[1])
    stamp = case.image.stat().st_mtime_ns
    (again,) = group.cases(tmp_path / "out", 5)
    assert again == case
    assert case.image.stat().st_mtime_ns == stamp
    (other,) = group.cases(tmp_path / "other", 6)
    assert not np.allclose(affine_of(other.image), affines[0])
