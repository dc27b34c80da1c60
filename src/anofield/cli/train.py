"""`anofield train`: store → experiment."""

from __future__ import annotations

import json
import sys
from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer

from anofield.cli._options import Device, Json, Precision
from anofield.errors import UsageError


class Cache(StrEnum):
    """Where class volumes are kept."""

    auto = "auto"
    resident = "resident"
    stream = "stream"


def command(
    experiment: Annotated[Path, typer.Option("--experiment", "-e", help="Directory that holds specs.json.")],
    resume: Annotated[
        str | None, typer.Option("--continue", help="Go on after: latest, an epoch, or auto (latest if there is one).")
    ] = None,
    data: Annotated[Path | None, typer.Option("--data", help="Store; replaces DataSource of specs.json.")] = None,
    preset: Annotated[
        str | None, typer.Option("--preset", help="Start from: default, ifl2021-160 or ifl2021-full.")
    ] = None,
    held_out: Annotated[
        Path | None, typer.Option("--held-out", help="Store of healthy people to measure, not to train on.")
    ] = None,
    device: Device = "auto",
    precision: Annotated[Precision, typer.Option("--precision", help="auto: bfloat16 where fast.")] = Precision.auto,
    cache: Annotated[Cache, typer.Option("--cache", help="auto: stream what half the free memory cannot hold.")] = (
        Cache.auto
    ),
    track: Annotated[str | None, typer.Option("--track", help="tensorboard (extra: track).")] = None,
    json_: Json = False,
) -> None:
    """Train the field of an experiment directory on prepared healthy people.

    On several GPUs or machines: torchrun --nproc-per-node N -m anofield train …
    """
    from anofield.data.store import Store
    from anofield.field.experiment import Experiment
    from anofield.field.presets import start_experiment
    from anofield.field.ranks import is_first_rank
    from anofield.field.train import train

    if preset and data is None:
        raise UsageError("--preset without --data", why="it does not know your store", remedy="add --data STORE")
    opened = start_experiment(experiment, preset, Store(data)) if preset and data else Experiment(experiment)
    named = opened.specs.held_out_source
    watched = held_out or (None if named is None else _find(named, experiment))
    logs = train(
        opened,
        Store(data or _find(opened.specs.data_source, experiment)),
        resume=resume,
        device=device,
        precision=precision.value,
        cache=cache.value,
        held_out=None if watched is None else Store(watched),
        track=track,
    )
    if not is_first_rank():
        return
    per_point = logs.loss[-1] / opened.specs.samples_per_scene if logs.loss else None
    result = {"experiment": str(experiment), "epoch": logs.epoch, "loss_per_point": per_point}
    if json_:
        sys.stdout.write(json.dumps(result, indent=2) + "\n")
    elif per_point is not None:
        sys.stdout.write(f"{experiment}: epoch {logs.epoch}, loss {per_point:.3f} nats per point\n")


def _find(named: str, experiment: Path) -> Path:
    """A path of the specs counts from here, else from the experiment."""
    return Path(named) if Path(named).exists() else experiment / named
