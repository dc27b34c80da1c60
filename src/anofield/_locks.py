"""Locks of files, which the system releases when their process ends, even by a crash; one process in a folder."""

from __future__ import annotations

import contextlib
import os
import platform
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from anofield._files import write_text, writing
from anofield._progress import say_once
from anofield.errors import UsageError
from anofield.typing import PathLike

LOCK_FILE = ".lock"  # the file that is locked; beside it, `.lock-holder` says by whom
PAUSE = 0.05  # seconds between two attempts


@dataclass(frozen=True)
class Lock:
    """An open lock file.

    Attributes:
        number: Descriptor of the file; closing it releases the lock.
        state: `held` by this process, `busy` (held by another one), or `none`: its file system has no locks.
    """

    number: int
    state: Literal["held", "busy", "none"]

    def release(self) -> None:
        """Release the lock; its file remains and blocks nobody."""
        os.close(self.number)


def take(path: Path, patience: float = 0.0) -> Lock:
    """Open a lock file, which is made if needed, and try to lock it; programs that this process starts do not hold it.

    Args:
        path: The lock file.
        patience: Seconds to wait for another process.

    Raises:
        MachineError: The folder of the lock file cannot be written.
    """
    with writing(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        number = _opened(path)
    end = time.monotonic() + patience
    while (state := _locked(number)) == "busy" and time.monotonic() < end:
        time.sleep(PAUSE)
    return Lock(number, state)


@contextlib.contextmanager
def exclusive(path: PathLike, doing: str, *, beside: bool = False) -> Iterator[None]:
    """Lock a folder for this process.

    On a file system without locks the work goes on, and a line on stderr says so.

    Args:
        path: Folder to lock; the lock file is in it.
        doing: What this process does there, for the error message of a second process.
        beside: The lock file is beside `path`, which need not exist yet and may be replaced while it is locked. All
            processes must choose the same.

    Raises:
        UsageError: Another process holds the lock.
        MachineError: The folder of the lock file cannot be written.
    """
    path = Path(path)
    file = path.with_name(f".{path.name}{LOCK_FILE}") if beside else path / LOCK_FILE
    holder = file.with_name(f"{file.name}-holder")
    lock = take(file)
    try:
        if lock.state == "busy":
            raise UsageError(
                f"another process ({_holder(holder)}) is {doing} here",
                where=path,
                why="two would overwrite each other's files",
                remedy="wait for it or end it, or use another folder",
            )
        if lock.state == "none":
            say_once(f"{path}: this file system has no locks; make sure that no other process is {doing} here")
        else:
            write_text(holder, f"{platform.node()} pid {os.getpid()}")
        yield
    finally:
        lock.release()


def _opened(path: Path) -> int:
    """Descriptor of a lock file, which whoever may write its folder may open; it is not inherited by new programs."""
    mode = 0o644 | (path.parent.stat().st_mode & 0o022)
    try:
        number = os.open(path, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_NONBLOCK, mode)
    except PermissionError:  # made by another user; a lock needs no right to write
        return os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK)
    with contextlib.suppress(OSError):  # the umask may have taken the rights of the group
        os.fchmod(number, mode)
    return number


def _locked(number: int) -> Literal["held", "busy", "none"]:
    """Try to lock an open file once."""
    try:
        import fcntl

        fcntl.flock(number, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except (BlockingIOError, PermissionError):
        return "busy"
    except (ImportError, OSError):  # ENOLCK, ENOSYS, EOPNOTSUPP, EINVAL and others: see flock(2)
        return "none"
    return "held"


def _holder(path: Path) -> str:
    """Host and process id of the lock's holder, read from the holder file."""
    try:
        return path.read_text(encoding="utf-8", errors="replace").strip() or "unknown"
    except OSError:
        return "unknown"
