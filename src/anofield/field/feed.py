"""From a store to batches of points: class volumes resident on the device, or streamed from disk ahead of the step."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Literal

import numpy as np
import torch
from torch import Tensor

from anofield._memory import free_memory as memory_of_the_machine
from anofield._random import seed_of
from anofield.data.store import Store
from anofield.errors import MachineError
from anofield.field.points import PointOptions, Sampler, axis_coordinates

Cache = Literal["auto", "resident", "stream"]
Batch = tuple[Tensor, Tensor]  # field coordinates (case, point, 3) float32, classes (case, point) int64

RESIDENT_SHARE = 0.5  # share of the free memory that class volumes may take before they are streamed
READ_AHEAD = 2  # batches read while one is trained on; each reader holds one case's volume at a time


class Feed:
    """Random points of some cases of a store; the points of a case depend on (seed, epoch, case id) alone.

    Attributes:
        ids: Case ids; the row of a case is its position in this list.
        resident: Whether the class volumes stay on the device.
    """

    def __init__(
        self, store: Store, cases: Sequence[int], sampler: Sampler, seed: int, device: torch.device, resident: bool
    ) -> None:
        """See `open_feed`."""
        self.ids = [store.ids[i] for i in cases]
        self.resident = resident
        self._store, self._cases, self._sampler, self._seed, self._device = store, list(cases), sampler, seed, device
        self._volumes = self._load() if resident else []

    def batches(self, plan: Sequence[Tensor], epoch: int) -> Iterator[Batch]:
        """Yield the batches of an epoch; streamed ones are read ahead by threads.

        Args:
            plan: Rows of each step, (case,) int64; a step may have no rows.
            epoch: Part of the seed of the points.
        """
        if self.resident:
            for rows in plan:
                yield self.batch(rows, epoch)
            return
        waiting: deque[Future[Batch]] = deque()
        ahead = iter(plan)
        with ThreadPoolExecutor(READ_AHEAD, thread_name_prefix="anofield-feed") as pool:
            try:
                for rows in ahead:
                    waiting.append(pool.submit(self.batch, rows, epoch))
                    if len(waiting) > READ_AHEAD:
                        yield waiting.popleft().result()
                while waiting:
                    yield waiting.popleft().result()
            finally:
                pool.shutdown(wait=False, cancel_futures=True)

    def batch(self, rows: Tensor, epoch: int) -> Batch:
        """Points and classes of the cases in `rows`."""
        drawn = [self._draw(int(row), epoch) for row in rows]
        if not drawn:
            empty = torch.empty((0, self._sampler.count), dtype=torch.int64, device=self._device)
            return torch.empty((0, self._sampler.count, 3), device=self._device), empty
        return torch.stack([points for points, _ in drawn]), torch.stack([targets for _, targets in drawn])

    def _draw(self, row: int, epoch: int) -> Batch:
        generator = torch.Generator(self._device).manual_seed(seed_of(self._seed, epoch, self.ids[row]))
        volume = self._volumes[row] if self.resident else self._read(row)
        return self._sampler.draw(volume, generator)

    def _read(self, row: int) -> Tensor:
        """Class volume of a case, (R³,) uint8."""
        return torch.from_numpy(self._store.classes(self._cases[row]).reshape(-1)).to(self._device)

    def _load(self) -> list[Tensor]:
        try:
            return [self._read(row) for row in range(len(self.ids))]
        except (MemoryError, torch.OutOfMemoryError) as error:
            size = volume_bytes(self._store, len(self.ids)) / 2**30
            raise MachineError(
                f"{size:.1f} GiB of class volumes do not fit", where=self._store.path, remedy="use --cache stream"
            ) from error


def open_feed(
    store: Store,
    cases: Sequence[int],
    points: PointOptions,
    *,
    device: torch.device,
    cache: Cache = "auto",
    sharing: int = 1,
) -> Feed:
    """Make the feed of some cases of a store.

    Args:
        store: Prepared scans.
        cases: Indices of the cases in the store.
        points: How their points are drawn.
        device: Where the points are needed.
        cache: `resident` keeps R³ bytes per case on the device, `stream` at most `READ_AHEAD` + 1 volumes and batches;
            `auto` streams volumes that would take more than half of the free memory.
        sharing: Number of processes that share the memory.

    Raises:
        MachineError: The volumes do not fit.
    """
    axis = axis_coordinates(store.resolution, points.lattice).to(device)
    brain = union_of_brains(store) if points.fraction else torch.empty(0, dtype=torch.int64)
    sampler = Sampler(axis, brain.to(device), points.count, points.fraction)
    fits = volume_bytes(store, len(cases)) <= RESIDENT_SHARE * free_memory(device) / sharing
    return Feed(store, cases, sampler, points.seed, device, cache == "resident" or (cache == "auto" and fits))


def union_of_brains(store: Store) -> Tensor:
    """Flat indices of the voxels that are brain in at least one complete case, (b,) int64."""
    union = np.zeros(store.resolution**3, dtype=bool)
    for index in store.require_cases():
        union |= store.brain(index).reshape(-1) != 0
    return torch.from_numpy(np.flatnonzero(union))


def volume_bytes(store: Store, cases: int) -> int:
    """Bytes that the class volumes of this many cases take in memory."""
    return int(cases * store.resolution**3)


def free_memory(device: torch.device) -> float:
    """Bytes that a process may still allocate on a device; infinite where the system does not report it."""
    if device.type == "cuda":
        return float(torch.cuda.mem_get_info(device)[0])
    return memory_of_the_machine()
