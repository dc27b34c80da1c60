"""How long and with how much memory one scan becomes classes: anofield against the plain published procedure.

Both sides run in one process, alternating, on the same synthetic scan in its native shape, and must give the same
classes and labels; peak memory is taken in forked children of their own, above what they start with.

    python benchmarks/prepare.py --layout brats --res 160 --mode-pool 3
"""

from __future__ import annotations

import argparse
import ctypes
import multiprocessing
import os
import re
import statistics
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

import _published_prepare as published
from anofield._files import file_hash
from anofield.data.brain import StrippedScan, brain_mask
from anofield.data.cohort.case import Case
from anofield.data.cohort.find import find_cases
from anofield.data.labels import as_labels
from anofield.data.prepare import prepare_case, prepare_scan
from anofield.data.published import lattice_side
from anofield.data.recipe import recipe_for
from anofield.data.scan import read_scan
from anofield.data.store import Store
from anofield.phantom.cohort import Cohort, write_case

Result = tuple[np.ndarray, np.ndarray | None]
Side = Callable[[], Result]


def main() -> None:
    arguments = _arguments()
    resolution = None if arguments.res == "full" else int(arguments.res)
    recipe = recipe_for(f"ifl2021-{arguments.layout}", resolution, arguments.mode_pool, "published")
    print(f"{arguments.layout}, res {arguments.res}, mode pool {arguments.mode_pool}, {os.cpu_count()} cores")
    with tempfile.TemporaryDirectory() as folder:
        lesion = "glioma" if arguments.layout == "brats" else None
        write_case(Path(folder) / "scans", Cohort(arguments.layout), 0, lesion)
        case = find_cases(Path(folder) / "scans", dataset=arguments.layout)[0]
        parts = {
            "compute only": _computing(case, arguments.layout, recipe),
            "with reading and writing": _whole(case, arguments.layout, recipe, Path(folder)),
        }
        if arguments.ours_only:
            parts = {title: {"anofield": sides["anofield"]} for title, sides in parts.items()}
        # first of all: a process that has started threads cannot be forked
        peaks = {title: {name: _peak_mib(side) for name, side in sides.items()} for title, sides in parts.items()}
        for title, sides in parts.items():
            _compare(title, sides, peaks[title], arguments.repeat)


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--layout", choices=("brats", "hcp"), default="brats")
    parser.add_argument("--res", default="160", help="voxels per axis, or full")
    parser.add_argument("--mode-pool", type=int, choices=(2, 3), default=None)
    parser.add_argument("--repeat", type=int, default=3)
    parser.add_argument("--ours-only", action="store_true", help="the published side needs 20 GB for hcp at full")
    return parser.parse_args()


def _computing(case: Case, layout: str, recipe: Any) -> dict[str, Side]:
    """Both sides from arrays to arrays."""
    scan = read_scan(case.image, dtype=np.float64)
    native = StrippedScan(scan, brain_mask(scan, case.mask))
    label = None if case.label is None else as_labels(case.label, scan)
    truth = None if case.label is None else published.read(case.label)

    def ours() -> Result:
        prepared = prepare_scan(native, label, recipe)
        return prepared.classes, prepared.label

    return {
        "anofield": ours,
        "published": lambda: published.compute(layout, scan.data, truth, recipe.resolution, recipe.mode_pool),
    }


def _whole(case: Case, layout: str, recipe: Any, folder: Path) -> dict[str, Side]:
    """Both sides from scan file to prepared file."""
    labels = case.label is not None

    def ours() -> Result:
        store = Store.create(folder / "store.zarr", [case], recipe, labels=labels, side=lattice_side(recipe))
        prepared = prepare_case(case, recipe)
        store.write(0, prepared, file_hash(case.image))
        return prepared.classes, prepared.label

    def theirs() -> Result:
        label = published.read(case.label) if case.label is not None else None
        result = published.compute(layout, published.read(case.image), label, recipe.resolution, recipe.mode_pool)
        published.write(folder / "case.nt", *result, case.id)
        return result

    return {"anofield": ours, "published": theirs}


def _compare(title: str, sides: dict[str, Side], peaks: dict[str, float], repeat: int) -> None:
    """Print seconds, ratio and peak memory in MiB; raise if the results differ."""
    seconds: dict[str, list[float]] = {name: [] for name in sides}
    for _ in range(repeat):
        results = {}
        for name, side in sides.items():
            start = time.perf_counter()
            results[name] = side()
            seconds[name].append(time.perf_counter() - start)
        if len(results) == 2:
            _check_equal(*results.values())
    print(title)
    for name, values in seconds.items():
        spread = f"{min(values):.2f} to {max(values):.2f} s"
        print(f"  {name:<10} {statistics.median(values):6.2f} s ({spread})   peak {peaks[name]:6.0f} MiB")
    if len(sides) == 2:
        ratios = [slow / fast for fast, slow in zip(*seconds.values(), strict=True)]
        less = peaks["published"] / peaks["anofield"]
        print(f"  {statistics.median(ratios):.1f} times faster ({min(ratios):.1f} to {max(ratios):.1f}), "
              f"{less:.1f} times less memory; classes and labels are equal")  # fmt: skip


def _check_equal(ours: Result, theirs: Result) -> None:
    for what, a, b in zip(("classes", "labels"), ours, theirs, strict=True):
        if (a is None) != (b is None) or (a is not None and not np.array_equal(a, b)):
            raise SystemExit(f"the {what} differ")


def _peak_mib(side: Side) -> float:
    """Peak resident memory of one run in a forked child, above what the child started with."""
    context = multiprocessing.get_context("fork")
    reader, writer = context.Pipe(duplex=False)
    child = context.Process(target=_measure, args=(side, writer))
    child.start()
    writer.close()
    peak = float(reader.recv())
    child.join()
    return peak


def _measure(side: Side, writer: Any) -> None:
    ctypes.CDLL(None).malloc_trim(0)  # else free memory of the parent hides what the child asks for
    Path("/proc/self/clear_refs").write_text("5")  # resets VmHWM
    before = _status("VmRSS")
    side()
    writer.send((_status("VmHWM") - before) / 1024)


def _status(name: str) -> int:
    """A line of /proc/self/status, KiB."""
    found = re.search(rf"{name}:\s+(\d+)", Path("/proc/self/status").read_text())
    if found is None:
        raise SystemExit(f"/proc/self/status has no {name}: memory is measured on Linux only")
    return int(found.group(1))


if __name__ == "__main__":
    main()
