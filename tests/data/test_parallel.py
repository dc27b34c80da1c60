"""The same function over many cases: a failing one is recorded, and where the work runs changes nothing."""

from __future__ import annotations

import importlib
import json
import multiprocessing
import os
import pickle
import signal
import time
from collections.abc import Iterator
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from anofield.data import parallel
from anofield.data.cohort.case import Case
from anofield.data.parallel import Failure, Outcome, Spread, failures_of, map_cases, write_failures
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


@pytest.mark.slow
def test_two_workers_give_the_same_outcomes_and_leave_no_process() -> None:
    before = set(multiprocessing.active_children())
    outcomes = list(map_cases(shout, CASES, spread=Spread(2)))
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
        list(map_cases(shout, CASES, spread=Spread(workers)))


def test_no_cases_have_no_outcomes() -> None:
    assert list(map_cases(shout, [])) == []


def test_failures_are_written_whole(tmp_path: Path) -> None:
    failures = failures_of(list(map_cases(shout, CASES)))
    write_failures(tmp_path / "failures.json", failures)
    assert [Failure(**row) for row in json.loads((tmp_path / "failures.json").read_text())] == failures


@pytest.mark.parametrize("kind", [AnofieldError, UsageError, ScanError, CohortError, ExperimentError, MachineError])
def test_errors_keep_all_they_say_between_processes(kind: type[AnofieldError]) -> None:
    error = kind("is empty", where=Path("a.nii"), why="nothing to see", remedy="look")
    again = pickle.loads(pickle.dumps(error))
    assert type(again) is kind and str(again) == str(error) and again.exit_code == error.exit_code
    assert str(error) == "a.nii: is empty. Nothing to see. Remedy: look."


def unsendable(case: Case) -> object:
    """A result that cannot be pickled, one that cannot be unpickled, and good ones."""
    return (lambda: case) if case.id == "b" else Grudging() if case.id == "c" else case.id


class Grudging:
    def __reduce__(self) -> tuple[Any, ...]:
        return int, ("no number",)


@pytest.mark.slow
def test_a_result_that_cannot_be_sent_is_a_failure_of_its_case() -> None:
    outcomes = list(map_cases(unsendable, CASES, spread=Spread(2)))
    assert [failure.id for failure in failures_of(outcomes)] == ["b", "c"]
    assert all("cannot be sent between processes" in failure.error for failure in failures_of(outcomes))
    assert sorted(str(o.value) for o in outcomes if o.value) == ["a", "bad", "bug", "d"]


@pytest.mark.parametrize("error", [MemoryError("9 GiB"), RecursionError("deep"), OSError(5, "Input/output error"),
                                   EOFError("short"), ValueError("embedded null byte")])  # fmt: skip
def test_what_the_surroundings_refuse_is_no_defect(error: Exception) -> None:
    def fail(case: Case) -> None:
        raise error

    failures = failures_of(list(map_cases(fail, CASES[:2])))
    assert len(failures) == 2 and all("defect" not in one.error and not one.trace for one in failures)


