"""Training: the published loss, and a run that may be stopped anywhere without changing its result."""

from __future__ import annotations

import json
import math
import os
import resource
import shutil
import signal
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from anofield._files import write_json
from anofield._locks import exclusive
from anofield.data.cohort.case import Case
from anofield.data.store import Store
from anofield.errors import ExperimentError, Interrupted, MachineError, UsageError
from anofield.field import train as module
from anofield.field.device import pick_device
from anofield.field.experiment import Experiment
from anofield.field.logs import Logs
from anofield.field.model import open_field
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


def at_epoch(monkeypatch: pytest.MonkeyPatch, epoch: int, act: Callable[[], object]) -> None:
    """Do something while an epoch is computed."""
    steps = module._epoch_steps

    def acting(run: Any, feed: Any, number: int, stop: Any) -> Any:
        if number == epoch:
            act()
        return steps(run, feed, number, stop)

    monkeypatch.setattr(module, "_epoch_steps", acting)


class TestDirectoryInUse:
    """What happens to the directory while it is trained in."""

    @pytest.mark.parametrize("epoch", [1, 2, 3])
    @pytest.mark.parametrize("way", ["removed", "renamed"])
    def test_gone_is_an_error_and_it_is_not_made_again(
        self, tmp_path: Path, store: Store, monkeypatch: pytest.MonkeyPatch, epoch: int, way: str
    ) -> None:
        experiment = Experiment.create(tmp_path / "e", tiny_specs(NumEpochs=3))
        move = {"removed": lambda: shutil.rmtree(experiment.path),
                "renamed": lambda: experiment.path.rename(tmp_path / "moved")}[way]  # fmt: skip
        at_epoch(monkeypatch, epoch, move)
        with pytest.raises(MachineError, match="removed or renamed while it was in use") as caught:
            train(experiment, store, TrainOptions(device="cpu"))
        assert caught.value.exit_code == 6
        assert not experiment.path.exists()

    def test_exchanged_for_another_experiment_is_an_error_and_leaves_that_alone(
        self, tmp_path: Path, store: Store, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        other = trained(tmp_path / "other", store, NumEpochs=1)
        before = {path: path.read_bytes() for path in other.path.rglob("*") if path.is_file()}
        experiment = Experiment.create(tmp_path / "e", tiny_specs(NumEpochs=3))

        def exchange() -> None:
            shutil.rmtree(experiment.path)
            shutil.copytree(other.path, experiment.path)

        at_epoch(monkeypatch, 2, exchange)
        with pytest.raises(MachineError, match="exchanged while it was in use"):
            train(experiment, store, TrainOptions(device="cpu"))
        assert {other.path / path.relative_to(experiment.path): path.read_bytes()
                for path in experiment.path.rglob("*") if path.is_file()} == before  # fmt: skip

    @pytest.mark.parametrize("file", ["specs.json", "provenance.json"])
    def test_a_file_that_vanishes_is_an_error(
        self, tmp_path: Path, store: Store, monkeypatch: pytest.MonkeyPatch, file: str
    ) -> None:
        experiment = Experiment.create(tmp_path / "e", tiny_specs(NumEpochs=2))
        at_epoch(monkeypatch, 2, (experiment.path / file).unlink)
        with pytest.raises(MachineError, match=f"no {file}"):
            train(experiment, store, TrainOptions(device="cpu"))


class TestDamage:
    def test_a_lock_file_left_by_a_killed_process_blocks_nobody(self, tmp_path: Path, store: Store) -> None:
        experiment = Experiment.create(tmp_path, tiny_specs(NumEpochs=1))
        (tmp_path / ".lock").touch()
        (tmp_path / ".lock-holder").write_text("elsewhere pid 1")
        train(experiment, store, TrainOptions(device="cpu"))

    def test_resuming_from_a_cut_latest_says_what_is_used_and_arrives_at_the_same(
        self, tmp_path: Path, store: Store, capsys: pytest.CaptureFixture[str]
    ) -> None:
        experiment = trained(tmp_path, store, NumEpochs=3)
        whole = state(experiment)
        path = experiment.file("ModelParameters", "latest")
        path.write_bytes(path.read_bytes()[:-1000])
        capsys.readouterr()
        train(experiment, store, TrainOptions(device="cpu"), resume="latest")
        told = capsys.readouterr().err
        assert "ModelParameters/latest.pth cannot be read" in told and "epoch 2 is used instead" in told
        assert_same(state(experiment), whole)

    @pytest.mark.parametrize("resume", [None, "auto"])
    def test_the_only_checkpoint_is_not_replaced_when_it_is_damaged(
        self, tmp_path: Path, store: Store, resume: str | None
    ) -> None:
        experiment = trained(tmp_path, store, NumEpochs=1)
        path = experiment.file("LatentCodes", "latest")
        path.write_bytes(path.read_bytes()[:-1000])
        before = experiment.file("ModelParameters", "latest").read_bytes()
        with pytest.raises(ExperimentError, match=r"LatentCodes/latest\.pth cannot be read"):
            train(experiment, store, TrainOptions(device="cpu"), resume=resume)
        assert experiment.file("ModelParameters", "latest").read_bytes() == before

    @pytest.mark.parametrize("damage", [b"PK", None])
    def test_a_lost_history_is_said_and_later_epochs_keep_their_places(
        self, tmp_path: Path, store: Store, capsys: pytest.CaptureFixture[str], damage: bytes | None
    ) -> None:
        experiment = trained(tmp_path, store, NumEpochs=2)
        if damage is None:
            (tmp_path / "Logs.pth").unlink()
        else:
            (tmp_path / "Logs.pth").write_bytes(damage)
        capsys.readouterr()
        logs = train(longer(experiment, 4), store, TrainOptions(device="cpu"), resume="latest")
        told = capsys.readouterr().err
        assert "Logs.pth lacks 2 of 2 epochs" in told
        assert ("the history before epoch 3 is lost" in told) == (damage is not None)
        assert [math.isnan(loss) for loss in logs.loss] == [True] * 6 + [False] * 6
        series = [logs.timing, logs.latent_magnitude, *logs.param_magnitude.values()]
        assert all([math.isnan(value) for value in one] == [True, True, False, False] for one in series)
        assert vars(experiment.load().logs).keys() == vars(logs).keys()

    @pytest.mark.parametrize("key", ["exp_avg", "exp_avg_sq", "step"])
    def test_a_state_of_adam_that_is_not_finite_is_refused(self, tmp_path: Path, store: Store, key: str) -> None:
        experiment = trained(tmp_path, store, NumEpochs=1)
        found = experiment.load()
        found.optimizer["state"][2][key].view(-1)[0] = float("nan")
        experiment.save(found, ["latest"])
        with pytest.raises(ExperimentError, match=f"[Tt]he {key} of parameter 2 has values that are not finite"):
            train(longer(experiment, 2), store, TrainOptions(device="cpu"), resume="latest")
        open_field(tmp_path, device="cpu")  # what detection needs is sound

    @pytest.mark.parametrize(
        "state",
        [
            3,
            {"state": 1, "param_groups": []},
            {"state": {}, "param_groups": [1]},
            {"state": {0: {"exp_avg": "x"}}, "param_groups": [{"params": [0]}] * 2},
        ],
    )
    def test_something_else_than_a_state_of_adam_is_refused(self, tmp_path: Path, store: Store, state: Any) -> None:
        experiment = trained(tmp_path, store, NumEpochs=1)
        experiment.save(replace(experiment.load(), optimizer=state), ["latest"])
        with pytest.raises(ExperimentError, match="optimiser state does not fit"):
            train(longer(experiment, 2), store, TrainOptions(device="cpu"), resume="latest")

    def test_weights_that_diverge_in_the_last_step_are_not_saved(
        self, tmp_path: Path, store: Store, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """The loss of a step is computed before its update."""
        experiment = Experiment.create(tmp_path, tiny_specs(NumEpochs=2))

        def ruin(*args: Any) -> torch.Tensor:
            found = step(*args)
            with torch.no_grad():
                if args[3] == 2:
                    next(args[0].field.parameters()).fill_(math.inf)
            return found

        step = module.train_step
        monkeypatch.setattr(module, "train_step", ruin)
        with pytest.raises(UsageError, match="not finite in epoch 2"):
            train(experiment, store, TrainOptions(device="cpu"))
        assert experiment.load().epoch == 1

    def test_memory_that_is_refused_is_no_defect(
        self, tmp_path: Path, store: Store, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        def full(*_: Any) -> torch.Tensor:
            raise RuntimeError("[enforce fail] DefaultCPUAllocator: can't allocate memory: you tried 99 bytes")

        monkeypatch.setattr(module, "train_step", full)
        with pytest.raises(MachineError, match="SamplesPerScene"):
            train(Experiment.create(tmp_path, tiny_specs()), store, TrainOptions(device="cpu"))

    def test_damaged_provenance_is_said(self, tmp_path: Path, store: Store, capsys: pytest.CaptureFixture[str]) -> None:
        experiment = trained(tmp_path, store, NumEpochs=1)
        (tmp_path / "provenance.json").write_text("[{}]")
        capsys.readouterr()
        train(longer(experiment, 2), store, TrainOptions(device="cpu"), resume="latest")
        assert "provenance.json is damaged" in capsys.readouterr().err
        assert len(read_provenance(tmp_path)) == 1


class TestWatching:
    @pytest.mark.slow
    def test_held_out_people_are_measured_without_changing_the_run(self, tmp_path: Path, store: Store) -> None:
        others = make_store(tmp_path / "others.zarr", people=2, first=5)
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
        train(
            experiment,
            store,
            TrainOptions(device="cpu"),
            held_out=make_store(tmp_path / "others.zarr", people=2, first=5),
        )
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

    def test_a_held_out_scan_that_is_trained_on_is_refused(
        self, tmp_path: Path, store: Store, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """It has another name, and the same content."""
        others = make_store(tmp_path / "others.zarr", people=2, first=5)
        known = {store.path: ["", "", "ab", "cd", ""], others.path: ["", "cd"]}
        monkeypatch.setattr(Store, "contents", property(lambda self: known[self.path]))
        experiment = Experiment.create(tmp_path / "e", tiny_specs())
        with pytest.raises(UsageError, match="the held-out scan p6 is the training scan p3"):
            train(experiment, store, TrainOptions(device="cpu"), held_out=others)
        known[others.path] = ["", "ef"]
        train(experiment, store, TrainOptions(device="cpu"), held_out=others)
        assert experiment.load().code_contents == known[store.path]
        assert open_field(experiment.path, device="cpu").codes.contents == known[store.path]

    def test_held_out_subjects_named_as_in_the_training_are_said(
        self, tmp_path: Path, store: Store, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
    ) -> None:
        contents = {store.path: ["a", "b", "c", "d", "e"]}
        monkeypatch.setattr(Store, "contents", property(lambda self: contents.get(self.path, [""] * len(self))))
        others = make_store(tmp_path / "others.zarr", people=3, first=3)
        train(Experiment.create(tmp_path / "e", tiny_specs(NumEpochs=1)), store, TrainOptions(device="cpu"),
              held_out=others)  # fmt: skip
        assert "2 subjects named as in the training (p3, p4)" in capsys.readouterr().err

    def test_an_unknown_tracker_is_refused(self, tmp_path: Path, store: Store) -> None:
        with pytest.raises(UsageError, match="tensorboard"):
            train(Experiment.create(tmp_path, tiny_specs()), store, TrainOptions(device="cpu", track="wandb"))


def longer(experiment: Experiment, epochs: int) -> Experiment:
    """The same directory with more epochs to do."""
    return Experiment.create(experiment.path, experiment.specs.model_copy(update={"num_epochs": epochs}))
