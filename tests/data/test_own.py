"""What this package wrote is recognised by the first bytes of a file, whatever follows them."""

from __future__ import annotations

import gzip
import tracemalloc
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest

from anofield.data.cohort.own import is_result


@pytest.mark.parametrize("kind", [nib.Nifti1Image, nib.Nifti2Image])
@pytest.mark.parametrize(("text", "expected"), [(b"anofield anomaly", True), (b"anofield", False), (b"scan", False)])
def test_a_result_is_known_by_its_description(kind: type, text: bytes, expected: bool, tmp_path: Path) -> None:
    image = kind(np.zeros((2, 2, 2), np.uint8), np.eye(4))
    image.header["descrip"] = text
    for name in ("a.nii.gz", "a.nii"):
        nib.save(image, tmp_path / name)
        assert is_result(tmp_path / name) is expected


def test_extensions_that_unpack_without_end_are_not_read(tmp_path: Path) -> None:
    header = nib.Nifti1Header()
    header["vox_offset"], header["magic"] = 5e7, b"n+1"
    extension = b"\1\0\0\0" + (49_999_648).to_bytes(4, "little") + (6).to_bytes(4, "little")
    path = tmp_path / "bomb.nii.gz"
    path.write_bytes(gzip.compress(header.binaryblock + extension + bytes(50_000_000), 1))
    tracemalloc.start()
    assert not is_result(path)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak < 5_000_000


def test_what_is_no_volume_is_no_result(tmp_path: Path) -> None:
    (tmp_path / "a.nii.gz").write_bytes(b"text")
    assert not is_result(tmp_path / "a.nii.gz") and not is_result(tmp_path / "none.nii")
