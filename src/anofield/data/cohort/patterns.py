"""Find labels and masks by a file pattern with placeholders, or in a folder of files named after the cases."""

from __future__ import annotations

import glob
import re
from collections.abc import Mapping, Sequence
from pathlib import Path

from anofield._words import counted
from anofield.data.cohort.case import Case
from anofield.data.scan import SUFFIXES, stem
from anofield.errors import CohortError, UsageError

PLACEHOLDERS = ("id", "name", "dir")


def by_pattern(cases: Sequence[Case], pattern: str, what: str, endings: Sequence[str]) -> list[Path | None]:
    """Find the label or mask of every case by a pattern or in a folder; None for a case without one.

    Raises:
        UsageError: The pattern holds an unknown placeholder.
        CohortError: No case has a file, or a case has several.
    """
    unknown = [name for name in re.findall(r"\{(.*?)\}", pattern) if name not in PLACEHOLDERS]
    if unknown:
        known = ", ".join(f"{{{name}}}" for name in PLACEHOLDERS)
        raise UsageError(f"--{what} {pattern}: unknown placeholder {{{unknown[0]}}}", remedy=f"known are {known}")
    tried = [_candidates(case, pattern, endings) for case in cases]
    found = [[p for p in paths if p.is_file() and p != case.image] for case, paths in zip(cases, tried, strict=True)]
    if not any(found):
        raise CohortError(
            f"--{what} finds no file for any of {counted(len(cases), 'case')}",
            where=tried[0][0],
            why="this is the first path that was tried",
            remedy="check the pattern; {id}, {name} and {dir} stand for the case, the scan's name and its folder",
        )
    several = [(case.id, paths) for case, paths in zip(cases, found, strict=True) if len(paths) > 1]
    if several:
        (name, paths), *_ = several
        text = f"--{what} {pattern} finds {len(paths)} files: {paths[0]} and {paths[1]}"
        raise CohortError(text, where=name, remedy="make the pattern narrower, so that it matches one file")
    return [paths[0] if paths else None for paths in found]


def _candidates(case: Case, pattern: str, endings: Sequence[str]) -> list[Path]:
    """Paths that the file of a case may have: existing files in a folder or by wildcards, else the first path tried."""
    values = {"id": case.id, "name": stem(case.image), "dir": str(case.image.parent.absolute())}
    plain = Path(_filled(pattern, values)).expanduser()
    path = case.image.parent / plain  # an absolute one stays itself
    folder = next((f for f in (plain, path) if f.is_dir()), None)
    if folder:
        names = [f"{key}{end}{suffix}" for end in endings for key in (case.id, values["name"]) for suffix in SUFFIXES]
        there = (folder / name for name in names if (folder / name).is_file() and folder / name != case.image)
        return [next(there, folder / names[0])]
    if not set(pattern) & set("*?"):
        return [path]
    quoted = {key: glob.escape(value) for key, value in {**values, "parent": str(case.image.parent)}.items()}
    wild = Path(quoted["parent"]) / Path(_filled(pattern, quoted)).expanduser()
    return sorted(map(Path, glob.glob(str(wild), recursive=True))) or [path]


def _filled(pattern: str, values: Mapping[str, str]) -> str:
    return re.sub(r"\{(\w+)\}", lambda match: values[match[1]], pattern)
