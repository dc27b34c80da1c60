"""Experiments of 2021 open here and go on here; experiments of here open there.

`oracle` is the published side: its network, its training step, its files.
"""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from anofield.data.nt import read_rows, write_rows
from anofield.data.recipe import write_recipe
from anofield.data.store import Store
from anofield.errors import ExperimentError, UsageError
from anofield.field import export as published
from anofield.field.experiment import Experiment
from anofield.field.export import PUBLISHED_KEYS, PUBLISHED_NETWORK_KEYS, export_experiment
from anofield.field.model import build_field, load_weights, open_field
from anofield.field.parts import LATEST, PARTS
from anofield.field.published import plain_weights
from anofield.field.specs import NetworkSpecs, Specs
from anofield.field.step import Run, batch_loss, start_run
from anofield.field.train import TrainOptions, restore, train
from helpers import CLASSES, make_store, tiny_specs
from oracle import PublishedNetwork, PublishedTraining, adam_of_2021, joined

CASES, POINTS = 5, 40
LAYERS = [0, 1, 2]
NETWORK: dict[str, Any] = {
    "dims": [48, 48, 48], "dim_out": CLASSES, "dropout": LAYERS, "dropout_prob": 0.3, "norm_layers": LAYERS,
    "latent_in": [2], "xyz_in_all": False, "latent_dropout": False, "weight_norm": True,
}  # fmt: skip
VARIANTS: dict[str, dict[str, Any]] = {
    "published": {},
    "xyz_in_all": {"NetworkSpecs": {**NETWORK, "xyz_in_all": True}},
    "latent dropout": {"NetworkSpecs": {**NETWORK, "latent_dropout": True}},
    "layer norm": {"NetworkSpecs": {**NETWORK, "weight_norm": False}},
    "layer norm of the output": {"NetworkSpecs": {**NETWORK, "weight_norm": False, "norm_layers": [0, 3]}},
    "raw coordinates": {"L": None},
    "gradient clip": {"GradientClipNorm": 5.0},
    "wide codes, no bound": {"CodeInitStdDev": 3.0, "CodeBound": None},
    "no penalty": {"CodeRegularization": False},
}
Batch = tuple[Tensor, Tensor, Tensor]


def published_file(**changes: Any) -> dict[str, Any]:
    """A `specs.json` of 2021: published keys only."""
    specs = {
        "Description": ["as in 2021"], "DataSource": "data", "SamplesPerScene": POINTS, "ScenesPerBatch": 6,
        "DataLoaderThreads": 6, "NetworkSpecs": NETWORK, "CodeLength": 6, "L": 2, "NumEpochs": 8,
        "SnapshotFrequency": 3, "AdditionalSnapshots": [1], "LogFrequency": 1,
        "LearningRateSchedule": [
            {"Type": "Step", "Initial": 2e-3, "Interval": 2, "Factor": 0.5},
            {"Type": "Warmup", "Initial": 1e-3, "Final": 5e-3, "Length": 4},
        ],
        "CodeRegularization": True, "CodeRegularizationLambda": 0.05, "CodeBound": 0.8, "EncodeImage": False,
    }  # fmt: skip
    return specs | changes


def batches(count: int) -> list[Batch]:
    """Points, classes and rows: all cases of every batch, in changing order."""
    generator = torch.Generator().manual_seed(1)
    points = torch.rand(count, CASES, POINTS, 3, generator=generator) * 2 - 1
    targets = torch.randint(CLASSES, (count, CASES, POINTS), generator=generator)
    rows = [torch.randperm(CASES, generator=generator) for _ in range(count)]
    return list(zip(points, targets, rows, strict=True))


def begun(steps: int, **changes: Any) -> PublishedTraining:
    """A training of 2021 after some epochs of one batch each."""
    torch.manual_seed(0)
    training = PublishedTraining(Specs.model_validate(published_file(**changes)), CASES)
    go_on(training, 0, steps)
    return training


def go_on(training: PublishedTraining, first: int, last: int) -> None:
    for number, batch in enumerate(batches(last)[first:], first):
        torch.manual_seed(number)  # dropout
        training.step(*batch)


