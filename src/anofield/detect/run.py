"""Detection in a cohort: writes a run folder, skips finished cases and records failing ones.

One run has one identity: the hash of everything that results depend on besides the scans. `run.json` holds it before
the first case is written, and every `case.json` holds it, so a run that is stopped half-way never mixes results of two
models or two sets of options.
"""

from __future__ import annotations

import contextlib
import errno
import shlex
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from importlib.metadata import version
from pathlib import Path

from anofield._files import PARTIAL, sealed, write_json, writing
from anofield._progress import say
from anofield._version import __version__
from anofield._words import counted
from anofield.data.brain import as_stripped
from anofield.data.cohort.case import Case, cohort_of, part_of, printable
from anofield.data.parallel import HERE, Failure, Outcome, Spread, failures_of, map_cases, write_failures
from anofield.detect.calibration import Calibrated, look_up
from anofield.detect.cases_table import CASES_FILE, write_cases
from anofield.detect.detection import Detection, detect_scan
from anofield.detect.identity import Sources, identity_of
from anofield.detect.method import Method
from anofield.detect.open_run import OpenRun, open_run, seen_among, seen_notice
from anofield.detect.options import RunOptions
from anofield.detect.plans import alone, drop_plans, held, refuse_running
from anofield.detect.run_folder import (
    CASE_FILE,
    FAILURES,
    RUN_FILE,
    CaseInfo,
    RunInfo,
    Threshold,
    read_case,
    read_run,
    whole,
)
from anofield.detect.scores import SCAN_SCORES, load_scores
from anofield.detect.seen import say_if_unknown
from anofield.detect.tail import say_other_contrasts, settled
from anofield.errors import CohortError, MachineError, ScanError, UsageError
from anofield.field.threads import threads_of
from anofield.typing import Json, PathLike

LIBRARIES = ("numpy", "scipy", "nibabel", "torch")  # libraries that results depend on


@dataclass(frozen=True, kw_only=True)
class Run:
    """A run folder and the results of the last call.

    Attributes:
        path: Path of the folder.
        info: Content of `run.json`.
        cases: Results of the finished cases of this call.
        failures: Failed cases of this call, with their errors.
        read_only: Whether the folder could not be written, and every case had been finished before.
    """

    path: Path
    info: RunInfo
    cases: tuple[CaseInfo, ...]
    failures: tuple[Failure, ...]
    read_only: bool = False

    @property
    def untrusted(self) -> tuple[CaseInfo, ...]:
        """Cases of this call whose result is not trusted."""
        return tuple(case for case in self.cases if case.trusted is False)

    def plain(self) -> Json:
        """Content of `run.json`, ids of the cases that are not trusted, and every `case.json` under `results`."""
        results = [case.model_dump(mode="json") for case in self.cases]
        return {
            **self.info.model_dump(mode="json"),
            "untrusted": [case.id for case in self.untrusted],
            "results": results,
        }

    def __repr__(self) -> str:
        failed = f", {len(self.failures)} failed" if self.failures else ""
        untrusted = f", {len(self.untrusted)} NOT trusted" if self.untrusted else ""
        return f"Run({self.path}: {counted(len(self.info.cases), 'case')} by {self.info.score}{untrusted}{failed})"


@dataclass(frozen=True, kw_only=True)
class Work:
    """Work on one case, as sent to workers: it changes nothing outside the folder of the case.

    Attributes:
        method: The field or a baseline.
        options: Options of the run.
        calibrated: The calibration in use; None for only anomaly maps.
        identity: Identity of the run.
        out: Folder of the run, an absolute path.
        force: Detect again in finished cases.
        threads: CPU threads of torch in every process that works.
    """

    method: Method
    options: RunOptions
    calibrated: Calibrated | None
    identity: str
    out: Path
    force: bool = field(default=False)
    threads: int = 1

    def __call__(self, case: Case) -> CaseInfo:
        """Detect in one case and write its folder, unless the folder is up to date."""
        done = None if self.force else self.done(case)
        if done is not None:
            return done
        return detect_case(case, self.method, self.options, self.calibrated).save(self.out / case.id)

    def done(self, case: Case) -> CaseInfo | None:
        """The result of an earlier call, if it is whole and belongs to this run and to the scan as it is now."""
        folder = self.out / case.id
        info = read_case(folder)
        same = info is not None and info.key == Sources.of(case).key(self.identity) and whole(folder, info)
        return info if same else None


