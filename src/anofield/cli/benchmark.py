"""`anofield benchmark`: every method on one phantom cohort, one table."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from anofield.cli._options import Device, Force, Json, Quick, Threads, listed, print_result


def command(
    output: Annotated[Path, typer.Option("--output", "-o", help="Folder of the benchmark.")],
    quick: Quick = False,
    methods: Annotated[str, typer.Option("--methods", help="Names, separated by commas; default: all.")] = "",
    seed: Annotated[int, typer.Option("--seed", min=0, help="Seed of the cohort and of every training.")] = 0,
    device: Device = "auto",
    threads: Threads = "auto",
    force: Force = False,
    json_: Json = False,
) -> None:
    """Train, calibrate, run and evaluate every method on one phantom cohort; resumes where it stopped."""
    from anofield.benchmark import FULL, QUICK, run_benchmark
    from anofield.field.threads import use_threads

    use_threads(threads, device=device)
    plan = QUICK if quick else FULL
    content, table = run_benchmark(output, plan, listed(methods), seed=seed, device=device, force=force)
    print_result(content, table, as_json=json_)
    if content["failures"]:
        raise typer.Exit(3)
