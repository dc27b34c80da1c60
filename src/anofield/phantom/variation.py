"""Random individuals of a `Variety`: each property has a random stream of its own.

Positions are MNI mm of ICBM152, which the velocity of a template carries into its head.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from anofield.phantom.anatomy import SULCI_MEAN
from anofield.phantom.individual import Bump, Cavum, Individual, plain
from anofield.phantom.prepared import load_template, load_velocity
from anofield.phantom.sources import find_sources
from anofield.phantom.spline import draw_field
from anofield.phantom.template import CENTRE, Template
from anofield.phantom.variety import SIMPLE, Variety
from anofield.phantom.warp import Displacement, lattice_axes

LARGEST_SHARE = 0.5  # of the way to the other template; from there on the other one is the nearer one
FOLD_WIDTH, FOLD_SD = (6.0, 10.0), 1.6  # mm, velocity per axis; larger ones would meet LEAST_JACOBIAN in everyone
LEAST_JACOBIAN, CALMER = 0.1, 0.85  # local volume that folds leave at least; factor on the velocity until they do
TORQUE_MM, TORQUE_SD = 1.0, 1.0  # the right hemisphere lies forward (Yakovlevian torque, LeMay 1976); by hand
WIDER_SD = 0.015  # of the width of a hemisphere, relative; by hand
VENTRICLE_SIDE_MM, VENTRICLE_SIDE_SD = 0.2, 0.8  # the left ventricle is the larger one more often; by hand

# Atrophy. Slopes in mm and log odds, set so that in the phantom ventricular fluid grows by 0.3 ml a year between 21 and
# 70 years (Pfefferbaum et al. 1994), grey matter shrinks by 0.3 to 0.5 % a year (cortical thickness -0.35 %, volume
# -0.51 %: Storsve et al. 2014), and the brain by 0.45 % a year in old age (Fotenos et al. 2005).
YOUNG, OLD = 25.0, 60.0  # years: the templates are young adults; atrophy is faster from the second on
VENTRICLE_YEAR, VENTRICLE_OLD = 0.045, 0.045  # mm of the walls per year, and on top of it per year above OLD
OPENING_YEAR, OPENING_OLD = 0.018, 0.045  # mm of the walls of sulci
CORTEX_YEAR = -0.009  # log odds of grey against white matter
PACE_SD = 0.3  # of the logarithm of a person's pace; by hand

# Unusual people, in mm; by hand, within what radiology calls variants of the normal.
LARGE_VENTRICLES, LARGE_SIDE = (4.0, 7.0), 1.5
CAVUM_HALF, CAVUM_CENTRE = (2.5, 5.0), (0.0, 7.0, 11.0)
MAGNA, MAGNA_CENTRE, MAGNA_REACH = (9.0, 14.0), (0.0, -78.0, -46.0), 12.0
WIDE, WIDE_REACH = (2.5, 4.0), 14.0
WIDE_CENTRES = ((-44.0, 2.0, 0.0), (44.0, 2.0, 0.0), (0.0, -2.0, -22.0), (0.0, -40.0, 2.0))  # Sylvian, basal, ambient
THICK_SIDE, NARROW_SIDE = (0.6, 1.0), (0.4, 0.8)  # log odds of grey matter; mm of sulcal walls


def draw_individual(seeds: np.random.SeedSequence, variety: Variety) -> Individual:
    """A random individual; `seeds` is a fresh sequence of the person.

    Raises:
        AnofieldError: The templates of the variety are missing or cannot be used.
    """
    if variety == SIMPLE:
        return plain()
    streams = [np.random.default_rng(seed) for seed in seeds.spawn(5)]
    template, bend = _host(streams[0], variety.template)
    own: dict[str, Any] = {"template": template, "bend": bend}
    if template.velocity is not None:
        own["sulci"] = -SULCI_MEAN  # which makes up for the thin sulci of an average; one person's need no help
    if variety.folds:
        own["folds"] = draw_folds(streams[1], template, FOLD_SD * variety.folds)
    own |= _sides(streams[2], variety.asymmetry)
    if variety.age is not None:
        own |= _aged(streams[3], *variety.age)
    if variety.unusual:
        kind = variety.unusual[int(streams[4].integers(len(variety.unusual)))]
        own = _unusual(streams[4], kind, own) | {"traits": (kind,)}
    return Individual(**own)


def draw_folds(rng: np.random.Generator, template: Template, sd: float) -> Displacement:
    """A random displacement of the folds of a template, which leaves space unfolded."""
    width = rng.uniform(*FOLD_WIDTH)
    velocity = draw_field(rng, width, sd, channels=3).on(lattice_axes()) * template.ribbon
    folds = Displacement.exponential(velocity)
    while folds.jacobian().min() < LEAST_JACOBIAN:
        velocity = velocity * np.float32(CALMER)
        folds = Displacement.exponential(velocity)
    return folds


def _host(rng: np.random.Generator, name: str) -> tuple[Template, Displacement | None]:
    """A random template, and the displacement that bends it a random share of the way towards another one."""
    sources = find_sources(name)
    host, other = rng.integers(len(sources)), rng.integers(max(len(sources) - 1, 1))
    share = rng.uniform(0, LARGEST_SHARE)
    template = load_template(sources[host])
    if len(sources) == 1:
        return template, None
    partner = sources[other + (other >= host)]
    away = load_velocity(sources[host]) - load_velocity(partner)  # to first order (Baker-Campbell-Hausdorff)
    return template, Displacement.exponential(np.float32(share) * away)


def _sides(rng: np.random.Generator, factor: float) -> dict[str, Any]:
    """Differences between the hemispheres."""
    torque, wider, ventricle = rng.standard_normal(3)
    return {
        "torque": factor * (TORQUE_MM + TORQUE_SD * torque),
        "wider": factor * WIDER_SD * wider,
        "ventricle_side": factor * (VENTRICLE_SIDE_MM + VENTRICLE_SIDE_SD * ventricle),
    }


def _aged(rng: np.random.Generator, low: float, high: float) -> dict[str, Any]:
    """Atrophy at a random age."""
    age = float(rng.uniform(low, high))
    pace = np.exp(PACE_SD * rng.standard_normal(3))
    years, old = max(age - YOUNG, 0.0), max(age - OLD, 0.0)
    return {
        "age": age,
        "ventricle": float(pace[0] * (VENTRICLE_YEAR * years + VENTRICLE_OLD * old)),
        "opening": float(pace[1] * (OPENING_YEAR * years + OPENING_OLD * old)),
        "cortex": float(pace[2] * CORTEX_YEAR * years),
    }


def _unusual(rng: np.random.Generator, kind: str, own: dict[str, Any]) -> dict[str, Any]:
    """The properties of a person with unusual anatomy of a kind from `UNUSUAL`."""
    template: Template = own["template"]
    size, side = float(rng.uniform()), float(rng.choice([-1.0, 1.0]))
    if kind == "ventricles":
        wider = own.get("ventricle", 0.0) + _between(LARGE_VENTRICLES, size)
        return own | {"ventricle": wider, "ventricle_side": own["ventricle_side"] + side * LARGE_SIDE * rng.uniform()}
    if kind == "cavum":
        return own | {"cavum": Cavum(_in_template(template, CAVUM_CENTRE), _between(CAVUM_HALF, size))}
    if kind == "cisterns":
        magna = Bump(_in_template(template, MAGNA_CENTRE), MAGNA_REACH, _between(MAGNA, size))
        wide = [Bump(_in_template(template, c), WIDE_REACH, _between(WIDE, rng.uniform())) for c in WIDE_CENTRES]
        return own | {"bumps": (magna,) if side > 0 else tuple(wide)}
    return own | {
        "cortex_side": side * _between(THICK_SIDE, size),
        "opening_side": -side * _between(NARROW_SIDE, size),
    }


def _between(limits: tuple[float, float], share: float) -> float:
    return float(limits[0] + (limits[1] - limits[0]) * share)


def _in_template(template: Template, place: tuple[float, float, float]) -> NDArray[np.float32]:
    """The template coordinates of what lies at `place` in ICBM152, MNI mm."""
    point = np.asarray(np.array(place) - CENTRE, dtype=np.float32)
    if template.velocity is None:
        return point
    flow = Displacement.exponential(template.velocity)
    return np.asarray(flow.moved(point[:, None])[:, 0], dtype=np.float32)
