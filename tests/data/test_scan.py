"""A scan: what is read is what the file says, what is written lies where the scan lay, what is bad is named."""

from __future__ import annotations

import errno
import gzip
from collections.abc import Callable
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from anofield._files import file_hash, write_json
from anofield.data.brain import brain_mask
from anofield.data.scan import as_scan, read_scan, stem, write_like
from anofield.errors import MachineError, ScanError
from images import load_image

SHAPE = (5, 6, 7)
TURN = np.array([[0.96, -0.28, 0.0], [0.28, 0.96, 0.0], [0.0, 0.0, 1.0]])
OBLIQUE = nib.affines.from_matvec(TURN @ np.diag([-1.5, 2.0, 3.0]), (11.0, -7.0, 5.0))
STRAIGHT = nib.affines.from_matvec(np.diag([1.5, 2.0, 3.0]), (1.0, 2.0, 3.0))
GEOMETRY_FIELDS = (
    *("pixdim", "xyzt_units", "sform_code", "qform_code", "srow_x", "srow_y", "srow_z"),
    *("quatern_b", "quatern_c", "quatern_d", "qoffset_x", "qoffset_y", "qoffset_z"),
)
SaveBrain = Callable[..., Path]


def values(shape: tuple[int, ...] = SHAPE, dtype: Any = np.float32) -> np.ndarray:
    return np.random.default_rng(0).integers(1, 1000, shape).astype(dtype)


def nifti(
    kind: Any = nib.Nifti1Image, header: Any = None, sform: int = 1, qform: int = 1, dtype: Any = np.float32
) -> Any:
    image = kind(values(dtype=dtype), OBLIQUE, header)
    image.set_sform(OBLIQUE, sform)
    image.set_qform(OBLIQUE, qform)
    image.header.set_xyzt_units("mm", "sec")
    return image


def two_frames() -> Any:
    image = nifti(sform=4, qform=1)
    image.set_qform(STRAIGHT, 1)
    return image


def scaled() -> Any:
    image = nifti(dtype=np.float32)
    image.set_data_dtype(np.int16)
    image.header.set_slope_inter(0.25, -3.0)
    return image


def with_extension() -> Any:
    image = nifti()
    image.header.extensions.append(nib.nifti1.Nifti1Extension("comment", b"kept by AFNI and others"))
    return image


NIFTI_SOURCES = {
    "both frames": nifti,
    "sform only": lambda: nifti(sform=2, qform=0),
    "qform only": lambda: nifti(sform=0, qform=1),
    "different frames": two_frames,
    "nifti-2": lambda: nifti(nib.Nifti2Image),
    "big-endian": lambda: nifti(header=nib.Nifti1Header(endianness=">")),
    "scaled integers": scaled,
    "uint8": lambda: nifti(dtype=np.uint8),
    "extension": with_extension,
}


@pytest.mark.parametrize("suffix", [".nii", ".nii.gz"])
@pytest.mark.parametrize("dtype", [np.float32, np.uint8])
@pytest.mark.parametrize("source", NIFTI_SOURCES)
def test_a_result_keeps_every_geometry_field_of_its_scan(source: str, dtype: Any, suffix: str, tmp_path: Path) -> None:
    NIFTI_SOURCES[source]().to_filename(tmp_path / "scan.nii.gz")
    before, scan = load_image(tmp_path / "scan.nii.gz"), read_scan(tmp_path / "scan.nii.gz")
    result = values(dtype=dtype)
    write_like(scan, result, tmp_path / f"result{suffix}", description="x" * 200)
    after = load_image(tmp_path / f"result{suffix}")
    assert type(after) is type(before)
    for name in GEOMETRY_FIELDS:
        np.testing.assert_array_equal(after.header[name], before.header[name], err_msg=name)
    np.testing.assert_array_equal(after.affine, before.affine)
    assert {p.name for p in tmp_path.iterdir()} == {"scan.nii.gz", f"result{suffix}"}
    assert after.get_data_dtype().newbyteorder("=") == dtype
    np.testing.assert_array_equal(np.asarray(after.dataobj), result)


