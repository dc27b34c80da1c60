"""A trained field: opened with one look at each file, small in a pickle, its prior fitted on what the field saw."""

from __future__ import annotations

import json
import pickle
import shutil
import sys
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from anofield.detect.model import Model
from anofield.errors import ExperimentError, MachineError, UsageError
from anofield.field.codes import CodePrior
from anofield.field.experiment import Experiment
from anofield.field.model import open_field
from anofield.field.parts import LATEST, PARTS
from anofield.field.train import TrainOptions, train
from helpers import make_store, tiny_specs

OPENED: list[Counter[str]] = []  # a counter while a test listens: an audit hook cannot be taken away again


@pytest.fixture(scope="module")
def experiment(tmp_path_factory: pytest.TempPathFactory) -> Experiment:
    root = tmp_path_factory.mktemp("trained")
    made = Experiment.create(root / "experiment", tiny_specs(SnapshotFrequency=2, CodeBound=0.4))
    train(made, make_store(root / "store.zarr"), TrainOptions(device="cpu"))
    return made


@pytest.fixture(scope="module")
def listening() -> None:
    def hook(event: str, arguments: tuple[Any, ...]) -> None:
        if OPENED and event == "open" and str(arguments[0]).endswith(".pth"):
            OPENED[-1][Path(str(arguments[0])).parent.name] += 1

    sys.addaudithook(hook)


@pytest.mark.slow
@pytest.mark.usefixtures("listening")
@pytest.mark.parametrize("epoch", [LATEST, "2"])
def test_every_checkpoint_file_is_read_once(experiment: Experiment, epoch: str) -> None:
    OPENED.append(Counter())
    try:
        opened = open_field(experiment.path, epoch=epoch, device="cpu")
        _ = opened.hash, opened.codes.ids, opened.prior
    finally:
        counted = OPENED.pop()
    assert counted == {**dict.fromkeys(PARTS, 1), "experiment": 1}  # the last one is Logs.pth


@pytest.mark.slow
def test_the_hash_is_that_of_the_experiment(experiment: Experiment) -> None:
    assert open_field(experiment.path, device="cpu").hash == experiment.model_hash()
    assert open_field(experiment.path, epoch="2", device="cpu").hash == experiment.model_hash("2")


def test_says_what_it_is(experiment: Experiment) -> None:
    opened = open_field(experiment.path, device="cpu")
    assert repr(opened) == "TrainedField(experiment: box 12³, 5 subjects, epoch 4, cpu)"
    assert open_field(experiment.path, epoch="2", device="cpu").epoch == 2


def test_a_pickle_holds_the_weights_once_and_decodes_the_same(experiment: Experiment) -> None:
    opened = open_field(experiment.path, device="cpu")
    points, codes = torch.rand(2, 30, 3) * 2 - 1, torch.randn(2, 6)
    whole, field = pickle.dumps(opened), pickle.dumps(opened.field.decoder)
    weights = sum(value.nbytes for value in opened.field.decoder.state_dict().values())
    assert len(whole) < len(field) + 0.5 * weights
    again = pickle.loads(whole)
    assert torch.equal(again.field.logits(points, codes), opened.field.logits(points, codes))
    assert (again.recipe, again.hash, again.specs) == (opened.recipe, opened.hash, opened.specs)
    assert torch.equal(again.prior.precision, opened.prior.precision)


def test_the_prior_is_that_of_the_codes_within_the_bound(experiment: Experiment) -> None:
    checkpoint = experiment.load()
    assert float(checkpoint.codes.norm(dim=1).max()) > 0.401  # the last step left some beyond CodeBound
    prior = open_field(experiment.path, device="cpu").prior
    inside = checkpoint.codes / (checkpoint.codes.norm(dim=1, keepdim=True) / 0.4).clamp_min(1.0)
    torch.testing.assert_close(prior.mean, inside.mean(dim=0))
    assert not torch.allclose(prior.precision, CodePrior.fit(checkpoint.codes).precision)


@pytest.mark.parametrize(("precision", "shown"), [("float32", "float32"), ("bfloat16", "bfloat16")])
def test_precision_is_what_was_asked_for(experiment: Experiment, precision: Any, shown: str) -> None:
    assert open_field(experiment.path, device="cpu", precision=precision).precision == shown


