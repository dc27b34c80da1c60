"""Lesions with truth: gliomas, small white-matter lesions and dark scars, planned in mm before voxels exist.

A lesion is planned on the coarse lattice of the head frame, so that it is the same on every output grid. Each
of its parts is a level in mm, positive inside; cover and label follow from the level.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage
from scipy.spatial.transform import Rotation

from anofield.phantom import template
from anofield.phantom.anatomy import (
    PLAN_STEP,
    Anatomy,
    Fractions,
    Sites,
    find_sites,
    fractions,
    plan_axes,
    ventricle_distance,
)
from anofield.phantom.spline import Spline, draw_field
from anofield.phantom.spread import spread_distance
from anofield.typing import Classes, FloatVolume

NECROSIS, OEDEMA, CORE = 1, 2, 4  # BraTS'18
SPOT, DARK = 2, 1

GLIOMA_ML = (7.0, 105.0)  # drawn log-uniformly; voxels and partial volume leave 5 to 120 ml
CORE_SHARE, NECROSIS_SHARE = (0.15, 0.45), (0.08, 0.5)  # of the whole lesion, of the core
PUSH, PUSH_REACH = (0.15, 0.45), 1.6  # mass effect at the centre, per mm of radius; reach in core radii
SPOT_COUNT, SPOT_DIAMETER, FIRST_SPOT_DIAMETER = (3, 15), (3.0, 12.0), (7.0, 12.0)  # mm
DARK_ML = (3.0, 30.0)
EDGE_MM = 1.6  # blurred edge of a lesion on a fine grid; a coarse grid's voxel width takes its place
WHITE_PULL_MM, OEDEMA_ROUGH_MM = 6.0, 1.5  # how much farther oedema reaches in pure white matter, and at random
OEDEMA_FADE_MM = 8.0  # oedema is fainter near its border over this depth
TEXTURE_WIDTH = 7.0  # mm
ML = 1000.0  # mm³


@dataclass(frozen=True)
class Blob:
    """A rough ellipsoid: `shape` `(3, 3)` maps it, in mm from `centre`, to a ball of `radius` mm."""

    matter: str
    label: int
    centre: NDArray[np.float64]
    shape: NDArray[np.float64]
    radius: float
    roughness: float
    brightness: float

    def level(self, head: FloatVolume, rough: FloatVolume) -> FloatVolume:
        """Level in mm at head coordinates `(3, n)`; `rough` `(n,)` has unit standard deviation."""
        away = self.shape.astype(np.float32) @ (head - self.centre.astype(np.float32)[:, None])
        distance = np.sqrt((away**2).sum(0))
        level: FloatVolume = np.float32(self.radius) * (1 + np.float32(self.roughness) * rough) - distance
        return level

    def near(self, head: FloatVolume) -> NDArray[np.intp]:
        """Indices of the points that the blob can reach."""
        reach = self.radius * (1 + 4 * self.roughness) + 8
        reach = reach * float(np.linalg.norm(np.linalg.inv(self.shape), 2))
        close = np.ones(head.shape[1], np.bool_)
        for row, middle in zip(head, self.centre, strict=True):
            close &= np.abs(row - np.float32(middle)) < reach
        return np.flatnonzero(close)


@dataclass(frozen=True)
class Oedema:
    """Fluid that spreads through white matter: `distance` `(i, j, k)` in mm of effort, planning lattice."""

    distance: FloatVolume
    reach: float
    brightness: float

    def level(self, head: FloatVolume, white: FloatVolume, rough: FloatVolume) -> FloatVolume:
        """Level in mm at head coordinates `(3, n)`: fingers follow the white matter, the edge is rough."""
        first = np.array([axis[0] for axis in plan_axes()], np.float32)
        places = (head - first[:, None]) / np.float32(PLAN_STEP)
        effort = ndimage.map_coordinates(self.distance, places, order=1, mode="nearest", output=np.float32)
        return _oedema_level(np.float32(self.reach) - effort, white, rough)


@dataclass(frozen=True)
class Lesion:
    """A planned lesion; later blobs cover earlier ones."""

    blobs: tuple[Blob, ...]
    oedema: Oedema | None
    push: float
    push_reach: float
    rough: Spline
    texture: Spline

    def displacement(self, head: FloatVolume) -> FloatVolume | None:
        """Mass effect `(3, n)` in mm at head coordinates: outward from the core, zero far away."""
        if self.push == 0:
            return None
        away = head - self.blobs[0].centre.astype(np.float32)[:, None]
        fade = np.exp(-(away**2).sum(0) / np.float32(self.push_reach**2))
        return np.asarray(np.float32(self.push) * fade * away, dtype=np.float32)


@dataclass(frozen=True)
class Layer:
    """One part of a lesion on a grid: at brain voxels `where` it covers the share `cover` of the signal."""

    matter: str
    where: NDArray[np.intp]
    cover: FloatVolume
    texture: FloatVolume
    brightness: float


@dataclass(frozen=True)
class Plan:
    """The anatomy on the planning lattice: where a lesion of each kind may start."""

    sites: Sites
    parts: Fractions
    ventricle: FloatVolume
    cell: float  # mm³ of the world per planning point

    @property
    def cerebrum(self) -> NDArray[np.bool_]:
        """Points above the tentorium: high, or in a temporal lobe."""
        x, y, z = self.sites.template + template.CENTRE[:, None]
        return np.asarray((z > 2) | ((np.abs(x) > 28) & (y > -25) & (z > -32)))

    def pick(self, rng: np.random.Generator, allowed: NDArray[np.bool_]) -> int:
        """A random allowed point; any point of the cerebrum's white matter where none is allowed."""
        choices = np.flatnonzero(allowed)
        if not len(choices):
            choices = np.flatnonzero(self.cerebrum & (self.parts.white > 0.5))
        return int(rng.choice(choices))


