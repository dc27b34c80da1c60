"""`anofield mood`: results in the form of the MOOD challenge."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

import typer

from anofield._words import counted
from anofield.cli._options import Json, Trained, finish
from anofield.cli._parameters import expanded


@expanded
def command(
    *,
    source: Annotated[str, typer.Option("--input", "-i", help="Folder of scans.")],
    output: Annotated[Path, typer.Option("--output", "-o", help="Folder of the results.")],
    trained: Trained,
    task: Annotated[
        Literal["pixel", "sample"],
        typer.Option("--task", help="pixel: a NIfTI of the scan's name; sample: one number in NAME.txt."),
    ],
    json_: Json = False,
) -> None:
    """Score scans as the MOOD challenge requires: numbers in [0, 1], ½ at the calibrated threshold."""
    from anofield.data.cohort.find import find_cases
    from anofield.data.parallel import failures_of
    from anofield.detect.mood import run_mood
    from anofield.detect.options import DetectOptions

    outcomes = run_mood(find_cases(source, unite=True), trained.load(), DetectOptions(also=()), output, task)
    paths = [str(outcome.value) for outcome in outcomes if outcome.value is not None]
    text = f"{output}: {counted(len(paths), 'file')}"
    finish({"files": paths}, failures_of(outcomes), len(paths), as_json=json_, text=text)
