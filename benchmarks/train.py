"""How long a step of training and the points for it take: anofield against the plain published procedure.

Both sides run in one process, alternating, on the published configuration (8 × 512, 6 cases × 16 384 points, 160³).
The plain side is the oracle of the tests: the code concatenated to every point, weight norm in every layer and call,
dropout by torch; and a loader that unpickles a case and draws 3 × 16 384 numbers in Python for it.

    python benchmarks/train.py                       # a step, and feeding it
    python benchmarks/train.py --device cuda         # also points/s, share of the measured bf16 peak, full schedule
"""

from __future__ import annotations

import argparse
import pickle
import random
import statistics
import sys
import tempfile
import time
from collections import deque
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch

from anofield.data.cohort.case import Case
from anofield.data.lattice import Lattice
from anofield.data.prepared import Prepared
from anofield.data.recipe import Recipe
from anofield.data.store import Store
from anofield.field.device import Precision, pick_device
from anofield.field.feed import open_feed
from anofield.field.points import PointOptions
from anofield.field.presets import preset
from anofield.field.step import start_run, train_step

sys.path.insert(0, str(Path(__file__).parents[1] / "tests"))
from oracle import PublishedTraining

PUBLISHED_CASES, PUBLISHED_EPOCHS = 1055, 2001  # Naval Marimont & Tarroni 2021, HCP
BATCHES = 10  # taken at a time when feeding is measured, so that what is read ahead counts
Side = Callable[[], object]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--repeat", type=int, default=3)
    parser.add_argument("--only", choices=("step", "feed", "cuda"))
    parser.add_argument("--no-compile", action="store_true")
    options = parser.parse_args()
    device = pick_device(options.device)
    print(f"torch {torch.__version__}, {device}, {torch.get_num_threads()} threads")
    if options.only in (None, "step"):
        compare(step_sides(device), "plain", options.repeat, device)
    if options.only in (None, "feed"):
        with tempfile.TemporaryDirectory() as folder:
            compare(feed_sides(Path(folder)), "published loader", options.repeat, torch.device("cpu"))
    if device.type == "cuda" and options.only in (None, "cuda"):
        project(device, compiled=not options.no_compile)


def step_sides(device: torch.device) -> dict[str, Side]:
    """One optimiser step on the same points, network in training mode."""
    specs = preset("ifl2021-160")
    cases, points = specs.scenes_per_batch, specs.samples_per_scene
    generator = torch.Generator().manual_seed(0)
    places = (torch.rand(cases, points, 3, generator=generator) * 2 - 1).to(device)
    targets = torch.randint(10, (cases, points), generator=generator).to(device)
    rows = torch.arange(cases)
    plain = PublishedTraining(specs, cases)
    plain.network.masked = torch.nn.functional.dropout
    plain.network.to(device).train()
    plain.codes.to(device)

    def ours(precision: Precision) -> Side:
        run = start_run(specs, [str(row) for row in range(cases)], device)
        run.set_precision(precision)
        run.field.train()
        return lambda: train_step(run, (places, targets), rows, 1, cases)

    return {
        "plain": lambda: plain.step(places, targets, rows.to(device)),
        "anofield float32": ours("float32"),
        "anofield bfloat16": ours("bfloat16"),
    }


def feed_sides(folder: Path, cases: int = 12, resolution: int = 160, count: int = 16_384) -> dict[str, Side]:
    """`BATCHES` batches of six cases, from files of the same volumes."""
    store = write_volumes(folder, cases, resolution)
    paths = sorted(folder.glob("*.nt"))

    def published() -> object:
        batch = []
        for path in [path for _ in range(BATCHES) for path in random.sample(paths, 6)]:
            with path.open("rb") as stream:
                volume, _, _ = pickle.load(stream)
            i, j, k = ([random.randint(0, resolution - 1) for _ in range(count)] for _ in range(3))
            batch.append((np.stack((i, j, k), axis=1) * 2 / resolution - 1, volume[i, j, k]))
        return batch

    def ours(cache: str) -> Side:
        points = PointOptions(lattice="corner", count=count)
        feed = open_feed(store, range(cases), points, device=torch.device("cpu"), cache=cache)
        plan = [torch.randperm(cases)[:6] for _ in range(BATCHES)]
        return lambda: deque(feed.batches(plan, 1), maxlen=0)

    return {"published loader": published, "resident": ours("resident"), "stream": ours("stream")}


