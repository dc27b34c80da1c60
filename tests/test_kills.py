"""Training that is killed without warning, again and again: nothing unreadable, little lost, the same end."""

from __future__ import annotations

import json
import multiprocessing
import os
import random
import signal
import time
from pathlib import Path

import pytest
import torch

from anofield.field.experiment import Experiment
from anofield.field.train import TrainOptions, train
from helpers import make_store, tiny_specs, train_on

pytestmark = pytest.mark.kill

EPOCHS, KILLS = 120, 5  # `make hostile` kills at every write


def epochs_said(experiment: Path) -> int:
    """The last epoch that `metrics.jsonl` holds a whole line of."""
    path = experiment / "metrics.jsonl"
    lines = (
        [line for line in path.read_text().splitlines(keepends=True) if line.endswith("\n")] if path.exists() else []
    )
    return int(json.loads(lines[-1])["epoch"]) if lines else 0


def test_kills_lose_no_more_than_the_epochs_since_the_last_save(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PYTHONPATH", str(Path(__file__).parent), prepend=os.pathsep)  # the server preloads the helpers
    store = make_store(tmp_path / "store.zarr")
    specs = tiny_specs(NumEpochs=EPOCHS, LogFrequency=2, SnapshotFrequency=5)
    killed = Experiment.create(tmp_path / "killed", specs)
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["helpers", "torch._dynamo"])
    chance = random.Random(7)
    for _ in range(KILLS):
        before = epochs_said(killed.path)
        child = context.Process(target=train_on, args=(killed.path, store.path))
        child.start()
        deadline = time.monotonic() + 60
        while epochs_said(killed.path) <= before and child.is_alive() and time.monotonic() < deadline:
            time.sleep(0.005)  # it has begun
        time.sleep(chance.uniform(0, 0.25))
        said = epochs_said(killed.path)
        assert child.pid
        os.kill(child.pid, signal.SIGKILL)
        child.join()
        assert said > before, "the child did not train"
        saved = said - said % specs.log_frequency - specs.log_frequency  # the save that follows the line may be cut off
        assert saved <= 0 or killed.load().epoch >= saved
        for snapshot in (killed.path / "ModelParameters").glob("[0-9]*.pth"):
            assert killed.load(snapshot.stem).epoch == int(snapshot.stem)
    said = epochs_said(killed.path)
    end = said + 5
    for path in (killed.path, tmp_path / "whole"):
        experiment = Experiment.create(path, specs.model_copy(update={"num_epochs": end}))
        train(experiment, store, TrainOptions(device="cpu"), resume="auto")
    one, other = killed.load(), Experiment(tmp_path / "whole").load()
    assert one.epoch == other.epoch == end
    assert all(torch.equal(one.model[name], other.model[name]) for name in other.model)
    assert torch.equal(one.codes, other.codes)
    assert one.logs.loss == other.logs.loss
