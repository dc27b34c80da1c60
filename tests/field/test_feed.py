"""Feeds: streamed and resident points are the same, whoever else is in the batch, in bounded memory."""

from __future__ import annotations

import threading
from collections.abc import Generator

import numpy as np
import pytest
import torch

from anofield.data.store import Store
from anofield.field import feed as module
from anofield.field.feed import READ_AHEAD, Cache, Feed, open_feed, union_of_brains
from anofield.field.points import PointOptions
from helpers import make_store

CPU = torch.device("cpu")


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Store:
    return make_store(tmp_path_factory.mktemp("cohort") / "store.zarr", people=7)


def feed_of(store: Store, cache: Cache, cases: list[int] | None = None, fraction: float = 0.5) -> Feed:
    chosen = list(range(len(store.ids))) if cases is None else cases
    points = PointOptions(lattice="center", count=60, fraction=fraction, seed=3)
    return open_feed(store, chosen, points, device=CPU, cache=cache)


@pytest.mark.slow
def test_streamed_points_are_the_resident_ones(store: Store) -> None:
    plan = [torch.tensor([4, 1]), torch.tensor([0]), torch.tensor([], dtype=torch.int64), torch.tensor([6, 2, 3])]
    resident, streamed = (list(feed_of(store, cache).batches(plan, epoch=2)) for cache in ("resident", "stream"))
    assert [len(points) for points, _ in streamed] == [2, 1, 0, 3]
    for one, other in zip(resident, streamed, strict=True):
        assert torch.equal(one[0], other[0])
        assert torch.equal(one[1], other[1])


def test_points_of_a_case_depend_on_seed_epoch_and_id_alone(store: Store) -> None:
    everybody, few = feed_of(store, "resident"), feed_of(store, "resident", [5, 3])
    together, _ = everybody.batch(torch.tensor([1, 3, 0]), 4)
    alone, _ = few.batch(torch.tensor([1]), 4)
    assert torch.equal(together[1], alone[0])
    assert not torch.equal(few.batch(torch.tensor([1]), 5)[0], alone)


def test_a_stream_holds_few_volumes_and_reads_each_once(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    read: list[int] = []
    lock, real = threading.Lock(), Store.classes

    def counting(self: Store, index: int) -> np.ndarray:
        with lock:
            read.append(index)
        return real(self, index)

    monkeypatch.setattr(Store, "classes", counting)
    streamed = feed_of(store, "stream", fraction=0.0)
    assert read == []
    batches = streamed.batches([torch.tensor([row]) for row in range(7)], epoch=1)
    for taken in range(1, 8):
        next(batches)
        assert len(read) <= taken + READ_AHEAD
    assert sorted(read) == list(range(7))


def test_a_stream_that_is_left_early_ends_its_threads(store: Store) -> None:
    before = threading.active_count()
    batches = feed_of(store, "stream").batches([torch.tensor([row]) for row in range(7)], epoch=1)
    next(batches)
    assert isinstance(batches, Generator)
    batches.close()
    for thread in threading.enumerate():
        if thread.name.startswith("anofield-feed"):
            thread.join(timeout=5)
    assert threading.active_count() == before


@pytest.mark.parametrize(("free", "resident"), [(10 * 7 * 12**3, True), (1.5 * 7 * 12**3, False)])
def test_auto_streams_what_half_the_free_memory_cannot_hold(
    store: Store, monkeypatch: pytest.MonkeyPatch, free: float, resident: bool
) -> None:
    monkeypatch.setattr(module, "free_memory", lambda device: free)
    assert feed_of(store, "auto").resident is resident


def test_free_memory_is_a_plausible_number_here() -> None:
    assert module.free_memory(CPU) > 2**20


def test_the_union_holds_every_brain(store: Store) -> None:
    union = np.zeros(12**3, bool)
    union[union_of_brains(store)] = True
    brains = np.array([store.brain(i).reshape(-1) != 0 for i in range(7)])
    np.testing.assert_array_equal(union, brains.any(axis=0))
