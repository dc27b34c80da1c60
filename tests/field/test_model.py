"""A trained field: opened with one look at each file, small in a pickle, its prior fitted on what the field saw."""

from __future__ import annotations

import pickle
import sys
from collections import Counter
from pathlib import Path
from typing import Any

import pytest
import torch

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