def opened(path: Path, ids: list[str] | None = None, name: str = LATEST) -> Run:
    """A run that goes on after a checkpoint."""
    experiment = Experiment(path)
    checkpoint = experiment.load(name)
    run = start_run(experiment.specs, ids or [f"p{row}" for row in range(CASES)], torch.device("cpu"))
    restore(run, checkpoint, path)
    return run


def gone_on(run: Run, first: int, last: int) -> None:
    """The steps of `go_on`, by this project's loss and optimiser."""
    run.field.train()
    for number, (points, targets, rows) in enumerate(batches(last)[first:], first):
        torch.manual_seed(number)
        for group, rate in zip(run.optimizer.param_groups, run.specs.learning_rate_schedule, strict=True):
            group["lr"] = rate.rate(number + 1)
        run.optimizer.zero_grad()
        batch_loss(run, points, targets, rows, number + 1).backward()
        if run.specs.gradient_clip_norm is not None:
            torch.nn.utils.clip_grad_norm_(run.field.parameters(), run.specs.gradient_clip_norm)
        run.optimizer.step()


def logits_of(path: Path, points: Tensor, name: str = LATEST) -> Tensor:
    """(case · point, output) of an experiment directory, all cases."""
    experiment = Experiment(path)
    checkpoint = experiment.load(name)
    field = build_field(experiment.specs).eval()
    load_weights(field, checkpoint.model, path)
    with torch.no_grad():
        return field(points, checkpoint.codes).flatten(0, 1)


def assert_close(one: Any, other: Any) -> None:
    torch.testing.assert_close(one, other, rtol=1e-5, atol=1e-5)


class TestLoss:
    @pytest.mark.slow
    @pytest.mark.parametrize("training", [False, True])
    @pytest.mark.parametrize("epoch", [1, 40, 250])
    @pytest.mark.parametrize("variant", VARIANTS)
    def test_and_its_gradients_are_the_published_ones(self, variant: str, epoch: int, training: bool) -> None:
        theirs = begun(2, **VARIANTS[variant])
        run = start_run(theirs.specs, [f"p{row}" for row in range(CASES)], torch.device("cpu"))
        load_weights(run.field, theirs.network.state_dict(), "")
        run.codes.weight.data = theirs.codes.weight.data.clone()
        run.field.train(training), theirs.network.train(training)
        points, targets, rows = batches(1)[0]
        results = []
        for network, codes in ((run.field, run.codes), (theirs.network, theirs.codes)):
            torch.manual_seed(7)  # the same masks
            side: Any = (run, batch_loss) if network is run.field else (theirs, PublishedTraining.loss)
            value = side[1](side[0], points[:3], targets[:3], rows[:3], epoch)
            leaves = dict(network.named_parameters(), codes=codes.weight)
            gradients = torch.autograd.grad(value, list(leaves.values()), allow_unused=True)
            results.append({"loss": value, **dict(zip(leaves, gradients, strict=True))})
        ours, published_ones = results
        assert list(ours) == list(published_ones)
        for name, expected in published_ones.items():
            scale = 0.0 if expected is None else 1e-5 * expected.abs().max().item()
            torch.testing.assert_close(ours[name], expected, rtol=1e-5, atol=scale, msg=name)


