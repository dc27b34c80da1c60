"""The same function over many cases: in this process, in local worker processes, or on a Dask scheduler."""

from __future__ import annotations

import contextlib
import traceback
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Generic, TypeVar

from anofield._files import write_json
from anofield._progress import track
from anofield._words import counted
from anofield.data.cohort.case import Case
from anofield.errors import AnofieldError, MachineError, UsageError
from anofield.typing import Json, PathLike

T = TypeVar("T")


@dataclass(frozen=True)
class Failure:
    """Why a case was left out.

    Attributes:
        id, image: The case.
        error: What the user reads.
        trace: Traceback of an error that is no mistake of the user's, else empty.
    """

    id: str
    image: str
    error: str
    trace: str = ""


@dataclass(frozen=True)
class Outcome(Generic[T]):
    """Result of one case: a value or a failure."""

    case: Case
    value: T | None = None
    failure: Failure | None = None


def map_cases(
    function: Callable[[Case], T],
    cases: Sequence[Case],
    *,
    workers: int = 1,
    scheduler: str | None = None,
    label: str = "cases",
) -> Iterator[Outcome[T]]:
    """Call `function` on every case; a case that fails is recorded and the others go on.

    Args:
        function: Called with one case; must be importable when workers are other processes.
        cases: The cases.
        workers: Local processes; 1 stays in this process.
        scheduler: Address of a running Dask scheduler, instead of local workers.
        label: Of the progress bar.

    Yields:
        One outcome per case, in the order in which they end.

    Raises:
        MachineError: `distributed` is not installed, or the scheduler does not answer.
        UsageError: Fewer than one worker.
    """
    if workers < 1:
        raise UsageError(counted(workers, "worker"), remedy="give 1 or more")
    if workers == 1 and scheduler is None:
        yield from track((_isolated(function, case) for case in cases), label, len(cases))
        return
    with contextlib.ExitStack() as stack:
        client = _client(workers, scheduler, stack)
        futures = [client.submit(_isolated, function, case, pure=False) for case in cases]
        yield from track(_as_they_end(futures, cases), label, len(cases))


def _as_they_end(futures: Sequence[Any], cases: Sequence[Case]) -> Iterator[Outcome[Any]]:
    """Outcomes of futures; Dask repeats the case of a killed worker, and one that kills every worker is a failure."""
    from distributed import KilledWorker, as_completed

    case_of = dict(zip((future.key for future in futures), cases, strict=True))
    for future in as_completed(futures):
        case = case_of[future.key]
        try:
            yield future.result()
        except KilledWorker:
            text = "killed every worker that tried it (out of memory?). Remedy: fewer workers, or a smaller --res."
            yield Outcome(case, failure=Failure(case.id, str(case.image), text))


def failures_of(outcomes: Sequence[Outcome[Any]]) -> list[Failure]:
    """The failures among some outcomes, by case id."""
    return sorted((o.failure for o in outcomes if o.failure is not None), key=lambda failure: failure.id)


def write_failures(path: PathLike, failures: Sequence[Failure]) -> list[Json]:
    """Write `failures.json` as a list; returns what was written."""
    rows = [vars(failure) for failure in failures]
    write_json(path, rows)
    return rows


def _isolated(function: Callable[[Case], T], case: Case) -> Outcome[T]:
    """The one place that keeps a failing case from stopping the rest; machine errors concern all cases and pass."""
    try:
        return Outcome(case, function(case))
    except MachineError:
        raise
    except AnofieldError as error:
        return Outcome(case, failure=Failure(case.id, str(case.image), str(error)))
    except Exception as error:  # noqa: BLE001 - recorded with its traceback
        text = f"{type(error).__name__}: {error} (a defect of anofield, please report it)"
        return Outcome(case, failure=Failure(case.id, str(case.image), text, traceback.format_exc()))


def _client(workers: int, scheduler: str | None, stack: contextlib.ExitStack) -> Any:
    """A client that the stack closes, together with the local cluster if one was started for it."""
    try:
        from distributed import Client, LocalCluster
    except ImportError as error:
        raise MachineError(
            "Dask is not installed", remedy="pip install 'anofield[cluster]', or use one worker"
        ) from error
    try:
        if scheduler:
            return stack.enter_context(Client(scheduler, timeout="30s"))
        any_port = "127.0.0.1:0"  # None would take 8787 on all interfaces, and warn where it is taken
        local = LocalCluster(n_workers=workers, threads_per_worker=1, dashboard_address=any_port, silence_logs=40)
        return stack.enter_context(Client(stack.enter_context(local)))
    except (OSError, TimeoutError, ValueError, RuntimeError) as error:
        raise MachineError(
            f"no Dask scheduler answers ({error})", where=scheduler or "local cluster", remedy="check its address"
        ) from error
