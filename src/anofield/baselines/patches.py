"""Healthy patches: the cells of the lattice, the description of a patch, and a small set that covers many patches."""

from __future__ import annotations

import itertools
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from scipy import ndimage
from torch import Tensor

from anofield._progress import track
from anofield.typing import FloatVolume, Mask

CELLS = 16  # cells per axis of the lattice, at most
SCALES_MM = (3.0, 9.0)  # distances between the 3³ samples of a patch; the voxel of the lattice at R = 64, and 3 of them
FEATURES = 27 * len(SCALES_MM)  # numbers that describe a patch before they are reduced


@dataclass(frozen=True)
class Cells:
    """Division of the lattice into cubic cells.

    Attributes:
        resolution: R, lattice voxels per axis.
    """

    resolution: int

    @property
    def side(self) -> int:
        """Voxels per axis of a cell."""
        return -(-self.resolution // CELLS)

    @property
    def shape(self) -> tuple[int, int, int]:
        """Cells per axis."""
        return (-(-self.resolution // self.side),) * 3

    def of(self, voxels: NDArray[np.intp]) -> NDArray[np.intp]:
        """Number of the cell of each voxel, (n, 3) lattice index → (n,)."""
        return np.asarray(np.ravel_multi_index(tuple((voxels // self.side).T), self.shape))

    def draw(self, brain: Mask, margin: int, count: int, generator: np.random.Generator) -> NDArray[np.intp]:
        """Random brain voxels around every cell.

        Args:
            brain: Brain voxels, (R, R, R).
            margin: Voxels by which a cell is widened to each side.
            count: Voxels per cell.
            generator: Source of the random numbers.

        Returns:
            (cell, count, 3) lattice index; −1 where the voxel that was drawn is not brain.
        """
        start = np.indices(self.shape).reshape(3, -1).T * self.side - margin
        voxels = start[:, None] + generator.integers(0, self.side + 2 * margin, (len(start), count, 3))
        off = ((voxels < 0) | (voxels >= self.resolution)).any(-1)
        voxels[off] = 0
        voxels[off | ~brain[tuple(np.moveaxis(voxels, -1, 0))]] = -1
        return np.asarray(voxels)


def described(values: FloatVolume, brain: Mask, voxels: NDArray[np.intp], mm: float) -> NDArray[np.float32]:
    """Intensities around some voxels, (n, `FEATURES`): 3³ samples at each scale, smoothed as far as they lie apart.

    Outside the brain the median of the brain is taken, so that the outline of the brain counts little.

    Args:
        values: Intensity of the class centres, (R, R, R).
        brain: Brain voxels, (R, R, R).
        voxels: Lattice index, (n, 3).
        mm: Edge of a lattice voxel.
    """
    filled = np.where(brain, values, np.median(values[brain]) if brain.any() else np.float32(0)).astype(np.float32)
    columns = []
    for scale in SCALES_MM:
        step = max(round(scale / mm), 1)
        smooth = ndimage.gaussian_filter(filled, step / 2) if step > 1 else filled
        wide = np.pad(smooth, step, mode="edge")
        flat = np.ravel_multi_index(tuple(voxels.T + step), wide.shape)
        for shift in itertools.product((-step, 0, step), repeat=3):
            away = (shift[0] * wide.shape[1] + shift[1]) * wide.shape[2] + shift[2]
            columns.append(wide.ravel()[flat + away])
    return np.stack(columns, axis=1)


def principal(features: Tensor, count: int) -> tuple[Tensor, Tensor]:
    """Mean (f,) and the directions of largest variance (f, count) of some features (n, f)."""
    mean = features.double().mean(0)
    apart = features.double() - mean
    _, vectors = torch.linalg.eigh(apart.T @ apart)
    return mean.float(), vectors.flip(1)[:, :count].float().contiguous()


def coreset(patches: Tensor, valid: Tensor, count: int) -> Tensor:
    """Numbers of the patches of each cell that cover the others best, (cell, count): greedy k-centre, as in PatchCore.

    The first choice is the first valid patch; each further one is the patch farthest from all choices. A cell with
    fewer valid patches repeats some.

    Args:
        patches: (cell, n, component).
        valid: Patches that may be chosen, (cell, n); at least one of each cell.
        count: Patches to choose.
    """
    cell = torch.arange(len(patches))
    chosen = torch.empty((len(patches), count), dtype=torch.long)
    chosen[:, 0] = valid.int().argmax(1)
    norms = (patches**2).sum(2)
    nearest = torch.where(valid, torch.inf, -1.0)
    for number in track(range(1, count), "coreset", count - 1):
        last = chosen[:, number - 1]
        products = torch.bmm(patches, patches[cell, last][:, :, None])[:, :, 0]
        apart = (norms + norms[cell, last][:, None] - 2 * products).clamp_min(0)
        nearest = torch.minimum(nearest, torch.where(valid, apart, -1.0))
        chosen[:, number] = nearest.argmax(1)
    return chosen


def spread(patches: Tensor, valid: Tensor, count: int) -> Tensor:
    """Numbers of patches of each cell, evenly spaced in their order, (cell, count); arguments as in `coreset`."""
    found = valid.sum(1, keepdim=True)
    first = torch.argsort(~valid, dim=1, stable=True)  # the valid ones in their order
    return first.gather(1, torch.arange(count) * found // count)
