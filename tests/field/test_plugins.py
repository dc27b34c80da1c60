"""Fields of other packages: trained, saved, calibrated and detected with like the decoder, or refused with a reason."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch

from anofield._files import write_json
from anofield._plugins import GROUPS
from anofield.data.store import Store
from anofield.errors import UsageError
from anofield.field.decoder import Decoder
from anofield.field.experiment import Experiment
from anofield.field.export import export_experiment
from anofield.field.model import build_field, open_field
from anofield.field.parts import PARTS
from anofield.field.plugins import known_fields
from anofield.field.presets import start_experiment
from anofield.field.sample import canvas_of, unlearned_octaves
from anofield.field.specs import DECODER, Specs
from anofield.field.train import TrainOptions, train
from helpers import World, install, small_world, tiny_specs

Run = Callable[..., Any]
MODULE = '''
import torch
from torch import nn

class Wave(nn.Module):
    """One hidden layer of sines, with torch's own weight norm, whose names the published files change."""

    def __init__(self, specs):
        super().__init__()
        self.code_length, self.classes = specs.code_length, specs.network_specs.dim_out
        width = specs.network_specs.dims[0]
        self.module = nn.utils.parametrizations.weight_norm(nn.Linear(3 + self.code_length, width))
        self.last = nn.Linear(width, self.classes)

    def logits(self, points, codes):
        joined = torch.cat((3 * points, codes[:, None].expand(-1, points.shape[1], -1)), dim=-1)
        return self.last(torch.sin(self.module(joined)))

def short(specs):
    field = Wave(specs)
    field.code_length = 2
    return field

def flat(specs):
    field = Wave(specs)
    field.logits = lambda points, codes: torch.zeros(points.shape[1], field.classes)
    return field

def bare(specs):
    return nn.Linear(3, 3)

def text(specs):
    return "field"

def nowhere(specs):
    field = Wave(specs)
    field.last.weight.data[:] = float("nan")
    return field

