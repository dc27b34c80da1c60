"""Many small lesions: spots of white matter, and the plaques of multiple sclerosis."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from anofield.phantom.anatomy import PLAN_STEP
from anofield.phantom.lesions.lesion import Lesion
from anofield.phantom.lesions.parts import SPOT, Blob
from anofield.phantom.lesions.plan import TEXTURE_WIDTH, Plan, ellipsoid, stretched
from anofield.phantom.spline import draw_field

SPOT_COUNT, SPOT_DIAMETER, FIRST_SPOT_DIAMETER = (3, 15), (3.0, 12.0), (7.0, 12.0)  # mm
# Plaques of multiple sclerosis lie beside the ventricles, at the cortex and below the tentorium (McDonald criteria,
# Thompson et al. 2018). Counts and sizes are chosen by hand.
FINGERS, CORTICAL, DEEP, LOW = (3, 14), (3, 14), (2, 8), (0, 3)  # counts
FINGER_WIDTH, FINGER_RATIO = (3.5, 8.0), (1.4, 2.6)  # mm; length by width: Dawson's fingers stand on the ventricle
PLAQUE_DIAMETER = (3.0, 11.0)  # mm


def draw_small(rng: np.random.Generator, plan: Plan) -> Lesion:
    """Several small bright lesions, two in three beside the ventricles, the others in deep white matter."""
    count = int(rng.integers(SPOT_COUNT[0], SPOT_COUNT[1] + 1))
    white = plan.cerebrum & (plan.parts.white > 0.7) & (plan.voxels.depth > 12)
    beside = white & (plan.ventricle > 1) & (plan.ventricle < 9)
    spots = tuple(_spot(rng, plan, beside if rng.uniform() < 0.67 else white, i) for i in range(count))
    return Lesion(spots, None, draw_field(rng, 7.0, 1.0), draw_field(rng, TEXTURE_WIDTH, 0.05))


def _spot(rng: np.random.Generator, plan: Plan, allowed: NDArray[np.bool_], index: int) -> Blob:
    """One small lesion; smaller ones are more frequent, and the first is not among the smallest."""
    low, high = FIRST_SPOT_DIAMETER if index == 0 else SPOT_DIAMETER
    diameter = low + (high - low) * rng.uniform() ** 2
    centre = plan.voxels.head[:, plan.pick(rng, allowed)] + rng.uniform(-1, 1, 3) * PLAN_STEP / 2
    return Blob("spot", SPOT, centre, ellipsoid(rng, 0.2), diameter / 2, 0.15, rng.uniform())


def draw_ms(rng: np.random.Generator, plan: Plan) -> Lesion:
    """Plaques: fingers that stand on the ventricles, plaques on the grey-white border, ovals elsewhere."""
    grey, white, high = plan.parts.grey, plan.parts.white, plan.cerebrum
    beside = high & (plan.ventricle > 1) & (plan.ventricle < 8) & (white > 0.4)
    border = high & (grey > 0.25) & (white > 0.25) & (plan.voxels.depth > 3) & (plan.voxels.depth < 16)
    inner = high & (white > 0.75) & (plan.voxels.depth > 10)
    low = ~high & (white > 0.75) & (plan.voxels.depth > 8)
    fingers = [_finger(rng, plan, beside) for _ in range(rng.integers(*FINGERS, endpoint=True))]
    counts = [(border, CORTICAL), (inner, DEEP), (low, LOW)]
    plaques = [_plaque(rng, plan, where) for where, n in counts for _ in range(rng.integers(*n, endpoint=True))]
    parts = (*fingers, *plaques)
    return Lesion(parts, None, draw_field(rng, 7.0, 1.0), draw_field(rng, TEXTURE_WIDTH, 0.06))


def _finger(rng: np.random.Generator, plan: Plan, allowed: NDArray[np.bool_]) -> Blob:
    """A plaque along the veins that run away from the ventricle."""
    start = plan.pick(rng, allowed)
    way = plan.towards_ventricle(start)
    along = way / max(float(np.linalg.norm(way)), 1e-6)
    width, ratio = rng.uniform(*FINGER_WIDTH), rng.uniform(*FINGER_RATIO)
    centre = plan.voxels.head[:, start] + rng.uniform(-1, 1, 3) * PLAN_STEP / 4
    return Blob("spot", SPOT, centre, stretched(along, ratio), width / 2, 0.12, rng.uniform())


def _plaque(rng: np.random.Generator, plan: Plan, allowed: NDArray[np.bool_]) -> Blob:
    """An oval plaque; smaller ones are more frequent."""
    low, high = PLAQUE_DIAMETER
    diameter = low + (high - low) * rng.uniform() ** 1.5
    centre = plan.voxels.head[:, plan.pick(rng, allowed)] + rng.uniform(-1, 1, 3) * PLAN_STEP / 2
    return Blob("spot", SPOT, centre, ellipsoid(rng, 0.25), diameter / 2, 0.15, rng.uniform())
