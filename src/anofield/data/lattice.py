"""The regular grid of the field's box: its place in a scan, its field coordinates, and resampling in both directions.

Three frames meet here (docs/explanation/coordinates.md): lattice index, native voxel index, world (RAS+ mm).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Literal

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage, sparse

from anofield.data.scan import Scan
from anofield.typing import Affine, FloatVolume, Mask, Shape3, Volume

Convention = Literal["center", "corner"]
FWHM = 2.355  # full width at half maximum of a Gaussian, in standard deviations
TRUNCATE = 3.0  # standard deviations at which a Gaussian is cut
STRAIGHT = 1e-4  # native voxels by which a lattice edge may deviate and still count as parallel to an axis


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


def index_to_field(resolution: int, convention: Convention = "center") -> Affine:
    """Lattice index → field coordinates, as `field_coordinates` on all three axes, (4, 4)."""
    zero, one = field_coordinates(np.array([0.0, 1.0]), resolution, convention)
    matrix = np.diag([one - zero] * 3 + [1.0])
    matrix[:3, 3] = zero
    return matrix


def posed_lattice(lattice: Lattice, pose: Affine, convention: Convention = "center") -> Lattice:
    """The lattice of the training's frame, for a scan that lies otherwise in its box; it may be oblique in the scan.

    Args:
        lattice: Lattice of the scan's box.
        pose: Field coordinates of the scan → field coordinates in the training's frame, (4, 4).
        convention: Field coordinates of a lattice index.
    """
    field = index_to_field(lattice.resolution, convention)
    to_box = np.linalg.inv(field) @ np.linalg.inv(pose) @ field  # index in the training's frame → index in the box
    return replace(lattice, to_native=np.asarray(lattice.to_native @ to_box, dtype=np.float64))


def box_lattice(scan: Scan, brain: Mask, resolution: int, box_mm: float) -> Lattice:
    """RAS+ cube, `box_mm` mm a side, around the brain's centre of mass, divided into `resolution`³ voxels."""
    center = scan.affine[:3, :3] @ _center_of_mass(brain) + scan.affine[:3, 3]
    step = box_mm / resolution
    to_world = np.diag([step, step, step, 1.0])
    to_world[:3, 3] = center - step * (resolution - 1) / 2.0
    shape = (int(scan.data.shape[0]), int(scan.data.shape[1]), int(scan.data.shape[2]))
    to_native = np.asarray(np.linalg.inv(scan.affine) @ to_world, dtype=np.float64)
    return Lattice(resolution, to_native, shape, scan.affine)


def to_lattice(volume: Volume, lattice: Lattice, *, brain: Mask | None = None, order: int = 1) -> FloatVolume:
    """Sample a native volume on the lattice; 0 outside the scan.

    Args:
        volume: (i, j, k), native voxels.
        lattice: Where to sample.
        brain: Brain voxels, (i, j, k); if given, the result is the mean of `brain_to_lattice`.
        order: 1 linear, 0 nearest neighbour (labels; without `brain`).
    """
    if brain is not None:
        return brain_to_lattice(volume, brain, lattice)[0]
    return _sample(volume, lattice.to_native, lattice.shape, order)


def brain_to_lattice(volume: Volume, brain: Mask, lattice: Lattice) -> tuple[FloatVolume, Mask]:
    """Mean over the brain around every lattice voxel, and the lattice voxels that are brain.

    The weights are a Gaussian as wide as a lattice voxel (FWHM), linearly sampled: no aliasing on a coarse lattice and
    no darkening towards the brain's edge. A lattice voxel is brain if more than half of its weight in the scan is.

    Args:
        volume: (i, j, k), native voxels.
        brain: Brain voxels, (i, j, k); voxels outside do not count.
        lattice: Where to sample.

    Returns:
        Mean (R, R, R), 0 where no brain is near; brain (R, R, R).
    """
    native_mm = np.linalg.norm(lattice.native_affine[:3, :3], axis=0)
    ratio = float(lattice.spacing.min()) / native_mm
    sigma = np.where(ratio > 1.25, ratio / FWHM, 0.0).astype(np.float64)
    near = surroundings(brain, [2 * (_radius(s) + 1) for s in sigma])  # what a lattice voxel reaches on both sides
    inside, matrix = brain[near], np.array(lattice.to_native, dtype=np.float64)
    matrix[:3, 3] -= [cut.start for cut in near]
    masked = np.where(inside, volume[near], 0)
    weight, value = (_sample(v, matrix, lattice.shape, 1, sigma) for v in (inside, masked))
    mean = np.divide(value, weight, out=np.zeros_like(value), where=weight > 1e-3)
    if all(cut.start > 0 and cut.stop < n for cut, n in zip(near, brain.shape, strict=True)):
        return mean, weight > 0.5
    whole = _sample(np.ones_like(inside), matrix, lattice.shape, 1, sigma)  # less than 1 at the scan's faces
    return mean, np.divide(weight, whole, out=np.zeros_like(weight), where=whole > 1e-3) > 0.5