class TestOpening:
    @pytest.mark.parametrize("variant", VARIANTS)
    def test_gives_the_published_logits(self, variant: str, tmp_path: Path) -> None:
        theirs = begun(3, **VARIANTS[variant])
        theirs.save(tmp_path, LATEST, specs=published_file(**VARIANTS[variant]))
        points = batches(1)[0][0]
        with torch.no_grad():
            expected = theirs.network.eval()(joined(points, theirs.codes.weight))
        assert_close(logits_of(tmp_path, points), expected)

    @pytest.mark.parametrize("form", [{"prefix": "module."}, {"old": True}])
    def test_takes_every_form_that_the_files_have_had(self, form: dict[str, Any], tmp_path: Path) -> None:
        theirs = begun(3)
        theirs.save(tmp_path / "a", LATEST, specs=published_file())
        theirs.save(tmp_path / "b", LATEST, specs=published_file(), **form)
        one, two = (Experiment(tmp_path / name).load() for name in "ab")
        assert_close((one.model, one.codes), (two.model, two.codes))

    def test_takes_the_names_of_the_newer_weight_norm(self) -> None:
        theirs = begun(1)
        newer = {
            name.replace("weight_g", "parametrizations.weight.original0")
            .replace("weight_v", "parametrizations.weight.original1"): value
            for name, value in theirs.network.state_dict().items()
        }  # fmt: skip
        assert list(plain_weights(newer)) == list(theirs.network.state_dict())

    def test_is_strict(self, tmp_path: Path) -> None:
        theirs = begun(1)
        theirs.save(tmp_path, LATEST, specs=published_file(NetworkSpecs={**NETWORK, "latent_in": []}))
        with pytest.raises(ExperimentError, match="do not fit"):
            opened(tmp_path)

    @pytest.mark.parametrize("codes", [torch.zeros(3), "text", {"w": torch.zeros(2, 2)}, torch.zeros(4, 2, 6)])
    def test_refuses_what_is_no_table_of_codes(self, codes: Any, tmp_path: Path) -> None:
        begun(1).save(tmp_path, "1", specs=published_file())
        torch.save({"epoch": 1, "latent_codes": codes}, tmp_path / "LatentCodes/1.pth")
        with pytest.raises(ExperimentError, match="no table of codes"):
            Experiment(tmp_path).load("1")

    def test_opens_for_detection_without_an_optimiser_but_does_not_go_on(self, tmp_path: Path) -> None:
        begun(1).save(tmp_path, LATEST, specs=published_file())
        shutil.rmtree(tmp_path / "OptimizerParameters")
        assert Experiment(tmp_path).load().epoch == 1
        text = r"optimiser state does not fit its network\. There is no optimiser state"
        with pytest.raises(ExperimentError, match=text):
            opened(tmp_path)

    def test_opens_as_a_model_once_the_recipe_is_known(self, tmp_path: Path, store: Store) -> None:
        changes = {"NetworkSpecs": {**NETWORK, "weight_norm": False}, "L": None}
        theirs = begun(2, **changes)
        theirs.save(tmp_path, LATEST, specs=published_file(**changes), old=True)
        with pytest.raises(ExperimentError, match=r"recipe\.json"):
            open_field(tmp_path, device="cpu")
        write_recipe(tmp_path, store.recipe)
        model, points = open_field(tmp_path, device="cpu"), batches(1)[0][0]
        with torch.no_grad():
            expected = theirs.network.eval()(joined(points, theirs.codes.weight))[:, :CLASSES]
        assert_close(model.field.logits(points, theirs.codes.weight.data).flatten(0, 1), expected)
        assert_close(model.prior.mean, theirs.codes.weight.data.mean(dim=0))
        torch.save({"epoch": 2, "latent_codes": torch.zeros(5, 7)}, tmp_path / "LatentCodes/latest.pth")
        with pytest.raises(ExperimentError, match="codes of length 7, CodeLength is 6"):
            open_field(tmp_path, device="cpu")


