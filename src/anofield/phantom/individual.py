"""What sets one person apart beyond size, pose and thickness: template, folds, asymmetry, fluid spaces and cavum."""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

from anofield.phantom.template import COARSE, Template, icbm152, sample
from anofield.phantom.warp import Displacement
from anofield.typing import FloatVolume

HALF_SIDE_MM = 12.0  # from the midline, over which one hemisphere turns into the other
STEP_MM = 1.5  # of the walls of ventricles and sulci at a time, so that thin spaces do not turn over
CAVUM_LENGTH, CAVUM_HEIGHT = 17.0, 8.0  # mm, half axes along y and z; leaves of 1 to 2 mm stay on either side
CAVUM_FADE_MM = 8.0  # distance over which what lies beside a cavum gives way


@dataclass(frozen=True)
class Bump:
    """Where fluid spaces are wider: by `size` mm at template point `centre`, fading over `reach` mm."""

    centre: NDArray[np.float32]
    reach: float
    size: float

    def at(self, points: FloatVolume) -> FloatVolume:
        """Widening in mm at template coordinates `(3, n)`."""
        away = ((points - self.centre[:, None]) ** 2).sum(0)
        return np.asarray(np.float32(self.size) * np.exp(-away / np.float32(2 * self.reach**2)), dtype=np.float32)


@dataclass(frozen=True)
class Cavum:
    """Fluid between the leaves of the septum pellucidum: `half` mm wide to each side at template point `centre`."""

    centre: NDArray[np.float32]
    half: float

    def opened(self, points: FloatVolume) -> tuple[FloatVolume, FloatVolume]:
        """Template coordinates `(3, n)` of the tissue that gives way, and the share `(n,)` of the cavum."""
        x, y, z = points - self.centre[:, None]
        profile = np.clip(1 - (y / np.float32(CAVUM_LENGTH)) ** 2 - (z / np.float32(CAVUM_HEIGHT)) ** 2, 0, 1)
        half = np.float32(self.half) * np.sqrt(profile)
        beyond = np.maximum(np.abs(x) - half, 0)
        moved = points.copy()
        moved[0] -= np.sign(x) * np.minimum(half, np.abs(x)) * np.exp(-beyond / np.float32(CAVUM_FADE_MM))
        return moved, np.where(half > 0, np.clip(half - np.abs(x) + np.float32(0.5), 0, 1), 0).astype(np.float32)


@dataclass(frozen=True)
class Individual:
    """One person's own anatomy on a template.

    Lengths are in mm, `sulci` in log odds of fluid, `cortex` in log odds of grey against white matter. Each `_side`
    is added on the left and subtracted on the right.
    """

    template: Template
    age: float | None = None
    traits: tuple[str, ...] = ()
    bend: Displacement | None = None  # towards another template
    folds: Displacement | None = None
    torque: float = 0.0
    wider: float = 0.0
    ventricle: float = 0.0
    ventricle_side: float = 0.0
    opening: float = 0.0  # of all sulci and cisterns
    opening_side: float = 0.0
    bumps: tuple[Bump, ...] = ()
    sulci: float = 0.0
    cortex: float = 0.0
    cortex_side: float = 0.0
    cavum: Cavum | None = None

    def outline(self, points: FloatVolume) -> FloatVolume:
        """Template coordinates `(3, ...)` after the asymmetry of the hemispheres and the bend towards another head."""
        if self.torque or self.wider:
            right = np.tanh(points[0] / np.float32(2 * HALF_SIDE_MM))
            points = points.copy()
            points[1] -= np.float32(self.torque) * right
            points[0] *= 1 + np.float32(self.wider) * right
        return points if self.bend is None else self.bend.moved(points)

    def inner(self, points: FloatVolume, ventricle: float) -> tuple[FloatVolume, FloatVolume | None]:
        """Where the tissue at brain points comes from: ventricles, sulci, cavum, then folds.

        Args:
            points: Template coordinates `(3, n)`.
            ventricle: Movement of the ventricles' walls in mm, beside this person's own.

        Returns:
            Template coordinates `(3, n)`, and the share `(n,)` of a cavum, `None` without one.
        """
        shape, left = self.template.geometry, _left(points)
        walls = np.float32(self.ventricle + ventricle) + np.float32(self.ventricle_side) * left
        points = _grown(points, shape.growth, walls)
        sulci = np.float32(self.opening) + np.float32(self.opening_side) * left
        for bump in self.bumps:
            sulci = sulci + bump.at(points)
        points = _grown(points, self.template.opening, sulci)
        fluid = None
        if self.cavum is not None:
            points, fluid = self.cavum.opened(points)
        return (points if self.folds is None else self.folds.moved(points)), fluid

    def sides(self, points: FloatVolume) -> FloatVolume:
        """Log odds `(n,)` of grey against white matter at template coordinates `(3, n)`."""
        return np.asarray(np.float32(self.cortex) + np.float32(self.cortex_side) * _left(points), dtype=np.float32)


@lru_cache(maxsize=1)
def plain() -> Individual:
    """The one individual of the simple phantom, whose images must not change."""
    return Individual(icbm152())


def _left(points: FloatVolume) -> FloatVolume:
    """1 in the left hemisphere, -1 in the right one, smooth between."""
    return np.asarray(-np.tanh(points[0] / np.float32(HALF_SIDE_MM / 2)), dtype=np.float32)


def _grown(points: FloatVolume, growth: FloatVolume, amount: FloatVolume) -> FloatVolume:
    """Points after the walls of fluid spaces have moved by `amount` `(n,)` mm, in steps along the growth."""
    if not amount.any():
        return points
    moved = points.copy()
    where = np.flatnonzero(np.abs(amount) > 0.02)
    steps = max(1, int(np.ceil(float(np.abs(amount[where]).max(initial=0)) / STEP_MM)))
    for number in range(steps):
        left = np.abs(amount[where]) > number * STEP_MM
        where = where[left]
        part = np.sign(amount[where]) * np.minimum(np.abs(amount[where]) - number * STEP_MM, STEP_MM)
        here = moved[:, where]
        moved[:, where] = here - part * np.stack([sample(axis, here, step=COARSE) for axis in growth])
    return moved
