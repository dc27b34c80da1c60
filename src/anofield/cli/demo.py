"""`anofield demo`: the whole way on a phantom cohort."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Annotated

import typer

from anofield.cli._options import Device, Force, Json


def command(
    output: Annotated[Path, typer.Option("--output", "-o", help="Folder of the demo.")],
    quick: Annotated[bool, typer.Option("--quick", help="Smaller and rougher: to see that all works.")] = False,
    seed: Annotated[int, typer.Option("--seed", min=0, help="Of the cohort and the training.")] = 0,
    device: Device = "auto",
    force: Force = False,
    json_: Json = False,
) -> None:
    """From nothing to a report: phantom cohort, prepare, train, calibrate, detect, evaluate, report."""
    from anofield.demo import run_demo
    from anofield.study import FULL, QUICK

    metrics, table, report = run_demo(output, QUICK if quick else FULL, seed=seed, device=device, force=force)
    if json_:
        sys.stdout.write(json.dumps(metrics, indent=2) + "\n")
    else:
        sys.stdout.write(f"{table}\n\nreport: {report}\n")
