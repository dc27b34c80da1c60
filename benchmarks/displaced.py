"""Heads that do not lie straight: AP and oracle Dice of methods on the same scans before and after they are displaced.

Usage: python benchmarks/displaced.py BENCH OUT [--methods zscore dae …] [--cases 12]. BENCH is a finished folder of
`anofield benchmark`, whose trained methods are used; the displaced scans (affine changed alone) are written to OUT.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from anofield.baselines.run import baseline_options, load_baseline
from anofield.curves import exact_curve
from anofield.data.cohort.case import Case
from anofield.data.cohort.find import find_cases
from anofield.data.labels import as_labels
from anofield.detect.method import Method
from anofield.detect.model import load_model
from anofield.detect.options import DetectOptions, RunOptions
from anofield.detect.run import detect_case
from detection import displaced


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("bench", type=Path)
    parser.add_argument("out", type=Path)
    parser.add_argument("--methods", nargs="+", default=["anofield", "dae", "zscore", "vae-dense"])
    parser.add_argument("--cases", type=int, default=12)
    parser.add_argument("--seed", type=int, default=4, help="of turns, shifts and sizes")
    chosen = parser.parse_args()
    straight = find_cases(chosen.bench / "cohort" / "test", dataset="brats", modality="T2w")[: chosen.cases]
    moved = [displaced(case, chosen.out, chosen.seed) for case in straight]
    print("| method | AP | Dice, oracle | displaced: AP | displaced: Dice, oracle |\n" + "|---" * 5 + "|")
    for name in chosen.methods:
        method, options = opened(chosen.bench, name)
        cells = [f"{value:.3f}" for cases in (straight, moved) for value in measured(cases, method, options)]
        print(f"| {name} | " + " | ".join(cells) + " |", flush=True)


def opened(bench: Path, name: str) -> tuple[Method, RunOptions]:
    """A trained method of the benchmark and its options."""
    if name == "anofield":
        return load_model(bench / "experiment", precision="float32"), DetectOptions(also=())
    return load_baseline(bench / "methods" / name / "model"), baseline_options(name)


def measured(cases: Sequence[Case], method: Method, options: RunOptions) -> tuple[float, float]:
    """AP and the best Dice over all brain voxels of the cases."""
    values, truth = [], []
    for case in cases:
        found = detect_case(case, method, options, None)
        values.append(found.maps[options.score][found.brain])
        truth.append((as_labels(case.label, found.scan) > 0)[found.brain])
    curve = exact_curve(np.concatenate(values), np.concatenate(truth))
    return curve.average_precision(), curve.best_dice()[0]


if __name__ == "__main__":
    main()
