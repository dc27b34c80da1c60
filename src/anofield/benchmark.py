"""Every method on one phantom cohort: trained on the same store, calibrated on the same people, one table.

`benchmark.json` holds the sizes, `results.json` and `table.*` what was measured so far. `rows/<method>.json` is written
when a method is done, so a benchmark that was stopped goes on where it was.
"""

from __future__ import annotations

import json
import shutil
import time
import traceback
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from functools import cached_property, partial
from pathlib import Path

import numpy as np

from anofield import study
from anofield._files import write_json, write_text, writing
from anofield._progress import say
from anofield._words import counted
from anofield.baselines.registry import BUILT_IN, find_baseline
from anofield.baselines.run import TrainedBaseline, baseline_options, load_baseline, make_settings, train_baseline
from anofield.data.cohort.case import Case
from anofield.data.store import Store
from anofield.detect.calibrate import calibrate
from anofield.detect.calibration import CALIBRATIONS
from anofield.detect.method import RunOptions, Scorer
from anofield.detect.run import DetectOptions, detect_cases, write_run
from anofield.detect.run_folder import read_case
from anofield.detect.thresholds import is_calibrated
from anofield.errors import AnofieldError, UsageError
from anofield.evaluate.evaluate import evaluate, plain
from anofield.field.experiment import Experiment
from anofield.field.model import Model, load_model
from anofield.typing import Json, PathLike

RESAMPLES = 1000  # of the bootstrap, where the evaluation gives no interval
COLUMNS: dict[str, tuple[str, tuple[str, ...]]] = {  # column → heading, names of the metric in results.json
    "ap": ("AP", ("ap",)),
    "auroc": ("AUROC", ("auroc",)),
    "dice": ("Dice (healthy-calibrated)", ("dice_calibrated", "dice_calibrated_mean")),
    "dice_oracle": ("Dice (oracle: best threshold on the test labels)", ("dice_oracle_pooled", "dice_oracle")),
}
FEW = "anofield-few"  # the field on the people that the published procedure is given, so that the two can be compared
FIELD = {"title": "implicit field", "paper": "Naval Marimont & Tarroni 2021 (arXiv 2106.05214)"}


@dataclass(frozen=True)
class Sizes:
    """Sizes of a benchmark.

    Attributes:
        cohort: Of the cohort and of the field's experiment.
        steps: Of every baseline that is trained by steps.
        few: People for calibration, and for the test, that the published procedure is given: it takes long.
    """

    cohort: study.Plan
    steps: int
    few: int


FULL = Sizes(study.FULL, steps=1500, few=4)
QUICK = Sizes(study.QUICK, steps=1000, few=2)
METHODS: dict[str, DetectOptions] = {  # the field's own rows, all with the one experiment that is trained for them
    "anofield": DetectOptions(also=()),
    "ifl2021": DetectOptions.published(),
    FEW: DetectOptions(also=()),
}
SHORTENED = ("ifl2021", FEW)


