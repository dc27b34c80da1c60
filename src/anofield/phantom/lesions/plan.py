"""The anatomy on the planning lattice, where lesions are placed, and the random shapes that they share."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.spatial.transform import Rotation

from anofield.phantom import template
from anofield.phantom.anatomy import (
    PLAN_STEP,
    Anatomy,
    BrainVoxels,
    Fractions,
    find_brain_voxels,
    fractions,
    plan_axes,
    ventricle_distance,
)
from anofield.typing import FloatVolume

ML = 1000.0  # mm³
TEXTURE_WIDTH = 7.0  # mm


@dataclass(frozen=True)
class Plan:
    """The anatomy on the planning lattice: where a lesion of each kind may start."""

    voxels: BrainVoxels
    parts: Fractions
    ventricle: FloatVolume
    cell: float  # mm³ of the world per planning point

    @property
    def cerebrum(self) -> NDArray[np.bool_]:
        """Points above the tentorium: high, or in a temporal lobe."""
        x, y, z = self.voxels.template + template.CENTRE[:, None]
        return np.asarray((z > 2) | ((np.abs(x) > 28) & (y > -25) & (z > -32)))

    def pick(self, rng: np.random.Generator, allowed: NDArray[np.bool_]) -> int:
        """A random allowed point; any point of the cerebrum's white matter where none is allowed."""
        choices = np.flatnonzero(allowed)
        if not len(choices):
            choices = np.flatnonzero(self.cerebrum & (self.parts.white > 0.5))
        return int(rng.choice(choices))

    def level_of(self, level: FloatVolume, volume: float) -> float:
        """The level at the planning points `(n,)` above which there are `volume` mm³ of the world."""
        wanted = min(int(volume / self.cell), len(level) - 1)
        return float(np.partition(level, -wanted)[-wanted])

    def place_of(self, mni: NDArray[np.float64]) -> NDArray[np.float64]:
        """Head coordinates in mm of the planning point that lies nearest to a place in MNI mm."""
        away = self.voxels.template - (mni - template.CENTRE).astype(np.float32)[:, None]
        return np.asarray(self.voxels.head[:, np.argmin((away**2).sum(0))], dtype=np.float64)

    def towards_ventricle(self, start: int) -> NDArray[np.float64]:
        """Vector in mm from a planning point to the nearest point of the lateral ventricles."""
        way = self.voxels.head - self.voxels.head[:, [start]]
        far = np.where(self.ventricle < PLAN_STEP / 2, (way**2).sum(0), np.inf)
        return np.asarray(way[:, np.argmin(far)], dtype=np.float64)


def plan_of(anatomy: Anatomy) -> Plan:
    """The planning lattice of a phantom person."""
    voxels = find_brain_voxels(anatomy, plan_axes())
    parts = fractions(anatomy, voxels, PLAN_STEP)
    return Plan(voxels, parts, ventricle_distance(anatomy, voxels), (PLAN_STEP * anatomy.zoom) ** 3)


def ellipsoid(rng: np.random.Generator, spread: float) -> NDArray[np.float64]:
    """A random volume-preserving stretch `(3, 3)`; `spread` is the standard deviation of the log axes."""
    logs = spread * rng.standard_normal(3)
    turn = Rotation.random(rng=rng).as_matrix()
    return np.asarray(turn @ np.diag(np.exp(logs - logs.mean())) @ turn.T)


def stretched(along: NDArray[np.float64], ratio: float) -> NDArray[np.float64]:
    """The map `(3, 3)` to a ball of an ellipsoid of revolution that is `ratio` times as long along a unit vector."""
    return np.asarray(np.eye(3) + np.outer(along, along) * (1 / ratio - 1))


def radius_of(volume: float) -> float:
    """Radius in mm of a ball of `volume` mm³."""
    return float((3 * volume / (4 * np.pi)) ** (1 / 3))


def log_uniform(rng: np.random.Generator, limits: tuple[float, float]) -> float:
    """A random number whose logarithm is uniform between two limits."""
    return float(np.exp(rng.uniform(*np.log(limits))))
