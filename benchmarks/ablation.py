"""Ablation on the phantom: one switch at a time against the default, several seeds, detection figures as mean ± SD.

Usage: python benchmarks/ablation.py OUT [--seeds 10 11] [--rows NAME ...]. About 45 s per row and seed on two cores.
"""

from __future__ import annotations

import argparse
from dataclasses import replace
from pathlib import Path

import numpy as np

from anofield.demo import QUICK, Plan, run_demo

ROWS: dict[str, Plan] = {
    "T2w robust (default)": QUICK,
    "T2w clip-minmax": replace(QUICK, normalise="clip-minmax"),
    "FLAIR robust (default)": replace(QUICK, modality="FLAIR"),
    "FLAIR clip-minmax": replace(QUICK, modality="FLAIR", normalise="clip-minmax"),
}
FIGURES = ("ap", "dice_calibrated_mean", "dice_oracle", "fpr95")


def main() -> None:
    """Run the rows and print a table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("out", type=Path, help="folder of the runs")
    parser.add_argument("--seeds", type=int, nargs="+", default=[10, 11])
    parser.add_argument("--rows", nargs="+", choices=list(ROWS), default=list(ROWS))
    options = parser.parse_args()
    lines = ["| row | " + " | ".join(FIGURES) + " | intensity AP |", "|---" * (len(FIGURES) + 2) + "|"]
    for name in options.rows:
        folders = [(seed, options.out / f"{name.replace(' ', '-')}-{seed}") for seed in options.seeds]
        runs = [run_demo(folder, ROWS[name], seed=seed)[0] for seed, folder in folders]
        cells = [[run[figure] for run in runs] for figure in FIGURES]
        cells.append([run["baseline"]["intensity"]["ap"] for run in runs])
        lines.append(f"| {name} | " + " | ".join(f"{np.mean(c):.3f} ± {np.std(c, ddof=1):.3f}" for c in cells) + " |")
    print("\n".join(lines))


if __name__ == "__main__":
    main()