@pytest.mark.parametrize("suffix", [".mgz", ".mgh"])
def test_a_result_of_an_mgh_scan_is_nifti_at_the_same_place(suffix: str, tmp_path: Path) -> None:
    nib.MGHImage(values(), OBLIQUE).to_filename(tmp_path / f"scan{suffix}")
    scan = read_scan(tmp_path / f"scan{suffix}")
    write_like(scan, values(), tmp_path / "result.nii.gz")
    after = load_image(tmp_path / "result.nii.gz")
    np.testing.assert_allclose(after.affine, OBLIQUE, atol=1e-4)
    np.testing.assert_allclose(after.header.get_zooms(), (1.5, 2.0, 3.0), atol=1e-5)
    assert after.header.get_xyzt_units()[0] == "mm"
    assert int(after.header["sform_code"]) > 0


@pytest.mark.parametrize("source", NIFTI_SOURCES)
def test_intensities_are_those_that_nibabel_scales(source: str, tmp_path: Path) -> None:
    NIFTI_SOURCES[source]().to_filename(tmp_path / "scan.nii.gz")
    scan = read_scan(tmp_path / "scan.nii.gz", dtype=np.float64)
    expected = load_image(tmp_path / "scan.nii.gz").get_fdata()
    np.testing.assert_array_equal(scan.data, expected)
    assert scan.data.dtype == np.float64 and scan.data.dtype.isnative


def test_a_trailing_axis_of_length_one_is_dropped(tmp_path: Path) -> None:
    nib.Nifti1Image(values((*SHAPE, 1)), OBLIQUE).to_filename(tmp_path / "scan.nii")
    scan = read_scan(tmp_path / "scan.nii")
    assert scan.data.shape == SHAPE
    write_like(scan, scan.data, tmp_path / "result.nii")
    assert load_image(tmp_path / "result.nii").shape == SHAPE


def test_spacing_and_voxel_volume_are_those_of_the_affine(tmp_path: Path) -> None:
    nifti().to_filename(tmp_path / "scan.nii")
    scan = read_scan(tmp_path / "scan.nii")
    assert scan.spacing == pytest.approx((1.5, 2.0, 3.0))
    assert scan.voxel_ml == pytest.approx(0.009)


def test_reading_and_writing_leave_the_source_as_it_was(tmp_path: Path) -> None:
    scaled().to_filename(tmp_path / "scan.nii")
    hashed = file_hash(tmp_path / "scan.nii")
    scan = read_scan(tmp_path / "scan.nii")
    header = bytes(scan.header.binaryblock)
    write_like(scan, values(dtype=np.uint8), tmp_path / "result.nii")
    assert file_hash(tmp_path / "scan.nii") == hashed
    assert bytes(scan.header.binaryblock) == header


@pytest.mark.parametrize(
    ("name", "expected"), [("a.nii.gz", "a"), ("d/sub-1_T2w.nii", "sub-1_T2w"), ("x.y.mgz", "x.y"), ("z.txt", "z.txt")]
)
def test_stem_takes_the_whole_scan_suffix_off(name: str, expected: str) -> None:
    assert stem(name) == expected


@pytest.mark.parametrize("place", ["file/result.nii.gz", "file/deeper/result.nii.gz"])
def test_an_unwritable_folder_is_a_machine_error_with_a_remedy(place: str, tmp_path: Path) -> None:
    nifti().to_filename(tmp_path / "scan.nii")
    (tmp_path / "file").write_text("not a folder")
    scan = read_scan(tmp_path / "scan.nii")
    with pytest.raises(MachineError, match="Remedy") as caught:
        write_like(scan, scan.data, tmp_path / place)
    assert str(tmp_path / place) in str(caught.value)


