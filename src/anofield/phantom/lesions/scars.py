"""Lesions of the cortex: dark scars and focal cortical dysplasia."""

from __future__ import annotations

import numpy as np

from anofield.phantom.lesions.lesion import Lesion
from anofield.phantom.lesions.parts import CHANGED, DARK, Blob, Dysplasia, Part
from anofield.phantom.lesions.plan import ML, TEXTURE_WIDTH, Plan, ellipsoid, log_uniform, radius_of, stretched
from anofield.phantom.spline import draw_field

DARK_ML = (3.0, 30.0)
# Signs of dysplasia (type 2) and how often they are seen: Mellerio et al. 2012. Small ones lie at the bottom of a
# deep sulcus (Besson et al. 2008). Sizes are chosen by hand.
DYSPLASIA_ML = (1.5, 15.0)  # of the region; the malformed cortex in it is about half
BLUR_MM, GAIN = (1.8, 3.0), (1.5, 2.2)  # width of the grey-white border; thickening
TRANSMANTLE, TRANSMANTLE_WIDTH, TRANSMANTLE_SHARE = 0.5, (4.0, 7.0), (0.5, 0.8)  # frequency; mm; of the signal


def draw_dark(rng: np.random.Generator, plan: Plan) -> Lesion:
    """A dark scar of cortex and the white matter below it, longer than it is wide, pointing inward."""
    volume = log_uniform(rng, DARK_ML) * ML
    radius = radius_of(volume)
    shallow = (plan.voxels.depth > 0.5 * radius) & (plan.voxels.depth < 0.8 * radius + 4)
    centre = plan.voxels.head[:, plan.pick(rng, plan.cerebrum & shallow)].astype(float)
    inward = -centre / np.linalg.norm(centre)
    along = np.outer(inward, inward)
    shape = (np.eye(3) + along * (rng.uniform(0.65, 0.85) - 1)) @ ellipsoid(rng, 0.1)
    scar = Blob("dark", DARK, centre, shape, radius, 0.2, rng.uniform())
    rough, texture = draw_field(rng, 10.0, 1.0), draw_field(rng, TEXTURE_WIDTH, 0.08)
    return Lesion((scar,), None, rough, texture)


def draw_dysplasia(rng: np.random.Generator, plan: Plan) -> Lesion:
    """A region of thick cortex with a blurred border, and in every second case a trace to the ventricle."""
    radius = radius_of(log_uniform(rng, DYSPLASIA_ML) * ML)
    grey, white = plan.parts.grey, plan.parts.white
    border = plan.cerebrum & (grey > 0.3) & (white > 0.2) & (plan.voxels.depth > 6) & (plan.voxels.depth < 18)
    start = plan.pick(rng, border & (plan.ventricle > 12))
    centre, brightness = plan.voxels.head[:, start].astype(float), rng.uniform()
    region = Blob("dysplasia", CHANGED, centre, ellipsoid(rng, 0.15), radius, 0.15, brightness)
    parts: tuple[Part, ...] = (Dysplasia(region, rng.uniform(*BLUR_MM), rng.uniform(*GAIN)),)
    if rng.uniform() < TRANSMANTLE:
        parts = (_transmantle(rng, plan, start, brightness), *parts)
    return Lesion(parts, None, draw_field(rng, 8.0, 1.0), draw_field(rng, TEXTURE_WIDTH, 0.03))


def _transmantle(rng: np.random.Generator, plan: Plan, start: int, brightness: float) -> Blob:
    """A thin trace of malformed tissue from the cortex to the nearest ventricle."""
    way = plan.towards_ventricle(start)
    length, width = float(np.linalg.norm(way)), rng.uniform(*TRANSMANTLE_WIDTH)
    shape = stretched(way / max(length, 1e-6), max(length / width, 1.0))
    centre = plan.voxels.head[:, start] + way / 2
    return Blob("dysplasia", CHANGED, centre, shape, width / 2, 0.1, brightness, rng.uniform(*TRANSMANTLE_SHARE))
