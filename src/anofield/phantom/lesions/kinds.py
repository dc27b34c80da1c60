"""The kinds of lesions by name."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from anofield.phantom.anatomy import Anatomy
from anofield.phantom.lesions.lesion import Lesion
from anofield.phantom.lesions.plan import Plan, plan_of
from anofield.phantom.lesions.scars import draw_dark, draw_dysplasia
from anofield.phantom.lesions.spots import draw_ms, draw_small
from anofield.phantom.lesions.strokes import draw_bleeding, draw_infarct
from anofield.phantom.lesions.tumours import draw_glioma, draw_infiltration

_DRAW: dict[str, Callable[[np.random.Generator, Plan], Lesion]] = {
    "glioma": draw_glioma,
    "small": draw_small,
    "dark": draw_dark,
    "infarct": draw_infarct,
    "bleeding": draw_bleeding,
    "infiltration": draw_infiltration,
    "ms": draw_ms,
    "dysplasia": draw_dysplasia,
}
LESION_KINDS = tuple(_DRAW)
HELD_OUT_KINDS = ("infarct", "bleeding", "infiltration", "ms", "dysplasia")  # nothing may be tuned on them


def draw_lesion(rng: np.random.Generator, kind: str, anatomy: Anatomy) -> Lesion:
    """A random lesion of a kind from `LESION_KINDS` in a person's anatomy."""
    return draw_on(rng, kind, plan_of(anatomy))


def draw_on(rng: np.random.Generator, kind: str, plan: Plan) -> Lesion:
    """A random lesion of a kind from `LESION_KINDS` on a planning lattice."""
    return _DRAW[kind](rng, plan)
