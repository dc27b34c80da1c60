"""The files of a report with several pages: the grouping of cases, and the names and writing of files."""

from __future__ import annotations

import contextlib
import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import quote

from anofield._files import replacing, writing

BUDGET = 15_000_000  # characters of a file; mail programs and viewers refuse larger ones
RESERVE = 2_000_000  # part of `BUDGET` for text, tables, curves and the library of the interactive view
MARK = '<meta name="anofield-cases" content="{}">'  # in the head of a page of cases: its own name
HEAD = 2_000  # the mark is within this many characters of a page's start


@dataclass(frozen=True)
class Fragment:
    """A case as HTML text, and whether it has an interactive view, which needs the library."""

    text: str
    viewer: bool


def grouped(fragments: Iterable[Fragment]) -> Iterator[list[Fragment]]:
    """Cases, in order, in groups that fit into one file; at least one group; only one is in memory at a time."""
    group: list[Fragment] = []
    used = RESERVE
    for fragment in fragments:
        if group and used + len(fragment.text) > BUDGET:
            yield group
            group, used = [], RESERVE
        group.append(fragment)
        used += len(fragment.text)
    yield group


def numbered(name: str, number: int) -> str:
    """`report.html` → `report-2.html`."""
    stem, dot, ending = name.rpartition(".")
    return f"{stem}-{number}{dot}{ending}" if dot else f"{name}-{number}"


def write_pages(path: Path, pages: Iterable[tuple[str, str]]) -> None:
    """Write pages into one folder, and remove pages of an older report at `path` that have no successor.

    Each page is written under a temporary name as soon as it is made, so that only one is in memory at a time. The
    pages get their names when all are complete, `path` last: the report is complete when it appears.

    Args:
        path: The first page.
        pages: Pages as (file name, HTML text); `path` is among them.

    Raises:
        MachineError: A file cannot be written.
    """
    written = {path}
    with contextlib.ExitStack() as stack:  # closes in reverse order, so `path` is renamed last
        main = stack.enter_context(replacing(path))
        for name, text in pages:
            final = path.with_name(name)
            partial = main if final == path else stack.enter_context(replacing(final))
            with writing(final):
                partial.write_text(text, encoding="utf-8", errors="backslashreplace")
            written.add(final)
    for old in left_over(path, written):
        with writing(old):
            old.unlink()


def left_over(path: Path, written: Iterable[Path]) -> list[Path]:
    """Pages of cases of an older report at `path` that are not among the ones written.

    A page of an older report has a numbered name and holds that name in its head. Copied or renamed pages, and other
    files with such a name, do not count.
    """
    kept = set(written)
    pattern = re.compile(re.escape(path.stem) + r"-\d+" + re.escape(path.suffix))
    found = (file for file in path.parent.iterdir() if pattern.fullmatch(file.name) and file not in kept)
    return sorted(file for file in found if _is_page(file))


def mark(name: str) -> str:
    """The tag in the head of a page of cases that holds its file name."""
    return MARK.format(quote(name))


def _is_page(file: Path) -> bool:
    """Whether a file is a page of cases under its own name."""
    if file.is_symlink() or not file.is_file():
        return False
    with writing(file), file.open(encoding="utf-8", errors="replace") as stream:
        return mark(file.name) in stream.read(HEAD)
