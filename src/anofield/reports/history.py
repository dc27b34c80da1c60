"""History of a training: specs, epochs and checkpoint of an experiment that is finished, running or of 2021."""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from anofield._progress import say
from anofield.errors import ExperimentError
from anofield.field.experiment import Checkpoint, Experiment
from anofield.field.logs import METRICS_FILE, Logs
from anofield.field.specs import Specs
from anofield.reports.numerals import finite
from anofield.typing import PathLike


@dataclass(frozen=True, kw_only=True)
class Epoch:
    """Values of one epoch; None where no file holds the value, NaN where the value is not finite.

    Attributes:
        epoch: Number of the epoch, from 1.
        loss_per_point: Mean training loss, nats per point.
        held_out_ce: Cross-entropy of held-out subjects, nats per point.
        network_rate, code_rate: Learning rates.
        seconds, points_per_s: Duration and speed.
        code_norm, parameter_norm: Mean norm of the codes, and norm of all parameters.
        precision, device: Precision and device of the computation.
    """

    epoch: int
    loss_per_point: float | None = None
    held_out_ce: float | None = None
    network_rate: float | None = None
    code_rate: float | None = None
    seconds: float | None = None
    points_per_s: float | None = None
    code_norm: float | None = None
    parameter_norm: float | None = None
    precision: str | None = None
    device: str | None = None

    def over(self, other: Epoch | None) -> Epoch:
        """This epoch, completed from another source."""
        missing = {key: value for key, value in vars(other).items() if getattr(self, key) is None} if other else {}
        return replace(self, **missing)

    def with_speed(self, points: int | None) -> Epoch:
        """The epoch with `points_per_s`, which is computed from `seconds` if the training did not write it.

        Args:
            points: Number of points of an epoch; None if it is not known.
        """
        seconds = finite(self.seconds)
        if finite(self.points_per_s) is not None or points is None or seconds is None or seconds <= 0:
            return self
        return replace(self, points_per_s=points / seconds)


@dataclass(frozen=True)
class History:
    """A training up to its latest epoch.

    Attributes:
        path: Folder of the experiment.
        specs: Content of its `specs.json`.
        checkpoint: The latest checkpoint, or None if none was saved yet.
        epochs: Known values of each epoch, in order.
    """

    path: Path
    specs: Specs
    checkpoint: Checkpoint | None
    epochs: list[Epoch]

    def points(self, key: str) -> list[tuple[float, float]]:
        """(epoch, value) of a key, where it is finite."""
        found = [(float(row.epoch), finite(getattr(row, key))) for row in self.epochs]
        return [(epoch, value) for epoch, value in found if value is not None]

    def last(self, key: str) -> Any:
        """The latest known value of a key."""
        return next((getattr(row, key) for row in reversed(self.epochs) if getattr(row, key) is not None), None)

    @property
    def epoch(self) -> int:
        """Number of the latest known epoch."""
        known = [row.epoch for row in self.epochs[-1:]]
        return max([*known, self.checkpoint.epoch if self.checkpoint else 0])


def read_history(path: PathLike) -> History:
    """Read an experiment; `metrics.jsonl` holds more than `Logs.pth`, which a running training writes less often.

    Raises:
        ExperimentError: There is no experiment.
        UsageError: The `specs.json` cannot be used.
    """
    experiment = Experiment(path)
    try:
        checkpoint: Checkpoint | None = experiment.load()
    except ExperimentError as error:
        checkpoint = None
        if experiment.names():
            say(f"{error.where}: {error.what}; the report shows what {METRICS_FILE} holds")
    rows = {} if checkpoint is None else _logged(checkpoint, experiment.specs)
    for line in _metrics(experiment.path / METRICS_FILE):
        rows[line.epoch] = line.over(rows.get(line.epoch))
    points = len(checkpoint.code_ids) * experiment.specs.samples_per_scene if checkpoint else None
    epochs = [rows[epoch].with_speed(points) for epoch in sorted(rows)]
    return History(experiment.path, experiment.specs, checkpoint, epochs)


def _logged(checkpoint: Checkpoint, specs: Specs) -> dict[int, Epoch]:
    """Epochs of `Logs.pth`, which holds one loss per step, and one entry per epoch of all other values."""
    logs, steps = checkpoint.logs, -(-len(checkpoint.code_ids) // specs.scenes_per_batch)
    count = max(len(logs.timing), len(logs.loss) // max(steps, 1))
    return {index + 1: _logged_epoch(logs, index, steps, specs.samples_per_scene) for index in range(count)}


def _logged_epoch(logs: Logs, index: int, steps: int, points: int) -> Epoch:
    """One epoch of `Logs.pth`.

    Args:
        logs: Content of the file.
        index: Number of the epoch, from 0.
        steps: Steps per epoch.
        points: Points per subject and step.
    """
    losses = logs.loss[index * steps : (index + 1) * steps]
    norms = [finite(series[index]) for series in logs.param_magnitude.values() if index < len(series)]
    rates = _at(logs.learning_rate, index)
    return Epoch(
        epoch=index + 1,
        loss_per_point=sum(losses) / len(losses) / points if losses else None,
        network_rate=_rate(rates, 0),
        code_rate=_rate(rates, 1),
        seconds=_at(logs.timing, index),
        code_norm=_at(logs.latent_magnitude, index),
        parameter_norm=math.sqrt(sum(norm**2 for norm in norms if norm is not None)) if norms else None,
    )


def _metrics(path: Path) -> list[Epoch]:
    """Epochs of `metrics.jsonl`; a damaged line, and the unfinished one of a running training, are left out."""
    try:
        lines = path.read_text(encoding="utf-8", errors="replace").splitlines()
    except OSError:
        return []
    found = (_line(line) for line in lines)
    return [line for line in found if line is not None]


def _line(text: str) -> Epoch | None:
    """An epoch of `metrics.jsonl`; None for a line that is not one."""
    try:
        line = json.loads(text)
    except (ValueError, RecursionError):
        return None
    epoch = finite(line.get("epoch")) if isinstance(line, dict) else None
    if epoch is None:
        return None
    numbers = ("loss_per_point", "held_out_ce", "seconds", "points_per_s", "code_norm")
    return Epoch(
        epoch=int(epoch),
        network_rate=_rate(line["learning_rate"], 0) if "learning_rate" in line else None,
        code_rate=_rate(line["learning_rate"], 1) if "learning_rate" in line else None,
        precision=line.get("precision"),
        device=line.get("device"),
        **{key: _number(line[key]) for key in numbers if key in line},
    )


def _at(series: Sequence[Any], index: int) -> Any:
    return series[index] if index < len(series) else None


def _rate(rates: Any, place: int) -> float:
    """One of the learning rates of an epoch; NaN if the epoch has none."""
    return _number(rates[place] if isinstance(rates, list | tuple) and place < len(rates) else None)


def _number(value: Any) -> float:
    """The value as a float; NaN if it is not a finite number."""
    found = finite(value)
    return math.nan if found is None else found
