"""The two preprocessings of 2021 (HCP, BraTS'18), bit for bit: native grids, fixed padding, the zoom of a cube.

Source: Naval Marimont & Tarroni 2021, the published preprocessing scripts.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from anofield.data.brain import StrippedScan
from anofield.data.classes import assign, mode_pool
from anofield.data.lattice import Lattice, bounding_box, surroundings
from anofield.data.prepared import Prepared
from anofield.data.recipe import Recipe, RecipeName
from anofield.data.scan import Scan
from anofield.errors import ScanError
from anofield.typing import Affine, Classes, Mask, Shape3, Volume

CLIP_PERCENTILES = (2.0, 98.0)  # Naval Marimont & Tarroni 2021


@dataclass(frozen=True, kw_only=True)
class NativeGrid:
    """The native grid of one published data set, and how its arrays are placed in a cube.

    The steps are, in order: transpose to (2, 1, 0), flip, pad, cut. No axis is both padded and cut.

    Attributes:
        scans: Name of the scans.
        shape: Voxels of a scan, (i, j, k).
        affine: Native voxel index → world RAS+ mm, (4, 4).
        flip: Axes that are flipped after the transpose.
        pad: Voxels added before and after, per axis of the cube.
        cut: Slice that is kept, per axis of the cube.
    """

    scans: str
    shape: Shape3
    affine: Affine
    flip: tuple[bool, bool, bool] = (False, False, False)
    pad: tuple[tuple[int, int], tuple[int, int], tuple[int, int]] = ((0, 0), (0, 0), (0, 0))
    cut: tuple[slice, slice, slice] = (slice(None), slice(None), slice(None))

    @property
    def side(self) -> int:
        """Voxels per axis of the published cube."""
        return self.shape[2] + sum(self.pad[0])

    @property
    def start(self) -> list[int]:
        """Index in the cube at which the turned volume starts."""
        return [before for before, _ in self.pad]

    def turned(self, volume: Volume) -> Volume:
        """View of a native volume (i, j, k) as it lies in the cube, without the padding."""
        flipped = tuple(slice(None, None, -1) if flip else slice(None) for flip in self.flip)
        return volume.transpose(2, 1, 0)[flipped][self.cut]


def _diagonal(steps: tuple[float, float, float], offset: tuple[float, float, float]) -> Affine:
    """An affine along the world's axes: voxel edges with their signs, and the centre of the first voxel, mm."""
    affine = np.diag([*steps, 1.0])
    affine[:3, 3] = offset
    return affine


GRIDS: dict[RecipeName, NativeGrid] = {  # Naval Marimont & Tarroni 2021, published preprocessing
    "ifl2021-hcp": NativeGrid(
        scans="HCP S1200 (T2w_acpc_dc_restore)",
        shape=(260, 311, 260),
        affine=_diagonal((-0.7, 0.7, 0.7), (90.0, -126.0, -72.0)),
        flip=(False, True, False),
        pad=((20, 20), (0, 0), (20, 20)),
        cut=(slice(None), slice(5, -6), slice(None)),
    ),
    "ifl2021-brats": NativeGrid(
        scans="BraTS'18",
        shape=(240, 240, 155),
        affine=_diagonal((-1.0, -1.0, 1.0), (0.0, 239.0, 0.0)),  # SRI24 space
        pad=((42, 43), (0, 0), (0, 0)),
    ),
}


def lattice_side(recipe: Recipe) -> int:
    """Lattice voxels per axis of any recipe: its resolution, or the published full one."""
    return recipe.resolution or GRIDS[recipe.name].side


def published_lattice(name: RecipeName, resolution: int | None, native_affine: Affine) -> Lattice:
    """The lattice of a published recipe.

    Args:
        name: `ifl2021-hcp` or `ifl2021-brats`.
        resolution: R, lattice voxels per axis; None for the published full resolution.
        native_affine: Native voxel index → world RAS+ mm, (4, 4).
    """
    grid = GRIDS[name]
    count = resolution or grid.side
    return Lattice(count, cube_affine(grid, grid.side, count), grid.shape, native_affine)


