"""The hostile world, one per session, and the figures that `make hostile` prints at its end."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from hostile.world import World, opened

FIGURES = "hostile_figures"


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Leave out what takes minutes, unless it was asked for with `-m hostile`."""
    if "hostile" in config.getoption("markexpr"):
        return
    left_out = [item for item in items if item.get_closest_marker("hostile")]
    if left_out:
        config.hook.pytest_deselected(items=left_out)
        items[:] = [item for item in items if item not in left_out]


@pytest.fixture(scope="session")
def hostile_world(tmp_path_factory: pytest.TempPathFactory) -> Iterator[World]:
    """The states that the trials start from."""
    with opened(tmp_path_factory.mktemp("hostile")) as world:
        yield world


@pytest.fixture
def figure(request: pytest.FixtureRequest) -> Any:
    """A function that records a row for the table at the end: its part, its name and its figures."""

    def record(part: str, name: str, **figures: object) -> None:
        request.node.user_properties.append((FIGURES, json.dumps([part, name, figures])))

    return record


def pytest_terminal_summary(terminalreporter: Any, config: pytest.Config) -> None:
    """Print the figures as Markdown tables, one per part, and write them to the file that `HOSTILE_FIGURES` names."""
    reports = [
        report for group in terminalreporter.stats.values() for report in group if hasattr(report, "user_properties")
    ]
    rows = {text for report in reports for name, text in report.user_properties if name == FIGURES}
    if rows and "hostile" in config.getoption("markexpr"):
        text = tables([json.loads(row) for row in rows])
        terminalreporter.write_line("\n" + text)
        if "HOSTILE_FIGURES" in os.environ:
            Path(os.environ["HOSTILE_FIGURES"]).write_text(text + "\n")


def tables(rows: list[tuple[str, str, dict[str, object]]]) -> str:
    """Markdown tables of recorded rows."""
    parts: dict[str, dict[str, dict[str, object]]] = {}
    for part, name, figures in sorted(rows, key=lambda row: row[:2]):
        parts.setdefault(part, {})[name] = figures
    return "\n\n".join(_table(part, found) for part, found in parts.items())


def _table(part: str, rows: dict[str, dict[str, object]]) -> str:
    columns = list(dict.fromkeys(column for figures in rows.values() for column in figures))
    lines = [[part, *columns], ["---"] * (1 + len(columns))]
    lines += [[name, *(str(figures.get(column, "")) for column in columns)] for name, figures in rows.items()]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)
