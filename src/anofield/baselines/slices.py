"""Lattice volumes to square axial slices and back; the published autoencoders work on such slices."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional

from anofield._progress import track
from anofield.baselines.base import observed_in
from anofield.baselines.heads import Heads, moved_points, random_moves
from anofield.data.published import lattice_side
from anofield.data.recipe import Recipe
from anofield.data.store import Store
from anofield.typing import FloatVolume

SIDE_LIMIT = 128  # pixels; Baur et al. 2021 and Kascenas et al. 2022 work on slices of 128²
MULTIPLE = 16  # the networks halve a slice up to four times


@dataclass(frozen=True)
class Slicing:
    """Cuts lattice volumes into axial slices and puts the slices together again.

    Attributes:
        axis: Lattice axis from foot to head.
        resolution: Lattice voxels per axis, R.
    """

    axis: int
    resolution: int

    @classmethod
    def of(cls, recipe: Recipe) -> Slicing:
        """Slicing of the lattice of a recipe."""
        return cls(recipe.kind.axial, lattice_side(recipe))

    @property
    def side(self) -> int:
        """Pixels per axis of a slice: R filled up to the next multiple of 16, at most 128."""
        return min(-(-self.resolution // MULTIPLE) * MULTIPLE, SIDE_LIMIT)

    def cut(self, volume: FloatVolume) -> Tensor:
        """(R, R, R) → (R slices, 1, side, side) float32; padded with 0, or resampled where R is above 128."""
        return self.fitted(torch.from_numpy(np.ascontiguousarray(np.moveaxis(volume, self.axis, 0)))[:, None])

    def fitted(self, slices: Tensor) -> Tensor:
        """(n, 1, R, R) → (n, 1, side, side); padded with 0, or resampled where R is above 128."""
        if self.resolution > self.side:
            return _resized(slices, self.side)
        before, after = self._padding()
        return functional.pad(slices, (before, after, before, after))

    def paste(self, slices: Tensor) -> FloatVolume:
        """(R slices, 1, side, side) → (R, R, R)."""
        if self.resolution > self.side:
            slices = _resized(slices, self.resolution)
        else:
            before, _ = self._padding()
            inner = slice(before, before + self.resolution)
            slices = slices[:, :, inner, inner]
        return np.ascontiguousarray(np.moveaxis(slices[:, 0].cpu().numpy(), 0, self.axis), dtype=np.float32)

    def _padding(self) -> tuple[int, int]:
        missing = self.side - self.resolution
        return missing // 2, missing - missing // 2


def training_slices(store: Store, slicing: Slicing) -> Tensor:
    """Slices with brain of all complete cases, (slice, 1, side, side) float16 to save memory.

    Slices with only a few brain pixels are included: a network that never saw them would reproduce them as empty, and
    they would score high.
    """
    done = store.require_cases()
    parts = []
    for index in track(done, "slices", len(done)):
        slices = slicing.cut(observed_in(store, index))
        parts.append(slices[slices.flatten(1).any(1)].half())
    return torch.cat(parts)


def moved_slices(heads: Heads, slicing: Slicing, count: int, generator: torch.Generator) -> Tensor:
    """Random axial slices of heads that are moved at random, (count, 1, side, side)."""
    people, moves = heads.choose(count, generator), random_moves(heads.recipe, count, generator)
    centre, axis = (slicing.resolution - 1) / 2, slicing.axis
    ends = torch.full((count, 2, 3), centre)  # where the line through the box's centre enters and leaves the brain
    ends[:, :, axis] = heads.boxes[people][:, :, axis]
    back = torch.linalg.inv(moves.linear).transpose(1, 2)
    height = ((ends - centre - moves.shift[:, None]) @ back + centre)[:, :, axis]
    share = torch.rand(count, generator=generator)
    level = (height[:, 0] + share * (height[:, 1] - height[:, 0])).round().clamp(0, slicing.resolution - 1)
    inner = torch.cartesian_prod(*[torch.arange(slicing.resolution, dtype=torch.float32)] * 2)
    points = torch.empty((count, len(inner), 3))
    points[..., [i for i in range(3) if i != axis]] = inner
    points[..., axis] = level[:, None]
    values = heads.sample(people, moved_points(points, moves, slicing.resolution))
    return slicing.fitted(values.reshape(count, 1, slicing.resolution, slicing.resolution))


def _resized(slices: Tensor, side: int) -> Tensor:
    return functional.interpolate(slices, size=(side, side), mode="bilinear", antialias=True, align_corners=False)
