"""Comparison of all methods on one phantom cohort: trained on one store, calibrated on the same people, one table.

`benchmark.json` holds the sizes, `results.json` and `table.*` hold the results so far. `rows/<method>.json` is written
when a method is done, so a stopped benchmark is resumed.
"""

from __future__ import annotations

import json
import math
import shutil
import time
import traceback
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from functools import cached_property
from pathlib import Path

import numpy as np

from anofield import study
from anofield._files import PARTIAL, write_json, write_text, writing
from anofield._progress import say
from anofield._words import counted
from anofield.baselines.registry import BUILT_IN, find_baseline
from anofield.baselines.run import baseline_options, make_settings, train_baseline
from anofield.data.cohort.case import Case
from anofield.data.store import Store
from anofield.detect.calibrate import calibrate
from anofield.detect.calibration import FOLDER as CALIBRATIONS
from anofield.detect.calibration import is_calibrated
from anofield.detect.method import Method
from anofield.detect.model import load_model
from anofield.detect.options import DetectOptions, FieldOptions, PublishedOptions, RunOptions
from anofield.detect.run import detect_cases
from anofield.errors import AnofieldError, UsageError
from anofield.evaluation.evaluate import evaluate
from anofield.evaluation.parts import null
from anofield.evaluation.results import Results
from anofield.field.experiment import Experiment
from anofield.typing import Json, PathLike

RESAMPLES = 1000  # of the bootstrap of the mean Dice, if the evaluation gives no interval
COLUMNS: dict[str, tuple[str, tuple[str, ...]]] = {  # column → heading, names of the metric in results.json
    "ap": ("AP", ("ap",)),
    "auroc": ("AUROC", ("auroc",)),
    "dice": ("Dice (healthy-calibrated)", ("dice_calibrated", "dice_calibrated_mean")),
    "dice_oracle": ("Dice (oracle: best threshold on the test labels)", ("dice_oracle_pooled", "dice_oracle")),
}
FEW = "anofield-few"  # the field on as few people as the published procedure, so that the two can be compared
FIELD = {"title": "implicit field", "paper": "Naval Marimont & Tarroni 2021 (arXiv 2106.05214)"}


@dataclass(frozen=True)
class Sizes:
    """Sizes of a benchmark.

    Attributes:
        cohort: Sizes of the cohort and of the field's experiment.
        steps: Training steps of every baseline that is trained in steps.
        few: Number of people for calibration, and for the test, of the published procedure, which is slow.
    """

    cohort: study.Plan
    steps: int
    few: int


FULL = Sizes(study.FULL, steps=1500, few=4)
QUICK = Sizes(study.QUICK, steps=1000, few=2)
METHODS: dict[str, FieldOptions] = {  # rows of the field, which share one trained experiment
    "anofield": DetectOptions(also=()),
    "ifl2021": PublishedOptions(),
    FEW: DetectOptions(also=()),
}
SHORTENED = ("ifl2021", FEW)


def method_names() -> list[str]:
    """Names of all methods in the order in which they run; the slow ones come last."""
    return ["anofield", *BUILT_IN, FEW, "ifl2021"]


def run_benchmark(
    out: PathLike,
    sizes: Sizes = FULL,
    methods: Sequence[str] = (),
    *,
    seed: int = 0,
    device: str = "auto",
    force: bool = False,
) -> tuple[Json, str]:
    """Run some or all methods; write `results.json`, `table.md` and `table.tsv` of all that are done.

    Args:
        out: Folder of the benchmark.
        sizes: `FULL` or `QUICK`.
        methods: Names from `method_names`; empty for all.
        seed: Seed of the cohort and of every training.
        device: Device for training and scoring.
        force: Delete an existing benchmark in the folder and start again.

    Returns:
        Content of `results.json`, and the table in Markdown.

    Raises:
        UsageError: A method is unknown, or the folder holds other files, other sizes or another seed.
    """
    out = Path(out)
    unknown = [name for name in methods if name not in method_names()]
    if unknown:
        raise UsageError(f"unknown method {unknown[0]!r}", remedy=f"known: {', '.join(method_names())}")
    study.claim(out, sizes, seed, force, "benchmark")
    bench = Bench(out, sizes, seed, device)
    failures = _failures_before(out)
    wanted = [name for name in method_names() if name in methods or not methods]
    waiting = [name for name in wanted if not bench.row_path(name).is_file()]
    say(f"benchmark: {len(waiting)} of {len(wanted)} methods to run")
    found = _write_results(bench, failures)
    for number, name in enumerate(waiting, start=1):
        say(f"benchmark: {name} ({number} of {len(waiting)})")
        failures.pop(name, None)
        error = _attempt(bench, name)
        if error is not None:
            failures[name] = error
        found = _write_results(bench, failures)
    return found


