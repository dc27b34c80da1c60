"""Pose of a head in the field's box: turn, size and shift of the field coordinates, fitted jointly with the code.

A scan that lies turned in its box is looked up at turned points, so it needs no registration beforehand.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal, Protocol

import numpy as np
import torch
from scipy.spatial.transform import Rotation
from torch import Tensor

PoseKind = Literal["none", "similarity"]
TILTS = (
    -0.3,
    0.0,
    0.3,
)  # rad about each axis from which the fit may start; from there it follows as far
POSE_SD = (
    0.2,
    0.05,
    0.1,
)  # of turn (rad), shift (field units: 5 mm of a 200 mm box) and log size
Loss = Callable[[Tensor], Tensor]  # field coordinates (k, n, 3) → mean loss (k,)


class Placement(Protocol):
    """Scan's field coordinates → coordinates in the training's frame."""

    def __call__(self, points: Tensor) -> Tensor:
        """(n, 3) → (n, 3)."""

    def to(self, device: torch.device) -> Placement:
        """On a device."""


@dataclass(frozen=True)
class Pose:
    """Scan's field coordinates u → coordinates in the training's frame: R (s u) + t.

    Attributes:
        turn: Rotation vector, rad, (3,).
        shift: t in field units (half boxes), (3,).
        log_size: log s, (1,).
    """

    turn: Tensor
    shift: Tensor
    log_size: Tensor

    @classmethod
    def start(cls, turn: Tensor) -> Pose:
        """Of this turn, neither shifted nor scaled."""
        return cls(turn.clone(), torch.zeros(3), torch.zeros(1))

    def __call__(self, points: Tensor) -> Tensor:
        """(…, 3) → (…, 3)."""
        return (points * self.log_size.exp()) @ rotation(self.turn).T + self.shift

    def cost(self) -> Tensor:
        """Squared distance from no displacement, in standard deviations of `POSE_SD`."""
        turn, shift, size = POSE_SD
        parts = ((self.turn, turn), (self.shift, shift), (self.log_size, size))
        return torch.stack([(value / sd).square().sum() for value, sd in parts]).sum()

    def parameters(self) -> list[Tensor]:
        """What is fitted, ready for an optimiser."""
        return [value.requires_grad_(True) for value in (self.turn, self.shift, self.log_size)]

    def detach(self) -> Pose:
        """Without gradients, on the CPU."""
        return Pose(self.turn.detach().cpu(), self.shift.detach().cpu(), self.log_size.detach().cpu())

    def to(self, device: torch.device) -> Pose:
        """On a device."""
        return Pose(self.turn.to(device), self.shift.to(device), self.log_size.to(device))

    def describe(self) -> dict[str, object]:
        """How the scan's head lies against the training's, as plain values: turn, size, and shift in half boxes."""
        return {
            "turn_degrees": [round(float(value), 2) for value in torch.rad2deg(-self.turn)],
            "shift": [round(float(value), 4) for value in -self.shift],
            "size": round(float(torch.exp(-self.log_size)), 4),
        }


def rotation(turn: Tensor) -> Tensor:
    """Rotation matrix (3, 3) of a rotation vector (3,); differentiable at 0."""
    x, y, z = turn
    zero = torch.zeros_like(x)
    skew = torch.stack((zero, -z, y, z, zero, -x, -y, x, zero)).reshape(3, 3)
    return torch.matrix_exp(skew)


def search(loss: Loss, points: Tensor) -> tuple[Pose, bool]:
    """The best of some turns, and whether a turn by quarters (a wrong orientation) beats every tilt.

    Args:
        loss: Of points at the mean code.
        points: Field coordinates, (n, 3).
    """
    tilts = torch.tensor(list(itertools.product(TILTS, repeat=3)), dtype=torch.float32)
    quarters = _quarter_turns().to(points)
    matrices = torch.cat([torch.stack([rotation(tilt) for tilt in tilts]).to(points), quarters])
    found = torch.cat([loss((points @ matrix.T)[None]) for matrix in matrices])
    best, other = found[: len(tilts)].min(dim=0), found[len(tilts) :].min()
    centre = int(len(tilts) // 2)
    start = best.indices if float(best.values) < float(found[centre]) else torch.tensor(centre)
    return Pose.start(tilts[int(start)]), bool(other < best.values)


def _quarter_turns() -> Tensor:
    """The 23 turns of a cube into itself but the one that changes nothing, (23, 3, 3)."""
    turns = np.rint(Rotation.create_group("O").as_matrix())
    return torch.tensor([turn for turn in turns.tolist() if not np.array_equal(turn, np.eye(3))], dtype=torch.float32)
