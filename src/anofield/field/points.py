"""Points of the field's box: random batches for training and fitting, dense grids for decoding."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from anofield.data.lattice import Convention, field_coordinates

DECODE_POINTS = 32_768  # points decoded at a time: some tens of megabytes of activations


def axis_coordinates(resolution: int, convention: Convention) -> Tensor:
    """Field coordinates of the R voxels of one axis, (R,) float32."""
    return torch.from_numpy(field_coordinates(np.arange(resolution, dtype=np.float64), resolution, convention)).float()


def coordinates_of(flat: Tensor, resolution: int, axis: Tensor) -> Tensor:
    """Field coordinates of flat lattice indices.

    Args:
        flat: Index i·R² + j·R + k, (…,) int64.
        resolution: R.
        axis: Coordinates of one axis, (R,), from `axis_coordinates`.

    Returns:
        (…, 3) float32.
    """
    i = torch.div(flat, resolution * resolution, rounding_mode="floor")
    j = torch.div(flat, resolution, rounding_mode="floor") % resolution
    return axis[torch.stack((i, j, flat % resolution), dim=-1)]


@dataclass(frozen=True, kw_only=True)
class PointOptions:
    """How the points of a case are drawn.

    Attributes:
        lattice: Position of a voxel in the field, `center` or `corner`.
        count: Points per case and batch.
        fraction: Share of the points drawn inside the brain, the rest anywhere in the box; 0 as published.
        seed: Seed of the points.
    """

    lattice: Convention
    count: int
    fraction: float = 0.0
    seed: int = 0


@dataclass(frozen=True)
class Sampler:
    """Draws random lattice points of a case, with replacement.

    Attributes:
        axis: Field coordinates of one axis, (R,).
        brain: Flat indices for `fraction` of the points, (b,) int64: voxels that are brain in any case.
        count: Points per case, n.
        fraction: Share of the points drawn among `brain`, the rest anywhere in the box; 0 as published.
    """

    axis: Tensor
    brain: Tensor
    count: int
    fraction: float

    def draw(self, classes: Tensor, generator: torch.Generator) -> tuple[Tensor, Tensor]:
        """Draw the points of one case.

        Args:
            classes: Class volume, (R³,) uint8, on the device where the points are needed.
            generator: Source of randomness, on the same device.

        Returns:
            Field coordinates (n, 3) float32, and classes (n,) int64.
        """
        inside, device = round(self.count * self.fraction), classes.device
        flat = torch.randint(len(classes), (self.count - inside,), generator=generator, device=device)
        if inside:
            picked = torch.randint(max(len(self.brain), 1), (inside,), generator=generator, device=device)
            flat = torch.cat((flat, self.brain[picked]))
        return coordinates_of(flat, len(self.axis), self.axis), classes[flat].long()
