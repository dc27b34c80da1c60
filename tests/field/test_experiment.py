"""The experiment directory: published specs, checkpoints that survive a kill at any moment, logs that fit them."""

from __future__ import annotations

import json
import pickle
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
import torch

from anofield.errors import ExperimentError, MachineError, UsageError
from anofield.field import experiment as module
from anofield.field import tensor_file
from anofield.field.experiment import Checkpoint, Experiment
from anofield.field.logs import Logs
from anofield.field.manifest import MANIFEST_FILE
from anofield.field.parts import LATEST, PARTS, PREVIOUS
from anofield.field.specs import ConstantRate, CosineRate, Specs, StepRate, WarmupRate
from helpers import PUBLISHED, make_checkpoint, tiny_specs


def read(folder: Path, **changes: Any) -> Specs:
    path = folder / "specs.json"
    path.write_text(json.dumps({**PUBLISHED, **changes}))
    return Specs.read(path)


class TestSpecs:
    def test_published_file_is_read_and_written_under_its_own_keys(self, tmp_path: Path) -> None:
        specs = read(tmp_path)
        dumped = json.loads(json.dumps(specs.dump()))
        assert {key: dumped[key] for key in PUBLISHED} == PUBLISHED
        assert Specs.model_validate(dumped) == specs
        assert specs.brain_fraction == 0.0
        assert specs.code_init_std_dev == 1.0

    def test_what_is_left_out_is_what_the_published_code_takes_then(self, tmp_path: Path) -> None:
        network = {"dims": [32, 32], "dim_out": 4, "dropout": None, "norm_layers": None, "xyz_in_all": None}
        left_out = ("L", "CodeBound", "CodeRegularization", "CodeRegularizationLambda", "EncodeImage")
        path = tmp_path / "specs.json"
        kept = {key: value for key, value in PUBLISHED.items() if key not in left_out}
        path.write_text(json.dumps(kept | {"NetworkSpecs": network}))
        specs = Specs.read(path)
        assert specs.network_specs.model_dump() == {
            "dims": (32, 32), "dim_out": 4, "dropout": (), "dropout_prob": 0.0, "norm_layers": (), "latent_in": (),
            "xyz_in_all": False, "latent_dropout": False, "weight_norm": False,
        }  # fmt: skip
        assert specs.octaves is specs.code_bound is specs.gradient_clip_norm is None
        assert specs.code_regularization and specs.code_regularization_lambda == 1e-4
        assert (specs.code_init_std_dev, specs.log_frequency) == (1.0, 10)

    def test_raw_coordinates_and_no_bound_are_null(self, tmp_path: Path) -> None:
        specs = read(tmp_path, L=None, CodeBound=None)
        assert specs.octaves is None
        assert specs.code_bound is None

    @pytest.mark.parametrize(
        ("changes", "key", "nearest"),
        [
            ({"CodeLenght": 256}, "CodeLenght", "CodeLength"),
            ({"NumEpoch": 10}, "NumEpoch", "NumEpochs"),
            ({"NetworkSpecs": {"dims": [8], "dim_out": 2, "dim_outs": 10}}, "NetworkSpecs.dim_outs", "dim_out"),
            (
                {"LearningRateSchedule": [{**PUBLISHED["LearningRateSchedule"][0], "Intervall": 5}] * 2},
                "Intervall",
                "Interval",
            ),
        ],
    )
    def test_unknown_key_is_refused_with_the_nearest_known_one(
        self, tmp_path: Path, changes: dict[str, Any], key: str, nearest: str
    ) -> None:
        with pytest.raises(UsageError) as caught:
            read(tmp_path, **changes)
        assert f"{key}'" in str(caught.value)
        assert f"nearest known: '{nearest}'" in str(caught.value)
        assert caught.value.where.endswith("specs.json")

    @pytest.mark.parametrize("key", ["OrdinalWeight", "ProgressiveEpochs"])
    def test_a_removed_key_is_refused_like_any_unknown_one(self, tmp_path: Path, key: str) -> None:
        (tmp_path / "specs.json").write_text(json.dumps({**PUBLISHED, key: 0}))
        with pytest.raises(UsageError, match=f"unknown key '{key}'"):
            Experiment(tmp_path)

    @pytest.mark.parametrize(
        ("changes", "key", "value"),
        [
            ({"NumEpochs": "many"}, "NumEpochs", "'many'"),
            ({"SamplesPerScene": 0}, "SamplesPerScene", "0"),
            ({"NetworkSpecs": {"dropout_prob": 1.5}}, "NetworkSpecs.dropout_prob", "1.5"),
            ({"LearningRateSchedule": [{"Type": "Stepp"}] * 2}, "LearningRateSchedule.0", "Stepp"),
        ],
    )
    def test_wrong_value_is_named_with_its_key(
        self, tmp_path: Path, changes: dict[str, Any], key: str, value: str
    ) -> None:
        with pytest.raises(UsageError) as caught:
            read(tmp_path, **changes)
        assert key in str(caught.value)
        assert value in str(caught.value)

    def test_missing_key_is_named(self, tmp_path: Path) -> None:
        path = tmp_path / "specs.json"
        path.write_text(json.dumps({key: value for key, value in PUBLISHED.items() if key != "CodeLength"}))
        with pytest.raises(UsageError, match="CodeLength"):
            Specs.read(path)

    def test_broken_json_names_its_line(self, tmp_path: Path) -> None:
        (tmp_path / "specs.json").write_text('{\n"CodeLength": 256,,\n}')
        with pytest.raises(UsageError, match="line 2"):
            Specs.read(tmp_path / "specs.json")

    def test_missing_file_and_missing_directory_say_so(self, tmp_path: Path) -> None:
        with pytest.raises(ExperimentError, match=r"no specs\.json"):
            Experiment(tmp_path)
        with pytest.raises(ExperimentError, match="no such experiment"):
            Experiment(tmp_path / "nowhere")


