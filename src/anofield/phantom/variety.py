"""How healthy people of a cohort differ from each other: template, folds, asymmetry, age and unusual anatomy."""

from __future__ import annotations

import math
import re
from dataclasses import dataclass

from anofield.errors import UsageError

TEMPLATES = ("icbm152", "colin27", "mixed")
UNUSUAL = {
    "ventricles": "large ventricles",
    "cavum": "cavum septi pellucidi",
    "cisterns": "wide cisterns, or a large cisterna magna",
    "cortex": "one hemisphere with thicker cortex and narrower sulci",
}
AGES = (18.0, 95.0)  # years; the published slopes were measured on adults
MOST_FOLDS, MOST_ASYMMETRY = 1.0, 1.5  # larger factors would fold space, or not look like a brain


def _check_ages(ages: tuple[float, float] | None) -> None:
    if ages is None:
        return
    low, high = ages
    if not AGES[0] <= low <= high <= AGES[1]:
        raise UsageError(
            f"ages from {low:g} to {high:g} cannot be drawn",
            why="the slopes of atrophy were measured on adults",
            remedy=f"give LOW-HIGH within {AGES[0]:g}-{AGES[1]:g}",
        )


@dataclass(frozen=True, kw_only=True)
class Variety:
    """How the healthy anatomy varies between the people of a cohort.

    Attributes:
        template: `"icbm152"` (the average of 152 people), `"colin27"` (one person, from Debian's `mricron-data`),
            `"mixed"` (one of these two, bent towards the other by a random share), or the path of a folder with the
            tissue maps of several people in NIfTI (each synthetic person is one of them, bent towards another).
        folds: Factor on the displacement of the cortical folds, 0 for none, 1 for that of `FULL_VARIETY`.
        asymmetry: Factor on the differences between the hemispheres, 0 for none, 1 for that of `FULL_VARIETY`.
        age: Lowest and highest age in years; `None` for young adults without an age.
        unusual: Kinds of `UNUSUAL`; each person has one of them, drawn at random, and is healthy all the same.

    Raises:
        UsageError: A factor, the ages or a kind cannot be used.
    """

    template: str = "icbm152"
    folds: float = 0.0
    asymmetry: float = 0.0
    age: tuple[float, float] | None = None
    unusual: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        limits = (("folds", self.folds, MOST_FOLDS), ("asymmetry", self.asymmetry, MOST_ASYMMETRY))
        for name, factor, most in limits:
            if not (math.isfinite(factor) and 0 <= factor <= most):
                raise UsageError(f"{name} is {factor}", remedy=f"give a factor from 0 to {most}")
        if not self.template:
            raise UsageError("the template has no name", remedy=f"choose from {', '.join(TEMPLATES)}, or name a folder")
        _check_ages(self.age)
        for kind in self.unusual:
            if kind not in UNUSUAL:
                raise UsageError(f"unknown unusual anatomy {kind!r}", remedy=f"choose from {', '.join(UNUSUAL)}")


SIMPLE = Variety()  # the phantom without any of this
FULL_VARIETY = Variety(folds=1.0, asymmetry=1.0, age=(20.0, 85.0))  # needs nothing that is not installed


def parse_ages(text: str) -> tuple[float, float]:
    """The ages of `LOW-HIGH`, or of one number.

    >>> parse_ages("20-85"), parse_ages("70")
    ((20.0, 85.0), (70.0, 70.0))

    Raises:
        UsageError: The text is no range of ages.
    """
    match = re.fullmatch(r"(\d+(?:\.\d+)?)(?:\s*[-–]\s*(\d+(?:\.\d+)?))?", text.strip())
    if match is None:
        raise UsageError(f"{text!r} is no range of ages", remedy="give LOW-HIGH in years, for example 20-85")
    ages = float(match[1]), float(match[2] or match[1])
    _check_ages(ages)
    return ages
