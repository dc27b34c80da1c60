"""Volumes of the interactive view: cropped, 8-bit NIfTI-1 images, gzipped and in base64, small enough for a page."""

from __future__ import annotations

import base64
import gzip
from dataclasses import dataclass
from functools import cache
from importlib import resources
from typing import TYPE_CHECKING, Any

import nibabel as nib
import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from anofield.typing import Affine, Volume

if TYPE_CHECKING:
    from anofield.reports.planes import World

NIIVUE = "niivue-0.69.0.umd.js"
LICENCES = "niivue-LICENCES.txt"
CODES = 254  # steps of the slider: code c holds scores in ((c - 1) · step, c · step], 255 all above
CASE_BUDGET = 4_000_000  # characters of a case's volumes; beyond, every second (third, …) voxel is kept
HEADER_BYTES = 352  # of a NIfTI-1 file before its voxels

Codes = NDArray[np.uint8]
Box = tuple[slice, ...]


@dataclass(frozen=True)
class Viewer:
    """The data of a case's interactive view.

    Attributes:
        images: Base64 of a gzipped NIfTI-1 file for `scan`, `anomaly` and `truth`; the last is a one-voxel shell.
        step: Width of a code; code c stands for scores in ((c − 1) · step, c · step].
        mark: Code of the calibrated threshold, exactly `threshold / step`; None without one.
        voxel_ml: Volume that one kept voxel stands for.
        stride: Step between the voxels that are kept, along each axis.
    """

    images: dict[str, str]
    step: float
    mark: int | None
    voxel_ml: float
    stride: int

    @property
    def weight(self) -> int:
        """Number of characters that the view adds to the page."""
        return sum(map(len, self.images.values()))

    @property
    def start(self) -> int:
        """Code at which the slider starts."""
        return CODES // 2 if self.mark is None else self.mark


def pack(
    volumes: dict[str, World], shown: Volume, box: Box, window: tuple[float, float], threshold: float | None
) -> Viewer | None:
    """Pack the volumes of a case for its interactive view; None without an anomaly map.

    Args:
        volumes: Volumes `anomaly` and, if they exist, `scan`, `restoration` and `truth`, on the same voxels.
        shown: Voxels of the base image that are kept, (x, y, z); the others become black.
        box: Box that is cut out of all volumes.
        window: Intensities of the base image drawn black and white.
        threshold: Calibrated threshold.
    """
    if "anomaly" not in volumes:
        return None
    base = volumes.get("scan") or volumes.get("restoration")
    anomaly, world = volumes["anomaly"].data[box], volumes["anomaly"]
    step, mark = steps(anomaly, threshold)
    arrays = {"scan": grey(base.data[box], window) * shown[box]} if base is not None else {}
    arrays["anomaly"] = codes(anomaly, step)
    if "truth" in volumes:
        arrays["truth"] = shell(volumes["truth"].data[box] > 0)
    affine = world.affine.copy()
    affine[:3, 3] = world.mm([s.start for s in box])
    for stride in (1, 2, 3, 4, 6, 8):
        viewer = _viewer(arrays, affine, stride, step, mark)
        if viewer.weight <= CASE_BUDGET:
            return viewer
    return None


def steps(anomaly: Volume, threshold: float | None) -> tuple[float, int | None]:
    """Width of a code and the code of the threshold, which lies exactly on a boundary between two codes."""
    top = float(anomaly.max(initial=0.0))
    if threshold is None or threshold <= 0:
        return (top if top > 0 else 1.0) / CODES, None
    mark = int(np.clip(CODES * threshold / max(top, threshold), 1, CODES - 1))
    return threshold / mark, mark


def codes(anomaly: Volume, step: float) -> Codes:
    """Scores as codes: c where (c − 1) · step < score ≤ c · step, 0 where score ≤ 0, so that counting is exact."""
    return np.clip(np.ceil(anomaly.astype(np.float64) / step), 0, 255).astype(np.uint8)


def grey(data: Volume, window: tuple[float, float]) -> Codes:
    """Intensities as odd codes from 1 to 255, which compress better than all codes; 0 marks voxels not shown."""
    level = np.clip((data - window[0]) / (window[1] - window[0]), 0, 1)
    shades: Codes = (1 + 2 * np.round(127 * level)).astype(np.uint8)
    return shades


def shell(mask: NDArray[np.bool_]) -> Codes:
    """The outermost voxels of a mask: an outline in every plane, a hull in 3-D."""
    hull: Codes = (mask & ~ndimage.binary_erosion(mask)).astype(np.uint8)
    return hull


def nifti(data: Codes, affine: Affine, slope: float = 1.0, inter: float = 0.0) -> bytes:
    """A NIfTI-1 file of 8-bit voxels whose values are `slope` · code + `inter`."""
    header: Any = nib.Nifti1Header()
    header.set_data_dtype(np.uint8)
    header.set_data_shape(data.shape)
    header.set_sform(affine, code=1)
    header.set_zooms(np.linalg.norm(affine[:3, :3], axis=0))
    header["scl_slope"], header["scl_inter"], header["vox_offset"] = slope, inter, HEADER_BYTES
    return bytes(header.binaryblock) + bytes(HEADER_BYTES - len(header.binaryblock)) + data.tobytes("F")


def packed(content: bytes) -> str:
    """The content gzipped and in base64; the same bytes for the same content."""
    return base64.b64encode(gzip.compress(content, 6, mtime=0)).decode()


@cache
def library() -> str:
    """NiiVue in its embedded form: gzipped and in base64."""
    return packed((resources.files("anofield.reports") / "vendor" / NIIVUE).read_bytes())


@cache
def licences() -> str:
    """Licences of NiiVue and of its parts; they must be distributed with it."""
    return (resources.files("anofield.reports") / "vendor" / LICENCES).read_text(encoding="utf-8")


def script(name: str) -> str:
    """A script of the report, as it is placed in the page."""
    return (resources.files("anofield.reports") / name).read_text(encoding="utf-8")


def _viewer(arrays: dict[str, Codes], affine: Affine, stride: int, step: float, mark: int | None) -> Viewer:
    coarse = affine.copy()
    coarse[:3, :3] *= stride
    images = {}
    for name, array in arrays.items():
        # the middle of a code's interval: values above c · step are those of the codes from c + 1 on
        scale = (step, -step / 2) if name == "anomaly" else (1.0, 0.0)
        images[name] = packed(nifti(array[::stride, ::stride, ::stride], coarse, *scale))
    return Viewer(images, step, mark, float(abs(np.linalg.det(coarse[:3, :3]))) / 1000.0, stride)
