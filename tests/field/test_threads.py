"""Threads of torch: who chooses the number, what is measured, and that results do not depend on it."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import torch
from typer.testing import CliRunner

from anofield.cli import app
from anofield.data.parallel import Spread
from anofield.data.store import Store
from anofield.detect.run import detect_cases, threads_before
from anofield.errors import UsageError
from anofield.field import threads
from anofield.field.experiment import Experiment
from anofield.field.provenance import read_provenance
from anofield.field.provenance import threads_before as threads_of_training
from anofield.field.threads import fastest, measure, threads_of, use_threads
from anofield.field.train import TrainOptions, train
from helpers import QUICK, World, small_world
from images import load_image


@pytest.fixture(scope="session")
def world(tmp_path_factory: pytest.TempPathFactory) -> World:
    return small_world(tmp_path_factory.getbasetemp() / "world")


@pytest.fixture(autouse=True)
def alone(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Neither the variables of the machine nor those of another test decide, and torch has its threads back."""
    before = torch.get_num_threads()
    for name in threads.GIVEN_BY:
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr(threads, "cpu_count", lambda: 4)
    monkeypatch.setattr(threads, "_measured", lambda: 3)
    yield
    torch.set_num_threads(before)


def set_epochs(experiment: Experiment, epochs: int) -> None:
    """Set `NumEpochs` in the `specs.json` of an experiment."""
    path = experiment.path / "specs.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), "NumEpochs": epochs}))


def trained(world: World, path: Path, count: int, epochs: int = 2) -> Experiment:
    """An experiment that was trained with this number of threads."""
    torch.set_num_threads(count)
    specs = Experiment(world.experiment).specs.model_copy(update={"num_epochs": epochs})
    experiment = Experiment.create(path, specs)
    train(experiment, Store(world.root / "train.zarr"), TrainOptions(device="cpu"))
    return experiment


class TestWhoChooses:
    def test_the_user(self) -> None:
        assert use_threads("2", device="cpu", before=1) == torch.get_num_threads() == 2

    @pytest.mark.parametrize("name", threads.GIVEN_BY)
    def test_the_variable_for_all_programs(self, name: str, monkeypatch: pytest.MonkeyPatch) -> None:
        torch.set_num_threads(2)
        monkeypatch.setenv(name, "2")
        assert use_threads("auto", device="cpu", before=4) == 2

    def test_the_earlier_start_of_the_same_work_but_no_more_than_there_are_cores(self) -> None:
        assert use_threads("auto", device="cpu", before=2) == 2
        assert use_threads("auto", device="cpu", before=64) == 4

    def test_the_measured_step(self) -> None:
        assert use_threads("auto", device="cpu") == torch.get_num_threads() == 3

    @pytest.mark.parametrize("spread", [Spread(2), Spread(1, "tcp://nowhere:1")])
    def test_several_processes_have_one_each(self, spread: Spread) -> None:
        assert use_threads("auto", device="cpu", spread=spread, before=4) == threads_of(spread) == 1
        with pytest.raises(UsageError, match="--threads 2 with several processes"):
            use_threads("2", device="cpu", spread=spread)

    @pytest.mark.parametrize("wanted", ["0", "-1", "two", "1.5", ""])
    def test_nothing_else(self, wanted: str) -> None:
        with pytest.raises(UsageError, match="--threads"):
            use_threads(wanted, device="cpu")

    def test_more_than_there_are_cores_are_said_aloud(self, capsys: pytest.CaptureFixture[str]) -> None:
        assert use_threads("4", device="cpu") == 4
        assert not capsys.readouterr().err
        assert use_threads("5", device="cpu") == 5
        assert "--threads 5: 4 cores can be used" in capsys.readouterr().err


class TestMeasurement:
    def test_takes_more_threads_only_for_a_tenth(self) -> None:
        assert fastest({1: 1.0, 2: 0.95}) == 1
        assert fastest({1: 1.0, 2: 0.6, 4: 0.56}) == 2
        assert fastest({1: 1.0, 2: 7.0}) == 1
        assert fastest({1: 1.0}) == 1

    def test_ends_when_more_threads_are_slower(self) -> None:
        costs, asked = {1: 0.002, 2: 0.02, 4: 0.0}, []

        def step() -> None:
            asked.append(torch.get_num_threads())
            time.sleep(costs[torch.get_num_threads()])  # stands for the work

        found = measure(step, [1, 2, 4])
        assert set(found) == {1, 2} == set(asked) and fastest(found) == 1

    def test_a_step_leaves_the_random_numbers_alone(self) -> None:
        torch.manual_seed(5)
        expected = torch.rand(3)
        torch.manual_seed(5)
        threads._step()()
        assert torch.equal(torch.rand(3), expected)


@pytest.mark.slow
class TestResults:
    """Sums of a training are split among the threads, so its numbers are rounded differently with another number."""

    def test_a_training_gives_the_same_weights_up_to_rounding(self, world: World, tmp_path: Path) -> None:
        one, other = (trained(world, tmp_path / str(count), count).load("latest") for count in (1, 2))
        for name, value in one.model.items():
            torch.testing.assert_close(value, other.model[name], rtol=1e-3, atol=1e-3)

    def test_a_training_goes_on_with_the_threads_that_it_was_begun_with(self, world: World, tmp_path: Path) -> None:
        whole = trained(world, tmp_path / "whole", 2, epochs=2).load("latest")
        part = trained(world, tmp_path / "part", 2, epochs=1)
        set_epochs(part, 2)
        command = ["train", "-e", str(part.path), "--data", str(world.root / "train.zarr"), "--continue", "latest"]
        done = CliRunner().invoke(app, [*command, "--device", "cpu", "--precision", "float32"])
        assert done.exit_code == 0, done.output
        assert [start.threads for start in read_provenance(part.path)] == [2, 2]
        assert threads_of_training(part.path) == 2
        again = part.load("latest")
        assert all(torch.equal(value, again.model[name]) for name, value in whole.model.items())

    def test_a_detection_gives_the_same_maps_and_names_its_threads(self, world: World, tmp_path: Path) -> None:
        maps = []
        for count in (1, 2):
            torch.set_num_threads(count)
            run = detect_cases(world.glioma[:1], world.model, QUICK, tmp_path / str(count))
            assert run.info.threads == threads_before(run.path) == count
            maps.append(load_image(run.path / world.glioma[0].id / "anomaly.nii.gz").get_fdata())
        assert np.array_equal(maps[0], maps[1])
