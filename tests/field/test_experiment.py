"""The experiment directory: published specs, checkpoints that survive a kill at any moment, logs that fit them."""

from __future__ import annotations

import json
import pickle
import shutil
import tracemalloc
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from anofield._files import PARTIAL
from anofield.errors import ExperimentError, MachineError, UsageError
from anofield.field import experiment as module
from anofield.field import tensor_file
from anofield.field.experiment import Checkpoint, Experiment
from anofield.field.logs import Logs
from anofield.field.manifest import MANIFEST_FILE, read_manifest
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

    @pytest.mark.parametrize(
        "changes",
        [
            {"CodeLength": 10**9},
            {"CodeLength": 10**30},
            {"CodeLength": -1},
            {"CodeLength": 2.5},
            {"CodeLength": "wide"},
            {"CodeBound": 1e999},
            {"CodeBound": float("nan")},
            {"L": 10**6},
            {"NumEpochs": 10**400},
            {"SamplesPerScene": 10**12},
            {"Seed": 2**64},
            {"LearningRateSchedule": [{"Type": "Constant", "Value": float("inf")}] * 2},
            {"LearningRateSchedule": [{"Type": "Constant", "Value": 1e300}] * 2},
            *({"NetworkSpecs": {"dims": dims, "dim_out": 4}} for dims in (
                [10**9] * 3, [10**30], [30_000] * 3, [0], [-512], [512.5], ["wide"], [[512]], [8] * 100_000)),
            {"NetworkSpecs": {"dims": [512], "dim_out": 10**9}},
        ],
        ids=lambda changes: str(changes)[:60],
    )  # fmt: skip
    def test_absurd_sizes_are_refused_by_key_before_memory_is_taken(
        self, tmp_path: Path, changes: dict[str, Any]
    ) -> None:
        tracemalloc.start()
        try:
            with pytest.raises(UsageError, match=rf"specs\.json: .*({next(iter(changes))}|NaN|Infinity)") as caught:
                read(tmp_path, **changes)
            assert tracemalloc.get_traced_memory()[1] < 200e6
        finally:
            tracemalloc.stop()
        assert len(str(caught.value)) < 2000

    def test_the_limit_of_parameters_is_stated(self, tmp_path: Path) -> None:
        with pytest.raises(UsageError, match=r"network of 1\.81e\+09 parameters, at most 100 million"):
            read(tmp_path, NetworkSpecs={"dims": [30_000] * 3, "dim_out": 4})

    @pytest.mark.parametrize(
        ("text", "told"),
        [
            ("[" * 100_000 + "]" * 100_000, "recursion"),
            ('{"Description": ' + "[" * 900 + "]" * 900 + "}", "Description"),
            ('{"CodeLength": 256, "CodeLength": 128}', "'CodeLength' occurs twice"),
            ('{"CodeLength": NaN}', "NaN is no JSON number"),
            ('{"CodeLength": ' + "9" * 5000 + "}", "4300"),
            ('{"' + "x" * 900_000 + '": 1}', "it lacks 'DataSource'"),
            (" " * 1_000_001, "more than 1000000 bytes"),
            ("null", "must be a JSON object"),
            ("", "not JSON"),
            ("\ud800", "not JSON"),
        ],
        ids=["deep", "deep value", "twice", "NaN", "long number", "long key", "large", "null", "empty", "no UTF-8"],
    )
    def test_hostile_json_is_refused(self, tmp_path: Path, text: str, told: str) -> None:
        (tmp_path / "specs.json").write_bytes(text.encode("utf-8", "surrogatepass"))
        with pytest.raises(UsageError, match=told) as caught:
            Experiment(tmp_path)
        assert len(str(caught.value)) < 2000

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
        (StepRate(initial=1.0, interval=1, factor=10.0), {2: 100.0, 2000: 1e30}),
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

    @pytest.mark.parametrize("size", [0, 100])
    @pytest.mark.parametrize("part", PARTS)
    def test_falling_back_names_the_damaged_file_and_the_epoch_in_use(
        self, experiment: Experiment, capsys: pytest.CaptureFixture[str], part: str, size: int
    ) -> None:
        for epoch in (1, 2, 3):
            experiment.save(make_checkpoint(epoch), [LATEST])
        assert experiment.load().epoch == 3
        assert capsys.readouterr().err == ""
        path = experiment.file(part, LATEST)
        path.write_bytes(path.read_bytes()[:size])
        for use in (lambda: experiment.load().epoch, experiment.model_hash):
            use()
            told = capsys.readouterr().err
            assert f"{part}/latest.pth cannot be read" in told
            assert "the checkpoint of epoch 2 is used instead" in told
        path.unlink()
        assert experiment.load().epoch == 2
        assert f"{part}/latest.pth is missing; the checkpoint of epoch 2" in capsys.readouterr().err

    @pytest.mark.parametrize("part", PARTS)
    def test_a_damaged_snapshot_is_an_error_that_names_its_file(self, experiment: Experiment, part: str) -> None:
        for epoch in (1, 2):
            experiment.save(make_checkpoint(epoch), [LATEST, str(epoch)])
        path = experiment.file(part, "2")
        path.write_bytes(path.read_bytes()[:-50])
        with pytest.raises(ExperimentError, match=rf"{part}/2\.pth cannot be read"):
            experiment.load("2")

    @pytest.mark.slow
    @pytest.mark.parametrize("part", PARTS)
    def test_a_flipped_bit_is_refused_or_changes_nothing(self, experiment: Experiment, part: str) -> None:
        experiment.save(make_checkpoint(3), ["3"])
        path, generator = experiment.file(part, "3"), np.random.default_rng(0)
        whole, refused = path.read_bytes(), 0
        for _ in range(300):
            place = int(generator.integers(len(whole)))
            changed = whole[place] ^ (1 << int(generator.integers(8)))
            path.write_bytes(whole[:place] + bytes([changed]) + whole[place + 1 :])
            try:
                assert_whole(experiment.load("3"), {(3, 0)})
            except ExperimentError as error:
                assert "3.pth" in str(error)
                refused += 1
        assert refused == 300  # the manifest has the hash of every byte

    @pytest.mark.parametrize("part", PARTS)
    def test_a_part_of_another_training_is_refused(
        self, experiment: Experiment, tmp_path: Path, capsys: pytest.CaptureFixture[str], part: str
    ) -> None:
        """The epoch is the same and the file is sound."""
        other = Experiment.create(tmp_path / "other", tiny_specs())
        other.save(replace(make_checkpoint(2), codes=torch.zeros(2, 3), model={"w": torch.zeros(2, 3)},
                           optimizer={"state": {}}), [LATEST])  # fmt: skip
        for epoch in (1, 2):
            experiment.save(make_checkpoint(epoch), [LATEST])
        shutil.copy(other.file(part, LATEST), experiment.file(part, LATEST))
        assert_whole(experiment.load(), {(1, 0)})
        told = capsys.readouterr().err
        assert "not of one save" in told and "epoch 1 is used instead" in told
        experiment.file(PARTS[0], PREVIOUS).unlink()
        with pytest.raises(ExperimentError, match="not of one save"):
            experiment.load()

    def test_a_damaged_manifest_is_said_and_the_files_are_read(
        self, experiment: Experiment, capsys: pytest.CaptureFixture[str]
    ) -> None:
        experiment.save(make_checkpoint(2), [LATEST])
        for content in ("{", '{"checkpoints": 3}', "[" * 100_000):
            (experiment.path / MANIFEST_FILE).write_text(content)
            assert_whole(experiment.load(), {(2, 0)})
            assert MANIFEST_FILE in capsys.readouterr().err
        experiment.save(make_checkpoint(3), [LATEST])
        capsys.readouterr()
        assert_whole(experiment.load(), {(3, 0)})
        assert capsys.readouterr().err == ""

    def test_the_manifest_does_not_grow_without_end(self, experiment: Experiment) -> None:
        for epoch in range(1, 12):
            experiment.save(make_checkpoint(epoch), [LATEST])
        assert [entry.epoch for entry in read_manifest(experiment.path).checkpoints] == [8, 9, 10, 11]

    @pytest.mark.parametrize("value", [float("nan"), float("inf")])
    @pytest.mark.parametrize(("part", "name"), [("ModelParameters", "w"), ("LatentCodes", "latent_codes")])
    def test_values_that_are_not_finite_are_refused_by_name(
        self, experiment: Experiment, value: float, part: str, name: str
    ) -> None:
        odd = torch.tensor([[1.0, value, 0.0]] * 2)
        changes: dict[str, Any] = {"model": {"w": odd}} if part == "ModelParameters" else {"codes": odd}
        experiment.save(make_checkpoint(1), [LATEST])
        experiment.save(replace(make_checkpoint(2), **changes), [LATEST])
        with pytest.raises(ExperimentError, match=rf"{part}/latest\.pth: {name} has 2 of 6 values that are not finite"):
            experiment.load()

    @pytest.mark.parametrize("damage", [b"", b"PK", None])
    def test_a_damaged_history_is_said(
        self, experiment: Experiment, capsys: pytest.CaptureFixture[str], damage: bytes | None
    ) -> None:
        experiment.save(make_checkpoint(2), [LATEST])
        path, whole = experiment.path / "Logs.pth", experiment.load().logs
        data = path.read_bytes()
        path.write_bytes(data[:-200] if damage is None else damage)
        assert experiment.load().logs == Logs()
        assert "Logs.pth cannot be read" in (told := capsys.readouterr().err)
        assert "the history before epoch 3 is lost" in told
        torch.save({"epoch": 2, "loss": "many"}, path)
        assert experiment.load().logs == Logs()
        assert "Logs.pth is damaged" in capsys.readouterr().err
        path.write_bytes(data)
        assert experiment.load().logs == whole
        path.unlink()
        assert experiment.load().logs == Logs()
        assert capsys.readouterr().err == ""

    @pytest.mark.slow
    def test_the_bits_of_the_history_are_checked(self, experiment: Experiment) -> None:
        experiment.save(make_checkpoint(2), [LATEST])
        path, generator = experiment.path / "Logs.pth", np.random.default_rng(0)
        data, whole = path.read_bytes(), experiment.load().logs
        for _ in range(300):
            place = int(generator.integers(len(data)))
            changed = data[place] ^ (1 << int(generator.integers(8)))
            path.write_bytes(data[:place] + bytes([changed]) + data[place + 1 :])
            assert experiment.load().logs in (whole, Logs())

    def test_a_save_does_not_bring_back_a_removed_directory(self, experiment: Experiment) -> None:
        experiment.save(make_checkpoint(1), [LATEST])
        shutil.rmtree(experiment.path)
        with pytest.raises(MachineError, match=r"removed or renamed.*no specs\.json") as caught:
            experiment.save(make_checkpoint(2), [LATEST])
        assert caught.value.exit_code == 6
        assert not experiment.path.exists()

    def test_a_directory_removed_during_a_save_is_noticed(
        self, experiment: Experiment, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        write = tensor_file.write_partial

        def removing(path: Path, content: Any) -> None:
            write(path, content)
            if path.parent.name == PARTS[-1]:
                shutil.rmtree(experiment.path)

        monkeypatch.setattr(module, "write_partial", removing)
        with pytest.raises(MachineError):
            experiment.save(make_checkpoint(1), [LATEST])

    def test_nothing_but_damaged_files_is_not_an_untrained_experiment(self, experiment: Experiment) -> None:
        experiment.save(make_checkpoint(1), [LATEST])
        path = experiment.file("LatentCodes", LATEST)
        path.write_bytes(path.read_bytes()[:100])
        with pytest.raises(ExperimentError, match=r"LatentCodes/latest\.pth cannot be read"):
            experiment.has_checkpoint()
        for part in ("LatentCodes", "OptimizerParameters"):  # as after a kill between two renames of the first save
            file = experiment.file(part, LATEST)
            file.rename(file.with_name(f"{PARTIAL}1234-{file.name}"))
        assert not experiment.has_checkpoint()

    @pytest.mark.parametrize("part", PARTS)
    def test_a_removed_file_does_not_make_an_experiment_untrained(self, experiment: Experiment, part: str) -> None:
        experiment.save(make_checkpoint(1), [LATEST])
        experiment.file(part, LATEST).unlink()
        with pytest.raises(ExperimentError, match=rf"{part}/latest\.pth of its checkpoint is missing"):
            experiment.has_checkpoint()

    @pytest.mark.parametrize("ids", [["a"], "ab", [1, 2]])
    def test_ids_that_do_not_fit_the_codes_are_refused(self, experiment: Experiment, ids: Any) -> None:
        experiment.save(make_checkpoint(1), [LATEST])
        content = torch.load(experiment.file("LatentCodes", LATEST), weights_only=True)
        torch.save({**content, "case_ids": ids}, experiment.file("LatentCodes", LATEST))
        (experiment.path / MANIFEST_FILE).unlink()
        with pytest.raises(ExperimentError, match="case_ids are not one text for each of its 2 codes"):
            experiment.load()

    def test_contents_of_the_training_scans_are_kept(self, experiment: Experiment) -> None:
        experiment.save(replace(make_checkpoint(1), code_contents=["1f", ""]), [LATEST])
        assert experiment.load().code_contents == ["1f", ""]

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

    def test_a_disk_that_is_full_at_the_manifest_leaves_the_old_state(
        self, experiment: Experiment, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        experiment.save(make_checkpoint(1), [LATEST])

        def full(*_: Any) -> None:
            raise OSError(28, "No space left on device")

        with monkeypatch.context() as patch:
            patch.setattr(module, "add_to_manifest", full)
            with pytest.raises(MachineError, match="No space"):
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
