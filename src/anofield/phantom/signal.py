"""Signal equations: spin echo, inversion recovery, spoiled gradient echo and MPRAGE.

Times are in ms. A signal is a magnitude relative to that of free water right after a 90° pulse; coil and gain are 1.
"""

from __future__ import annotations

from dataclasses import dataclass
from math import cos, exp, log, radians, sin
from typing import TypeAlias

T2_STAR = 0.5  # T2* over T2, about that of grey and white matter at 3 T (Wansapura et al. 1999)


@dataclass(frozen=True)
class Matter:
    """Relaxation times in ms and density of the protons, pure water at 1."""

    t1: float
    t2: float
    density: float


@dataclass(frozen=True)
class SpinEcho:
    """Spin echo, also turbo spin echo: repetition time and effective echo time."""

    tr: float
    te: float

    def signal(self, matter: Matter) -> float:
        """Magnitude for TE far below TR (Bernstein, King & Zhou 2004, chapter 14)."""
        return matter.density * (1 - exp(-self.tr / matter.t1)) * exp(-self.te / matter.t2)


@dataclass(frozen=True)
class InversionRecovery:
    """Spin echo after an inversion: FLAIR where `ti` nulls the fluid, inversion-prepared T1w where it is shorter."""

    tr: float
    te: float
    ti: float

    def signal(self, matter: Matter) -> float:
        """Magnitude after an ideal inversion, TE far below TR (Bernstein, King & Zhou 2004, chapter 14)."""
        recovered = 1 - 2 * exp(-self.ti / matter.t1) + exp(-self.tr / matter.t1)
        return abs(matter.density * recovered * exp(-self.te / matter.t2))


@dataclass(frozen=True)
class GradientEcho:
    """Spoiled gradient echo (FLASH, SPGR); `flip` in degrees."""

    tr: float
    te: float
    flip: float

    def signal(self, matter: Matter) -> float:
        """Steady state of Ernst & Anderson 1966, with decay by T2*."""
        left = exp(-self.tr / matter.t1)
        steady = sin(radians(self.flip)) * (1 - left) / (1 - cos(radians(self.flip)) * left)
        return matter.density * steady * exp(-self.te / (T2_STAR * matter.t2))


@dataclass(frozen=True)
class Mprage:
    """Gradient echoes in a train after an inversion: `readouts` pulses of `flip` degrees, `spacing` ms apart.

    `ti` is the time from the inversion to the middle of the train, where the centre of k-space is read.
    """

    tr: float
    te: float
    ti: float
    flip: float
    spacing: float
    readouts: int

    def signal(self, matter: Matter) -> float:
        """Magnitude in the steady state (Mugler & Brookeman 1990; derived as in Deichmann et al. 2000).

        Every step maps the longitudinal magnetisation m to a·m + b. The steady state is where the whole
        cycle leaves m as it is.
        """
        half = self.readouts // 2
        before = max(self.ti - half * self.spacing, 0.0)
        after = max(self.tr - before - self.readouts * self.spacing, 0.0)
        pulse = (cos(radians(self.flip)), 0.0)
        shot = _then(pulse, _recovery(self.spacing, matter.t1))
        to_centre = _then((-1.0, 0.0), _recovery(before, matter.t1), *[shot] * half)
        rest = _then(*[shot] * (self.readouts - half), _recovery(after, matter.t1))
        a, b = _then(to_centre, rest)
        inverted = b / (1 - a)
        centre = to_centre[0] * inverted + to_centre[1]
        decay = exp(-self.te / (T2_STAR * matter.t2))
        return abs(matter.density * centre * sin(radians(self.flip)) * decay)


Sequence: TypeAlias = SpinEcho | InversionRecovery | GradientEcho | Mprage


def nulling_time(tr: float, t1: float) -> float:
    """Inversion time in ms at which matter of a T1 gives no signal.

    >>> round(nulling_time(9000, 4300))
    2481
    """
    return t1 * log(2 / (1 + exp(-tr / t1)))


def _recovery(time: float, t1: float) -> tuple[float, float]:
    """Free recovery toward 1 for a time."""
    left = exp(-time / t1)
    return left, 1 - left


def _then(*steps: tuple[float, float]) -> tuple[float, float]:
    """Several maps m to a·m + b, one after the other, as one."""
    a, b = 1.0, 0.0
    for factor, offset in steps:
        a, b = factor * a, factor * b + offset
    return a, b
