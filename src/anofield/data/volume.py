"""The voxels of a scan file: read in steps, scaled as nibabel scales them, no larger than the header says."""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import Any

import numpy as np
from nibabel.volumeutils import apply_read_scaling
from numpy.typing import NDArray

from anofield._files import file_hash
from anofield._memory import free_memory
from anofield.data.content import Content, damaged, open_content
from anofield.data.header import HEAD_BYTES, MOST_EXTENSIONS, Header, check_volume, read_header
from anofield.errors import ScanError
from anofield.typing import PathLike, Volume

STEP = 2**20  # voxels read at a time
MOST_VOXELS = 2**29  # 812³; the finest whole-brain scans, 0.25 mm, have 5·10⁸
PAIRS = {".hdr": ".img", ".img": ".hdr"}  # header and voxels in a file each
Float = type[np.floating[Any]]


def read_volume_header(path: Path) -> Header:
    """Read the header of a scan; see `read_volume` for the errors that concern it."""
    with open_content(header_file(path)) as content:
        return read_header(content.peek(HEAD_BYTES), content.path)


def read_volume(path: Path, dtype: Float) -> tuple[Header, Volume]:
    """Read header and voxels of a NIfTI-1, NIfTI-2 or MGH file, or of a pair `.hdr` and `.img`.

    The file is read to its end: the checksums of compressed files are verified, and the size of others must be that of
    the header. Memory: the voxels as `dtype`, and one step.

    Args:
        path: The file.
        dtype: Type of the result.

    Returns:
        The header, and the voxels (i, j, k) in Fortran order.

    Raises:
        ScanError: The file is missing, is no scan, is damaged, holds less or more than its header says, does not fit
            into memory, or its intensities do not fit into `dtype`.
    """
    with open_content(header_file(path)) as content:
        header = read_header(content.peek(HEAD_BYTES), content.path)
        if not header.apart:
            return header, _voxels(content, header, dtype)
        content.read_rest(MOST_EXTENSIONS, zeros=False)
    with open_content(_voxel_file(path)) as content:
        return header, _voxels(content, header, dtype)


def volume_hash(path: PathLike) -> str:
    """SHA-256 of the bytes of a scan, mask or label, hexadecimal; of a pair `.hdr` and `.img`, of both files."""
    path = Path(path)
    files = [path] if _kind(path) not in PAIRS else [path, _partner(path)]
    hashes = [file_hash(one) for one in files if one == path or one.is_file()]
    return hashes[0] if len(hashes) == 1 else hashlib.sha256("".join(hashes).encode()).hexdigest()


def header_file(path: Path) -> Path:
    """The file that holds the header: the scan itself, or the `.hdr` of an `.img`."""
    return _partner(path) if _kind(path) == ".img" else path


def to_float(values: NDArray[Any], dtype: Float, path: Path) -> NDArray[Any]:
    """Numbers as `dtype`, by way of a type that holds both, as nibabel does it.

    Raises:
        ScanError: A finite number becomes infinite.
    """
    wide = values.astype(np.promote_types(values.dtype, dtype), copy=False)
    with np.errstate(over="ignore"):
        cast: NDArray[Any] = wide.astype(dtype, copy=False)
    if wide.dtype != cast.dtype and (np.isinf(cast) & np.isfinite(wide)).any():
        largest = float(np.abs(wide[np.isfinite(wide)]).max())
        raise ScanError(
            f"holds intensities up to {largest:.3g}, beyond the range of {np.dtype(dtype).name}",
            where=path,
            why="no scanner measures that",
            remedy="find out which step made them; replace the voxels or give the scan another unit",
        )
    return cast


def _kind(path: Path) -> str:
    """Suffix without the one of gzip, in lower case."""
    name = path.name.lower().removesuffix(".gz")
    return name[-4:]


def _partner(path: Path) -> Path:
    """The other file of a pair, with the same spelling, or compressed where this one is not, or the other way."""
    packed = path.suffix.lower() == ".gz"
    name = path.name[: -len(path.suffix)] if packed else path.name
    other = PAIRS[name[-4:].lower()]
    beside = path.with_name(name[:-4] + (other.upper() if name[-4:].isupper() else other))
    zipped = beside.with_name(beside.name + (path.suffix if packed else ".gz"))
    found = [one for one in ((zipped, beside) if packed else (beside, zipped)) if one.is_file()]
    return found[0] if found else (zipped if packed else beside)


def _voxel_file(path: Path) -> Path:
    """The file that holds the voxels of a pair."""
    kind = _kind(path)
    if kind not in PAIRS:
        what = "is the header of a pair, whose voxels lie in an .img file"
        raise ScanError(what, where=path, remedy="name the pair .hdr and .img, or convert it to .nii.gz")
    voxels = path if kind == ".img" else _partner(path)
    if not voxels.is_file():
        remedy = "put the two files side by side, or convert them to .nii.gz where both are"
        raise ScanError(f"its voxels are missing ({voxels.name})", where=path, remedy=remedy)
    return voxels


def _voxels(content: Content, header: Header, dtype: Float) -> Volume:
    """Voxels (i, j, k) of an open file that stands at its start, which is then read to its end."""
    _judge(content, header, dtype)
    content.skip(header.offset)
    try:
        voxels = np.zeros(header.voxels, dtype)  # what is not written takes no memory
        for start in range(0, header.voxels, STEP):
            part = voxels[start : start + STEP]
            raw = content.read(part.size * header.dtype.itemsize)
            if len(raw) < part.size * header.dtype.itemsize:
                raise damaged("fewer voxels follow than its header says", content.path, why="the file is truncated")
            if header.scaling is not None or np.frombuffer(raw, np.uint8).any():
                part[:] = _scaled(np.frombuffer(raw, header.dtype), header, dtype, content.path)
    except MemoryError as error:
        raise _too_large(header, content.path) from error
    content.read_rest(header.behind, zeros=header.zeros_behind)
    return voxels.reshape(header.shape[:3], order="F")


def _judge(content: Content, header: Header, dtype: Float) -> None:
    """Refuse a header whose voxels are no scan, cannot be in the file, or not in memory."""
    check_volume(header.shape, content.path)
    if header.voxels > MOST_VOXELS:
        raise ScanError(
            f"its shape {header.shape} is larger than that of any head scan ({MOST_VOXELS} voxels)",
            where=content.path,
            remedy="check the shape in the header; resample the scan if it is really that large",
        )
    if header.end > content.most:
        what = f"its header describes {header.end} bytes, the file holds at most {content.most}"
        raise damaged(what, content.path, why="the file is truncated, or its header is wrong")
    if header.voxels * np.dtype(dtype).itemsize > free_memory():
        raise _too_large(header, content.path)


def _scaled(stored: NDArray[Any], header: Header, dtype: Float, path: Path) -> NDArray[Any]:
    """Intensities of stored numbers."""
    if header.scaling is not None:
        slope, inter = header.scaling
        with np.errstate(over="ignore"):
            stored = apply_read_scaling(stored, np.float64(slope), np.float64(inter))
    return to_float(stored, dtype, path)


def _too_large(header: Header, path: Path) -> ScanError:
    return ScanError(
        f"its shape {header.shape} does not fit into memory",
        where=path,
        remedy="check the shape in the header; resample the scan if it is really that large",
    )
