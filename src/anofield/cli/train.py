"""`anofield train`: store → experiment."""

from __future__ import annotations

import json
import sys
from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer

from anofield.cli._options import Device, Json


class Precision(StrEnum):
    """Of the matrix products."""

    auto = "auto"
    float32 = "float32"
    bfloat16 = "bfloat16"


def command(
    experiment: Annotated[Path, typer.Option("--experiment", "-e", help="Directory that holds specs.json.")],
    resume: Annotated[str | None, typer.Option("--continue", help="Go on after: latest, or an epoch.")] = None,
    data: Annotated[Path | None, typer.Option("--data", help="Store; replaces DataSource of specs.json.")] = None,
    device: Device = "auto",
    precision: Annotated[Precision, typer.Option("--precision", help="auto: bfloat16 where fast.")] = Precision.float32,
    json_: Json = False,
) -> None:
    """Train the field of an experiment directory on prepared healthy people."""
    from anofield.experiment import Experiment
    from anofield.store import Store
    from anofield.train import train

    opened = Experiment(experiment)
    named = Path(opened.specs.data_source)  # counts from here, else from the experiment
    source = data or (named if named.exists() else experiment / named)
    logs = train(opened, Store(source), resume=resume, device=device, precision=precision.value)
    per_point = logs.loss[-1] / opened.specs.samples_per_scene if logs.loss else None
    result = {"experiment": str(experiment), "epoch": logs.epoch, "loss_per_point": per_point}
    if json_:
        sys.stdout.write(json.dumps(result, indent=2) + "\n")
    elif per_point is not None:
        sys.stdout.write(f"{experiment}: epoch {logs.epoch}, loss {per_point:.3f} nats per point\n")
