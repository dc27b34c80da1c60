"""Pose of a head in the field's box: rotation, size, shear and shift of its coordinates, fitted together with the code.

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

from anofield.typing import Affine

PoseKind = Literal["none", "similarity", "affine"]
TILTS = (-0.3, 0.0, 0.3)  # rad about each axis, at which the fit may start; it corrects about as much again
# SD of rotation (rad), shift (field units: 5 mm of a 200 mm box), log size and shear; chosen by hand. The lengths of
# adult brains vary by about 5 % (SD) on each axis, so that 0.1 hardly holds a size back.
POSE_SD = (0.2, 0.05, 0.1, 0.05)
TILT_MARGIN = 0.1  # nats by which a tilt must be better than none to be the start of a fit; chosen by hand
Loss = Callable[[Tensor], Tensor]  # field coordinates (k, n, 3) → mean loss (k,)


class Placement(Protocol):
    """Map from the scan's field coordinates to coordinates in the training's frame."""

    def __call__(self, points: Tensor) -> Tensor:
        """(n, 3) → (n, 3)."""

    def to(self, device: torch.device) -> Placement:
        """Copy on a device."""


@dataclass(frozen=True)
class Pose:
    """Map from the scan's field coordinates u to coordinates in the training's frame, R (K (s u)) + t.

    Attributes:
        turn: Rotation vector of R, rad, (3,).
        shift: Shift t, field units (half boxes), (3,).
        log_size: Log size, log s: (1,) for a similarity, (3,) with a size for each axis for an affine map.
        shear: Entries (0, 1), (0, 2) and (1, 2) of K, whose diagonal is 1, (3,); None for a similarity, without K.
    """

    turn: Tensor
    shift: Tensor
    log_size: Tensor
    shear: Tensor | None = None

    @classmethod
    def start(cls, turn: Tensor) -> Pose:
        """Pose with this rotation, without shift and scaling."""
        return cls(turn.clone(), torch.zeros(3), torch.zeros(1))

    def __call__(self, points: Tensor) -> Tensor:
        """(…, 3) → (…, 3)."""
        sized = points * self.log_size.exp()
        if self.shear is not None:
            sized = sized @ shearing(self.shear).T
        return sized @ rotation(self.turn).T + self.shift

    @property
    def matrix(self) -> Affine:
        """The map in field coordinates, (4, 4) float64."""
        corners = torch.cat([torch.zeros(1, 3), torch.eye(3)]).to(self.shift)
        moved = self(corners).detach().cpu().numpy().astype(np.float64)
        matrix = np.eye(4)
        matrix[:3, :3], matrix[:3, 3] = (moved[1:] - moved[0]).T, moved[0]
        return matrix

    def as_kind(self, kind: PoseKind) -> Pose:
        """The start of a fit of this kind, with the same rotation, shift and size."""
        if kind != "affine":
            return self
        return Pose(self.turn, self.shift, self.log_size.expand(3).clone(), torch.zeros(3))

    def cost(self) -> Tensor:
        """Squared distance from the identity, in standard deviations of `POSE_SD`."""
        parts = zip(self._values(), POSE_SD, strict=False)
        return torch.stack([(value / sd).square().sum() for value, sd in parts]).sum()

    def parameters(self) -> list[Tensor]:
        """Tensors to fit, with gradients switched on."""
        return [value.requires_grad_(True) for value in self._values()]

    def detach(self) -> Pose:
        """Copy without gradients, on the CPU."""
        return Pose(*(value.detach().cpu() for value in self._values()))

    def to(self, device: torch.device) -> Pose:
        """Copy on a device."""
        return Pose(*(value.to(device) for value in self._values()))

    def describe(self) -> dict[str, object]:
        """Pose of the head relative to the training's, as plain values: rotation, size, and shift in half boxes.

        An affine pose also has the sizes along the three axes and the shears; its `size` is their geometric mean.
        """
        plain: dict[str, object] = {
            "turn_degrees": [round(float(value), 2) for value in torch.rad2deg(-self.turn)],
            "shift": [round(float(value), 4) for value in -self.shift],
            "size": round(float(torch.exp(-self.log_size.mean())), 4),
        }
        if self.shear is not None:
            plain["sizes"] = [round(float(value), 4) for value in torch.exp(-self.log_size)]
            plain["shears"] = [round(float(value), 4) for value in -self.shear]
        return plain

    def _values(self) -> list[Tensor]:
        """The fitted tensors, in the order of `POSE_SD`."""
        return [self.turn, self.shift, self.log_size, *([] if self.shear is None else [self.shear])]


def shearing(shear: Tensor) -> Tensor:
    """Upper triangular matrix (3, 3) with these entries (3,) above a diagonal of 1."""
    one, zero = torch.ones_like(shear[0]), torch.zeros_like(shear[0])
    x, y, z = shear
    return torch.stack((one, x, y, zero, one, z, zero, zero, one)).reshape(3, 3)


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
