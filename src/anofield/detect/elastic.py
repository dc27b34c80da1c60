"""Elastic alignment: the field is looked up where its healthy anatomy lies on the scan's (demons, Thirion 1998).

Code and pose leave sulci and ventricles a few millimetres off, and every such rim looks like a small lesion. A smooth
displacement takes them away; a lesion that is no displaced anatomy stays.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from scipy import ndimage
from torch import Tensor
from torch.nn import functional

from anofield.data.lattice import FWHM, bounding_box
from anofield.data.prepare import Prepared
from anofield.detect.pose import Pose
from anofield.typing import FloatVolume, Mask

BLURS = (1.0, 0.0)  # voxels, coarse to fine
STEPS = 12  # at each of them
LARGEST = 3.0  # classes that a difference counts for at most: a lesion must not pull more than a rim does
FLAT = 0.1  # classes per voxel below which a slope says nothing


@dataclass(frozen=True)
class Elastic:
    """Scan's field coordinates u → pose(u + d(u)), where the field is looked up.

    Attributes:
        shift: d at the nodes, field units, (3, n, n, n).
        pose: Applied afterwards; None for none.
        stride: Lattice voxels between nodes.
        resolution: R of the lattice.
        corner: Whether the field's coordinates are those of the voxels' corners.
    """

    shift: Tensor
    pose: Pose | None
    stride: int
    resolution: int
    corner: bool

    def __call__(self, points: Tensor) -> Tensor:
        """(n, 3) → (n, 3)."""
        moved = points + self._shift_at(points)
        return moved if self.pose is None else self.pose(moved)

    def to(self, device: torch.device) -> Elastic:
        """On a device."""
        pose = None if self.pose is None else self.pose.to(device)
        return Elastic(self.shift.to(device), pose, self.stride, self.resolution, self.corner)

    def _shift_at(self, points: Tensor) -> Tensor:
        """Linearly between the nodes, (n, 3)."""
        index = ((points + 1) * self.resolution - (0 if self.corner else 1)) / 2  # of the lattice
        grid = (2 * index / self.stride + 1) / self.shift.shape[-1] - 1  # torch's: −1 and 1 are the outer faces
        found = functional.grid_sample(
            self.shift[None], grid.flip(-1)[None, None, None], padding_mode="border", align_corners=False
        )
        return found[0, :, 0, 0].T


def align(expected: FloatVolume, prepared: Prepared, pose: Pose | None, width_mm: float, stride: int = 1) -> Elastic:
    """The displacement that brings the expected classes onto the observed ones.

    Args:
        expected: Mean class under the fit, (R, R, R), 0 outside the brain.
        prepared: The scan.
        pose: Of the fit.
        width_mm: FWHM of the Gaussian that keeps the displacement smooth.
        stride: Lattice voxels between the nodes of the displacement.
    """
    lattice = prepared.lattice
    observed = np.where(prepared.brain, prepared.classes, 0).astype(np.float32)
    target, moving = (_thinned(volume, stride) for volume in (observed, expected))
    brain = prepared.brain[::stride, ::stride, ::stride]
    smoothness = width_mm / FWHM / (lattice.spacing * stride)
    shift = np.zeros((3, *brain.shape), dtype=np.float32)
    box = bounding_box(brain)
    if box is not None and min(brain[box].shape) > 1:  # a plane has no slope across itself
        shift[:, *box] = demons(moving[box], target[box], brain[box], smoothness)
    units = torch.from_numpy(shift * np.float32(2 * stride / lattice.resolution))
    return Elastic(units, pose, stride, lattice.resolution, prepared.recipe.lattice == "corner")


def demons(moving: FloatVolume, target: FloatVolume, brain: Mask, smoothness: NDArray[np.float64]) -> FloatVolume:
    """Displacement d in voxels, (3, i, j, k), such that moving(x + d(x)) is like target(x).

    Args:
        moving, target: Classes, (i, j, k).
        brain: Where they are compared.
        smoothness: Standard deviation of the Gaussian on the displacement, voxels, (3,).

    Source:
        Thirion, Medical Image Analysis 1998: forces along the slopes of the image, a Gaussian after every step.
    """
    shift, index = np.zeros((3, *brain.shape), dtype=np.float32), np.indices(brain.shape, dtype=np.float32)
    for blur in BLURS:
        still, goal = (ndimage.gaussian_filter(volume, blur) if blur else volume for volume in (moving, target))
        for _ in range(STEPS):
            moved = ndimage.map_coordinates(still, index + shift, order=1, mode="nearest")
            difference = np.clip(goal - moved, -LARGEST, LARGEST) * brain
            slope = np.stack(np.gradient(moved))
            force = slope * (difference / ((slope**2).sum(axis=0) + difference**2 + FLAT**2))
            for axis in range(3):
                shift[axis] = ndimage.gaussian_filter(shift[axis] + force[axis], smoothness)
    return shift


def _thinned(volume: FloatVolume, stride: int) -> FloatVolume:
    """Every `stride`-th voxel, blurred before by half of what is left out."""
    blurred = ndimage.gaussian_filter(volume, (stride - 1) / 2) if stride > 1 else volume
    return np.asarray(blurred[::stride, ::stride, ::stride], dtype=np.float32)
