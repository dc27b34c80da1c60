"""stdout and stderr of the command line: they take any text, and a closed or full one never looks like a bug."""

from __future__ import annotations

import io
import os
import select
import sys
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from typing import Any, TextIO

from anofield.errors import MachineError


class Unread(BaseException):
    """Nobody reads stdout any more, for example after `| head`; the program ends without a word, as if by SIGPIPE.

    It is neither an `Exception` nor an `OSError`, so no other handler takes it for an error of its own.
    """

    exit_code = 141  # 128 + SIGPIPE


class _Sink(io.FileIO):
    """The file below stdout or stderr; after its first error it swallows what is written.

    Args:
        number: File descriptor; it stays open.
        vital: Whether losing what is written is an error (stdout) or not (stderr, which only accompanies the work).
    """

    def __init__(self, number: int, *, vital: bool) -> None:
        super().__init__(number, "wb", closefd=False)
        self._vital, self._lost = vital, False

    def write(self, content: Any, /) -> int:
        """Write bytes.

        Raises:
            Unread: The other end of the pipe is closed.
            MachineError: The disk is full, or the file cannot be written.
        """
        if self._lost:
            return memoryview(content).nbytes
        try:
            while (written := super().write(content)) is None:  # another program made it non-blocking
                select.select([], [self.fileno()], [])
            return written
        except OSError as error:
            self._lost = True
            if not self._vital:
                return memoryview(content).nbytes
            if isinstance(error, BrokenPipeError):
                raise Unread from error
            raise MachineError(
                f"stdout cannot be written ({error.strerror})",
                why="finished work is kept",
                remedy="send the output elsewhere, and repeat the command",
            ) from error


@contextmanager
def safe_streams() -> Iterator[None]:
    """Replace stdout and stderr by ones that can be written, whatever the shell gave to the program.

    Characters that their encoding lacks are written as escapes. A closed descriptor counts as `/dev/null`: otherwise
    the next file that is opened would get its number, and messages would be written into that file.
    """
    _open_descriptors()
    with ExitStack() as stack:
        for name in ("stdout", "stderr"):
            stack.enter_context(_replaced(name))
        yield


def _open_descriptors() -> None:
    """Give the descriptors 0, 1 and 2 to `/dev/null` where they are closed."""
    for number in range(3):
        try:
            os.fstat(number)
        except OSError:
            opened = os.open(os.devnull, os.O_RDWR)
            if opened != number:
                os.dup2(opened, number)
                os.close(opened)


@contextmanager
def _replaced(name: str) -> Iterator[None]:
    before: TextIO | None = getattr(sys, name)
    number = _descriptor(before, name)
    if number is None:  # not a file, for example in a test or a notebook
        yield
        return
    if before is not None:
        with suppress(OSError, ValueError):
            before.flush()
    encoding = before.encoding if before is not None else "utf-8"
    raw = _Sink(number, vital=name == "stdout")
    lines = name == "stderr" or raw.isatty()
    stream = io.TextIOWrapper(
        io.BufferedWriter(raw), encoding=encoding, errors="backslashreplace", line_buffering=lines
    )
    setattr(sys, name, stream)
    try:
        yield
    finally:
        setattr(sys, name, before)
        with suppress(Unread, MachineError):
            stream.flush()


def _descriptor(stream: TextIO | None, name: str) -> int | None:
    """File descriptor of a stream; that of a missing stream is the usual one, None for a stream that is not a file."""
    if stream is None:
        return {"stdout": 1, "stderr": 2}[name]
    try:
        return None if os.name == "nt" else stream.fileno()
    except (OSError, ValueError, AttributeError):
        return None
