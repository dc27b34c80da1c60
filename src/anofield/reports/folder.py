"""Content of a run folder and its results folder, read without opening an image."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path

from pydantic import RootModel

from anofield._files import read_json
from anofield.data.parallel import Failure
from anofield.detect.run_folder import RUN_FILE, CaseInfo, FitInfo, RunCase, RunInfo, finished_cases, read_run
from anofield.errors import CohortError, UsageError
from anofield.evaluation.results import Results, read_results
from anofield.typing import PathLike

FAILURES_FILE = "failures.json"


@dataclass(frozen=True)
class ReportCase:
    """One finished case of a run.

    Attributes:
        case: Id, folder, and label: the label of the results, else the one that was found beside the scan.
        info: Content of `case.json`.
    """

    case: RunCase
    info: CaseInfo

    @property
    def id(self) -> str:
        """Case id."""
        return self.case.id

    @property
    def scan(self) -> Path | None:
        """Path of the source scan at the time of the detection."""
        return Path(self.info.image) if self.info.image else None

    @property
    def fit(self) -> FitInfo | None:
        """Diagnostics of the fit; None for a method that fits nothing."""
        return self.info.fit


@dataclass(frozen=True)
class Run:
    """A run with its finished cases.

    Attributes:
        path: Folder of the run.
        info: Content of `run.json`; None if the run did not finish.
        cases: Finished cases, at least one.
        failures: Cases that failed.
        results: Metrics of the run; None if it was not evaluated.
    """

    path: Path
    info: RunInfo | None
    cases: list[ReportCase]
    failures: list[Failure]
    results: Results | None

    @property
    def score(self) -> str:
        """The run's main score."""
        return self.info.score if self.info else self.cases[0].info.score

    @property
    def threshold(self) -> float | None:
        """The calibrated threshold of the main score, if there is one; of an unfinished run, that of its first case."""
        if self.info is None:
            return self.cases[0].info.threshold
        return None if self.info.threshold is None else self.info.threshold.value


class Failures(RootModel[list[Failure]]):
    """Content of `failures.json`."""


def read_report_run(run: PathLike, results: Results | PathLike | None = None) -> Run:
    """Read a run folder and, if given, its results.

    Raises:
        CohortError: There is no such folder, it has no finished case, or a JSON file of the run is damaged.
        UsageError: The results cannot be read, or belong to another run.
    """
    path = Path(run)
    measured = read_results(results) if isinstance(results, str | Path) else results
    info = None if path.is_dir() and not (path / RUN_FILE).is_file() else read_run(path)
    if measured is not None and info is not None:
        _check_belong(measured, info, path if isinstance(results, Results | None) else results)
    labels = {} if measured is None else measured.labels
    found = finished_cases(path, info.cases if info else ())
    cases = [ReportCase(_with_label(case, labels.get(case.id)), about) for case, about in found]
    if not cases:
        raise CohortError(
            "holds no finished case",
            where=path,
            why="a case is finished when its folder holds case.json",
            remedy="give the output folder of `anofield detect`, or run it again: it resumes where it stopped",
        )
    return Run(path, info, cases, _failures(path / FAILURES_FILE), measured)


def _with_label(case: RunCase, label: str | list[str] | None) -> RunCase:
    files = [label] if isinstance(label, str) else label or []
    return replace(case, labels=tuple(map(Path, files))) if files else case


def _check_belong(measured: Results, info: RunInfo, where: PathLike) -> None:
    """Refuse results of another run: those with other cases, another score or another calibrated threshold."""
    own = None if info.threshold is None else info.threshold.value
    used = measured.thresholds.get(measured.score, {}).get("calibrated")
    strangers = sorted({row.id for row in measured.rows} - set(info.cases))
    if strangers:
        raise UsageError(
            f"are results of another run: this one has no finished case {strangers[0]!r}",
            where=where,
            remedy="give the output folder of `anofield evaluate` on this run",
        )
    if measured.score != info.score or (used is not None and own is not None and used != own):
        raise UsageError(
            f"are results of another run: {measured.score} above {used}, not {info.score} above {own}",
            where=where,
            remedy="give the output folder of `anofield evaluate` on this run",
        )


def _failures(path: Path) -> list[Failure]:
    return read_json(path, Failures, remedy="run `anofield detect` again").root if path.is_file() else []