@pytest.mark.parametrize(
    ("schedule", "expected"),
    [
        (StepRate(initial=8.0, interval=2, factor=0.5), {1: 8.0, 2: 4.0, 3: 4.0, 4: 2.0, 9: 0.5}),
        (WarmupRate(initial=0.0, final=1.0, length=4), {1: 0.25, 2: 0.5, 4: 1.0, 50: 1.0}),
        (ConstantRate(value=0.3), {1: 0.3, 1000: 0.3}),
        (CosineRate(initial=3.0, final=1.0, length=4), {1: 3.0, 3: 2.0, 5: 1.0, 99: 1.0}),
    ],
)
def test_schedules_have_the_documented_rates(schedule: Any, expected: dict[int, float]) -> None:
    assert {epoch: schedule.rate(epoch) for epoch in expected} == pytest.approx(expected, abs=1e-6)


@pytest.fixture
def experiment(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Experiment:
    monkeypatch.setattr(tensor_file.os, "fsync", lambda number: None)  # the kernel does not die in these tests
    return Experiment.create(tmp_path / "experiment", tiny_specs())


def assert_whole(found: Checkpoint, stamps: set[tuple[int, int]]) -> None:
    """Every part belongs to one of the stamps, the same for all; logs can be cut to it."""
    assert (found.epoch, found.step) in stamps
    expected = make_checkpoint(found.epoch, found.step)
    assert torch.equal(found.model["w"], expected.model["w"])
    assert torch.equal(found.codes, expected.codes)
    assert torch.equal(found.optimizer["state"][0]["step"], expected.optimizer["state"][0]["step"])
    assert found.code_ids == expected.code_ids
    found.logs.cut(found.epoch, 3, found.step)
    assert found.logs == expected.logs


class Killed(BaseException):
    """Stands for a process that ends here."""


@contextmanager
def killed_at(count: int, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Die at the `count`-th file write (leaving half a file) or rename."""
    left = [count]
    write, replace = tensor_file.write_partial, Path.replace

    def tick() -> bool:
        left[0] -= 1
        return left[0] < 0

    def dying_write(path: Path, content: Any) -> Path:
        dead = tick()
        write(path, content)
        if dead:
            path.write_bytes(path.read_bytes()[:100])
            raise Killed
        return path

    def dying_replace(self: Path, target: Path) -> Path:
        if tick():
            raise Killed
        return replace(self, target)

    with monkeypatch.context() as patch:
        for writer in (module, tensor_file):
            patch.setattr(writer, "write_partial", dying_write)
        patch.setattr(Path, "replace", dying_replace)
        try:
            yield
        except Killed:
            return
    raise AssertionError(f"a save has fewer than {count + 1} writes and renames")


SAVE_EVENTS = 2 + 3 + 1 + 3 + 3  # logs written and renamed; parts written; manifest; parts to `previous`, and renamed


class TestCheckpoints:
    def test_round_trip(self, experiment: Experiment) -> None:
        experiment.save(make_checkpoint(3, 1), [LATEST, "3"])
        for name in (LATEST, "3"):
            assert_whole(experiment.load(name), {(3, 1)})

    def test_layout_is_the_published_one(self, experiment: Experiment) -> None:
        experiment.save(make_checkpoint(2), [LATEST])
        content = {part: torch.load(experiment.file(part, LATEST), weights_only=True) for part in PARTS}
        assert {part["epoch"] for part in content.values()} == {2}
        assert "w" in content["ModelParameters"]["model_state_dict"]
        assert content["LatentCodes"]["latent_codes"]["weight"].shape == (2, 3)
        assert "state" in content["OptimizerParameters"]["optimizer_state_dict"]
        logs = torch.load(experiment.path / "Logs.pth", weights_only=True)
        assert set(logs) == {"epoch", "loss", "learning_rate", "timing", "latent_magnitude", "param_magnitude"}

    @pytest.mark.parametrize("moment", range(SAVE_EVENTS))
    def test_a_kill_at_any_moment_leaves_a_whole_checkpoint(
        self, experiment: Experiment, monkeypatch: pytest.MonkeyPatch, moment: int
    ) -> None:
        for epoch in (1, 2):
            experiment.save(make_checkpoint(epoch), [LATEST])
        with killed_at(moment, monkeypatch):
            experiment.save(make_checkpoint(3), [LATEST])
        assert_whole(Experiment(experiment.path).load(), {(2, 0), (3, 0)})

    @pytest.mark.slow
    @pytest.mark.parametrize("first", range(2, SAVE_EVENTS))
    def test_a_second_kill_after_a_resume_does_no_more_harm(
        self, experiment: Experiment, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, first: int
    ) -> None:
        for epoch in (1, 2):
            experiment.save(make_checkpoint(epoch), [LATEST])
        with killed_at(first, monkeypatch):
            experiment.save(make_checkpoint(3), [LATEST])
        for second in range(2, SAVE_EVENTS):
            again = Experiment(shutil.copytree(experiment.path, tmp_path / str(second)))
            at = again.load()
            later = make_checkpoint(at.epoch, 1)  # stopped within the epoch after it
            try:
                with killed_at(second, monkeypatch):
                    again.save(later, [LATEST])
            except AssertionError:
                continue  # fewer events: the save was whole
            assert_whole(again.load(), {(at.epoch, at.step), (later.epoch, later.step)})

    @pytest.mark.parametrize("moment", range(2, SAVE_EVENTS))
    def test_a_save_after_a_kill_is_whole(
        self, experiment: Experiment, monkeypatch: pytest.MonkeyPatch, moment: int
    ) -> None:
        experiment.save(make_checkpoint(1), [LATEST])
        with killed_at(moment, monkeypatch):
            experiment.save(make_checkpoint(2), [LATEST])
        for epoch in (2, 3):
            experiment.save(make_checkpoint(epoch), [LATEST])
            assert_whole(experiment.load(), {(epoch, 0)})

    @pytest.mark.parametrize("size", [0, 100])
    @pytest.mark.parametrize("part", [*PARTS, "all"])
    def test_a_truncated_file_falls_back_to_the_checkpoint_before(
        self, experiment: Experiment, part: str, size: int
    ) -> None:
        for epoch in (1, 2, 3):
            experiment.save(make_checkpoint(epoch), [LATEST])
        for damaged in PARTS if part == "all" else [part]:
            path = experiment.file(damaged, LATEST)
            path.write_bytes(path.read_bytes()[:size])
        assert_whole(experiment.load(), {(2, 0)})

    def test_files_that_disagree_fall_back_to_the_newest_epoch_they_share(self, experiment: Experiment) -> None:
        for epoch in (1, 2, 3):
            experiment.save(make_checkpoint(epoch), [LATEST, str(epoch)])
        for part, name in zip(PARTS, ("3", "2", "1"), strict=True):
            shutil.copy(experiment.file(part, name), experiment.file(part, LATEST))
            experiment.file(part, PREVIOUS).unlink()
        experiment.file("LatentCodes", "3").unlink()
        assert_whole(experiment.load(), {(2, 0)})

    def test_missing_checkpoints_are_named(self, experiment: Experiment) -> None:
        with pytest.raises(ExperimentError, match="latest"):
            experiment.load()
        experiment.save(make_checkpoint(3), [LATEST])
        with pytest.raises(ExperimentError, match="'7'"):
            experiment.load("7")

    def test_the_epochs_of_files_that_disagree_are_named(self, experiment: Experiment) -> None:
        for epoch in (1, 2):
            experiment.save(make_checkpoint(epoch), [str(epoch)])
        shutil.copy(experiment.file("LatentCodes", "1"), experiment.file("LatentCodes", "2"))
        with pytest.raises(ExperimentError, match="ModelParameters 1, 2; LatentCodes 1; OptimizerParameters 1, 2"):
            experiment.load("2")

    def test_a_model_without_its_optimiser_opens(self, experiment: Experiment) -> None:
        experiment.save(make_checkpoint(2), [LATEST])
        shutil.rmtree(experiment.path / "OptimizerParameters")
        found = experiment.load()
        assert (found.epoch, found.optimizer) == (2, {})
        assert torch.equal(found.codes, make_checkpoint(2).codes)
        experiment.save(make_checkpoint(3), [LATEST])
        assert_whole(experiment.load(), {(3, 0)})

    @pytest.mark.parametrize("names", [["1"], [LATEST]])
    def test_any_whole_checkpoint_counts_as_trained(self, experiment: Experiment, names: list[str]) -> None:
        assert not experiment.has_checkpoint()
        experiment.save(make_checkpoint(1), names)
        assert experiment.has_checkpoint()

    def test_objects_in_a_file_are_not_unpickled(self, experiment: Experiment, tmp_path: Path) -> None:
        class Trap:
            def __reduce__(self) -> tuple[Any, ...]:
                return (Path.touch, (tmp_path / "sprung",))

        experiment.save(make_checkpoint(1), [LATEST])
        torch.save({"epoch": 1, "model_state_dict": Trap()}, experiment.file("ModelParameters", LATEST))
        with pytest.raises(ExperimentError):
            experiment.load()
        experiment.file("ModelParameters", LATEST).write_bytes(pickle.dumps(Trap(), protocol=2))
        with pytest.raises(ExperimentError):
            experiment.load()
        assert not (tmp_path / "sprung").exists()

    def test_a_file_of_something_else_is_no_checkpoint(self, experiment: Experiment) -> None:
        for epoch in (1, 2):
            experiment.save(make_checkpoint(epoch), [LATEST])
        torch.save({"weights": torch.zeros(2)}, experiment.file("LatentCodes", LATEST))
        assert_whole(experiment.load(), {(1, 0)})

    def test_a_refusing_disk_leaves_the_old_state(
        self, experiment: Experiment, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        experiment.save(make_checkpoint(1), [LATEST])

        def full(*_: Any) -> None:
            raise RuntimeError("PytorchStreamWriter failed writing file: no space")

        with monkeypatch.context() as patch:
            patch.setattr(tensor_file.torch, "save", full)
            with pytest.raises(MachineError, match="no space"):
                experiment.save(make_checkpoint(2), [LATEST])
        assert_whole(experiment.load(), {(1, 0)})
        assert not list(experiment.path.rglob("*partial*"))

    def test_published_files_without_case_ids_are_read(self, experiment: Experiment) -> None:
        experiment.save(make_checkpoint(4), ["4"])
        (experiment.path / MANIFEST_FILE).unlink()
        codes = torch.full((2, 3), 401.0)
        for table in (codes, {"weight": codes}):
            torch.save({"epoch": 4, "latent_codes": table}, experiment.file("LatentCodes", "4"))
            found = experiment.load("4")
            assert torch.equal(found.codes, codes)
            assert found.code_ids == []

    def test_the_hash_is_that_of_what_is_loaded(self, experiment: Experiment, monkeypatch: pytest.MonkeyPatch) -> None:
        experiment.save(make_checkpoint(1), [LATEST])
        before = experiment.model_hash()
        assert before
        with killed_at(10, monkeypatch):
            experiment.save(make_checkpoint(2), [LATEST])
        assert_whole(experiment.load(), {(1, 0)})
        assert experiment.model_hash() == before
        experiment.save(make_checkpoint(2), [LATEST, "2"])
        assert experiment.model_hash() == experiment.model_hash("2") == experiment.load().hash != before


def test_logs_are_cut_to_the_epoch_and_step() -> None:
    logs = Logs(3, [float(i) for i in range(7)], [[1.0, 2.0]] * 3, [1.0] * 3, [2.0] * 3, {"lin0.bias": [3.0] * 3})
    logs.cut(2, 2, 1)
    assert logs == Logs(2, [0.0, 1.0, 2.0, 3.0, 4.0], [[1.0, 2.0]] * 2, [1.0] * 2, [2.0] * 2, {"lin0.bias": [3.0] * 2})
