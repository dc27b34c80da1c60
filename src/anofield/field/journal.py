"""The journal of a training run: logs, a line of metrics per epoch, and a tracker if one is asked for."""

from __future__ import annotations

from pathlib import Path
from typing import Protocol

from anofield.errors import UsageError
from anofield.field.codes import bounded
from anofield.field.logs import METRICS_FILE, MetricsLine, append_metrics, cut_metrics
from anofield.field.step import Run
from anofield.field.validation import HeldOut

TRACKERS = ("tensorboard",)


class _Writer(Protocol):
    """The part of a TensorBoard writer that is used here."""

    def add_scalar(self, tag: str, value: float, step: int) -> None:
        """Write one value of a step."""

    def flush(self) -> None:
        """Write everything to disk."""


class Journal:
    """Records each epoch of a run in files; only the first rank writes.

    Attributes:
        text: Short description of the last epoch, for the progress line.
    """

    def __init__(self, path: Path, run: Run, watch: HeldOut | None = None, track: str | None = None) -> None:
        """Continue the files of an experiment directory.

        Args:
            path: Experiment directory; the lines of epochs that will be trained again are removed.
            run: The run, at the epoch from which it continues.
            watch: Held-out subjects to measure.
            track: Name of a tracker.

        Raises:
            UsageError: The tracker is unknown or not installed.
        """
        self.text = ""
        self._path, self._watch = path / METRICS_FILE, watch
        self._tracker: _Writer | None = None
        if run.ranks.first:
            cut_metrics(self._path, run.epoch)
            self._tracker = None if track is None else _open_tracker(track, path, run.epoch)

    def add_epoch(self, run: Run, rates: tuple[float, float], seconds: float) -> None:
        """Record an epoch; every rank must call this method."""
        logs = run.logs
        codes = run.all_codes(run.codes.weight)
        logs.epoch = run.epoch
        logs.learning_rate.append(list(rates))
        logs.timing.append(seconds)
        logs.latent_magnitude.append(float(codes.norm(dim=1).mean()))
        for name, value in run.field.named_parameters():
            logs.param_magnitude.setdefault(name, []).append(float(value.detach().norm()))
        if not run.ranks.first:
            return
        held_out = None
        if self._watch and _is_measured(run):
            held_out = self._watch.cross_entropy(run.field, bounded(codes, run.specs.code_bound).to(run.device))
        self._write(_line(run, rates, seconds, held_out))

    def _write(self, line: MetricsLine) -> None:
        append_metrics(self._path, line)
        held_out = "" if line.held_out_ce is None else f" · held-out {line.held_out_ce:.3f}"
        self.text = f"loss {line.loss_per_point:.3f} nats{held_out} · {line.points_per_s / 1e3:.0f}k points/s"
        if self._tracker:
            network, codes = line.learning_rate
            values = line.model_dump(exclude_none=True)
            for name, value in {**values, "learning_rate": network, "code_learning_rate": codes}.items():
                self._tracker.add_scalar(name, value, line.epoch)
            self._tracker.flush()


def _is_measured(run: Run) -> bool:
    """Whether the held-out subjects are measured after this epoch."""
    return run.epoch % run.specs.held_out_frequency == 0 or run.epoch == run.specs.num_epochs


def _line(run: Run, rates: tuple[float, float], seconds: float, held_out: float | None) -> MetricsLine:
    steps, points = run.logs.loss[-run.steps_per_epoch :], run.specs.samples_per_scene
    return MetricsLine(
        epoch=run.epoch,
        loss_per_point=sum(steps) / len(steps) / points,
        learning_rate=rates,
        seconds=round(seconds, 3),
        points_per_s=round(len(run.case_ids) * points / max(seconds, 1e-9)),
        code_norm=run.logs.latent_magnitude[-1],
        held_out_ce=held_out,
    )


def _open_tracker(name: str, path: Path, epoch: int) -> _Writer:
    """A TensorBoard writer in the experiment directory; it removes the entries after an epoch."""
    if name not in TRACKERS:
        raise UsageError(f"unknown tracker {name!r}", remedy=f"use {' or '.join(TRACKERS)}")
    try:
        from torch.utils.tensorboard import SummaryWriter
    except ImportError as error:
        raise UsageError(
            "--track tensorboard", why="TensorBoard is not installed", remedy="pip install 'anofield[track]'"
        ) from error
    writer: _Writer = SummaryWriter(str(path / "tensorboard"), purge_step=epoch + 1)
    return writer
