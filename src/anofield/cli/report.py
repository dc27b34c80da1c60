"""`anofield report`: run (+ results) → one HTML file."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated

import typer


def command(
    run: Annotated[Path, typer.Option("--predictions", "-p", help="Folder of the run.")],
    output: Annotated[Path, typer.Option("--output", "-o", help="HTML file, or a folder for report.html.")],
    results: Annotated[Path | None, typer.Option("--results", "-r", help="Folder written by evaluate.")] = None,
    title: Annotated[str, typer.Option("--title", help="Of the page.")] = "Anomaly detection report",
    max_cases: Annotated[int, typer.Option("--max-cases", min=0, help="Cases shown with pictures.")] = 24,
) -> None:
    """Write one self-contained HTML file of a run."""
    from anofield.report import write_report

    path = write_report(run, output, results=results, title=title, max_cases=max_cases)
    sys.stdout.write(f"{path}\n")
