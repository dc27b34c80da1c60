"""The whole way on a phantom cohort: scans, store, experiment, run, results, report, `metrics.json`."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from anofield._files import write_json
from anofield._progress import say
from anofield.detect.calibrate import calibrate
from anofield.detect.run import DetectOptions, detect_cases, write_run
from anofield.detect.thresholds import is_calibrated
from anofield.evaluate.evaluate import evaluate, format_table, plain
from anofield.field.model import load_model
from anofield.report import write_report
from anofield.study import FULL, Plan, all_done, claim, make_experiment, make_people, make_store
from anofield.typing import Json, PathLike


def run_demo(
    out: PathLike, plan: Plan = FULL, *, seed: int = 0, device: str = "auto", force: bool = False
) -> tuple[Json, str, Path]:
    """Run every stage in a folder; a demo that was stopped goes on where it was.

    Args:
        out: Folder of the demo.
        plan: `FULL` or `QUICK`.
        seed: Of cohort and training.
        device: For training and fitting.
        force: Start anew.

    Returns:
        Content of `metrics.json`, the metric table as text, and the report's path.

    Raises:
        UsageError: The folder holds something else, or a demo with other settings.
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
            calibrate(cohorts["calibration"], model, options)
            model = load_model(experiment, device=device, precision="auto")
    with _stage("detect", seconds):
        outcomes = detect_cases(cohorts["test"], model, options, out / "run")
        all_done(outcomes)
        write_run(out / "run", model, options, outcomes, 0.0, f"anofield demo --seed {seed}")
    with _stage("evaluate", seconds):
        results = evaluate(out / "run", None, out / "results")
    with _stage("report", seconds):
        notes = "A demonstration on synthetic people: nothing in it says how well the method works on patients."
        report = write_report(
            out / "run", out / "report.html", results=out / "results", title="anofield demo", notes=notes
        )
    metrics = {**_metrics(results), "n_train": plan.n_train, "n_test": plan.n_test, "seed": seed, "seconds": seconds}
    write_json(out / "metrics.json", plain(metrics))
    return metrics, format_table(results), report


def _metrics(results: Json) -> Json:
    names = ("ap", "auroc", "dice_calibrated_mean", "dice_calibrated_sd", "dice_oracle", "fpr95")
    rows = {name: {key: row[key] for key in names} for name, row in results["scores"].items()}
    baselines = set(results["baselines"])
    return {
        **rows[results["score"]],
        "score": results["score"],
        "scores": {name: row for name, row in rows.items() if name not in baselines},
        "baseline": {name: row for name, row in rows.items() if name in baselines},
    }


@contextmanager
def _stage(name: str, seconds: dict[str, float]) -> Iterator[None]:
    start = time.monotonic()
    yield
    seconds[name] = round(time.monotonic() - start, 1)
    say(f"{name}: {seconds[name]:.1f} s")
