"""Train the auto-decoder: one loop over epochs of shuffled subjects, whose codes are learned with the network.

Source: Naval Marimont & Tarroni 2021; Park et al. 2019. All randomness depends on (seed, epoch, case), so a
resumed run draws the same numbers as an uninterrupted one.
"""

from __future__ import annotations

import contextlib
import importlib.util
import math
import time
from collections.abc import Callable, Iterator
from typing import cast

import torch
from pydantic import BaseModel, ConfigDict
from torch import Tensor

from anofield._locks import exclusive
from anofield._progress import Progress, say
from anofield._signals import StopRequest, deferred_stop
from anofield._words import counted, named
from anofield.data.recipe import Recipe, check_recipe, write_recipe
from anofield.data.store import Store
from anofield.errors import Interrupted, UsageError
from anofield.field.device import Precision, enough_memory, pick_device
from anofield.field.experiment import LOGS_FILE, Checkpoint, Experiment
from anofield.field.feed import Cache, Feed, open_feed
from anofield.field.journal import Journal
from anofield.field.logs import Logs
from anofield.field.model import codes_of, load_weights
from anofield.field.parts import LATEST
from anofield.field.points import PointOptions
from anofield.field.provenance import add_provenance, check_unchanged, describe_start
from anofield.field.published import AdamState, load_optimizer, plain_optimizer
from anofield.field.ranks import joined_ranks, plan_epoch
from anofield.field.specs import DECODER
from anofield.field.step import Run, start_run, train_step
from anofield.field.validation import HeldOut
from anofield.typing import PathLike


