"""`anofield mood`: the contract of the MOOD challenge."""

from __future__ import annotations

from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer

from anofield._words import counted
from anofield.cli._detection import PrecisionOption
from anofield.cli._options import Device, Experiment, Json, Precision, finish


class Task(StrEnum):
    """What is scored."""

    pixel = "pixel"
    sample = "sample"


def command(
    source: Annotated[str, typer.Option("--input", "-i", help="Folder of scans.")],
    output: Annotated[Path, typer.Option("--output", "-o", help="Folder of the results.")],
    model: Experiment,
    task: Annotated[Task, typer.Option("--task", help="pixel: NIfTI of the same name; sample: <name>.txt.")],
    device: Device = "auto",
    precision: PrecisionOption = Precision.auto,
    json_: Json = False,
) -> None:
    """Score scans as the MOOD challenge wants it: numbers in [0, 1], ½ at the calibrated threshold."""
    from anofield.data.cohort.find import find_cases
    from anofield.data.parallel import failures_of
    from anofield.detect.mood import run_mood
    from anofield.detect.run import DetectOptions
    from anofield.field.model import load_model

    loaded = load_model(model, device=device, precision=precision.value)
    outcomes = run_mood(find_cases(source), loaded, DetectOptions(also=()), output, task.value)
    paths = [str(outcome.value) for outcome in outcomes if outcome.value is not None]
    finish(
        {"files": paths},
        failures_of(outcomes),
        len(paths),
        as_json=json_,
        text=f"{output}: {counted(len(paths), 'file')}",
    )