NUMBER = 3
'''
NAMES = ("Wave", "short", "flat", "bare", "text", "nowhere", "NUMBER", "missing")


@pytest.fixture(scope="module", autouse=True)
def installed(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    places = {name.lower(): f"some_fields:{name}" for name in NAMES} | {"decoder": "some_fields:Wave"}
    site = install(tmp_path_factory.mktemp("site"), "some_fields", MODULE, {GROUPS["field"]: places})
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(site)
        yield


@pytest.fixture(scope="session")
def world(tmp_path_factory: pytest.TempPathFactory) -> World:
    return small_world(tmp_path_factory.getbasetemp() / "world")


def wave_specs(world: World, **changes: Any) -> dict[str, Any]:
    network = {"dims": [32], "dim_out": 6}
    return tiny_specs(
        NetworkArch="wave", NetworkSpecs=network, NumEpochs=2, BrainFraction=0.8,
        DataSource=str(world.root / "train.zarr"), **changes,
    ).dump()  # fmt: skip


class TestAFieldOfAnotherPackage:
    def test_is_trained_calibrated_and_detected_with(self, world: World, anofield: Run, tmp_path: Path) -> None:
        path, run, held_out = tmp_path / "experiment", tmp_path / "run", tmp_path / "held_out.zarr"
        path.mkdir()
        (path / "specs.json").write_text(json.dumps(wave_specs(world)))
        for words in (
            (
                "prepare",
                "-i",
                world.root / "healthy",
                "-o",
                held_out,
                *("--res", str(Store(world.root / "train.zarr").resolution), "--centers", world.root / "train.zarr"),
            ),
            ("train", "-e", path, "--held-out", held_out, "-d", "cpu"),
            ("calibrate", "-m", path, "-i", world.root / "healthy", "-d", "cpu"),
            ("detect", "-m", path, "-i", world.glioma[0].image, "-o", run, "-d", "cpu"),
        ):
            ended = anofield(*words)
            assert ended.code == 0, ended.err
        assert sorted(folder.name for folder in path.iterdir() if folder.is_dir()) == sorted([*PARTS, "calibrations"])
        found = json.loads(next(run.glob("*/case.json")).read_text())
        assert (
            found["threshold"]
            == json.loads(next(path.glob("calibrations/*.json")).read_text())["thresholds"]["deviation"]
        )
        epochs = [json.loads(line) for line in (path / "metrics.jsonl").read_text().splitlines()]
        assert epochs[-1]["held_out_ce"] > 0 and epochs[1]["loss_per_point"] < epochs[0]["loss_per_point"]

    def test_goes_on_as_if_it_had_not_stopped(self, world: World, tmp_path: Path) -> None:
        store, weights = Store(world.root / "train.zarr"), []
        for name, stops in (("once", (4,)), ("twice", (2, 4))):
            for epochs in stops:
                specs = wave_specs(world) | {"NumEpochs": epochs}
                (tmp_path / name).mkdir(exist_ok=True)
                (tmp_path / name / "specs.json").write_text(json.dumps(specs))
                train(Experiment(tmp_path / name), store, TrainOptions(device="cpu"), resume="auto")
            weights.append(Experiment(tmp_path / name).load().model)
        assert set(weights[0]) == set(weights[1]) and "module.parametrizations.weight.original0" in weights[0]
        assert all(torch.equal(value, weights[1][name]) for name, value in weights[0].items())

    def test_is_loaded_with_the_weights_it_was_saved_with(self, world: World, tmp_path: Path) -> None:
        experiment = Experiment.create(tmp_path / "e", Specs.model_validate(wave_specs(world)))
        train(experiment, Store(world.root / "train.zarr"), TrainOptions(device="cpu"))
        field = build_field(experiment.specs)
        field.load_state_dict(experiment.load().model)
        model = open_field(experiment.path, device="cpu")
        points, codes = torch.rand(2, 5, 3), torch.rand(2, 6)
        torch.testing.assert_close(model.field.logits(points, codes), field.logits(points, codes).detach())
        assert not any(parameter.requires_grad for parameter in model.field.decoder.parameters())
        assert unlearned_octaves(model, canvas_of(model.recipe, 64)) == ""  # it has no octaves to warn of

    def test_is_not_taken_for_a_preset(self, world: World, tmp_path: Path) -> None:
        store = Store(world.root / "train.zarr")
        specs = start_experiment(tmp_path / "e", "default", store).specs.dump()
        assert start_experiment(tmp_path / "e", "default", store).specs.network_arch == DECODER
        write_json(tmp_path / "e/specs.json", specs | {"NetworkArch": "wave"})
        with pytest.raises(UsageError, match="another network than --preset default"):
            start_experiment(tmp_path / "e", "default", store)

    def test_is_not_written_for_the_code_of_2021(self, world: World, tmp_path: Path) -> None:
        experiment = Experiment.create(tmp_path / "e", Specs.model_validate(wave_specs(world)))
        with pytest.raises(UsageError, match="NetworkArch is wave"):
            export_experiment(experiment, tmp_path / "old")


class TestNames:
    def test_the_decoder_is_the_default_and_cannot_be_taken_over(self) -> None:
        assert tiny_specs().network_arch == DECODER == known_fields()[0]
        assert known_fields().count(DECODER) == 1
        assert type(build_field(tiny_specs())) is Decoder

    @pytest.mark.parametrize(("name", "words"), [
        ("siren", "unknown field 'siren'.*decoder, wave"),
        ("missing", "'missing' of the package some_fields 1.0 cannot be imported.*AttributeError"),
        ("number", "'number' of the package some_fields 1.0 cannot be built.*not callable"),
        ("bare", "'bare' of the package some_fields 1.0 cannot be used.*code_length"),
        ("text", "'text' of the package some_fields 1.0 is not a torch module"),
        ("nowhere", "'nowhere' of the package some_fields 1.0 gives logits that are not finite"),
        ("short", "code_length 2, specs.json says 6"),
        ("flat", r"shape \(3, 4\)"),
    ])  # fmt: skip
    def test_a_field_that_cannot_be_used_is_refused_with_a_reason(self, name: str, words: str) -> None:
        with pytest.raises(UsageError, match=words):
            build_field(tiny_specs(NetworkArch=name))

    def test_an_experiment_of_an_uninstalled_field_says_what_is_missing(
        self, world: World, anofield: Run, tmp_path: Path
    ) -> None:
        specs = wave_specs(world) | {"NetworkArch": "siren"}
        (tmp_path / "specs.json").write_text(json.dumps(specs))
        ended = anofield("train", "-e", tmp_path)
        assert ended.code == 2 and "'siren'" in ended.err and "install the package" in ended.err