class TrainOptions(BaseModel):
    """How a training run computes; the results depend on the specs alone, up to rounding.

    Attributes:
        device: `auto`, `cpu`, `cuda[:N]` or `mps`.
        precision: Precision of the matrix products; `auto` takes bfloat16 where the device multiplies it faster.
        cache: Place of the class volumes: `resident` on the device, `stream` from disk, or `auto`, by the free memory.
        compiled: Whether to compile the loss with `torch.compile`; None: for the published decoder on CUDA with Triton.
        track: Tracker that also gets the metrics, `tensorboard`; None for none.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    device: str = "auto"
    precision: Precision = "float32"
    cache: Cache = "auto"
    compiled: bool | None = None
    track: str | None = None


def train(
    experiment: Experiment,
    store: Store,
    options: TrainOptions | None = None,
    *,
    resume: str | None = None,
    held_out: Store | None = None,
) -> Logs:
    """Train an experiment to its `NumEpochs`.

    When `torchrun` starts it, the ranks share the cases: each step trains on `ScenesPerBatch` cases over all ranks.

    Args:
        experiment: Directory with the specs, where checkpoints are written.
        store: Prepared healthy subjects.
        options: Device, precision and the like; None takes the defaults.
        resume: `latest` or an epoch to continue after; `auto` continues if there is a checkpoint and starts otherwise;
            None starts in a directory without checkpoints.
        held_out: Prepared healthy subjects that are not trained on and whose cross-entropy is measured regularly.

    Returns:
        The logs.

    Raises:
        UsageError: There are checkpoints and `resume` is None; another process trains here; the classes of specs and
            store do not match; the store's content or the specs changed since the last start in a way that is not
            allowed; or a held-out scan is one of the store.
        ExperimentError: `resume` names no checkpoint or a damaged one, or the store's cases differ from those of the
            checkpoint.
        Interrupted: SIGINT or SIGTERM; the state after the current step is saved.
        MachineError: The device is not available, memory is too small, the disk cannot be written, or the experiment's
            directory was removed or replaced meanwhile.
    """
    options = options or TrainOptions()
    where = pick_device(options.device)
    resume = _what_to_resume(experiment, resume)
    recipe = _checked_recipe(experiment, store, held_out)
    with joined_ranks(cuda=where.type == "cuda") as ranks, contextlib.ExitStack() as stack:
        if ranks.size > 1 and where.type == "cuda":
            where = torch.device("cuda", ranks.local)
        if ranks.first:
            stack.enter_context(exclusive(experiment.path, "training"))
        cases = store.require_cases(max(2, ranks.size))
        run = start_run(experiment.specs, [store.ids[i] for i in cases], where, ranks)
        contents = store.contents
        run.case_contents = [contents[i] for i in cases]
        run.set_precision(options.precision, compiled=_is_compiled(options, run))
        if resume is not None:
            restore(run, experiment.load(resume), experiment.path)
        _record_start(run, experiment, store, recipe)
        points = PointOptions(lattice=recipe.lattice, count=run.specs.samples_per_scene,
                              fraction=run.specs.brain_fraction, seed=run.specs.seed)  # fmt: skip
        feed = open_feed(store, ranks.owned(cases), points, device=where, cache=options.cache,
                         sharing=ranks.per_machine)  # fmt: skip
        watch = None if held_out is None or not ranks.first else HeldOut(held_out, recipe.lattice, where)
        stop = stack.enter_context(deferred_stop())
        _epochs(run, feed, experiment, stop, Journal(experiment.path, run, watch, options.track))
        if ranks.first:
            experiment.require_there()
        return run.logs


def restore(run: Run, checkpoint: Checkpoint, path: PathLike = "") -> None:
    """Load a checkpoint into a fresh run; a rank takes the rows of its own cases.

    Raises:
        ExperimentError: Its cases or its network differ from the run's.
    """
    load_weights(run.field, checkpoint.model, path)
    own = run.ranks.owned(range(len(run.case_ids)))
    codes = codes_of(checkpoint, run.case_ids, run.specs.code_length, path)
    with torch.no_grad():
        run.codes.weight.copy_(codes[own])
    state = plain_optimizer(checkpoint.optimizer, path)
    count = len(run.case_ids)
    own_state = _map_codes_state(state, lambda rows: rows[own].clone() if len(rows) == count else rows)
    load_optimizer(run.optimizer, own_state, path)
    run.logs, run.epoch, run.step = checkpoint.logs, checkpoint.epoch, checkpoint.step
    run.logs.cut(run.epoch, run.steps_per_epoch, run.step)
    names = [name for name, _ in run.field.named_parameters()]
    lost = run.logs.fill(run.epoch * run.steps_per_epoch + run.step, names)
    if lost and checkpoint.code_ids and run.ranks.first:
        say(f"{path}: {LOGS_FILE} lacks {lost} of {run.epoch} epochs; their losses and times are not known any more")


def checkpoint_of(run: Run) -> Checkpoint:
    """Take a snapshot on the CPU, codes of all ranks in the order of the cases; every rank must call it."""
    model = {name: value.detach().cpu() for name, value in run.field.state_dict().items()}
    codes = run.all_codes(run.codes.weight)
    state = _map_codes_state(cast(AdamState, run.optimizer.state_dict()), run.all_codes)
    return Checkpoint(
        epoch=run.epoch,
        step=run.step,
        model=model,
        code_ids=run.case_ids,
        code_contents=run.case_contents,
        codes=codes,
        optimizer=state,
        logs=run.logs,
    )


def _map_codes_state(state: AdamState, change: Callable[[Tensor], Tensor]) -> AdamState:
    """An optimiser state whose per-row tensors of the code table went through `change`."""
    groups = state.get("param_groups", [])
    if len(groups) != 2:
        return state  # the loader reports what is missing
    table = groups[1]["params"][0]
    per_row = {
        key: change(value) if isinstance(value, Tensor) and value.dim() == 2 else value
        for key, value in state["state"].get(table, {}).items()
    }
    return {"state": {**state["state"], table: per_row} if per_row else state["state"], "param_groups": groups}


def _epochs(run: Run, feed: Feed, experiment: Experiment, stop: StopRequest, journal: Journal) -> None:
    specs, ranks = run.specs, run.ranks
    run.field.train()
    with Progress(f"train {experiment.path.name}", specs.num_epochs - run.epoch, shown=ranks.first) as progress:
        while run.epoch < specs.num_epochs:
            began, epoch = time.monotonic(), run.epoch + 1
            rates = _set_rates(run, epoch)
            with enough_memory("lower SamplesPerScene, ScenesPerBatch or dims"):
                losses = torch.stack(list(_epoch_steps(run, feed, epoch, stop)))
            ranks.sum_([losses])
            run.logs.loss += _finite(losses.tolist(), epoch, experiment)
            if run.step:
                _stop(run, experiment, stop)
            run.epoch, run.step = epoch, 0
            if ranks.first:
                experiment.require_there()
            journal.add_epoch(run, rates, time.monotonic() - began)
            _save_epoch(run, experiment)
            progress.advance(journal.text)
            if ranks.largest(stop.number or 0):
                _stop(run, experiment, stop)


def _set_rates(run: Run, epoch: int) -> tuple[float, float]:
    """Set the learning rates of an epoch, of the network and of the codes, and return them."""
    network, codes = run.specs.learning_rate_schedule
    rates = network.rate(epoch), codes.rate(epoch)
    for group, rate in zip(run.optimizer.param_groups, rates, strict=True):
        group["lr"] = rate
    return rates


def _epoch_steps(run: Run, feed: Feed, epoch: int, stop: StopRequest) -> Iterator[Tensor]:
    """The steps of an epoch from `run.step` on; when asked to stop it ends early, and `run.step` says where."""
    ranks, specs = run.ranks, run.specs
    plan = plan_epoch(len(run.case_ids), specs.scenes_per_batch, specs.seed, epoch, ranks.size)[run.step :]
    mine = [step[ranks.rank] for step in plan]
    batches = feed.batches(mine, epoch)
    for left, (step, rows, batch) in enumerate(zip(plan, mine, batches, strict=True), start=1):
        yield train_step(run, batch, rows, epoch, sum(len(part) for part in step))
        run.step += 1
        if left < len(plan) and ranks.largest(stop.number or 0):
            return
    run.step = 0


def _finite(losses: list[float], epoch: int, experiment: Experiment) -> list[float]:
    """Check that training has not diverged, and return the losses; nothing of a diverged epoch is saved."""
    if not all(math.isfinite(loss) for loss in losses):
        raise _diverged("the loss is", epoch, experiment)
    return losses


def _snapshot(run: Run, experiment: Experiment) -> Checkpoint:
    """The state to save; the loss of an epoch does not show that its last step diverged."""
    checkpoint = checkpoint_of(run)
    if not all(torch.isfinite(value).all() for value in (*checkpoint.model.values(), checkpoint.codes)):
        raise _diverged("weights or codes are", run.epoch, experiment)
    return checkpoint


def _diverged(what: str, epoch: int, experiment: Experiment) -> UsageError:
    return UsageError(
        f"{what} not finite in epoch {epoch}",
        where=experiment.path,
        why="training has diverged; the last checkpoint before it is kept",
        remedy="lower the rates of LearningRateSchedule, or set GradientClipNorm",
    )


def _stop(run: Run, experiment: Experiment, stop: StopRequest) -> None:
    checkpoint = _snapshot(run, experiment)
    if run.ranks.first:
        experiment.save(checkpoint, [LATEST])
    at = f"epoch {run.epoch}" + (f" and {run.step} steps" if run.step else "")
    raise Interrupted(stop.number or 15, f"saved after {at}; resume with --continue latest")


def _save_epoch(run: Run, experiment: Experiment) -> None:
    specs = run.specs
    snapshot = run.epoch % specs.snapshot_frequency == 0 or run.epoch in specs.additional_snapshots
    names = [str(run.epoch)] if snapshot else []
    if run.epoch == specs.num_epochs or run.epoch % specs.log_frequency == 0:
        names.append(LATEST)
    if names:
        checkpoint = _snapshot(run, experiment)
        if run.ranks.first:
            experiment.save(checkpoint, names)


def _what_to_resume(experiment: Experiment, resume: str | None) -> str | None:
    """Resolve `auto`, and refuse to start again in a directory that was trained before."""
    trained = experiment.has_checkpoint()
    if resume == "auto":
        return LATEST if trained else None
    if resume is None and trained:
        raise UsageError(
            "was trained before",
            where=experiment.path,
            why="a new start would overwrite it",
            remedy="resume it with --continue latest, or choose another directory",
        )
    return resume


def _checked_recipe(experiment: Experiment, store: Store, held_out: Store | None) -> Recipe:
    """The recipe of the experiment: the store's, with the lattice that the specs ask for."""
    specs = experiment.specs
    expected, found = specs.network_specs.dim_out, len(store.recipe.centers)
    if expected != found:
        raise UsageError(
            f"NetworkSpecs.dim_out is {expected}, the store has {found} classes",
            where=experiment.path / "specs.json",
            remedy=f"set dim_out to {found}",
        )
    for posed in (one for one in (store, held_out) if one is not None and one.pose is not None):
        raise UsageError(
            "holds posed scans, on which no field is trained",
            where=posed.path,
            why="a field finds the pose of a scan itself, so it must be trained on scans as they lie",
            remedy="prepare them without --pose; posed stores are for baselines",
        )
    if held_out is not None and held_out.recipe != store.recipe:
        raise UsageError(
            "the held-out subjects were prepared in another way than the training subjects",
            where=held_out.path,
            why=f"their {', '.join(_differing(store.recipe, held_out.recipe))} differ, so classes have other meanings",
            remedy=f"prepare them with --centers {store.path}, and with the other options of the training subjects",
        )
    if held_out is not None:
        _check_held_out(store, held_out)
    recipe = store.recipe.model_copy(update={"lattice": specs.lattice} if specs.lattice else {})
    check_recipe(experiment.path, recipe)
    return recipe


