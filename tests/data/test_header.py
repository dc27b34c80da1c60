"""Headers: odd ones that other programs read give the same place, and nothing but geometry is written from them."""

from __future__ import annotations

import struct
from collections.abc import Callable
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
import pytest

from anofield.data.check import check_case
from anofield.data.cohort.case import Case
from anofield.data.prepare import prepare_case
from anofield.data.recipe import Recipe
from anofield.data.scan import as_scan, read_scan, write_like
from anofield.errors import ScanError
from images import load_image

TURN = nib.eulerangles.euler2mat(0.3, 0.2, 0.1)
AFFINE = nib.affines.from_matvec(TURN @ np.diag([-7.0, 7.0, 7.0]), (80.0, -95.0, -70.0))
RECIPE = Recipe(resolution=32, centers=(0.0, 0.2, 0.35, 0.4, 0.45, 0.6))
Change = Callable[[bytearray], None]


def content(
    data: np.ndarray, codes: tuple[int, int] = (1, 1), kind: Any = nib.Nifti1Image, affine: Any = AFFINE
) -> Any:
    image = kind(data, affine, dtype=data.dtype)
    image.set_sform(affine, codes[0])
    image.set_qform(affine, codes[1])
    return bytearray(image.to_bytes())


def floats(offset: int, *values: float) -> Change:
    return lambda raw: struct.pack_into(f"<{len(values)}f", raw, offset, *values)


def byte(offset: int, value: int) -> Change:
    return lambda raw: raw.__setitem__(offset, value)


NAN = float("nan")
HEADERS: dict[str, tuple[tuple[int, int], Change]] = {  # codes of sform and qform, and what is odd
    "qform NaN": ((1, 1), floats(256, NAN)),
    "qform far": ((1, 1), floats(268, 1e30)),
    "quaternion too long": ((1, 1), floats(256, 0.8, 0.7, 0.3)),
    "quaternion unknown": ((1, 0), floats(256, NAN, NAN, NAN)),
    "voxel size 0": ((1, 1), floats(80, 0, 0, 0)),
    "voxel size NaN": ((1, 1), floats(80, NAN, 7, 7)),
    "qfac 0": ((1, 1), floats(76, 0)),
    "sform unused": ((0, 1), floats(280, *[NAN] * 12)),
    "metres": ((1, 1), byte(123, 1)),
    "units unknown": ((1, 1), byte(123, 255)),
    "slope 0": ((1, 1), floats(112, 0, 0)),
    "slope NaN": ((1, 1), floats(112, NAN, NAN)),
    "slope infinite": ((1, 1), floats(112, float("inf"), 0)),
}


@pytest.mark.parametrize("kind", HEADERS)
def test_an_odd_header_gives_the_same_scan_and_a_sound_result(
    kind: str, brain_data: np.ndarray, tmp_path: Path
) -> None:
    data = brain_data.astype(np.int16)
    (tmp_path / "clean.nii").write_bytes(content(data))
    codes, change = HEADERS[kind]
    raw = content(data, codes)
    change(raw)
    path = tmp_path / "odd.nii"
    path.write_bytes(raw)
    clean, scan = read_scan(tmp_path / "clean.nii"), read_scan(path)
    np.testing.assert_array_equal(scan.data, clean.data)
    np.testing.assert_allclose(scan.affine, clean.affine, atol=1e-4)
    write_like(scan, scan.data, tmp_path / "result.nii")
    result = load_image(tmp_path / "result.nii")
    np.testing.assert_allclose(result.affine, AFFINE, atol=1e-4)
    np.testing.assert_allclose(result.header.get_qform(), AFFINE, atol=1e-4)
    np.testing.assert_allclose(result.header.get_zooms(), (7, 7, 7), atol=1e-4)
    assert (int(result.header["sform_code"]), int(result.header["qform_code"])) == codes


STORED: dict[str, Callable[[np.ndarray], Any]] = {  # other ways to store the same brain
    "uint8": lambda data: content(np.rint(data * (255 / data.max())).astype(np.uint8)),
    "uint16 above 32767": lambda data: content((data * 200).astype(np.uint16)),
    "int64": lambda data: content(data.astype(np.int64)),
    "float64": lambda data: content(data.astype(np.float64)),
    "tiny unit": lambda data: content((data * 1e-9).astype(np.float32)),
    "huge unit": lambda data: content((data * 1e12).astype(np.float32)),
    "mean 0": lambda data: content(np.where(data, (data - 200.5) / 30, 0).astype(np.float32)),
    "mean 0, whole numbers": lambda data: content(np.where(data, np.rint((data - 200.5) * 30), 0).astype(np.int16)),
    "mean 0 over all": lambda data: content(((data - data.mean()) / data.std()).astype(np.float32)),
    "around -1024": lambda data: content(np.where(data, data, -1024).astype(np.int16)),
    "around NaN": lambda data: content(np.where(data, data, NAN).astype(np.float32)),
    "other axes": lambda data: content(
        data.transpose(1, 2, 0)[:, ::-1],
        affine=AFFINE @ np.array([[0, 0, 1, 0], [1, 0, 0, 0], [0, -1, 0, data.shape[2] - 1], [0, 0, 0, 1.0]]),
    ),
    "nifti-2": lambda data: content(data.astype(np.int16), kind=nib.Nifti2Image),
}


