"""`anofield report`: run (+ results), comparison or training → HTML."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated

import typer

from anofield.cli._options import Device
from anofield.errors import UsageError


def command(
    output: Annotated[Path, typer.Option("--output", "-o", help="HTML file, or a folder for it.")],
    run: Annotated[Path | None, typer.Option("--predictions", "-p", help="Folder of the run.")] = None,
    results: Annotated[Path | None, typer.Option("--results", "-r", help="Folder written by evaluate.")] = None,
    compare: Annotated[Path | None, typer.Option("--compare", help="comparison.json of evaluate --compare.")] = None,
    training: Annotated[bool, typer.Option("--training", help="Report on the training of -e EXPERIMENT.")] = False,
    experiment: Annotated[Path | None, typer.Option("--experiment", "-e", help="Experiment directory.")] = None,
    data: Annotated[
        Path | None, typer.Option("--data", help="Training: store whose scans are shown beside restorations.")
    ] = None,
    title: Annotated[str | None, typer.Option("--title", help="Title of the page.")] = None,
    max_cases: Annotated[int, typer.Option("--max-cases", min=0, help="Run: number of cases with pictures.")] = 24,
    people: Annotated[int, typer.Option("--people", min=0, max=48, help="Training: number of subjects shown.")] = 6,
    device: Device = "auto",
) -> None:
    """Write the offline HTML report of a run, a comparison or a training."""
    from anofield.reports import report

    others = (run, results, experiment, data)
    if compare is not None and not training and all(other is None for other in others):
        path = report.write_comparison_report(compare, output, title=title or report.COMPARISON_TITLE)
    elif compare is not None:
        raise UsageError("--compare together with a run or a training", remedy="give --compare and -o only")
    elif experiment is not None and run is None and results is None:
        title = title or report.TRAINING_TITLE
        path = report.write_training_report(experiment, output, data=data, title=title, people=people, device=device)
    elif run is not None and experiment is None and not training and data is None:
        path = report.write_report(run, output, results=results, title=title or report.TITLE, max_cases=max_cases)
    else:
        raise UsageError(
            _unclear(run, experiment, training), remedy="give -p RUN, or --training -e EXPERIMENT, or --compare FILE"
        )
    sys.stdout.write(f"{path}\n")


def _unclear(run: Path | None, experiment: Path | None, training: bool) -> str:
    if run is None and experiment is None:
        return "--training without an experiment" if training else "neither a run nor an experiment to report on"
    return "options of a run and of a training were given together"
