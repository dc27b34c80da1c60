"""One person's anatomy: where each point of the head comes from in the template, and what tissue it holds.

Three frames, all in mm and RAS+: *world* is the scanner's, *head* has the person's head at its origin,
*template* is ICBM152 about its centre. The anatomy is defined in the head frame and does not depend on voxels.
"""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray
from scipy.spatial.transform import Rotation

from anofield.phantom import template
from anofield.phantom.individual import Individual, plain
from anofield.phantom.spline import Axes, Spline, draw_field
from anofield.typing import FloatVolume, Mask

MEAN_SCALE = 0.90  # the ICBM152 brain is larger than real brains: 1.88 l becomes a mean of 1.37 l
SCALE_SD, AXIS_SCALE_SD = 0.03, 0.02  # overall and per-axis spread of head size
SCALE_LIMITS = (0.82, 0.97)
TURN_SD = (4.0, 2.0, 2.5)  # degrees about the x (nod), y (tilt) and z (turn) axes
SHIFT_SD = 2.0  # mm
WARPS = ((40.0, 2.6), (16.0, 0.9))  # width and standard deviation per axis, mm: lobes and gyri
SULCI_MEAN, SULCI_SD, SULCI_LOCAL_SD = 0.3, 0.45, 0.6  # log odds of fluid against tissue
CORTEX_SD, CORTEX_LOCAL_SD = 0.15, 0.3  # log odds of grey against white matter
FOLD_WIDTH = 12.0  # mm, over which sulcal width and cortical thickness vary
RIM_MEAN, RIM_SD, RIM_LOCAL_SD = 0.3, 0.5, 0.4  # mm of fluid left outside the cortex by skull stripping
VENTRICLE_MEAN, VENTRICLE_SD, VENTRICLE_LIMITS = 0.8, 1.5, (-1.5, 5.0)  # mm of outward wall shift
MAX_HALF = np.array([86.0, 100.0, 75.0])  # mm; what the tightest field of view (BraTS, 155 mm high) can hold
NEAREST_ERROR_MM = 1.5  # more than a distance can change between a point and its nearest 1 mm voxel
PLAN_STEP = 4.0  # mm, the lattice on which heads are placed and lesions are planned


@dataclass(frozen=True)
class Anatomy:
    """A person's healthy anatomy as a function of head coordinates.

    `to_template` is `(3, 3)`; `ventricle` in mm; head = (world - field-of-view centre - `shift`) / `zoom`.
    """

    to_template: NDArray[np.float64]
    warps: tuple[Spline, ...]
    sulci: Spline
    cortex: Spline
    rim: Spline
    ventricle: float
    sulci_mean: float
    cortex_mean: float
    rim_mean: float
    individual: Individual
    zoom: float = 1.0
    shift: NDArray[np.float64] = field(default_factory=lambda: np.zeros(3))

    def template_points(self, axes: Axes) -> FloatVolume:
        """Template coordinates `(3, i, j, k)` of a lattice of head coordinates."""
        moved = np.zeros((3, *(len(axis) for axis in axes)), np.float32)
        for warp in self.warps:
            moved += warp.on(axes)
        for row, channel in zip(self.to_template, moved, strict=True):
            for i, axis in enumerate(axes):
                channel += (row[i] * axis).astype(np.float32).reshape([-1 if i == j else 1 for j in range(3)])
        return self.individual.outline(moved)


@dataclass(frozen=True)
class BrainVoxels:
    """The brain voxels of a lattice, in C order: `head` `(3, n)` mm and `template` `(3, n)` mm."""

    axes: Axes
    inside: Mask  # (i, j, k)
    head: FloatVolume
    template: FloatVolume
    depth: FloatVolume

    def field(self, spline: Spline) -> FloatVolume:
        """A one-channel field at the brain voxels, `(n,)`."""
        values: FloatVolume = spline.on(self.axes)[0][self.inside]
        return values


@dataclass(frozen=True)
class Fractions:
    """Partial volume of grey matter, white matter and fluid at the brain voxels, each `(n,)`, sum 1."""

    grey: FloatVolume
    white: FloatVolume
    csf: FloatVolume


