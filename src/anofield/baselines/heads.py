"""Training heads in memory, and samples of them as if each head lay elsewhere: affine augmentation on the fly.

Only the points of a slice or crop are sampled, so that every step sees new positions at little cost, and the memory is
that of the classes of the cohort.
"""

from __future__ import annotations

import itertools
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from anofield._progress import track
from anofield.data.lattice import bounding_box
from anofield.data.published import assumed_affine, lattice_side
from anofield.data.recipe import Recipe
from anofield.data.store import Store
from anofield.typing import Classes, Mask

TURN = 15.0  # degrees about each axis, at most; DISYRE's published augmentation
SHIFT_MM = 10.0  # along each axis, at most; chosen by hand, as are the next two
SCALES = (0.9, 1.1)
AS_THEY_LIE = 0.25  # share of images that are not moved: sampled between voxels, a head has less noise than a scan


class Moves(NamedTuple):
    """Where the lattice of some images lies in the lattice of their heads: p = linear · (q − centre) + shift + centre.

    Attributes:
        linear: Rotation, scale and perhaps a mirror image, (n, 3, 3).
        shift: Lattice voxels, (n, 3).
    """

    linear: Tensor
    shift: Tensor


@dataclass(frozen=True)
class Heads:
    """Classes of all training heads.

    Attributes:
        codes: Class + 1 in the brain and 0 outside, with a border of one voxel, (person, R + 2, R + 2, R + 2) uint8.
        boxes: First and last lattice index of each brain, (person, 2, 3).
        recipe: Recipe of the store.
    """

    codes: Tensor
    boxes: Tensor
    recipe: Recipe

    @classmethod
    def of(cls, store: Store) -> Heads:
        """Heads of the complete cases of a store."""
        done = store.require_cases()
        codes = np.zeros((len(done), *(store.resolution + 2,) * 3), dtype=np.uint8)
        boxes = np.zeros((len(done), 2, 3), dtype=np.float32)
        for row, index in enumerate(track(done, "heads", len(done))):
            brain = store.brain(index) > 0
            codes[row, 1:-1, 1:-1, 1:-1] = _coded(store.classes(index), brain)
            box = bounding_box(brain) or (slice(0, store.resolution),) * 3
            boxes[row] = [[cut.start for cut in box], [cut.stop - 1 for cut in box]]
        return cls(torch.from_numpy(codes), torch.from_numpy(boxes), store.recipe)

    def choose(self, count: int, generator: torch.Generator) -> Tensor:
        """Random people, (count,)."""
        return torch.randint(len(self.codes), (count,), generator=generator)

    def sample(self, people: Tensor, points: Tensor) -> Tensor:
        """Intensity of a class centre at some points: the mean over the brain around each, then the nearest centre.

        Args:
            people: Person of each image, (n,).
            points: Lattice index of the points, (n, p, 3); fractions are allowed.

        Returns:
            (n, p) float32, 0 where less than half of the weight is brain.
        """
        side = self.codes.shape[-1]
        place = (points + 1).clamp(0, side - 1)
        low = place.floor().clamp_max(side - 2)
        share = place - low
        first = (low[..., 0] * side + low[..., 1]) * side + low[..., 2]
        start = first.long() + people[:, None] * side**3
        flat, table = self.codes.flatten(), code_table(self.recipe)
        total, inside = torch.zeros(start.shape), torch.zeros(start.shape)
        for corner in itertools.product((0, 1), repeat=3):
            weight = torch.stack([share[..., i] if bit else 1 - share[..., i] for i, bit in enumerate(corner)]).prod(0)
            code = flat[start + (corner[0] * side + corner[1]) * side + corner[2]].long()
            total += weight * table[code]
            inside += weight * (code > 0)
        mean = total / inside.clamp_min(1e-6)
        return torch.where(inside > 0.5, snapped(mean, self.recipe), 0)


def code_table(recipe: Recipe) -> Tensor:
    """Intensity of every code: 0 outside the brain, then the class centres, (k + 1,)."""
    return torch.tensor([0.0, *recipe.centers])


