"""Detection options from the command line."""

from __future__ import annotations

import sys
import time
from collections.abc import Iterable, Mapping, Sequence
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from anofield.cli._options import Precision
from anofield.errors import UsageError

if TYPE_CHECKING:
    from anofield.data.cohort.case import Case
    from anofield.data.parallel import Failure
    from anofield.detect.method import RunOptions, Scorer
    from anofield.detect.run import DetectOptions
    from anofield.field.model import Model
    from anofield.typing import Json

FIT_SWITCHES = ("pose", "intensity", "elastic_mm", "seed")
SWITCHES = ("tail", "rim_mm", "minimum_mm", "gaussian_mm", "edge_mm", "native_edge_mm",
            "standardise", *FIT_SWITCHES)  # fmt: skip


class Pose(StrEnum):
    """What of the head's place is fitted with the code."""

    none = "none"
    similarity = "similarity"


class IntensityMap(StrEnum):
    """What of the intensities is fitted with the code."""

    none = "none"
    smooth = "smooth"


RimMm = Annotated[float | None, typer.Option("--rim-mm", help="Depth below the brain's surface that does not count.")]
MinimumMm = Annotated[float | None, typer.Option("--minimum-mm", help="Width of the minimum filter.")]
GaussianMm = Annotated[float | None, typer.Option("--gaussian-mm", help="FWHM of the Gaussian filter.")]
EdgeMm = Annotated[float | None, typer.Option("--edge-mm", help="Window of the guided filter; 0 for none (2021).")]
NativeEdgeMm = Annotated[float | None, typer.Option("--native-edge-mm", help="The same on the scan's own voxels.")]
Standardise = Annotated[bool | None, typer.Option("--standardise/--raw", help="Score over healthy mean and SD.")]
PoseOption = Annotated[Pose | None, typer.Option("--pose", help="Of the head, fitted with the code; none as in 2021.")]
IntensityOption = Annotated[IntensityMap | None, typer.Option("--intensity-map", help="Gain, gamma and bias.")]
ElasticMm = Annotated[
    float | None,
    typer.Option("--elastic-mm", help="Width of a displacement that brings the fitted anatomy onto the scan; 0: none."),
]
Seed = Annotated[int, typer.Option("--seed", min=0, help="Of the fit's random points.")]
RecipeOption = Annotated[
    str | None,
    typer.Option("--recipe", help="Name or file: prepare scans by another recipe than the model's, which must fit it "
                 "(ifl2021-brats for ifl2021-hcp)."),
]  # fmt: skip


class Preset(StrEnum):
    """Whole procedures."""

    default = "default"
    small_lesions = "small-lesions"
    ifl2021 = "ifl2021"


PresetOption = Annotated[
    Preset,
    typer.Option("--preset", help="small-lesions: for lesions of 5 to 12 mm; ifl2021: fit, score and filters "
                 "as published."),
]  # fmt: skip
PrecisionOption = Annotated[Precision, typer.Option("--precision", help="auto: bfloat16 where fast.")]


def options_from(preset: Preset, score: str | None, also: str, **switches: Any) -> DetectOptions:
    """Options of a run; what is None is the default.

    Args:
        preset: `ifl2021` heeds further scores and the seed alone.
        score: The main one.
        also: Further ones, comma separated, or none.
        switches: Fields of `FitOptions` named in `FIT_SWITCHES`, the others of `ScoreOptions`.

    Raises:
        UsageError: An unknown score, a value out of range, or a switch that the preset would not heed.
    """
    extra = tuple(name.strip() for name in also.split(",") if name.strip() not in ("", "none"))
    given = {key: getattr(value, "value", value) for key, value in switches.items() if value is not None}
    if preset is Preset.ifl2021:
        return _published(score, extra, given)
    fit = {key: given.pop(key) for key in FIT_SWITCHES if key in given}
    main = {} if score is None else {"score": score}
    if preset is Preset.small_lesions:
        from anofield.detect.run import SMALL_LESIONS

        fit, given = {**SMALL_LESIONS["fit"], **fit}, {**SMALL_LESIONS["filters"], **given}
    return _checked({**main, "also": extra, "fit": fit, "filters": given})


def _published(score: str | None, also: tuple[str, ...], given: Mapping[str, Any]) -> DetectOptions:
    """Options of the published procedure; its own score may be named.

    Raises:
        UsageError: Something was given that it does not heed.
    """
    from anofield.detect.run import DetectOptions

    options = DetectOptions.published(also=_checked({"also": also}).also, seed=given.get("seed", 0))
    changed = [key for key in given if key != "seed"]
    if score not in (None, options.score):
        changed.insert(0, f"score {score}")
    if changed:
        flag = {"intensity": "intensity-map"}.get(changed[0], changed[0].replace("_", "-"))
        raise UsageError(f"--preset ifl2021 with --{flag}", remedy="leave out one of them")
    return options


def switches_of(given: Mapping[str, Any]) -> dict[str, Any]:
    """The switches of fit and filters among the arguments of a command, by the names of their fields."""
    found = {key: given[key] for key in SWITCHES if key in given}
    return {**found, "intensity": given["intensity_map"]} if "intensity_map" in given else found


def run_cases(
    cases: Sequence[Case],
    method: Model | Scorer,
    options: RunOptions,
    folder: Path,
    *,
    start: float,
    part: str | None = None,
    **how: Any,
) -> tuple[Json, list[Json], list[Failure]]:
    """Detect in a cohort or a part of it, and write the run's own files.

    Args:
        cases: The whole cohort.
        method: The field or a baseline.
        options: Of the run.
        folder: Of the run.
        start: `time.monotonic()` when the command began.
        part: `K/N`, or None for all.
        how: Further arguments of `detect_cases`.

    Returns:
        Content of `run.json`, of every finished `case.json`, and the failures.
    """
    from anofield.data.cohort.case import part_of
    from anofield.data.parallel import failures_of, write_failures
    from anofield.detect.run import detect_cases, write_run

    mine, suffix = part_of(cases, part)
    outcomes = detect_cases(mine, method, options, folder, **how)
    run = write_run(folder, method, options, outcomes, time.monotonic() - start, " ".join(sys.argv), others=cases)
    failures = failures_of(outcomes)
    write_failures(folder / f"failures{suffix}.json", failures)
    return run, [outcome.value for outcome in outcomes if outcome.value is not None], failures


def _checked(chosen: Mapping[str, Any]) -> DetectOptions:
    from pydantic import ValidationError

    from anofield.detect.run import DetectOptions

    try:
        options = DetectOptions.model_validate(chosen)
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(str(part) for part in first["loc"])
        told = first["msg"].removeprefix("Value error, ")
        raise UsageError(f"{where}: {told}", remedy="anofield detect --help lists the options") from error
    load_scores(options.names)
    return options


def load_scores(names: Iterable[str] | None = None) -> None:
    """Import scores before the first scan, else one that cannot be imported would fail every case on its own.

    Args:
        names: Of scores, others are left alone; None for every score there is, which a calibration measures.

    Raises:
        UsageError: One cannot be imported or called.
    """
    from anofield.detect.scores import SCORES

    for name in SCORES if names is None else names:
        if name in SCORES:
            SCORES[name]
