"""How long a step of training takes with the default threads of torch and with those that `--threads auto` chooses.

Both sides run in one process, alternating, on the default network; `auto` is measured again before every pair, as it
would be at the start of a command. Background work makes the machine busy.

    python benchmarks/threads.py             # on the machine as it is
    python benchmarks/threads.py --busy 2    # beside two processes that compute without a pause
"""

from __future__ import annotations

import argparse
import multiprocessing
import os
import statistics
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import torch
from joblib import cpu_count

from anofield.field import threads
from anofield.field.presets import preset
from anofield.field.step import start_run, train_step

CASES, POINTS = 4, 4096  # of a step


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--busy", type=int, default=0, help="processes that compute beside the measured one")
    parser.add_argument("--repeat", type=int, default=7, help="pairs of measurements")
    options = parser.parse_args()
    for variable in threads.GIVEN_BY:  # these decide if they are set, and choices are compared here
        os.environ.pop(variable, None)
    step = training_step()
    torch.set_num_threads(1)
    step()
    with busy(options.busy):
        found = [pair(step) for _ in range(options.repeat)]
    load = os.getloadavg()[0]
    print(f"torch {torch.__version__}, {cpu_count()} cores, {options.busy} busy processes, load {load:.1f}")
    for name, times in (("default", [row[0] for row in found]), ("auto", [row[1] for row in found])):
        rate = CASES * POINTS / statistics.median(times) / 1000
        print(f"{name:8} {statistics.median(times):7.3f} s [{min(times):.3f}, {max(times):.3f}], {rate:.1f}k points/s")
    ratios = [default / auto for default, auto, _, _ in found]
    print(f"default / auto: {statistics.median(ratios):.2f} [{min(ratios):.2f}, {max(ratios):.2f}]")
    choices, costs = sorted(row[2] for row in found), [row[3] for row in found]
    print(f"auto chose {choices} threads, after {statistics.median(costs):.2f} s [{min(costs):.2f}, {max(costs):.2f}]")


def pair(step: Callable[[], object]) -> tuple[float, float, int, float]:
    """Seconds of a step with all cores, and with the chosen threads; their number, and the seconds of the choice."""
    torch.set_num_threads(cpu_count())
    default = seconds(step)
    threads._measured.cache_clear()
    start = time.perf_counter()
    chosen = threads.use_threads("auto", device="cpu")
    cost = time.perf_counter() - start
    return default, seconds(step), chosen, cost


def seconds(step: Callable[[], object]) -> float:
    start = time.perf_counter()
    step()
    return time.perf_counter() - start


def training_step() -> Callable[[], object]:
    """One optimiser step of the default network on random points."""
    run = start_run(preset("default"), [str(row) for row in range(CASES)], torch.device("cpu"))
    generator = torch.Generator().manual_seed(0)
    places = torch.rand(CASES, POINTS, 3, generator=generator) * 2 - 1
    targets = torch.randint(run.specs.network_specs.dim_out, (CASES, POINTS), generator=generator)
    return lambda: train_step(run, (places, targets), torch.arange(CASES), 1, CASES)


@contextmanager
def busy(count: int) -> Iterator[None]:
    """Processes that compute without a pause during the body."""
    others = [multiprocessing.get_context("spawn").Process(target=compute, daemon=True) for _ in range(count)]
    for other in others:
        other.start()
    try:
        yield
    finally:
        for other in others:
            other.terminate()
            other.join()


def compute() -> None:
    """Compute until the process is ended."""
    value = 0
    while True:
        value = (value * 31 + 7) % 1_000_003


if __name__ == "__main__":
    main()
