"""Progress on stderr: a bar on a terminal, a plain line every few seconds elsewhere."""

from __future__ import annotations

import contextlib
import functools
import sys
import time
from collections.abc import Iterable, Iterator
from types import TracebackType
from typing import TypeVar

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, TextColumn, TimeRemainingColumn
from rich.progress import Progress as Bar

T = TypeVar("T")
PLAIN_INTERVAL = 10.0  # seconds between plain lines


class Progress:
    """Counts and shows the steps of one task.

    Args:
        label: Name of the task.
        total: Number of steps.
        shown: Whether progress is written to stderr.
    """

    def __init__(self, label: str, total: int, *, shown: bool = True) -> None:
        self.label, self.total, self.done = label, total, 0
        self._start = self._said = time.monotonic()
        terminal = shown and sys.stderr is not None and sys.stderr.isatty()
        columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn(),
                   TextColumn("{task.fields[text]}"))  # fmt: skip
        self._bar = Bar(*columns, console=Console(stderr=True), transient=True) if terminal else None
        self._shown = shown
        self._task = self._bar.add_task(label, total=total, text="") if self._bar else None

    def __enter__(self) -> Progress:
        if self._bar:
            self._bar.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._bar:
            self._bar.stop()
        seconds = time.monotonic() - self._start
        if self._shown and seconds > 2.0 and error is None:
            say(f"{self.label}: {self.done}/{self.total} in {seconds:.0f} s")

    def advance(self, text: str = "", count: int = 1) -> None:
        """Count `count` more steps as done, and show a short text beside the bar."""
        self.done += count
        if self._bar and self._task is not None:
            self._bar.update(self._task, completed=self.done, text=text)
        elif self._shown and time.monotonic() - self._said > PLAIN_INTERVAL:
            self._said = time.monotonic()
            left = (self._said - self._start) / self.done * (self.total - self.done)
            say(f"{self.label}: {self.done}/{self.total}, {left:.0f} s left {text}".rstrip())


def track(items: Iterable[T], label: str, total: int) -> Iterator[T]:
    """Yield the items and show the progress, one step per item."""
    with Progress(label, total) as progress:
        for item in items:
            yield item
            progress.advance()


def say(text: str) -> None:
    """Write one line to stderr; if stderr is closed or full, the line is lost and the work goes on."""
    if sys.stderr is None:  # a program without a console
        return
    with contextlib.suppress(OSError, ValueError):
        sys.stderr.write(text.encode("utf-8", "backslashreplace").decode() + "\n")
        sys.stderr.flush()


@functools.cache
def say_once(text: str) -> None:
    """Like `say`, but only the first time in this process that the text is given."""
    say(text)
