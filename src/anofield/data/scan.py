"""A scan: one 3-D array, its affine to RAS+ millimetres and the geometry of the file it came from."""

from __future__ import annotations

import hashlib
import zlib
from collections.abc import Iterable
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, TypeAlias

import nibabel as nib
import numpy as np

from anofield._files import replacing
from anofield._words import counted
from anofield.data.background import with_zero_background
from anofield.data.header import (
    Header,
    Nifti,
    check_affine,
    check_dtype,
    check_volume,
    geometry_of,
    new_geometry,
    unknown_orientation,
)
from anofield.data.volume import read_volume, read_volume_header, to_float
from anofield.errors import ScanError
from anofield.typing import Affine, FloatVolume, PathLike, Volume

IN_MEMORY = "array"  # name of a scan that does not come from a file
SUFFIXES = (".nii.gz", ".nii", ".mgz", ".mgh", ".hdr")  # in any mixture of capitals; .hdr has its voxels in .img
UNREADABLE = (  # errors of nibabel and its decompressors on files that are damaged or not scans
    nib.filebasedimages.ImageFileError,
    nib.spatialimages.HeaderDataError,
    OSError,
    EOFError,
    ValueError,
    TypeError,
    OverflowError,
    zlib.error,
)


@dataclass(frozen=True)
class Scan:
    """One volume in its own voxels.

    Attributes:
        data: Intensities, (i, j, k), in the order of the file; the background is 0 (`anofield.data.background`).
        affine: Voxel index → world, RAS+ mm, (4, 4).
        header: Geometry of the source: a NIfTI header with its shape, sform, qform, codes, voxel size and units, and
            nothing else of the source, which could identify a person.
        path: Path of the file; a name for a scan from memory.
    """

    data: Volume
    affine: Affine
    header: Nifti
    path: Path

    @property
    def spacing(self) -> tuple[float, float, float]:
        """Voxel edge lengths in mm."""
        i, j, k = np.linalg.norm(self.affine[:3, :3], axis=0)
        return float(i), float(j), float(k)

    @property
    def voxel_ml(self) -> float:
        """Volume of one voxel in millilitres."""
        return float(abs(np.linalg.det(self.affine[:3, :3]))) / 1000.0

    @cached_property
    def content_hash(self) -> str:
        """SHA-256 of the scan's content: float32 voxels in RAS order and their affine, to 0.001 mm.

        The file's name, compression, stored type and order of axes do not count.
        """
        affine = self.affine @ nib.orientations.inv_ornt_aff(nib.io_orientation(self.affine), self.data.shape)
        digest = self._voxel_digest()
        digest.update((np.round(affine, 3) + 0.0).astype("<f4").tobytes())  # + 0: −0 is 0
        return str(digest.hexdigest())

    @property
    def voxel_hash(self) -> str:
        """SHA-256 of the float32 voxels in RAS order; like `content_hash`, but wherever they lie."""
        return str(self._voxel_digest().hexdigest())

    def _voxel_digest(self) -> Any:
        return voxel_digest(nib.apply_orientation(self.data, nib.io_orientation(self.affine)))

    def __repr__(self) -> str:
        where = f"{format_spacing(self.spacing)} mm, {orientation(self.affine)}"
        return f"Scan({stem(self.path)}: {format_shape(self.data.shape)} at {where})"

    def like(self, data: Volume) -> Scan:
        """Another volume (i, j, k) on the same voxels."""
        return Scan(data, self.affine, self.header, self.path)

    def to_nibabel(self) -> Any:
        """The scan as a nibabel image with the geometry of its source: sform, qform, codes, voxel size and units.

        Nothing else of the source's header is kept: no extensions, no names, no description, no intent.
        """
        return _image_like(self, self.data)


Source: TypeAlias = PathLike | Scan | nib.spatialimages.SpatialImage | tuple[Volume, Affine]


def stem(path: PathLike) -> str:
    """File name without folder and scan suffix: `a/sub-1_T2w.nii.gz` → `sub-1_T2w`; a doubled suffix goes as well.

    >>> stem("a/sub-1_T2w.NII.GZ"), stem("b.nii.nii.gz"), stem("c.img"), stem("notes.txt")
    ('sub-1_T2w', 'b', 'c', 'notes.txt')
    """
    name = Path(path).name
    while end := next((end for end in (*SUFFIXES, ".img") if name.lower().endswith(end) and len(name) > len(end)), ""):
        name = name[: -len(end)]
    return name


def is_scan_name(path: PathLike) -> bool:
    """Whether a file is named like a scan: it has one of `SUFFIXES`, in capitals or not."""
    return Path(path).name.lower().endswith(SUFFIXES)


