"""The templates of the reports, and settings as rows of text."""

from __future__ import annotations

from collections.abc import Iterator

import jinja2

from anofield._words import counted
from anofield.reports.numerals import DASH, decimal, duration, ml, number, value

Settings = list[tuple[str, list[tuple[str, str]]]]  # (heading, rows)


def templates() -> jinja2.Environment:
    """The templates of the reports; every value is escaped."""
    loader = jinja2.PackageLoader("anofield", "reports")
    pages = jinja2.Environment(
        loader=loader, autoescape=True, undefined=jinja2.StrictUndefined, trim_blocks=True, lstrip_blocks=True
    )
    pages.filters.update(number=number, ml=ml, duration=duration, decimal=decimal, value=value, counted=counted)
    return pages


def flat(content: object, above: str = "") -> Iterator[tuple[str, str]]:
    """Nested objects as (dotted key, text)."""
    if isinstance(content, dict):
        for key, item in content.items():
            yield from flat(item, f"{above}.{key}" if above else str(key))
    elif isinstance(content, list | tuple):
        yield above, ", ".join(map(str, content))
    else:
        yield above, DASH if content is None else str(content)
