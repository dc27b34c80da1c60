"""Files of a report that is split: which cases go together, what the files are called, how they are written."""

from __future__ import annotations

import contextlib
import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import quote

from anofield._files import replacing, writing

BUDGET = 15_000_000  # characters of a file; mail programs and viewers begin to refuse larger ones
RESERVE = 2_000_000  # of these for text, tables, curves and the library of the interactive view
MARK = '<meta name="anofield-cases" content="{}">'  # in the head of a page of cases: its own name
HEAD = 2_000  # characters of a page within which the mark stands


@dataclass(frozen=True)
class Fragment:
    """A case as HTML text, and whether it has an interactive view, which needs the library."""

    text: str
    viewer: bool


def grouped(fragments: Iterable[Fragment]) -> Iterator[list[Fragment]]:
    """Cases, in order, in groups that fit into a file each; at least one group, and no more than that in memory."""
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
    """Write pages beside each other and remove those that an older report at `path` had beyond them.

    Each goes to disk under a temporary name as it comes, so that one is in memory at a time. They get their names when
    all are complete, `path` itself last: the report is complete when it appears.

    Args:
        path: The first page.
        pages: (file name, HTML text), `path` among them.

    Raises:
        MachineError: A file cannot be written.
    """
    written = {path}
    with contextlib.ExitStack() as stack:  # which ends what was opened last first, so `path` is renamed last
        main = stack.enter_context(replacing(path))
        for name, text in pages:
            final = path.with_name(name)
            partial = main if final == path else stack.enter_context(replacing(final))
            with writing(final):
                partial.write_text(text, encoding="utf-8")
            written.add(final)
    for old in left_over(path, written):
        with writing(old):
            old.unlink()


def left_over(path: Path, written: Iterable[Path]) -> list[Path]:
    """Pages of cases of an older report at `path` that are not among the ones written.

    A page of an older report has a numbered name and says that name in its head. A page that someone copied or renamed,
    and whatever else has such a name, is not one.
    """
    kept = set(written)
    pattern = re.compile(re.escape(path.stem) + r"-\d+" + re.escape(path.suffix))
    found = (file for file in path.parent.iterdir() if pattern.fullmatch(file.name) and file not in kept)
    return sorted(file for file in found if _is_page(file))


def mark(name: str) -> str:
    """What the head of a page of cases says about its own file name."""
    return MARK.format(quote(name))


def _is_page(file: Path) -> bool:
    """Whether a file is a page of cases under its own name."""
    if file.is_symlink() or not file.is_file():
        return False
    with writing(file), file.open(encoding="utf-8", errors="replace") as stream:
        return mark(file.name) in stream.read(HEAD)
