"""SIGINT and SIGTERM that wait for the end of a step, so that state can be saved first."""

from __future__ import annotations

import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from types import FrameType


@dataclass
class StopRequest:
    """`number` is the signal that asked to stop, or None."""

    number: int | None = None


@contextmanager
def deferred_stop() -> Iterator[StopRequest]:
    """Collect SIGINT and SIGTERM instead of dying; a second SIGINT interrupts at once.

    Outside the main thread, where Python forbids handlers, the request simply stays empty.
    """
    request = StopRequest()
    if threading.current_thread() is not threading.main_thread():
        yield request
        return

    def handle(number: int, frame: FrameType | None) -> None:
        if request.number is not None:
            raise KeyboardInterrupt
        request.number = number

    before = {number: signal.signal(number, handle) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield request
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
