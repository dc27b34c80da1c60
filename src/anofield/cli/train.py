"""`anofield train`: store → experiment."""

from __future__ import annotations

import math
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from anofield.cli._options import Device, Json, Precision, Threads, print_result
from anofield.errors import UsageError

if TYPE_CHECKING:
    from anofield.field.experiment import Experiment


def command(
    experiment: Annotated[Path, typer.Option("--experiment", "-e", help="Directory that holds specs.json.")],
    resume: Annotated[
        str | None,
        typer.Option("--continue", help="Resume after: latest, an epoch, or auto (latest if there is one)."),
    ] = None,
    data: Annotated[Path | None, typer.Option("--data", help="Store; replaces DataSource of specs.json.")] = None,
    preset: Annotated[
        str | None, typer.Option("--preset", help="Start from default, ifl2021-160 or ifl2021-full; needs --data.")
    ] = None,
    held_out: Annotated[
        Path | None, typer.Option("--held-out", help="Store of healthy subjects for measurements, not for training.")
    ] = None,
    device: Device = "auto",
    precision: Precision = "auto",
    threads: Threads = "auto",
    cache: Annotated[
        Literal["auto", "resident", "stream"],
        typer.Option("--cache", help="Where class volumes are kept; auto: stream if they exceed half the free memory."),
    ] = "auto",
    track: Annotated[str | None, typer.Option("--track", help="tensorboard (extra: track).")] = None,
    json_: Json = False,
) -> None:
    """Train the field of an experiment directory on prepared healthy subjects.

    On several GPUs or machines: torchrun --nproc-per-node N -m anofield train …
    """
    from anofield.data.store import Store
    from anofield.field.provenance import threads_before
    from anofield.field.ranks import is_first_rank
    from anofield.field.start import source_of
    from anofield.field.threads import use_threads
    from anofield.field.train import TrainOptions, train

    use_threads(threads, device=device, before=threads_before(experiment))
    opened = _open(experiment, preset, data)
    watched = held_out or source_of(opened.specs.held_out_source, experiment)
    logs = train(
        opened,
        Store(data or source_of(opened.specs.data_source, experiment) or ""),
        TrainOptions(device=device, precision=precision, cache=cache, track=track),
        resume=resume,
        held_out=None if watched is None else Store(watched),
    )
    if not is_first_rank():
        return
    last = logs.loss[-1] if logs.loss else math.nan
    per_point = last / opened.specs.samples_per_scene if math.isfinite(last) else None  # not known: a lost history
    result = {"experiment": str(experiment), "epoch": logs.epoch, "loss_per_point": per_point}
    if json_ or logs.epoch:
        known = "" if per_point is None else f", loss {per_point:.3f} nats per point"
        print_result(result, f"{experiment}: epoch {logs.epoch}{known}", as_json=json_)


def _open(experiment: Path, preset: str | None, data: Path | None) -> Experiment:
    """Open the experiment of a directory; a preset creates it.

    Raises:
        UsageError: A preset is given without a store.
    """
    from anofield.data.store import Store
    from anofield.field.experiment import Experiment
    from anofield.field.presets import start_experiment

    if not preset:
        return Experiment(experiment)
    if data is None:
        raise UsageError("--preset without --data", why="a preset does not name a store", remedy="add --data STORE")
    return start_experiment(experiment, preset, Store(data))
