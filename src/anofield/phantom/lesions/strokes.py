"""Strokes: infarcts of what one artery feeds, and bleedings of several ages."""

from __future__ import annotations

from dataclasses import replace
from typing import TypeVar

import numpy as np
from numpy.typing import NDArray

from anofield.phantom.lesions.lesion import Lesion, Push
from anofield.phantom.lesions.oedema import Oedema, spread
from anofield.phantom.lesions.parts import BLOOD, CAVITY, INFARCT, Blob, Part, Wedge
from anofield.phantom.lesions.plan import ML, TEXTURE_WIDTH, Plan, ellipsoid, log_uniform, radius_of
from anofield.phantom.spline import Spline, draw_field

# Middles of what the arteries feed on the right, MNI mm: chosen by hand after the atlas of Liu et al. 2023. A place
# belongs to the nearest one. Cerebellum and brain stem only set
# borders.
ANTERIOR, MIDDLE, POSTERIOR = (6.0, 35.0, 40.0), (48.0, -5.0, 15.0), (14.0, -80.0, 5.0)
CEREBELLUM, STEM, DEEP = (20.0, -62.0, -42.0), (4.0, -28.0, -30.0), (24.0, -6.0, 12.0)
ARTERIES = {MIDDLE: 0.6, POSTERIOR: 0.2, ANTERIOR: 0.2}  # and their shares of infarcts of the cortex
SMALL_DEEP = 0.2  # share of infarcts of small deep arteries
INFARCT_ML = (3.0, 150.0)  # drawn log-uniformly; the median in ATLAS v2.0 (Liew et al. 2022) is 5 ml, the most 500
LACUNE_ML = (0.3, 4.0)  # up to about 2 cm across
HALF_ANGLE = (18.0, 40.0)  # degrees, of the wedge; chosen by hand
STAGES = {"swollen": 0.4, "mixed with blood": 0.2, "cavity": 0.4}
RIM_MM = (2.0, 5.0)  # scarred rim of a cavity
SWELLING = (0.02, 0.08)
# Drawn log-uniformly, chosen by hand around the 5 to 40 ml above which Teo et al. 2023 expect a bad end.
BLEEDING_ML = (2.0, 60.0)
LOBAR = 0.4
# Ages and what is seen at them: Bradley 1993. Fresh blood is dark on T2w; later it turns bright from its edge inward,
# on T1w first; in the end a dark rim is left around fluid.
AGES = {"days": 0.35, "one week": 0.25, "weeks": 0.25, "months": 0.15}
RIM_OF_BLOOD_MM = (1.5, 3.0)
SWOLLEN = (1.5, 2.5)  # volume with oedema, of that of the blood
BLOOD_PUSH, PUSH_REACH = (0.15, 0.35), 1.7  # per mm of radius; in radii

Key = TypeVar("Key")


def draw_infarct(rng: np.random.Generator, plan: Plan) -> Lesion:
    """What one artery feeds, or a wedge of it, or a small deep spot: swollen, mixed with blood, or a cavity."""
    stage = _choice(rng, STAGES)
    rough = draw_field(rng, 12.0, 1.0)
    small = rng.uniform() < SMALL_DEEP
    whole: Blob | Wedge = _lacune(rng, plan) if small else _wedge(rng, plan, rough)
    parts: list[Part] = [whole]
    if stage == "cavity":
        parts.append(_cavity(whole, rng.uniform(*RIM_MM), rng.uniform()))
    if stage == "mixed with blood" and isinstance(whole, Wedge):
        inset, brightness = rng.uniform(1.0, 4.0), rng.uniform(0.5, 1.0)
        parts.append(replace(whole, matter="blood", label=BLOOD, inset=inset, brightness=brightness, only_grey=True))
    push = None if small or stage == "cavity" else _swelling(rng, plan, whole, rough)
    return Lesion(tuple(parts), push, rough, draw_field(rng, TEXTURE_WIDTH, rng.uniform(0.04, 0.08)))


def _wedge(rng: np.random.Generator, plan: Plan, rough: Spline) -> Wedge:
    """A wedge from the depth of a hemisphere to a random place of its cortex, of a random volume."""
    side = np.array([rng.choice((-1.0, 1.0)), 1.0, 1.0])
    artery = np.array(_choice(rng, ARTERIES)) * side
    borders = _borders(plan, artery, side)
    volume, slope = log_uniform(rng, INFARCT_ML) * ML, float(np.tan(np.radians(rng.uniform(*HALF_ANGLE))))
    deep = plan.place_of(np.array(DEEP) * side)
    loose = Wedge("infarct", INFARCT, deep, np.array([1.0, 0, 0]), slope, borders, rng.uniform())
    still = np.zeros(plan.voxels.head.shape[1], np.float32)
    room = loose.border(plan.voxels.head, still)
    cortex = plan.voxels.head[:, plan.pick(rng, (room > 2) & (plan.voxels.depth < 8) & (plan.parts.grey > 0.3))]
    axis = (cortex - deep) / np.linalg.norm(cortex - deep)
    aimed = replace(loose, axis=axis)
    uneven = plan.voxels.field(rough)
    level = -aimed.retreat(plan.voxels.head, uneven)
    level[(aimed.border(plan.voxels.head, uneven) < 0) | (plan.parts.csf > 0.5)] = -np.inf
    reach = plan.level_of(level, min(volume, 0.9 * plan.cell * float(np.isfinite(level).sum())))
    return replace(aimed, apex=deep + reach * axis)


