"""Error classes: every one says what is wrong, where, why it matters and what to do about it."""

from __future__ import annotations

from pathlib import Path


class AnofieldError(Exception):
    """A mistake that the user can mend; the command line prints it without a traceback.

    Args:
        what: What is wrong, one clause, no full stop.
        where: The file, key or case that is wrong.
        why: Why the run cannot go on with it.
        remedy: What the user can do.
    """

    exit_code = 2

    def __init__(self, what: str, *, where: str | Path = "", why: str = "", remedy: str = "") -> None:
        self.what, self.where, self.why, self.remedy = what, str(where), why, remedy
        super().__init__(str(self))

    def __str__(self) -> str:
        head = f"{self.where}: {self.what}" if self.where else self.what
        parts = [head, self.why, f"Remedy: {self.remedy}" if self.remedy else ""]
        first, *more = [part.rstrip(".") for part in parts if part]
        return ". ".join([first, *(part[:1].upper() + part[1:] for part in more)]) + "."

    def __reduce__(self) -> tuple[object, ...]:
        return _rebuild, (type(self), self.what, self.where, self.why, self.remedy)


def _rebuild(kind: type[AnofieldError], what: str, where: str, why: str, remedy: str) -> AnofieldError:
    return kind(what, where=where, why=why, remedy=remedy)


class UsageError(AnofieldError):
    """An option, a recipe or a `specs.json` that cannot be used (exit code 2)."""


class ScanError(AnofieldError):
    """A scan, mask or label file that cannot be used (exit code 4 when no case is left)."""

    exit_code = 4


class CohortError(AnofieldError):
    """No usable input: an empty folder, a pattern without matches, two cases with one id (exit code 4)."""

    exit_code = 4


class ExperimentError(AnofieldError):
    """An experiment that is missing, incomplete or does not fit what is asked of it (exit code 5)."""

    exit_code = 5


class MachineError(AnofieldError):
    """The device, memory or disk refuses (exit code 6)."""

    exit_code = 6


class Interrupted(BaseException):
    """The run was stopped by SIGINT or SIGTERM; its exit code is 128 + the signal's number.

    Not an `Exception`, so that nothing which isolates a failing case can swallow it.

    Args:
        signal_number: 2 or 15.
        saved: What was saved and how to go on.
    """

    def __init__(self, signal_number: int, saved: str = "") -> None:
        self.signal_number, self.saved = signal_number, saved
        self.exit_code = 128 + signal_number
        super().__init__(signal_number, saved)

    def __str__(self) -> str:
        return f"interrupted by signal {self.signal_number}. {self.saved}".strip()
