"""What a training left behind: specs, epochs and checkpoint of an experiment, finished, running or of 2021."""

from __future__ import annotations

import json
import math
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from anofield.errors import ExperimentError
from anofield.field.experiment import Checkpoint, Experiment, Specs
from anofield.field.logs import METRICS_FILE
from anofield.report.numerals import finite
from anofield.typing import Json, PathLike


@dataclass(frozen=True)
class History:
    """A training as far as it went.

    Attributes:
        path: The experiment.
        specs: Its `specs.json`.
        checkpoint: The latest, or None if none was saved yet.
        epochs: Per epoch what is known of it, in order: keys of `metrics.jsonl`, and `parameter_norm`.
    """

    path: Path
    specs: Specs
    checkpoint: Checkpoint | None
    epochs: list[Json]

    def points(self, key: str, place: int | None = None) -> list[tuple[float, float]]:
        """(epoch, value) of a key, of an entry of a list if `place` says which; what is not finite is left out."""
        found = [(float(row["epoch"]), _value(row.get(key), place)) for row in self.epochs]
        return [(epoch, value) for epoch, value in found if value is not None]

    def last(self, key: str) -> Any:
        """The latest epoch's value of a key that has one."""
        return next((row[key] for row in reversed(self.epochs) if row.get(key) is not None), None)

    @property
    def epoch(self) -> int:
        """The latest epoch known of."""
        known = [int(row["epoch"]) for row in self.epochs[-1:]]
        return max([*known, self.checkpoint.epoch if self.checkpoint else 0])


def read_history(path: PathLike) -> History:
    """Read an experiment; `metrics.jsonl` says more than `Logs.pth`, which a running training writes now and then.

    Raises:
        ExperimentError: No experiment is there.
        UsageError: Its specs.json cannot be used.
    """
    experiment = Experiment(path)
    try:
        checkpoint: Checkpoint | None = experiment.load()
    except ExperimentError:
        checkpoint = None
    rows = {} if checkpoint is None else _logged(checkpoint, experiment.specs)
    for line in _metrics(experiment.path / METRICS_FILE):
        rows[int(line["epoch"])] = {**rows.get(int(line["epoch"]), {}), **line}
    people = len(checkpoint.code_ids) if checkpoint else None
    epochs = [_with_speed(rows[epoch], people, experiment.specs) for epoch in sorted(rows)]
    return History(experiment.path, experiment.specs, checkpoint, epochs)


def _logged(checkpoint: Checkpoint, specs: Specs) -> dict[int, Json]:
    """Epochs as `Logs.pth` has them: one loss per step, one entry per epoch of everything else."""
    logs, steps = checkpoint.logs, -(-len(checkpoint.code_ids) // specs.scenes_per_batch)
    rows: dict[int, Json] = {}
    for index in range(max(len(logs.timing), len(logs.loss) // max(steps, 1))):
        losses = logs.loss[index * steps : (index + 1) * steps]
        norms = [finite(series[index]) for series in logs.param_magnitude.values() if index < len(series)]
        rows[index + 1] = {
            "epoch": index + 1,
            "loss_per_point": sum(losses) / len(losses) / specs.samples_per_scene if losses else None,
            "learning_rate": _at(logs.learning_rate, index),
            "seconds": _at(logs.timing, index),
            "code_norm": _at(logs.latent_magnitude, index),
            "parameter_norm": math.sqrt(sum(norm**2 for norm in norms if norm is not None)) if norms else None,
        }
    return rows


def _metrics(path: Path) -> list[Json]:
    """Lines of `metrics.jsonl`; one that a running training is just writing is left out."""
    try:
        lines = path.read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeDecodeError):
        return []
    found = (_parsed(line) for line in lines)
    return [line for line in found if isinstance(line, dict) and finite(line.get("epoch")) is not None]


def _parsed(line: str) -> Any:
    try:
        return json.loads(line)
    except ValueError:
        return None


def _with_speed(row: Json, people: int | None, specs: Specs) -> Json:
    """The row with `points_per_s`, from its seconds where the training did not write it."""
    seconds = finite(row.get("seconds"))
    if finite(row.get("points_per_s")) is not None or not seconds or seconds <= 0 or people is None:
        return row
    return {**row, "points_per_s": people * specs.samples_per_scene / seconds}


def _at(series: list[Any], index: int) -> Any:
    return series[index] if index < len(series) else None


def _value(value: Any, place: int | None) -> float | None:
    if place is None:
        return finite(value)
    return finite(value[place]) if isinstance(value, list | tuple) and place < len(value) else None