@pytest.mark.parametrize(("asked", "cases", "used"), [(3, 100, 3), (10**9, 5, 5), (10**30, 1000, 8), (7, 0, 1)])
def test_no_more_processes_than_are_of_use(
    asked: int, cases: int, used: int, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(parallel, "cpu_count", lambda: 2)
    assert parallel._useful(asked, cases) == used
    assert ("8 processes are used" in capsys.readouterr().err) is (used == 8)


@pytest.mark.slow
def test_processes_that_cannot_be_started_are_a_machine_error(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object) -> Iterator[Any]:
        raise BlockingIOError(11, "Resource temporarily unavailable")
        yield

    monkeypatch.setattr(parallel, "_processed", refuse)
    with pytest.raises(MachineError, match=r"2 worker processes cannot be used \(Resource"):
        list(map_cases(shout, CASES, spread=Spread(2)))


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


@pytest.mark.kill
def test_the_case_of_a_killed_worker_is_done_again(tmp_path: Path) -> None:
    outcomes = list(map_cases(partial(die_once, folder=tmp_path), CASES, spread=Spread(2)))
    assert sorted(outcome.case.id for outcome in outcomes) == sorted(case.id for case in CASES)
    assert not failures_of(outcomes) and (tmp_path / "b").exists()
    assert os.getpid() not in {outcome.value for outcome in outcomes}


@pytest.mark.kill
def test_a_case_that_kills_every_worker_is_a_failure_and_the_others_are_done() -> None:
    outcomes = list(map_cases(die_always, CASES, spread=Spread(2)))
    assert [failure.id for failure in failures_of(outcomes)] == ["b"]
    assert "memory" in failures_of(outcomes)[0].error
    assert sorted(o.value for o in outcomes if o.value) == sorted(case.id for case in CASES if case.id != "b")


@pytest.mark.slow
def test_workers_are_ended_when_the_outcomes_are_no_longer_wanted() -> None:
    before = set(multiprocessing.active_children())
    outcomes = map_cases(shout, CASES, spread=Spread(2))
    next(outcomes)
    outcomes.close()  # type: ignore[attr-defined]
    assert set(multiprocessing.active_children()) <= before


@pytest.mark.slow
def test_outcomes_of_workers_come_as_they_end(tmp_path: Path) -> None:
    seen = tmp_path / "seen"
    outcomes = map_cases(partial(wait_for, seen), CASES, spread=Spread(2))
    assert next(outcomes).case.id != "d"
    seen.touch()
    assert {outcome.case.id for outcome in outcomes} >= {"d"}


def wait_for(seen: Path, case: Case) -> str:
    """The first case ends only after the test has seen another one."""
    until = time.monotonic() + 60
    while case.id == "d" and not seen.exists() and time.monotonic() < until:
        time.sleep(0.05)
    return case.id


def wait_for_a(case: Case) -> str:
    """The first case takes longer than all others together."""
    time.sleep(1.5 if case.id == "d" else 0)
    return case.id


def threads(case: Case) -> int:
    import torch

    return torch.get_num_threads()


@pytest.mark.slow
def test_a_worker_computes_with_one_thread(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS"):
        monkeypatch.delenv(name, raising=False)
    assert {outcome.value for outcome in map_cases(threads, CASES[:2], spread=Spread(2))} == {1}


def fill_the_disk(case: Case) -> None:
    raise MachineError("the disk is full")


@pytest.mark.slow
def test_a_machine_error_of_a_worker_stops_the_run() -> None:
    with pytest.raises(MachineError, match="the disk is full"):
        list(map_cases(fill_the_disk, CASES, spread=Spread(2)))


class Heavy:
    """Holds a model; remembers how often it was packed to be sent."""

    model: list[int]

    def __init__(self) -> None:
        self.packed = 0

    def __call__(self, case: Case) -> str:
        return f"{case.image} {len(self.model)}"

    def __getstate__(self) -> dict[str, object]:
        self.packed += 1
        return {"packed": 0, "model": bytes(12_000_000)}


class Elsewhere:
    """A function of a package that the workers lack."""

    def __call__(self, case: Case) -> str:
        return case.id

    def __reduce__(self) -> tuple[Any, ...]:
        return importlib.import_module, ("no_such_plugin",)


@pytest.fixture(scope="class")
def cluster() -> Iterator[Any]:
    """A Dask scheduler with two workers."""
    distributed = pytest.importorskip("distributed")
    how = {"n_workers": 2, "threads_per_worker": 1, "dashboard_address": "127.0.0.1:0", "silence_logs": 50}
    with distributed.LocalCluster(**how) as running:
        yield running


class TestScheduler:
    @pytest.mark.slow
    def test_has_the_same_outcomes(self, cluster: Any) -> None:
        images = [replace(case, image=case.image.absolute()) for case in CASES]
        far = list(map_cases(shout, images, spread=Spread(scheduler=cluster.scheduler_address)))
        assert by_id(far) == by_id(list(map_cases(shout, images)))

    @pytest.mark.slow
    @pytest.mark.filterwarnings("error:Sending large graph")
    def test_is_sent_the_function_once_and_absolute_paths(self, cluster: Any) -> None:
        heavy = Heavy()
        outcomes = list(map_cases(heavy, CASES, spread=Spread(scheduler=cluster.scheduler_address)))
        assert heavy.packed == 1
        assert {o.case.id: o.value for o in outcomes} == {c.id: f"{c.image.absolute()} 12000000" for c in CASES}
        assert sorted(o.case.id for o in outcomes) == sorted(c.id for c in CASES) and outcomes[0].case in CASES

    @pytest.mark.kill
    def test_names_the_case_that_kills_every_worker(self, cluster: Any) -> None:
        outcomes = list(map_cases(die_always, CASES, spread=Spread(scheduler=cluster.scheduler_address)))
        assert [failure.id for failure in failures_of(outcomes)] == ["b"]
        assert "killed every worker" in failures_of(outcomes)[0].error

    @pytest.mark.slow
    def test_sends_failures_of_results(self, cluster: Any) -> None:
        outcomes = list(map_cases(unsendable, CASES, spread=Spread(scheduler=cluster.scheduler_address)))
        assert [failure.id for failure in failures_of(outcomes)] == ["b", "c"]

    @pytest.mark.slow
    def test_whose_workers_lack_a_package_is_a_machine_error(self, cluster: Any) -> None:
        with pytest.raises(MachineError, match=r"cannot run this program.*no_such_plugin") as caught:
            list(map_cases(Elsewhere(), CASES, spread=Spread(scheduler=cluster.scheduler_address)))
        assert "plug-ins" in caught.value.remedy

    @pytest.mark.kill
    def test_whose_workers_are_all_lost_is_a_machine_error(self, cluster: Any, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(parallel, "ALONE", 1.0)
        monkeypatch.setattr(parallel, "LOOK", 0.2)
        before = len(cluster.workers)
        outcomes = map_cases(wait_for_a, CASES, spread=Spread(scheduler=cluster.scheduler_address))
        next(outcomes)
        cluster.scale(0)
        with pytest.raises(MachineError, match="all workers of the Dask scheduler are lost"):
            list(outcomes)
        cluster.scale(before)
        cluster.wait_for_workers(before)

    @pytest.mark.slow
    def test_that_is_lost_is_a_machine_error(self, cluster: Any) -> None:
        outcomes = map_cases(wait_for_a, CASES, spread=Spread(scheduler=cluster.scheduler_address))
        next(outcomes)
        cluster.close()
        with pytest.raises(MachineError, match="connection to the Dask scheduler was lost") as caught:
            list(outcomes)
        assert caught.value.remedy


@pytest.mark.slow
@pytest.mark.parametrize("address", ["tcp://127.0.0.1:9", "tcp://", "ftp://a:1", "tcp://127.0.0.1:b", "", ":"])
def test_a_scheduler_that_does_not_answer_is_a_machine_error(address: str, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("distributed")
    monkeypatch.setattr(parallel, "PATIENCE", "1s")
    with pytest.raises(MachineError, match="no Dask scheduler answers"):
        list(map_cases(shout, CASES, spread=Spread(scheduler=address)))
