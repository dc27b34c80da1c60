"""Logs of a training: `Logs.pth`, which is restored with a checkpoint, and `metrics.jsonl`, one line per epoch."""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from pathlib import Path

from pydantic import BaseModel, ConfigDict, ValidationError

from anofield._files import write_text, writing

METRICS_FILE = "metrics.jsonl"


@dataclass
class Logs:
    """Content of `Logs.pth`: one loss per step, and one entry per epoch of all other values."""

    epoch: int = 0
    loss: list[float] = field(default_factory=list)
    learning_rate: list[list[float]] = field(default_factory=list)
    timing: list[float] = field(default_factory=list)
    latent_magnitude: list[float] = field(default_factory=list)
    param_magnitude: dict[str, list[float]] = field(default_factory=dict)

    def cut(self, epoch: int, steps_per_epoch: int, step: int = 0) -> None:
        """Remove the entries after `step` steps beyond `epoch`."""
        self.epoch = epoch
        del self.loss[epoch * steps_per_epoch + step :]
        del self.learning_rate[epoch:], self.timing[epoch:], self.latent_magnitude[epoch:]
        for series in self.param_magnitude.values():
            del series[epoch:]


class MetricsLine(BaseModel):
    """One line of `metrics.jsonl`.

    Attributes:
        epoch: Number of the epoch, counted from 1.
        loss_per_point: Mean training loss, nats per point.
        learning_rate: Rates of the network and of the codes.
        seconds: Duration of the epoch.
        points_per_s: Training points per second, over all ranks.
        code_norm: Mean norm of the stored codes.
        held_out_ce: Cross-entropy of held-out subjects, nats per point; None in epochs without a measurement.
    """

    model_config = ConfigDict(frozen=True, extra="allow")

    epoch: int
    loss_per_point: float
    learning_rate: tuple[float, float]
    seconds: float
    points_per_s: int
    code_norm: float
    held_out_ce: float | None = None

    def text(self) -> str:
        """The line as JSON; a measurement that was not made is left out."""
        return json.dumps(self.model_dump(mode="json", exclude_none=True)) + "\n"


def read_metrics(path: Path) -> list[MetricsLine]:
    """Read the lines of `metrics.jsonl`; an unfinished line is left out, and a missing file has no lines."""
    lines = path.read_text(encoding="utf-8").splitlines() if path.is_file() else []
    parsed = (_parsed(line) for line in lines)
    return [line for line in parsed if line is not None]


def append_metrics(path: Path, line: MetricsLine) -> None:
    """Append a line to `metrics.jsonl`."""
    with writing(path), path.open("a", encoding="utf-8") as stream:
        stream.write(line.text())


def cut_metrics(path: Path, epoch: int) -> None:
    """Remove the lines after an epoch, and an unfinished line."""
    if not path.is_file():
        return
    kept = "".join(line.text() for line in read_metrics(path) if line.epoch <= epoch)
    if kept != path.read_text(encoding="utf-8"):
        write_text(path, kept)


def _parsed(line: str) -> MetricsLine | None:
    try:
        return MetricsLine.model_validate_json(line)
    except ValidationError:
        return None