def draw_lesion(rng: np.random.Generator, kind: str, anatomy: Anatomy) -> Lesion:
    """A random lesion of a kind from `LESION_KINDS` in a person's anatomy."""
    sites = find_sites(anatomy, plan_axes())
    parts = fractions(anatomy, sites, PLAN_STEP)
    plan = Plan(sites, parts, ventricle_distance(anatomy, sites), (PLAN_STEP * anatomy.zoom) ** 3)
    return _DRAW[kind](rng, plan)


def covered(lesion: Lesion, sites: Sites, parts: Fractions, spacing: float) -> tuple[list[Layer], Classes]:
    """Layers of signal and labels `(n,)` of a lesion at the brain voxels of a grid `spacing` mm wide."""
    rough, texture = sites.field(lesion.rough), 1 + sites.field(lesion.texture)
    label = np.zeros(rough.shape, np.uint8)
    layers = []
    edge = np.float32(max(EDGE_MM, spacing))
    if lesion.oedema is not None:
        level = lesion.oedema.level(sites.head, parts.white, rough)
        cover = np.clip(0.5 + level / edge, 0, 1) * (1 - parts.csf)
        label[cover >= 0.5] = OEDEMA
        where = np.flatnonzero(cover > 0)
        faint = 0.7 + 0.3 * np.clip(level[where] / OEDEMA_FADE_MM, 0, 1)
        layers.append(Layer("oedema", where, cover[where] * faint, texture[where], lesion.oedema.brightness))
    for blob in lesion.blobs:
        where = blob.near(sites.head)
        level = blob.level(sites.head[:, where], rough[where])
        cover = np.clip(0.5 + level / edge, 0, 1)
        if blob.matter in ("spot", "dark"):
            cover *= 1 - parts.csf[where]
        label[where[cover >= 0.5]] = blob.label
        layers.append(Layer(blob.matter, where, cover, texture[where], blob.brightness))
    _keep_one_voxel(label, layers, lesion)
    return layers, label


def no_layers(sites: Sites) -> tuple[list[Layer], Classes]:
    """Result of `covered` for a healthy person."""
    return [], np.zeros(sites.depth.shape, np.uint8)


def _keep_one_voxel(label: Classes, layers: list[Layer], lesion: Lesion) -> None:
    """Label the most covered voxel if none is half covered, which happens on very coarse grids."""
    layer = layers[0]
    if not label.any() and len(layer.where):
        label[layer.where[np.argmax(layer.cover)]] = OEDEMA if lesion.oedema else lesion.blobs[0].label


def _draw_glioma(rng: np.random.Generator, plan: Plan) -> Lesion:
    """Oedema through white matter, a solid core and necrosis; the core pushes its surroundings away."""
    volume = float(np.exp(rng.uniform(*np.log(GLIOMA_ML)))) * ML
    core = volume * rng.uniform(*CORE_SHARE)
    radius = _radius(core)
    lateral = np.abs(plan.sites.template[0]) > 12
    deep = plan.sites.depth > 0.7 * radius + 4
    start = plan.pick(rng, plan.cerebrum & lateral & deep & (plan.parts.white > 0.6))
    centre = plan.sites.head[:, start].astype(float)
    shape = _ellipsoid(rng, 0.15)
    solid = Blob("core", CORE, centre, shape, radius, 0.18, rng.uniform())
    inner = _radius(core * rng.uniform(*NECROSIS_SHARE))
    offset = rng.standard_normal(3) * 0.12 * radius
    necrosis = Blob("necrosis", NECROSIS, centre + offset, shape, inner, 0.25, rng.uniform())
    rough, cost = draw_field(rng, 9.0, 1.0), draw_field(rng, 14.0, 0.35)
    distance, reach = _spread(plan, start, volume, solid, rough, cost)
    oedema = Oedema(distance, reach, brightness=rng.uniform())
    push = rng.uniform(*PUSH)
    texture = draw_field(rng, TEXTURE_WIDTH, rng.uniform(0.04, 0.10))
    return Lesion((solid, necrosis), oedema, push, PUSH_REACH * radius, rough, texture)


