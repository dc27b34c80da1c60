"""Call a function on many cases: in this process, in local processes (joblib), or on a Dask scheduler."""

from __future__ import annotations

import contextlib
import pickle
import traceback
import warnings
from collections.abc import Callable, Generator, Iterable, Iterator, Sequence
from concurrent.futures import CancelledError
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Generic, Protocol, TypeVar

from joblib import Parallel, delayed, parallel_config
from joblib.externals.loky import get_reusable_executor
from joblib.externals.loky.process_executor import TerminatedWorkerError

from anofield._files import write_json
from anofield._progress import track
from anofield._words import counted
from anofield.errors import AnofieldError, MachineError, UsageError
from anofield.typing import PathLike


class Item(Protocol):
    """A case of a cohort or of a run, as `map_cases` uses it; must be a dataclass."""

    @property
    def id(self) -> str:
        """Id that is unique among the cases."""

    @property
    def image(self) -> Path:
        """File that is named in a failure."""


T = TypeVar("T")
C = TypeVar("C", bound=Item)
PATIENCE = "30s"  # how long a scheduler may take to answer
TRIES = 2  # how often a case is tried again, alone, if a worker was killed while the case was running


@dataclass(frozen=True)
class Spread:
    """Where the work on cases runs.

    Attributes:
        workers: Number of local processes; 1 uses this process only.
        scheduler: Address of a running Dask scheduler, used instead of local processes.

    Raises:
        UsageError: `workers` is below 1.
    """

    workers: int = 1
    scheduler: str | None = None

    def __post_init__(self) -> None:
        if self.workers < 1:
            raise UsageError(counted(self.workers, "worker"), remedy="give 1 or more")


HERE = Spread()  # in this process


@dataclass(frozen=True)
class Failure:
    """A case that failed, and the reason.

    Attributes:
        id: Id of the case.
        image: Path of the scan.
        error: Message for the user.
        trace: Traceback if the program has a defect; empty if the input is at fault.
    """

    id: str
    image: str
    error: str
    trace: str = ""


@dataclass(frozen=True)
class Outcome(Generic[T]):
    """Result of one case: a value or a failure; `case` is the object that was given to `map_cases`."""

    case: Any
    value: T | None = None
    failure: Failure | None = None


def map_cases(
    function: Callable[[C], T], cases: Sequence[C], *, spread: Spread = HERE, label: str = "cases"
) -> Iterator[Outcome[T]]:
    """Call `function` on every case; a failing case is recorded and does not stop the others.

    Args:
        function: Function of one case. If other processes call it, it may change nothing but files, and every path in
            it must be absolute.
        cases: The cases.
        spread: Where the work runs.
        label: Text of the progress bar.

    Yields:
        One outcome per case, in the order in which the cases finish.

    Raises:
        MachineError: `distributed` is not installed, or the scheduler does not answer or the connection to it is lost.
    """
    outcomes: Generator[Outcome[T], None, None]
    if spread.scheduler is not None:
        outcomes = _on_scheduler(function, cases, spread.scheduler)
    elif spread.workers > 1:
        outcomes = _in_processes(function, cases, spread.workers)
    else:
        outcomes = (_isolated(function, case) for case in cases)
    with contextlib.closing(outcomes):
        yield from track(outcomes, label, len(cases))


def _in_processes(function: Callable[[C], T], cases: Sequence[C], workers: int) -> Generator[Outcome[T], None, None]:
    """Outcomes from local processes; a case whose worker was killed is tried again, alone."""
    left = dict(enumerate(cases))
    try:
        while left:
            begun: list[int] = []
            with contextlib.suppress(TerminatedWorkerError):
                for number, outcome in _processed(function, list(left.items()), workers, begun):
                    yield replace(outcome, case=left.pop(number))
            for number in [number for number in begun if number in left]:  # any of them may have killed the worker
                yield _alone(function, left.pop(number), workers)
    finally:
        get_reusable_executor(kill_workers=True).shutdown(wait=True, kill_workers=True)


def _processed(
    function: Callable[[C], T], numbered: Sequence[tuple[int, C]], workers: int, begun: list[int]
) -> Iterator[tuple[int, Outcome[T]]]:
    """Numbers and outcomes of finished cases; the numbers of cases that were started are added to `begun`."""

    def tasks() -> Iterator[Any]:
        """Calls for joblib."""
        for number, case in numbered:
            begun.append(number)
            yield delayed(_isolated_as)(number, function, case)

    with parallel_config(backend="loky", inner_max_num_threads=1):
        parallel = Parallel(
            workers, return_as="generator_unordered", batch_size=1, pre_dispatch=workers, max_nbytes=None
        )
    yield from parallel(tasks())


def _alone(function: Callable[[C], T], case: C, workers: int) -> Outcome[T]:
    """The outcome of a case that was running when a worker was killed."""
    for _ in range(TRIES):
        with contextlib.suppress(TerminatedWorkerError):
            ((_, outcome),) = _processed(function, [(0, case)], workers, [])
            return replace(outcome, case=case)
    return _killed(case)


