"""Logs of a training: `Logs.pth`, which is restored with a checkpoint, and `metrics.jsonl`, one line per epoch."""

from __future__ import annotations

import json
import math
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

from pydantic import BaseModel, ConfigDict, Field, TypeAdapter, ValidationError

from anofield._files import explain, write_bytes, writing
from anofield._progress import say
from anofield._words import counted, named
from anofield.errors import ExperimentError
from anofield.field.published import plain_logs
from anofield.field.tensor_file import read_tensors

METRICS_FILE = "metrics.jsonl"
LINE_LIMIT = 1 << 20  # bytes; a line of metrics has a few hundred


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

    def fill(self, steps: int, parameters: Iterable[str]) -> int:
        """Fill up what is missing before the present epoch with NaN, so that later entries keep their places.

        Args:
            steps: Steps up to now.
            parameters: Names of the network's parameters.

        Returns:
            Number of epochs without an entry.
        """
        per_epoch = [self.timing, self.latent_magnitude]
        lost = self.epoch - min(len(self.learning_rate), *(len(series) for series in per_epoch))
        per_epoch += [self.param_magnitude.setdefault(name, []) for name in parameters]
        for series, length in [(self.loss, steps), *((series, self.epoch) for series in per_epoch)]:
            series += [math.nan] * (length - len(series))
        self.learning_rate += [[math.nan, math.nan] for _ in range(self.epoch - len(self.learning_rate))]
        return lost


_LOGS = TypeAdapter(Logs)


def read_logs(path: Path) -> Logs:
    """Read `Logs.pth`.

    Raises:
        ExperimentError: The file is missing or damaged.
    """
    content = read_tensors(path, ("epoch", "loss")).content
    try:
        known = {key: value for key, value in plain_logs(content).items() if key in Logs.__dataclass_fields__}
        return _LOGS.validate_python(known)
    except (ValidationError, TypeError, ValueError) as error:
        told = explain(error) if isinstance(error, ValidationError) else str(error)
        raise ExperimentError(f"is damaged ({told})", where=path, remedy="restore it from a backup") from error


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

    epoch: int = Field(ge=1)
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
    """Read the lines of `metrics.jsonl`; damaged ones are left out and counted on stderr, a missing file has none."""
    lines = list(_lines(path))
    _say_damaged(path, lines)
    return [line for _, line in lines if line is not None]


def append_metrics(path: Path, line: MetricsLine) -> None:
    """Append a line to `metrics.jsonl`."""
    with writing(path), path.open("a", encoding="utf-8") as stream:
        stream.write(line.text())


def cut_metrics(path: Path, epoch: int) -> None:
    """Remove the lines after an epoch, and damaged ones, which are counted on stderr; the others stay as they are."""
    lines = list(_lines(path))
    _say_damaged(path, lines)
    kept = b"".join(raw for raw, line in lines if line is not None and line.epoch <= epoch)
    if lines and len(kept) != path.stat().st_size:
        write_bytes(path, kept)


def _lines(path: Path) -> Iterator[tuple[bytes, MetricsLine | None]]:
    """The lines of a file as they are and as they are understood; None for a line that is damaged."""
    if not path.is_file():
        return
    with path.open("rb") as stream:
        while raw := stream.readline(LINE_LIMIT):
            if len(raw) < LINE_LIMIT or raw.endswith(b"\n"):
                yield raw.removesuffix(b"\n") + b"\n", _parsed(raw)
                continue
            yield b"", None
            while raw and not raw.endswith(b"\n"):  # the rest of a line that is too long
                raw = stream.readline(LINE_LIMIT)


def _parsed(raw: bytes) -> MetricsLine | None:
    try:
        return MetricsLine.model_validate_json(raw)
    except ValidationError:
        return None


def _say_damaged(path: Path, lines: list[tuple[bytes, MetricsLine | None]]) -> None:
    damaged = [number for number, (_, line) in enumerate(lines, start=1) if line is None]
    if damaged:
        are = "is" if len(damaged) == 1 else "are"
        shown = named(map(str, damaged), 5)
        say(f"{path}: {counted(len(damaged), 'line')} cannot be read and {are} left out (line {shown})")