def _spread(
    plan: Plan, start: int, volume: float, core: Blob, rough: Spline, cost: Spline
) -> tuple[FloatVolume, float]:
    """Effort of oedema to reach each planning point, and its reach if the whole lesion fills `volume` mm³."""
    sites, parts = plan.sites, plan.parts
    ease = parts.white + np.float32(0.3) * parts.grey + np.float32(0.03)  # fluid and falx are barriers
    effort = np.asarray(np.exp(sites.field(cost)) / ease, dtype=np.float32)
    distance = spread_distance(sites.inside, start, effort, PLAN_STEP)
    uneven = sites.field(rough)
    level = _oedema_level(-distance[sites.inside], parts.white, uneven)
    level[parts.csf > 0.5] = -np.inf
    level[core.level(sites.head, uneven) > 0] = np.inf
    wanted = min(int(volume / plan.cell), len(level) - 1)
    reach = -float(np.partition(level, -wanted)[-wanted])
    return distance, reach if np.isfinite(reach) else 0.0


def _oedema_level(level: FloatVolume, white: FloatVolume, rough: FloatVolume) -> FloatVolume:
    """A level in mm, drawn along white matter and roughened."""
    drawn = np.float32(WHITE_PULL_MM) * (white - np.float32(0.6))
    return np.asarray(level + drawn + np.float32(OEDEMA_ROUGH_MM) * rough, dtype=np.float32)


def _draw_small(rng: np.random.Generator, plan: Plan) -> Lesion:
    """Several small bright lesions, two in three beside the ventricles, the others in deep white matter."""
    count = int(rng.integers(SPOT_COUNT[0], SPOT_COUNT[1] + 1))
    white = plan.cerebrum & (plan.parts.white > 0.7) & (plan.sites.depth > 12)
    beside = white & (plan.ventricle > 1) & (plan.ventricle < 9)
    return Lesion(
        tuple(_spot(rng, plan, beside if rng.uniform() < 0.67 else white, i) for i in range(count)),
        oedema=None,
        push=0.0,
        push_reach=1.0,
        rough=draw_field(rng, 7.0, 1.0),
        texture=draw_field(rng, TEXTURE_WIDTH, 0.05),
    )


def _spot(rng: np.random.Generator, plan: Plan, allowed: NDArray[np.bool_], index: int) -> Blob:
    """One small lesion; smaller ones are more frequent, and the first is not among the smallest."""
    low, high = FIRST_SPOT_DIAMETER if index == 0 else SPOT_DIAMETER
    diameter = low + (high - low) * rng.uniform() ** 2
    centre = plan.sites.head[:, plan.pick(rng, allowed)] + rng.uniform(-1, 1, 3) * PLAN_STEP / 2
    return Blob("spot", SPOT, centre, _ellipsoid(rng, 0.2), diameter / 2, 0.15, rng.uniform())


def _draw_dark(rng: np.random.Generator, plan: Plan) -> Lesion:
    """A dark scar of cortex and the white matter below it, longer than it is wide, pointing inward."""
    volume = float(np.exp(rng.uniform(*np.log(DARK_ML)))) * ML
    radius = _radius(volume)
    shallow = (plan.sites.depth > 0.5 * radius) & (plan.sites.depth < 0.8 * radius + 4)
    centre = plan.sites.head[:, plan.pick(rng, plan.cerebrum & shallow)].astype(float)
    inward = -centre / np.linalg.norm(centre)
    along = np.outer(inward, inward)
    shape = (np.eye(3) + along * (rng.uniform(0.65, 0.85) - 1)) @ _ellipsoid(rng, 0.1)
    scar = Blob("dark", DARK, centre, shape, radius, 0.2, rng.uniform())
    rough, texture = draw_field(rng, 10.0, 1.0), draw_field(rng, TEXTURE_WIDTH, 0.08)
    return Lesion((scar,), oedema=None, push=0.0, push_reach=1.0, rough=rough, texture=texture)


def _ellipsoid(rng: np.random.Generator, spread: float) -> NDArray[np.float64]:
    """A random volume-preserving stretch `(3, 3)`; `spread` is the standard deviation of the log axes."""
    logs = spread * rng.standard_normal(3)
    turn = Rotation.random(rng=rng).as_matrix()
    return np.asarray(turn @ np.diag(np.exp(logs - logs.mean())) @ turn.T)


def _radius(volume: float) -> float:
    """Radius in mm of a ball of `volume` mm³."""
    return float((3 * volume / (4 * np.pi)) ** (1 / 3))


_DRAW: dict[str, Callable[[np.random.Generator, Plan], Lesion]] = {
    "glioma": _draw_glioma,
    "small": _draw_small,
    "dark": _draw_dark,
}
LESION_KINDS = tuple(_DRAW)
