"""Ablation on the phantom: one switch at a time against the default, at equal training time, mean ± SD over seeds.

Usage: python benchmarks/ablation.py OUT [--seeds 10 11 12] [--rows NAME ...] [--kinds glioma]

Every row trains as long as the default does: the time of its epoch is measured against the default's, both in this
process and in turns, and its number of epochs divided by the ratio. About 45 s per row and seed on two cores; finished
rows are kept in OUT, so a stopped run goes on.
"""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch

from anofield._files import write_json
from anofield.data.centers import fit_cohort_centers
from anofield.data.cohort.find import find_cases
from anofield.data.recipe import recipe_for
from anofield.data.store import Store, prepare_cohort
from anofield.detect.calibrate import calibrate
from anofield.detect.model import load_model
from anofield.detect.options import DetectOptions
from anofield.detect.run import detect_cases
from anofield.evaluation.evaluate import evaluate
from anofield.field.experiment import Experiment
from anofield.field.feed import open_feed
from anofield.field.points import PointOptions
from anofield.field.ranks import plan_epoch
from anofield.field.specs import Specs
from anofield.field.step import start_run, train_step
from anofield.field.train import TrainOptions, train
from anofield.phantom.cohort import Cohort, plan_cohort, write_cohort
from anofield.study import QUICK, Plan, study_specs

FIGURES = ("held_out_ce", "ap", "dice_calibrated_mean", "dice_oracle", "fpr95")


@dataclass(frozen=True)
class Row:
    """A switch: what differs from the default plan and its specs; `timed` if that changes what a step computes."""

    plan: Plan = QUICK
    specs: Mapping[str, Any] = field(default_factory=dict)
    timed: bool = True


ROWS: dict[str, Row] = {
    "default": Row(),
    "L 10 (published)": Row(specs={"L": 10}),
    "L 5": Row(specs={"L": 5}),
    "corner lattice (published)": Row(specs={"Lattice": "corner"}, timed=False),
    "BrainFraction 0 (published)": Row(specs={"BrainFraction": 0.0}, timed=False),
    "BrainFraction 0.5": Row(specs={"BrainFraction": 0.5}, timed=False),
    "dropout 0.2 (published)": Row(specs={"NetworkSpecs": {"dropout": [0, 1, 2, 3, 4], "dropout_prob": 0.2}}),
    "CodeBound 1 (published)": Row(specs={"CodeBound": 1.0, "CodeInitStdDev": 1.0}),
    "all published": Row(
        specs={"L": 10, "Lattice": "corner", "BrainFraction": 0.0, "CodeBound": 1.0, "CodeInitStdDev": 1.0,
               "NetworkSpecs": {"dropout": [0, 1, 2, 3, 4], "dropout_prob": 0.2}}
    ),
    "clip-minmax": Row(plan=replace(QUICK, normalise="clip-minmax")),
    "FLAIR": Row(plan=replace(QUICK, modality="FLAIR")),
    "FLAIR clip-minmax": Row(plan=replace(QUICK, modality="FLAIR", normalise="clip-minmax")),
}  # fmt: skip


