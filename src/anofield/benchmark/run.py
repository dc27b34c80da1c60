"""Runs the rows of suites and keeps their tables up to date; several processes may work in one folder."""

from __future__ import annotations

import json
import time
import traceback
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np

from anofield import study
from anofield._files import write_json, write_text
from anofield._locks import take
from anofield._progress import say
from anofield._words import counted
from anofield.baselines.registry import find_baseline
from anofield.baselines.run import baseline_options
from anofield.benchmark.measure import MappedScan, measure, see
from anofield.benchmark.rows import PUBLISHED, MethodRow, all_rows, chosen_rows
from anofield.benchmark.sizes import FULL, Sizes, kind_of_seed
from anofield.benchmark.suite import Part, Setting, Suite
from anofield.benchmark.suites import SUITES, chosen_suites
from anofield.benchmark.tables import format_markdown, format_tsv, sorted_rows
from anofield.benchmark.world import FOREVER, Trained
from anofield.data.cohort.case import Case
from anofield.detect.calibrate import calibrate
from anofield.detect.calibration import Calibrated, is_calibrated, look_up
from anofield.detect.method import Method
from anofield.detect.options import DetectOptions, PublishedOptions, RunOptions
from anofield.errors import AnofieldError
from anofield.typing import Json, PathLike

FIELD_TITLE = {"title": "implicit field", "paper": "Naval Marimont & Tarroni 2021 (arXiv 2106.05214)"}


def run_benchmark(
    out: PathLike,
    sizes: Sizes = FULL,
    suites: Sequence[str] = (),
    methods: Sequence[str] = (),
    *,
    seed: int = 0,
    device: str = "auto",
    force: bool = False,
) -> tuple[Json, str]:
    """Run some or all suites with some or all methods; rows that are done are skipped.

    A second process with the same arguments shares the work: each takes the rows at which no other process is.

    Args:
        out: Folder of the benchmark.
        sizes: `FULL` or `QUICK`.
        suites: Names from `SUITES`, or `real` for all on real brains; empty for all that can run here.
        methods: Names of rows; empty for all.
        seed: Seed of the people and of every training.
        device: Device for training and scoring.
        force: Delete an existing benchmark in the folder and start again.

    Returns:
        Contents of `results.json` by suite, and all tables in Markdown.

    Raises:
        UsageError: A suite or method is unknown, or the folder holds other files, other sizes or another seed.
    """
    out, rows, names = Path(out), chosen_rows(tuple(methods)), chosen_suites(suites)
    study.claim(out, sizes, seed, force, "benchmark")
    setting = Setting(out=out, sizes=sizes, seed=seed, device=device)
    runs = _usable([SUITES[name](setting) for name in names], setting)
    began = time.time()
    for wait in (False, True):
        for one in runs:
            one.run([row for row in rows if one.suite.has(row)], began, wait=wait)
    found = {one.suite.name: one.write() for one in runs}
    contents = {name: content for name, (content, _) in found.items()}
    return contents, "\n\n".join(table for _, table in found.values())


def _usable(suites: Sequence[Suite], setting: Setting) -> list[SuiteRun]:
    """Runs of the suites that can run here; the others are named with their reason."""
    for suite in suites:
        if suite.missing:
            say(f"benchmark: suite {suite.name} is skipped: {suite.missing}")
    return [SuiteRun(suite, setting) for suite in suites if not suite.missing]


