"""`anofield benchmark`: every method on suites of people, one table per suite."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from anofield.cli._options import Device, Force, Json, Quick, Threads, listed, print_result


def command(
    output: Annotated[Path, typer.Option("--output", "-o", help="Folder of the benchmark.")],
    suite: Annotated[str, typer.Option("--suite", help="Suites, separated by commas; default: all that can run.")] = "",
    methods: Annotated[str, typer.Option("--methods", help="Names, separated by commas; default: all.")] = "",
    quick: Quick = False,
    seed: Annotated[
        int,
        typer.Option("--seed", min=0, help="Seed of people and trainings: 0 to 9 to tune on, 100 to 109 to report."),
    ] = 0,
    device: Device = "auto",
    threads: Threads = "auto",
    force: Force = False,
    json_: Json = False,
) -> None:
    """Train, calibrate, run and compare every method on suites of people; resumes where it stopped."""
    from anofield.benchmark import FULL, QUICK, run_benchmark
    from anofield.field.threads import use_threads

    use_threads(threads, device=device)
    sizes = QUICK if quick else FULL
    content, tables = run_benchmark(
        output, sizes, listed(suite), listed(methods), seed=seed, device=device, force=force
    )
    print_result(content, tables, as_json=json_)
    if any(one["failures"] for one in content.values()):
        raise typer.Exit(3)
