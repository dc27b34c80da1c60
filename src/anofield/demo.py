"""The whole pipeline on a phantom cohort: scans, store, experiment, run, results, report, `metrics.json`."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from anofield._files import write_json
from anofield._progress import say
from anofield.detect.calibration import is_calibrated
from anofield.detect.model import load_model
from anofield.detect.options import DetectOptions
from anofield.evaluation.evaluate import evaluate
from anofield.evaluation.parts import null
from anofield.evaluation.results import Results
from anofield.evaluation.table import format_table
from anofield.reports.report import write_report
from anofield.study import FULL, Plan, claim, make_experiment, make_people, make_store, refuse_failures
from anofield.typing import Json, PathLike


def run_demo(
    out: PathLike, plan: Plan = FULL, *, seed: int = 0, device: str = "auto", force: bool = False
) -> tuple[Json, str, Path]:
    """Run every stage in a folder; a stopped demo is resumed.

    Args:
        out: Folder of the demo.
        plan: `FULL` or `QUICK`.
        seed: Seed of the cohort and of the training.
        device: Device for training and fitting.
        force: Delete an existing demo in the folder and start again.

    Returns:
        Content of `metrics.json`, the metric table as text, and the report's path.

    Raises:
        UsageError: The folder holds other files, or a demo with another seed or size.
    """
    out = Path(out)
    claim(out, plan, seed, force)
    seconds: dict[str, float] = {}
    with _stage("phantom", seconds):
        cohorts = {
            name: make_people(out / "cohort" / name, name, plan, seed) for name in ("train", "calibration", "test")
        }
    with _stage("prepare", seconds):
        store = make_store(cohorts["train"], out / "train.zarr", plan, seed)
    with _stage("train", seconds):
        experiment = make_experiment(out / "experiment", store, plan, seed, device)
    options = DetectOptions(also=("crps", "cross-entropy", "intensity"))
    with _stage("calibrate", seconds):
        model = load_model(experiment, device=device, precision="auto")
        if not is_calibrated(model, options):
            model.calibrate(cohorts["calibration"], options=options)
    with _stage("detect", seconds):
        refuse_failures(model.detect_many(cohorts["test"], out / "run", options=options).failures)
    with _stage("evaluate", seconds):
        results = evaluate(out / "run", None, out / "results")
    with _stage("report", seconds):
        notes = "A demonstration on synthetic people. It does not show how well the method works on patients."
        report = write_report(
            out / "run", out / "report.html", results=out / "results", title="anofield demo", notes=notes
        )
    metrics = {**_metrics(results), "n_train": plan.n_train, "n_test": plan.n_test, "seed": seed, "seconds": seconds}
    write_json(out / "metrics.json", metrics)
    return metrics, format_table(results), report


def _metrics(results: Results) -> Json:
    names = ("ap", "auroc", "dice_calibrated_mean", "dice_calibrated_sd", "dice_oracle_mean", "dice_oracle", "fpr95")
    rows = {name: {key: null(figures.get(key)) for key in names} for name, figures in results.scores.items()}
    return {
        **rows[results.score],
        "score": results.score,
        "scores": {name: row for name, row in rows.items() if name not in results.baselines},
        "baseline": {name: row for name, row in rows.items() if name in results.baselines},
    }


@contextmanager
def _stage(name: str, seconds: dict[str, float]) -> Iterator[None]:
    start = time.monotonic()
    yield
    seconds[name] = round(time.monotonic() - start, 1)
    say(f"{name}: {seconds[name]:.1f} s")
