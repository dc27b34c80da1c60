"""Pose of a head in the field's box: rotation, size and shift of the field coordinates, fitted together with the code.

For a rotated scan the field is evaluated at rotated points, so the scan needs no registration beforehand.
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
TILTS = (-0.3, 0.0, 0.3)  # rad about each axis, at which the fit may start; it corrects about as much again
TILT_MARGIN = 0.1  # nats by which a tilt must be better than none to be the start of a fit; chosen by hand
POSE_SD = (0.2, 0.05, 0.1)  # SD of rotation (rad), shift (field units: 5 mm of a 200 mm box) and log size
Loss = Callable[[Tensor], Tensor]  # field coordinates (k, n, 3) → mean loss (k,)


class Placement(Protocol):
    """Map from the scan's field coordinates to coordinates in the training's frame."""

    def __call__(self, points: Tensor) -> Tensor:
        """(n, 3) → (n, 3)."""

    def to(self, device: torch.device) -> Placement:
        """Copy on a device."""


@dataclass(frozen=True)
class Pose:
    """Map from the scan's field coordinates u to coordinates in the training's frame, R (s u) + t.

    Attributes:
        turn: Rotation vector of R, rad, (3,).
        shift: Shift t, field units (half boxes), (3,).
        log_size: Log size, log s, (1,).
    """

    turn: Tensor
    shift: Tensor
    log_size: Tensor

    @classmethod
    def start(cls, turn: Tensor) -> Pose:
        """Pose with this rotation, without shift and scaling."""
        return cls(turn.clone(), torch.zeros(3), torch.zeros(1))

    def __call__(self, points: Tensor) -> Tensor:
        """(…, 3) → (…, 3)."""
        return (points * self.log_size.exp()) @ rotation(self.turn).T + self.shift

    def cost(self) -> Tensor:
        """Squared distance from the identity, in standard deviations of `POSE_SD`."""
        turn, shift, size = POSE_SD
        parts = ((self.turn, turn), (self.shift, shift), (self.log_size, size))
        return torch.stack([(value / sd).square().sum() for value, sd in parts]).sum()

    def parameters(self) -> list[Tensor]:
        """Tensors to fit, with gradients switched on."""
        return [value.requires_grad_(True) for value in (self.turn, self.shift, self.log_size)]

    def detach(self) -> Pose:
        """Copy without gradients, on the CPU."""
        return Pose(self.turn.detach().cpu(), self.shift.detach().cpu(), self.log_size.detach().cpu())

    def to(self, device: torch.device) -> Pose:
        """Copy on a device."""
        return Pose(self.turn.to(device), self.shift.to(device), self.log_size.to(device))

    def describe(self) -> dict[str, object]:
        """Pose of the head relative to the training's, as plain values: rotation, size, and shift in half boxes."""
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


def search(loss: Loss, points: Tensor) -> Pose:
    """The pose at which a fit starts: without a tilt, unless another tilt is better by `TILT_MARGIN`.

    A tilt that is better by less says little: where a brain was stripped tightly or has shrunk, tilts by 0.3 rad were
    better by up to 0.07 nats, and the fit then stayed near them.

    Args:
        loss: Mean loss of points with the mean code.
        points: Field coordinates, (n, 3).
    """
    tilts = torch.tensor(list(itertools.product(TILTS, repeat=3)), dtype=torch.float32)
    found = losses_of(loss, points, torch.stack([rotation(tilt) for tilt in tilts]).to(points))
    best, centre = found.min(dim=0), len(tilts) // 2
    tilted = float(best.values) < float(found[centre]) - TILT_MARGIN
    return Pose.start(tilts[int(best.indices) if tilted else centre])


def losses_of(loss: Loss, points: Tensor, matrices: Tensor) -> Tensor:
    """Loss of points (n, 3) under each of these rotations (k, 3, 3), (k,)."""
    return torch.cat([loss((points @ matrix.T)[None]) for matrix in matrices])


def quarter_turns() -> Tensor:
    """The 23 rotations that map a cube onto itself, without the identity, (23, 3, 3)."""
    turns = np.rint(Rotation.create_group("O").as_matrix())
    return torch.tensor([turn for turn in turns.tolist() if not np.array_equal(turn, np.eye(3))], dtype=torch.float32)
