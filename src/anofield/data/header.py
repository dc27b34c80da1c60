"""The header of a NIfTI-1, NIfTI-2 or MGH file, judged before anything is allocated, and the geometry kept of it.

Formats: https://nifti.nimh.nih.gov/nifti-1, https://surfer.nmr.mgh.harvard.edu/fswiki/FsTutorial/MghFormat.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, TypeAlias

import nibabel as nib
import numpy as np
from numpy.typing import NDArray

from anofield.data.content import damaged, not_a_scan
from anofield.errors import ScanError
from anofield.typing import Affine

Nifti: TypeAlias = Any  # nib.Nifti1Header or its subclass nib.Nifti2Header, whose methods are not typed

ALIGNED = 2  # NIfTI-1 code of a frame that is aligned to another image; nibabel's default
HEAD_BYTES = 544  # of the longest header, NIfTI-2 with its extension flag
NIFTI_BYTES = {348: nib.Nifti1Header, 540: nib.Nifti2Header}
FIRST_VOXEL = {348: 352, 540: 544}  # earliest byte of the voxels in a file of its own
MGH_BEGIN, MGH_BYTES = b"\0\0\0\1", 284  # version 1, big-endian
MGH_FLAG = slice(28, 30)  # bytes of goodRASFlag
MGH_TYPES = {0: ">u1", 1: ">i4", 3: ">f4", 4: ">i2", 10: ">u2"}  # mri.h of FreeSurfer
MOST_EXTENSIONS = 2**26  # bytes between header and voxels that are skipped
MOST_FILLING = 2**20  # bytes of zeros that may follow the voxels
MOST_TAGS = 2**24  # bytes of tags that may follow the voxels of MGH
LONGEST_QUATERNION = 1.001  # b² + c² + d² that still counts as rounding, as of numbers written with three digits
LEAST_DETERMINANT = 1e-6  # mm³
LEAST_ANGLES = 1e-3  # determinant of the three directions of the axes; 1 at right angles
FARTHEST = 1e6  # mm
LARGEST_CODE = 5  # of sform and qform; others mean 0, as in nibabel
UNITS_SPACE, UNITS_TIME = (0, 1, 2, 3), (0, 8, 16, 24, 32, 40, 48)  # codes of NIfTI-1
LONGEST_NIFTI1 = 32767  # voxels of an axis
SFORM = ("srow_x", "srow_y", "srow_z")
QUATERNION, QOFFSET = ("quatern_b", "quatern_c", "quatern_d"), ("qoffset_x", "qoffset_y", "qoffset_z")
ORIENTATION = "repair the header's sform or qform (convert again from the source)"


@dataclass(frozen=True)
class Header:
    """What a file says about its voxels.

    Attributes:
        shape: Voxels per axis, (i, j, k) and perhaps axes of length one.
        dtype: Stored type, with its byte order.
        offset: Byte at which the voxels begin.
        scaling: Slope and intercept of the intensities; None if they are stored as they are.
        affine: Voxel index → world, RAS+ mm, (4, 4).
        geometry: Shape, sform, qform, codes, voxel size and units of the file, nothing else of it.
        behind: Bytes that may follow the voxels.
        zeros_behind: Whether these must be zeros.
        apart: Whether the voxels lie in a file of their own (`.img`).
        broken_qform: Whether the file has a qform that is none; it is not used.
        unit: Unit of length that the file names, `mm` or `unknown` in most; it is not used.
    """

    shape: tuple[int, ...]
    dtype: np.dtype[Any]
    offset: int
    scaling: tuple[float, float] | None
    affine: Affine
    geometry: Nifti
    behind: int = MOST_FILLING
    zeros_behind: bool = True
    apart: bool = False
    broken_qform: bool = False
    unit: str = "mm"

    @property
    def voxels(self) -> int:
        """Number of voxels."""
        return math.prod(self.shape)

    @property
    def end(self) -> int:
        """Byte behind the last voxel."""
        return self.offset + self.voxels * self.dtype.itemsize


def read_header(head: bytes, path: Path) -> Header:
    """Judge the header of a file.

    Args:
        head: The first `HEAD_BYTES` of the content, or all of a shorter one.
        path: The file.

    Raises:
        ScanError: The file is no scan, holds colours or complex numbers, says nothing about its orientation, or
            contradicts itself.
    """
    with np.errstate(all="ignore"):  # numbers that are not finite are judged below
        return _read_header(head, path)


def _read_header(head: bytes, path: Path) -> Header:
    """See `read_header`."""
    if head.startswith(MGH_BEGIN):
        return _mgh(head, path)
    orders: tuple[Literal["little", "big"], ...] = ("little", "big")
    for order in orders:
        size = int.from_bytes(head[:4], order)
        kind: Any = NIFTI_BYTES.get(size)
        if kind is not None and len(head) >= size:
            return _nifti(kind(head[:size], order, check=False), size, path)
        if kind is not None:
            raise damaged("its header ends early", path, why="the file is truncated")
    raise not_a_scan(head, path)


def new_geometry(affine: Affine, shape: tuple[int, ...]) -> Nifti:
    """A NIfTI header with the affine in sform and qform, in mm."""
    kind: Any = nib.Nifti1Header if max(shape) <= LONGEST_NIFTI1 else nib.Nifti2Header
    header = kind()
    header.set_data_shape(shape[:3])
    header.set_sform(affine, ALIGNED)
    header.set_qform(affine, ALIGNED)
    header.set_xyzt_units("mm")
    return header


def geometry_of(header: Any, affine: Affine, shape: tuple[int, ...]) -> Nifti:
    """The geometry of a header: shape, sform, qform, codes, voxel size and units, nothing else.

    What is broken in it is replaced: a voxel size that is not positive, or a qform that is no rotation, by that of
    the affine.

    Args:
        header: Header of an image of nibabel; any but NIfTI gives a new one.
        affine: Voxel index → world, RAS+ mm.
        shape: Voxels per axis; the first three are kept.
    """
    if not isinstance(header, nib.Nifti1Header):  # NIfTI-2 derives from it
        return new_geometry(affine, shape)
    with np.errstate(all="ignore"):  # numbers that are not finite are replaced
        return _kept_geometry(header, affine, shape)


def _kept_geometry(header: Nifti, affine: Affine, shape: tuple[int, ...]) -> Nifti:
    """See `geometry_of`."""
    kept: Nifti = nib.Nifti2Header() if isinstance(header, nib.Nifti2Header) else nib.Nifti1Header()
    kept.set_data_shape(shape[:3])
    kept["pixdim"][1:4] = np.where(_sizes_valid(header), header["pixdim"][1:4], nib.affines.voxel_sizes(affine))
    qfac = float(header["pixdim"][0])
    if qfac == 0 or np.isnan(qfac):  # not written: the qform turns as the affine does
        qfac = float(np.linalg.det(affine[:3, :3]))
    kept["pixdim"][0] = -1 if qfac < 0 else 1
    space, time = int(header["xyzt_units"]) & 7, int(header["xyzt_units"]) & 0x38
    kept["xyzt_units"] = (space if space in UNITS_SPACE else 0) + (time if time in UNITS_TIME else 0)
    for name in SFORM:
        if np.isfinite(header[name]).all():
            kept[name] = header[name]
    if has_broken_qform(header):
        kept.set_qform(affine)
    else:
        for name, number in zip(QUATERNION, _quaternion(header), strict=True):
            kept[name] = number
        for name in QOFFSET:
            kept[name] = header[name]
    kept["sform_code"], kept["qform_code"] = _code(header, "sform_code"), _code(header, "qform_code")
    return kept


def has_broken_qform(header: Any) -> bool:
    """Whether the qform of a NIfTI header is no rotation, up to rounding, or has no voxel size or place."""
    place = np.array([float(header[name]) for name in QOFFSET])
    rotation = _squared(header) <= LONGEST_QUATERNION  # NaN is not
    return not (rotation and _sizes_valid(header).all() and bool((np.abs(place) <= FARTHEST).all()))


def _code(header: Nifti, name: str) -> int:
    """Code of the sform or qform."""
    code = int(header[name])
    return code if 0 <= code <= LARGEST_CODE else 0


def _sizes_valid(header: Any) -> NDArray[np.bool_]:
    """Which of the three voxel sizes of a NIfTI header are lengths, (3,)."""
    sizes = np.asarray(header["pixdim"][1:4], dtype=np.float64)
    return np.asarray((sizes > 0) & (sizes <= FARTHEST))


def _squared(header: Any) -> float:
    """b² + c² + d² of the quaternion, which is at most 1."""
    return float(np.square([float(header[name]) for name in QUATERNION]).sum())


def _quaternion(header: Any) -> NDArray[np.float64]:
    """(b, c, d) of the quaternion; made as long as 1 if it is longer by more than its type rounds."""
    given = np.array([float(header[name]) for name in QUATERNION])
    squared, rounding = _squared(header), float(np.finfo(header["quatern_b"].dtype).eps)
    return given / np.sqrt(squared) if squared > 1 + 2 * rounding else given


def _nifti(header: Nifti, size: int, path: Path) -> Header:
    """What a NIfTI header says."""
    magic = bytes(header["magic"].item())
    apart = magic.startswith(b"ni")
    if not apart and not magic.startswith(b"n+"):
        what = "is an Analyze 7.5 file, which does not say where left and right are"
        raise ScanError(what, where=path, remedy="convert it again from the source, to NIfTI")
    dims = [int(n) for n in header["dim"]]
    if not 1 <= dims[0] <= 7:
        raise _contradiction(f"its header gives {dims[0]} axes", path)
    shape = tuple(dims[1 : 1 + dims[0]])
    dtype = _nifti_dtype(header, path)
    _check_shape(shape, path)
    affine = _nifti_affine(header, path)
    offset = _nifti_offset(header, 0 if apart else FIRST_VOXEL[size], path)
    scaling = _nifti_scaling(header, path)
    broken = bool(_code(header, "qform_code")) and has_broken_qform(header)
    geometry = geometry_of(header, affine, shape)
    unit = geometry.get_xyzt_units()[0]
    return Header(shape, dtype, offset, scaling, affine, geometry, apart=apart, broken_qform=broken, unit=unit)


def _nifti_dtype(header: Nifti, path: Path) -> np.dtype[Any]:
    code, bits = int(header["datatype"]), int(header["bitpix"])
    try:
        dtype: np.dtype[Any] = header.get_data_dtype()
    except (nib.spatialimages.HeaderDataError, KeyError):
        raise _contradiction(f"its header names an unknown type of voxels ({code})", path) from None
    check_dtype(dtype, path)
    if bits != dtype.itemsize * 8:
        raise _contradiction(f"its header gives {bits} bits per voxel, but {dtype.name}", path)
    return dtype


def check_dtype(dtype: np.dtype[Any], path: Path) -> None:
    """Refuse voxels that are not one real number each.

    Raises:
        ScanError: They are colours, complex numbers or longer than 8 bytes.
    """
    if dtype.kind == "c":
        raise ScanError("holds complex numbers", where=path, remedy="save its magnitude as a separate scan")
    if dtype.fields:
        remedy = "save one of its channels as a separate scan, if it is a scan and not a picture"
        raise ScanError("holds colours (RGB)", where=path, remedy=remedy)
    if dtype.kind not in "iufb" or not 0 < dtype.itemsize <= 8:
        remedy = "save it as int16 or float32"
        raise ScanError(f"holds voxels of type {dtype.name}, which cannot be used", where=path, remedy=remedy)


def _nifti_offset(header: Nifti, first: int, path: Path) -> int:
    offset = float(header["vox_offset"])
    if not (first <= offset <= first + MOST_EXTENSIONS and offset.is_integer()):  # NaN is not
        raise _contradiction(f"its header puts the voxels at byte {offset:g}", path)
    return int(offset)


def _nifti_scaling(header: Nifti, path: Path) -> tuple[float, float] | None:
    """Slope and intercept; a slope of 0, NaN or infinity means none, as in nibabel."""
    slope, inter = float(header["scl_slope"]), float(header["scl_inter"])
    if slope == 0 or not math.isfinite(slope):
        return None
    if not math.isfinite(inter):
        raise _contradiction(f"its header scales intensities by {slope:g} and adds {inter:g}", path)
    return None if (slope, inter) == (1, 0) else (slope, inter)


def _nifti_affine(header: Nifti, path: Path) -> Affine:
    """The sform, or without one the qform."""
    if _code(header, "sform_code"):
        return check_affine(header.get_sform(), path, "its sform")
    if not _code(header, "qform_code"):
        raise unknown_orientation("sform and qform code are 0", path)
    squared = _squared(header)
    if not squared <= LONGEST_QUATERNION:
        what = f"its qform is no rotation (the quaternion's b² + c² + d² is {squared:.3g}, more than 1)"
        raise ScanError(what, where=path, why="voxels have no position in millimetres", remedy=ORIENTATION)
    return check_affine(_qform(header), path, "its qform")


def _qform(header: Nifti) -> Affine:
    """Affine of the qform; a qfac of 0 is 1 (NIfTI-1)."""
    copy = header.copy()
    for name, number in zip(QUATERNION, _quaternion(header), strict=True):
        copy[name] = number
    sizes = header["pixdim"]
    copy["pixdim"][0] = -1 if sizes[0] < 0 else 1
    copy["pixdim"][1:4] = np.abs(sizes[1:4])
    return np.asarray(copy.get_qform())


def unknown_orientation(because: str, path: Path) -> ScanError:
    """The error of a scan that does not say how it lies."""
    return ScanError(
        f"its orientation is unknown ({because})",
        where=path,
        why="left and right, or front and back, may be swapped",
        remedy="convert it again from the source, or set the codes once you know the axes (fslorient -setsformcode 1)",
    )


def check_affine(given: Any, path: Path, what: str = "its affine") -> Affine:
    """An affine (4, 4) as float64.

    Args:
        given: The affine, voxel index → world, RAS+ mm.
        path: The scan.
        what: Name of the affine in errors.

    Raises:
        ScanError: It is no finite, invertible (4, 4) affine.
    """
    try:
        affine = np.asarray(given, dtype=np.float64)
    except (TypeError, ValueError):
        what = f"{what} is of type {type(given).__name__}; expected numbers, (4, 4)"
        raise ScanError(what, where=path, remedy="give the map from voxel indices to RAS+ mm") from None
    if affine.shape != (4, 4):
        what = f"{what} has shape {affine.shape}; expected (4, 4)"
        raise ScanError(what, where=path, remedy="give the map from voxel indices to RAS+ mm")
    fault = _fault(affine)
    if fault:
        why = "voxels have no position in millimetres"
        raise ScanError(f"{what} {fault}", where=path, why=why, remedy=ORIENTATION)
    if not np.allclose(affine[3], (0, 0, 0, 1)):
        what = f"the last row of {what} is {affine[3].tolist()}, not 0 0 0 1"
        raise ScanError(what, where=path, remedy="give the map from voxel indices to RAS+ mm, not its transpose")
    return affine


def _fault(affine: Affine) -> str:
    """Why an affine (4, 4) gives voxels no place; empty if it does."""
    if not np.isfinite(affine).all():
        return "holds NaN or infinity"
    if np.abs(affine).max() > FARTHEST:
        return "puts voxels more than a kilometre away"
    volume, edges = abs(float(np.linalg.det(affine[:3, :3]))), float(np.prod(nib.affines.voxel_sizes(affine)))
    return "is singular" if volume < max(LEAST_DETERMINANT, LEAST_ANGLES * edges) else ""


def _mgh(head: bytes, path: Path) -> Header:
    """What an MGH header says; a single frame is a volume."""
    if len(head) < MGH_BYTES:
        raise damaged("its header ends early", path, why="the file is truncated")
    header = nib.freesurfer.mghformat.MGHHeader(head[:MGH_BYTES], check=False)
    code = int(header["type"])
    if code not in MGH_TYPES:
        what = f"holds voxels of MGH type {code}, which cannot be used"
        raise ScanError(what, where=path, remedy="convert it with mri_convert -odt float")
    if not any(head[MGH_FLAG]):  # nibabel's header sets it
        raise unknown_orientation("its goodRASFlag is 0", path)
    shape = tuple(int(n) for n in header["dims"])
    _check_shape(shape, path)
    affine = check_affine(header.get_affine(), path)
    volume = shape[:3] if shape[3] == 1 else shape
    geometry = new_geometry(affine, shape)
    return Header(
        volume, np.dtype(MGH_TYPES[code]), MGH_BYTES, None, affine, geometry, behind=MOST_TAGS, zeros_behind=False
    )


def _check_shape(shape: tuple[int, ...], path: Path) -> None:
    """Refuse axes without voxels."""
    if min(shape) < 1:
        raise _contradiction(f"its header gives the shape {shape}", path)


def check_volume(shape: tuple[int, ...], path: Path) -> None:
    """Refuse a shape that is not that of one volume.

    Raises:
        ScanError: It has fewer than three axes, no voxels, or a further axis of more than one.
    """
    if len(shape) < 3 or any(n != 1 for n in shape[3:]) or 0 in shape:
        raise ScanError(
            f"has shape {shape}; expected a 3-D volume",
            where=path,
            remedy="extract one volume, for example with `nibabel.four_to_three` or `fslroi`",
        )


def _contradiction(what: str, path: Path) -> ScanError:
    why = "the header is damaged, or the file is no scan"
    return ScanError(what, where=path, why=why, remedy="convert it again from the source")
