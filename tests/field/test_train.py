"""Training: the published loss, and a run that may be stopped anywhere without changing its result."""

from __future__ import annotations

import json
import math
import os
import resource
import shutil
import signal
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from anofield._files import exclusive, write_json
from anofield.data.cohort.case import Case
from anofield.data.store import Store
from anofield.errors import ExperimentError, Interrupted, MachineError, UsageError
from anofield.field import train as module
from anofield.field.device import pick_device
from anofield.field.experiment import Experiment
from anofield.field.logs import Logs
from anofield.field.provenance import read_provenance
from anofield.field.step import batch_loss, start_run
from anofield.field.train import TrainOptions, train
from helpers import CLASSES, make_prepared, make_store, tiny_specs


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Store:
    return make_store(tmp_path_factory.mktemp("cohort") / "store.zarr")


def trained(folder: Path, store: Store, **changes: Any) -> Experiment:
    experiment = Experiment.create(folder, tiny_specs(**changes))
    train(experiment, store, TrainOptions(device="cpu"))
    return experiment


def state(experiment: Experiment, name: str = "latest") -> dict[str, Any]:
    """Everything that a run arrives at but the seconds it took."""
    found = experiment.load(name)
    logs = {key: value for key, value in vars(found.logs).items() if key != "timing"}
    return {"weights": found.model, "codes": found.codes, "optimizer": found.optimizer["state"], "logs": logs}


def assert_same(one: Any, other: Any) -> None:
    """Equal bit for bit."""
    assert type(one) is type(other)
    if isinstance(one, dict):
        assert one.keys() == other.keys()
        for key in one:
            assert_same(one[key], other[key])
    elif isinstance(one, torch.Tensor):
        assert torch.equal(one, other)
    else:
        assert one == other


def stop_at_step(monkeypatch: pytest.MonkeyPatch, count: int, number: int) -> None:
    """Send this process a signal during the `count`-th optimiser step."""
    left, step = [count], module.train_step

    def stopping(*args: Any) -> torch.Tensor:
        left[0] -= 1
        if left[0] == 0:
            signal.raise_signal(number)
        return step(*args)

    monkeypatch.setattr(module, "train_step", stopping)


@pytest.mark.parametrize("epoch", [1, 40, 250])
@pytest.mark.parametrize("regularized", [True, False])
def test_loss_is_the_published_sum_over_the_cases_of_the_batch(epoch: int, regularized: bool) -> None:
    weight = 0.01
    specs = tiny_specs(CodeRegularization=regularized, CodeRegularizationLambda=weight, CodeBound=0.7)
    run = start_run(specs, ["a", "b", "c"], torch.device("cpu"))
    run.field.eval()
    rows, points = torch.tensor([2, 0]), torch.rand(2, 9, 3) * 2 - 1
    targets = torch.randint(CLASSES, (2, 9))
    found = float(batch_loss(run, points, targets, rows, epoch).detach())
    expected = 0.0
    for case, row in enumerate(rows):
        code = run.codes.weight.detach()[row]
        assert float(code.norm()) <= 0.7 + 1e-6
        logits = run.field.logits(points[case : case + 1], code[None])[0].detach().double().numpy()
        for point in range(9):
            expected -= math.log(np.exp(logits[point])[targets[case, point]] / np.exp(logits[point]).sum())
            expected += regularized * weight * min(1.0, epoch / 100) * float(code.norm())
    assert found == pytest.approx(expected / 2, rel=1e-5)


@pytest.mark.slow
def test_loss_falls_below_that_of_the_class_frequencies(tmp_path: Path, store: Store) -> None:
    rates = [{"Type": "Constant", "Value": 5e-3}, {"Type": "Constant", "Value": 1e-2}]
    experiment = trained(tmp_path, store, NumEpochs=25, SamplesPerScene=400, LearningRateSchedule=rates,
                         CodeRegularization=False)  # fmt: skip
    share = np.bincount(np.concatenate([store.classes(i).ravel() for i in store.done]), minlength=CLASSES)
    share = share[share > 0] / share.sum()
    losses = np.array(experiment.load().logs.loss) / 400  # sums over the points of a case
    assert losses[-3:].mean() < 0.5 * float(-(share * np.log(share)).sum())


