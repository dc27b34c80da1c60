"""Elastic alignment of the field's healthy anatomy with the anatomy of the scan (demons, Thirion 1998).

After the fit of code and pose, sulci and ventricles are still a few millimetres off, and every such rim looks like a
small lesion. A smooth displacement removes these rims; a lesion that is not displaced anatomy remains.
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
from anofield.data.prepared import Prepared
from anofield.detect.pose import Pose
from anofield.typing import FloatVolume, Mask

BLURS = (1.0, 0.0)  # SD of the Gaussian blur, voxels, coarse to fine
STEPS = 12  # at each blur
LARGEST = 3.0  # classes; larger differences are clipped, so that a lesion does not pull more than a rim
FLAT = 0.1  # classes per voxel; slopes below it have little effect


@dataclass(frozen=True)
class Elastic:
    """Map from the scan's field coordinates u to the points pose(u + d(u)) where the field is evaluated.

    Attributes:
        shift: Displacement d at the nodes, field units, (3, n, n, n).
        pose: Pose that is applied after the displacement; None for none.
        stride: Lattice voxels between nodes.
        resolution: Lattice voxels per axis, R.
        corner: Whether the lattice convention of the recipe is `corner`.
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
        """Copy on a device."""
        pose = None if self.pose is None else self.pose.to(device)
        return Elastic(self.shift.to(device), pose, self.stride, self.resolution, self.corner)

    def _shift_at(self, points: Tensor) -> Tensor:
        """Displacement at points (n, 3), linear between the nodes, (n, 3)."""
        index = ((points + 1) * self.resolution - (0 if self.corner else 1)) / 2  # lattice index
        grid = (2 * index / self.stride + 1) / self.shift.shape[
            -1
        ] - 1  # grid_sample's convention: −1 and 1 are the outer faces
        found = functional.grid_sample(
            self.shift[None], grid.flip(-1)[None, None, None], padding_mode="border", align_corners=False
        )
        return found[0, :, 0, 0].T


def align(expected: FloatVolume, prepared: Prepared, pose: Pose | None, width_mm: float, stride: int = 1) -> Elastic:
    """Find the displacement that aligns the expected classes with the observed ones.

    Args:
        expected: Mean class under the fit, (R, R, R), 0 outside the brain.
        prepared: The scan on its lattice.
        pose: Pose of the fit; None if it was not fitted.
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
    if box is not None and min(brain[box].shape) > 1:  # a gradient needs two voxels per axis
        shift[:, *box] = demons(moving[box], target[box], brain[box], smoothness)
    units = torch.from_numpy(shift * np.float32(2 * stride / lattice.resolution))
    return Elastic(units, pose, stride, lattice.resolution, prepared.recipe.lattice == "corner")


def demons(moving: FloatVolume, target: FloatVolume, brain: Mask, smoothness: NDArray[np.float64]) -> FloatVolume:
    """Displacement d in voxels, (3, i, j, k), such that moving(x + d(x)) is similar to target(x).

    Args:
        moving, target: Classes, (i, j, k).
        brain: Voxels that are compared, (i, j, k).
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
    """Every `stride`-th voxel per axis, after a Gaussian blur of SD (stride − 1)/2 voxels."""
    blurred = ndimage.gaussian_filter(volume, (stride - 1) / 2) if stride > 1 else volume
    return np.asarray(blurred[::stride, ::stride, ::stride], dtype=np.float32)