def _attempt(bench: Bench, name: str) -> str | None:
    """Measure one method; returns the error text if it fails, so that the other methods still run.

    An error that the user cannot fix is reported as a defect, and its traceback is kept in `methods/<method>/`.
    """
    start = time.monotonic()
    try:
        bench.row(name)
    except AnofieldError as error:
        text = str(error)
    except Exception as error:  # noqa: BLE001 - recorded with its traceback
        text = f"{type(error).__name__}: {error} (a defect of anofield, please report it)"
        bench.folder(name).mkdir(parents=True, exist_ok=True)
        write_text(bench.folder(name) / "traceback.txt", traceback.format_exc())
    else:
        say(f"benchmark: {name} done in {time.monotonic() - start:.0f} s")
        return None
    say(f"failed {name}: {text}")
    return text


def _failures_before(out: Path) -> dict[str, str]:
    """Failures that an earlier call recorded."""
    path = out / "results.json"
    return dict(json.loads(path.read_text())["failures"]) if path.is_file() else {}


def _write_results(bench: Bench, failures: dict[str, str]) -> tuple[Json, str]:
    rows = [row for name in method_names() if (row := _read_row(bench.row_path(name))) is not None]
    content = {"seed": bench.seed, "sizes": asdict(bench.sizes), "rows": rows, "failures": failures}
    write_json(bench.out / "results.json", content)
    table = format_markdown(rows, bench.sizes, failures)
    write_text(bench.out / "table.md", table + "\n")
    write_text(bench.out / "table.tsv", format_tsv(rows, failures))
    return content, table


@dataclass(frozen=True)
class Bench:
    """A cohort with its store and its experiment; each is made at first use.

    Attributes:
        out: Folder of the benchmark.
        sizes: Sizes of cohort and training.
        seed: Seed of cohort and training.
        device: Device for training and scoring.
    """

    out: Path
    sizes: Sizes
    seed: int
    device: str

    @cached_property
    def cohorts(self) -> dict[str, list[Case]]:
        """Healthy people for training and calibration, people with lesions for the test."""
        parts = ("train", "calibration", "test")
        return {
            part: study.make_people(self.out / "cohort" / part, part, self.sizes.cohort, self.seed) for part in parts
        }

    @cached_property
    def store(self) -> Store:
        """Store of the training people."""
        return study.make_store(self.cohorts["train"], self.out / "train.zarr", self.sizes.cohort, self.seed)

    @cached_property
    def experiment(self) -> Path:
        """Experiment directory of the trained field."""
        return study.make_experiment(self.out / "experiment", self.store, self.sizes.cohort, self.seed, self.device)

    def row_path(self, name: str) -> Path:
        """File of a method's row."""
        return self.out / "rows" / f"{name}.json"

    def folder(self, name: str) -> Path:
        """Folder with the model, run and results of a method."""
        return self.out / "methods" / name

    def row(self, name: str) -> Json:
        """Measure a method and write its row."""
        folder = self.folder(name)
        method, options, training_seconds = (self._field if name in METHODS else self._baseline)(name, folder)
        results, seconds = self._measure(method, options, folder, self.sizes.few if name in SHORTENED else None)
        kind = find_baseline(name) if name in BUILT_IN else None
        titles = {"title": kind.title, "paper": kind.paper} if kind else FIELD
        row = {"method": name, **titles, **summarise(results, self.seed), "seconds_per_case": seconds,
               "training_seconds": training_seconds, "n_cases": results.n_cases}  # fmt: skip
        write_json(self.row_path(name), row)
        return row

    def _field(self, name: str, folder: Path) -> tuple[Method, RunOptions, float]:
        """The field in a copy of the experiment with its own calibrations, its options and its training seconds."""
        copy = folder / "experiment"
        if not copy.is_dir():
            half = folder / f"{PARTIAL}experiment"
            with writing(copy):
                shutil.rmtree(half, ignore_errors=True)
                shutil.copytree(self.experiment, half, ignore=shutil.ignore_patterns(CALIBRATIONS))
                half.replace(copy)
        timing = [seconds for seconds in Experiment(copy).load().logs.timing if math.isfinite(seconds)]
        return load_model(copy, device=self.device, precision="float32"), METHODS[name], round(float(sum(timing)), 1)

    def _baseline(self, name: str, folder: Path) -> tuple[Method, RunOptions, float]:
        """A baseline trained on the same people, its options and its training seconds."""
        fields = find_baseline(name).settings_type.model_fields
        steps = {"steps": self.sizes.steps} if "steps" in fields else {}
        settings = make_settings(name, {"seed": self.seed, **steps})
        trained = train_baseline(name, self.store, folder / "model", settings, device=self.device)
        return trained, baseline_options(name), trained.info.seconds

    def _measure(self, method: Method, options: RunOptions, folder: Path, few: int | None) -> tuple[Results, float]:
        """Calibrate if needed, detect and evaluate; returns the results and the mean seconds per case."""
        if not is_calibrated(method, options):
            calibrate(self.cohorts["calibration"][:few], method, options)
        run = detect_cases(self.cohorts["test"][:few], method, options, folder / "run")
        study.refuse_failures(run.failures)
        seconds = float(np.mean([sum(case.seconds.values()) for case in run.cases]))
        return evaluate(run.path, None, folder / "results"), round(seconds, 3)


