"""A scan: one 3-D array, its affine to RAS+ millimetres and the untouched header of the file it came from."""

from __future__ import annotations

import zlib
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np

from anofield._files import replacing
from anofield._words import counted
from anofield.errors import ScanError
from anofield.typing import Affine, FloatVolume, Mask, PathLike, Volume

SUFFIXES = (".nii.gz", ".nii", ".mgz", ".mgh")
UNREADABLE = (  # what nibabel and its decompressors raise on files that are damaged or no scans
    nib.filebasedimages.ImageFileError,
    nib.spatialimages.HeaderDataError,
    OSError,
    EOFError,
    ValueError,
    TypeError,
    OverflowError,
    zlib.error,
)
BRAIN_VOLUME_ML = (300.0, 2400.0)  # newborn brain to far above the largest adult brain; a whole head is 3 to 5 litres


@dataclass(frozen=True)
class Scan:
    """One volume in its own voxels.

    Attributes:
        data: Intensities, (i, j, k), in the order of the file.
        affine: Voxel index → world, RAS+ mm, (4, 4).
        header: Header of the source file, copied, never edited.
        path: Where it was read from.
    """

    data: Volume
    affine: Affine
    header: Any
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


def stem(path: PathLike) -> str:
    """File name without folder and scan suffix: `a/sub-1_T2w.nii.gz` → `sub-1_T2w`."""
    name = Path(path).name
    return next((name[: -len(suffix)] for suffix in SUFFIXES if name.endswith(suffix)), name)


def read_scan(path: PathLike, *, dtype: type[np.floating[Any]] = np.float32) -> Scan:
    """Read and check a scan.

    Args:
        path: NIfTI-1, NIfTI-2 or MGH file, 3-D (a trailing axis of length one is dropped).
        dtype: Type of the data; the published recipes need `numpy.float64`, everything else is content with float32.

    Raises:
        ScanError: The file is missing, unreadable, truncated, not 3-D, holds NaN or infinity, is constant, or its
            affine is singular.
    """
    path = Path(path)
    image = _open(path)
    data = _data(image, path, dtype)
    _check_values(data, path)
    return Scan(data, _affine(image, path), image.header.copy(), path)


@dataclass(frozen=True)
class Geometry:
    """What a header says without its voxels: shape, affine (voxel index → world, RAS+ mm), stored type, the header."""

    shape: tuple[int, ...]
    affine: Affine
    dtype: str
    header: Any


def read_geometry(path: PathLike) -> Geometry:
    """Read the header of a scan, not its voxels.

    Raises:
        ScanError: The file is missing or unreadable, or its affine is singular.
    """
    path = Path(path)
    image = _open(path)
    dtype = np.dtype(image.get_data_dtype()).name
    return Geometry(tuple(image.shape), _affine(image, path), dtype, image.header.copy())


def read_labels(path: PathLike, like: Scan) -> Volume:
    """Read a label map or mask (i, j, k) that must lie on the voxels of `like`.

    Raises:
        ScanError: As `read_scan` (a constant map is allowed), or the shape or the affine differs from the scan's.
    """
    path = Path(path)
    image = _open(path)
    data = _data(image, path, np.float32)
    if not np.isfinite(data).all():
        raise ScanError("the label map holds NaN or infinity", where=path, remedy="write it as integers")
    if data.shape != like.data.shape:
        raise ScanError(
            f"the label map has shape {data.shape}, its scan {like.data.shape} ({like.path.name})",
            where=path,
            why="labels are compared voxel by voxel",
            remedy="resample the label map to the scan with nearest-neighbour interpolation",
        )
    apart = float(np.abs(_corners(_affine(image, path), data.shape) - _corners(like.affine, data.shape)).max())
    if apart > 0.5 * max(like.spacing):
        raise ScanError(
            f"the label map's affine puts its corners {apart:.1f} mm away from the scan's ({like.path.name})",
            where=path,
            why="the two would be compared at different places",
            remedy="copy the scan's affine into the label map if the voxels correspond, otherwise resample it",
        )
    return np.rint(data).astype(np.int32)


def read_map(path: PathLike, like: Scan) -> FloatVolume:
    """Read a score map (i, j, k) float32 that must lie on the voxels of `like`; it may be constant.

    Raises:
        ScanError: Missing, unreadable, not finite, or of another shape.
    """
    path = Path(path)
    data = _data(_open(path), path, np.float32)
    if data.shape != like.data.shape or not np.isfinite(data).all():
        what = (
            "is not finite" if data.shape == like.data.shape else f"has shape {data.shape}, its scan {like.data.shape}"
        )
        raise ScanError(what, where=path, remedy="detect the case again with --force")
    return data