@pytest.mark.slow
def test_a_training_is_a_function_of_specs_and_store(tmp_path: Path, store: Store) -> None:
    first = trained(tmp_path / "a", store)
    torch.rand(10)
    assert_same(state(first), state(trained(tmp_path / "b", store)))
    assert not torch.equal(first.load().codes, trained(tmp_path / "c", store, Seed=4).load().codes)


@pytest.mark.slow
def test_rates_are_those_of_the_schedules_network_first(tmp_path: Path, store: Store) -> None:
    experiment = trained(tmp_path, store)
    rates = [schedule.rate for schedule in experiment.specs.learning_rate_schedule]
    assert experiment.load().logs.learning_rate == [[rate(epoch) for rate in rates] for epoch in (1, 2, 3, 4)]


@pytest.mark.slow
def test_snapshots_are_written_at_the_epochs_asked_for(tmp_path: Path, store: Store) -> None:
    trained(tmp_path, store, SnapshotFrequency=2, AdditionalSnapshots=[1], LogFrequency=4)
    names = {path.stem for path in (tmp_path / "ModelParameters").glob("*.pth")}
    assert {"1", "2", "4", "latest"} <= names
    assert "3" not in names


class TestResume:
    @pytest.mark.slow
    def test_after_a_snapshot_equals_the_uninterrupted_run(self, tmp_path: Path, store: Store) -> None:
        experiment = trained(tmp_path, store, SnapshotFrequency=2)
        whole = state(experiment)
        train(experiment, store, TrainOptions(device="cpu"), resume="2")
        assert_same(state(experiment), whole)

    @pytest.mark.slow
    @pytest.mark.parametrize(("step", "number"), [(1, signal.SIGTERM), (5, signal.SIGINT), (6, signal.SIGTERM)])
    def test_after_a_signal_equals_the_uninterrupted_run(
        self, tmp_path: Path, store: Store, monkeypatch: pytest.MonkeyPatch, step: int, number: int
    ) -> None:
        whole = state(trained(tmp_path / "whole", store))
        experiment = Experiment.create(tmp_path / "stopped", tiny_specs())
        with monkeypatch.context() as patch:
            stop_at_step(patch, step, number)
            with pytest.raises(Interrupted) as caught:
                train(experiment, store, TrainOptions(device="cpu"))
        assert caught.value.exit_code == 128 + number
        assert "--continue latest" in str(caught.value)
        saved = experiment.load()
        assert (saved.epoch, saved.step) == divmod(step, 3)
        assert len(saved.logs.loss) == step
        train(experiment, store, TrainOptions(device="cpu"), resume="latest")
        assert_same(state(experiment), whole)

    @pytest.mark.slow
    def test_leaves_one_line_of_metrics_per_epoch(self, tmp_path: Path, store: Store) -> None:
        experiment = trained(tmp_path, store, SnapshotFrequency=1)
        before = [json.loads(line) for line in (tmp_path / "metrics.jsonl").read_text().splitlines()]
        train(experiment, store, TrainOptions(device="cpu"), resume="2")
        after = [json.loads(line) for line in (tmp_path / "metrics.jsonl").read_text().splitlines()]
        assert [line["epoch"] for line in after] == [1, 2, 3, 4]
        assert [line["loss_per_point"] for line in after] == [line["loss_per_point"] for line in before]

    @pytest.mark.slow
    def test_of_a_finished_run_changes_nothing(self, tmp_path: Path, store: Store) -> None:
        experiment = trained(tmp_path, store)
        whole = state(experiment)
        assert isinstance(train(experiment, store, TrainOptions(device="cpu"), resume="latest"), Logs)
        assert_same(state(experiment), whole)