def summarise(results: Results, seed: int = 0) -> Json:
    """Value and 95 % interval of every column for the main score of some results.

    Intervals come from the evaluation. If it gives none, the interval of the mean Dice is bootstrapped over cases, and
    metrics that are pooled over all voxels have none.
    """
    score = results[results.score]
    per_case = np.array([row.dice[score.name] for row in results.rows if score.name in row.dice], float)
    found: Json = {}
    for column, (_, keys) in COLUMNS.items():
        known = next((score.card[key] for key in keys if key in score.card), None)
        values = (getattr(score.figures, key, None) for key in keys)
        value = known.value if known else next((value for value in values if value is not None), float("nan"))
        interval = list(known.ci) if known and known.ci else None
        if interval is None and column == "dice":
            interval = bootstrap_mean(per_case, seed)
        found[column] = {"value": null(value), "ci": interval}
    return found


def bootstrap_mean(values: np.ndarray, seed: int) -> list[float] | None:
    """95 % percentile interval of the mean over cases; None for fewer than two cases."""
    known = values[~np.isnan(values)]
    if known.size < 2:
        return None
    drawn = np.random.default_rng(seed).choice(known, (RESAMPLES, known.size)).mean(axis=1)
    low, high = np.percentile(drawn, (2.5, 97.5))
    return [float(low), float(high)]


def format_markdown(rows: Sequence[Json], sizes: Sizes, failures: Mapping[str, str]) -> str:
    """The table in Markdown: the highest AP first, failed methods last, then a note on the cohort."""
    plan = sizes.cohort
    headings = ["method", *(heading for heading, _ in COLUMNS.values()), "cases", "s per case", "training s"]
    lines = [f"| {' | '.join(headings)} |", "|" + " --- |" * len(headings)]
    for row in sorted(rows, key=lambda row: -(row["ap"]["value"] or 0.0)):
        cells = [_cell(row[column]) for column in COLUMNS]
        times = [str(row["n_cases"]), f"{row['seconds_per_case']:.2f}", f"{row['training_seconds']:.0f}"]
        lines.append(f"| {row['method']} | {' | '.join([*cells, *times])} |")
    lines += [f"| {name} | failed |{' – |' * (len(headings) - 2)}" for name in failures]
    note = (
        f"Phantom cohort: {counted(plan.n_train, 'healthy person', 'healthy people')} for training, "
        f"{plan.n_calibration} for calibration, "
        f"{plan.n_test} with lesions for the test; lattice {plan.resolution}³; [95 % intervals over people]."
    )
    if any(row["method"] in SHORTENED for row in rows):
        note += (
            f" `ifl2021`, the published procedure on the network of `anofield`, uses "
            f"{counted(sizes.few, 'person', 'people')} for calibration and {sizes.few} for the test: "
            f"compare it with `{FEW}`, which uses the same people."
        )
    reasons = [f"`{name}` failed: {' '.join(text.split())}" for name, text in failures.items()]
    return "\n\n".join(["\n".join(lines), note, *reasons])


def format_tsv(rows: Sequence[Json], failures: Mapping[str, str]) -> str:
    """The table as tab-separated text, with one number per cell."""
    head = [part for column in COLUMNS for part in (column, f"{column}_low", f"{column}_high")]
    lines = ["\t".join(["method", *head, "n_cases", "seconds_per_case", "training_seconds", "paper", "failure"])]
    for row in rows:
        numbers = [n for c in COLUMNS for n in (row[c]["value"], *(row[c]["ci"] or (None, None)))]
        cells = ["n/a" if number is None else f"{number:.4f}" for number in numbers]
        others = [row[key] for key in ("n_cases", "seconds_per_case", "training_seconds", "paper")]
        lines.append("\t".join([row["method"], *cells, *map(str, others), ""]))
    missing = ["n/a"] * (len(head) + 4)
    lines += ["\t".join([name, *missing, " ".join(text.split())]) for name, text in failures.items()]
    return "\n".join(lines) + "\n"


def _cell(figure: Json) -> str:
    if figure["value"] is None:
        return "–"
    interval = figure["ci"]
    return f"{figure['value']:.3f}" + (f" [{interval[0]:.3f}, {interval[1]:.3f}]" if interval else "")


def _read_row(path: Path) -> Json | None:
    row: Json | None = json.loads(path.read_text()) if path.is_file() else None
    return row
