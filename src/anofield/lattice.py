"""The regular grid of the field's box: its place in a scan, its field coordinates, and resampling both ways.

Three frames meet here (docs/explanation/coordinates.md): lattice index, native voxel index, world (RAS+ mm).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from anofield.scan import Scan
from anofield.typing import Affine, FloatVolume, Mask, Shape3, Volume

Convention = Literal["center", "corner"]


@dataclass(frozen=True)
class Lattice:
    """R³ grid of one scan.

    Attributes:
        resolution: R, voxels per axis.
        to_native: Lattice index → native voxel index of the scan, (4, 4).
        native_shape: Shape of the scan.
        native_affine: Native voxel index → world RAS+ mm, (4, 4).
    """

    resolution: int
    to_native: Affine
    native_shape: Shape3
    native_affine: Affine

    @property
    def shape(self) -> Shape3:
        """(R, R, R)."""
        return (self.resolution,) * 3

    @property
    def affine(self) -> Affine:
        """Lattice index → world RAS+ mm, (4, 4)."""
        return np.asarray(self.native_affine @ self.to_native)

    @property
    def spacing(self) -> NDArray[np.float64]:
        """Edge lengths of a lattice voxel in mm, (3,)."""
        return np.asarray(np.linalg.norm(self.affine[:3, :3], axis=0))


def field_coordinates(
    index: NDArray[np.float64], resolution: int, convention: Convention = "center"
) -> NDArray[np.float64]:
    """Lattice index → field coordinate on one axis.

    Args:
        index: Lattice indices, any shape; fractions are allowed.
        resolution: R, voxels per axis.
        convention: `center`: u = (2 i + 1)/R − 1, the voxel's centre in [−1, 1].
            `corner`: u = 2 i/R − 1, as published in 2021.

    >>> field_coordinates(np.array([0.0, 1.0]), 2).tolist()
    [-0.5, 0.5]
    """
    shift = 1.0 if convention == "center" else 0.0
    return (2.0 * index + shift) / resolution - 1.0


def box_lattice(scan: Scan, brain: Mask, resolution: int, box_mm: float) -> Lattice:
    """RAS+ cube, `box_mm` mm a side, around the brain's centre of mass, divided into `resolution`³ voxels."""
    center = scan.affine[:3, :3] @ np.asarray(ndimage.center_of_mass(brain)) + scan.affine[:3, 3]
    step = box_mm / resolution
    to_world = np.diag([step, step, step, 1.0])
    to_world[:3, 3] = center - step * (resolution - 1) / 2.0
    shape = (int(scan.data.shape[0]), int(scan.data.shape[1]), int(scan.data.shape[2]))
    to_native = np.asarray(np.linalg.inv(scan.affine) @ to_world, dtype=np.float64)
    return Lattice(resolution, to_native, shape, scan.affine)


def to_lattice(volume: Volume, lattice: Lattice, *, brain: Mask | None = None, order: int = 1) -> FloatVolume:
    """Sample a native volume on the lattice, outside the scan 0.

    Args:
        volume: (i, j, k), native voxels.
        lattice: Where to sample.
        brain: If given, a weighted mean over brain voxels with a Gaussian as wide as a lattice voxel (FWHM): no
            aliasing on a coarse lattice and no darkening towards the brain's edge.
        order: 1 linear, 0 nearest neighbour (labels).
    """
    if brain is None:
        return _sample(volume, lattice, order)
    native_mm = np.linalg.norm(lattice.native_affine[:3, :3], axis=0)
    ratio = float(lattice.spacing.min()) / native_mm
    sigma = np.where(ratio > 1.25, ratio / 2.355, 0.0)  # FWHM = 2.355 σ
    weight = ndimage.gaussian_filter(brain.astype(np.float32), sigma, mode="constant", truncate=3.0)
    value = ndimage.gaussian_filter((volume * brain).astype(np.float32), sigma, mode="constant", truncate=3.0)
    weight, value = _sample(weight, lattice, order), _sample(value, lattice, order)
    return np.divide(value, weight, out=np.zeros_like(value), where=weight > 1e-3)


def to_native(volume: Volume, lattice: Lattice, *, order: int = 1) -> FloatVolume:
    """Carry a lattice volume (R, R, R) to the scan's own voxels (i, j, k); outside the box 0."""
    matrix = np.linalg.inv(lattice.to_native)
    return np.asarray(
        ndimage.affine_transform(
            np.asarray(volume, dtype=np.float32),
            matrix[:3, :3],
            matrix[:3, 3],
            output_shape=lattice.native_shape,
            order=order,
            mode="grid-constant",
        )
    )


def _sample(volume: Volume, lattice: Lattice, order: int) -> FloatVolume:
    return np.asarray(
        ndimage.affine_transform(
            np.asarray(volume, dtype=np.float32),
            lattice.to_native[:3, :3],
            lattice.to_native[:3, 3],
            output_shape=lattice.shape,
            order=order,
            mode="grid-constant",
        )
    )
