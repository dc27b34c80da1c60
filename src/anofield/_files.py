"""One process at a time in a directory; the lock goes with the process, however it ends."""

from __future__ import annotations

import fcntl
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from anofield.data.scan import writing
from anofield.errors import UsageError

LOCK_FILE = ".lock"


@contextmanager
def exclusive(folder: Path, doing: str) -> Iterator[None]:
    """Hold a directory for this process.

    Args:
        folder: The directory; its lock file stays, empty of meaning when nobody holds it.
        doing: What is done there, for the error of the second one.

    Raises:
        UsageError: Another process holds it.
        MachineError: The directory cannot be written.
    """
    path = folder / LOCK_FILE
    with writing(path):
        stream = path.open("a+")
    with stream:
        try:
            fcntl.flock(stream, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            stream.seek(0)
            holder = stream.read().strip() or "unknown"
            raise UsageError(
                f"another process ({holder}) is {doing} here",
                where=folder,
                why="two would overwrite each other's files",
                remedy="wait for it or end it, or use another directory",
            ) from error
        stream.truncate(0)
        stream.write(f"{os.uname().nodename} pid {os.getpid()}")
        stream.flush()
        yield
