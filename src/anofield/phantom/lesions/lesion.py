"""A planned lesion: its parts and its mass effect, and what it covers on a grid."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from anofield.phantom.anatomy import BrainVoxels, Fractions
from anofield.phantom.lesions.parts import Cover, Ground, Part
from anofield.phantom.spline import Spline
from anofield.typing import Classes, FloatVolume

EDGE_MM = 1.6  # blurred edge of a lesion on a fine grid; a coarse grid's voxel width takes its place


@dataclass(frozen=True)
class Push:
    """Mass effect: `strength` mm outward per mm from `centre`, which fades over `reach` mm."""

    centre: NDArray[np.float64]
    strength: float
    reach: float


@dataclass(frozen=True)
class Lesion:
    """A planned lesion; later parts cover earlier ones."""

    parts: tuple[Part, ...]
    push: Push | None
    rough: Spline
    texture: Spline

    def displacement(self, head: FloatVolume) -> FloatVolume | None:
        """Mass effect `(3, n)` in mm at head coordinates: outward from the core, zero far away."""
        if self.push is None:
            return None
        away = head - self.push.centre.astype(np.float32)[:, None]
        fade = np.exp(-(away**2).sum(0) / np.float32(self.push.reach**2))
        return np.asarray(np.float32(self.push.strength) * fade * away, dtype=np.float32)


@dataclass(frozen=True)
class Layer:
    """One part of a lesion on a grid: at brain voxels `where` it covers the share `cover` of the signal."""

    matter: str
    where: NDArray[np.intp]
    cover: FloatVolume
    texture: FloatVolume
    brightness: float


def covered(lesion: Lesion, voxels: BrainVoxels, parts: Fractions, spacing: float) -> tuple[list[Layer], Classes]:
    """Layers of signal and labels `(n,)` of a lesion at the brain voxels of a grid `spacing` mm wide."""
    rough, texture = voxels.field(lesion.rough), 1 + voxels.field(lesion.texture)
    x, y, z = (abs(float(axis[1] - axis[0])) if len(axis) > 1 else spacing for axis in voxels.axes)
    ground = Ground(voxels.head, parts, rough, np.float32(max(EDGE_MM, spacing)), voxels.inside, (x, y, z))
    return drawn(lesion, ground, texture)


def drawn(lesion: Lesion, ground: Ground, texture: FloatVolume) -> tuple[list[Layer], Classes]:
    """Layers of signal and labels `(n,)` of a lesion; `texture` `(n,)` multiplies its signal."""
    label = np.zeros(ground.rough.shape, np.uint8)
    covers, layers = [], []
    for part in lesion.parts:
        cover = part.cover(ground)
        label[cover.where[cover.share >= 0.5]] = part.label
        covers.append(cover)
        layers.append(Layer(part.matter, cover.where, cover.amount, texture[cover.where], part.brightness))
    _keep_one_voxel(label, covers[0], lesion.parts[0].label)
    return layers, label


def no_layers(voxels: BrainVoxels) -> tuple[list[Layer], Classes]:
    """Result of `covered` for a healthy person."""
    return [], np.zeros(voxels.depth.shape, np.uint8)


def _keep_one_voxel(label: Classes, cover: Cover, value: int) -> None:
    """Label the most covered voxel if none is half covered, which happens on very coarse grids."""
    if not label.any() and len(cover.where):
        label[cover.where[np.argmax(cover.amount)]] = value