def _killed(case: C) -> Outcome[Any]:
    text = "killed every worker that tried it (out of memory?). Remedy: fewer workers, or a smaller --res."
    return Outcome(case, failure=Failure(case.id, str(case.image), text))


def _on_scheduler(function: Callable[[C], T], cases: Sequence[C], address: str) -> Generator[Outcome[T], None, None]:
    """Outcomes from the workers of a Dask scheduler.

    Dask tries the case of a killed worker again. The function is sent once, as a task of its own: the workers pass its
    result to one another, and Dask can repeat it. Scattered data would be lost with the workers that hold it.
    """
    with _client(address) as client, _scheduler_errors(address):
        from cloudpickle import dumps  # comes with distributed

        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", "Sending large graph")  # a model of about 25 MB is intended
            sent = client.submit(pickle.loads, dumps(function), pure=False)
        futures = [client.submit(_isolated, sent, _absolute(case), pure=False) for case in cases]
        yield from _as_they_end(futures, cases)


def _as_they_end(futures: Sequence[Any], cases: Sequence[C]) -> Iterator[Outcome[Any]]:
    """Outcomes of futures, with the cases as they were given."""
    from distributed import KilledWorker, as_completed

    case_of = dict(zip((future.key for future in futures), cases, strict=True))
    for future in as_completed(futures):
        case = case_of[future.key]
        try:
            outcome = future.result()
        except KilledWorker:
            outcome = _killed(case)
        future.release()  # workers forget the value, which may be large
        failure = outcome.failure and replace(outcome.failure, image=str(case.image))
        yield replace(outcome, case=case, failure=failure)


def _absolute(case: Any) -> Any:
    """The case with absolute paths: a worker on another machine has another working directory."""
    return replace(case, **{name: _absolute_path(value) for name, value in vars(case).items()})


def _absolute_path(value: Any) -> Any:
    """A path, or the paths of a tuple, made absolute; any other value as it is."""
    if isinstance(value, tuple):
        return tuple(map(_absolute_path, value))
    return value.absolute() if isinstance(value, Path) else value


def failures_of(outcomes: Sequence[Outcome[Any]]) -> list[Failure]:
    """The failures among some outcomes, sorted by case id."""
    return sorted((o.failure for o in outcomes if o.failure is not None), key=lambda failure: failure.id)


def write_failures(path: PathLike, failures: Sequence[Failure]) -> None:
    """Write `failures.json`, a list."""
    write_json(path, [vars(failure) for failure in failures])


def _isolated(function: Callable[[C], T], case: C) -> Outcome[T]:
    """Call the function and record a failure instead of raising it; machine errors affect all cases and are raised."""
    try:
        return Outcome(case, function(case))
    except MachineError:
        raise
    except AnofieldError as error:
        return Outcome(case, failure=Failure(case.id, str(case.image), str(error)))
    except Exception as error:  # noqa: BLE001 - recorded with its traceback
        text = f"{type(error).__name__}: {error} (a defect of anofield, please report it)"
        return Outcome(case, failure=Failure(case.id, str(case.image), text, traceback.format_exc()))


def _isolated_as(number: int, function: Callable[[C], T], case: C) -> tuple[int, Outcome[T]]:
    return number, _isolated(function, case)


def _client(address: str) -> Any:
    """A client of a running Dask scheduler."""
    try:
        from distributed import Client
    except ImportError as error:
        remedy = "pip install 'anofield[cluster]', or use --workers"
        raise MachineError("Dask is not installed", remedy=remedy) from error
    try:
        return Client(address, timeout=PATIENCE)
    except (OSError, TimeoutError, ValueError, RuntimeError) as error:
        raise MachineError(f"no Dask scheduler answers ({error})", where=address, remedy="check its address") from error


@contextlib.contextmanager
def _scheduler_errors(address: str) -> Iterator[None]:
    """Turn the errors that Dask raises when the connection is lost into a `MachineError`."""
    try:
        yield
    except (OSError, CancelledError) as error:
        raise MachineError(
            f"the connection to the Dask scheduler was lost ({type(error).__name__})",
            where=address,
            why="the unfinished cases have no result",
            remedy="start the scheduler again and repeat the command, which skips finished cases",
        ) from error


def in_order(outcomes: Iterable[Outcome[T]], cases: Sequence[C]) -> Iterator[Outcome[T]]:
    """Outcomes in the order of their cases, each as soon as all before it have arrived."""
    waiting: dict[str, Outcome[T]] = {}
    order = iter(cases)
    wanted = next(order, None)
    for outcome in outcomes:
        waiting[outcome.case.id] = outcome
        while wanted is not None and wanted.id in waiting:
            yield waiting.pop(wanted.id)
            wanted = next(order, None)