def draw_anatomy(rng: np.random.Generator, individual: Individual | None = None) -> Anatomy:
    """A random person, placed so that the head fits every field of view of this package.

    Args:
        rng: Source of size, pose, thickness and all else that the simple phantom varies.
        individual: What sets the person apart beyond that; `None` for the simple phantom.
    """
    scale = MEAN_SCALE + SCALE_SD * rng.standard_normal() + AXIS_SCALE_SD * rng.standard_normal(3)
    turn = Rotation.from_euler("xyz", rng.standard_normal(3) * TURN_SD, degrees=True).as_matrix()
    loose = Anatomy(
        to_template=np.diag(1 / np.clip(scale, *SCALE_LIMITS)) @ turn,
        warps=tuple(draw_field(rng, width, sd, channels=3) for width, sd in WARPS),
        sulci=draw_field(rng, FOLD_WIDTH, SULCI_LOCAL_SD),
        cortex=draw_field(rng, FOLD_WIDTH, CORTEX_LOCAL_SD),
        rim=draw_field(rng, FOLD_WIDTH, RIM_LOCAL_SD),
        ventricle=float(np.clip(rng.normal(VENTRICLE_MEAN, VENTRICLE_SD), *VENTRICLE_LIMITS)),
        sulci_mean=rng.normal(SULCI_MEAN, SULCI_SD),
        cortex_mean=rng.normal(0, CORTEX_SD),
        rim_mean=rng.normal(RIM_MEAN, RIM_SD),
        individual=individual or plain(),
    )
    return _placed(loose, rng.standard_normal(3) * SHIFT_SD)


def plan_axes() -> Axes:
    """The planning lattice of the head frame: the same for every person and output grid."""
    reach = (template.HALF_EXTENT + 12.0) // PLAN_STEP * PLAN_STEP
    x, y, z = (np.arange(-limit, limit + PLAN_STEP, PLAN_STEP) for limit in reach)
    return x, y, z


def find_brain_voxels(anatomy: Anatomy, axes: Axes) -> BrainVoxels:
    """The voxels of a head lattice that are brain, with their template coordinates."""
    points = anatomy.template_points(axes)
    rim = anatomy.rim.on(axes)[0] + np.float32(anatomy.rim_mean)
    surface = anatomy.individual.template.geometry.depth
    depth = template.nearest(surface, points)
    shell = np.abs(depth + rim) < NEAREST_ERROR_MM  # elsewhere the nearest voxel decides the side
    depth[shell] = template.sample(surface, points[:, shell])
    inside = depth + rim > 0
    where = np.nonzero(inside)
    head = np.stack([axis.astype(np.float32)[i] for axis, i in zip(axes, where, strict=True)])
    return BrainVoxels(axes, inside, head, points[:, inside], depth[inside])


def fractions(anatomy: Anatomy, voxels: BrainVoxels, spacing: float, push: FloatVolume | None = None) -> Fractions:
    """Tissue at the brain voxels of a lattice whose voxels are `spacing` mm wide.

    `push` `(3, n)` is a displacement of the head frame in mm by a mass: tissue at `h` came from `h - push`.
    """
    points = voxels.template
    if push is not None:
        points = points - anatomy.to_template.astype(np.float32) @ push
    own, cavum = anatomy.individual, None
    cortex = voxels.field(anatomy.cortex) + np.float32(anatomy.cortex_mean)
    if own is plain():
        growth = [template.sample(g, points, step=template.COARSE) for g in own.template.geometry.growth]
        points = points - np.float32(anatomy.ventricle) * np.stack(growth)
    else:
        cortex = cortex + own.sides(points)
        points, cavum = own.inner(points, anatomy.ventricle)
    maps = own.template.tissue(spacing)
    grey, white = template.sample(maps.grey, points), template.sample(maps.white, points)
    if cavum is not None:
        grey, white = grey * (1 - cavum), white * (1 - cavum)
    fluid = np.exp(voxels.field(anatomy.sulci) + np.float32(anatomy.sulci_mean + own.sulci))
    return _reweighed(grey, white, fluid, np.exp(cortex))


def ventricle_distance(anatomy: Anatomy, voxels: BrainVoxels) -> FloatVolume:
    """Distance `(n,)` in mm from the lateral ventricles of the person's template, negative inside."""
    return template.sample(anatomy.individual.template.geometry.ventricle, voxels.template, step=template.COARSE)


def _reweighed(grey: FloatVolume, white: FloatVolume, fluid: FloatVolume, cortex: FloatVolume) -> Fractions:
    """Fractions after the odds of fluid and of grey matter are multiplied by a person's factors."""
    csf = np.maximum(1 - grey - white, 0) * fluid
    grey = grey * cortex
    total = grey + white + csf
    return Fractions(grey / total, white / total, csf / total)


def _placed(loose: Anatomy, shift: NDArray[np.float64]) -> Anatomy:
    """The same anatomy, its bounding box centred on the field of view, then shifted where there is room.

    Depth below the surface reaches from every planning point to the surface, so the box is exact to
    about a millimetre although the lattice is coarse.
    """
    voxels = find_brain_voxels(loose, plan_axes())
    reach = np.maximum(voxels.depth, 0) * MEAN_SCALE + max(loose.rim_mean, 0.0) + 1.0
    low, high = (voxels.head - reach).min(1), (voxels.head + reach).max(1)
    half = (high - low) / 2
    zoom = float(min(1.0, (MAX_HALF / half).min()))
    room = np.maximum(MAX_HALF - zoom * half, 0)
    centred = np.clip(shift, -room, room) - zoom * (low + high) / 2
    return Anatomy(**{**vars(loose), "zoom": zoom, "shift": centred})
