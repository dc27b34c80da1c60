"""Every method on one phantom cohort: trained on the same store, calibrated on the same people, one table.

`benchmark.json` holds the sizes, `results.json` and `table.*` what was measured. `rows/<method>.json` is written when a
method is done, so a benchmark that was stopped goes on where it was.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from functools import cached_property, partial
from pathlib import Path

import numpy as np

from anofield import demo
from anofield._progress import say
from anofield.baselines.registry import BUILT_IN, find_baseline
from anofield.baselines.run import TrainedBaseline, baseline_options, load_baseline, make_settings, train_baseline
from anofield.calibrate import calibrate
from anofield.calibrations import CALIBRATIONS, SINGLE_FILE
from anofield.cohort import Case
from anofield.detect import DetectOptions, detect_cases, read_case, write_run
from anofield.errors import AnofieldError, UsageError
from anofield.evaluate import evaluate, plain
from anofield.experiment import Experiment
from anofield.model import Model, load_model
from anofield.scan import write_json, writing
from anofield.scorer import RunOptions, Scorer
from anofield.store import Store
from anofield.thresholds import is_calibrated
from anofield.typing import Json, PathLike

RESAMPLES = 1000  # of the bootstrap, where the evaluation gives no interval
COLUMNS: dict[str, tuple[str, tuple[str, ...]]] = {  # column → heading, names of the metric in results.json
    "ap": ("AP", ("ap",)),
    "auroc": ("AUROC", ("auroc",)),
    "dice": ("Dice (healthy-calibrated)", ("dice_calibrated", "dice_calibrated_mean")),
    "dice_oracle": ("Dice (oracle: best threshold on the test labels)", ("dice_oracle_pooled", "dice_oracle")),
}


@dataclass(frozen=True)
class Sizes:
    """Sizes of a benchmark.

    Attributes:
        cohort: Of the cohort and of the field's experiment.
        steps: Of every baseline that is trained by steps.
    """

    cohort: demo.Plan
    steps: int


FULL = Sizes(demo.FULL, steps=2000)
QUICK = Sizes(demo.QUICK, steps=1000)


def anofield_methods() -> dict[str, DetectOptions]:
    """The field's own rows: name → how it detects; all with the one experiment that is trained for them."""
    return {"anofield": DetectOptions(also=()), "ifl2021 (published)": DetectOptions.published()}


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
        methods: Names of baselines and of `anofield_methods`; empty for all.
        seed: Of the cohort and of every training.
        device: Where to train and to score.
        force: Start anew.

    Returns:
        Content of `results.json`, and the table in Markdown.

    Raises:
        UsageError: An unknown method, or the folder holds something else.
    """
    out = Path(out)
    every = [*anofield_methods(), *BUILT_IN]
    unknown = [name for name in methods if name not in every]
    if unknown:
        raise UsageError(f"unknown method {unknown[0]!r}", remedy=f"known: {', '.join(every)}")
    demo.claim(out, sizes, seed, force, "benchmark")
    bench = Bench(out, sizes, seed, device)
    failures = {}
    for name in methods or every:
        try:
            bench.row(name)
        except AnofieldError as error:  # one that cannot run, for want of MONAI say, leaves the others their rows
            failures[name] = str(error)
            say(f"failed {name}: {error}")
    rows = [row for name in every if (row := _read_row(bench.row_path(name))) is not None]
    content = {"seed": seed, "sizes": asdict(sizes), "rows": rows, "failures": failures}
    write_json(out / "results.json", content)
    table = format_markdown(rows, sizes)
    _write(out / "table.md", table + "\n")
    _write(out / "table.tsv", format_tsv(rows))
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
            part: demo.make_people(self.out / "cohort" / part, part, self.sizes.cohort, self.seed) for part in parts
        }

    @cached_property
    def store(self) -> Store:
        """The training people, prepared."""
        return demo.make_store(self.cohorts["train"], self.out / "train.zarr", self.sizes.cohort, self.seed)

    @cached_property
    def experiment(self) -> Path:
        """The trained field."""
        return demo.make_experiment(self.out / "experiment", self.store, self.sizes.cohort, self.seed, self.device)

    def row_path(self, name: str) -> Path:
        """Where the row of a method lies."""
        return self.out / "rows" / f"{_slug(name)}.json"

    def row(self, name: str) -> Json:
        """The row of a method, measured if it is not yet."""
        done = _read_row(self.row_path(name))
        if done is not None:
            return done
        say(f"benchmark: {name}")
        folder = self.out / "methods" / _slug(name)
        open_, options = self._field(name, folder) if name in anofield_methods() else self._baseline(name, folder)
        results, seconds = self._measure(open_, options, folder)
        titles = {"title": "implicit field", "paper": "Naval Marimont & Tarroni 2021 (arXiv 2106.05214)"}
        if name in BUILT_IN:
            kind = find_baseline(name)
            titles = {"title": kind.title, "paper": kind.paper}
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
                shutil.copytree(self.experiment, half, ignore=shutil.ignore_patterns(CALIBRATIONS, SINGLE_FILE))
                half.replace(copy)
        return partial(load_model, copy, device=self.device), anofield_methods()[name]

    def _baseline(self, name: str, folder: Path) -> tuple[Callable[[], Scorer], RunOptions]:
        fields = find_baseline(name).settings_type.model_fields
        steps = {"steps": self.sizes.steps} if "steps" in fields else {}
        settings = make_settings(name, {"seed": self.seed, **steps})
        train_baseline(name, self.store, folder / "model", settings, device=self.device)
        return partial(load_baseline, folder / "model", device=self.device), baseline_options(name)

    def _measure(self, open_: Callable[[], Model | Scorer], options: RunOptions, folder: Path) -> tuple[Json, float]:
        """Calibrate unless that is done, detect and evaluate; the results and the mean seconds per case."""
        opened = open_()
        if not is_calibrated(opened, options):
            calibrate(self.cohorts["calibration"], opened, options)
            opened = open_()
        run = folder / "run"
        outcomes = detect_cases(self.cohorts["test"], opened, options, run)
        demo.all_done(outcomes)
        write_run(run, opened, options, outcomes, 0.0, f"anofield benchmark --seed {self.seed}")
        abouts = [read_case(run / case.id) or {} for case in self.cohorts["test"]]
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


def format_markdown(rows: Sequence[Json], sizes: Sizes) -> str:
    """The table, the highest AP first, and what it was measured on."""
    plan = sizes.cohort
    headings = ["method", *(heading for heading, _ in COLUMNS.values()), "s per case", "training s"]
    lines = [f"| {' | '.join(headings)} |", "|" + " --- |" * len(headings)]
    for row in sorted(rows, key=lambda row: -(row["ap"]["value"] or 0.0)):
        cells = [_cell(row[column]) for column in COLUMNS]
        times = [f"{row['seconds_per_case']:.2f}", f"{row['training_seconds']:.0f}"]
        lines.append(f"| {row['method']} | {' | '.join([*cells, *times])} |")
    note = (
        f"Phantom cohort: {plan.n_train} healthy people for training, {plan.n_calibration} for calibration, "
        f"{plan.n_test} with lesions for the test; lattice {plan.resolution}³; [95 % intervals]."
    )
    return "\n".join([*lines, "", note])


def format_tsv(rows: Sequence[Json]) -> str:
    """The same with every number apart."""
    head = [part for column in COLUMNS for part in (column, f"{column}_low", f"{column}_high")]
    lines = ["\t".join(["method", *head, "seconds_per_case", "training_seconds", "paper"])]
    for row in rows:
        numbers = [n for c in COLUMNS for n in (row[c]["value"], *(row[c]["ci"] or (None, None)))]
        cells = ["n/a" if number is None else f"{number:.4f}" for number in numbers]
        lines.append("\t".join([row["method"], *cells, str(row["seconds_per_case"]), str(row["training_seconds"]),
                                row["paper"]]))  # fmt: skip
    return "\n".join(lines) + "\n"


def _cell(figure: Json) -> str:
    if figure["value"] is None:
        return "–"
    interval = figure["ci"]
    return f"{figure['value']:.3f}" + (f" [{interval[0]:.3f}, {interval[1]:.3f}]" if interval else "")


def _read_row(path: Path) -> Json | None:
    row: Json | None = json.loads(path.read_text()) if path.is_file() else None
    return row


def _slug(name: str) -> str:
    return name.replace(", ", "-").replace(" ", "-")


def _write(path: Path, text: str) -> None:
    partial = path.with_name(f".partial-{path.name}")
    with writing(path, partial):
        partial.write_text(text)
        partial.replace(path)
