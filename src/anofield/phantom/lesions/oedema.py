"""Fluid or tumour cells that spread through white matter along paths of least effort."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from scipy import ndimage

from anofield.phantom.anatomy import PLAN_STEP, plan_axes
from anofield.phantom.lesions.parts import OEDEMA, Blob, Cover, Ground
from anofield.phantom.lesions.plan import Plan
from anofield.phantom.spline import Spline
from anofield.phantom.spread import spread_distance
from anofield.typing import FloatVolume

WHITE_PULL_MM, OEDEMA_ROUGH_MM = 6.0, 1.5  # how much farther oedema reaches in pure white matter, and at random
OEDEMA_FADE_MM = 8.0  # oedema is fainter near its border over this depth
BORDER_FAINT = 0.7  # its share of the signal at the border


@dataclass(frozen=True)
class Oedema:
    """What spreads through white matter: `distance` `(i, j, k)` in mm of effort, planning lattice."""

    distance: FloatVolume
    reach: float
    brightness: float
    matter: str = "oedema"
    label: int = OEDEMA
    strength: float = 1.0  # share of the signal that the matter covers

    def level(self, head: FloatVolume, white: FloatVolume, rough: FloatVolume) -> FloatVolume:
        """Level in mm at head coordinates `(3, n)`: fingers follow the white matter, the edge is rough."""
        first = np.array([axis[0] for axis in plan_axes()], np.float32)
        places = (head - first[:, None]) / np.float32(PLAN_STEP)
        effort = ndimage.map_coordinates(self.distance, places, order=1, mode="nearest", output=np.float32)
        return _level(np.float32(self.reach) - effort, white, rough)

    def cover(self, ground: Ground) -> Cover:
        """The oedema on a set of voxels."""
        level = self.level(ground.head, ground.tissue.white, ground.rough)
        share = ground.share(level) * (1 - ground.tissue.csf)
        where = np.flatnonzero(share > 0)
        faint = BORDER_FAINT + (1 - BORDER_FAINT) * np.clip(level[where] / OEDEMA_FADE_MM, 0, 1)
        return Cover(where, share[where], share[where] * faint * np.float32(self.strength))


def spread(
    plan: Plan, start: int, volume: float, core: Blob | None, rough: Spline, cost: Spline
) -> tuple[FloatVolume, float]:
    """Effort to reach each planning point from one of them, and the reach that fills `volume` mm³, core included."""
    voxels, parts = plan.voxels, plan.parts
    ease = parts.white + np.float32(0.3) * parts.grey + np.float32(0.03)  # fluid and falx are barriers
    effort = np.asarray(np.exp(voxels.field(cost)) / ease, dtype=np.float32)
    distance = spread_distance(voxels.inside, start, effort, PLAN_STEP)
    uneven = voxels.field(rough)
    level = _level(-distance[voxels.inside], parts.white, uneven)
    level[parts.csf > 0.5] = -np.inf
    if core is not None:
        level[core.level(voxels.head, uneven) > 0] = np.inf
    reach = -plan.level_of(level, volume)
    return distance, reach if np.isfinite(reach) else 0.0


def _level(level: FloatVolume, white: FloatVolume, rough: FloatVolume) -> FloatVolume:
    """A level in mm, drawn along white matter and roughened."""
    drawn = np.float32(WHITE_PULL_MM) * (white - np.float32(0.6))
    return np.asarray(level + drawn + np.float32(OEDEMA_ROUGH_MM) * rough, dtype=np.float32)
