"""A run as it is on disk now: the cases of its identity, and what else lies in its folder.

Whatever reads the cases of a run takes them from here. No file lists them: a case belongs to the run if its `case.json`
holds the identity of `run.json`.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from anofield._words import counted, named
from anofield.data.parallel import Failure
from anofield.detect.plans import planned
from anofield.detect.run_folder import (
    CASE_FILE,
    OUTPUTS,
    CaseInfo,
    RunCase,
    RunInfo,
    Seen,
    read_case,
    read_failures,
    read_run,
    require_case,
    run_folder,
    whole,
)
from anofield.errors import CohortError
from anofield.typing import PathLike

AGAIN = "detect again to finish"


@dataclass(frozen=True, kw_only=True)
class OpenRun:
    """A run folder as it is now.

    Attributes:
        path: Folder of the run.
        info: Content of `run.json`.
        cases: Cases of the run that are finished, by id.
        incomplete: Ids of those that have lost a file since.
        strangers: Ids of cases of an earlier run, which nobody reads.
        pending: Ids of cases that a detection was asked for and that are neither finished nor failed: it was stopped or
            still runs.
        failures: Cases that failed and were not finished since.
    """

    path: Path
    info: RunInfo
    cases: Mapping[str, CaseInfo]
    incomplete: Sequence[str]
    strangers: Sequence[str]
    pending: Sequence[str]
    failures: Sequence[Failure]

    @property
    def ids(self) -> list[str]:
        """Ids of the finished cases, in order."""
        return list(self.cases)

    @property
    def whole(self) -> list[CaseInfo]:
        """The finished cases that still have all their files."""
        return [case for case_id, case in self.cases.items() if case_id not in self.incomplete]

    @property
    def seen(self) -> dict[str, Seen]:
        """Cases whose scan was used for training or calibration."""
        return seen_among(self.cases.values())

    def case(self, case_id: str) -> RunCase:
        """A finished case with its folder and the labels that were found beside the scan."""
        return RunCase(case_id, self.path / case_id, self.cases[case_id].labels, self.info.identity)

    def notices(self) -> list[str]:
        """What a reader of the run has to know, one sentence each; empty if the run is complete."""
        failed = [failure.id for failure in self.failures]
        found = [
            (self.strangers, "of an earlier run, with another model or other options, {is_} ignored", AGAIN),
            (self.pending, "{is_} not finished, as the detection was stopped or still runs, and {is_} left out", AGAIN),
            (self.incomplete, "{has} lost a file since the detection", AGAIN),
            (failed, "failed in the detection and {is_} left out", "failures.json has the reasons"),
        ]
        told = [_notice(self.path, ids, text, remedy) for ids, text, remedy in found if ids]
        return [*told, *([text] if (text := seen_notice(self.seen)) else [])]


def open_run(run: PathLike, *, strict: bool = True) -> OpenRun:
    """Read `run.json` and every `case.json` of a run.

    Args:
        run: Folder of the run, or the dataset that `--naming bids` wrote.
        strict: Whether a damaged file of a case is an error; otherwise the case is left out.

    Raises:
        CohortError: There is no such folder, it has no `run.json`, or a JSON file of the run is damaged.
    """
    path = run_folder(run)
    info = read_run(path)
    found = {case.id: case for case in _read_cases(path, strict)}
    cases = {case_id: case for case_id, case in found.items() if case.identity == info.identity}
    failures = [failure for failure in read_failures(path, strict) if failure.id not in cases]
    failed = {failure.id for failure in failures}
    asked = planned(path, info.identity) | _begun(path)
    return OpenRun(
        path=path,
        info=info,
        cases=cases,
        incomplete=[case_id for case_id, case in cases.items() if not whole(path / case_id, case)],
        strangers=[case_id for case_id in found if case_id not in cases],
        pending=sorted(asked - set(cases) - failed),
        failures=failures,
    )


def finished_run(run: PathLike) -> OpenRun:
    """Read a run that has at least one finished case.

    Raises:
        CohortError: See `open_run`; or the run has no finished case.
    """
    opened = open_run(run)
    if not opened.cases:
        raise CohortError(
            "has no finished case",
            where=opened.path,
            why=". ".join(notice.partition(": ")[2] for notice in opened.notices()),
            remedy="look into failures.json, or run `anofield detect` again: it resumes where it stopped",
        )
    return opened


def seen_among(cases: Iterable[CaseInfo]) -> dict[str, Seen]:
    """Cases whose scan was used for training or calibration, and for which scan it was used there."""
    return {case.id: case.seen for case in cases if case.seen is not None}


def seen_notice(seen: Mapping[str, Seen]) -> str:
    """One sentence about scans that were used for training or calibration; empty without any."""
    if not seen:
        return ""
    them = named(f"{case_id} is {scan}" for case_id, scan in seen.items())
    return f"{counted(len(seen), 'scan')} known to the model, so results on new scans will be worse: {them}"


def _read_cases(path: Path, strict: bool) -> list[CaseInfo]:
    """Content of every `case.json`, by id; a folder with another name than its case's is a copy and left out."""
    folders = [file.parent for file in path.glob(f"*/{CASE_FILE}") if not file.parent.name.startswith(".")]
    read = require_case if strict else read_case
    cases = [case for folder in folders if (case := read(folder)) is not None and case.id == folder.name]
    return sorted(cases, key=lambda case: case.id)


def _begun(path: Path) -> set[str]:
    """Ids of the cases whose folder has a map but no `case.json`: they were being replaced."""
    folders = {file.parent for file in path.glob(f"*/{OUTPUTS[0]}") if not file.parent.name.startswith(".")}
    return {folder.name for folder in folders if not (folder / CASE_FILE).is_file()}


def _notice(path: Path, ids: Sequence[str], text: str, remedy: str) -> str:
    words = text.format(**({"is_": "is", "has": "has"} if len(ids) == 1 else {"is_": "are", "has": "have"}))
    return f"{path}: {counted(len(ids), 'case')} {words} ({named(ids)}); {remedy}"
