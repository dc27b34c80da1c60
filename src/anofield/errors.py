"""Error classes: every message says what is wrong, where, why it matters and how to fix it."""

from __future__ import annotations

import functools
import re
from collections.abc import Callable
from pathlib import Path
from typing import ParamSpec, TypeVar

Arguments = ParamSpec("Arguments")
Result = TypeVar("Result")
ARGUMENTS = {
    "--mask": "brain",
    "--unite-labels": "unite=True",
    "--res": "resolution",
    "--filter": "entities",
    "--force": "force=True",
    "-o": "out",
    "-t": "labels",
    "-e": "experiment",
    "-m": "path",
}
OPTION = re.compile(r"`[^`]*`|(?<![\w-])(?:--[a-z][a-z-]*|-[emot]\b)")  # commands in backticks stay as they are


class AnofieldError(Exception):
    """A mistake that the user can fix; the command line prints it without a traceback.

    Args:
        what: What is wrong: one clause, without a full stop.
        where: The file, key or case that is wrong.
        why: Why the run cannot continue with it.
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
    """An experiment that is missing, incomplete or does not fit the request (exit code 5)."""

    exit_code = 5


class MachineError(AnofieldError):
    """A device is not available, memory is too small, or a disk cannot be written (exit code 6)."""

    exit_code = 6


class Interrupted(BaseException):
    """The run was stopped by SIGINT or SIGTERM; its exit code is 128 + the signal's number.

    It is not an `Exception`, so code that isolates failing cases does not catch it.

    Args:
        signal_number: Number of the signal, 2 or 15.
        saved: What was saved and how to continue.
    """

    def __init__(self, signal_number: int, saved: str = "") -> None:
        self.signal_number, self.saved = signal_number, saved
        self.exit_code = 128 + signal_number
        super().__init__(signal_number, saved)

    def __str__(self) -> str:
        return f"interrupted by signal {self.signal_number}. {self.saved}".strip()


def for_python(function: Callable[Arguments, Result]) -> Callable[Arguments, Result]:
    """Let the errors of a function of the public face name Python's arguments instead of the command line's options."""

    @functools.wraps(function)
    def call(*args: Arguments.args, **kwargs: Arguments.kwargs) -> Result:
        """The function, its errors rewritten."""
        try:
            return function(*args, **kwargs)
        except AnofieldError as error:
            texts = {name: _in_python(getattr(error, name)) for name in ("what", "why", "remedy")}
            what = texts.pop("what")
            raise type(error)(what, where=error.where, **texts).with_traceback(error.__traceback__) from error.__cause__

    return call


def _in_python(text: str) -> str:
    """A text with `argument` in place of every --option.

    >>> _in_python("give its brain mask with --mask, or --min-lesion-ml 0; run `anofield check -i SCANS --json`")
    'give its brain mask with `brain`, or `min_lesion_ml` 0; run `anofield check -i SCANS --json`'
    """

    def name(match: re.Match[str]) -> str:
        """The argument of an option; commands in backticks stay."""
        found = match[0]
        return found if found[0] == "`" else f"`{ARGUMENTS.get(found, found[2:].replace('-', '_'))}`"

    return OPTION.sub(name, text)