def method_names() -> list[str]:
    """Every method, in the order in which they are run: what takes long comes last."""
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
        methods: Of `method_names`; empty for all.
        seed: Of the cohort and of every training.
        device: Where to train and to score.
        force: Start anew.

    Returns:
        Content of `results.json`, and the table in Markdown.

    Raises:
        UsageError: An unknown method, or the folder holds something else.
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
    """Measure one method; what went wrong, for one that cannot run leaves the others their rows.

    A defect is told from an error that the user can mend, and its traceback kept in `methods/<method>/`.
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
    """Failures that an earlier start recorded."""
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
    """One cohort and what was made of it so far; each part is made when it is first asked for.

    Attributes:
        out: Folder of the benchmark.
        sizes: Of cohort and training.
        seed: Of both.
        device: Where to train and to score.
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
        """The training people, prepared."""
        return study.make_store(self.cohorts["train"], self.out / "train.zarr", self.sizes.cohort, self.seed)

    @cached_property
    def experiment(self) -> Path:
        """The trained field."""
        return study.make_experiment(self.out / "experiment", self.store, self.sizes.cohort, self.seed, self.device)

    def row_path(self, name: str) -> Path:
        """Where the row of a method lies."""
        return self.out / "rows" / f"{name}.json"

    def folder(self, name: str) -> Path:
        """Model, run and results of a method."""
        return self.out / "methods" / name

    def row(self, name: str) -> Json:
        """Measure a method and write its row."""
        folder = self.folder(name)
        open_, options = self._field(name, folder) if name in METHODS else self._baseline(name, folder)
        results, seconds = self._measure(open_, options, folder, self.sizes.few if name in SHORTENED else None)
        kind = find_baseline(name) if name in BUILT_IN else None
        titles = {"title": kind.title, "paper": kind.paper} if kind else FIELD
        row = {"method": name, **titles, **summarise(results, self.seed), "seconds_per_case": seconds,
               "training_seconds": self._training_seconds(open_()), "n_cases": results["n_cases"]}  # fmt: skip
        write_json(self.row_path(name), plain(row))
        return plain(row)

    def _field(self, name: str, folder: Path) -> tuple[Callable[[], Model], RunOptions]:
        """A copy of the experiment, for every way to detect has its own calibration."""
        copy = folder / "experiment"
        if not copy.is_dir():
            half = folder / ".partial-experiment"
            with writing(copy):
                shutil.rmtree(half, ignore_errors=True)
                shutil.copytree(self.experiment, half, ignore=shutil.ignore_patterns(CALIBRATIONS))
                half.replace(copy)
        return partial(load_model, copy, device=self.device), METHODS[name]

    def _baseline(self, name: str, folder: Path) -> tuple[Callable[[], Scorer], RunOptions]:
        fields = find_baseline(name).settings_type.model_fields
        steps = {"steps": self.sizes.steps} if "steps" in fields else {}
        settings = make_settings(name, {"seed": self.seed, **steps})
        train_baseline(name, self.store, folder / "model", settings, device=self.device)
        return partial(load_baseline, folder / "model", device=self.device), baseline_options(name)

    def _measure(
        self, open_: Callable[[], Model | Scorer], options: RunOptions, folder: Path, few: int | None
    ) -> tuple[Json, float]:
        """Calibrate unless that is done, detect and evaluate; the results and the mean seconds per case."""
        opened = open_()
        if not is_calibrated(opened, options):
            calibrate(self.cohorts["calibration"][:few], opened, options)
            opened = open_()
        run, cases = folder / "run", self.cohorts["test"][:few]
        outcomes = detect_cases(cases, opened, options, run)
        study.all_done(outcomes)
        write_run(run, opened, options, outcomes, 0.0, f"anofield benchmark --seed {self.seed}")
        abouts = [read_case(run / case.id) or {} for case in cases]
        seconds = float(np.mean([sum(about["seconds"].values()) for about in abouts]))
        return evaluate(run, None, folder / "results"), round(seconds, 3)

    def _training_seconds(self, opened: Model | Scorer) -> float:
        """As a baseline recorded it; of the field, from the log of its epochs."""
        if isinstance(opened, TrainedBaseline):
            return opened.training_seconds
        return round(float(sum(Experiment(opened.path).load().logs.timing)), 1)


def summarise(results: Json, seed: int = 0) -> Json:
    """Value and 95 % interval of every column, of the main score of some results.

    Intervals are the evaluation's; where it gives none, those of the mean over cases are bootstrapped, and metrics
    that are pooled over all voxels have none.
    """
    name = results["score"]
    card = (results.get("card") or {}).get(name, {})
    per_case = np.array([row["dice"][name] for row in results["cases"] if np.isscalar(row["dice"].get(name))], float)
    found: Json = {}
    for column, (_, keys) in COLUMNS.items():
        known = next((card[key] for key in keys if isinstance(card.get(key), dict)), None)
        value = next((results["scores"][name][key] for key in keys if key in results["scores"][name]), float("nan"))
        interval = known.get("ci") if known else None
        if known and known.get("value") is not None:
            value = known["value"]
        if interval is None and column == "dice":
            interval = bootstrap_mean(per_case, seed)
        found[column] = {"value": value, "ci": interval}
    return found


def bootstrap_mean(values: np.ndarray, seed: int) -> list[float] | None:
    """95 % percentile interval of the mean over cases; None for fewer than two."""
    known = values[~np.isnan(values)]
    if known.size < 2:
        return None
    drawn = np.random.default_rng(seed).choice(known, (RESAMPLES, known.size)).mean(axis=1)
    low, high = np.percentile(drawn, (2.5, 97.5))
    return [float(low), float(high)]


def format_markdown(rows: Sequence[Json], sizes: Sizes, failures: Mapping[str, str]) -> str:
    """The table, the highest AP first, what failed last, and what it was measured on."""
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
            f" `ifl2021`, the published procedure on the network of `anofield`, is given "
            f"{counted(sizes.few, 'person', 'people')} for calibration and {sizes.few} for the test: "
            f"compare it with `{FEW}`, which is given the same."
        )
    reasons = [f"`{name}` failed: {' '.join(text.split())}" for name, text in failures.items()]
    return "\n\n".join(["\n".join(lines), note, *reasons])


def format_tsv(rows: Sequence[Json], failures: Mapping[str, str]) -> str:
    """The same with every number apart."""
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