def to_native(volume: Volume, lattice: Lattice, *, order: int = 1) -> FloatVolume:
    """Carry a lattice volume (R, R, R) to the scan's own voxels (i, j, k); 0 outside the box."""
    to_lattice_index = np.asarray(np.linalg.inv(lattice.to_native), dtype=np.float64)
    return _sample(volume, to_lattice_index, lattice.native_shape, order)


def bounding_box(mask: Mask) -> tuple[slice, ...] | None:
    """Smallest box that holds a mask (i, j, k); None if the mask is empty."""
    plane = np.asarray(mask.any(axis=2))
    lines = [
        np.flatnonzero(line)
        for line in (plane.any(axis=1), plane.any(axis=0), np.asarray(mask.any(axis=0)).any(axis=0))
    ]
    return tuple(slice(int(line[0]), int(line[-1]) + 1) for line in lines) if len(lines[0]) else None


def _center_of_mass(mask: Mask) -> NDArray[np.float64]:
    """Mean index of the mask's voxels, (3,)."""
    lines = [np.count_nonzero(mask, axis=tuple({0, 1, 2} - {axis})) for axis in range(3)]
    return np.array([line @ np.arange(len(line)) / line.sum() for line in lines])


def surroundings(mask: Mask, margin: Sequence[int]) -> tuple[slice, ...]:
    """Bounding box of a mask, `margin` voxels wider, within the volume; the whole volume if the mask is empty."""
    box = bounding_box(mask) or tuple(slice(0, n) for n in mask.shape)
    sides = zip(box, margin, mask.shape, strict=True)
    return tuple(slice(max(cut.start - more, 0), min(cut.stop + more, n)) for cut, more, n in sides)


def _radius(sigma: float) -> int:
    """Voxels to each side that a Gaussian reaches, as in scipy."""
    return int(TRUNCATE * sigma + 0.5)


def _sample(
    volume: Volume, matrix: Affine, shape: Shape3, order: int, sigma: NDArray[np.float64] | None = None
) -> FloatVolume:
    """Value of a volume at `matrix` @ index for every index of `shape`, 0 outside; blurred first if `sigma` is given.

    Args:
        volume: (i, j, k).
        matrix: Index of the result → index of the volume, (4, 4).
        shape: Shape of the result.
        order: 1 linear, 0 nearest neighbour.
        sigma: Standard deviations of the Gaussian, voxels of the volume, (3,).
    """
    sigma = np.zeros(3) if sigma is None else sigma
    axes = _parallel_axes(matrix, shape)
    if axes is not None:
        return _sample_straight(volume.transpose(axes), matrix[list(axes)], shape, order, sigma[list(axes)])
    volume = np.asarray(volume, dtype=np.float32)
    if sigma.any():
        volume = ndimage.gaussian_filter(volume, sigma, mode="constant", truncate=TRUNCATE)
    return np.asarray(
        ndimage.affine_transform(
            volume, matrix[:3, :3], matrix[:3, 3], output_shape=shape, order=order, mode="grid-constant"
        )
    )


def _parallel_axes(matrix: Affine, shape: Shape3) -> tuple[int, int, int] | None:
    """For each axis of the result the parallel axis of the volume; None if the result is oblique."""
    a, b, c = (int(axis) for axis in np.abs(matrix[:3, :3]).argmax(axis=0))
    lean = np.abs(matrix[:3, :3]) * np.array(shape)
    lean[[a, b, c], [0, 1, 2]] = 0.0
    return (a, b, c) if {a, b, c} == {0, 1, 2} and lean.max() < STRAIGHT else None


def _sample_straight(
    volume: Volume, rows: Affine, shape: Shape3, order: int, sigma: NDArray[np.float64]
) -> FloatVolume:
    """Blur and sample one axis after the other, each as one sparse matrix; axis d of the result runs along axis d."""
    values = np.asarray(volume, dtype=np.float32)
    for axis, count in enumerate(shape):
        place = rows[axis, axis] * np.arange(count) + rows[axis, 3]
        weights = _axis_weights(place, len(values), order, float(sigma[axis]))
        rest = values.shape[1:]
        values = (weights @ values.reshape(len(values), -1)).T.reshape(*rest, count)  # the next axis comes first
    return np.ascontiguousarray(values)


def _axis_weights(place: NDArray[np.float64], count: int, order: int, sigma: float) -> sparse.csr_array:
    """Weights (places, count) of `count` voxels in the value at each place, 0 beyond the first and the last voxel."""
    below = np.floor(place if order else place + 0.5).astype(np.intp)
    share = (place - below) * order
    columns, weights = np.concatenate([below, below + 1]), np.concatenate([1.0 - share, share])
    lines = np.tile(np.arange(len(place)), 2)
    kept = (columns >= 0) & (columns < count) & (weights > 0)
    linear = sparse.csr_array((weights[kept], (lines[kept], columns[kept])), shape=(len(place), count))
    if sigma > 0:
        steps = np.arange(-_radius(sigma), _radius(sigma) + 1)
        bell = np.exp(-0.5 * (steps / sigma) ** 2)
        bell, steps = (bell / bell.sum())[abs(steps) < count], steps[abs(steps) < count]
        linear = linear @ sparse.diags_array(list(bell), offsets=steps, shape=(count, count))
    return linear.astype(np.float32)
