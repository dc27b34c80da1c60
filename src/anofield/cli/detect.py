"""`anofield detect`: scan → anomaly map, restoration, mask, table of findings."""

from __future__ import annotations

from typing import Annotated, Literal

import typer

from anofield._progress import say
from anofield._words import counted
from anofield.cli._detection import Filters, Fit, PresetOption, RecipeOption, options_from
from anofield.cli._options import (
    Computing,
    Epoch,
    Force,
    Json,
    LabelledInput,
    RunFolder,
    Trained,
    listed,
    score_names,
)
from anofield.cli._outcome import Strict, end_run
from anofield.cli._parameters import expanded

ScoreOption = Annotated[
    str | None,
    typer.Option("--score", help=f"Score of the anomaly map: {', '.join(score_names())}; default: deviation."),
]
Also = Annotated[str, typer.Option("--also", help="Further scores, separated by commas, or none.")]
Part = Annotated[str | None, typer.Option("--part", help="K/N: the K-th of N parts of the cases, for job arrays.")]
Naming = Annotated[
    Literal["plain", "bids"], typer.Option("--naming", help="Names of the results; bids: a BIDS derivative dataset.")
]


@expanded
def command(
    *,
    scans: LabelledInput,
    trained: Trained,
    output: RunFolder,
    recipe: RecipeOption = None,
    preset: PresetOption = "default",
    score: ScoreOption = None,
    also: Also = "intensity",
    filters: Filters,
    fit: Fit,
    epoch: Epoch = "latest",
    part: Part = None,
    naming: Naming = "plain",
    work: Computing,
    force: Force = False,
    strict: Strict = False,
    json_: Json = False,
) -> None:
    """Show where scans differ from healthy anatomy; finished cases are skipped, failing ones are recorded."""
    from anofield.data.cohort.case import part_of
    from anofield.detect.bids import UNKNOWN, bids_names, write_derivatives
    from anofield.detect.run import detect_cases, threads_before
    from anofield.detect.run_folder import RUN_FOLDER

    scans.check_apart(output)
    further = tuple(name for name in listed(also) if name != "none")
    options = options_from(preset, score=score, also=further, fit=fit, filters=filters)
    folder = output / RUN_FOLDER if naming == "bids" else output
    spread = work.begin(trained.device, threads_before(folder))
    model, cases = trained.load(epoch=epoch, recipe=recipe), scans.cases()
    names = bids_names(output, cases) if naming == "bids" else {}
    if unknown := sum(name.suffix == UNKNOWN for name in names.values()):
        say(f"{counted(unknown, 'scan')} of unknown contrast: the maps are called _{UNKNOWN}; --modality names it")
    run = detect_cases(cases, model, options, folder, part=part, force=force, spread=spread)
    if naming == "bids" and not run.read_only:
        write_derivatives(output, part_of(cases, part)[0], names)
    end_run(run, folder, strict=strict, as_json=json_)
