"""`anofield demo`: every step on a phantom cohort."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from anofield.cli._options import Device, Force, Json, Quick, Threads, print_result


def command(
    output: Annotated[Path, typer.Option("--output", "-o", help="Folder of the demo.")],
    quick: Quick = False,
    seed: Annotated[int, typer.Option("--seed", min=0, help="Seed of cohort and training.")] = 0,
    device: Device = "auto",
    threads: Threads = "auto",
    force: Force = False,
    json_: Json = False,
) -> None:
    """Run every step on a phantom cohort: prepare, train, calibrate, detect, evaluate, report."""
    from anofield.demo import run_demo
    from anofield.field.threads import use_threads
    from anofield.study import FULL, QUICK

    use_threads(threads, device=device)
    metrics, table, report = run_demo(output, QUICK if quick else FULL, seed=seed, device=device, force=force)
    print_result(metrics, f"{table}\n\nreport: {report}", as_json=json_)