def read_scan(path: PathLike, *, dtype: type[np.floating[Any]] = np.float32) -> Scan:
    """Read and check a scan.

    The file is read to its end and its checksums are verified. A background of another value, NaN or infinity becomes 0
    (`anofield.data.background`).

    Args:
        path: NIfTI-1, NIfTI-2 or MGH file, 3-D (a trailing axis of length one is dropped).
        dtype: Type of the data; the published recipes need `numpy.float64`, everything else takes float32.

    Raises:
        ScanError: The file is missing, no scan, damaged, not 3-D, its orientation is unknown, it holds NaN or infinity
            in the brain, is constant, or its affine is singular.
    """
    path = Path(path)
    header, data = read_volume(path, dtype)
    return _checked(Scan(data, header.affine, header.geometry, path))


def as_scan(source: Source, *, path: PathLike | None = None, dtype: type[np.floating[Any]] = np.float32) -> Scan:
    """A checked scan from a file or from memory.

    Args:
        source: A path, a `Scan`, a nibabel image, or an array (i, j, k) with its affine (voxel index → world, RAS+ mm).
        path: Name of a scan from memory; by default the image's file, or `array`.
        dtype: Type of the data, as in `read_scan`.

    Raises:
        ScanError: The scan cannot be used (see `read_scan`), or the source is none of the four.
    """
    if isinstance(source, str | Path):
        return read_scan(source, dtype=dtype)
    if isinstance(source, Scan):
        name = Path(path or source.path)
        data, affine = _data(source.data, name, dtype, stored=source.data.dtype), _affine(source.affine, name)
        return _checked(Scan(data, affine, source.header, name))
    if isinstance(source, nib.spatialimages.SpatialImage):
        return _from_image(source, Path(path or source.get_filename() or IN_MEMORY), dtype)
    if not (isinstance(source, tuple) and len(source) == 2):
        what = f"{type(source).__name__} is not a scan"
        raise ScanError(what, remedy="give a path, a Scan, a nibabel image, or a pair (array, affine)")
    name, array = Path(path or IN_MEMORY), np.asarray(source[0])
    data, affine = _data(array, name, dtype, stored=array.dtype), _affine(source[1], name)
    return _checked(Scan(data, affine, new_geometry(affine, data.shape), name))


def read_geometry(path: PathLike) -> Header:
    """Read the header of a scan, not its voxels.

    Raises:
        ScanError: The file is missing or no scan, or its header cannot be used.
    """
    return read_volume_header(Path(path))


def voxels_of(source: Source | Volume, like: Scan) -> tuple[Volume, Affine, Path]:
    """Voxels (i, j, k), affine and name of a map in any form, unchecked; a plain array has the affine of `like`.

    Raises:
        ScanError: The file is missing or unreadable, not 3-D, or its affine is singular.
    """
    if isinstance(source, str | Path):
        path = Path(source)
        image = _open(path)
        return _image_data(image, path), _affine(image.affine, path), path
    if isinstance(source, nib.spatialimages.SpatialImage):
        path = Path(source.get_filename() or IN_MEMORY)
        return _image_data(source, path), _affine(source.affine, path), path
    if isinstance(source, Scan):
        return source.data, source.affine, source.path
    array, affine = source if isinstance(source, tuple) and len(source) == 2 else (source, like.affine)
    path, array = Path(IN_MEMORY), np.asarray(array)
    return _data(array, path, np.float32, stored=array.dtype), _affine(affine, path), path


def read_map(path: PathLike, like: Scan) -> FloatVolume:
    """Read a score map (i, j, k) float32 that must lie on the voxels of `like`; it may be constant.

    Raises:
        ScanError: The file is missing or unreadable, holds NaN or infinity, or has another shape.
    """
    path = Path(path)
    data = _image_data(_open(path), path)
    if data.shape != like.data.shape or not np.isfinite(data).all():
        what = (
            "is not finite" if data.shape == like.data.shape else f"has shape {data.shape}, its scan {like.data.shape}"
        )
        raise ScanError(what, where=path, remedy="detect the case again with --force")
    return data


def write_like(scan: Scan, array: Volume, path: PathLike, *, description: str = "anofield") -> None:
    """Write an array on the voxels of `scan`, with its affine, sform, qform, their codes and units.

    Args:
        scan: The scan whose geometry the file takes.
        array: (i, j, k), same shape as the scan; its dtype is stored as it is.
        path: `.nii.gz` or `.nii`; written to a temporary name beside it, then renamed.

    Raises:
        MachineError: The folder cannot be written or the disk is full.
    """
    if array.shape != scan.data.shape:
        raise ValueError(f"array of shape {array.shape} on the voxels of a scan of shape {scan.data.shape}")
    with replacing(path) as partial:
        nib.save(_image_like(scan, array, description), partial)


