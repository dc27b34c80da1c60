"""Tables of the command line: columns on a terminal, plain text everywhere else; no cell is cut."""

from __future__ import annotations

import io
import shutil
import sys
from collections.abc import Collection, Iterable, Sequence

from rich.console import Console
from rich.table import Table
from rich.text import Text

UNBROKEN = 10_000  # columns: wide enough that no line of a file is broken


def table(rows: Iterable[Sequence[object]], *, right: Collection[int] = (), indent: int = 0) -> str:
    """Rows in columns.

    Args:
        rows: Cells of every row, as many as the first row has.
        right: Numbers of the columns that are aligned to the right.
        indent: Spaces before every row.

    >>> print(table([("sub-1", 3), ("sub-02", 12)], right=[1]))
    sub-1    3
    sub-02  12
    """
    grid = Table.grid(padding=(0, 2, 0, 0))
    for number, row in enumerate(rows := list(rows)):
        if number == 0:
            for column in range(len(row)):
                grid.add_column(justify="right" if column in right else "left", overflow="fold")
        grid.add_row(*(Text(str(cell), overflow="fold") for cell in row))
    lines = _rendered(grid).splitlines() if rows else []
    return "\n".join(" " * indent + line.rstrip() for line in lines)


def _rendered(grid: Table) -> str:
    terminal = sys.stdout.isatty()
    width = shutil.get_terminal_size().columns if terminal else UNBROKEN
    console = Console(file=io.StringIO(), width=width, force_terminal=terminal)
    with console.capture() as capture:
        console.print(grid)
    return capture.get()
