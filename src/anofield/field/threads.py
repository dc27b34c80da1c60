"""How many threads torch computes with on a CPU: as given, as before, or as many as a measured step needs.

Torch takes one thread per core. Its threads wait for one another in every product of matrices, so on a machine that
does something else as well, all of them wait for the slowest: a fit took seven times as long as with one thread.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Sequence
from functools import cache

import torch
from joblib import cpu_count
from torch.nn import functional

from anofield._progress import say
from anofield._words import counted
from anofield.data.parallel import HERE, Spread
from anofield.errors import UsageError
from anofield.field.device import pick_device

GIVEN_BY = ("OMP_NUM_THREADS", "MKL_NUM_THREADS")  # variables by which a user sets the threads of all programs
POINTS, WIDTH = 2048, 256  # of the measured step: about a sixth of a step of the fit, 10 to 30 ms on one core
REPEATS = 5  # measured steps per number of threads, after one that is not measured
GAIN = 0.9  # share of the time that more threads may take; below it they are worth the cores
PATIENCE = 0.3  # seconds for one number of threads


def use_threads(
    wanted: str = "auto", *, device: str | torch.device = "auto", spread: Spread = HERE, before: int | None = None
) -> int:
    """Set the number of threads of torch in this process, and return it.

    `auto` takes, in this order: one thread per process if several processes work; what `OMP_NUM_THREADS` or
    `MKL_NUM_THREADS` says; what torch has, if the device is no CPU; the number of an earlier start of the same work;
    else the fastest of 1, 2, 4 … threads up to the cores, of which a short step is measured once per process (at
    most six steps for each number).

    Args:
        wanted: A number, or `auto`.
        device: Device that computes.
        spread: Where the work on cases runs.
        before: Number of threads that this work was begun with; None if it is new.

    Raises:
        UsageError: `wanted` is no number and not `auto`, or more than 1 with several worker processes.
    """
    count = _given(wanted)
    if spread != HERE and (count or 1) > 1:
        raise UsageError(
            f"--threads {wanted} with several processes",
            why="every worker has one thread, because the workers share the cores",
            remedy="leave out --threads, or --workers and --scheduler",
        )
    if count is not None and count > cpu_count():
        say(f"--threads {count}: {counted(cpu_count(), 'core')} can be used, and more threads than cores are slower")
    if count is None:
        count = _chosen(device, spread, before)
    torch.set_num_threads(count)
    return count


def threads_of(spread: Spread = HERE) -> int:
    """Threads of torch in every process that works: this one, or the workers, which have one each."""
    return torch.get_num_threads() if spread == HERE else 1


def measure(step: Callable[[], object], counts: Sequence[int]) -> dict[int, float]:
    """Mean seconds of a step with each number of threads, until more of them bring nothing.

    Args:
        step: Function that computes one step.
        counts: Numbers of threads, ascending.
    """
    found: dict[int, float] = {}
    for count in counts:
        torch.set_num_threads(count)
        found[count] = _seconds(step)
        if found[count] > min(found.values()):
            break
    return found


def fastest(seconds: dict[int, float]) -> int:
    """The number of threads to take: more only if they save a tenth of the time.

    >>> fastest({1: 0.050, 2: 0.048}), fastest({1: 0.050, 2: 0.028, 4: 0.027})
    (1, 2)
    """
    best = min(seconds)
    for count in sorted(seconds):
        best = count if seconds[count] < GAIN * seconds[best] else best
    return best


def _given(wanted: str) -> int | None:
    """The number that was given; None for `auto`."""
    if wanted == "auto":
        return None
    if not wanted.isdecimal() or int(wanted) < 1:
        raise UsageError(f"--threads {wanted!r}", remedy="give a whole number from 1 on, or auto")
    return int(wanted)


def _chosen(device: str | torch.device, spread: Spread, before: int | None) -> int:
    if spread != HERE:
        return 1
    if any(os.environ.get(name) for name in GIVEN_BY) or pick_device(device).type != "cpu":
        return torch.get_num_threads()
    return min(before, cpu_count()) if before else _measured()


@cache
def _measured() -> int:
    """The fastest number of threads on this machine as busy as it is now."""
    counts = [*(1 << power for power in range(cpu_count().bit_length() - 1)), cpu_count()]
    return fastest(measure(_step(), sorted(set(counts)))) if cpu_count() > 1 else 1


def _step() -> Callable[[], object]:
    """A step like that of a training: two layers forwards and backwards, without touching torch's random numbers."""
    generator = torch.Generator().manual_seed(0)
    points = torch.randn(POINTS, WIDTH, generator=generator)
    weights = [torch.randn(WIDTH, WIDTH, generator=generator).requires_grad_() for _ in range(2)]

    def step() -> object:
        """Gradients of both layers."""
        hidden = points
        for weight in weights:
            hidden = functional.relu(hidden @ weight)
        return torch.autograd.grad(hidden.sum(), weights)

    return step


def _seconds(step: Callable[[], object]) -> float:
    """Mean seconds of some steps, after one that is not counted."""
    step()
    start, done = time.perf_counter(), 0
    while done < REPEATS and (not done or time.perf_counter() - start < PATIENCE):
        step()
        done += 1
    return (time.perf_counter() - start) / done
