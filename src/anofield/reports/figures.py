"""Drawings of the report: slices as embedded pictures, outlines as SVG paths; no HTML is made here."""

from __future__ import annotations

import base64
import io
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import contourpy
import matplotlib
import numpy as np
from PIL import Image, features

from anofield.reports.charts import svg_path
from anofield.reports.planes import CaseView, Plane
from anofield.typing import Volume

COLOURS = "inferno"  # perceptually uniform, readable with colour blindness and in grey print
# (pixels per mm, quality): tried in this order until a case's pictures fit their share of the file
DETAILS = ((1.6, 82), (1.0, 72), (0.6, 60))
LARGEST_SIDE = 640  # pixels; protects against headers with absurd spacing
FORMAT = "WEBP" if features.check("webp") else "PNG"
OPACITY = 0.9  # of the overlay where it is strongest: the anatomy below stays visible


@dataclass(frozen=True)
class Scale:
    """Colour scale of the anomaly maps, the same in every case of a report.

    Attributes:
        top: Value at the bright end; the dark end is 0.
        threshold: Calibrated threshold, if there is one.
    """

    top: float
    threshold: float | None

    @property
    def visible(self) -> tuple[float, float]:
        """Values between which the overlay changes from transparent to `OPACITY`."""
        full = self.threshold if self.threshold and self.threshold < self.top else 0.5 * self.top
        return 0.4 * full, full


@dataclass(frozen=True)
class Panel:
    """One picture of a case: a base image, perhaps an overlay and outlines.

    Attributes:
        kind: `scan`, `restoration`, `anomaly` or `outlines`.
        base: Data URI of the panel's own picture, or empty.
        under: Kind of the panel of the same plane whose picture lies under this panel, or empty; it is stored once.
        overlay: Data URI, or empty.
        outlines: (class, SVG path in mm).
    """

    kind: str
    base: str = ""
    under: str = ""
    overlay: str = ""
    outlines: tuple[tuple[str, str], ...] = ()

    @property
    def weight(self) -> int:
        """Approximate number of characters that the panel adds to the page."""
        return len(self.base) + len(self.overlay) + sum(len(path) for _, path in self.outlines)


@dataclass(frozen=True)
class Row:
    """A plane and its panels, from left to right."""

    plane: Plane
    panels: tuple[Panel, ...]


def scale_of(ends: Iterable[float | None], threshold: float | None) -> Scale:
    """The common colour scale: the median of the cases' bright ends, and always some range above the threshold."""
    tops = [end for end in ends if end is not None and end > 0]
    top = float(np.median(tops)) if tops else 1.0
    return Scale(max(top, 1.6 * (threshold or 0.0)), threshold)


def draw(view: CaseView, scale: Scale, budget: int) -> list[Row]:
    """Panels of a case in the finest detail that stays within `budget` characters; empty if none does."""
    for detail in DETAILS:
        rows = [Row(plane, tuple(_panels(plane, view.window, scale, detail))) for plane in view.planes]
        if sum(panel.weight for row in rows for panel in row.panels) <= budget:
            return rows
    return []


def gradient(steps: int = 9) -> list[str]:
    """Colours of the scale from 0 to its top, as `#rrggbb`."""
    return [matplotlib.colors.to_hex(colour) for colour in matplotlib.colormaps[COLOURS](np.linspace(0, 1, steps))]


def outline(mask: Volume, size: tuple[float, float]) -> str:
    """Outline of a (row, column) mask as an SVG path in mm from the top left corner."""
    padded = np.pad(mask > 0, 1).astype(np.float32)
    down, across = size[1] / mask.shape[0], size[0] / mask.shape[1]
    lines: Sequence[Any] = contourpy.contour_generator(z=padded).lines(0.5)
    # an index is a voxel's centre, after one voxel of padding; a voxel's edge lies half a voxel before it
    points = [(np.asarray(line) - 0.5) * (across, down) for line in lines]
    return "".join(svg_path(line[:-1], digits=1) + "Z" for line in points)


def picture(grey: Volume, size: tuple[float, float], window: tuple[float, float], detail: tuple[float, int]) -> str:
    """A (row, column) slice in grey as a data URI."""
    low, high = window
    level = np.clip((grey - low) / (high - low), 0, 1)
    image = Image.fromarray((level * 255).round().astype(np.uint8))
    return _uri(image.resize(_pixels(size, detail[0]), Image.Resampling.BICUBIC), detail[1])


def overlay(anomaly: Volume, size: tuple[float, float], scale: Scale, detail: tuple[float, int]) -> str:
    """A (row, column) slice of an anomaly map in colour, transparent where it is low, as a data URI."""
    values = Image.fromarray(anomaly.astype(np.float32)).resize(_pixels(size, detail[0]), Image.Resampling.BILINEAR)
    value = np.asarray(values)
    low, full = scale.visible
    colour = matplotlib.colormaps[COLOURS](np.clip(value / scale.top, 0, 1))
    colour[..., 3] = OPACITY * np.clip((value - low) / (full - low), 0, 1)
    return _uri(Image.fromarray((colour * 255).round().astype(np.uint8)), detail[1])


def _panels(plane: Plane, window: tuple[float, float], scale: Scale, detail: tuple[float, int]) -> Iterable[Panel]:
    """Panels of a plane in the order of the page; panels without an image are left out."""
    pictures = {name: picture(plane.images[name], plane.size, window, detail) for name in _bases(plane)}
    under = next(iter(pictures), "")
    for name, uri in pictures.items():
        yield Panel(name, uri)
    if "anomaly" in plane.images:
        yield Panel("anomaly", under=under, overlay=overlay(plane.images["anomaly"], plane.size, scale, detail))
    outlines = tuple((name, outline(plane.images[name], plane.size)) for name in _outlined(plane))
    if outlines:
        yield Panel("outlines", under=under, outlines=outlines)


def _bases(plane: Plane) -> list[str]:
    return [name for name in ("scan", "restoration") if name in plane.images]


def _outlined(plane: Plane) -> list[str]:
    return [name for name in ("truth", "detected") if name in plane.images]


def _pixels(size: tuple[float, float], per_mm: float) -> tuple[int, int]:
    width, height = (min(LARGEST_SIDE, max(1, round(side * per_mm))) for side in size)
    return width, height


def _uri(image: Image.Image, quality: int) -> str:
    stream = io.BytesIO()
    image.save(stream, FORMAT, **({"quality": quality, "method": 4} if FORMAT == "WEBP" else {"optimize": True}))
    return f"data:image/{FORMAT.lower()};base64,{base64.b64encode(stream.getvalue()).decode()}"
