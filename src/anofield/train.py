"""Training of the auto-decoder: one loop over epochs of shuffled people, their codes learned with the network.

Source: Naval Marimont & Tarroni 2021; Park et al. 2019. All randomness is drawn from (seed, epoch, step), so a resumed
run draws what the uninterrupted one would have drawn.
"""

from __future__ import annotations

import hashlib
import json
import math
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import torch
from torch import Tensor
from torch.nn import functional

from anofield._progress import Progress
from anofield._signals import StopRequest, deferred_stop
from anofield.codes import CodeTable
from anofield.errors import ExperimentError, Interrupted, MachineError, UsageError
from anofield.experiment import LATEST, Checkpoint, Experiment, Logs, Specs
from anofield.field import Decoder
from anofield.model import build_field, load_weights, pick_device, write_recipe
from anofield.points import Volumes
from anofield.scan import writing
from anofield.store import Store

Precision = Literal["auto", "float32", "bfloat16"]
METRICS_FILE = "metrics.jsonl"
RAMP_EPOCHS = 100  # the code penalty grows linearly over these; published


@dataclass
class Run:
    """State of a training run that changes from step to step."""

    specs: Specs
    field: Decoder
    codes: CodeTable
    optimizer: torch.optim.Adam
    logs: Logs
    bfloat16: bool = False
    epoch: int = 0
    step: int = 0

    @property
    def steps_per_epoch(self) -> int:
        """Batches of an epoch; the last one may be smaller."""
        return -(-len(self.codes.ids) // self.specs.scenes_per_batch)

    def checkpoint(self) -> Checkpoint:
        """A snapshot on the CPU."""
        model = {name: value.detach().cpu() for name, value in self.field.state_dict().items()}
        codes = self.codes.weight.detach().cpu()
        state = self.optimizer.state_dict()
        return Checkpoint(self.epoch, self.step, model, self.codes.ids, codes, state, self.logs)


def train(
    experiment: Experiment,
    store: Store,
    *,
    resume: str | None = None,
    device: str = "auto",
    precision: Precision = "float32",
) -> Logs:
    """Train an experiment to its `NumEpochs`.

    Args:
        experiment: Where specs are read and checkpoints written.
        store: Prepared healthy people.
        resume: `latest` or an epoch to go on after; None starts anew in a directory without checkpoints.
        device: `auto`, `cpu`, `cuda[:N]` or `mps`.
        precision: Of the matrix products; `auto` takes bfloat16 where the device multiplies it faster.

    Returns:
        The logs.

    Raises:
        UsageError: Checkpoints are there and `resume` is None; classes of specs and store differ.
        ExperimentError: `resume` names no checkpoint, or the store's cases are not those of the checkpoint.
        Interrupted: SIGINT or SIGTERM; the state after the current step is saved.
        MachineError: The device or the disk refuses.
    """
    where = pick_device(device)
    _check(experiment, store, resume)
    write_recipe(experiment.path, store.recipe)
    run = start_run(experiment.specs, [store.ids[i] for i in store.require_cases(2)], where)
    run.bfloat16 = has_fast_bfloat16(where) if precision == "auto" else precision == "bfloat16"
    if resume is not None:
        restore(run, experiment.load(resume), experiment.path)
        _cut_metrics(experiment.path / METRICS_FILE, run.epoch)
    volumes = load_volumes(store, where)
    with deferred_stop() as stop:
        _epochs(run, volumes, experiment, stop)
    return run.logs


def start_run(specs: Specs, case_ids: list[str], device: torch.device) -> Run:
    """Fresh network, codes and optimiser, seeded by the specs."""
    torch.manual_seed(specs.seed)
    generator = torch.Generator().manual_seed(specs.seed)
    try:
        field = build_field(specs).to(device)
        codes = CodeTable(case_ids, specs.code_length, specs.code_bound, specs.code_init_std_dev, generator).to(device)
    except (RuntimeError, MemoryError) as error:  # torch reports a failed allocation as RuntimeError
        raise MachineError(
            "the network and codes do not fit into memory",
            why=str(error).splitlines()[0],
            remedy="lower dims or CodeLength",
        ) from error
    groups = [{"params": list(field.parameters())}, {"params": list(codes.parameters())}]
    return Run(specs, field, codes, torch.optim.Adam(groups, lr=1e-3), Logs())


def restore(run: Run, checkpoint: Checkpoint, path: Any = "") -> None:
    """Put a checkpoint into a fresh run.

    Raises:
        ExperimentError: Its cases or its network are not the run's.
    """
    if checkpoint.code_ids != run.codes.ids:
        missing = sorted(set(checkpoint.code_ids) ^ set(run.codes.ids))[:3]
        raise ExperimentError(
            f"was trained on other cases than the store holds now (first differences: {missing})",
            where=path,
            why="codes belong to cases",
            remedy="use the store it was trained on, or start a new experiment",
        )
    load_weights(run.field, checkpoint.model, path)
    with torch.no_grad():
        run.codes.weight.copy_(checkpoint.codes)
    run.optimizer.load_state_dict(checkpoint.optimizer)
    run.logs, run.epoch, run.step = checkpoint.logs, checkpoint.epoch, checkpoint.step
    run.logs.cut(run.epoch, run.steps_per_epoch, run.step)


def has_fast_bfloat16(device: torch.device) -> bool:
    """Whether the device multiplies bfloat16 matrices in hardware (tensor cores, AVX512-BF16, AMX)."""
    if device.type == "cuda":
        return bool(torch.cuda.is_bf16_supported())
    return device.type == "cpu" and bool(torch.cpu._is_avx512_bf16_supported())


def load_volumes(store: Store, device: torch.device) -> Volumes:
    """All complete cases of a store, resident on the device."""
    indices = store.require_cases()
    try:
        classes, brain = [store.classes(i) for i in indices], [store.brain(i) for i in indices]
        return Volumes.stack(classes, brain, store.recipe.lattice, device)
    except (MemoryError, torch.OutOfMemoryError) as error:
        size = len(indices) * store.resolution**3 / 2**30
        raise MachineError(
            f"{size:.1f} GiB of class volumes do not fit",
            where=store.path,
            remedy="use --device cpu or a smaller --res",
        ) from error


def batch_loss(run: Run, points: Tensor, targets: Tensor, rows: Tensor, epoch: int) -> Tensor:
    """Published loss: Σ cross-entropy plus the ramped code penalty, over the cases of the batch.

    Args:
        run: Network, codes and specs.
        points: Field coordinates, (case, point, 3).
        targets: Classes, (case, point).
        rows: Rows of the code table, (case,).
        epoch: Counted from 1.

    Source:
        Naval Marimont & Tarroni 2021, published training code.
    """
    codes = run.codes(rows)  # (case, code)
    with torch.autocast(points.device.type, torch.bfloat16, enabled=run.bfloat16):
        logits = run.field(points, codes)  # (case, point, class)
    loss = functional.cross_entropy(logits.float().flatten(0, 1), targets.flatten(), reduction="sum")
    if run.specs.code_regularization:
        ramp = min(1.0, epoch / RAMP_EPOCHS)
        penalty = codes.norm(dim=1).sum() * points.shape[1]
        loss = loss + run.specs.code_regularization_lambda * ramp * penalty
    return loss / len(rows)


def train_step(run: Run, volumes: Volumes, rows: Tensor, epoch: int, step: int) -> Tensor:
    """Draw points of some cases and take one optimiser step; returns the loss, still on the device."""
    generator = _generator(run.specs.seed, epoch, step)
    points, targets = volumes.batch(rows, run.specs.samples_per_scene, run.specs.brain_fraction, generator)
    torch.manual_seed(_stream(run.specs.seed, epoch, step, "dropout"))
    loss = batch_loss(run, points, targets, rows.to(points.device), epoch)
    run.optimizer.zero_grad(set_to_none=True)
    loss.backward()
    if run.specs.gradient_clip_norm is not None:
        torch.nn.utils.clip_grad_norm_(run.field.parameters(), run.specs.gradient_clip_norm)
    run.optimizer.step()
    return loss.detach()


def _epochs(run: Run, volumes: Volumes, experiment: Experiment, stop: StopRequest) -> None:
    specs = run.specs
    run.field.train()
    label = f"train {experiment.path.name}"
    with Progress(label, specs.num_epochs - run.epoch) as progress:
        while run.epoch < specs.num_epochs:
            began, epoch = time.monotonic(), run.epoch + 1
            rates = [schedule.rate(epoch) for schedule in specs.learning_rate_schedule]
            for group, rate in zip(run.optimizer.param_groups, rates, strict=True):
                group["lr"] = rate
            losses = list(_epoch_steps(run, volumes, epoch, stop))
            run.logs.loss += _finite(torch.stack(losses).tolist() if losses else [], epoch, experiment)
            if stop.number is not None and run.step:
                _stop(run, experiment, stop.number)
            run.epoch, run.step = epoch, 0
            _log_epoch(run, rates, time.monotonic() - began)
            _save_epoch(run, experiment, last=epoch == specs.num_epochs)
            points = len(run.codes.ids) * specs.samples_per_scene / (time.monotonic() - began)
            progress.advance(
                f"loss {run.logs.loss[-1] / specs.samples_per_scene:.3f} nats · {points / 1e3:.0f}k points/s"
            )
            if stop.number is not None:
                _stop(run, experiment, stop.number)


def _finite(losses: list[float], epoch: int, experiment: Experiment) -> list[float]:
    """The losses, if training has not diverged; nothing of a diverged epoch is saved."""
    if not all(math.isfinite(loss) for loss in losses):
        raise UsageError(
            f"the loss is not finite in epoch {epoch}",
            where=experiment.path,
            why="training has diverged; the last checkpoint before it is kept",
            remedy="lower the rates of LearningRateSchedule, or set GradientClipNorm",
        )
    return losses


def _epoch_steps(run: Run, volumes: Volumes, epoch: int, stop: StopRequest) -> Iterator[Tensor]:
    """The steps of an epoch from `run.step` on; ends early when asked to stop, with `run.step` saying where."""
    order = torch.randperm(len(run.codes.ids), generator=_generator(run.specs.seed, epoch, -1))
    batches = order.split(run.specs.scenes_per_batch)
    for step in range(run.step, len(batches)):
        yield train_step(run, volumes, batches[step], epoch, step)
        run.step = step + 1
        if stop.number is not None and run.step < len(batches):
            return
    run.step = 0


def _stop(run: Run, experiment: Experiment, number: int) -> None:
    experiment.save(run.checkpoint(), [LATEST])
    at = f"epoch {run.epoch}" + (f" and {run.step} steps" if run.step else "")
    raise Interrupted(number, f"saved after {at}; go on with --continue latest")


def _log_epoch(run: Run, rates: list[float], seconds: float) -> None:
    logs = run.logs
    logs.epoch = run.epoch
    logs.learning_rate.append(rates)
    logs.timing.append(seconds)
    logs.latent_magnitude.append(float(run.codes.weight.detach().norm(dim=1).mean()))
    for name, value in run.field.named_parameters():
        logs.param_magnitude.setdefault(name, []).append(float(value.detach().norm()))


def _save_epoch(run: Run, experiment: Experiment, *, last: bool) -> None:
    specs = run.specs
    snapshot = run.epoch % specs.snapshot_frequency == 0 or run.epoch in specs.additional_snapshots
    names = [str(run.epoch)] if snapshot else []
    if last or run.epoch % specs.log_frequency == 0:
        names.append(LATEST)
    if names:
        experiment.save(run.checkpoint(), names)
    steps = run.logs.loss[-run.steps_per_epoch :]
    line = {
        "epoch": run.epoch,
        "loss_per_point": sum(steps) / len(steps) / specs.samples_per_scene,
        "learning_rate": run.logs.learning_rate[-1],
        "seconds": round(run.logs.timing[-1], 3),
        "code_norm": run.logs.latent_magnitude[-1],
    }
    path = experiment.path / METRICS_FILE
    with writing(path), path.open("a") as stream:
        stream.write(json.dumps(line) + "\n")


def _cut_metrics(path: Path, epoch: int) -> None:
    """Drop the lines of epochs that are trained again, and one that a kill left unfinished."""
    lines = path.read_text().splitlines(keepends=True) if path.is_file() else []
    kept = [line for line in lines if line.endswith("\n") and json.loads(line)["epoch"] <= epoch]
    if len(kept) < len(lines):
        with writing(path):
            path.write_text("".join(kept))


def _check(experiment: Experiment, store: Store, resume: str | None) -> None:
    if resume is None and experiment.has_checkpoint():
        raise UsageError(
            "was trained before",
            where=experiment.path,
            why="starting anew would overwrite it",
            remedy="go on with --continue latest, or choose another directory",
        )
    expected, found = experiment.specs.network_specs.dim_out, len(store.recipe.centers)
    if expected != found:
        raise UsageError(
            f"NetworkSpecs.dim_out is {expected}, the store has {found} classes",
            where=experiment.path / "specs.json",
            remedy=f"set dim_out to {found}",
        )


def _generator(*key: int) -> torch.Generator:
    return torch.Generator().manual_seed(_stream(*key))


def _stream(*key: object) -> int:
    """A 63-bit seed that is a function of the key alone."""
    return int.from_bytes(hashlib.sha256(repr(key).encode()).digest()[:8], "big") >> 1
