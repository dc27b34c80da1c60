"""Points of the field's box: random batches for training and fitting, dense grids for decoding."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from anofield.lattice import Convention, field_coordinates


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
    return torch.stack((axis[i], axis[j], axis[flat % resolution]), dim=-1)


@dataclass(frozen=True)
class Volumes:
    """Class volumes of a cohort, flattened and resident on one device.

    Attributes:
        classes: (case, R³) uint8.
        brain: Flat indices of voxels that are brain in at least one case, (b,) int64.
        axis: Field coordinates of one axis, (R,).
        resolution: R.
    """

    classes: Tensor
    brain: Tensor
    axis: Tensor
    resolution: int

    @classmethod
    def stack(
        cls, classes: Sequence[np.ndarray], brain: Sequence[np.ndarray], convention: Convention, device: torch.device
    ) -> Volumes:
        """Gather the volumes of some cases.

        Args:
            classes: One (R, R, R) uint8 array per case.
            brain: One (R, R, R) array per case, non-zero in the brain.
            convention: Of the lattice.
            device: Where they stay.
        """
        resolution = int(classes[0].shape[0])
        flat = torch.from_numpy(np.stack([c.reshape(-1) for c in classes])).to(device)  # (case, R³)
        union = np.zeros(brain[0].size, dtype=bool)
        for mask in brain:
            union |= mask.reshape(-1) != 0
        index = torch.from_numpy(np.flatnonzero(union)).to(device)
        return cls(flat, index, axis_coordinates(resolution, convention).to(device), resolution)

    def batch(
        self, rows: Tensor, count: int, brain_fraction: float, generator: torch.Generator
    ) -> tuple[Tensor, Tensor]:
        """Draw random lattice points of some cases, with replacement.

        Args:
            rows: Cases, (c,) int64.
            count: Points per case, n.
            brain_fraction: Share of the points drawn among `brain`, the rest anywhere in the box; 0 as published.
            generator: Source of randomness, on the CPU whatever the device.

        Returns:
            Field coordinates (c, n, 3) float32, and classes (c, n) int64.
        """
        inside = round(count * brain_fraction)
        anywhere = torch.randint(self.resolution**3, (len(rows), count - inside), generator=generator)
        picked = torch.randint(max(len(self.brain), 1), (len(rows), inside), generator=generator)
        device = self.classes.device
        flat = torch.cat((anywhere.to(device), self.brain[picked.to(device)]), dim=1)  # (case, point)
        targets = self.classes[rows.to(device)[:, None], flat].long()
        return coordinates_of(flat, self.resolution, self.axis), targets