class TestRefusals:
    def test_to_train_anew_where_checkpoints_are(self, tmp_path: Path, store: Store) -> None:
        experiment = trained(tmp_path, store, NumEpochs=1)
        with pytest.raises(UsageError, match="--continue latest"):
            train(experiment, store, TrainOptions(device="cpu"))

    def test_to_resume_where_none_are(self, tmp_path: Path, store: Store) -> None:
        with pytest.raises(ExperimentError, match="latest"):
            train(Experiment.create(tmp_path, tiny_specs()), store, TrainOptions(device="cpu"), resume="latest")

    def test_of_another_number_of_classes(self, tmp_path: Path, store: Store) -> None:
        specs = tiny_specs(NetworkSpecs={"dims": [48, 48], "dim_out": 9, "latent_in": []})
        with pytest.raises(UsageError, match=r"dim_out is 9.*4 classes.*set dim_out to 4"):
            train(Experiment.create(tmp_path, specs), store, TrainOptions(device="cpu"))

    @pytest.mark.slow
    def test_to_resume_on_other_cases(self, tmp_path: Path, store: Store) -> None:
        experiment = trained(tmp_path / "experiment", store, NumEpochs=1)
        more = make_store(tmp_path / "more.zarr", people=6)
        with pytest.raises(ExperimentError, match="p5"):
            train(experiment, more, TrainOptions(device="cpu"), resume="latest")

    def test_of_a_store_prepared_otherwise(self, tmp_path: Path, store: Store) -> None:
        experiment = trained(tmp_path / "experiment", store, NumEpochs=1)
        case = Case("p0", Path("0.nii.gz"))
        recipe = store.recipe.model_copy(update={"box_mm": 150.0})
        other = Store.create(tmp_path / "other.zarr", [case], recipe, labels=False, side=12)
        with pytest.raises(UsageError, match="another recipe"):
            train(experiment, other, TrainOptions(device="cpu"), resume="latest")

    def test_of_specs_that_no_longer_fit_the_weights(self, tmp_path: Path, store: Store) -> None:
        trained(tmp_path, store, NumEpochs=1)
        changed = Experiment.create(tmp_path, tiny_specs(CodeLength=7))
        with pytest.raises(ExperimentError, match=r"specs\.json"):
            train(changed, store, TrainOptions(device="cpu"), resume="latest")

    def test_of_a_single_person(self, tmp_path: Path) -> None:
        alone = make_store(tmp_path / "alone.zarr", people=1)
        with pytest.raises(ExperimentError, match="needed: 2"):
            train(Experiment.create(tmp_path / "experiment", tiny_specs()), alone, TrainOptions(device="cpu"))

    @pytest.mark.parametrize(
        ("name", "error"), [("gpu", UsageError), ("cuda:x", UsageError), ("cuda:99", MachineError)]
    )
    def test_of_a_device_that_is_not_there(self, name: str, error: type[Exception]) -> None:
        with pytest.raises(error, match=name):
            pick_device(name)


@pytest.mark.slow
def test_incomplete_cases_are_left_out(tmp_path: Path) -> None:
    cases = [Case(f"p{number}", Path(f"{number}.nii.gz")) for number in range(3)]
    recipe = make_store(tmp_path / "any.zarr", people=1).recipe
    store = Store.create(tmp_path / "store.zarr", cases, recipe, labels=False, side=12)
    for number in (0, 2):
        store.write(number, make_prepared(number), f"{number:064x}")
    experiment = trained(tmp_path / "experiment", Store(store.path), NumEpochs=1)
    assert experiment.load().code_ids == ["p0", "p2"]


@pytest.mark.slow
def test_a_diverged_training_stops_and_keeps_the_checkpoint_before(tmp_path: Path, store: Store) -> None:
    experiment = trained(tmp_path, store, NumEpochs=2, LogFrequency=1)
    before = experiment.load()
    rates = [{"Type": "Constant", "Value": 1e9}, {"Type": "Constant", "Value": 1e9}]
    specs = experiment.specs.dump() | {"NumEpochs": 30, "LearningRateSchedule": rates}
    write_json(experiment.path / "specs.json", specs)
    with pytest.raises(UsageError, match="not finite"):
        train(Experiment(experiment.path), store, TrainOptions(device="cpu"), resume="latest")
    after = experiment.load()
    assert all(math.isfinite(loss) for loss in after.logs.loss)
    assert all(torch.isfinite(value).all() for value in after.model.values())
    assert after.epoch >= before.epoch


