"""Detection options from the command line."""

from __future__ import annotations

from collections.abc import Mapping
from enum import StrEnum
from typing import TYPE_CHECKING, Annotated, Any

import typer

from anofield.errors import UsageError

if TYPE_CHECKING:
    from anofield.detect import DetectOptions

FIT_SWITCHES = ("pose", "intensity", "samples", "seed")


class Pose(StrEnum):
    """What of the head's place is fitted with the code."""

    none = "none"
    rigid = "rigid"
    similarity = "similarity"


class IntensityMap(StrEnum):
    """What of the intensities is fitted with the code."""

    none = "none"
    smooth = "smooth"


MinimumMm = Annotated[float | None, typer.Option("--minimum-mm", help="Width of the minimum filter.")]
MeanMm = Annotated[float | None, typer.Option("--mean-mm", help="Width of the mean filter (2021: 15 voxels).")]
GaussianMm = Annotated[float | None, typer.Option("--gaussian-mm", help="FWHM of the Gaussian filter.")]
EdgeMm = Annotated[float | None, typer.Option("--edge-mm", help="Window of the guided filter; 0 for none (2021).")]
NativeEdgeMm = Annotated[float | None, typer.Option("--native-edge-mm", help="The same on the scan's own voxels.")]
FineMm = Annotated[float | None, typer.Option("--fine-mm", help="FWHM of a second, fine map for small lesions.")]
Standardise = Annotated[bool | None, typer.Option("--standardise/--raw", help="Score over healthy mean and SD.")]
PoseOption = Annotated[Pose | None, typer.Option("--pose", help="Of the head, fitted with the code; none as in 2021.")]
IntensityOption = Annotated[IntensityMap | None, typer.Option("--intensity-map", help="Gain, gamma and bias.")]
Samples = Annotated[int | None, typer.Option("--samples", min=0, help="Codes to average over; 0 for the best alone.")]
Seed = Annotated[int, typer.Option("--seed", min=0, help="Of the fit's random points.")]


def options_from(score: str, also: str, **switches: Any) -> DetectOptions:
    """Options of a run; switches that are None are the defaults.

    Args:
        score: The main one.
        also: Further ones, comma separated, or none.
        switches: Fields of `FitOptions` named in `FIT_SWITCHES`, the others of `ScoreOptions`.

    Raises:
        UsageError: An unknown score, or a value out of range.
    """
    extra = tuple(name.strip() for name in also.split(",") if name.strip() not in ("", "none"))
    given = {key: getattr(value, "value", value) for key, value in switches.items() if value is not None}
    fit = {key: given.pop(key) for key in FIT_SWITCHES if key in given}
    return _checked({"score": score, "also": extra, "fit": fit, "filters": given})


def _checked(chosen: Mapping[str, Any]) -> DetectOptions:
    from pydantic import ValidationError

    from anofield.detect import DetectOptions

    try:
        return DetectOptions.model_validate(chosen)
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(str(part) for part in first["loc"])
        raise UsageError(f"{where}: {first['msg']}", remedy="anofield detect --help lists the options") from error