def _borders(
    plan: Plan, artery: NDArray[np.float64], side: NDArray[np.float64]
) -> tuple[tuple[NDArray[np.float64], NDArray[np.float64]], ...]:
    """Planes half-way to the neighbours of an artery's territory, and the plane between the hemispheres."""
    own = plan.place_of(artery)
    others = [np.array(one) * side for one in (*ARTERIES, CEREBELLUM, STEM)]
    places = [plan.place_of(one) for one in others if not np.array_equal(one, artery)]
    planes = [((own + place) / 2, (own - place) / np.linalg.norm(own - place)) for place in places]
    middle = (plan.place_of(np.array([-4.0, -20, 40])) + plan.place_of(np.array([4.0, -20, 40]))) / 2
    return (*planes, (middle, np.array([side[0], 0.0, 0.0])))


def _lacune(rng: np.random.Generator, plan: Plan) -> Blob:
    """A small infarct near the basal ganglia."""
    side = rng.choice((-1.0, 1.0))
    away = plan.voxels.head - plan.place_of(np.array(DEEP) * (side, 1, 1)).astype(np.float32)[:, None]
    near = ((away**2).sum(0) < 18.0**2) & (plan.parts.csf < 0.2)
    centre = plan.voxels.head[:, plan.pick(rng, near)].astype(float)
    radius = radius_of(log_uniform(rng, LACUNE_ML) * ML)
    return Blob("infarct", INFARCT, centre, ellipsoid(rng, 0.25), radius, 0.15, rng.uniform())


def _cavity(whole: Blob | Wedge, rim: float, brightness: float) -> Part:
    """The fluid that is left inside an old infarct's rim."""
    if isinstance(whole, Wedge):
        return replace(whole, matter="cavity", label=CAVITY, inset=rim, brightness=brightness)
    inner = max(whole.radius - rim / 2, whole.radius / 2)
    return replace(whole, matter="cavity", label=CAVITY, radius=inner, brightness=brightness)


def _swelling(rng: np.random.Generator, plan: Plan, whole: Blob | Wedge, rough: Spline) -> Push:
    """Slight mass effect from the middle of a fresh infarct."""
    level = whole.level(plan.voxels.head, plan.voxels.field(rough))
    inside = level >= min(0.0, float(level.max()))
    radius = radius_of(float(inside.sum()) * plan.cell)
    return Push(plan.voxels.head[:, inside].mean(1).astype(float), rng.uniform(*SWELLING), PUSH_REACH * radius)


def draw_bleeding(rng: np.random.Generator, plan: Plan) -> Lesion:
    """Blood deep in a hemisphere or in a lobe, in layers that depend on its age, with oedema around it."""
    age, volume = _choice(rng, AGES), log_uniform(rng, BLEEDING_ML) * ML
    radius = radius_of(volume)
    start = _bleeding_start(rng, plan, radius)
    centre = plan.voxels.head[:, start].astype(float)
    blood = Blob("blood", BLOOD, centre, ellipsoid(rng, 0.25), radius, 0.13, rng.uniform())
    rough, cost = draw_field(rng, 13.0, 1.0), draw_field(rng, 14.0, 0.35)
    parts = _layers(rng, blood, age)
    texture = draw_field(rng, TEXTURE_WIDTH, rng.uniform(0.05, 0.12))
    if age == "months":
        return Lesion(parts, None, rough, texture)
    distance, reach = spread(plan, start, volume * rng.uniform(*SWOLLEN), blood, rough, cost)
    push = Push(centre, rng.uniform(*BLOOD_PUSH), PUSH_REACH * radius)
    return Lesion((Oedema(distance, reach, rng.uniform()), *parts), push, rough, texture)


def _bleeding_start(rng: np.random.Generator, plan: Plan, radius: float) -> int:
    """A planning point near the basal ganglia, or below the cortex of a lobe."""
    white, depth = plan.parts.white, plan.voxels.depth
    if rng.uniform() < LOBAR:
        return plan.pick(rng, plan.cerebrum & (white > 0.4) & (depth > 0.6 * radius + 3) & (depth < radius + 12))
    side = rng.choice((-1.0, 1.0))
    away = plan.voxels.head - plan.place_of(np.array(DEEP) * (side, 1, 1)).astype(np.float32)[:, None]
    return plan.pick(rng, ((away**2).sum(0) < 12.0**2) & (plan.parts.csf < 0.3))


def _layers(rng: np.random.Generator, blood: Blob, age: str) -> tuple[Part, ...]:
    """The layers of a bleeding of some age, from the outer one inward."""
    rim = rng.uniform(*RIM_OF_BLOOD_MM)
    within = max(blood.radius - rim, 0.5 * blood.radius)
    if age == "days":
        return (blood,)
    if age == "one week":
        core = replace(blood, radius=blood.radius * rng.uniform(0.5, 0.75))
        return (replace(blood, matter="old-blood", brightness=rng.uniform()), core)
    if age == "weeks":
        return (blood, replace(blood, matter="old-blood", radius=within, brightness=rng.uniform()))
    return (blood, replace(blood, matter="cavity", label=CAVITY, radius=within, brightness=rng.uniform()))


def _choice(rng: np.random.Generator, shares: dict[Key, float]) -> Key:
    """One of the keys, each as often as its share of 1 says."""
    return list(shares)[int(rng.choice(len(shares), p=list(shares.values())))]
