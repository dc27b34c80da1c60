"""Plans: which detections work in a run folder now, and which cases they began with.

A detection writes a hidden plan with the ids of its cases and holds a lock on it until it ends, so that no other
detection gives the run another identity meanwhile. The plan of a killed detection stays, without its lock, until its
cases are finished or failed: readers tell from it that a run is not complete.
"""

from __future__ import annotations

import contextlib
import os
import platform
import secrets
from collections.abc import Collection, Iterator, Sequence
from pathlib import Path

from pydantic import BaseModel

from anofield._files import read_json, write_json, writing
from anofield._locks import LOCK_FILE, take
from anofield._progress import say
from anofield.errors import AnofieldError, UsageError

PREFIX = ".plan-"
PATIENCE = 60.0  # seconds to wait for another process that begins or ends in the folder, which takes it milliseconds


class Plan(BaseModel):
    """Content of a plan."""

    identity: str
    """Identity of the run that the detection writes."""
    holder: str
    """Host and process id of the detection."""
    cases: list[str]
    """Ids of the cases that it was asked for."""


def planned(folder: Path, identity: str) -> set[str]:
    """Ids of the cases that detections of this identity began with and have not ended with."""
    plans = [plan for path in _paths(folder) if (plan := _read(path)) is not None]
    return {case_id for plan in plans if plan.identity == identity for case_id in plan.cases}


@contextlib.contextmanager
def alone(folder: Path) -> Iterator[None]:
    """Admit one process at a time to the files of the run as a whole.

    Raises:
        UsageError: Another process has been busy with them for a minute.
        MachineError: The folder cannot be written.
    """
    lock = take(folder / LOCK_FILE, PATIENCE)
    try:
        if lock.state == "busy":
            raise UsageError(
                "another process has been writing here for a minute",
                where=folder,
                remedy="wait for it or end it, then repeat the command: finished cases are kept",
            )
        yield
    finally:
        lock.release()


@contextlib.contextmanager
def held(folder: Path, identity: str, cases: Sequence[str]) -> Iterator[Path]:
    """Write a plan and hold its lock during the body; yields its path. Called with `alone`, which the body leaves.

    Args:
        folder: Folder of the run.
        identity: Identity of the run.
        cases: Ids of the cases to detect in.
    """
    path = folder / f"{PREFIX}{secrets.token_hex(4)}.json"
    write_json(path, Plan(identity=identity, holder=f"{platform.node()} pid {os.getpid()}", cases=list(cases)))
    lock = take(_lock_of(path))
    if lock.state == "none":
        say(f"{folder}: this file system has no locks; do not detect with other options here at the same time")
    try:
        yield path
    finally:
        lock.release()
        with contextlib.suppress(OSError):
            _lock_of(path).unlink(missing_ok=True)


def refuse_running(folder: Path, identity: str) -> None:
    """Refuse to give a run another identity while a detection is writing it; called with `alone`.

    Raises:
        UsageError: A detection with another identity is running.
    """
    for path in _paths(folder):
        plan = _read(path)
        if plan is not None and plan.identity != identity and _running(path):
            raise UsageError(
                f"another detection ({plan.holder}) with another model, calibration or other options is running here",
                where=folder,
                why="one run holds results of one model with one set of options",
                remedy="wait for it or end it; choose another -o; or replace its results with --force",
            )


def drop_plans(folder: Path, identity: str, done: Collection[str] = (), own: Path | None = None) -> None:
    """Remove plans of detections that ended: those of another identity, and those whose cases are all done.

    Args:
        folder: Folder of the run; called with `alone`.
        identity: Identity of the run.
        done: Ids of the cases that are finished or failed.
        own: Plan of the caller, which has ended its work although it still holds the lock.
    """
    for path in _paths(folder):
        plan = _read(path)
        if (path == own or not _running(path)) and (
            plan is None or plan.identity != identity or set(plan.cases) <= set(done)
        ):
            with writing(path):
                path.unlink(missing_ok=True)
    for lock in folder.glob(f"{PREFIX}*.lock"):
        path = lock.with_suffix(".json")
        if not path.exists() and not _running(path):
            with writing(lock):
                lock.unlink(missing_ok=True)


def _paths(folder: Path) -> list[Path]:
    return sorted(folder.glob(f"{PREFIX}*.json"))


def _lock_of(path: Path) -> Path:
    return path.with_suffix(".lock")


def _read(path: Path) -> Plan | None:
    """A plan; None if it was removed meanwhile or is damaged, as nothing depends on it."""
    try:
        return read_json(path, Plan, remedy="")
    except AnofieldError:
        return None


def _running(path: Path) -> bool:
    """Whether a process holds the lock of a plan."""
    if not _lock_of(path).is_file():
        return False
    lock = take(_lock_of(path))
    lock.release()
    return lock.state == "busy"