@pytest.mark.parametrize("kind", STORED)
def test_however_a_brain_is_stored_its_classes_are_the_same(kind: str, brain_data: np.ndarray, tmp_path: Path) -> None:
    data = np.rint(brain_data)
    for name, raw in (("clean.nii", content(data.astype(np.int16))), ("odd.nii", STORED[kind](data))):
        (tmp_path / name).write_bytes(raw)
    clean, odd = (prepare_case(Case("a", tmp_path / name), RECIPE) for name in ("clean.nii", "odd.nii"))
    np.testing.assert_allclose(odd.lattice.affine, clean.lattice.affine, atol=1e-3)
    differ = np.count_nonzero(odd.classes != clean.classes) / np.count_nonzero(clean.brain)
    assert differ <= (0.02 if kind == "uint8" else 1e-3)


class TestQuaternion:
    @pytest.mark.parametrize("kind", [nib.Nifti1Image, nib.Nifti2Image])
    @pytest.mark.parametrize("excess", [1e-7, 1e-5, 5e-4])
    def test_one_that_rounding_made_too_long_is_a_half_turn(
        self, excess: float, kind: Any, brain_data: np.ndarray, tmp_path: Path
    ) -> None:
        turn = nib.quaternions.quat2mat([0, 0.6, 0.8, 0])  # half a turn: b² + c² + d² is 1
        affine = nib.affines.from_matvec(turn * 7.0, (-80.0, -95.0, -70.0))
        raw = content(brain_data, (0, 1), kind, affine)
        header = kind.header_class(bytes(raw[: kind.header_class.sizeof_hdr]))
        for name, value in (("quatern_b", 0.6), ("quatern_c", 0.8)):
            header[name] = value * np.sqrt(1 + excess)
        raw[: len(header.binaryblock)] = header.binaryblock
        (tmp_path / "a.nii").write_bytes(raw)
        scan = read_scan(tmp_path / "a.nii")
        np.testing.assert_allclose(scan.affine, affine, atol=1e-4)
        write_like(scan, scan.data, tmp_path / "result.nii")
        np.testing.assert_allclose(load_image(tmp_path / "result.nii").affine, affine, atol=1e-4)

    @pytest.mark.parametrize("numbers", [(0.8, 0.7, 0.3), (NAN, 0, 0), (float("inf"), 0, 0), (0.8, 0.61, 0)])
    def test_one_that_is_none_is_refused_if_nothing_else_says_how_the_scan_lies(
        self, numbers: tuple[float, ...], brain_data: np.ndarray, tmp_path: Path
    ) -> None:
        raw = content(brain_data, (0, 1))
        floats(256, *numbers)(raw)
        (tmp_path / "a.nii").write_bytes(raw)
        with pytest.raises(ScanError, match=r"qform is no rotation .*Remedy: repair"):
            read_scan(tmp_path / "a.nii")


def test_check_says_what_is_odd_about_a_header(brain_data: np.ndarray, tmp_path: Path) -> None:
    for kind, words in (
        ("quaternion too long", "qform cannot be read"),
        ("metres", "lengths in meters"),
        ("qfac 0", ""),
    ):
        codes, change = HEADERS[kind]
        raw = content(brain_data, codes)
        change(raw)
        (tmp_path / "a.nii").write_bytes(raw)
        row = check_case(Case("a", tmp_path / "a.nii"))
        assert not row.problems and bool(row.warnings) == bool(words) and words in " ".join(row.warnings)


SECRETS = (b"Jane Doe", b"1970-01-01", b"clinic", b"labels")


def telling(data: np.ndarray, kind: Any) -> Any:
    """An image whose header names a person in every place that holds text."""
    image = kind(data, AFFINE)
    image.set_qform(AFFINE, 1)
    for code, text in ((6, SECRETS[0] * 300), (1234, SECRETS[1] + bytes(40)), (2, b"\x08\x00\x05\x00")):
        image.header.extensions.append(nib.nifti1.Nifti1Extension(code, text))
    for name, text in (("descrip", SECRETS[0]), ("aux_file", SECRETS[2]), ("intent_name", SECRETS[3])):
        image.header[name] = text
    if kind is nib.Nifti1Image:
        image.header["db_name"], image.header["data_type"] = SECRETS[0], SECRETS[2]
    image.header["intent_code"], image.header["cal_max"], image.header["toffset"] = 1002, 77, 5
    return image


@pytest.mark.parametrize("kind", [nib.Nifti1Image, nib.Nifti2Image])
@pytest.mark.parametrize("source", ["file", "image", "scan"])
def test_nothing_of_a_header_but_its_geometry_is_written(
    source: str, kind: Any, brain_data: np.ndarray, tmp_path: Path
) -> None:
    path = tmp_path / "scan.nii"
    telling(brain_data, kind).to_filename(path)
    assert all(secret in path.read_bytes() for secret in SECRETS[:2])
    given: dict[str, Any] = {"file": path, "image": telling(brain_data, kind), "scan": read_scan(path)}
    scan = as_scan(given[source])
    write_like(scan, scan.data, tmp_path / "map.nii", description="anofield map")
    scan.to_nibabel().to_filename(tmp_path / "image.nii")
    bare = kind(scan.data, None).header
    for name in ("map.nii", "image.nii"):
        assert not any(secret in (tmp_path / name).read_bytes() for secret in SECRETS)
        header = load_image(tmp_path / name).header
        assert not header.extensions
        for field in ("aux_file", "intent_code", "intent_name", "cal_max", "toffset", "slice_code", "dim_info"):
            assert header[field] == bare[field], field
        assert bytes(header["descrip"].item()) == (b"anofield map" if name == "map.nii" else b"")
        np.testing.assert_allclose(load_image(tmp_path / name).affine, AFFINE, atol=1e-5)
