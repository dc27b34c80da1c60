"""The processes of a `torchrun`: which of them owns which cases, and which data they exchange.

Only gradients and losses of the network are summed over ranks. Each rank keeps its own cases with their codes and
optimiser state; a checkpoint gathers them, so its format does not depend on the number of ranks.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import timedelta
from typing import TypeVar

import torch
from torch import Tensor, distributed

from anofield._random import seed_of

T = TypeVar("T")
PATIENCE = timedelta(hours=1)  # rank 0 may fit held-out subjects while the others wait


@dataclass(frozen=True)
class Ranks:
    """Position of this process among those of the run.

    Attributes:
        rank: Number of this process, 0 … size − 1.
        size: Number of processes.
        local: Position among the processes of this machine, which selects the GPU.
        per_machine: Number of processes on this machine.
    """

    rank: int = 0
    size: int = 1
    local: int = 0
    per_machine: int = 1

    @property
    def first(self) -> bool:
        """Whether this process writes files and messages."""
        return self.rank == 0

    def owned(self, items: Sequence[T]) -> list[T]:
        """Every `size`-th item, from `rank` on."""
        return list(items[self.rank :: self.size])

    def sum_(self, tensors: Sequence[Tensor]) -> None:
        """Replace tensors with their sums over all ranks, in place, in one message."""
        if self.size == 1 or not tensors:
            return
        flat = torch.cat([tensor.reshape(-1) for tensor in tensors])
        distributed.all_reduce(flat)
        for tensor, part in zip(tensors, flat.split([tensor.numel() for tensor in tensors]), strict=True):
            tensor.copy_(part.view_as(tensor))

    def largest(self, value: int) -> int:
        """The largest value over all ranks; the message is sent between CPUs, and no GPU waits for it."""
        if self.size == 1:
            return value
        number = torch.tensor([value])
        distributed.all_reduce(number, distributed.ReduceOp.MAX)
        return int(number)

    def gather(self, value: T) -> list[T]:
        """The values of all ranks, in the order of ranks, on every rank."""
        if self.size == 1:
            return [value]
        values: list[T] = [value] * self.size
        distributed.all_gather_object(values, value)
        return values


def is_first_rank() -> bool:
    """Whether this process is alone, or the one of its `torchrun` that writes files and messages."""
    return os.environ.get("RANK", "0") == "0"


def interleave(parts: Sequence[Tensor]) -> Tensor:
    """The rows of all ranks in the order of the cases: the inverse of `Ranks.owned`."""
    merged = torch.empty((sum(len(part) for part in parts), *parts[0].shape[1:]), dtype=parts[0].dtype)
    for rank, part in enumerate(parts):
        merged[rank :: len(parts)] = part
    return merged


@contextmanager
def joined_ranks(*, cuda: bool) -> Iterator[Ranks]:
    """Join the processes that `torchrun` started; any other process is alone.

    Args:
        cuda: Whether tensors on GPUs will be summed (by NCCL); those on CPUs are summed by Gloo.
    """
    size = int(os.environ.get("WORLD_SIZE", "1"))
    if size == 1 or "RANK" not in os.environ:
        yield Ranks()
        return
    local, per_machine = (int(os.environ.get(name, "0")) for name in ("LOCAL_RANK", "LOCAL_WORLD_SIZE"))
    if cuda:
        torch.cuda.set_device(local)
    distributed.init_process_group("cpu:gloo,cuda:nccl" if cuda else "gloo", timeout=PATIENCE)
    try:
        yield Ranks(distributed.get_rank(), size, local, per_machine or size)
    finally:
        distributed.destroy_process_group()


def plan_epoch(cases: int, batch: int, seed: int, epoch: int, shards: int = 1) -> list[list[Tensor]]:
    """Which cases each step trains on: step → shard → rows of that shard's own cases.

    Shard r owns the cases r, r + shards, …, shuffled by (seed, epoch, r), so what a shard does depends on no other.

    Args:
        cases: Number of cases over all shards.
        batch: Cases per step over all shards; with one shard every step but the last has exactly as many, with several
            the steps are as many and their sizes even.
        seed: Seed of the shuffle.
        epoch: Epoch, part of the seed.
        shards: Number of ranks.

    >>> [[len(rows) for rows in step] for step in plan_epoch(5, 2, 0, 1)]
    [[2], [2], [1]]
    """
    steps = -(-cases // batch)
    plans = []
    for shard in range(shards):
        generator = torch.Generator().manual_seed(seed_of(seed, epoch, "order", shard))
        order = torch.randperm(len(range(shard, cases, shards)), generator=generator)
        plans.append(order.split(batch) if shards == 1 else order.tensor_split(steps))
    return [list(step) for step in zip(*plans, strict=True)]