def _check_held_out(store: Store, held_out: Store) -> None:
    """Refuse held-out scans that are trained on, under whatever id; name equal subjects on stderr."""
    trained = {content: id_ for content, id_ in zip(store.contents, store.ids, strict=True) if content}
    for content, id_ in zip(held_out.contents, held_out.ids, strict=True):
        if content in trained:
            raise UsageError(
                f"the held-out scan {id_} is the training scan {trained[content]}",
                where=held_out.path,
                why="a cross-entropy measured on it would not tell how well new subjects are explained",
                remedy="prepare the held-out subjects without those of the training",
            )
    if shared := sorted(set(store.subjects) & set(held_out.subjects)):
        say(f"{held_out.path}: {counted(len(shared), 'subject')} named as in the training ({named(shared)}); if these "
            "are the same persons, the measurements say nothing about new subjects")  # fmt: skip


def _differing(one: Recipe, other: Recipe) -> list[str]:
    return [name for name in Recipe.model_fields if getattr(one, name) != getattr(other, name)]


def _record_start(run: Run, experiment: Experiment, store: Store, recipe: Recipe) -> None:
    """Check what changed since the last start, then write recipe and provenance."""
    if not run.ranks.first:
        return
    entry = describe_start(run, store, recipe)
    if run.epoch or run.step:
        check_unchanged(experiment.path, entry, mid_epoch=bool(run.step))
    if run.epoch >= run.specs.num_epochs:
        say(f"{experiment.path}: epoch {run.epoch} of {run.specs.num_epochs} is done; raise NumEpochs to train further")
    write_recipe(experiment.path, recipe)
    add_provenance(experiment.path, entry)
    experiment.claim()


def _is_compiled(options: TrainOptions, run: Run) -> bool:
    """Whether the loss is compiled: by the options, else for the published decoder on CUDA with Triton."""
    if options.compiled is not None:
        return options.compiled
    has_triton = run.device.type == "cuda" and importlib.util.find_spec("triton") is not None
    return run.specs.network_arch == DECODER and has_triton
