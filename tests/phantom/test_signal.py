"""Signal equations: against a slow simulation, and limits that everybody can check."""

from __future__ import annotations

from math import cos, exp, radians, sin

import pytest

from anofield.phantom.matter import TISSUE
from anofield.phantom.signal import GradientEcho, InversionRecovery, Matter, Mprage, SpinEcho, nulling_time

WHITE = TISSUE[3.0]["white"]


def _recover(m: float, time: float, t1: float) -> float:
    return 1 - (1 - m) * exp(-time / t1)


@pytest.mark.parametrize("name", ["grey", "white", "fluid"])
def test_mprage_is_the_steady_state_of_a_simulated_train(name: str) -> None:
    matter = TISSUE[3.0][name]
    sequence = Mprage(tr=2300, te=3, ti=900, flip=9, spacing=7.1, readouts=192)
    m, seen = 1.0, 0.0
    for _ in range(30):
        m = _recover(-m, 900 - 96 * 7.1, matter.t1)
        for pulse in range(192):
            if pulse == 96:
                seen = m * sin(radians(9))
            m = _recover(m * cos(radians(9)), 7.1, matter.t1)
        m = _recover(m, 2300 - (900 - 96 * 7.1) - 192 * 7.1, matter.t1)
    decay = exp(-3 / (0.5 * matter.t2))
    assert sequence.signal(matter) == pytest.approx(abs(matter.density * seen * decay), rel=1e-6)


def test_gradient_echo_is_the_steady_state_of_simulated_pulses() -> None:
    m = 1.0
    for _ in range(2000):
        m = _recover(m * cos(radians(30)), 24, WHITE.t1)
    expected = WHITE.density * m * sin(radians(30)) * exp(-5 / (0.5 * WHITE.t2))
    assert GradientEcho(tr=24, te=5, flip=30).signal(WHITE) == pytest.approx(expected, rel=1e-6)


def test_spin_echo_without_decay_or_saturation_is_the_density() -> None:
    assert SpinEcho(tr=1e6, te=1e-6).signal(WHITE) == pytest.approx(WHITE.density)
    assert SpinEcho(tr=1e6, te=WHITE.t2).signal(WHITE) == pytest.approx(WHITE.density / exp(1))


def test_the_nulling_time_nulls_one_matter_only() -> None:
    fluid, ti = TISSUE[3.0]["fluid"], nulling_time(9000, TISSUE[3.0]["fluid"].t1)
    sequence = InversionRecovery(tr=9000, te=90, ti=ti)
    assert sequence.signal(fluid) < 1e-9 < 0.05 < sequence.signal(WHITE)


def test_signals_are_magnitudes() -> None:
    early = InversionRecovery(tr=5000, te=10, ti=50)
    assert early.signal(Matter(t1=4000, t2=2000, density=1)) > 0
