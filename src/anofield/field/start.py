"""Start or resume a training from a directory, a preset and a store."""

from __future__ import annotations

import os
from pathlib import Path

from anofield.data.store import Store
from anofield.field import presets
from anofield.field.experiment import Experiment
from anofield.field.train import TrainOptions, train
from anofield.typing import PathLike


def open_experiment(path: PathLike, preset: str | None, store: Store | None) -> Experiment:
    """Open the experiment of a directory; with a preset, create it for a store if there is none.

    Args:
        path: Experiment directory.
        preset: Name of a preset; None requires an existing `specs.json`.
        store: Prepared healthy subjects; required for a preset.

    Raises:
        UsageError: No preset has that name.
    """
    if preset is not None:
        presets.preset(preset)
    if preset is None or store is None or (Path(path) / "specs.json").is_file():
        return Experiment(path)
    return presets.start_experiment(Path(path), preset, store)


def source_of(named: str | None, experiment: PathLike) -> Path | None:
    """A path named in the specs: relative to the current folder if it exists there, else to the experiment."""
    if named is None:
        return None
    return Path(named) if os.path.exists(named) else Path(experiment) / named  # noqa: PTH110 - False for any odd name


def train_experiment(
    experiment: PathLike,
    store: Store | PathLike,
    *,
    preset: str | None,
    device: str,
    held_out: Store | PathLike | None,
) -> Path:
    """Train an experiment to its end; see `anofield.train`."""
    data = store if isinstance(store, Store) else Store(store)
    opened = open_experiment(experiment, preset, data)
    watched = held_out if held_out is not None else source_of(opened.specs.held_out_source, experiment)
    measured = watched if isinstance(watched, Store) or watched is None else Store(watched)
    train(opened, data, TrainOptions(device=device, precision="auto"), resume="auto", held_out=measured)
    return opened.path