def cube_affine(grid: NativeGrid, side: int, resolution: int) -> Affine:
    """Lattice index → native voxel index: the end-point-aligned zoom, crop, pad, flip and transpose as one affine.

    Args:
        grid: The native grid.
        side: Voxels per axis of the cube.
        resolution: R, lattice voxels per axis.
    """
    step = (side - 1) / (resolution - 1)
    to_turned = np.diag([step, step, step, 1.0])
    for axis in range(3):
        start = (grid.cut[axis].start or 0) - grid.pad[axis][0]
        to_turned[axis, 3] = start
        if grid.flip[axis]:
            last = grid.shape[2 - axis] - 1
            to_turned[axis] = [-v for v in to_turned[axis]]
            to_turned[axis, 3] += last
    transpose = np.array([[0, 0, 1, 0], [0, 1, 0, 0], [1, 0, 0, 0], [0, 0, 0, 1]], dtype=np.float64)
    return np.asarray(transpose @ to_turned)


def assumed_affine(recipe: Recipe) -> Affine:
    """Lattice index → world RAS+ mm, (4, 4), for a scan with the affine of the published data set."""
    return published_lattice(recipe.name, recipe.resolution, GRIDS[recipe.name].affine).affine


def assumption(recipe: Recipe) -> str:
    """The assumption behind `assumed_affine`, in words."""
    return f"the world of the published scans of {GRIDS[recipe.name].scans}; the 2021 files keep no affine"


def prepare_published(native: StrippedScan, label: Volume | None, recipe: Recipe) -> Prepared:
    """Resample a scan to the lattice of a published recipe; see `anofield.data.prepare.prepare_scan`.

    Raises:
        ScanError: The scan's shape differs from that of the data set.
    """
    grid, scan = GRIDS[recipe.name], native.scan
    _check_shape(scan, grid, recipe)
    lattice = published_lattice(recipe.name, recipe.resolution, scan.affine)
    place, values, scale = _published_intensity(scan.data, grid, lattice)
    classes = _scattered(lattice, place, assign(values, recipe.centers), assign(np.zeros(1), recipe.centers)[0])
    if recipe.mode_pool:
        classes = mode_pool(classes, recipe.mode_pool, len(recipe.centers))
    covered, share = zoom_cube(grid.turned(native.brain), grid.start, grid.side, lattice.resolution, 1, np.float32)
    return Prepared(
        classes=classes,
        brain=_scattered(lattice, covered, share > 0.5, False),
        intensity=_scattered(lattice, place, values.astype(np.float32), 0),
        label=None if label is None else _published_label(label, grid, lattice, recipe),
        lattice=lattice,
        recipe=recipe,
        scale=scale,
    )


def normalise_clip_minmax(values: NDArray[np.floating]) -> tuple[float, float]:
    """(a, b) so that (x − a)/b maps the 2nd and 98th percentile to 0 and 1 (published)."""
    low, high = np.percentile(values, CLIP_PERCENTILES)
    return float(low), float(high - low) or 1e-12


