"""Content of a run folder and its results folder, read without opening an image."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path

from anofield._files import is_file
from anofield._words import counted, named
from anofield.data.parallel import Failure
from anofield.data.volume import volume_hash
from anofield.detect.open_run import OpenRun, finished_run
from anofield.detect.run_folder import CaseInfo, FitInfo, RunCase, RunInfo
from anofield.errors import UsageError
from anofield.evaluation.results import Results, read_results
from anofield.typing import PathLike


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
    def changed(self) -> bool:
        """Whether the source scan is another file now than the one that was examined."""
        known = self.info.source_hash
        return bool(known and self.scan and is_file(self.scan) and volume_hash(self.scan) != known)

    @property
    def fit(self) -> FitInfo | None:
        """Diagnostics of the fit; None for a method that fits nothing."""
        return self.info.fit


@dataclass(frozen=True)
class Run:
    """A run with its finished cases.

    Attributes:
        path: Folder of the run.
        info: Content of `run.json`.
        cases: Finished cases, at least one.
        failures: Cases that failed.
        results: Metrics of the run; None if it was not evaluated.
        notices: What a reader has to know about the run and its results, one sentence each.
    """

    path: Path
    info: RunInfo
    cases: list[ReportCase]
    failures: list[Failure]
    results: Results | None
    notices: list[str]

    @property
    def score(self) -> str:
        """The run's main score."""
        return self.info.score

    @property
    def threshold(self) -> float | None:
        """The calibrated threshold of the main score, if there is one."""
        return None if self.info.threshold is None else self.info.threshold.value


def read_report_run(run: PathLike, results: Results | PathLike | None = None) -> Run:
    """Read a run folder and, if given, its results.

    Raises:
        CohortError: There is no such folder, it has no finished case, or a JSON file of the run is damaged.
        UsageError: The results cannot be read, or belong to another run.
    """
    opened = finished_run(run)
    measured = read_results(results) if isinstance(results, str | Path) else results
    if measured is not None:
        _check_belong(measured, opened, opened.path if isinstance(results, Results | None) else results)
    labels = {} if measured is None else measured.labels
    cases = [ReportCase(_with_label(opened.case(one), labels.get(one)), opened.cases[one]) for one in opened.ids]
    more = [] if measured is None else [*measured.notices, *_unlabelled(measured)]
    notices = list(dict.fromkeys([*opened.notices(), *more]))
    return Run(opened.path, opened.info, cases, list(opened.failures), measured, notices)


def _unlabelled(results: Results) -> list[str]:
    """One sentence about the cases that were not evaluated because they have no label; none without such cases."""
    ids = results.without_label
    have = "has" if len(ids) == 1 else "have"
    return [f"{counted(len(ids), 'case')} without a label {have} no figures: {named(ids)}"] if ids else []


def _with_label(case: RunCase, label: str | list[str] | None) -> RunCase:
    files = [label] if isinstance(label, str) else label or []
    return replace(case, labels=tuple(map(Path, files))) if files else case


def _check_belong(measured: Results, run: OpenRun, where: PathLike) -> None:
    """Refuse results of another run: those of another identity, other cases, another score or another threshold."""
    info = run.info
    if measured.identity is not None and measured.identity != info.identity:
        raise UsageError(
            "are results of another run, or of this run before it was detected with another model or other options",
            where=where,
            remedy="run `anofield evaluate` on this run again",
        )
    own = None if info.threshold is None else info.threshold.value
    used = measured.thresholds.get(measured.score, {}).get("calibrated")
    strangers = sorted({row.id for row in measured.rows} - set(run.cases))
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