def voxel_digest(data: Volume) -> Any:
    """SHA-256 object over the shape of a volume (i, j, k) and its voxels as float32, in Fortran order."""
    digest = hashlib.sha256(repr(data.shape).encode())
    digest.update(np.ascontiguousarray(data.T, dtype="<f4").data)  # no copy of what nibabel reads
    return digest


def orientation(affine: Affine) -> str:
    """Directions of the voxel axes, for example `RAS`."""
    return "".join(code or "?" for code in nib.aff2axcodes(affine))


def format_shape(shape: Iterable[object]) -> str:
    """Voxels per axis in words: `240×240×155`."""
    return "×".join(map(str, shape))


def format_spacing(spacing: Iterable[float]) -> str:
    """Voxel edges in words, to a hundredth: `0.7×0.7×2.5`."""
    return format_shape(f"{round(step, 2):g}" for step in spacing)


def _image_like(scan: Scan, array: Volume, description: str | None = None) -> Any:
    """A NIfTI image of an array on the voxels of a scan, with its geometry and nothing else of its header."""
    header = geometry_of(scan.header, scan.affine, array.shape)
    header.set_data_dtype(array.dtype)
    if description is not None:
        header["descrip"] = description.encode()[:79]
    kind: Any = nib.Nifti2Image if isinstance(header, nib.Nifti2Header) else nib.Nifti1Image
    return kind(array, scan.affine, header)  # keeps sform and qform if one of them is the affine


@dataclass(frozen=True)
class _File:
    """A scan file whose header was read; its voxels are read by `_image_data`."""

    path: Path
    header: Header

    @property
    def affine(self) -> Affine:
        """Voxel index → world, RAS+ mm, (4, 4)."""
        return self.header.affine


def _open(path: Path) -> _File:
    return _File(path, read_volume_header(path))


def _from_image(image: Any, path: Path, dtype: type[np.floating[Any]]) -> Scan:
    """A checked scan from an image of nibabel."""
    header = image.header
    if isinstance(header, nib.Nifti1Header) and not (header["sform_code"] or header["qform_code"]):
        raise unknown_orientation("sform and qform code are 0", path)
    data, affine = _image_data(image, path, dtype), _affine(image.affine, path)
    return _checked(Scan(data, affine, geometry_of(header, affine, data.shape), path))


def _image_data(image: Any, path: Path, dtype: type[np.floating[Any]] = np.float32) -> Volume:
    """Voxels (i, j, k) of an opened image; those that nibabel has not read yet are read from its file, and checked."""
    if isinstance(image, _File):
        return read_volume(image.path, dtype)[1]
    file = image.get_filename()
    if file and nib.is_proxy(image.dataobj) and isinstance(image, nib.Nifti1Pair | nib.freesurfer.mghformat.MGHImage):
        header, data = read_volume(Path(file), dtype)
        if header.shape == tuple(image.shape):
            return data
    return _data(image.dataobj, path, dtype, stored=np.dtype(image.get_data_dtype()))


def _data(voxels: Any, path: Path, dtype: type[np.floating[Any]], *, stored: np.dtype[Any]) -> Volume:
    """Voxels (i, j, k) of an array, or of nibabel's proxy of one, which is read from disk here."""
    shape = tuple(voxels.shape)
    check_volume(shape, path)
    check_dtype(stored, path)
    try:
        return to_float(np.asarray(voxels), dtype, path).reshape(shape[:3])
    except UNREADABLE as error:
        raise ScanError(
            f"its voxels cannot be read ({error})",
            where=path,
            why="the file is truncated or damaged",
            remedy="copy or convert it again",
        ) from error
    except MemoryError as error:
        raise ScanError(
            f"its shape {shape} does not fit into memory",
            where=path,
            remedy="check the shape in the header; resample the scan if it is really that large",
        ) from error


def _affine(given: Any, path: Path) -> Affine:
    return check_affine(given, path)


def _checked(scan: Scan) -> Scan:
    """The scan with 0 as its background, if its voxels are finite and not all the same."""
    data, path = with_zero_background(scan.data), scan.path
    low, high = float(data.min()), float(data.max())
    if not (np.isfinite(low) and np.isfinite(high)):
        bad = int(np.count_nonzero(~np.isfinite(data)))
        raise ScanError(
            f"holds NaN or infinity in {counted(bad, 'voxel')}",
            where=path,
            why="they would spread through every filter",
            remedy="replace them (`numpy.nan_to_num`) after finding out which step made them",
        )
    if low == high:
        raise ScanError(
            f"every voxel is {low:g}",
            where=path,
            why="there is nothing to see in it",
            remedy="check the conversion that wrote it",
        )
    return scan if data is scan.data else scan.like(data)