def main() -> None:
    """Run the rows and print a table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("out", type=Path, help="folder of the runs")
    parser.add_argument("--seeds", type=int, nargs="+", default=[10, 11, 12])
    parser.add_argument("--rows", nargs="+", choices=list(ROWS), default=list(ROWS))
    parser.add_argument("--kinds", nargs="+", default=["glioma"])
    options = parser.parse_args()
    found: dict[str, list[dict[str, float]]] = {name: [] for name in options.rows}
    for seed in options.seeds:
        for name in options.rows:
            found[name].append(run_row(options.out / f"seed-{seed}", name, seed, tuple(options.kinds)))
            print(f"seed {seed}  {name}: {found[name][-1]}", flush=True)
    print(table(found))


def table(found: dict[str, list[dict[str, float]]]) -> str:
    """Markdown: mean ± SD over the seeds."""
    lines = ["| row | epoch, × default | " + " | ".join(FIGURES) + " |", "|---" * (len(FIGURES) + 2) + "|"]
    for name, runs in found.items():
        cells = [[run[figure] for run in runs] for figure in FIGURES]
        shown = [f"{np.mean(c):.3f} ± {np.std(c, ddof=1) if len(c) > 1 else 0:.3f}" for c in cells]
        cost = np.mean([run["cost"] for run in runs])
        lines.append(f"| {name} | {cost:.2f} | " + " | ".join(shown) + " |")
    return "\n".join(lines)


def run_row(folder: Path, name: str, seed: int, kinds: tuple[str, ...]) -> dict[str, float]:
    """Train, calibrate, detect and evaluate one row; finished ones are read."""
    row, out = ROWS[name], folder / name.replace(" ", "-")
    done = out / "figures.json"
    if done.is_file():
        content: dict[str, float] = json.loads(done.read_text())
        return content
    shared = folder / f"{row.plan.modality}-{row.plan.normalise}-{'-'.join(kinds)}"
    people, held_out, calibration, test = cohort(shared, row.plan, seed, kinds)
    base, specs = study_specs(row.plan, seed), specs_of(row, seed, row.plan.epochs)
    cost = epoch_cost(specs, base, people) if row.timed and specs != base else 1.0
    specs = specs_of(row, seed, max(1, round(row.plan.epochs / cost)))
    experiment = Experiment.create(out / "experiment", specs)
    train(experiment, people, TrainOptions(precision="auto"), resume="auto", held_out=held_out)
    options = DetectOptions()
    model = load_model(experiment.path, precision="float32")
    calibrate(calibration, model, options)
    detect_cases(test, model, options, out / "run")
    scores = evaluate(out / "run", None, out / "results").scores["deviation"]
    last = json.loads((experiment.path / "metrics.jsonl").read_text().splitlines()[-1])
    figures = {"cost": cost, "held_out_ce": last["held_out_ce"], **{key: scores.get(key) for key in FIGURES[1:]}}
    write_json(done, figures)
    return figures


def specs_of(row: Row, seed: int, epochs: int) -> Specs:
    """The default's specs with a row's changes, for a number of epochs."""
    content = study_specs(replace(row.plan, epochs=epochs), seed).dump()
    network = {**content["NetworkSpecs"], **row.specs.get("NetworkSpecs", {})}
    return Specs.model_validate({**content, **row.specs, "NetworkSpecs": network})


def cohort(folder: Path, plan: Plan, seed: int, kinds: tuple[str, ...]) -> tuple[Store, Store, list[Any], list[Any]]:
    """Stores of training and held-out people, calibration scans, test scans; made once per seed."""
    first = 0
    parts = {}
    for part, healthy, lesion in (("train", plan.n_train, 0), ("held", 8, 0), ("calibration", plan.n_calibration, 0),
                                  ("test", 0, plan.n_test * len(kinds))):  # fmt: skip
        if not (folder / part).exists():
            people = Cohort("brats", size=plan.scan_size, seed=seed, modality=plan.modality)
            write_cohort(folder / part, people, plan_cohort(healthy, lesion, kinds, first))
        parts[part] = find_cases(folder / part, dataset="brats", modality=plan.modality)
        first += healthy + lesion
    recipe = recipe_for("box", plan.resolution).model_copy(update={"normalise": plan.normalise})
    if (folder / "train.zarr").exists():
        recipe = Store(folder / "train.zarr").recipe
    else:
        recipe = recipe.model_copy(update={"centers": fit_cohort_centers(parts["train"], recipe, plan.classes, seed)})
    stores = [prepare_cohort(parts[part], recipe, folder / f"{part}.zarr")[0] for part in ("train", "held")]
    return stores[0], stores[1], parts["calibration"], parts["test"]


def epoch_cost(specs: Specs, base: Specs, store: Store, turns: int = 4) -> float:
    """Time of an epoch over that of the default: median of ratios taken in turns."""
    seconds: list[list[float]] = [[], []]
    for _ in range(turns):
        for which, measured in enumerate((specs, base)):
            seconds[which].append(_epoch_seconds(measured, store))
    return float(np.median(np.array(seconds[0]) / np.array(seconds[1])))


def _epoch_seconds(specs: Specs, store: Store) -> float:
    cases, device = store.require_cases(), torch.device("cpu")
    run = start_run(specs, [store.ids[i] for i in cases], device)
    run.set_precision("auto")
    points = PointOptions(lattice="center", count=specs.samples_per_scene, fraction=specs.brain_fraction,
                          seed=specs.seed)  # fmt: skip
    feed = open_feed(store, cases, points, device=device)
    start = time.perf_counter()
    for (rows,) in plan_epoch(len(cases), specs.scenes_per_batch, specs.seed, 1):
        train_step(run, feed.batch(rows, 1), rows, 1, len(rows))
    return time.perf_counter() - start


if __name__ == "__main__":
    main()
