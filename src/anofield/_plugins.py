"""Plug-ins: scores, baselines and fields of other packages, which are found through entry points.

A plug-in is code that this package has never seen. Whatever it raises is turned into an error that names the plug-in
and the package that installs it.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from importlib.metadata import Distribution, EntryPoint, distributions
from typing import Any

from anofield.errors import AnofieldError, Interrupted, UsageError

GROUPS = {"score": "anofield.scores", "baseline": "anofield.baselines", "field": "anofield.fields"}  # of entry points
NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._+-]{0,63}")  # a name becomes part of file names


@dataclass(frozen=True)
class Plugin:
    """An installed score, baseline or field; it is imported by `load`.

    Attributes:
        kind: `score`, `baseline` or `field`.
        point: Its entry point.
        rival: Entry point of another package with the same name; None if there is none.
    """

    kind: str
    point: EntryPoint
    rival: EntryPoint | None = None

    @property
    def name(self) -> str:
        """Name of the plug-in."""
        return self.point.name

    @property
    def package(self) -> str:
        """Name and version of the package that installs it, in words."""
        return _package(self.point)

    def load(self) -> Any:
        """Import the object.

        Raises:
            UsageError: The name cannot be used, another package uses it too, or the object cannot be imported.
        """
        if not NAME.fullmatch(self.name):
            raise self.refused("has a name that cannot be part of a file name")
        if self.rival is not None:
            raise self.refused(f"has the name of one of {_package(self.rival)}")
        with self.blamed("cannot be imported"):
            return self.point.load()

    @contextmanager
    def blamed(self, problem: str) -> Iterator[None]:
        """Turn what the code of the plug-in raises into an error that names the plug-in and its package.

        Args:
            problem: What does not work: a verb and the rest of a sentence, for example `cannot be imported`.

        Raises:
            UsageError: The body raised something that is neither an error of this package nor an interruption.
        """
        try:
            yield
        except (AnofieldError, Interrupted, KeyboardInterrupt, GeneratorExit, MemoryError):
            raise
        except BaseException as error:  # SystemExit too: a plug-in does not end the program
            told = str(error).strip().partition("\n")[0]
            raise self.refused(f"{problem} ({type(error).__name__}: {told})") from error

    def refused(self, problem: str) -> UsageError:
        """The error that says why the plug-in cannot be used; `problem` is a verb and the rest of a sentence."""
        return UsageError(
            f"the {self.kind} {self.name!r} of {self.package} {problem}",
            where=self.point.value,
            remedy="fix or uninstall the package that provides it",
        )


def installed(kind: str, *, own: Collection[str] = ()) -> dict[str, Plugin]:
    """The plug-ins of a kind by name; none is imported, and a package with damaged metadata is skipped.

    Args:
        kind: `score`, `baseline` or `field`.
        own: Names of this package, which another package cannot take.
    """
    found: dict[str, Plugin] = {}
    for point in (point for distribution in distributions() for point in _points(distribution, GROUPS[kind])):
        if point.name in own:
            continue
        first = found.setdefault(point.name, Plugin(kind, point))
        if first.point.value != point.value and _package(first.point) != _package(point):
            found[point.name] = replace(first, rival=point)
    return found


def _points(distribution: Distribution, group: str) -> list[EntryPoint]:
    """Entry points of one package in a group; empty if its metadata are damaged."""
    try:
        return [point for point in distribution.entry_points if point.group == group]
    except Exception:  # noqa: BLE001 - the metadata of another package may be damaged in any way
        return []


def _package(point: EntryPoint) -> str:
    """Name and version of the package that installs a plug-in."""
    try:
        return f"the package {point.dist.name} {point.dist.version}" if point.dist else "an unknown package"
    except Exception:  # noqa: BLE001 - the metadata of another package may be damaged in any way
        return "an unknown package"
