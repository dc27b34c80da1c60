"""Call a function on many cases: in this process, in local processes (joblib), or on a Dask scheduler."""

from __future__ import annotations

import contextlib
import logging
import pickle
import time
import traceback
import warnings
from collections.abc import Callable, Generator, Iterable, Iterator, Sequence
from concurrent.futures import CancelledError
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Generic, Protocol, TypeVar

from joblib import Parallel, cpu_count, delayed, parallel_config
from joblib.externals.loky import get_reusable_executor
from joblib.externals.loky.process_executor import TerminatedWorkerError

from anofield._files import write_json
from anofield._progress import say, say_once, track
from anofield._words import counted
from anofield.errors import MachineError, UsageError, known_error
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
CLOSING = 5  # seconds that the end of a connection may take
ALONE = 300.0  # seconds without any worker, after there were some, until a scheduler is given up
LOOK = 5.0  # seconds without a result, after which the scheduler is asked for its workers
POLL = 0.05  # seconds
PER_PROCESSOR = 4  # local processes
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
        MachineError: `distributed` is not installed, the scheduler does not answer, the connection to it or all its
            workers are lost, its workers cannot run the function, or so many local processes cannot be started.
    """
    outcomes: Generator[Outcome[T], None, None]
    if spread.scheduler is not None:
        outcomes = _on_scheduler(function, cases, spread.scheduler)
    elif spread.workers > 1:
        outcomes = _in_processes(function, cases, _useful(spread.workers, len(cases)))
    else:
        outcomes = (_isolated(function, case) for case in cases)
    with contextlib.closing(outcomes):
        yield from track(outcomes, label, len(cases))


def _useful(workers: int, cases: int) -> int:
    """Number of local processes to start: more than there are cases, or many more than processors, only cost memory."""
    most: int = min(max(cases, 1), PER_PROCESSOR * cpu_count())
    if workers > most and most < cases:
        say(f"--workers {workers}: {most} processes are used, {PER_PROCESSOR} per processor")
    return min(workers, most)


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
    except OSError as error:
        raise MachineError(
            f"{counted(workers, 'worker process', 'worker processes')} cannot be used ({error.strerror or error})",
            why="finished cases are kept",
            remedy="fewer workers; the same command resumes where it stopped",
        ) from error
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
            yield delayed(_packed)(number, function, case)

    with parallel_config(backend="loky", inner_max_num_threads=1):
        parallel = Parallel(
            workers, return_as="generator_unordered", batch_size=1, pre_dispatch=workers, max_nbytes=None
        )
    for number, packed in parallel(tasks()):
        yield number, _unpacked(packed, dict(numbered)[number])


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
        futures = [
            client.submit(_packed, number, sent, _absolute(case), pure=False) for number, case in enumerate(cases)
        ]
        yield from _as_they_end(client, futures, cases)


def _as_they_end(client: Any, futures: Sequence[Any], cases: Sequence[C]) -> Iterator[Outcome[Any]]:
    """Outcomes of futures, with the cases as they were given.

    Raises:
        MachineError: The workers cannot run the function, or all of them are lost.
    """
    from distributed import KilledWorker

    case_of = dict(zip((future.key for future in futures), cases, strict=True))
    for future, result in _ended(client, futures):
        case = case_of[future.key]
        error = result[1] if future.status == "error" else result if isinstance(result, BaseException) else None
        if isinstance(error, KilledWorker):
            outcome = _killed(case)
        elif isinstance(error, MachineError | OSError | CancelledError):
            raise error
        elif error is not None:
            raise MachineError(
                f"the workers of the scheduler cannot run this program ({type(error).__name__}: {error})",
                why="finished cases are kept",
                remedy="install the same versions of anofield and of all plug-ins for the workers as here",
            ) from error
        else:
            outcome = _unpacked(result[1], case)
        future.release()  # workers forget the value, which may be large
        failure = outcome.failure and replace(outcome.failure, image=str(case.image))
        yield replace(outcome, case=case, failure=failure)


def _ended(client: Any, futures: Sequence[Any]) -> Iterator[tuple[Any, Any]]:
    """Futures with their results as they end; the result is on this machine, so a lost worker cannot take it away.

    Dask alone would wait for workers without an end. Before the first worker comes (a job in a queue), that is right;
    if there were workers and all are gone for `ALONE` seconds, nobody may start new ones.

    Raises:
        MachineError: All workers are lost.
    """
    from distributed import as_completed

    ending = as_completed(futures, with_results=True, raise_errors=False)
    seen, last = bool(client.scheduler_info()["workers"]), time.monotonic()
    for _ in futures:
        while not _ready(ending):
            now = time.monotonic()
            if client.status in ("closing", "closed"):
                raise CancelledError(client.status)
            if client.scheduler_info()["workers"]:
                seen, last = True, now
            elif seen and now - last > ALONE:
                raise MachineError(
                    "all workers of the Dask scheduler are lost",
                    where=client.scheduler.address,
                    why="the unfinished cases have no result",
                    remedy="start workers and repeat the command, which skips finished cases",
                )
            elif not seen:
                say_once(f"{client.scheduler.address}: no worker yet, waiting for one")
        seen, last = True, time.monotonic()
        yield next(ending)


def _ready(ending: Any) -> bool:
    """Wait some seconds for the next future; returns whether it came."""
    until = time.monotonic() + LOOK
    while not ending.has_ready() and time.monotonic() < until:
        time.sleep(POLL)
    return bool(ending.has_ready())


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
    except Exception as error:  # noqa: BLE001 - recorded, that of a bug with its traceback
        if (known := known_error(error)) is not None:
            return Outcome(case, failure=Failure(case.id, str(case.image), str(known)))
        text = f"{type(error).__name__}: {error} (a defect of anofield, please report it)"
        return Outcome(case, failure=Failure(case.id, str(case.image), text, traceback.format_exc()))


def _packed(number: int, function: Callable[[C], T], case: C) -> tuple[int, bytes]:
    """In a worker: number and pickled outcome of a case. An outcome that cannot be pickled is a failure of its case."""
    outcome = _isolated(function, case)
    try:
        return number, pickle.dumps(replace(outcome, case=None))
    except Exception as error:  # noqa: BLE001 - pickling calls code of any class
        return number, pickle.dumps(_unsent(case, error))


def _unpacked(content: bytes, case: C) -> Outcome[Any]:
    """The outcome of a case that a worker sent."""
    try:
        outcome: Outcome[Any] = pickle.loads(content)
    except Exception as error:  # noqa: BLE001 - unpickling calls code of any class
        outcome = _unsent(case, error)
    return replace(outcome, case=case)


def _unsent(case: C, error: Exception) -> Outcome[Any]:
    text = f"the result cannot be sent between processes ({type(error).__name__}: {error}). Remedy: use one process."
    return Outcome(None, failure=Failure(case.id, str(case.image), text))


@contextlib.contextmanager
def _client(address: str) -> Iterator[Any]:
    """A client of a running Dask scheduler.

    Raises:
        MachineError: `distributed` is not installed, or no scheduler answers.
    """
    try:
        from distributed import Client
    except ImportError as error:
        remedy = "pip install 'anofield[cluster]', or use --workers"
        raise MachineError("Dask is not installed", remedy=remedy) from error
    with _silent("distributed"):
        try:
            client = Client(address, timeout=PATIENCE)
        except Exception as error:  # a wrong address raises errors of many kinds
            told = str(error).partition("\n")[0]
            what = f"no Dask scheduler answers ({told})"
            raise MachineError(what, where=address, remedy="check its address") from error
        try:
            yield client
        finally:
            with contextlib.suppress(Exception):  # the scheduler may be gone
                client.close(timeout=CLOSING)


@contextlib.contextmanager
def _silent(package: str) -> Iterator[None]:
    """Switch off the log of a package, whose tracebacks say less than the errors raised here."""
    names = [name for name in logging.root.manager.loggerDict if name.partition(".")[0] == package]
    before = {logger: logger.level for logger in map(logging.getLogger, names)}
    for logger in before:
        logger.setLevel(logging.CRITICAL + 1)
    try:
        yield
    finally:
        for logger, level in before.items():
            logger.setLevel(level)


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