class TestGoingOn:
    @pytest.mark.slow
    @pytest.mark.parametrize("form", [{}, {"prefix": "module."}, {"old": True}])
    def test_equals_the_published_training_that_never_stopped(self, form: dict[str, Any], tmp_path: Path) -> None:
        self.check(tmp_path, form, {})

    @pytest.mark.slow
    @pytest.mark.parametrize("variant", VARIANTS)
    def test_equals_it_with_every_kind_of_network_and_loss(self, variant: str, tmp_path: Path) -> None:
        self.check(tmp_path, {}, VARIANTS[variant])

    def check(self, folder: Path, form: dict[str, Any], changes: dict[str, Any]) -> None:
        theirs = begun(3, **changes)
        theirs.save(folder, "3", specs=published_file(**changes), **form)
        run = opened(folder, name="3")
        assert run.epoch == 3
        gone_on(run, 3, 6)
        go_on(theirs, 3, 6)
        torch.testing.assert_close(run.field.state_dict(), dict(theirs.network.state_dict()), rtol=1e-4, atol=1e-5)
        torch.testing.assert_close(run.codes.weight, theirs.codes.weight, rtol=1e-4, atol=1e-5)

    def test_without_adams_state_arrives_elsewhere(self, tmp_path: Path) -> None:
        """What shows that the tests above would notice a state that is lost or exchanged."""
        theirs = begun(3)
        theirs.save(tmp_path, "3", specs=published_file())
        run = opened(tmp_path, name="3")
        run.optimizer.state.clear()
        gone_on(run, 3, 6)
        go_on(theirs, 3, 6)
        own, published = (network.get_parameter("lin1.weight_v") for network in (run.field, theirs.network))
        assert (own - published).abs().max().item() > 1e-4

    def test_a_moment_of_another_shape_is_an_error(self, tmp_path: Path) -> None:
        begun(3).save(tmp_path, "3", specs=published_file())
        state = torch.load(tmp_path / "OptimizerParameters/3.pth")
        moments = state["optimizer_state_dict"]["state"]
        moments[1], moments[2] = moments[2], moments[1]  # weight_g and weight_v
        torch.save(state, tmp_path / "OptimizerParameters/3.pth")
        with pytest.raises(ExperimentError, match=r"Parameter 1 has shape \(48, 1\), its state \(48, 18\)"):
            opened(tmp_path, name="3")

    def test_codes_go_to_the_cases_of_the_rows_file(self, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
        theirs = begun(1)
        theirs.save(tmp_path, LATEST, specs=published_file())
        assert_close(opened(tmp_path).codes.weight.data, theirs.codes.weight.data)
        assert "in the order of the store" in capsys.readouterr().err
        write_rows(tmp_path / "dict_cid.k", {"e": 4, "a": 0, "b": 1, "d": 3, "c": 2})
        assert_close(opened(tmp_path, list("abcde")).codes.weight.data, theirs.codes.weight.data)
        assert not capsys.readouterr().err
        with pytest.raises(ExperimentError, match="the same, in another order"):
            opened(tmp_path, list("abced"))

    def test_another_number_of_cases_is_an_error(self, tmp_path: Path) -> None:
        begun(1).save(tmp_path, LATEST, specs=published_file())
        with pytest.raises(ExperimentError, match=r"has 5 codes of length 6; the store has 4 cases.*dict_cid\.k"):
            opened(tmp_path, list("abcd"))

    def test_an_optimiser_of_other_groups_is_an_error(self, tmp_path: Path) -> None:
        begun(1).save(tmp_path, LATEST, specs=published_file())
        state = torch.load(tmp_path / "OptimizerParameters/latest.pth")
        del state["optimizer_state_dict"]["param_groups"][1]
        torch.save(state, tmp_path / "OptimizerParameters/latest.pth")
        with pytest.raises(ExperimentError, match="It has another number of parameters"):
            opened(tmp_path)

    @pytest.mark.slow
    @pytest.mark.parametrize("name", [LATEST, "3"])
    def test_from_the_command_line(self, name: str, tmp_path: Path, anofield: Any) -> None:
        store = make_store(tmp_path / "store.zarr")
        changes = {"SamplesPerScene": 64, "ScenesPerBatch": 6}
        theirs = begun(3, **changes)
        theirs.save(tmp_path / "e", name, specs=published_file(**changes), prefix="module.")
        ended = anofield("train", "-e", tmp_path / "e", "--data", store.path, "--continue", name, "--device", "cpu")
        assert ended.code == 0, ended.err
        found = Experiment(tmp_path / "e").load()
        assert (found.epoch, found.code_ids) == (8, store.ids)
        assert found.logs.loss[:3] == theirs.logs["loss"] and len(found.logs.loss) == 8
        assert found.logs.latent_magnitude[:3] == [float(value) for value in theirs.logs["latent_magnitude"]]
        assert (tmp_path / "e/ModelParameters/6.pth").is_file()  # SnapshotFrequency 3


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Store:
    return make_store(tmp_path_factory.mktemp("cohort") / "store.zarr")


def trained(path: Path, store: Store, **changes: Any) -> Experiment:
    settings = {"NetworkSpecs": NETWORK, "CodeLength": 6, "L": 2, "NumEpochs": 4, "SnapshotFrequency": 2}
    experiment = Experiment.create(path, tiny_specs(**{**settings, **changes}))
    train(experiment, store, TrainOptions(device="cpu"))
    return experiment


class TestExport:
    def test_tables_of_keys_are_whole(self) -> None:
        """A key that is added to the specs must be put into one of them."""
        own = {**published.OWN_NETWORK_KEYS, **published.OWN_TRAINING_KEYS}
        keys = {info.alias or name for name, info in Specs.model_fields.items()}
        assert keys == {*PUBLISHED_KEYS, *(key for key in own if "." not in key)}
        network = {f"NetworkSpecs.{key}" for key in NetworkSpecs.model_fields}
        assert network == {*(f"NetworkSpecs.{key}" for key in PUBLISHED_NETWORK_KEYS), *(k for k in own if "." in k)}

    @pytest.mark.slow
    @pytest.mark.parametrize("variant", ["published", "xyz_in_all", "layer norm", "raw coordinates"])
    def test_has_the_published_structure_and_the_same_logits(self, variant: str, tmp_path: Path, store: Store) -> None:
        experiment = trained(tmp_path / "own", store, **VARIANTS[variant])
        paths, _ = export_experiment(experiment, tmp_path / "e")
        assert set(paths) == {path for path in (tmp_path / "e").rglob("*") if path.is_file()}
        points, specs = batches(1)[0][0], experiment.specs
        settings: Any = specs.dump()["NetworkSpecs"]
        network = PublishedNetwork(6, specs.octaves, **settings).eval()
        for name in ("2", "4", LATEST):
            model, codes, optimizer = (torch.load(tmp_path / "e" / part / f"{name}.pth") for part in PARTS)
            assert set(model) == {"epoch", "model_state_dict"} and set(codes) == {"epoch", "latent_codes"}
            assert set(optimizer) == {"epoch", "optimizer_state_dict"}
            assert model["epoch"] == codes["epoch"] == optimizer["epoch"] == (2 if name == "2" else 4)
            network.load_state_dict(model["model_state_dict"], strict=True)
            table = torch.nn.Embedding(CASES, 6)
            table.load_state_dict(codes["latent_codes"], strict=True)
            expected = logits_of(experiment.path, points, name)
            with torch.no_grad():
                assert_close(network(joined(points, table.weight)), expected)
            assert_close(logits_of(tmp_path / "e", points, name), expected)
        assert read_rows(tmp_path / "e/dict_cid.k") == {cid: row for row, cid in enumerate(store.ids)}
        assert Experiment(tmp_path / "e").load().code_ids == store.ids

    @pytest.mark.slow
    def test_specs_and_logs_are_published_ones(self, tmp_path: Path, store: Store) -> None:
        experiment = trained(tmp_path / "own", store, BrainFraction=0.5, Seed=0)
        _, notes = export_experiment(experiment, tmp_path / "e")
        specs, before = Experiment(tmp_path / "e").specs, experiment.specs
        assert set(json.loads((tmp_path / "e/specs.json").read_text())) == set(PUBLISHED_KEYS)
        assert specs == before.model_copy(update={"brain_fraction": 0.0, "description": [""]})
        assert [note for note in notes if "BrainFraction" in note] == [
            "BrainFraction 0.5 is left out: the published code takes 0.0"
        ]
        logs = torch.load(tmp_path / "e/Logs.pth")
        assert logs["epoch"] == 4 and all(isinstance(value, Tensor) for value in logs["latent_magnitude"])
        assert Experiment(tmp_path / "e").load().logs == experiment.load().logs

    @pytest.mark.slow
    def test_a_cosine_becomes_the_constant_of_the_epoch(self, tmp_path: Path, store: Store) -> None:
        cosine = {"Type": "Cosine", "Initial": 1e-3, "Final": 1e-4, "Length": 10}
        experiment = trained(tmp_path / "own", store, LearningRateSchedule=[cosine, {"Type": "Constant", "Value": 0.1}])
        _, notes = export_experiment(experiment, tmp_path / "e")
        rate = experiment.specs.learning_rate_schedule[0].rate(4)
        found = Experiment(tmp_path / "e").specs.dump()["LearningRateSchedule"]
        assert found == [{"Type": "Constant", "Value": rate}, {"Type": "Constant", "Value": 0.1}]
        assert any(note.startswith("LearningRateSchedule.0: Cosine becomes Constant") for note in notes)

    @pytest.mark.slow
    def test_the_published_optimiser_goes_on_with_it(self, tmp_path: Path, store: Store) -> None:
        """Both sides train on after an export, and arrive at the same network."""
        experiment = trained(tmp_path / "own", store)
        export_experiment(experiment, tmp_path / "e")
        run = opened(experiment.path, store.ids)
        theirs = PublishedTraining(experiment.specs, CASES)
        content = [torch.load(tmp_path / "e" / part / "latest.pth") for part in PARTS]
        theirs.network.load_state_dict(content[0]["model_state_dict"])
        theirs.codes.load_state_dict(content[1]["latent_codes"])
        state = content[2]["optimizer_state_dict"]
        assert state == adam_of_2021(state) or all(type(entry["step"]) is int for entry in state["state"].values())
        theirs.adam.load_state_dict(state)
        theirs.epoch = 4
        go_on(theirs, 4, 7)
        gone_on(run, 4, 7)
        torch.testing.assert_close(run.field.state_dict(), dict(theirs.network.state_dict()), rtol=1e-4, atol=1e-5)

    def test_a_key_that_changes_the_network_is_refused_by_name(
        self, tmp_path: Path, store: Store, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        experiment = trained(tmp_path / "own", store, NumEpochs=1)
        monkeypatch.setitem(published.OWN_NETWORK_KEYS, "NetworkSpecs.dropout_prob", 0.3)
        export_experiment(experiment, tmp_path / "a")
        monkeypatch.setitem(published.OWN_NETWORK_KEYS, "NetworkSpecs.dropout_prob", 0.2)
        with pytest.raises(UsageError, match=r"NetworkSpecs\.dropout_prob is 0\.3"):
            export_experiment(experiment, tmp_path / "b")
        assert not (tmp_path / "b").exists()

    @pytest.mark.slow
    def test_a_checkpoint_within_an_epoch_gives_way_to_the_one_before(self, tmp_path: Path, store: Store) -> None:
        experiment = trained(tmp_path / "own", store, SnapshotFrequency=100)
        for part in PARTS:
            content = torch.load(experiment.file(part, LATEST))
            torch.save(content | {"step": 1}, experiment.file(part, LATEST))
        _, notes = export_experiment(experiment, tmp_path / "e")
        assert Experiment(tmp_path / "e").load().epoch == 3
        assert "checkpoint latest is left out: it is 1 steps into an epoch" in notes
        assert len(torch.load(tmp_path / "e/Logs.pth")["loss"]) == 9
        for part in PARTS:
            experiment.file(part, "previous").unlink()
        with pytest.raises(ExperimentError, match="no checkpoint at the end of an epoch"):
            export_experiment(experiment, tmp_path / "none")

    @pytest.mark.slow
    def test_from_the_command_line_and_never_over_an_experiment(
        self, tmp_path: Path, store: Store, anofield: Any
    ) -> None:
        trained(tmp_path / "own", store, NumEpochs=1, BrainFraction=0.25)
        words = ("export", "--format", "ifl2021", "-i", tmp_path / "own", "-o")
        ended = anofield(*words, tmp_path / "e")
        assert ended.code == 0 and "BrainFraction 0.25 is left out" in ended.err
        assert Experiment(tmp_path / "e").load().epoch == 1
        for folder in ("e", "own"):
            ended = anofield(*words, tmp_path / folder)
            assert ended.code == 2 and "holds an experiment" in ended.err


class TestDetectWithIt:
    def test_an_experiment_of_2021_gets_its_recipe(self, tmp_path: Path, anofield: Any) -> None:
        begun(2).save(tmp_path / "e", LATEST, specs=published_file())
        ended = anofield("import", "-m", tmp_path / "e", "--recipe", "ifl2021-brats", "--res", 48, "--mode-pool", 3)
        assert ended.code == 0, ended.err
        recipe = open_field(tmp_path / "e", device="cpu").recipe
        assert (recipe.name, recipe.resolution, recipe.mode_pool, recipe.lattice) == ("ifl2021-brats", 48, 3, "corner")

    def test_another_recipe_afterwards_is_refused(self, tmp_path: Path, anofield: Any) -> None:
        begun(2).save(tmp_path / "e", LATEST, specs=published_file())
        assert anofield("import", "-m", tmp_path / "e").code == 0
        ended = anofield("import", "-m", tmp_path / "e", "--res", "full")
        assert (ended.code, "another recipe" in ended.err) == (2, True)

    def test_nothing_to_import_is_said(self, anofield: Any) -> None:
        ended = anofield("import", "--recipe", "ifl2021-hcp")
        assert (ended.code, "-m EXPERIMENT" in ended.err) == (2, True)