@pytest.mark.parametrize("error", [OSError(errno.ENOSPC, "No space left on device"), KeyboardInterrupt()])
def test_a_write_that_fails_half_way_leaves_the_old_file_and_nothing_else(
    error: BaseException, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    nifti().to_filename(tmp_path / "scan.nii")
    scan = read_scan(tmp_path / "scan.nii")
    target = tmp_path / "out" / "result.nii.gz"
    target.parent.mkdir()
    write_like(scan, scan.data, target)
    before = target.read_bytes()

    def fill_the_disk(image: Any, path: Path) -> None:
        Path(path).write_bytes(b"half")
        raise error

    monkeypatch.setattr(nib, "save", fill_the_disk)
    with pytest.raises((MachineError, KeyboardInterrupt)):
        write_like(scan, scan.data + 1, target)
    assert [p.name for p in target.parent.iterdir()] == ["result.nii.gz"]
    assert target.read_bytes() == before


def test_an_array_of_another_shape_is_refused(tmp_path: Path) -> None:
    nifti().to_filename(tmp_path / "scan.nii")
    with pytest.raises(ValueError, match="shape"):
        write_like(read_scan(tmp_path / "scan.nii"), np.zeros((2, 2, 2)), tmp_path / "result.nii")


def test_json_that_cannot_be_written_leaves_the_old_file(tmp_path: Path) -> None:
    path = tmp_path / "deep" / "content.json"
    write_json(path, {"a": 1})
    with pytest.raises(ValueError, match="nan"):
        write_json(path, {"a": float("nan")})
    assert path.read_text() == '{\n  "a": 1\n}\n'
    with pytest.raises(MachineError, match="Remedy"):
        write_json(path / "below.json", {})


def _array(data: np.ndarray, affine: np.ndarray = OBLIQUE) -> Callable[[Path], None]:
    return lambda path: nib.Nifti1Image(data, affine).to_filename(path)


def _spoiled(value: float) -> np.ndarray:
    data = values()
    data[1, 2, 3] = value
    return data


def _truncated(path: Path) -> None:
    nib.Nifti1Image(values((16, 16, 16)), OBLIQUE).to_filename(path)
    path.write_bytes(path.read_bytes()[:-2000])


def _singular(path: Path) -> None:
    content = bytearray(nifti(sform=1, qform=0).to_bytes())
    content[312:328] = bytes(16)  # srow_z of NIfTI-1
    path.write_bytes(gzip.compress(content))


BAD_SCANS: dict[str, tuple[Callable[[Path], Any], str]] = {
    "missing": (lambda path: None, "no such file"),
    "a folder": (Path.mkdir, "is a folder"),
    "empty file": (Path.touch, "is empty"),
    "text": (lambda path: path.write_text("not a scan"), "is text"),
    "gzipped text": (lambda path: path.write_bytes(gzip.compress(b"not a scan" * 100)), "is text"),
    "unknown": (lambda path: path.write_bytes(bytes(range(1, 256)) * 9), "cannot be read"),
    "truncated": (_truncated, "truncated"),
    "4-D": (_array(values((*SHAPE, 2))), "3-D"),
    "2-D": (_array(values((5, 6))), "3-D"),
    "NaN": (_array(_spoiled(np.nan)), "NaN or infinity in 1 voxel"),
    "infinite": (_array(_spoiled(-np.inf)), "infinity in 1 voxel"),
    "all zero": (_array(np.zeros(SHAPE, np.uint8)), "every voxel is 0"),
    "constant": (_array(np.full(SHAPE, 7, np.int16)), "every voxel is 7"),
    "singular affine": (_singular, "sform is singular"),
    "colours": (_array(np.zeros(SHAPE, [("R", "u1"), ("G", "u1"), ("B", "u1")])), "holds colours"),
    "neither frame": (lambda path: nifti(sform=0, qform=0).to_filename(path), "orientation is unknown"),
}


@pytest.mark.parametrize("bad", BAD_SCANS)
def test_a_bad_scan_is_named_with_its_fault_and_a_remedy(bad: str, tmp_path: Path) -> None:
    make, fault = BAD_SCANS[bad]
    path = tmp_path / "scan.nii.gz"
    make(path)
    with pytest.raises(ScanError) as caught:
        read_scan(path)
    text = str(caught.value)
    assert str(path) in text and fault in text and "Remedy: " in text
    assert "\n" not in text


@pytest.mark.parametrize("packed", [False, True])
@pytest.mark.parametrize("side", [-5, 0, 32767])
def test_a_size_that_no_scan_has_is_a_scan_error(side: int, packed: bool, tmp_path: Path) -> None:
    content = bytearray(nifti(dtype=np.float64).to_bytes())
    sizes = (side, *SHAPE[1:]) if side < 0 else (side,) * 3
    content[42:48] = np.array(sizes, "<i2").tobytes()  # dim[1:4] of NIfTI-1
    path = tmp_path / f"scan.nii{'.gz' * packed}"
    path.write_bytes(gzip.compress(content) if packed else content)
    with pytest.raises(ScanError, match="Remedy") as caught:
        read_scan(path)
    assert str(path) in str(caught.value)


def test_a_surface_is_no_scan(tmp_path: Path) -> None:
    nib.gifti.GiftiImage().to_filename(tmp_path / "surface.gii")
    with pytest.raises(ScanError, match=r"surface\.gii.*GIFTI.*Remedy"):
        read_scan(tmp_path / "surface.gii")


@pytest.mark.slow
@settings(max_examples=150, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(damage=st.lists(st.tuples(st.integers(0, 351), st.integers(0, 255)), min_size=1, max_size=4))
def test_a_damaged_header_gives_a_usable_scan_or_a_scan_error(damage: list[tuple[int, int]], tmp_path: Path) -> None:
    content = bytearray(nifti(dtype=np.int16).to_bytes())
    for place, byte in damage:
        content[place] = byte
    path = tmp_path / "scan.nii"
    path.write_bytes(content)
    try:
        scan = read_scan(path)
    except ScanError as error:
        assert str(path) in str(error) and "Remedy: " in str(error)
    else:
        assert scan.data.ndim == 3 and np.isfinite(scan.data).all()
        assert abs(np.linalg.det(scan.affine)) > 0


@pytest.mark.slow
@settings(max_examples=60, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(share=st.floats(0.0, 0.95), packed=st.booleans())
def test_a_scan_cut_short_anywhere_is_refused(share: float, packed: bool, tmp_path: Path) -> None:
    content = nifti().to_bytes()
    if packed:
        content = gzip.compress(content)
    path = tmp_path / f"cut.nii{'.gz' * packed}"
    path.write_bytes(content[: int(len(content) * share)])
    with pytest.raises(ScanError, match="Remedy"):
        read_scan(path)


def test_a_transposed_affine_is_refused() -> None:
    with pytest.raises(ScanError, match=r"last row .*transpose"):
        as_scan((np.random.default_rng(0).normal(size=SHAPE), OBLIQUE.T))


def test_the_brain_of_a_stripped_scan_is_what_is_not_zero(
    save_brain: SaveBrain, brain_data: np.ndarray, tmp_path: Path
) -> None:
    scan = read_scan(save_brain(tmp_path / "scan.nii.gz", brain_data))
    np.testing.assert_array_equal(brain_mask(scan), brain_data > 0)


@pytest.mark.parametrize(("voxel_mm", "fault"), [(14.0, "not skull-stripped"), (2.0, "too little brain")])
def test_a_volume_that_no_brain_has_is_refused(
    voxel_mm: float, fault: str, save_brain: SaveBrain, brain_data: np.ndarray, tmp_path: Path
) -> None:
    path = save_brain(tmp_path / "scan.nii.gz", brain_data, np.diag([voxel_mm, voxel_mm, voxel_mm, 1]))
    with pytest.raises(ScanError) as caught:
        brain_mask(read_scan(path))
    assert str(path) in str(caught.value) and fault in str(caught.value) and "Remedy: " in str(caught.value)


def test_a_mask_makes_a_whole_head_usable_and_is_itself_checked(
    save_brain: SaveBrain, brain_data: np.ndarray, tmp_path: Path
) -> None:
    head = np.pad(brain_data, 6) + np.random.default_rng(0).uniform(1, 50, [n + 12 for n in brain_data.shape])
    path = save_brain(tmp_path / "head.nii.gz", head)
    mask = save_brain(tmp_path / "mask.nii.gz", np.pad(brain_data > 0, 6).astype(np.uint8))
    empty = save_brain(tmp_path / "empty.nii.gz", np.zeros(head.shape, np.uint8))
    scan = read_scan(path)
    with pytest.raises(ScanError, match=r"--mask|skull"):
        brain_mask(scan)
    np.testing.assert_array_equal(brain_mask(scan, mask), np.pad(brain_data > 0, 6))
    with pytest.raises(ScanError, match=r"empty\.nii\.gz.*Remedy"):
        brain_mask(scan, empty)


def in_memory(kind: str, path: Path) -> Any:
    """The scan of a file, as a user has it."""
    image = load_image(path)
    forms = {"path": path, "text": str(path), "scan": read_scan(path), "image": image}
    return {**forms, "array": (np.asarray(image.dataobj), image.affine)}[kind]


class TestAsScan:
    @pytest.mark.parametrize("kind", ["path", "text", "scan", "image", "array"])
    def test_every_form_gives_the_scan_of_the_file(self, kind: str, tmp_path: Path) -> None:
        path = tmp_path / "sub-1_T2w.nii.gz"
        scaled().to_filename(path)
        scan, read = as_scan(in_memory(kind, path)), read_scan(path)
        np.testing.assert_array_equal(scan.data, read.data)
        np.testing.assert_array_equal(scan.affine, read.affine)
        assert scan.data.dtype == np.float32 and scan.content_hash == read.content_hash
        assert scan.path == (Path("array") if kind == "array" else path)
        assert as_scan(in_memory(kind, path), dtype=np.float64).data.dtype == np.float64

    @pytest.mark.parametrize("kind", ["scan", "image", "array"])
    def test_a_name_may_be_given_to_what_comes_from_memory(self, kind: str, tmp_path: Path) -> None:
        path = tmp_path / "a.nii"
        nifti().to_filename(path)
        assert as_scan(in_memory(kind, path), path="mine").path == Path("mine")

    def test_an_image_of_no_file_is_called_array(self) -> None:
        assert as_scan(nifti()).path == Path("array")

    @pytest.mark.parametrize(("array", "affine", "words"), [
        (np.zeros(SHAPE), OBLIQUE, "array: every voxel is 0"),
        (np.full(SHAPE, np.nan), OBLIQUE, "holds NaN or infinity in 210 voxels"),
        (values()[0], OBLIQUE, r"has shape \(6, 7\)"),
        (values() + 1j, OBLIQUE, "complex"),
        (values(), np.zeros((4, 4)), "singular"),
        (values(), np.eye(3), r"its affine has shape \(3, 3\)"),
    ])  # fmt: skip
    def test_what_is_wrong_is_named_as_in_a_file(self, array: np.ndarray, affine: np.ndarray, words: str) -> None:
        with pytest.raises(ScanError, match=words) as caught:
            as_scan((array, affine))
        assert caught.value.where == "array" and caught.value.remedy

    def test_what_is_no_scan_is_named(self) -> None:
        with pytest.raises(ScanError, match="ndarray is not a scan"):
            as_scan(values())  # type: ignore[arg-type]

    @pytest.mark.parametrize("kind", ["path", "image", "array"])
    def test_it_goes_back_to_nibabel_where_it_lay(self, kind: str, tmp_path: Path) -> None:
        path = tmp_path / "a.nii"
        nifti(sform=4, qform=1).to_filename(path)
        image = as_scan(in_memory(kind, path)).to_nibabel()
        np.testing.assert_array_equal(image.get_fdata(), load_image(path).get_fdata())
        for affine in (image.affine, image.get_sform(), image.get_qform()):
            np.testing.assert_allclose(affine, OBLIQUE, atol=1e-5)
        codes = (int(image.header["sform_code"]), int(image.header["qform_code"]))
        assert codes == ((2, 2) if kind == "array" else (4, 1)) and image.header.get_xyzt_units()[0] == "mm"

    def test_an_array_is_written_where_it_lies(self, tmp_path: Path) -> None:
        scan = as_scan((values(), OBLIQUE))
        write_like(scan, scan.data, tmp_path / "b.nii.gz")
        assert read_scan(tmp_path / "b.nii.gz").content_hash == scan.content_hash


class TestContentHash:
    def test_name_compression_and_stored_type_do_not_count(self, tmp_path: Path) -> None:
        names = {"a.nii": np.int16, "b.nii.gz": np.float32, "c.nii": np.float64}
        for name, dtype in names.items():
            nib.Nifti1Image(values(dtype=dtype), OBLIQUE).to_filename(tmp_path / name)
        nib.Nifti2Image(values(), OBLIQUE).to_filename(tmp_path / "e.nii")
        assert len({read_scan(path).content_hash for path in tmp_path.iterdir()}) == 1

    def test_memory_order_does_not_count_and_it_is_kept(self) -> None:
        scan = as_scan((np.asfortranarray(values()), OBLIQUE))
        assert scan.content_hash == as_scan((values(), OBLIQUE)).content_hash
        assert scan.content_hash is scan.content_hash

    @pytest.mark.parametrize("change", ["voxel", "affine", "shape"])
    def test_what_the_scan_shows_counts(self, change: str) -> None:
        data, affine = values(), OBLIQUE.copy()
        if change == "voxel":
            data[1, 2, 3] += 1
        elif change == "affine":
            affine[0, 3] += 0.5
        else:
            data = data.reshape(6, 5, 7)
        assert as_scan((data, affine)).content_hash != as_scan((values(), OBLIQUE)).content_hash


def test_a_scan_says_what_it_is_in_one_line() -> None:
    scan = as_scan((values(), np.diag([-0.7, 0.7, 2.5, 1])), path="data/sub-01_T2w.nii.gz")
    assert repr(scan) == "Scan(sub-01_T2w: 5×6×7 at 0.7×0.7×2.5 mm, LAS)"