def test_what_cannot_be_opened_is_refused(experiment: Experiment, tmp_path: Path) -> None:
    with pytest.raises(ExperimentError, match="no such experiment"):
        open_field(tmp_path / "nowhere")
    with pytest.raises(ExperimentError, match="'7'"):
        open_field(experiment.path, epoch="7")
    with pytest.raises(MachineError, match="cuda:99"):
        open_field(experiment.path, device="cuda:99")
    with pytest.raises(UsageError, match="does not fit the field"):
        open_field(experiment.path, device="cpu", recipe="ifl2021-hcp")
    bare = Experiment.create(tmp_path / "bare", experiment.specs)
    with pytest.raises(ExperimentError, match="no complete checkpoint"):
        open_field(bare.path)
    bare.save(experiment.load(), [LATEST])
    with pytest.raises(ExperimentError, match=r"recipe\.json: no such file"):
        open_field(bare.path, device="cpu")
    longer = Experiment.create(tmp_path / "bare", experiment.specs.model_copy(update={"code_length": 7}))
    with pytest.raises(ExperimentError, match=r"specs\.json"):
        open_field(longer.path, device="cpu")


@pytest.fixture
def copy(experiment: Experiment, tmp_path: Path) -> Path:
    return shutil.copytree(experiment.path, tmp_path / "copy")


@pytest.mark.parametrize(
    ("file", "change", "told"),
    [
        ("specs.json", {"CodeBound": 0.5}, "CodeBound is 0.5, the field was trained with 0.4"),
        ("specs.json", {"CodeBound": None}, "CodeBound is None"),
        ("recipe.json", {"centers": [0.0, 0.3, 0.5, 0.75]}, "centers is .*0.75.*trained with .*0.7]"),
        ("recipe.json", {"box_mm": 201.0}, "box_mm is 201.0"),
    ],
)
def test_a_value_that_the_weights_do_not_show_is_compared_with_the_training(
    copy: Path, file: str, change: dict[str, Any], told: str
) -> None:
    content = json.loads((copy / file).read_text())
    (copy / file).write_text(json.dumps({**content, **change}))
    with pytest.raises(ExperimentError, match=f"{file}: {told}"):
        open_field(copy, device="cpu")


@pytest.mark.parametrize("change", [{"NumEpochs": 9}, {"Description": "x"}, {"Seed": 5}, {"NetworkSpecs": "dropout"}])
def test_values_that_only_training_depends_on_may_change(copy: Path, change: dict[str, Any]) -> None:
    content = json.loads((copy / "specs.json").read_text())
    if "NetworkSpecs" in change:
        change = {"NetworkSpecs": {**content["NetworkSpecs"], "dropout": [], "dropout_prob": 0.0}}
    (copy / "specs.json").write_text(json.dumps({**content, **change}))
    assert open_field(copy, device="cpu").epoch == 4


@pytest.mark.slow
@pytest.mark.parametrize("file", ["specs.json", "recipe.json", "provenance.json", "checkpoints.json"])
def test_a_flipped_bit_of_a_description_is_refused_or_changes_nothing(
    copy: Path, experiment: Experiment, file: str, capsys: pytest.CaptureFixture[str]
) -> None:
    whole, generator = (copy / file).read_bytes(), np.random.default_rng(0)
    points, codes = torch.rand(1, 30, 3) * 2 - 1, torch.randn(1, 6)
    before = open_field(experiment.path, device="cpu")
    for _ in range(100):
        place = int(generator.integers(len(whole)))
        changed = whole[place] ^ (1 << int(generator.integers(8)))
        (copy / file).write_bytes(whole[:place] + bytes([changed]) + whole[place + 1 :])
        try:
            found = open_field(copy, device="cpu")
        except (ExperimentError, UsageError):
            continue
        assert (found.recipe, found.epoch, found.hash) == (before.recipe, before.epoch, before.hash)
        assert torch.equal(found.codes.seen(), before.codes.seen())
        assert torch.equal(found.field.logits(points, codes), before.field.logits(points, codes))
    capsys.readouterr()


def test_a_damaged_latest_gives_the_epoch_in_use(copy: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = copy / "ModelParameters" / "latest.pth"
    path.write_bytes(path.read_bytes()[:-10])
    for name in ("4", "previous"):
        for part in PARTS:
            (copy / part / f"{name}.pth").unlink()
    found = open_field(copy, device="cpu")
    assert found.epoch == 2 and "epoch 2" in repr(found)
    assert "the checkpoint of epoch 2 is used instead" in capsys.readouterr().err
    assert Model(found).epoch == 2
    assert list(Model(found).training_contents) == list(found.codes.contents)
