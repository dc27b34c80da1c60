"""Subjects side by side in one PNG: the same plane of each, with names, the patient's sides and the scale."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import matplotlib
import numpy as np
from PIL import Image, ImageDraw, ImageFont

from anofield._files import replacing
from anofield.reports.numerals import decimal
from anofield.reports.planes import VIEWS, turned
from anofield.typing import PathLike, Volume

COLUMNS = 8  # panels in a row; more start a new row
SMALLEST_PANEL = 192  # pixels: coarser planes are enlarged by a whole factor, so that names and marks fit
GAP, MARGIN = 6, 14  # pixels
INK, SOFT, MARK, PAGE = "#1d2329", "#5b6670", "#f2f4f6", "#ffffff"  # like the report's page
CONVENTION = {  # like the report's pictures
    "axial": "radiological: the patient's right is on the left",
    "coronal": "radiological: the patient's right is on the left",
    "sagittal": "seen from the patient's left, anterior on the left",
}
BAR = (150, 10)  # pixels of the scale


@dataclass(frozen=True)
class Strip:
    """The content of a strip.

    Attributes:
        planes: One plane per subject, (R, R) in RAS order, from `sample.decode_plane`.
        names: One name per subject.
        plane: `axial`, `coronal` or `sagittal`.
        mm: World coordinate of the plane.
        top: Value drawn white; 0 is black.
        classes: Number of classes if classes are shown, else None.
    """

    planes: Sequence[Volume]
    names: Sequence[str]
    plane: str
    mm: float
    top: float
    classes: int | None = None

    @property
    def caption(self) -> str:
        """Plane, place and convention in words."""
        axis = "xyz"[VIEWS[self.plane][0]]
        what = "expected intensity, normalised" if self.classes is None else "most probable class"
        return f"{self.plane}, {axis} = {decimal(self.mm, 1)} mm · {CONVENTION[self.plane]} · {what}"


def write_strip(path: PathLike, strip: Strip) -> tuple[int, int]:
    """Write a strip as PNG; returns its width and height in pixels.

    Raises:
        MachineError: The file cannot be written.
    """
    image = draw_strip(strip)
    with replacing(path) as partial:
        image.save(partial, "PNG", optimize=True)
    return image.size


def draw_strip(strip: Strip) -> Image.Image:
    """Draw the picture: rows of panels under their names, with the caption and the scale below."""
    side, font = _side(strip), _font(_size(strip))
    line = round(1.6 * font.size)
    columns = min(len(strip.planes), COLUMNS)
    rows = -(-len(strip.planes) // columns)
    wide = columns * (side + GAP) - GAP
    captions = _wrapped(strip.caption, font, wide)
    names = [_folded(name, font, side) for name in strip.names]
    head = max(map(len, names)) * line  # above every panel
    height = rows * (side + head + GAP) + (len(captions) + 1) * line
    image = Image.new("RGB", (wide + 2 * MARGIN, height + 2 * MARGIN), PAGE)
    draw = ImageDraw.Draw(image)
    for place, (plane, name) in enumerate(zip(strip.planes, names, strict=True)):
        left = MARGIN + place % columns * (side + GAP)
        top = MARGIN + place // columns * (side + head + GAP)
        for number, part in enumerate(name):
            draw.text((left, top + number * line), part, INK, font)
        image.paste(_panel(plane, side, strip.top), (left, top + head))
        _marks(draw, (left, top + head), side, strip.plane, font)
    below = MARGIN + rows * (side + head + GAP)
    for number, caption in enumerate(captions):
        draw.text((MARGIN, below + number * line), caption, SOFT, font)
    _scale(draw, (MARGIN, below + len(captions) * line), strip, font)
    return image


def _side(strip: Strip) -> int:
    count = len(strip.planes[0])
    return count * max(1, -(-SMALLEST_PANEL // count))


def _size(strip: Strip) -> int:
    return max(12, _side(strip) // 20)


@cache
def _font(size: int) -> ImageFont.FreeTypeFont:
    return ImageFont.truetype(Path(matplotlib.get_data_path()) / "fonts/ttf/DejaVuSans.ttf", size)


def _panel(plane: Volume, side: int, top: float) -> Image.Image:
    grey = (np.clip(turned(plane) / top, 0, 1) * 255).round().astype(np.uint8)
    return Image.fromarray(grey).resize((side, side), Image.Resampling.NEAREST).convert("RGB")


def _marks(
    draw: ImageDraw.ImageDraw, corner: tuple[int, int], side: int, plane: str, font: ImageFont.FreeTypeFont
) -> None:
    """Letters of the patient's sides at the four edges of a panel."""
    (x, y), half, inset = corner, side // 2, max(3, side // 50)
    _, (left, right, top, bottom) = VIEWS[plane]
    places = {"lm": (x + inset, y + half), "rm": (x + side - inset, y + half), "ma": (x + half, y + inset),
              "md": (x + half, y + side - inset)}  # fmt: skip
    for (anchor, place), letter in zip(places.items(), (left, right, top, bottom), strict=True):
        draw.text(place, letter, MARK, font, anchor, stroke_width=1, stroke_fill="#000000")


def _scale(draw: ImageDraw.ImageDraw, corner: tuple[int, int], strip: Strip, font: ImageFont.FreeTypeFont) -> None:
    """Draw the scale: the values of black and white."""
    (x, y), (wide, high) = corner, BAR
    first, last = ("0", decimal(strip.top, 2)) if strip.classes is None else ("class 0", f"{strip.classes - 1}")
    middle = y + round(0.8 * font.size)
    draw.text((x, middle), first, SOFT, font, "lm")
    x += round(font.getlength(first)) + GAP
    wide = min(wide, _side(strip) - (x - corner[0]) - round(font.getlength(last)) - GAP)
    steps = strip.classes or wide
    for step in range(steps):
        level = round(255 * step / (steps - 1))
        place = (x + step * wide // steps, middle - high // 2, x + (step + 1) * wide // steps - 1, middle + high // 2)
        draw.rectangle(place, (level,) * 3)
    draw.rectangle((x, middle - high // 2, x + wide - 1, middle + high // 2), None, SOFT)
    draw.text((x + wide + GAP, middle), last, SOFT, font, "lm")


def _folded(text: str, font: ImageFont.FreeTypeFont, width: int) -> list[str]:
    """The text in lines that fit, broken at any letter, because names of cases have no spaces."""
    lines = [""]
    for letter in text:
        longer = lines[-1] + letter
        lines = [*lines[:-1], longer] if font.getlength(longer) <= width else [*lines, letter]
    return lines


def _wrapped(text: str, font: ImageFont.FreeTypeFont, width: int) -> list[str]:
    """The text divided into lines that fit."""
    lines = [""]
    for word in text.split():
        longer = f"{lines[-1]} {word}".strip()
        lines = [*lines[:-1], longer] if font.getlength(longer) <= width else [*lines, word]
    return [line for line in lines if line]
