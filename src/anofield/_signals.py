"""Delayed handling of SIGINT, SIGTERM and SIGHUP: a step is finished and the state saved before the program stops."""

from __future__ import annotations

import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from types import FrameType

STOPS = tuple(getattr(signal, name) for name in ("SIGINT", "SIGTERM", "SIGHUP") if hasattr(signal, name))


def handled() -> list[int]:
    """The signals of `STOPS`, without SIGHUP where it is ignored, as `nohup` does it."""
    ignored = {number for number in STOPS if signal.getsignal(number) is signal.SIG_IGN}
    return [number for number in STOPS if number in (signal.SIGINT, signal.SIGTERM) or number not in ignored]


@dataclass
class StopRequest:
    """A request to stop.

    Attributes:
        number: Number of the signal; None if there was none.
    """

    number: int | None = None


@contextmanager
def deferred_stop() -> Iterator[StopRequest]:
    """Record SIGINT, SIGTERM and SIGHUP instead of stopping; a second signal raises `KeyboardInterrupt` at once.

    Outside the main thread Python forbids signal
    handlers, and the request stays empty.
    """
    request = StopRequest()
    if threading.current_thread() is not threading.main_thread():
        yield request
        return

    def handle(number: int, frame: FrameType | None) -> None:
        """Record the first signal; interrupt at the second."""
        if request.number is not None:
            raise KeyboardInterrupt
        request.number = number

    before = {number: signal.signal(number, handle) for number in handled()}
    try:
        yield request
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