def detect_case(case: Case, method: Method, options: RunOptions, calibrated: Calibrated | None) -> Detection:
    """Detect anomalies in one scan file.

    Args:
        case: The scan.
        method: The field or a baseline.
        options: Options of the run.
        calibrated: Calibration from `anofield.detect.calibration.look_up`; None for only an anomaly map.

    Raises:
        ScanError: The scan or its mask cannot be used, or changes meanwhile.
    """
    before = Sources.of(case)
    native = as_stripped(case.image, case.mask, dtype=method.recipe.kind.dtype)
    found = detect_scan(case, native, method, options, calibrated)
    if found.sources != before:
        raise ScanError(
            "changed during the detection", where=case.image, remedy="detect again when nothing writes to it"
        )
    return found


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
    Cases in the folder that this call does not name stay in the run if they have its identity.

    Args:
        cases: The cohort.
        method: The field or a baseline.
        options: Options of the run.
        out: Folder of the run: `run.json`, `cases.tsv`, `failures.json`, and a folder per case.
        part: `K/N` takes the K-th of N parts of the cohort, for job arrays.
        force: Detect again in finished cases; also replaces a run that another detection is writing with other options.
        spread: Local processes or scheduler that process the cases; the workers of a scheduler must see `out` and the
            scans.

    Raises:
        CohortError: Two cases have the same id, or an id cannot name a folder.
        UsageError: The method was calibrated only with other options, an installed score of the options is broken, or
            another detection writes this run with another method or other options.
        ExperimentError: The calibration is damaged.
        MachineError: The folder cannot be written.
    """
    start, out, cases = time.monotonic(), Path(out).absolute(), cohort_of(cases)
    options = settled(options, method)
    load_scores(options)
    say_if_unknown(method)
    say_other_contrasts(cases, method)
    calibrated = look_up(method, options)
    identity = identity_of(method, options, calibrated)
    work = Work(method=method, options=options, calibrated=calibrated, identity=identity, out=out, force=force,
                threads=threads_of(spread))  # fmt: skip
    mine, suffix = part_of(cases, part)
    if out.is_dir() and not _writable(out):
        return _as_it_is(work, mine)
    with writing(out):
        out.mkdir(parents=True, exist_ok=True)
    with _begun(work, mine) as plan:
        outcomes = [_unmarked(outcome, out) for outcome in map_cases(work, mine, spread=spread, label="detect")]
        failures = failures_of(outcomes)
        with alone(out):
            info = _end(work, plan, failures, suffix, time.monotonic() - start)
    done = tuple(outcome.value for outcome in outcomes if outcome.value is not None)
    if text := seen_notice(seen_among(done)):
        say(f"{out}: {text}")
    return Run(path=out, info=info, cases=done, failures=tuple(failures))


@contextlib.contextmanager
def _begun(work: Work, cases: Sequence[Case]) -> Iterator[Path]:
    """Give the run its identity, unless it has it already, and hold a plan of these cases during the body."""
    out = work.out
    with contextlib.ExitStack() as working:
        with alone(out):
            if not work.force:
                refuse_running(out, work.identity)
            if _identity_on_disk(out) != work.identity:
                _start_anew(work)
            elif not work.force:
                _refuse_other_scans(work, cases)
            plan = working.enter_context(held(out, work.identity, [case.id for case in cases]))
        yield plan


def _refuse_other_scans(work: Work, cases: Sequence[Case]) -> None:
    """Refuse cases whose results would replace those of another scan with the same id.

    A scan is another one if both its path and its content differ: scans may be moved, and be replaced in their place.

    Raises:
        CohortError: There is such a case.
    """
    for case in cases:
        info = read_case(work.out / case.id)
        if info is None or info.identity != work.identity or not info.image or not case.image.is_file():
            continue
        if Path(info.image) != case.image.resolve() and info.source_hash != Sources.of(case).scan:
            raise CohortError(
                f"the run has a case {printable(case.id)!r} of another scan, {printable(info.image)}",
                where=printable(str(case.image)),
                why="its results would be replaced",
                remedy="give the scan another id in a manifest, detect into another folder, or replace with --force",
            )


def _start_anew(work: Work) -> None:
    """Write `run.json` with the new identity; lists about an earlier run are removed first."""
    out = work.out
    with writing(out):
        for path in [*out.glob(FAILURES), out / CASES_FILE]:
            path.unlink(missing_ok=True)
    drop_plans(out, work.identity)
    write_json(out / RUN_FILE, sealed(_info(work, [], 0.0)))
    _write_lists(work, 0.0)


def _end(work: Work, plan: Path, failures: Sequence[Failure], suffix: str, seconds: float) -> RunInfo:
    """Write `failures.json`, and the lists of all cases that are finished now, by this call and by others.

    Raises:
        UsageError: Another call gave the run another identity meanwhile.
    """
    out = work.out
    if _identity_on_disk(out) != work.identity:
        raise UsageError(
            "another detection replaced this run meanwhile",
            where=out,
            why="the results of this one do not belong to it",
            remedy="detect again into another folder",
        )
    write_failures(out / f"failures{suffix}.json", failures)
    opened = _write_lists(work, seconds)
    drop_plans(out, work.identity, {*opened.info.cases, *(failure.id for failure in opened.failures)}, plan)
    return opened.info


def _write_lists(work: Work, seconds: float) -> OpenRun:
    """Write what is derived from the finished cases: `cases.tsv` and the list in `run.json`."""
    opened = open_run(work.out, strict=False)  # a damaged case is not finished, and its own detection replaces it
    write_cases(work.out, opened.whole)
    info = _info(work, [case.id for case in opened.whole], seconds)
    write_json(work.out / RUN_FILE, sealed(info))
    return replace(opened, info=info)


def _as_it_is(work: Work, cases: Sequence[Case]) -> Run:
    """A finished run in a folder that cannot be written.

    Raises:
        MachineError: A case is not finished, or the run has another identity.
    """
    out = work.out
    done = [work.done(case) for case in cases] if not work.force and _identity_on_disk(out) == work.identity else [None]
    finished = tuple(info for info in done if info is not None)
    if len(finished) < len(done):
        raise MachineError(
            "cannot be written",
            where=out,
            why="the run is not finished with this model and these options",
            remedy="check the folder's permissions and the free space, or choose another output folder",
        )
    say(f"{out}: read-only; every case is finished, and run.json was not updated")
    return Run(path=out, info=read_run(out), cases=finished, failures=(), read_only=True)


def _writable(folder: Path) -> bool:
    """Whether files can be created in a folder."""
    try:
        with tempfile.TemporaryFile(dir=folder, prefix=PARTIAL):
            return True
    except OSError as error:
        if error.errno in (errno.EROFS, errno.EACCES, errno.EPERM):
            return False
        with writing(folder):
            raise


def _identity_on_disk(out: Path) -> str:
    """Identity of the run in a folder; empty if there is no run or its `run.json` is damaged."""
    try:
        return read_run(out).identity if (out / RUN_FILE).is_file() else ""
    except CohortError:
        return ""


def _unmarked(outcome: Outcome[CaseInfo], out: Path) -> Outcome[CaseInfo]:
    """Return the outcome; if it is a failure, remove the `case.json` of an earlier call."""
    if outcome.failure is not None:
        with writing(out):
            (out / outcome.case.id / CASE_FILE).unlink(missing_ok=True)
    return outcome


def threads_before(out: PathLike) -> int | None:
    """CPU threads with which a run was begun; None if there is no run, or its `run.json` is damaged or older."""
    try:
        return read_run(out).threads if (Path(out) / RUN_FILE).is_file() else None
    except CohortError:
        return None


def _info(work: Work, cases: list[str], seconds: float) -> RunInfo:
    """Content of `run.json`."""
    options, calibrated, method = work.options, work.calibrated, work.method
    threshold = None
    if calibrated is not None and calibrated.threshold is not None:
        threshold = Threshold(value=calibrated.threshold, quantile=calibrated.quantile, meaning=calibrated.meaning)
    return RunInfo(
        anofield=__version__,
        created=time.strftime("%Y-%m-%dT%H:%M:%S%z"),
        command=_command(),
        identity=work.identity,
        experiment=str(method.path.absolute()),
        model_hash=method.hash,
        epoch=method.epoch,
        score=options.score,
        scores=options.names,
        baselines=[name for name in options.names if name in SCAN_SCORES],
        options=options.model_dump(mode="json"),
        recipe=method.recipe,
        threshold=threshold,
        thresholds=dict(calibrated.thresholds) if calibrated else {},
        device=str(method.device),
        precision=method.precision,
        threads=work.threads,
        versions={name: version(name) for name in LIBRARIES},
        cases=cases,
        seconds=round(seconds, 2),
    )


def _command() -> str:
    """The command line as typed; in Python, the name of the program and its arguments."""
    return shlex.join([Path(sys.argv[0]).name, *sys.argv[1:]])