def zoom_cube(
    part: Volume, start: Sequence[int], side: int, resolution: int, order: int, dtype: type[Any]
) -> tuple[NDArray[np.intp], NDArray[Any]]:
    """`scipy.ndimage.zoom` of a cube, bit for bit, computed only where non-zero voxels contribute.

    Args:
        part: Content of the cube from index `start` on; the cube is 0 elsewhere.
        start: Index at which `part` starts, on each of the three axes.
        side: Voxels per axis of the cube.
        resolution: R, voxels per axis of the zoomed cube.
        order: 1 linear, 0 nearest neighbour.
        dtype: Type of the values; integers are rounded as scipy does.

    Returns:
        Flat indices into (R, R, R), and the values there.
    """
    box = bounding_box(part != 0)
    if box is None:
        return np.zeros(0, dtype=np.intp), np.zeros(0, dtype=dtype)
    first = [begin + cut.start for begin, cut in zip(start, box, strict=True)]
    if resolution == side:
        places = np.nonzero(part[box])
        values = part[box][places].astype(dtype)
        return np.ravel_multi_index(tuple(p + f for p, f in zip(places, first, strict=True)), (resolution,) * 3), values
    before = [min(f, 1) for f in first]  # non-zero voxels contribute one step outside as well
    padded = np.pad(part[box], [(b, 1) for b in before])
    corners = zip(first, before, padded.shape, strict=True)
    axes = [_zoomed_axis(f - b, n, side, resolution) for f, b, n in corners]
    kept, points = zip(*axes, strict=True)
    places = np.nonzero(_reached(padded != 0, points))
    coordinates = np.stack([line[index] for line, index in zip(points, places, strict=True)])
    values = ndimage.map_coordinates(padded, coordinates, output=dtype, order=order)
    return np.ravel_multi_index(
        tuple(k[index] for k, index in zip(kept, places, strict=True)), (resolution,) * 3
    ), values


def _check_shape(scan: Scan, grid: NativeGrid, recipe: Recipe) -> None:
    if scan.data.shape != grid.shape:
        raise ScanError(
            f"has shape {scan.data.shape}, the recipe {recipe.name} is made for {grid.shape}",
            where=scan.path,
            why="its padding and cropping are fixed",
            remedy="use the box recipe, which takes any grid",
        )


def _published_intensity(
    data: Volume, grid: NativeGrid, lattice: Lattice
) -> tuple[NDArray[np.intp], NDArray[np.float64], tuple[float, float]]:
    """Where the lattice is not background (flat index), the normalised intensity there, and its (a, b)."""
    turned = grid.turned(data)
    box = surroundings(turned != 0, (0, 0, 0))
    part = np.array(turned[box], dtype=np.float64, order="C")
    foreground = part != 0
    values = part[foreground]
    shift, scale = normalise_clip_minmax(values)
    part[foreground] = (np.clip(values, shift, shift + scale, out=values) - shift) / scale
    start = [first + cut.start for first, cut in zip(grid.start, box, strict=True)]
    return *zoom_cube(part, start, grid.side, lattice.resolution, 1, np.float64), (shift, scale)


def _published_label(label: Volume, grid: NativeGrid, lattice: Lattice, recipe: Recipe) -> Classes:
    """Labels on the lattice: those of the nearest voxel, or, as published, linear mixtures rounded to integers."""
    order = 1 if recipe.label_resampling == "published" else 0
    turned = grid.turned(label.clip(0, 255).astype(np.uint8))
    place, values = zoom_cube(turned, grid.start, grid.side, lattice.resolution, order, np.uint8)
    return _scattered(lattice, place, values, 0)


def _scattered(lattice: Lattice, place: NDArray[np.intp], values: NDArray[Any], background: Any) -> NDArray[Any]:
    """Lattice volume (R, R, R) that holds `values` at the flat indices `place`."""
    volume = np.full(lattice.shape, background, dtype=values.dtype)
    volume.reshape(-1)[place] = values
    return volume


def _zoomed_axis(first: int, count: int, side: int, resolution: int) -> tuple[NDArray[np.intp], NDArray[np.float64]]:
    """Lattice indices between `count` cube voxels from index `first` on, and their places relative to it.

    The products are computed as in scipy, which also leaves out a last one that rounding puts beyond the cube.
    Subtracting a non-negative integer is exact.
    """
    place = np.arange(resolution, dtype=np.float64) * ((side - 1) / (resolution - 1))
    kept = np.flatnonzero((place >= first) & (place < first + count - 1) & (place <= side - 1))
    return kept, place[kept] - first


def _reached(filled: Mask, points: Sequence[NDArray[np.float64]]) -> Mask:
    """Points, given per axis, with a filled voxel among their eight neighbours."""
    for axis, line in enumerate(points):
        below = line.astype(np.intp)
        filled = filled.take(below, axis) | filled.take(below + 1, axis)
    return filled
