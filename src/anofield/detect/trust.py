"""Whether the fit of a scan can be trusted: compares its diagnostics with those of the calibration's healthy scans.

A diagnostic is unusual outside of the prediction interval for one more healthy person, which is wider the fewer people
were calibrated on. The spread between people is that of the calibration, combined with the spread that is typical of
healthy cohorts as if `PRIOR_PEOPLE` more people had shown it (the conjugate prior of a normal variance, Gelman et al.
2013, «Bayesian Data Analysis», section 3.3).
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from scipy import stats

from anofield.data.origin import Origin
from anofield.detect.fit import Fit

PERCENTILES = (5, 50, 95)
FALSE_ALARMS = 0.02  # share of healthy people that may lie outside of one of the intervals
PRIOR_PEOPLE = 4  # people that the typical spread counts as, chosen by hand
# Typical SD between healthy people of one cohort, about that of 16 phantom people and of the young people of OASIS.
# That of pattern and contrast leaves room for a large lesion. Where there is a pattern, contrast is not judged.
TYPICAL = {
    "usual_loss": 0.08,
    "brighter": 0.008,
    "darker": 0.008,
    "code_distance": 0.08,
    "pattern": 0.06,
    "contrast": 0.06,
    "outside": 0.01,
    "brain_ml": 110.0,
    "turn": 3.0,
    "size": 0.03,
}
LOW = {
    "pattern": "bright and dark tissues lie elsewhere than the field expects",
    "contrast": "bright and dark tissues lie elsewhere than the field expects",
    "brain_ml": "the brain is far smaller than healthy ones",
    "size": "the head is fitted far smaller than healthy ones",
}
HIGH = {
    "usual_loss": "no healthy anatomy of the field explains the scan",
    "brighter": "much of the brain is brighter than the field expects",
    "darker": "much of the brain is darker than the field expects",
    "code_distance": "the code is unlike those of the training subjects",
    "outside": "much of the mask lies where the field expects no brain",
    "brain_ml": "the mask is far larger than healthy brains",
    "turn": "the head is fitted far more turned than healthy ones",
    "size": "the head is fitted far larger than healthy ones",
}
CAUSES = {  # what most often causes the largest excess, if the model was trained on people
    "usual_loss": "another contrast, orientation, age or protocol",
    "brighter": "another contrast, a contrast agent or another protocol",
    "darker": "another contrast, age or protocol",
    "pattern": "another contrast, or inverted intensities",
    "contrast": "another contrast, or inverted intensities",
    "outside": "a skull that was not stripped, or a wrong orientation",
    "brain_ml": "a cut field of view, a skull that was not stripped, or a wrong mask or spacing",
    "turn": "a head that lies otherwise than those of the calibration, or a fit that went astray",
    "size": "a wrong spacing, or a fit that went astray",
    "code_distance": "another age, population or protocol",
}
# A fit is trusted only if these and the orientation were measured.
NEEDED = ("code_distance", "contrast", "brain_ml")
UNKNOWN = Origin()
TURNED = "the scan fits better rotated by 90° or 180°: check its orientation"


@dataclass(frozen=True)
class Verdict:
    """Whether a fit can be trusted.

    Attributes:
        trusted: True or False; None if that could not be judged, because there is no calibration to compare with or the
            procedure does not measure everything.
        reasons: Reasons against trusting the fit, the strongest first.
    """

    trusted: bool | None
    reasons: tuple[str, ...] = ()


@dataclass(frozen=True, kw_only=True)
class Known:
    """What is known about a scan and the model beside the fit.

    Attributes:
        origin: Where the training scans come from.
        synthetic: Whether the scan is synthetic.
        other_contrast: Contrast of the scan by its name, if it is another one than that of the training; else empty.
    """

    origin: Origin = UNKNOWN
    synthetic: bool = False
    other_contrast: str = ""


@dataclass(frozen=True)
class Interval:
    """Prediction interval of a diagnostic for one more healthy person.

    Attributes:
        middle: Median of the healthy people.
        half: Half width.
    """

    middle: float
    half: float

    @classmethod
    def of(cls, name: str, healthy: tuple[float, float, float], people: int) -> Interval:
        """The interval of a diagnostic.

        Args:
            name: Name of the diagnostic.
            healthy: 5th, 50th and 95th percentile over healthy people.
            people: Number of these people.
        """
        low, middle, high = healthy
        freedom = PRIOR_PEOPLE + max(people, 1) - 1
        spread = (high - low) / expected_range(people) if people > 1 else 0.0
        sd = math.sqrt((PRIOR_PEOPLE * TYPICAL[name] ** 2 + (people - 1) * spread**2) / freedom)
        sides = len(LOW) + len(HIGH)
        quantile = float(stats.t.ppf(1 - FALSE_ALARMS / sides, freedom))
        return cls(middle, quantile * sd * math.sqrt(1 + 1 / max(people, 1)))

    def excess(self, value: float) -> float:
        """Distance from the middle in half widths, signed; beyond ±1 a value is unusual."""
        return (value - self.middle) / self.half


def expected_range(people: int) -> float:
    """Expected distance of the 5th and 95th percentile of so many normal values, in SD (Blom 1958; at least 2 people).

    >>> round(expected_range(5), 2), round(expected_range(10**6), 2)
    (2.09, 3.29)
    """
    ranks = (np.arange(1, people + 1) - 0.375) / (people + 0.25)
    low, high = np.percentile(stats.norm.ppf(ranks), (PERCENTILES[0], PERCENTILES[2]))
    return float(high - low)


def diagnostics(fit: Fit, brain_ml: float) -> dict[str, float]:
    """Diagnostics of a fit as plain numbers, without those that were not measured."""
    found, pose = fit.agreement, fit.pose
    values = {
        "loss": fit.loss,
        "usual_loss": None if found is None else found.usual_loss,
        "brighter": None if found is None else found.brighter,
        "darker": None if found is None else found.darker,
        "pattern": None if found is None else found.pattern,
        "code_distance": fit.code_distance,
        "contrast": fit.contrast,
        "outside": fit.outside,
        "turn": None if pose is None else math.degrees(float(pose.turn.norm())),
        "size": None if pose is None else math.exp(-float(pose.log_size.mean())),
        "brain_ml": brain_ml,
    }
    return {name: value for name, value in values.items() if value is not None}


def judge(
    fit: Fit,
    brain_ml: float,
    healthy: Mapping[str, tuple[float, float, float]],
    people: int = 1,
    known: Known | None = None,
) -> Verdict:
    """Compare a fit with those of healthy people; a diagnostic that was not measured is not judged.

    Args:
        fit: Fit of the scan.
        brain_ml: Volume of the brain, ml.
        healthy: 5th, 50th and 95th percentile per diagnostic over healthy people; empty without a calibration.
        people: Number of these people.
        known: What else is known; None for nothing.
    """
    known = known or Known()
    measured = diagnostics(fit, brain_ml)
    reasons = [TURNED] if fit.turned else []
    if known.other_contrast:
        reasons.append(f"by its name it is {known.other_contrast}, the model was trained on {known.origin}")
    reasons += _against(measured, healthy, people, known)
    if reasons:
        return Verdict(False, tuple(reasons))
    complete = fit.turned is not None and all(name in measured and name in healthy for name in NEEDED)
    return Verdict(True if complete else None)


def _against(
    measured: Mapping[str, float], healthy: Mapping[str, tuple[float, float, float]], people: int, known: Known
) -> list[str]:
    """Every diagnostic that is unusual, in words, the largest excess first; the first one with what may cause it."""
    found: list[tuple[float, str, str]] = []
    judged = [name for name in measured if name in healthy and name in TYPICAL]
    if "pattern" in judged and "contrast" in judged:
        judged.remove("contrast")
    for name in judged:
        excess = Interval.of(name, healthy[name], people).excess(measured[name])
        text = (HIGH if excess > 1 else LOW).get(name)
        if abs(excess) > 1 and text:
            low, _, high = healthy[name]
            told = f"{name} {_short(measured[name])}, healthy {_short(low)} to {_short(high)}"
            found.append((abs(excess), name, f"{text} ({told})"))
    found.sort(reverse=True)
    texts = [text for _, _, text in found]
    if texts and not known.other_contrast:  # another contrast is cause enough
        texts[0] += f"; {_cause(found[0][1], known)}"
    return texts


def _short(number: float) -> str:
    """A number with three digits, or without decimals from 1000 on.

    >>> _short(0.123456), _short(1283.4)
    ('0.123', '1283')
    """
    return f"{number:.3g}" if abs(number) < 1000 else f"{number:.0f}"


def _cause(name: str, known: Known) -> str:
    """What explains the largest excess: the training if it knows no real people, else the usual causes."""
    if known.origin.synthetic and not known.synthetic:
        return f"the model was trained on {known.origin} only, and this scan is none of theirs"
    trained = f"; the model was trained on {known.origin}" if known.origin.people else ""
    return f"usual causes: {CAUSES[name]}{trained}"
