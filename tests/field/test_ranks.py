"""Ranks: disjoint cases, one shuffle per shard, and two processes that arrive where one does."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch

from anofield.data.store import Store
from anofield.field import train as module
from anofield.field.experiment import Experiment
from anofield.field.ranks import Ranks, interleave, plan_epoch
from anofield.field.train import TrainOptions, train
from helpers import make_store, tiny_specs

pytestmark = pytest.mark.slow


@pytest.mark.parametrize("shards", [1, 2, 3])
@pytest.mark.parametrize(("cases", "batch"), [(7, 3), (12, 4), (5, 5)])
def test_an_epoch_trains_on_every_case_once_in_even_steps(cases: int, batch: int, shards: int) -> None:
    plan = plan_epoch(cases, batch, seed=1, epoch=2, shards=shards)
    assert len(plan) == -(-cases // batch)
    seen = sorted(int(row) * shards + shard for step in plan for shard, rows in enumerate(step) for row in rows)
    assert seen == list(range(cases))
    for shard in range(shards):
        sizes = [len(step[shard]) for step in plan]
        assert max(sizes) - min(sizes) <= (1 if shards > 1 else batch)


def test_the_order_changes_from_epoch_to_epoch_and_with_the_seed() -> None:
    orders = [
        torch.cat([step[0] for step in plan_epoch(20, 6, seed, epoch)]) for seed, epoch in [(0, 1), (0, 2), (1, 1)]
    ]
    assert not torch.equal(orders[0], orders[1])
    assert not torch.equal(orders[0], orders[2])


@pytest.mark.parametrize("size", [1, 2, 3])
def test_interleaving_undoes_ownership(size: int) -> None:
    rows = torch.arange(14).reshape(7, 2)
    owned = [rows[Ranks(rank, size).owned(range(7))] for rank in range(size)]
    assert torch.equal(interleave(owned), rows)


def test_two_processes_arrive_where_one_does(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """`torchrun` with two Gloo ranks against one process that trains on the same cases and points in every step."""
    store = make_store(tmp_path / "store.zarr", people=5)
    network = {"dims": [48] * 3, "dim_out": 4, "dropout": [], "norm_layers": [0, 1, 2], "latent_in": [2]}
    specs = tiny_specs(NetworkSpecs=network, NumEpochs=3, ScenesPerBatch=3, GradientClipNorm=5.0)
    Experiment.create(tmp_path / "two", specs)
    torchrun(2, "-e", tmp_path / "two", "--data", store.path, "--precision", "float32")
    monkeypatch.setattr(module, "plan_epoch", merged_plan)
    one = Experiment.create(tmp_path / "one", specs)
    train(one, store, TrainOptions(device="cpu"))
    assert_close(Experiment(tmp_path / "two"), one)
    for name in ("one", "two"):  # both go on in one process: the checkpoint does not say how many wrote it
        grown = Experiment.create(tmp_path / name, specs.model_copy(update={"num_epochs": 5}))
        train(grown, Store(store.path), TrainOptions(device="cpu"), resume="latest")
    assert_close(Experiment(tmp_path / "two"), Experiment(tmp_path / "one"))


def merged_plan(cases: int, batch: int, seed: int, epoch: int, shards: int) -> list[list[torch.Tensor]]:
    """What two ranks do in a step, as rows of the whole table."""
    plan = plan_epoch(cases, batch, seed, epoch, 2)
    return [[torch.cat([rows * 2 + shard for shard, rows in enumerate(step)])] for step in plan]


def torchrun(ranks: int, *words: Any) -> None:
    start = [sys.executable, "-m", "torch.distributed.run", "--standalone", f"--nproc-per-node={ranks}"]
    command = [*start, "-m", "anofield", "train", *map(str, words), "--device", "cpu"]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    done = subprocess.run(command, capture_output=True, text=True, env=environment, timeout=240, check=False)
    assert done.returncode == 0, done.stderr[-3000:]
    assert done.stdout.count("epoch 3") == 1, done.stdout  # one rank talks


def assert_close(found: Experiment, expected: Experiment) -> None:
    one, other = found.load(), expected.load()
    assert (one.epoch, one.step, one.code_ids) == (other.epoch, other.step, other.code_ids)
    torch.testing.assert_close(one.model, other.model, rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(one.codes, other.codes, rtol=1e-4, atol=1e-5)
    assert one.optimizer["state"].keys() == other.optimizer["state"].keys()
    for key, state in other.optimizer["state"].items():
        torch.testing.assert_close(one.optimizer["state"][key]["exp_avg"], state["exp_avg"], rtol=1e-3, atol=1e-4)
    torch.testing.assert_close(torch.tensor(one.logs.loss), torch.tensor(other.logs.loss), rtol=1e-4, atol=1e-3)
