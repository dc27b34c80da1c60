"""Gliomas, and infiltration that one sees by what it displaces."""

from __future__ import annotations

import numpy as np

from anofield.phantom.lesions.lesion import Lesion, Push
from anofield.phantom.lesions.oedema import Oedema, spread
from anofield.phantom.lesions.parts import CHANGED, CORE, NECROSIS, Blob
from anofield.phantom.lesions.plan import ML, TEXTURE_WIDTH, Plan, ellipsoid, log_uniform, radius_of
from anofield.phantom.spline import draw_field

GLIOMA_ML = (7.0, 105.0)  # drawn log-uniformly; voxels and partial volume leave 5 to 120 ml
CORE_SHARE, NECROSIS_SHARE = (0.15, 0.45), (0.08, 0.5)  # of the whole lesion, of the core
PUSH, PUSH_REACH = (0.15, 0.45), 1.6  # mass effect at the centre, per mm of radius; reach in core radii
INFILTRATION_ML = (15.0, 90.0)  # chosen by hand: diffuse low-grade gliomas have some tens of ml when they are found
INFILTRATION_SHARE = (0.0, 0.2)  # of the signal: at most this far from the tissue's own to that of grey matter
INFILTRATION_PUSH = (0.15, 0.30)


def draw_glioma(rng: np.random.Generator, plan: Plan) -> Lesion:
    """Oedema through white matter, a solid core and necrosis; the core pushes its surroundings away."""
    volume = log_uniform(rng, GLIOMA_ML) * ML
    core = volume * rng.uniform(*CORE_SHARE)
    radius = radius_of(core)
    start = _start(rng, plan, radius)
    centre = plan.voxels.head[:, start].astype(float)
    shape = ellipsoid(rng, 0.15)
    solid = Blob("core", CORE, centre, shape, radius, 0.18, rng.uniform())
    inner = radius_of(core * rng.uniform(*NECROSIS_SHARE))
    offset = rng.standard_normal(3) * 0.12 * radius
    necrosis = Blob("necrosis", NECROSIS, centre + offset, shape, inner, 0.25, rng.uniform())
    rough, cost = draw_field(rng, 9.0, 1.0), draw_field(rng, 14.0, 0.35)
    oedema = Oedema(*spread(plan, start, volume, solid, rough, cost), brightness=rng.uniform())
    push = Push(centre, rng.uniform(*PUSH), PUSH_REACH * radius)
    texture = draw_field(rng, TEXTURE_WIDTH, rng.uniform(0.04, 0.10))
    return Lesion((oedema, solid, necrosis), push, rough, texture)


def draw_infiltration(rng: np.random.Generator, plan: Plan) -> Lesion:
    """Cells that spread through white matter: it swells, and its signal hardly changes."""
    volume = log_uniform(rng, INFILTRATION_ML) * ML
    radius = radius_of(volume / 2)
    start = _start(rng, plan, radius / 2)
    rough, cost = draw_field(rng, 9.0, 1.0), draw_field(rng, 14.0, 0.35)
    distance, reach = spread(plan, start, volume, None, rough, cost)
    strength = rng.uniform(*INFILTRATION_SHARE)
    cells = Oedema(distance, reach, rng.uniform(), "infiltration", CHANGED, strength)
    push = Push(plan.voxels.head[:, start].astype(float), rng.uniform(*INFILTRATION_PUSH), PUSH_REACH * radius)
    return Lesion((cells,), push, rough, draw_field(rng, TEXTURE_WIDTH, 0.03))


def _start(rng: np.random.Generator, plan: Plan, radius: float) -> int:
    """A point of the cerebrum's white matter, away from the midline, with room for a ball."""
    lateral = np.abs(plan.voxels.template[0]) > 12
    deep = plan.voxels.depth > 0.7 * radius + 4
    return plan.pick(rng, plan.cerebrum & lateral & deep & (plan.parts.white > 0.6))
