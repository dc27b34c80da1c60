"""Files: damage is refused and never read as another scan, bombs are refused unread, what is no scan is named."""

from __future__ import annotations

import gzip
import os
import struct
import subprocess
import sys
import zipfile
from collections.abc import Callable
from io import BytesIO
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest

from anofield.data.scan import as_scan, read_geometry, read_scan
from anofield.errors import ScanError

AFFINE = nib.affines.from_matvec(np.diag([-1.5, 2.0, 3.0]), (11.0, -7.0, 5.0))
VOXELS = np.random.default_rng(0).integers(0, 900, (11, 12, 13)).astype(np.int16)


def raw(kind: type = nib.Nifti1Image, data: np.ndarray = VOXELS) -> bytes:
    """An image, not compressed."""
    content: bytes = kind(data, AFFINE).to_bytes()
    return content


def patched(offset: int, value: bytes, content: bytes | None = None) -> bytes:
    content = raw() if content is None else content
    return content[:offset] + value + content[offset + len(value) :]


def members(content: bytes, count: int = 3) -> bytes:
    step = -(-len(content) // count)
    return b"".join(gzip.compress(content[at : at + step], mtime=0) for at in range(0, len(content), step))


def put(path: Path, content: bytes) -> Path:
    path.write_bytes(content)
    return path


PACKED: dict[str, tuple[str, bytes]] = {
    "one member": ("a.nii.gz", gzip.compress(raw(), mtime=0)),
    "members": ("a.nii.gz", members(raw())),
    "stored": ("a.nii.gz", gzip.compress(raw(), 0, mtime=0)),
    "zeros behind": ("a.nii.gz", gzip.compress(raw(), mtime=0) + bytes(500)),
    "nifti-2": ("a.nii.gz", gzip.compress(raw(nib.Nifti2Image), mtime=0)),
    "mgz": ("a.mgz", gzip.compress(raw(nib.MGHImage), mtime=0)),
}


class TestDamage:
    @pytest.mark.parametrize("kind", PACKED)
    def test_a_flipped_bit_of_a_compressed_file_never_gives_another_scan(self, kind: str, tmp_path: Path) -> None:
        name, content = PACKED[kind]
        clean, generator = read_scan(put(tmp_path / name, content)), np.random.default_rng(1)
        refused = 0
        for place in generator.integers(len(content) * 8, size=300):
            damaged = bytearray(content)
            damaged[place // 8] ^= 1 << place % 8
            try:
                scan = read_scan(put(tmp_path / name, bytes(damaged)))
            except ScanError as error:
                refused += 1
                assert str(tmp_path / name) in str(error) and error.remedy
            else:
                np.testing.assert_array_equal(scan.data, clean.data)
                np.testing.assert_array_equal(scan.affine, clean.affine)
                assert scan.header == clean.header
        assert refused > 200

    @pytest.mark.parametrize("kind", [*PACKED, "plain", "mgh"])
    def test_a_file_that_ends_early_is_refused_wherever_it_ends(self, kind: str, tmp_path: Path) -> None:
        plain = {"plain": ("a.nii", raw()), "mgh": ("a.mgh", patched(0, b"", raw(nib.MGHImage))[: 284 + VOXELS.nbytes])}
        name, content = {**PACKED, **plain}[kind]
        end = len(content.rstrip(b"\0")) if kind == "zeros behind" else len(content)
        generator = np.random.default_rng(2)
        for length in {*range(40), *generator.integers(end, size=60).tolist(), *range(end - 20, end)}:
            with pytest.raises(ScanError, match="Remedy"):
                read_scan(put(tmp_path / name, content[:length]))

    def test_the_checksum_is_named(self, tmp_path: Path) -> None:
        content = bytearray(PACKED["stored"][1])
        content[2000] ^= 1
        with pytest.raises(ScanError, match=r"checksum does not match.*Remedy: copy or download it again"):
            read_scan(put(tmp_path / "a.nii.gz", bytes(content)))

    def test_an_image_of_nibabel_that_is_not_read_yet_is_checked_too(self, tmp_path: Path) -> None:
        content = bytearray(PACKED["stored"][1])
        content[2000] ^= 1
        with pytest.raises(ScanError, match="checksum"):
            as_scan(nib.load(put(tmp_path / "a.nii.gz", bytes(content))))  # type: ignore[arg-type]

    @pytest.mark.parametrize("count", [1, 7, 4096, 10**6])
    def test_zeros_may_follow(self, count: int, tmp_path: Path) -> None:
        clean = read_scan(put(tmp_path / "a.nii", raw())).content_hash
        for name, content in {
            "b.nii": raw() + bytes(count),
            "c.nii.gz": gzip.compress(raw()) + bytes(count),
            "d.nii.gz": gzip.compress(raw() + bytes(count)),
            "e.nii.gz": gzip.compress(raw()[:999]) + bytes(count) + gzip.compress(raw()[999:]),
        }.items():
            assert read_scan(put(tmp_path / name, content)).content_hash == clean

    @pytest.mark.parametrize("garbage", [b"\x17GARBAGE", bytes(4096) + b"x", b"\x1f\x8bGARBAGE", b"\x1f"])
    def test_nothing_else_may_follow(self, garbage: bytes, tmp_path: Path) -> None:
        for name, content in {
            "b.nii": raw() + garbage,
            "c.nii.gz": gzip.compress(raw()) + garbage,
            "d.nii.gz": gzip.compress(raw() + garbage),
            "e.nii.gz": gzip.compress(raw()) + gzip.compress(garbage),
        }.items():
            with pytest.raises(ScanError, match="Remedy"):
                read_scan(put(tmp_path / name, content))

    def test_tags_may_follow_the_voxels_of_mgh(self, tmp_path: Path) -> None:
        path = put(tmp_path / "a.mgz", gzip.compress(raw(nib.MGHImage) + b"\0\0\0\3mri_convert a b" * 50))
        np.testing.assert_array_equal(read_scan(path).data, VOXELS)


NAMES = {
    "a.nii.gz": raw(),  # not compressed, as its name says
    "a.nii": gzip.compress(raw()),  # compressed, as its name does not say
    "A.NII.GZ": gzip.compress(raw()),
    "a.nii.nii.gz": gzip.compress(raw()),
    "a.mgz": gzip.compress(raw(nib.MGHImage)),
    "a.mgh": gzip.compress(raw(nib.MGHImage)),
    "b.mgz": raw(nib.MGHImage),
    "be.nii": nib.Nifti1Image(VOXELS, AFFINE, nib.Nifti1Header(endianness=">")).to_bytes(),
    "five.nii": raw(data=VOXELS[..., None, None]),
    "offset.nii": patched(108, struct.pack("<f", 360), raw()[:352] + bytes(8) + raw()[352:]),
}


@pytest.mark.parametrize("name", NAMES)
def test_the_content_counts_not_the_name(name: str, tmp_path: Path) -> None:
    clean = read_scan(put(tmp_path / "clean.nii.gz", gzip.compress(raw())))
    scan = read_scan(put(tmp_path / name, NAMES[name]))
    assert scan.content_hash == clean.content_hash
    np.testing.assert_allclose(scan.affine, clean.affine, atol=1e-5)
    assert read_geometry(tmp_path / name).shape[:3] == VOXELS.shape


def test_unsigned_16_bit_of_mgh_is_read(tmp_path: Path) -> None:
    content = patched(20, struct.pack(">i", 10), raw(nib.MGHImage))
    high = patched(284, b"\xff\xfe", content)
    assert read_scan(put(tmp_path / "a.mgz", gzip.compress(high))).data[0, 0, 0] == 65534


@pytest.mark.parametrize(
    ("offset", "value", "words"),
    [(20, struct.pack(">i", 7), "MGH type 7"), (28, b"\0\0", "goodRASFlag is 0"), (4, bytes(4), "shape")],
)
def test_an_mgh_file_that_cannot_be_used_is_refused_by_its_fault(
    offset: int, value: bytes, words: str, tmp_path: Path
) -> None:
    path = put(tmp_path / "a.mgz", gzip.compress(patched(offset, value, raw(nib.MGHImage))))
    with pytest.raises(ScanError, match=f"{words}.*Remedy"):
        read_scan(path)


class TestPair:
    @pytest.mark.parametrize("packed", [False, True])
    @pytest.mark.parametrize("upper", [False, True])
    @pytest.mark.parametrize("given", [".hdr", ".img"])
    def test_either_file_names_the_scan(self, given: str, upper: bool, packed: bool, tmp_path: Path) -> None:
        nib.Nifti1Pair(VOXELS, AFFINE).to_filename(tmp_path / "a.hdr")
        for suffix in (".hdr", ".img"):
            content = (tmp_path / f"a{suffix}").read_bytes()
            name = f"S{suffix.upper() if upper else suffix}{'.gz' * packed}"
            put(tmp_path / name, gzip.compress(content) if packed else content)
        scan = read_scan(tmp_path / f"S{given.upper() if upper else given}{'.gz' * packed}")
        np.testing.assert_array_equal(scan.data, VOXELS)

    @pytest.mark.parametrize("suffix", [".hdr", ".img"])
    def test_a_flipped_bit_of_either_is_found(self, suffix: str, tmp_path: Path) -> None:
        nib.Nifti1Pair(VOXELS, AFFINE).to_filename(tmp_path / "a.hdr")
        for name in ("a.hdr", "a.img"):
            put(tmp_path / f"{name}.gz", gzip.compress((tmp_path / name).read_bytes(), 0, mtime=0))
        content = bytearray((tmp_path / f"a{suffix}.gz").read_bytes())
        content[200] ^= 1
        put(tmp_path / f"a{suffix}.gz", bytes(content))
        with pytest.raises(ScanError, match=f"{suffix}.gz.*checksum"):
            read_scan(tmp_path / "a.hdr.gz")

    def test_one_alone_is_no_scan(self, tmp_path: Path) -> None:
        nib.Nifti1Pair(VOXELS, AFFINE).to_filename(tmp_path / "a.hdr")
        (tmp_path / "a.img").rename(tmp_path / "b.img")
        with pytest.raises(ScanError, match=r"voxels are missing \(a\.img\)"):
            read_scan(tmp_path / "a.hdr")
        with pytest.raises(ScanError, match=r"b\.hdr: no such file"):
            read_scan(tmp_path / "b.img")
        with pytest.raises(ScanError, match="header of a pair"):
            read_scan(put(tmp_path / "c.nii", (tmp_path / "a.hdr").read_bytes()))

    def test_analyze_is_refused_because_it_has_no_sides(self, tmp_path: Path) -> None:
        nib.AnalyzeImage(VOXELS, None).to_filename(tmp_path / "a.hdr")
        with pytest.raises(ScanError, match=r"Analyze 7\.5.*left and right"):
            read_scan(tmp_path / "a.hdr")


def archive() -> bytes:
    content = BytesIO()
    with zipfile.ZipFile(content, "w") as file:
        file.writestr("a.nii", raw())
    return content.getvalue()


NO_SCANS = {
    "annex": (b"/annex/objects/MD5E-s123--0000.nii.gz\n", "git-annex pointer", "git annex get"),
    "annex link": (b"../../.git/annex/objects/x/y/MD5E-s1--0.nii.gz", "git-annex pointer", "git annex get"),
    "lfs": (b"version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 12\n", "Git LFS pointer", "git lfs pull"),
    "html": (b"\n<!DOCTYPE html><html>Sign in</html>", "HTML", "download it again"),
    "xml": (b'<?xml version="1.0"?><Error><Code>AccessDenied</Code></Error>', "XML", "download it again"),
    "json": (b'{"error": "not found"}', "JSON", "download it again"),
    "dicom": (bytes(128) + b"DICM" + bytes(400), "DICOM", "dcm2niix"),
    "zip": (archive(), "ZIP", "unpack"),
    "tar": (b"a.nii".ljust(257, b"\0") + b"ustar\0" + bytes(250), "tar", "unpack"),
    "bzip2": (b"BZh91AY&SY" + bytes(99), "bzip2", "bunzip2"),
    "numpy": (b"\x93NUMPY\1\0" + bytes(99), "NumPy", "affine"),
    "macos": (b"\0\5\x16\7" + bytes(99), "macOS", "delete"),
    "zeros": (bytes(4096), "zeros", "copy"),
    "empty": (b"", "is empty", "copy"),
    "text": (b"subject,age\n1,2\n", "is text", "scan"),
}


@pytest.mark.parametrize("suffix", [".nii.gz", ".nii", ".mgz", ".mgh", ".hdr"])
@pytest.mark.parametrize("kind", NO_SCANS)
def test_what_is_no_scan_is_called_by_its_name(kind: str, suffix: str, tmp_path: Path) -> None:
    content, what, remedy = NO_SCANS[kind]
    path = put(tmp_path / f"a{suffix}", content)
    with pytest.raises(ScanError) as caught:
        read_scan(path)
    assert caught.value.where == str(path)
    assert what in caught.value.what and remedy in caught.value.remedy
    if content:
        with pytest.raises(ScanError, match=what):
            read_scan(put(path, gzip.compress(content)))


def test_links_and_what_is_no_file_are_named(tmp_path: Path) -> None:
    for name, target, what in (
        ("a.nii.gz", "../.git/annex/objects/X/Y/none.nii.gz", "link of git-annex"),
        ("b.nii.gz", "gone/none.nii.gz", r"broken link \(to gone"),
        ("c.nii.gz", "c.nii.gz", "link"),
    ):
        (tmp_path / name).symlink_to(target)
        with pytest.raises(ScanError, match=what):
            read_scan(tmp_path / name)
    os.mkfifo(tmp_path / "pipe.nii")
    for name, what in ((".", "is a folder"), ("pipe.nii", "no such file"), ("gone.nii", "no such file")):
        with pytest.raises(ScanError, match=what):
            read_scan(tmp_path / name)
    (tmp_path / "good.nii").symlink_to(put(tmp_path / "d.nii", raw()))
    assert read_scan(tmp_path / "good.nii").data.shape == VOXELS.shape


def dims(*numbers: int) -> Callable[[], bytes]:
    return lambda: patched(40, struct.pack(f"<{len(numbers)}h", *numbers))


def at(offset: int, form: str, *values: float) -> Callable[[], bytes]:
    return lambda: patched(offset, struct.pack(form, *values))


HOSTILE: dict[str, tuple[Callable[[], bytes], str]] = {
    "no axes": (dims(0), "0 axes"),
    "eight axes": (dims(8), "8 axes"),
    "negative": (dims(3, -5, 12, 13), "shape"),
    "zero": (dims(3, 0, 12, 13), "shape"),
    "huge": (dims(3, 32767, 32767, 32767), "larger than"),
    "larger than the file": (dims(3, 11, 12, 14), "bytes"),
    "smaller than the file": (dims(3, 11, 12, 12), "more than zeros follow"),
    "4-D": (dims(4, 11, 12, 13, 2), "3-D"),
    "offset NaN": (at(108, "<f", float("nan")), "byte nan"),
    "offset behind the file": (at(108, "<f", 4e6), "bytes"),
    "offset absurd": (at(108, "<f", 1e30), "byte 1e"),
    "offset in the header": (at(108, "<f", 100), "byte 100"),
    "bits": (at(72, "<h", 8), "8 bits per voxel, but int16"),
    "type": (at(70, "<h", 77), "unknown type of voxels"),
    "one bit": (at(70, "<hh", 1, 1), "cannot be used"),
    "float128": (at(70, "<hh", 1536, 128), "cannot be used"),
    "complex": (at(70, "<hh", 32, 64), "complex"),
    "colours": (at(70, "<hh", 128, 24), "colours"),
    "intercept": (at(112, "<ff", 0.5, float("nan")), "adds nan"),
    "sform NaN": (at(280, "<f", float("nan")), "sform holds NaN"),
    "sform flat": (at(280, "<12f", *[0] * 12), "sform is singular"),
    "sform far": (at(292, "<f", 1e30), "kilometre"),
    "no codes": (at(252, "<hh", 0, 0), "orientation is unknown"),
    "codes that do not exist": (at(252, "<hh", 213, -7), "orientation is unknown"),
}


@pytest.mark.parametrize("packed", [False, True])
@pytest.mark.parametrize("kind", HOSTILE)
def test_a_header_that_lies_is_refused_by_its_fault(kind: str, packed: bool, tmp_path: Path) -> None:
    make, words = HOSTILE[kind]
    content = make()
    path = put(tmp_path / "a.nii.gz", gzip.compress(content) if packed else content)
    with pytest.raises(ScanError, match="Remedy") as caught:
        read_scan(path)
    assert words in caught.value.what or (packed and kind in {"larger than the file", "offset behind the file"})
    assert caught.value.where == str(path)


@pytest.mark.parametrize("size", [0, -1, 8, 2**31 - 1])
def test_the_chain_of_extensions_is_not_followed(size: int, tmp_path: Path) -> None:
    content = raw()
    extension = b"\1\0\0\0" + struct.pack("<ii", size, 6) + bytes(8)
    content = patched(108, struct.pack("<f", 368), content[:348] + extension + content[352:])
    np.testing.assert_array_equal(read_scan(put(tmp_path / "a.nii", content)).data, VOXELS)


@pytest.mark.slow
def test_bombs_are_refused_without_their_memory(tmp_path: Path) -> None:
    zeros = gzip.compress(bytes(2**24), 9)
    small = gzip.compress(raw())
    put(tmp_path / "small.nii.gz", small + zeros * 250)  # 4 GB behind a scan of 4 kB
    put(tmp_path / "offset.nii.gz", gzip.compress(patched(108, struct.pack("<f", 3e9))) + zeros * 250)
    put(tmp_path / "shape.nii.gz", gzip.compress(dims(3, 2000, 2000, 900)()[:352]) + zeros * 250)
    put(tmp_path / "zeros.nii.gz", gzip.compress(dims(3, 800, 800, 400)()[:352]) + zeros * 31)  # as it says, no brain
    put(tmp_path / "empty.nii.gz", gzip.compress(dims(3, 800, 800, 800)()))  # holds nothing of what it describes
    put(tmp_path / "sparse.nii", dims(3, 800, 800, 800)())
    code = (
        "import resource, sys, pathlib\n"
        "from anofield.data.scan import read_scan\n"
        "from anofield.errors import ScanError\n"
        "peak = lambda: resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024\n"
        "before = peak()\n"
        "for path in sorted(pathlib.Path(sys.argv[1]).iterdir()):\n"
        "    try: read_scan(path); print('read', path)\n"
        "    except ScanError as error: pass\n"
        "print(int(peak() - before))\n"
    )
    done = subprocess.run([sys.executable, "-c", code, str(tmp_path)], capture_output=True, text=True, check=True)
    assert int(done.stdout) < 100  # MiB


def test_intensities_beyond_the_type_are_named_and_not_called_infinite(tmp_path: Path) -> None:
    data = VOXELS.astype(np.float64)
    data[3, 4, 5] = 1e300
    path = put(tmp_path / "a.nii", raw(data=data))
    with pytest.raises(ScanError, match=r"up to 1e\+300, beyond the range of float32"):
        read_scan(path)
    assert read_scan(path, dtype=np.float64).data.max() == 1e300
    with pytest.raises(ScanError, match="beyond the range"):
        as_scan((data, AFFINE))


def test_what_does_not_fit_into_memory_is_refused_before_it_is_read(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("anofield.data.volume.free_memory", lambda: 1000.0)
    with pytest.raises(ScanError, match="does not fit into memory"):
        read_scan(put(tmp_path / "a.nii", raw()))
