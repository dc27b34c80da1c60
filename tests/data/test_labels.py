"""Labels and masks: whole numbers on the voxels of their scan; anything else is refused with the true reason."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest

from anofield.data.brain import as_stripped
from anofield.data.labels import as_labels, as_mask, corners_apart, on_voxels, read_truth
from anofield.data.scan import Scan, as_scan, read_scan, write_like
from anofield.errors import ScanError

SHAPE = (5, 6, 7)
TURN = np.array([[0.96, -0.28, 0.0], [0.28, 0.96, 0.0], [0.0, 0.0, 1.0]])
OBLIQUE = nib.affines.from_matvec(TURN @ np.diag([-1.5, 2.0, 3.0]), (11.0, -7.0, 5.0))
STRAIGHT = nib.affines.from_matvec(np.diag([1.5, 2.0, 3.0]), (1.0, 2.0, 3.0))


@pytest.fixture
def scan(tmp_path: Path) -> Scan:
    data = np.random.default_rng(0).integers(1, 1000, SHAPE).astype(np.float32)
    nib.Nifti1Image(data, OBLIQUE).to_filename(tmp_path / "scan.nii")
    return read_scan(tmp_path / "scan.nii")


def saved(path: Path, data: np.ndarray, affine: np.ndarray = OBLIQUE) -> Path:
    nib.Nifti1Image(data, affine).to_filename(path)
    return path


def with_one(value: float) -> np.ndarray:
    data = np.zeros(SHAPE, np.float32)
    data[1, 2, 3] = value
    return data


@pytest.mark.parametrize(
    ("data", "affine", "fault"),
    [
        (np.zeros((5, 6, 8), np.uint8), OBLIQUE, "shape"),
        (np.zeros(SHAPE, np.uint8), STRAIGHT, "mm away"),
        (with_one(np.nan), OBLIQUE, "NaN"),
        (with_one(0.37), OBLIQUE, "1 voxel with fractions, the largest value is 0.37"),
        (with_one(1.4), OBLIQUE, "not made of whole numbers"),
        (with_one(1 / 255), OBLIQUE, "scale factor"),
        (with_one(1 / 65535), OBLIQUE, "scale factor"),
        (with_one(-1), OBLIQUE, "negative values, down to -1"),
        (with_one(1e12), OBLIQUE, "holds 1e+12"),
    ],
    ids=["shape", "affine", "NaN", "soft", "interpolated", "1/255", "1/65535", "negative", "huge"],
)
@pytest.mark.parametrize("what", ["label map", "brain mask"])
def test_a_map_that_is_none_is_refused_by_name(
    data: np.ndarray, affine: np.ndarray, fault: str, what: str, scan: Scan, tmp_path: Path
) -> None:
    with pytest.raises(ScanError) as caught:
        as_labels(saved(tmp_path / "label.nii", data, affine), scan, what)
    text = str(caught.value)
    assert str(tmp_path / "label.nii") in text and fault in text and what in text and "Remedy: " in text


def test_a_scale_factor_in_the_header_does_not_make_a_lesion_healthy(scan: Scan, tmp_path: Path) -> None:
    image = nib.Nifti1Image((with_one(1)).astype(np.uint8), OBLIQUE)
    image.header.set_slope_inter(1 / 255, 0)
    image.to_filename(tmp_path / "label.nii.gz")
    with pytest.raises(ScanError, match="not made of whole numbers"):
        as_labels(tmp_path / "label.nii.gz", scan)


@pytest.mark.parametrize(
    ("values", "affine"),
    [
        (np.full(SHAPE, 0.4), OBLIQUE),
        (with_one(np.nan), OBLIQUE),
        (np.ones(SHAPE), np.diag([-1.0, 1, 1, 1]) @ OBLIQUE),
        (with_one(2), OBLIQUE),
    ],
    ids=["probabilities", "NaN", "flipped", "right"],
)
def test_a_label_counts_the_same_in_every_form(
    values: np.ndarray, affine: np.ndarray, scan: Scan, tmp_path: Path
) -> None:
    image = nib.Nifti1Image(values.astype(np.float32), affine)
    image.to_filename(tmp_path / "label.nii")

    def outcome(source: object) -> object:
        try:
            return as_labels(source, scan).sum()  # type: ignore[arg-type]
        except ScanError as error:
            return error.what

    found = {outcome(one) for one in (tmp_path / "label.nii", image, (values, affine))}
    assert len(found) == 1


@pytest.mark.parametrize("suffix", [".nii", ".nii.gz", ".mgz", ".mgh"])
def test_labels_may_be_moved_by_rounding_and_be_in_any_format(suffix: str, scan: Scan, tmp_path: Path) -> None:
    label = np.random.default_rng(1).integers(0, 5, SHAPE)
    kind = nib.MGHImage if suffix.startswith(".mg") else nib.Nifti1Image
    for noise in (1e-3, -1e-5, 0.0):
        moved = (label + noise * (label > 0)).astype(np.float32)
        kind(moved, OBLIQUE + 1e-3).to_filename(tmp_path / f"label{suffix}")
        np.testing.assert_array_equal(as_labels(tmp_path / f"label{suffix}", scan), label)
    saved(tmp_path / "healthy.nii", np.full(SHAPE, 1e-7, np.float32))
    assert not as_labels(tmp_path / "healthy.nii", scan).any()


@pytest.mark.parametrize("axis", range(3))
@pytest.mark.parametrize("size", [0.4, 0.6, 2.7])
def test_a_label_may_be_off_by_half_a_voxel_of_each_axis(axis: int, size: float, tmp_path: Path) -> None:
    """Thick slices do not loosen the tolerance in plane: 2.7 voxels of 0.9 mm are less than half of 5 mm."""
    affine = nib.affines.from_matvec(TURN @ np.diag([0.9, 0.9, 5.0]), (3.0, 4.0, 5.0))
    saved(tmp_path / "scan.nii", np.random.default_rng(0).random(SHAPE).astype(np.float32), affine)
    moved = affine.copy()
    moved[:3, 3] += size * affine[:3, axis]
    assert corners_apart(moved, affine, SHAPE)[0] == pytest.approx(size)
    label = saved(tmp_path / "label.nii", with_one(1).astype(np.uint8), moved)
    if size < 0.5:
        assert as_labels(label, read_scan(tmp_path / "scan.nii")).sum() == 1
        return
    with pytest.raises(ScanError, match=rf"corners {size} voxels \("):
        as_labels(label, read_scan(tmp_path / "scan.nii"))


def copied(folder: Path, scan: Scan) -> Path:
    return saved(folder / "copy.nii.gz", scan.data.astype(np.int16))


def detected(folder: Path, scan: Scan) -> Path:
    write_like(scan, with_one(1).astype(np.uint8), folder / "found.nii.gz", description="anofield mask")
    return folder / "found.nii.gz"


@pytest.mark.parametrize(("make", "words"), [(copied, "is the scan itself"), (detected, "is a result of anofield")])
def test_neither_the_scan_nor_a_detection_is_read_as_truth(
    make: Callable[[Path, Scan], Path], words: str, scan: Scan, tmp_path: Path
) -> None:
    with pytest.raises(ScanError, match=words):
        as_labels(make(tmp_path, scan), scan)


def test_several_files_are_united_and_more_than_half_of_the_brain_is_no_lesion(scan: Scan, tmp_path: Path) -> None:
    brain = np.ones(SHAPE, np.bool_)
    left, right = np.zeros(SHAPE, np.uint8), np.zeros(SHAPE, np.uint8)
    left[:2], right[3:] = 1, 2
    paths = [saved(tmp_path / "left.nii", left), saved(tmp_path / "right.nii", right)]
    np.testing.assert_array_equal(read_truth(paths[:1], scan, brain), left)
    with pytest.raises(ScanError, match=r"covers 80 % of the brain.*not lesions"):
        read_truth(paths, scan, brain)
    np.testing.assert_array_equal(read_truth(paths, scan, None), left + right)


class TestMaskOnAnotherGrid:
    """A brain mask may have a grid of its own in the same world; a label may not."""

    @pytest.fixture
    def ball(self) -> tuple[Scan, np.ndarray]:
        """A scan of 3 mm voxels, obliquely in the world, and the ball in it."""
        affine = nib.affines.from_matvec(TURN @ np.diag([-3.0, 3.0, 3.0]), (60.0, -70.0, 5.0))
        inside = sum((x - 15.0) ** 2 for x in np.indices((31, 31, 31))) < 11**2
        data = np.where(inside, 100.0, 0).astype(np.float32)
        return as_scan((data, affine)), np.asarray(inside)

    @staticmethod
    def ball_on(scan: Scan, spacing: float, shape: tuple[int, int, int]) -> tuple[np.ndarray, np.ndarray]:
        """The same ball on a straight grid around its centre."""
        centre = scan.affine @ [15, 15, 15, 1]
        affine = nib.affines.from_matvec(np.diag([spacing] * 3), centre[:3] - spacing * (np.array(shape) - 1) / 2)
        index = np.moveaxis(np.indices(shape), 0, -1)
        far = np.linalg.norm(nib.affines.apply_affine(affine, index) - centre[:3], axis=-1)
        return (far < 33).astype(np.uint8), affine

    @pytest.mark.parametrize("spacing", [1.5, 2.0, 3.7])
    def test_is_resampled_and_said(self, spacing: float, ball: tuple[Scan, np.ndarray]) -> None:
        scan, inside = ball
        data, affine = self.ball_on(scan, spacing, (60, 62, 64))
        found, note = as_mask((data, affine), scan)
        both = 2 * np.count_nonzero(found & inside) / (np.count_nonzero(found) + np.count_nonzero(inside))
        assert both > 0.97
        assert note is not None and "resampled to the scan by world coordinates" in note and "outside" not in note
        assert note.count(" and axes ") == 2  # a flipped storage has the same shape and spacing

    def test_the_same_grid_in_another_order_is_exact(self, ball: tuple[Scan, np.ndarray]) -> None:
        scan, inside = ball
        image = nib.Nifti1Image(inside.astype(np.uint8), scan.affine)
        turned = image.as_reoriented(np.array([(1, -1), (0, 1), (2, -1)], dtype=float))
        found, note = as_mask(turned, scan)
        assert np.array_equal(found, inside) and note is not None
        assert np.array_equal(on_voxels(np.asarray(turned.dataobj) > 0, turned.affine, scan), inside)

    def test_what_lies_outside_the_scan_is_told(self, ball: tuple[Scan, np.ndarray]) -> None:
        scan, _ = ball
        data, affine = self.ball_on(scan, 2.0, (60, 60, 60))
        affine[0, 3] += 40
        _, note = as_mask((data, affine), scan)
        assert note is not None and "% of it lie outside the scan" in note

    def test_elsewhere_in_the_world_it_is_refused(self, ball: tuple[Scan, np.ndarray]) -> None:
        scan, _ = ball
        data, affine = self.ball_on(scan, 2.0, (60, 60, 60))
        affine[0, 3] += 300
        with pytest.raises(ScanError, match="does not lie on the scan: 0 % of it") as caught:
            as_mask((data, affine), scan)
        assert "brain mask" in str(caught.value) and "label" not in str(caught.value)

    def test_of_the_same_shape_at_another_place_one_affine_is_wrong(self, ball: tuple[Scan, np.ndarray]) -> None:
        scan, inside = ball
        with pytest.raises(ScanError, match="the brain mask's affine puts its corners"):
            as_mask((inside.astype(np.uint8), np.eye(4)), scan)

    def test_a_plain_array_has_no_place_of_its_own(self, ball: tuple[Scan, np.ndarray]) -> None:
        with pytest.raises(ScanError, match="the brain mask has shape"):
            as_mask(np.ones((3, 3, 3), np.uint8), ball[0])

    def test_as_a_label_it_is_refused_as_what_it_is(self, ball: tuple[Scan, np.ndarray]) -> None:
        scan, _ = ball
        data, affine = self.ball_on(scan, 2.0, (60, 60, 60))
        with pytest.raises(ScanError, match="it is a brain mask rather than a label"):
            as_labels((data, affine), scan)
        lesion = np.zeros_like(data)
        lesion[28:32, 28:32, 28:32] = 1
        with pytest.raises(ScanError, match="the label map has shape") as caught:
            as_labels((lesion, affine), scan)
        assert "brain mask" not in str(caught.value)

    def test_the_brain_is_that_of_the_resampled_mask(self, ball: tuple[Scan, np.ndarray], tmp_path: Path) -> None:
        scan, inside = ball
        head = scan.like(np.where(inside, np.random.default_rng(0).uniform(50, 90, inside.shape), 9).astype(np.float32))
        data, affine = self.ball_on(scan, 2.0, (60, 62, 64))
        big = nib.Nifti1Image(data, affine)
        native = as_stripped((head.data * 1.0, np.diag([1.6, 1.6, 1.6, 1]) @ scan.affine), larger(big, 1.6))
        assert native.brain_ml == pytest.approx(np.count_nonzero(inside) * (3 * 1.6) ** 3 / 1000, rel=0.03)
        assert len(native.notes) == 1 and not native.doubts


def larger(image: nib.Nifti1Image, times: float) -> nib.Nifti1Image:
    """An image whose world is this many times as large."""
    return nib.Nifti1Image(np.asarray(image.dataobj), np.diag([times, times, times, 1]) @ image.affine)
