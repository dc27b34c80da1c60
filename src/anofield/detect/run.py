"""Detection in a cohort: writes a run folder, skips finished cases and records failing ones."""

from __future__ import annotations

import shlex
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from importlib.metadata import version
from pathlib import Path

from anofield._files import write_json, writing
from anofield._progress import say
from anofield._version import __version__
from anofield._words import counted
from anofield.data.brain import as_stripped
from anofield.data.cohort.case import Case, cohort_of, part_of
from anofield.data.parallel import HERE, Failure, Outcome, Spread, failures_of, map_cases, write_failures
from anofield.detect.calibration import Calibrated, look_up
from anofield.detect.detection import Detection, case_key, detect_scan
from anofield.detect.method import Method
from anofield.detect.options import RunOptions
from anofield.detect.run_folder import CASE_FILE, RUN_FILE, CaseInfo, RunInfo, Threshold, read_case, whole
from anofield.detect.scores import SCAN_SCORES, load_scores
from anofield.typing import Json, PathLike

LIBRARIES = ("numpy", "scipy", "nibabel", "torch", "zarr")  # libraries that results depend on


@dataclass(frozen=True, kw_only=True)
class Run:
    """A run folder and the results of the last call.

    Attributes:
        path: Path of the folder.
        info: Content of `run.json`.
        cases: Results of the finished cases of this call.
        failures: Failed cases of this call, with their errors.
    """

    path: Path
    info: RunInfo
    cases: tuple[CaseInfo, ...]
    failures: tuple[Failure, ...]

    def plain(self) -> Json:
        """Content of `run.json` and of every `case.json` under `results`, as plain values."""
        return {**self.info.model_dump(mode="json"), "results": [case.model_dump(mode="json") for case in self.cases]}

    def __repr__(self) -> str:
        failed = f", {len(self.failures)} failed" if self.failures else ""
        return f"Run({self.path}: {counted(len(self.info.cases), 'case')} by {self.info.score}{failed})"


@dataclass(frozen=True, kw_only=True)
class Work:
    """Work on one case, as sent to workers: it changes nothing outside the folder of the case.

    Attributes:
        method: The field or a baseline.
        options: Options of the run.
        calibrated: The calibration in use; None for only anomaly maps.
        out: Folder of the run.
        force: Detect again in finished cases.
    """

    method: Method
    options: RunOptions
    calibrated: Calibrated | None
    out: Path
    force: bool = field(default=False)

    def __call__(self, case: Case) -> CaseInfo:
        """Detect in one case and write its folder, unless the folder is up to date."""
        folder = self.out / case.id
        done = None if self.force else read_case(folder)
        if done is not None and done.key == self.key(case) and whole(folder, done):
            return done
        return detect_case(case, self.method, self.options, self.calibrated).save(folder)

    def key(self, case: Case) -> str:
        """Hash of everything that the case's result depends on."""
        return case_key(case, None, self.method, self.options, self.calibrated)

    def finished(self, cases: Sequence[Case]) -> set[str]:
        """Ids of the finished cases that are up to date; reports the number of those that are out of date."""
        done = {case: info for case in cases if (info := read_case(self.out / case.id)) is not None}
        same = {case for case, info in done.items() if info.key == self.key(case)}
        if strange := len(done) - len(same):
            text = f"{counted(strange, 'finished case')} of another procedure, model, precision or scan"
            say(f"{self.out}: {text} left out of run.json; detect with these options to update the run")
        return {case.id for case in same if whole(self.out / case.id, done[case])}


def detect_case(case: Case, method: Method, options: RunOptions, calibrated: Calibrated | None) -> Detection:
    """Detect anomalies in one scan file.

    Args:
        case: The scan.
        method: The field or a baseline.
        options: Options of the run.
        calibrated: Calibration from `anofield.detect.calibration.look_up`; None for only an anomaly map.

    Raises:
        ScanError: The scan or its mask cannot be used.
    """
    native = as_stripped(case.image, case.mask, dtype=method.recipe.kind.dtype)
    return detect_scan(case, native, method, options, calibrated)


def detect_cases(
    cases: Sequence[Case],
    method: Method,
    options: RunOptions,
    out: PathLike,
    *,
    part: str | None = None,
    force: bool = False,
    spread: Spread = HERE,
) -> Run:
    """Detect in every case and write the run folder; finished cases are skipped, failing ones recorded.

    If a case fails that an earlier call had finished, its `case.json` is removed, so it no longer counts as finished.

    Args:
        cases: The cohort.
        method: The field or a baseline.
        options: Options of the run.
        out: Folder of the run: `run.json`, `failures.json`, and a folder per case.
        part: `K/N` takes the K-th of N parts of the cohort, for job arrays; `run.json` lists all finished cases.
        force: Detect again in finished cases.
        spread: Local processes or scheduler that process the cases; the workers of a scheduler must see `out` and the
            scans.

    Raises:
        CohortError: Two cases have the same id, or an id cannot name a folder.
        UsageError: The method was calibrated only with other options, or an installed score of the options is broken.
        ExperimentError: The calibration is damaged.
        MachineError: The folder cannot be written.
    """
    start, out, cases = time.monotonic(), Path(out).absolute(), cohort_of(cases)
    load_scores(options)
    work = Work(method=method, options=options, calibrated=look_up(method, options), out=out, force=force)
    with writing(out):
        out.mkdir(parents=True, exist_ok=True)
    mine, suffix = part_of(cases, part)
    outcomes = [_unmarked(outcome, out) for outcome in map_cases(work, mine, spread=spread, label="detect")]
    done = [outcome.value for outcome in outcomes if outcome.value is not None]
    others = work.finished([case for case in cases if case not in set(mine)])
    info = _info(work, sorted({case.id for case in done} | others), time.monotonic() - start)
    write_json(out / RUN_FILE, info)
    failures = failures_of(outcomes)
    write_failures(out / f"failures{suffix}.json", failures)
    return Run(path=out, info=info, cases=tuple(done), failures=tuple(failures))


def _unmarked(outcome: Outcome[CaseInfo], out: Path) -> Outcome[CaseInfo]:
    """Return the outcome; if it is a failure, remove the `case.json` of an earlier call."""
    if outcome.failure is not None:
        with writing(out):
            (out / outcome.case.id / CASE_FILE).unlink(missing_ok=True)
    return outcome


def _info(work: Work, cases: list[str], seconds: float) -> RunInfo:
    options, calibrated, method = work.options, work.calibrated, work.method
    threshold = None
    if calibrated is not None and calibrated.threshold is not None:
        threshold = Threshold(value=calibrated.threshold, quantile=calibrated.quantile, meaning=calibrated.meaning)
    return RunInfo(
        anofield=__version__,
        created=time.strftime("%Y-%m-%dT%H:%M:%S%z"),
        command=_command(),
        experiment=str(method.path),
        model_hash=method.hash,
        score=options.score,
        scores=options.names,
        baselines=[name for name in options.names if name in SCAN_SCORES],
        options=options.model_dump(mode="json"),
        recipe=method.recipe,
        threshold=threshold,
        thresholds=dict(calibrated.thresholds) if calibrated else {},
        device=str(method.device),
        precision=method.precision,
        versions={name: version(name) for name in LIBRARIES},
        cases=cases,
        seconds=round(seconds, 2),
    )


def _command() -> str:
    """The command line as typed; in Python, the name of the program and its arguments."""
    return shlex.join([Path(sys.argv[0]).name, *sys.argv[1:]])