def brain_mask(scan: Scan, mask: PathLike | None = None) -> Mask:
    """Brain voxels of a scan: the mask file's non-zero voxels, else the scan's own if it is skull-stripped.

    Raises:
        ScanError: Mask unusable, or the brain's volume lies outside `BRAIN_VOLUME_ML`: the scan is not
            skull-stripped, or holds no brain.
    """
    brain = (scan.data != 0) if mask is None else (read_labels(mask, scan) > 0)
    volume = float(np.count_nonzero(brain)) * scan.voxel_ml
    low, high = BRAIN_VOLUME_ML
    if volume > high:
        raise ScanError(
            f"{volume:.0f} ml are not zero, more than any brain ({high:.0f} ml)",
            where=scan.path if mask is None else mask,
            why="the scan is not skull-stripped, and skull and scalp would be reported as anomalies",
            remedy="strip it first (HD-BET, SynthStrip, BET set the outside to 0) or give its brain mask with --mask",
        )
    if volume < low:
        raise ScanError(
            f"only {volume:.0f} ml are not zero, less than any brain ({low:.0f} ml)",
            where=scan.path if mask is None else mask,
            why="there is too little brain to fit",
            remedy="look at the file in a viewer; check that its voxel size is in millimetres",
        )
    return np.asarray(brain, dtype=np.bool_)


def check_contrast(values: Volume, path: PathLike) -> None:
    """Refuse a brain of one value, which is no scan but a mask or what a broken conversion left.

    Args:
        values: Intensities of the brain's voxels, any shape.
        path: The scan.

    Raises:
        ScanError: They are all the same.
    """
    if values.min() == values.max():
        raise ScanError(
            f"every brain voxel has the same intensity ({float(values.flat[0]):g})",
            where=path,
            why="there is nothing to see in it",
            remedy="see that it is the scan and not its mask; check the conversion that wrote it",
        )


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
    two = isinstance(scan.header, nib.Nifti2Header)
    header = (nib.Nifti2Header if two else nib.Nifti1Header).from_header(scan.header, check=False)
    affine = None
    if not isinstance(scan.header, nib.Nifti1Header | nib.Nifti2Header):  # MGH has neither frames nor units
        affine = scan.affine
        header.set_xyzt_units("mm")
    header.set_data_dtype(array.dtype)
    header["descrip"] = description.encode()[:79]
    header["cal_min"] = header["cal_max"] = 0
    kind: Any = nib.Nifti2Image if two else nib.Nifti1Image
    image = kind(array, affine, header)
    with replacing(path) as partial:
        nib.save(image, partial)


def _open(path: Path) -> Any:
    if not path.is_file():
        raise ScanError("no such file", where=path, remedy="check the path")
    try:
        image: Any = nib.load(path)
        if not isinstance(image, nib.spatialimages.SpatialImage):
            raise ValueError(f"{type(image).__name__} is no volume")
        return image
    except UNREADABLE as error:
        raise ScanError(
            f"cannot be read as NIfTI or MGH ({str(error).splitlines()[0] if str(error) else type(error).__name__})",
            where=path,
            remedy="check that it opens in a viewer; convert DICOM with dcm2niix; copy it again if it is truncated",
        ) from error


def _data(image: Any, path: Path, dtype: type[np.floating[Any]]) -> Volume:
    shape = tuple(image.shape)
    if len(shape) < 3 or any(n != 1 for n in shape[3:]) or 0 in shape:
        raise ScanError(
            f"has shape {shape}, a 3-D volume is needed",
            where=path,
            remedy="extract one volume, for example with `nibabel.four_to_three` or `fslroi`",
        )
    if np.dtype(image.get_data_dtype()).kind == "c":
        raise ScanError("holds complex numbers", where=path, remedy="write its magnitude as a scan of its own")
    try:
        return np.asarray(image.dataobj, dtype=dtype).reshape(shape[:3])
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


def _affine(image: Any, path: Path) -> Affine:
    affine = np.asarray(image.affine, dtype=np.float64)
    if not np.isfinite(affine).all() or abs(np.linalg.det(affine[:3, :3])) < 1e-6:
        raise ScanError(
            "its affine is singular",
            where=path,
            why="voxels have no place in millimetres",
            remedy="repair the header's sform or qform (convert again from the source)",
        )
    return affine


def _check_values(data: Volume, path: Path) -> None:
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


def _corners(affine: Affine, shape: tuple[int, ...]) -> Affine:
    index = np.array(np.meshgrid(*[(0, n - 1) for n in shape[:3]], indexing="ij")).reshape(3, -1)
    return np.asarray(affine[:3, :3] @ index + affine[:3, 3:])
