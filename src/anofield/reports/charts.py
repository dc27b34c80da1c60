"""Charts of the reports: axes with round ticks, lines as SVG paths; no HTML is made here."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from anofield.evaluation.parts import Band
from anofield.reports.numerals import number

MAX_POINTS = 400  # of a curve; more would not be visible at 400 pixels
TICKS = 6  # approximate number on an axis
LARGEST = 1e100  # values beyond it, or below its inverse, come from damaged files; they are drawn at the edge
LOG_RATIO = 8.0  # values that spread wider than this are drawn on a logarithmic axis
MANY_DECADES = 2.5  # on longer axes only powers of ten are marked
FEW_POINTS = 30  # lines with fewer points get dots: they were measured at some epochs only
SUPERSCRIPT = str.maketrans("-0123456789", "⁻⁰¹²³⁴⁵⁶⁷⁸⁹")

Ticks = tuple[tuple[float, str], ...]
UNIT_TICKS: Ticks = tuple((place, str(place / 100)) for place in (0, 25, 50, 75, 100))


@dataclass(frozen=True)
class Line:
    """One line of a chart.

    Attributes:
        name: Name in the legend.
        style: CSS classes.
        path: SVG path in the unit square times 100, y downwards.
        note: Words behind the name in the legend.
        dots: SVG path of dots at its points, or empty.
        band: SVG path of the area of its interval, or empty.
    """

    name: str
    style: str
    path: str
    note: str = ""
    dots: str = ""
    band: str = ""


@dataclass(frozen=True)
class Chart:
    """Lines in one frame.

    Attributes:
        title: Words above the frame.
        x: Label of the horizontal axis.
        y: Words to its left.
        lines: Lines, the first on top.
        x_ticks: Ticks of the horizontal axis, as (place from 0 to 100, label).
        y_ticks: Ticks of the vertical axis, from bottom to top.
        height: Height of the frame, whose width is 322.
        diagonal: Whether to draw the diagonal, the result of chance.
        note: Words below the legend.
    """

    title: str
    x: str
    y: str
    lines: tuple[Line, ...]
    x_ticks: Ticks = UNIT_TICKS
    y_ticks: Ticks = UNIT_TICKS
    height: int = 280
    diagonal: bool = False
    note: str = ""


@dataclass(frozen=True)
class Series:
    """Values over epochs to be drawn as a line: (epoch, value), all finite."""

    name: str
    style: str
    points: Sequence[tuple[float, float]]
    note: str = ""


@dataclass(frozen=True)
class Axis:
    """Values from `low` to `high`, on a logarithmic axis or a plain one."""

    low: float
    high: float
    log: bool = False

    @classmethod
    def around(cls, values: Sequence[float], *, zero: bool = False) -> Axis:
        """An axis for these values: logarithmic if they are positive and spread wide; from 0 if `zero`."""
        low, high = (min(max(value, -LARGEST), LARGEST) for value in (min(values), max(values)))
        if not zero and low > 1 / LARGEST and high / low > LOG_RATIO:
            room = (high / low) ** 0.04
            return cls(low / room, high * room, log=True)
        low = min(0.0, low) if zero else low
        room = max(0.05 * (high - low), 0.001 * abs(high)) if high > low else 0.1 * abs(high) or 1.0
        return cls(low if zero and low == 0 else low - room, high + room)

    @classmethod
    def of_epochs(cls, epochs: Sequence[float]) -> Axis:
        """An axis from the first to the last epoch; half an epoch to both sides if there is only one."""
        low, high = min(epochs), max(epochs)
        return cls(low, high) if high > low else cls(low - 0.5, high + 0.5)

    def places(self, values: NDArray[np.float64]) -> NDArray[np.float64]:
        """Values → places from 0 to 1."""
        if self.log:
            return np.asarray(np.log(values / self.low) / math.log(self.high / self.low))
        return np.asarray((values - self.low) / (self.high - self.low))

    def ticks(self, *, whole: bool = False) -> Ticks:
        """Round values on the axis with their labels; whole numbers only, if `whole` is true."""
        values = self._decades() if self.log else self._steps(whole)
        kept = np.array([value for value in values if self.low <= value <= self.high])
        return tuple((float(p) * 100, tick_label(float(v))) for v, p in zip(kept, self.places(kept), strict=True))

    def _steps(self, whole: bool) -> list[float]:
        rough = (self.high - self.low) / TICKS
        unit = 10.0 ** math.floor(math.log10(rough))
        step = next(unit * factor for factor in (1, 2, 5, 10) if unit * factor >= rough * 0.99)
        step = max(1.0, step) if whole else step
        first = math.ceil(self.low / step - 1e-9)
        return [index * step for index in range(first, math.floor(self.high / step + 1e-9) + 1)]

    def _decades(self) -> list[float]:
        first, last = math.floor(math.log10(self.low)), math.ceil(math.log10(self.high))
        factors = (1, 2, 5) if math.log10(self.high / self.low) < MANY_DECADES else (1,)
        return [factor * 10.0**power for power in range(first, last + 1) for factor in factors]


def draw_chart(title: str, y: str, series: Sequence[Series], *, zero: bool = False) -> Chart | None:
    """A chart of values over epochs; None if there are none.

    Args:
        title: Words above the frame.
        y: Words to its left.
        series: Series to draw; those without points are left out.
        zero: Whether the axis begins at 0.
    """
    drawn = [one for one in series if one.points]
    if not drawn:
        return None
    epochs, values = zip(*(point for one in drawn for point in one.points), strict=True)
    across, up = Axis.of_epochs(epochs), Axis.around(values, zero=zero)
    lines = tuple(_line(one, across, up) for one in drawn)
    return Chart(title, "Epoch", y, lines, across.ticks(whole=True), up.ticks(), height=190)


def curve(x: Sequence[float | None], y: Sequence[float | None]) -> str:
    """A curve in the unit square as an SVG path, 100 units wide and high, y downwards; undefined points left out."""
    points = np.array([(a, b) for a, b in zip(x, y, strict=False) if a is not None and b is not None], dtype=float)
    points = points.reshape(-1, 2)
    points = points[np.isfinite(points).all(axis=1)]
    if len(points) > MAX_POINTS:
        points = points[np.linspace(0, len(points) - 1, MAX_POINTS).round().astype(int)]
    return svg_path((points * (1, -1) + (0, 1)) * 100, digits=2) if len(points) else ""


def area(band: Band, right: float = 1.0) -> str:
    """A band as a closed SVG path in the frame of `curve`; empty if fewer than two of its places are shown.

    Args:
        band: Band of a curve, with heights from 0 to 1.
        right: Value of x at the right edge; places beyond it are left out.
    """
    x = np.array(band.x, dtype=float)
    inside = x <= right
    if inside.sum() < 2:
        return ""
    x, low, high = x[inside], np.array(band.low)[inside], np.array(band.high)[inside]
    edge = np.r_[np.c_[x, high], np.c_[x, low][::-1]]
    return svg_path((edge * (1 / right, -1) + (0, 1)) * 100, digits=2) + "Z"


def svg_path(points: Any, *, digits: int) -> str:
    """An SVG path through points (n, 2)."""
    return "M" + "L".join(f"{x:.{digits}f} {y:.{digits}f}" for x, y in points)


def tick_label(value: float) -> str:
    """A round value, short: `0.002`, `5·10⁻⁵`, `20k`."""
    if value == 0:
        return "0"
    power = math.floor(math.log10(abs(value)) + 1e-9)
    if power < -3:
        factor = round(value / 10.0**power, 1)
        exponent = "10" + str(power).translate(SUPERSCRIPT)
        return exponent if factor == 1 else f"{factor:g}·{exponent}"
    if power >= 4:
        return f"{value / 1e6:g}M" if power >= 6 else f"{value / 1e3:g}k"
    return number(value, max(1, power + 1)) if value == round(value) else f"{value:.6g}".replace("-", "−")


def _line(series: Series, across: Axis, up: Axis) -> Line:
    points = np.array(series.points, dtype=np.float64)
    x, y = across.places(points[:, 0]), up.places(points[:, 1])
    marked = len(points) <= FEW_POINTS
    dots = "".join(f"M{100 * a:.2f} {100 * (1 - b):.2f}h0" for a, b in zip(x, y, strict=True)) if marked else ""
    return Line(series.name, series.style, curve(x.tolist(), y.tolist()), series.note, dots)
