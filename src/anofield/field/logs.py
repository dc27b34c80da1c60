"""What a training run writes down after every epoch: `Logs.pth`, `metrics.jsonl`, and a tracker if asked."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from anofield._files import writing
from anofield.errors import UsageError
from anofield.field.step import Run
from anofield.field.validation import HeldOut

METRICS_FILE = "metrics.jsonl"
TRACKERS = ("tensorboard",)


class Journal:
    """Of one run; only the first rank writes.

    Attributes:
        text: The last epoch in a few words, for the progress line.
    """

    def __init__(self, path: Path, run: Run, watch: HeldOut | None = None, track: str | None = None) -> None:
        """Go on with what is in the experiment directory.

        Args:
            path: Experiment directory; lines of epochs that will be trained again are dropped.
            run: Where it stands.
            watch: Held-out people to measure.
            track: Name of a tracker.

        Raises:
            UsageError: The tracker is unknown or not installed.
        """
        self.text = ""
        self._path, self._watch, self._tracker = path / METRICS_FILE, watch, None
        if run.ranks.first:
            _cut_metrics(self._path, run.epoch)
            self._tracker = _open_tracker(track, path, run.epoch)

    def add_epoch(self, run: Run, rates: list[float], seconds: float) -> None:
        """Write down an epoch; every rank must call it."""
        logs, specs = run.logs, run.specs
        codes = run.all_codes(run.codes.weight)
        logs.epoch = run.epoch
        logs.learning_rate.append(rates)
        logs.timing.append(seconds)
        logs.latent_magnitude.append(float(codes.norm(dim=1).mean()))
        for name, value in run.field.named_parameters():
            logs.param_magnitude.setdefault(name, []).append(float(value.detach().norm()))
        if not run.ranks.first:
            return
        steps = logs.loss[-run.steps_per_epoch :]
        line: dict[str, Any] = {
            "epoch": run.epoch,
            "loss_per_point": sum(steps) / len(steps) / specs.samples_per_scene,
            "learning_rate": rates,
            "seconds": round(seconds, 3),
            "points_per_s": round(len(run.case_ids) * specs.samples_per_scene / max(seconds, 1e-9)),
            "code_norm": logs.latent_magnitude[-1],
        }
        if self._watch and (run.epoch % specs.held_out_frequency == 0 or run.epoch == specs.num_epochs):
            line["held_out_ce"] = self._watch.cross_entropy(run.field, codes.to(run.device))
        self._write(line)

    def _write(self, line: dict[str, Any]) -> None:
        with writing(self._path), self._path.open("a") as stream:
            stream.write(json.dumps(line) + "\n")
        held_out = f" · held-out {line['held_out_ce']:.3f}" if "held_out_ce" in line else ""
        self.text = f"loss {line['loss_per_point']:.3f} nats{held_out} · {line['points_per_s'] / 1e3:.0f}k points/s"
        if self._tracker:
            network, codes = line["learning_rate"]
            values = {**line, "learning_rate": network, "code_learning_rate": codes}
            for name, value in values.items():
                self._tracker.add_scalar(name, value, line["epoch"])
            self._tracker.flush()


def _open_tracker(name: str | None, path: Path, epoch: int) -> Any:
    """A TensorBoard writer in the experiment, or None."""
    if name is None:
        return None
    if name not in TRACKERS:
        raise UsageError(f"unknown tracker {name!r}", remedy=f"known: {', '.join(TRACKERS)}")
    try:
        from torch.utils.tensorboard import SummaryWriter
    except ImportError as error:
        raise UsageError(
            "--track tensorboard", why="TensorBoard is not installed", remedy="pip install 'anofield[track]'"
        ) from error
    return SummaryWriter(str(path / "tensorboard"), purge_step=epoch + 1)


def _cut_metrics(path: Path, epoch: int) -> None:
    """Drop the lines of epochs that are trained again, and one that a kill left unfinished."""
    lines = path.read_text().splitlines(keepends=True) if path.is_file() else []
    kept = [line for line in lines if line.endswith("\n") and json.loads(line)["epoch"] <= epoch]
    if len(kept) < len(lines):
        with writing(path):
            path.write_text("".join(kept))
