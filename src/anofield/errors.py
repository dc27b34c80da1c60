"""Error classes: every message says what is wrong, where, why it matters and how to fix it."""

from __future__ import annotations

import errno
import functools
import os
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
NO_MEMORY = re.compile(r"^OutOfMemoryError|^RuntimeError: .*(can't allocate memory|CUDA out of memory)", re.DOTALL)
BAD_PATH = (errno.ENAMETOOLONG, errno.ENOTDIR, errno.ELOOP, errno.EISDIR, errno.EILSEQ)  # a path that cannot be right
LESS = "a smaller --res, or fewer workers"
UNUSABLE = (  # errors of Python about a name or a path: class, part of the message, and what to tell
    (ValueError, "embedded null", "a path contains a NUL character", "check the paths that are given"),
    (RuntimeError, "Symlink loop", "a link leads back to itself", "remove the link"),
    (UnicodeError, "surrogates not allowed", "a name is not valid UTF-8", "rename the file"),
)


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
    """The run was stopped by SIGINT, SIGTERM or SIGHUP; its exit code is 128 + the signal's number.

    It is not an `Exception`, so code that isolates failing cases does not catch it.

    Args:
        signal_number: Number of the signal: 2, 15 or 1.
        saved: What was saved and how to continue.
    """

    def __init__(self, signal_number: int, saved: str = "") -> None:
        self.signal_number, self.saved = signal_number, saved
        self.exit_code = 128 + signal_number
        super().__init__(signal_number, saved)

    def __str__(self) -> str:
        return f"interrupted by signal {self.signal_number}. {self.saved}".strip()


def known_error(error: BaseException) -> AnofieldError | None:
    """The error of this package that an error of Python, torch or the operating system amounts to; None for a bug.

    An `OSError` is never a bug by itself: it says that a path, a file or the machine cannot be used. Memory, depth and
    unusual characters are properties of the input, too.
    """
    if isinstance(error, AnofieldError):
        return error
    if isinstance(error, MemoryError) or NO_MEMORY.search(f"{type(error).__name__}: {error}"):
        told = str(error).partition("\n")[0].rstrip(".")
        return MachineError(f"out of memory ({told})" if told else "out of memory", remedy=LESS)
    if isinstance(error, RecursionError):
        return UsageError("the content of a file is nested too deeply", remedy="check the files that are read")
    if isinstance(error, EOFError):
        return ScanError(f"a file ends too early ({error})", remedy="copy it again")
    if isinstance(error, OSError):
        return _of_system(error)
    for kind, words, what, remedy in UNUSABLE:
        if isinstance(error, kind) and words in str(error):
            return UsageError(what, why=str(error), remedy=remedy)
    return None


def _of_system(error: OSError) -> AnofieldError:
    """The error of this package for an error of the operating system."""
    where = "" if error.filename is None else os.fsdecode(error.filename)
    told = error.strerror or str(error)
    if error.errno is None:  # raised by a library about the content of a file
        return ScanError(f"a file cannot be read ({error})", where=where, remedy="check the files that are read")
    if error.errno in BAD_PATH:
        return UsageError(f"cannot be used as a path ({told})", where=shortened(where), remedy="check the path")
    if error.errno == errno.ENOENT and not where and not _in_a_folder():
        return MachineError("the working directory no longer exists", remedy="change to another folder")
    return MachineError(
        f"the operating system refuses ({told})",
        where=shortened(where),
        remedy="check the file, the permissions and the free space; `anofield --debug` shows what was tried",
    )


def _in_a_folder() -> bool:
    try:
        Path.cwd()
    except OSError:
        return False
    return True


def shortened(text: str, most: int = 200) -> str:
    """A text without its middle, if it is very long.

    >>> shortened("abcdefgh", 4)
    'ab…gh'
    """
    return text if len(text) <= most else f"{text[: most // 2]}…{text[-(most // 2) :]}"


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
