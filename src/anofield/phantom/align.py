"""Alignment of a head's tissue maps with ICBM152: an affine map, then a smooth invertible displacement.

The affine map is found by Gauss-Newton steps on blurred maps. The displacement follows the forces of the demons
(Thirion 1998) in the space of velocities (Vercauteren et al. 2008), summed over grey matter, white matter and fluid.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from anofield.phantom.template import SHAPE, Template
from anofield.phantom.warp import LATTICE, STEP, Displacement, lattice_points
from anofield.typing import Affine, FloatVolume

AFFINE_ROUNDS = ((6.0, 10), (3.0, 6))  # blur in mm and number of steps
DEMONS_ROUNDS = ((2.0, 12), (1.0, 12), (0.6, 8))  # blur of the maps in lattice steps and number of steps
LONGEST_UPDATE_MM = 1.5
UPDATE_BLUR, FIELD_BLUR = 1.0, 0.8  # in lattice steps: of each update and of the whole velocity
SOFT = 0.05  # keeps forces small where the maps are flat


@dataclass(frozen=True)
class Head:
    """Tissue shares of a head on its own voxels, each `(i, j, k)`; `affine` maps voxel indices to RAS+ mm."""

    grey: FloatVolume
    white: FloatVolume
    fluid: FloatVolume
    affine: Affine

    @property
    def brain(self) -> FloatVolume:
        """Share of the brain in each voxel."""
        return np.asarray(np.minimum(self.grey + self.white + self.fluid, 1), dtype=np.float32)


def align_affine(head: Head, fixed: Template) -> Affine:
    """The `(4, 4)` map from template coordinates to the head's world, mm."""
    points = lattice_points().reshape(3, -1)
    to_world = _first_guess(head, fixed)
    voxel = float(np.cbrt(abs(np.linalg.det(head.affine[:3, :3]))))
    for blur, rounds in AFFINE_ROUNDS:
        target = [_coarse(volume, blur) for volume in (fixed.brain, fixed.white)]
        moving = [ndimage.gaussian_filter(volume, blur / voxel) for volume in (head.brain, head.white)]
        for _ in range(rounds):
            to_world = to_world @ _affine_step(moving, target, np.linalg.inv(head.affine) @ to_world, points)
    return to_world


def resampled(head: Head, to_world: Affine) -> tuple[FloatVolume, FloatVolume, FloatVolume]:
    """Grey matter, white matter and brain `(i, j, k)` of a head on the voxels of the frame."""
    first = np.eye(4)
    first[:3, 3] = lattice_points()[:, 0, 0, 0]
    matrix = np.linalg.inv(head.affine) @ to_world @ first
    grey, white, brain = (
        ndimage.affine_transform(
            volume, matrix[:3, :3], matrix[:3, 3], output_shape=SHAPE, order=1, prefilter=False, output=np.float32
        )
        for volume in (head.grey, head.white, head.brain)
    )
    return grey, white, brain


def align_smooth(maps: tuple[FloatVolume, FloatVolume, FloatVolume], fixed: Template) -> FloatVolume:
    """The velocity `(3, i, j, k)` in mm that leads from ICBM152 into a head whose maps lie in the frame."""
    velocity = np.zeros((3, *LATTICE), np.float32)
    for blur, rounds in DEMONS_ROUNDS:
        target = _channels((fixed.grey, fixed.white, fixed.brain), blur)
        moving = _channels(maps, blur)
        for _ in range(rounds):
            update = _demons_force(moving, target, Displacement.exponential(velocity))
            velocity = _smooth(velocity + _smooth(update, UPDATE_BLUR), FIELD_BLUR)
    return velocity


def _first_guess(head: Head, fixed: Template) -> Affine:
    """Shift and scale that bring the middle and the volume of the two brains together."""
    voxel = abs(np.linalg.det(head.affine[:3, :3]))
    scale = np.cbrt(head.brain.sum() * voxel / fixed.brain.sum())
    middle = head.affine @ np.append(ndimage.center_of_mass(head.brain), 1.0)
    own = np.array(ndimage.center_of_mass(fixed.brain)) + lattice_points()[:, 0, 0, 0]
    guess = np.diag([scale, scale, scale, 1.0])
    guess[:3, 3] = middle[:3] - scale * own
    return guess


def _affine_step(
    moving: list[FloatVolume], target: list[FloatVolume], to_voxel: Affine, points: FloatVolume
) -> NDArray[np.float64]:
    """One Gauss-Newton step: an affine change `(4, 4)` of template coordinates."""
    places = (to_voxel[:3, :3] @ points + to_voxel[:3, 3:]).astype(np.float32)
    basis = np.vstack([points, np.ones((1, points.shape[1]), np.float32)])  # (4, n)
    normal, right = np.zeros((12, 12)), np.zeros(12)
    for volume, wanted in zip(moving, target, strict=True):
        seen = ndimage.map_coordinates(volume, places, order=1, output=np.float32).reshape(LATTICE)
        slope = _slopes(seen).reshape(3, 1, -1) / STEP
        rows = (slope * basis[None]).reshape(12, -1).astype(np.float64)
        normal += rows @ rows.T
        right += rows @ (wanted - seen).ravel()
    change = np.eye(4)
    change[:3] += np.linalg.solve(normal + 1e-6 * np.trace(normal) / 12 * np.eye(12), right).reshape(3, 4)
    return change


def _demons_force(moving: list[FloatVolume], target: list[FloatVolume], so_far: Displacement) -> FloatVolume:
    """Update `(3, i, j, k)` in mm of the velocity: along the slopes of the maps, as far as they differ."""
    force, weight = np.zeros((3, *LATTICE), np.float32), np.zeros(LATTICE, np.float32)
    points = so_far.moved(lattice_points())
    first = lattice_points()[:, :1, :1, :1]
    for volume, wanted in zip(moving, target, strict=True):
        seen = ndimage.map_coordinates(volume, (points - first) / STEP, order=1, mode="nearest", output=np.float32)
        slope = (_slopes(seen) + _slopes(wanted)) / 2
        force += slope * (wanted - seen)
        weight += (slope**2).sum(0) + np.float32(SOFT) * (wanted - seen) ** 2
    update = np.float32(STEP) * force / (weight + np.float32(1e-4))
    length = np.sqrt((update**2).sum(0))
    return np.asarray(update * np.minimum(1, LONGEST_UPDATE_MM / np.maximum(length, 1e-6)), dtype=np.float32)


def _channels(maps: tuple[FloatVolume, FloatVolume, FloatVolume], blur: float) -> list[FloatVolume]:
    """Grey matter, white matter and fluid on the lattice."""
    grey, white, brain = maps
    return [_coarse(volume, blur * STEP) for volume in (grey, white, np.clip(brain - grey - white, 0, 1))]


def _coarse(volume: FloatVolume, blur: float) -> FloatVolume:
    """A map of the frame, blurred by `blur` mm, at the points of the lattice."""
    step = slice(None, None, int(STEP))
    return np.ascontiguousarray(ndimage.gaussian_filter(volume, blur, truncate=2.5)[step, step, step])


def _smooth(field: FloatVolume, blur: float) -> FloatVolume:
    """A vector field, blurred by `blur` lattice steps."""
    return np.stack([ndimage.gaussian_filter(channel, blur, truncate=3.0) for channel in field])


def _slopes(volume: FloatVolume) -> FloatVolume:
    """Slopes `(3, i, j, k)` per lattice step."""
    slopes: list[FloatVolume] = list(np.gradient(volume))
    return np.stack(slopes)