def write_volumes(folder: Path, cases: int, resolution: int) -> Store:
    """A store and pickles of the same brain-like volumes."""
    grid = np.linspace(-1, 1, resolution)
    radius = np.sqrt(grid[:, None, None] ** 2 + grid[None, :, None] ** 2 + grid[None, None, :] ** 2)
    recipe = Recipe(name="box", resolution=resolution)
    asked = [Case(f"p{number}", Path(f"{number}.nii.gz")) for number in range(cases)]
    store = Store.create(folder / "store.zarr", asked, recipe, labels=False, side=resolution)
    lattice = Lattice(resolution, np.eye(4), (resolution,) * 3, np.eye(4))
    for number in range(cases):
        noise = np.random.default_rng(number).normal(0, 0.6, radius.shape)
        classes = np.where(radius < 0.7, np.clip(5 + 3 * np.sin(9 * radius) + noise, 1, 9), 0).astype(np.uint8)
        volumes = {"classes": classes, "brain": classes > 0, "intensity": classes, "label": None}
        prepared = Prepared(**volumes, lattice=lattice, recipe=recipe, scale=(0, 1))
        store.write(number, prepared, "00" * 32)
        (folder / f"p{number}.nt").write_bytes(pickle.dumps((classes, None, f"p{number}")))
    return store


def compare(sides: dict[str, Side], baseline: str, repeat: int, device: torch.device) -> None:
    """Median seconds of every side, run in turns, and how many times faster than the baseline it is."""
    seconds: dict[str, list[float]] = {name: [] for name in sides}
    for turn in range(repeat + 1):  # the first turn warms up
        for name, side in sides.items():
            start = time.perf_counter()
            side()
            synchronize(device)
            if turn:
                seconds[name].append(time.perf_counter() - start)
    for name, values in seconds.items():
        ratios = [slow / fast for slow, fast in zip(seconds[baseline], values, strict=True)]
        print(f"  {name:<18} {statistics.median(values):9.4f} s   {statistics.median(ratios):6.1f} × "
              f"({min(ratios):.1f} to {max(ratios):.1f})")  # fmt: skip


def project(device: torch.device, *, compiled: bool, steps: int = 60) -> None:
    """Points per second on a GPU, its share of the measured bf16 matrix peak, and the time of the full schedule."""
    specs = preset("ifl2021-160")
    cases, points = specs.scenes_per_batch, specs.samples_per_scene
    run = start_run(specs, [str(row) for row in range(PUBLISHED_CASES)], device)
    run.set_precision("bfloat16", compiled=compiled)
    run.field.train()
    volumes = torch.randint(10, (24, 160**3), dtype=torch.uint8, device=device)
    peak = matrix_peak(device)

    def step(number: int) -> None:
        generator = torch.Generator(device).manual_seed(number)
        flat = torch.randint(160**3, (cases, points), generator=generator, device=device)
        places = torch.stack((flat // 25600, flat // 160 % 160, flat % 160), dim=-1) / 80 - 1
        rows = torch.arange(cases) + number % 100
        train_step(run, (places, volumes[:cases].gather(1, flat).long()), rows, 1, cases)

    for number in range(8):
        step(number)
    synchronize(device)
    start = time.perf_counter()
    for number in range(steps):
        step(number)
    synchronize(device)
    rate = steps * cases * points / (time.perf_counter() - start)
    weights = sum(weight.numel() for weight in run.field.fold())
    used = rate * 6 * weights  # multiply and add, forward and twice backward, as the plain procedure counts them
    minutes = PUBLISHED_CASES * points * PUBLISHED_EPOCHS / rate / 60
    print(f"  {rate / 1e6:.2f} M points/s; bf16 peak measured {peak / 1e12:.0f} TFLOP/s; share {used / peak:.0%}; "
          f"full published schedule {minutes:.0f} min")  # fmt: skip


def matrix_peak(device: torch.device, size: int = 8192, repeat: int = 20) -> float:
    """FLOP/s of the best of several products of square bf16 matrices."""
    a, b = (torch.randn(size, size, device=device, dtype=torch.bfloat16) for _ in range(2))
    best = float("inf")
    for _ in range(repeat):
        synchronize(device)
        start = time.perf_counter()
        a @ b
        synchronize(device)
        best = min(best, time.perf_counter() - start)
    return 2 * size**3 / best


def synchronize(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize(device)


if __name__ == "__main__":
    main()
