"""The same function over many cases: a failing one is recorded, and where the work runs changes nothing."""

from __future__ import annotations

import contextlib
import json
import multiprocessing
import os
import pickle
import signal
import socket
from dataclasses import replace
from functools import partial
from pathlib import Path

import pytest

from anofield.data.cohort.case import Case
from anofield.data.parallel import Failure, Outcome, failures_of, map_cases, write_failures
from anofield.errors import (
    AnofieldError,
    CohortError,
    ExperimentError,
    Interrupted,
    MachineError,
    ScanError,
    UsageError,
)

CASES = [Case(name, Path(f"{name}.nii.gz")) for name in ("d", "bad", "a", "bug", "c", "b")]


def shout(case: Case) -> str:
    """A case's id in capitals; one case is a mistake of the user's, another one of the program's."""
    if case.id == "bad":
        raise ScanError("every voxel is 0", where=case.image, remedy="look at it")
    if case.id == "bug":
        raise ZeroDivisionError("division by nothing")
    return case.id.upper()


def by_id(outcomes: list[Outcome[str]]) -> dict[str, Outcome[str]]:
    """Without the text of tracebacks, which names the frames of the process."""
    return {
        o.case.id: replace(o, failure=o.failure and replace(o.failure, trace=str(bool(o.failure.trace))))
        for o in outcomes
    }


def test_a_failing_case_is_recorded_and_the_others_go_on() -> None:
    outcomes = list(map_cases(shout, CASES))
    assert [outcome.case for outcome in outcomes] == CASES
    assert [outcome.value for outcome in outcomes] == ["D", None, "A", None, "C", "B"]
    bad, bug = outcomes[1].failure, outcomes[3].failure
    assert bad == Failure("bad", "bad.nii.gz", "bad.nii.gz: every voxel is 0. Remedy: look at it.")
    assert bug is not None and "ZeroDivisionError: division by nothing" in bug.error
    assert "Traceback" in bug.trace and "in shout" in bug.trace
    assert failures_of(outcomes) == [bad, bug]


@pytest.mark.filterwarnings("error:Port")
def test_two_workers_give_the_same_outcomes_and_leave_no_process() -> None:
    before = set(multiprocessing.active_children())
    with socket.socket() as taken:
        with contextlib.suppress(OSError):  # someone else has it, which serves as well
            taken.bind(("", 8787))
        outcomes = list(map_cases(shout, CASES, workers=2))
    assert by_id(outcomes) == by_id(list(map_cases(shout, CASES)))
    assert set(multiprocessing.active_children()) <= before


@pytest.mark.parametrize("error", [MachineError("the disk is full"), Interrupted(15), KeyboardInterrupt()])
def test_what_concerns_all_cases_stops_them(error: BaseException) -> None:
    seen = []

    def fail(case: Case) -> None:
        seen.append(case)
        raise error

    with pytest.raises(type(error)):
        list(map_cases(fail, CASES))
    assert seen == CASES[:1]


def test_outcomes_come_one_by_one() -> None:
    seen = []
    outcomes = map_cases(lambda case: seen.append(case.id), CASES)
    assert seen == []
    next(outcomes)
    assert seen == ["d"]


@pytest.mark.parametrize("workers", [0, -1])
def test_fewer_than_one_worker_is_a_usage_error(workers: int) -> None:
    with pytest.raises(UsageError, match=r"Remedy"):
        list(map_cases(shout, CASES, workers=workers))


def test_no_cases_have_no_outcomes() -> None:
    assert list(map_cases(shout, [])) == []


def test_failures_are_written_whole(tmp_path: Path) -> None:
    failures = failures_of(list(map_cases(shout, CASES)))
    rows = write_failures(tmp_path / "failures.json", failures)
    assert json.loads((tmp_path / "failures.json").read_text()) == rows
    assert [Failure(**row) for row in rows] == failures


@pytest.mark.parametrize("kind", [AnofieldError, UsageError, ScanError, CohortError, ExperimentError, MachineError])
def test_errors_keep_all_they_say_between_processes(kind: type[AnofieldError]) -> None:
    error = kind("is empty", where=Path("a.nii"), why="nothing to see", remedy="look")
    again = pickle.loads(pickle.dumps(error))
    assert type(again) is kind and str(again) == str(error) and again.exit_code == error.exit_code
    assert str(error) == "a.nii: is empty. Nothing to see. Remedy: look."


def die_once(case: Case, folder: Path) -> int:
    """Kills its own process the first time that case `b` is tried, as the kernel does when memory runs out."""
    mark = folder / case.id
    if case.id == "b" and not mark.exists():
        mark.touch()
        os.kill(os.getpid(), signal.SIGKILL)
    return os.getpid()


def die_always(case: Case) -> str:
    if case.id == "b":
        os.kill(os.getpid(), signal.SIGKILL)
    return case.id


def test_the_case_of_a_killed_worker_is_done_again(tmp_path: Path) -> None:
    outcomes = list(map_cases(partial(die_once, folder=tmp_path), CASES, workers=2))
    assert sorted(outcome.case.id for outcome in outcomes) == sorted(case.id for case in CASES)
    assert not failures_of(outcomes) and (tmp_path / "b").exists()
    assert os.getpid() not in {outcome.value for outcome in outcomes}


def test_a_case_that_kills_every_worker_is_a_failure_and_the_others_are_done() -> None:
    outcomes = list(map_cases(die_always, CASES, workers=2))
    assert [failure.id for failure in failures_of(outcomes)] == ["b"]
    assert "memory" in failures_of(outcomes)[0].error
    assert sorted(o.value for o in outcomes if o.value) == sorted(case.id for case in CASES if case.id != "b")