def brain_centers(recipe: Recipe) -> Tensor:
    """Centres of the classes that a brain voxel can have, in increasing order."""
    return torch.tensor(recipe.centers[int(recipe.kind.outside_class) :])


def snapped(values: Tensor, recipe: Recipe) -> Tensor:
    """The nearest centre of a brain class, any shape: scans are seen by their classes, so training images are too."""
    centers = brain_centers(recipe)
    return centers[torch.bucketize(values, (centers[1:] + centers[:-1]) / 2)]


def voxel_mm(recipe: Recipe) -> float:
    """Edge of a lattice voxel in mm: of the box, or of the published grid."""
    if not recipe.kind.published:
        return recipe.box_mm / lattice_side(recipe)
    return float(np.linalg.norm(assumed_affine(recipe)[:3, 0]))


def random_moves(recipe: Recipe, count: int, generator: torch.Generator) -> Moves:
    """Random rotations, scales, shifts and mirror images; `AS_THEY_LIE` of them are the identity."""
    turns, shifts = (2 * torch.rand((2, count, 3), generator=generator) - 1).unbind()
    scale, mirrored, moved = torch.rand((3, count), generator=generator).unbind()
    linear = rotations(turns * np.deg2rad(TURN)) * (SCALES[0] + scale * (SCALES[1] - SCALES[0]))[:, None, None]
    sign = torch.ones((count, 3))
    sign[:, recipe.kind.left_right] = torch.where(mirrored < 0.5, -1.0, 1.0)
    shift = shifts * SHIFT_MM / voxel_mm(recipe)
    moved = moved >= AS_THEY_LIE
    linear = torch.where(moved[:, None, None], linear * sign[:, :, None], torch.eye(3))
    return Moves(linear, shift * moved[:, None])


def rotations(angles: Tensor) -> Tensor:
    """Rotation matrices, (n, 3, 3), for angles about the axes 0, 1, 2 in this order, (n, 3) radians."""
    result = torch.eye(3).expand(len(angles), 3, 3)
    for axis in range(3):
        one, other = (i for i in range(3) if i != axis)
        turn = torch.eye(3).repeat(len(angles), 1, 1)
        cos, sin = angles[:, axis].cos(), angles[:, axis].sin()
        turn[:, one, one], turn[:, one, other] = cos, -sin
        turn[:, other, one], turn[:, other, other] = sin, cos
        result = turn @ result
    return result


def moved_points(points: Tensor, moves: Moves, side: int) -> Tensor:
    """Place in the heads of some points of the images, both lattice indices, (n, p, 3)."""
    centre = (side - 1) / 2
    return (points - centre) @ moves.linear.transpose(1, 2) + moves.shift[:, None] + centre


def moved_crops(heads: Heads, side: int, count: int, generator: torch.Generator, moved: bool) -> Tensor:
    """Random cubes within the boxes of the brains, (count, 1, side, side, side); around the brain where it is smaller.

    Args:
        heads: Training heads.
        side: Voxels per axis of a cube.
        count: Number of cubes.
        generator: Source of all random numbers.
        moved: Whether the heads are moved at random.
    """
    people = heads.choose(count, generator)
    box = heads.boxes[people]
    room = box[:, 1] - box[:, 0] + 1 - side
    place = torch.rand((count, 3), generator=generator)
    start = box[:, 0] + torch.where(room > 0, (place * (room + 1)).floor(), (room / 2).floor())
    axis = torch.arange(side, dtype=torch.float32)
    grid = torch.cartesian_prod(axis, axis, axis)
    points = grid + start[:, None]
    if moved:
        moves, middle = random_moves(heads.recipe, count, generator), (side - 1) / 2
        points = (grid - middle) @ moves.linear.transpose(1, 2) + (start + middle + moves.shift)[:, None]
    return heads.sample(people, points).reshape(count, 1, side, side, side)


def _coded(classes: Classes, brain: Mask) -> Classes:
    return np.where(brain, classes + np.uint8(1), np.uint8(0)).astype(np.uint8)