@dataclass(frozen=True)
class SuiteRun:
    """The run of a suite in its folder `OUT/SUITE`.

    Attributes:
        suite: The suite.
        setting: Folder, sizes, seed and device.
    """

    suite: Suite
    setting: Setting

    @property
    def folder(self) -> Path:
        """Folder of the suite."""
        return self.setting.out / self.suite.name

    def row_path(self, name: str) -> Path:
        """File of a row that is done."""
        return self.folder / "rows" / f"{name}.json"

    def failure_path(self, name: str) -> Path:
        """File of a row that failed, with the error text."""
        return self.folder / "failed" / f"{name}.json"

    def run(self, rows: Sequence[MethodRow], began: float, *, wait: bool) -> None:
        """Measure the rows that are not done.

        Args:
            rows: The rows.
            began: When this process began, seconds since 1970.
            wait: Whether to wait for rows at which another process is, or to leave them out.
        """
        missing = [row for row in rows if not self._settled(row.name, began)]
        if not wait or missing:
            say(f"benchmark: {self.suite.name}: {len(missing)} of {counted(len(rows), 'method')} to run")
        for number, row in enumerate(missing, start=1):
            lock = take(self.folder / "rows" / f".{row.name}.lock", FOREVER if wait else 0.0)
            try:
                if lock.state != "busy" and not self._settled(row.name, began):
                    self._attempt(row, f"{self.suite.name}: {row.name} ({number} of {len(missing)})")
                    self.write()
            finally:
                lock.release()

    def _settled(self, name: str, began: float) -> bool:
        """Whether a row is done, or another process has failed at it since `began` (seconds since 1970)."""
        failed = self.failure_path(name)
        return self.row_path(name).is_file() or (failed.is_file() and failed.stat().st_mtime >= began)

    def _attempt(self, row: MethodRow, label: str) -> None:
        """Measure one row. If it fails, its error is kept and the other rows still run.

        An error that the user cannot fix is reported as a defect, and its traceback is kept as well.
        """
        say(f"benchmark: {label}")
        start, failed = time.monotonic(), self.failure_path(row.name)
        try:
            content = self.measured(row)
        except AnofieldError as error:
            text = str(error)
        except Exception as error:  # noqa: BLE001 - recorded with its traceback
            text = f"{type(error).__name__}: {error} (a defect of anofield, please report it)"
            write_text(failed.with_suffix(".traceback.txt"), traceback.format_exc())
        else:
            write_json(self.row_path(row.name), content)
            failed.unlink(missing_ok=True)
            failed.with_suffix(".traceback.txt").unlink(missing_ok=True)
            say(f"benchmark: {self.suite.name}: {row.name} done in {time.monotonic() - start:.0f} s")
            return
        write_json(failed, {"error": text})
        say(f"failed {row.name}: {text}")

    def measured(self, row: MethodRow) -> Json:
        """Train, calibrate, score and measure one row; returns the content of its file."""
        parts: dict[str, Json] = {}
        last: tuple[object, list[MappedScan]] = (None, [])
        seconds: dict[str, float] = {}
        for part in self.suite.parts:
            world, options = part.world or self.suite.world, options_of(row, part)
            trained = world.trained(row)
            seconds[world.name] = trained.seconds
            calibrated = self._calibrated(row, trained, part, options)
            key = (world.name, part.test, options, part.calibration if options.filters.standardise else None)
            if last[0] != key:
                groups = {group.name: self._some(row, world.cases(group)) for group in part.test}
                last = (key, see(groups, trained.method, options, calibrated))
            parts[part.name] = self._part(last[1], part, options, calibrated)
        kind = None if row.is_field else find_baseline(row.method)
        about = {"title": kind.title, "paper": kind.paper} if kind else FIELD_TITLE
        return {
            "name": row.name,
            **about,
            "parts": parts,
            "n_cases": max(len(part["people"]) for part in parts.values()),
            "seconds_per_case": round(float(np.mean([part["seconds_per_case"] for part in parts.values()])), 3),
            "training_seconds": sum(seconds.values()),
        }

    def _calibrated(self, row: MethodRow, trained: Trained, part: Part, options: RunOptions) -> Calibrated:
        world = part.world or self.suite.world
        method = world.calibrated_on(row, trained.method, part.calibration)
        if not is_calibrated(method, options):
            calibrate(self._some(row, world.cases(part.calibration)), method, options)
        return _looked_up(method, options)

    def _some(self, row: MethodRow, cases: list[Case]) -> list[Case]:
        return cases[: self.setting.sizes.few] if row.few else cases

    def _part(self, seen: Sequence[MappedScan], part: Part, options: RunOptions, calibrated: Calibrated) -> Json:
        figures = measure(seen, options, calibrated, self.setting.seed, part.more)
        rank = self.suite.rank
        return {
            "figures": {name: figure.plain() for name, figure in figures.items()},
            "samples": {rank: figures[rank].plain_samples()},
            "people": [one.case.id for one in seen],
            "reasons": {one.case.id: list(one.verdict.reasons) for one in seen if one.verdict.reasons},
            "seconds_per_case": round(float(np.mean([one.seconds for one in seen])), 3),
        }

    def write(self) -> tuple[Json, str]:
        """Write `results.json`, and the table as Markdown and tab-separated, of all rows that are done so far."""
        names = [row.name for row in all_rows() if self.suite.has(row)]
        rows = [_read(path) for name in names if (path := self.row_path(name)).is_file()]
        done = {row["name"] for row in rows}
        failures = {name: _read(path)["error"] for name in names
                    if name not in done and (path := self.failure_path(name)).is_file()}  # fmt: skip
        sizes, seed = self.setting.sizes, self.setting.seed
        content = {
            "suite": self.suite.name,
            "seed": seed,
            "use_of_seed": kind_of_seed(seed),
            "sizes": asdict(sizes),
            "rows": [_without_samples(row) for row in sorted_rows(self.suite, rows)],
            "failures": failures,
        }
        table = format_markdown(self.suite, rows, failures, sizes, seed)
        write_json(self.folder / "results.json", content)
        write_text(self.setting.out / f"{self.suite.name}.md", table + "\n")
        write_text(self.setting.out / f"{self.suite.name}.tsv", format_tsv(self.suite, rows, failures))
        return content, table


def options_of(row: MethodRow, part: Part) -> RunOptions:
    """Options of a row in a part: the same filters for all but the published procedure."""
    if row.method == PUBLISHED:
        return PublishedOptions()
    if row.is_field:
        return DetectOptions(also=(), fit=part.fit, filters=part.filters)
    return baseline_options(row.method, part.filters)


def _looked_up(method: Method, options: RunOptions) -> Calibrated:
    """The calibration, which exists."""
    found = look_up(method, options)
    if found is None:
        raise AnofieldError("the calibration is gone", where=method.path, remedy="start the benchmark again")
    return found


def _read(path: Path) -> Json:
    content: Json = json.loads(path.read_text())
    return content


def _without_samples(row: Json) -> Json:
    parts = {
        name: {key: value for key, value in part.items() if key != "samples"} for name, part in row["parts"].items()
    }
    return {**row, "parts": parts}
