"""`anofield report`: run (+ results), or training → one HTML file."""

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
    training: Annotated[bool, typer.Option("--training", help="Of a training, which -e names.")] = False,
    experiment: Annotated[Path | None, typer.Option("--experiment", "-e", help="Experiment directory.")] = None,
    data: Annotated[Path | None, typer.Option("--data", help="Training: store, shown beside restorations.")] = None,
    title: Annotated[str | None, typer.Option("--title", help="Of the page.")] = None,
    max_cases: Annotated[int, typer.Option("--max-cases", min=0, help="Cases of a run with pictures.")] = 24,
    people: Annotated[int, typer.Option("--people", min=0, max=48, help="Training: people shown.")] = 6,
    device: Device = "auto",
) -> None:
    """Write one self-contained HTML file of a run, or of a training (--training -e EXPERIMENT)."""
    from anofield.report import TITLE, TRAINING_TITLE, write_report, write_training_report

    if experiment is not None and run is None and results is None:
        path = write_training_report(
            experiment, output, data=data, title=title or TRAINING_TITLE, people=people, device=device
        )
    elif run is not None and experiment is None and not training and data is None:
        path = write_report(run, output, results=results, title=title or TITLE, max_cases=max_cases)
    else:
        raise UsageError(_unclear(run, experiment, training), remedy="give -p RUN, or --training -e EXPERIMENT")
    sys.stdout.write(f"{path}\n")


def _unclear(run: Path | None, experiment: Path | None, training: bool) -> str:
    if run is None and experiment is None:
        return "--training without an experiment" if training else "neither a run nor an experiment to report on"
    return "options of a run and of a training together"
