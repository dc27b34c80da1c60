"""`anofield benchmark`: every method on one phantom cohort, one table."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Annotated

import typer

from anofield.cli._options import Device, Force, Json


def command(
    output: Annotated[Path, typer.Option("--output", "-o", help="Folder of the benchmark.")],
    quick: Annotated[bool, typer.Option("--quick", help="Smaller and rougher: to see that all works.")] = False,
    methods: Annotated[str, typer.Option("--methods", help="Comma separated; default: all.")] = "",
    seed: Annotated[int, typer.Option("--seed", min=0, help="Of the cohort and every training.")] = 0,
    device: Device = "auto",
    force: Force = False,
    json_: Json = False,
) -> None:
    """Train, calibrate, run and evaluate every method on one phantom cohort; goes on where it stopped."""
    from anofield.benchmark import FULL, QUICK, run_benchmark

    chosen = [name.strip() for name in methods.split(",") if name.strip()]
    plan = QUICK if quick else FULL
    content, table = run_benchmark(output, plan, chosen, seed=seed, device=device, force=force)
    sys.stdout.write((json.dumps(content, indent=2) if json_ else table) + "\n")
    if content["failures"]:
        raise typer.Exit(3)