class TestBetweenRuns:
    """What may have happened to the directory and the store since the last start."""

    @pytest.mark.slow
    def test_a_second_process_is_refused(self, tmp_path: Path, store: Store) -> None:
        experiment = Experiment.create(tmp_path, tiny_specs())
        with exclusive(tmp_path, "training"), pytest.raises(UsageError, match=rf"pid {os.getpid()}.*training"):
            train(experiment, store, TrainOptions(device="cpu"))
        train(experiment, store, TrainOptions(device="cpu"))  # the lock went with its holder

    @pytest.mark.slow
    def test_a_store_whose_scans_changed_is_refused(self, tmp_path: Path) -> None:
        changing = make_store(tmp_path / "store.zarr")
        experiment = trained(tmp_path / "experiment", changing, NumEpochs=1)
        before = state(experiment)
        writer = Store(changing.path, mode="r+")
        writer.write(2, make_prepared(9), f"{9:064x}")
        with pytest.raises(UsageError, match="differ from those of the training"):
            train(longer(experiment, 3), Store(changing.path), TrainOptions(device="cpu"), resume="latest")
        assert_same(state(experiment), before)

    @pytest.mark.slow
    def test_a_store_that_moved_goes_on(self, tmp_path: Path, store: Store) -> None:
        whole = state(trained(tmp_path / "whole", store, NumEpochs=3))
        experiment = trained(tmp_path / "experiment", store, NumEpochs=1)
        shutil.copytree(store.path, tmp_path / "elsewhere.zarr")
        train(longer(experiment, 3), Store(tmp_path / "elsewhere.zarr"), TrainOptions(device="cpu"), resume="latest")
        assert_same(state(Experiment(experiment.path)), whole)

    @pytest.mark.slow
    def test_changed_specs_are_said(self, tmp_path: Path, store: Store, capsys: pytest.CaptureFixture[str]) -> None:
        experiment = trained(tmp_path, store, NumEpochs=1)
        train(longer(experiment, 2), store, TrainOptions(device="cpu"), resume="latest")
        assert "NumEpochs 1 → 2" in capsys.readouterr().err

    def test_the_order_of_a_started_epoch_may_not_change(
        self, tmp_path: Path, store: Store, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        experiment = Experiment.create(tmp_path, tiny_specs())
        with monkeypatch.context() as patch, pytest.raises(Interrupted):
            stop_at_step(patch, 1, signal.SIGTERM)
            train(experiment, store, TrainOptions(device="cpu"))
        changed = Experiment.create(tmp_path, tiny_specs(ScenesPerBatch=3))
        with pytest.raises(UsageError, match=r"ScenesPerBatch.*put back ScenesPerBatch 2"):
            train(changed, store, TrainOptions(device="cpu"), resume="latest")

    def test_another_place_of_voxels_is_refused(self, tmp_path: Path, store: Store) -> None:
        trained(tmp_path, store, NumEpochs=1)
        changed = Experiment.create(tmp_path, tiny_specs(NumEpochs=2, Lattice="corner"))
        with pytest.raises(UsageError, match="Lattice"):
            train(changed, store, TrainOptions(device="cpu"), resume="latest")

    @pytest.mark.slow
    def test_a_full_disk_ends_with_the_old_state_intact(self, tmp_path: Path, store: Store) -> None:
        """The process may write files of 20 kB at most: every checkpoint is larger."""
        experiment = trained(tmp_path, store, NumEpochs=2)
        before = state(experiment)
        limits = resource.getrlimit(resource.RLIMIT_FSIZE)
        ignored = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
        try:
            resource.setrlimit(resource.RLIMIT_FSIZE, (20_000, limits[1]))
            with pytest.raises(MachineError, match=r"[Ff]ile too large|ModelParameters"):
                train(longer(experiment, 4), store, TrainOptions(device="cpu"), resume="latest")
        finally:
            resource.setrlimit(resource.RLIMIT_FSIZE, limits)
            signal.signal(signal.SIGXFSZ, ignored)
        kept = state(Experiment(tmp_path))
        for part in ("weights", "codes", "optimizer"):
            assert_same(kept[part], before[part])
        train(Experiment(tmp_path), store, TrainOptions(device="cpu"), resume="latest")
        assert len(Experiment(tmp_path).load().logs.loss) == 4 * 3

    @pytest.mark.slow
    def test_auto_starts_and_then_goes_on(self, tmp_path: Path, store: Store) -> None:
        experiment = Experiment.create(tmp_path, tiny_specs(NumEpochs=1))
        train(experiment, store, TrainOptions(device="cpu"), resume="auto")
        train(longer(experiment, 2), store, TrainOptions(device="cpu"), resume="auto")
        assert experiment.load().epoch == 2
        assert len(read_provenance(tmp_path)) == 2


class TestWatching:
    @pytest.mark.slow
    def test_held_out_people_are_measured_without_changing_the_run(self, tmp_path: Path, store: Store) -> None:
        others = make_store(tmp_path / "others.zarr", people=2)
        plain = state(trained(tmp_path / "plain", store))
        experiment = Experiment.create(tmp_path / "watched", tiny_specs(HeldOutFrequency=2))
        train(experiment, store, TrainOptions(device="cpu"), held_out=others)
        assert_same(state(experiment), plain)
        lines = [json.loads(line) for line in (experiment.path / "metrics.jsonl").read_text().splitlines()]
        assert [line["epoch"] for line in lines if "held_out_ce" in line] == [2, 4]

    @pytest.mark.slow
    def test_held_out_cross_entropy_falls_as_the_field_learns(self, tmp_path: Path, store: Store) -> None:
        rates = [{"Type": "Constant", "Value": 5e-3}, {"Type": "Constant", "Value": 1e-2}]
        specs = tiny_specs(NumEpochs=20, LearningRateSchedule=rates, CodeRegularization=False, HeldOutFrequency=10,
                           SamplesPerScene=400, BrainFraction=0.5)  # fmt: skip
        experiment = Experiment.create(tmp_path / "experiment", specs)
        train(experiment, store, TrainOptions(device="cpu"), held_out=make_store(tmp_path / "others.zarr", people=2))
        lines = (experiment.path / "metrics.jsonl").read_text().splitlines()
        measured = [json.loads(line).get("held_out_ce") for line in lines]
        assert measured[19] < 0.9 * measured[9]

    def test_held_out_people_of_another_recipe_are_refused(self, tmp_path: Path, store: Store) -> None:
        case = Case("q", Path("q.nii.gz"))
        recipe = store.recipe.model_copy(update={"box_mm": 150.0})
        other = Store.create(tmp_path / "other.zarr", [case], recipe, labels=False, side=12)
        with pytest.raises(UsageError, match="held-out"):
            train(Experiment.create(tmp_path / "e", tiny_specs()), store, TrainOptions(device="cpu"), held_out=other)

    @pytest.mark.slow
    def test_tensorboard_gets_every_epoch(self, tmp_path: Path, store: Store) -> None:
        accumulator = pytest.importorskip("tensorboard.backend.event_processing.event_accumulator")
        experiment = Experiment.create(tmp_path, tiny_specs())
        train(experiment, store, TrainOptions(device="cpu", track="tensorboard"))
        events = accumulator.EventAccumulator(str(tmp_path / "tensorboard"))
        events.Reload()
        assert [event.step for event in events.Scalars("loss_per_point")] == [1, 2, 3, 4]

    def test_an_unknown_tracker_is_refused(self, tmp_path: Path, store: Store) -> None:
        with pytest.raises(UsageError, match="tensorboard"):
            train(Experiment.create(tmp_path, tiny_specs()), store, TrainOptions(device="cpu", track="wandb"))


def longer(experiment: Experiment, epochs: int) -> Experiment:
    """The same directory with more epochs to do."""
    return Experiment.create(experiment.path, experiment.specs.model_copy(update={"num_epochs": epochs}))
