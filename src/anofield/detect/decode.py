"""Decoding: class probabilities of the field at every brain voxel of a scan."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from scipy import ndimage
from torch import Tensor
from torch.nn import functional

from anofield.data.lattice import field_coordinates
from anofield.data.prepared import Prepared
from anofield.detect.pose import Placement
from anofield.field.decoder import Field
from anofield.field.points import DECODE_POINTS, axis_coordinates, coordinates_of
from anofield.typing import FloatVolume


@dataclass(frozen=True)
class Person:
    """A healthy subject that the field predicts: class logits at any field coordinate.

    Attributes:
        field: The field, its weights frozen.
        code: Code of the subject, (code,).
        device: Device of the field.
        place: Map from the scan's field coordinates to the points where the field is evaluated, for example the pose of
            the head; None for no change.
    """

    field: Field
    code: Tensor
    device: torch.device
    place: Placement | None = None

    def logits(self, points: Tensor) -> Tensor:
        """Logits at field coordinates (n, 3), (n, class) float32 on the CPU."""
        codes = self.code[None].to(self.device)
        with torch.no_grad():
            parts = [
                self.field.logits(placed(some.to(self.device), self.place)[None], codes)[0]
                for some in points.split(DECODE_POINTS)
            ]
            return torch.cat(parts).float().cpu()


def decode(person: Person, prepared: Prepared, stride: int = 1) -> Tensor:
    """Log-probabilities of the classes at the brain voxels of the lattice, (voxel, class) float32 on the CPU.

    Voxels come in the order of `numpy.flatnonzero(prepared.brain)`. If the recipe reserves class 0 for the outside,
    the probabilities are conditional on the voxel being brain. Otherwise the rim would deviate, because there the field
    gives the outside a high probability.

    Args:
        person: Healthy subject to decode.
        prepared: The scan on its lattice.
        stride: Voxels between decoded ones; the logits between them are linearly interpolated.
    """
    index = torch.from_numpy(np.flatnonzero(prepared.brain))
    resolution, convention = prepared.lattice.resolution, prepared.recipe.lattice
    if stride == 1:
        logits = person.logits(coordinates_of(index, resolution, axis_coordinates(resolution, convention)))
    else:
        logits = _interpolated(person, index, prepared, stride)
    if prepared.recipe.outside_class:
        logits[:, 0] = -torch.inf
    return torch.log_softmax(logits, dim=-1)


def expected_class(log_p: Tensor) -> Tensor:
    """Mean class under log-probabilities (voxel, class), (voxel,)."""
    p = log_p.exp()
    return p @ torch.arange(p.shape[1], dtype=p.dtype)


def on_lattice(values: Tensor, prepared: Prepared) -> FloatVolume:
    """Values of the brain voxels (voxel,) as a lattice volume (R, R, R), 0 elsewhere."""
    volume = np.zeros(prepared.lattice.shape, dtype=np.float32)
    volume[prepared.brain] = values.numpy()
    return volume


def placed(points: Tensor, place: Placement | None) -> Tensor:
    """Field coordinates of the scan (n, 3) → points where the field is evaluated (n, 3)."""
    return points if place is None else place.to(points.device)(points)


def _interpolated(person: Person, index: Tensor, prepared: Prepared, stride: int) -> Tensor:
    """Logits at flat lattice indices (n,) from those at every `stride`-th voxel per axis, (n, class)."""
    resolution = prepared.lattice.resolution
    nodes = np.arange(-(-(resolution - 1) // stride) + 1) * stride  # the last node may be outside the lattice
    axis = torch.from_numpy(field_coordinates(nodes.astype(float), resolution, prepared.recipe.lattice)).float()
    inside = np.minimum(nodes, resolution - 1)
    near = ndimage.maximum_filter(prepared.brain, size=2 * stride + 1)[np.ix_(inside, inside, inside)]
    where = torch.from_numpy(np.flatnonzero(near))
    known = person.logits(coordinates_of(where, len(nodes), axis))
    found, side = torch.empty(len(index), known.shape[1]), stride * (len(nodes) - 1) + 1
    for number in range(known.shape[1]):  # one class at a time, so that only one volume is in memory
        coarse = torch.zeros(len(nodes) ** 3)
        coarse[where] = known[:, number]
        grid = coarse.reshape(1, 1, len(nodes), len(nodes), len(nodes))
        fine = functional.interpolate(grid, size=(side, side, side), mode="trilinear", align_corners=True)[0, 0]
        found[:, number] = fine[:resolution, :resolution, :resolution].reshape(-1)[index]
    return found
