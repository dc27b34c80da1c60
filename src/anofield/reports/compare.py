"""The page of a comparison: the differences of two runs, each with its interval."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from anofield.evaluation.parts import Difference, Side
from anofield.evaluation.results import COMPARISON_FILE, Comparison, read_comparison
from anofield.evaluation.rules import KIND_WORDS
from anofield.reports.card import Cell, MetricRow, about_intervals, interval, metric_rows, verdict
from anofield.reports.numerals import DASH, decimal, number
from anofield.reports.template import flat, templates
from anofield.reports.viewer import script
from anofield.typing import PathLike

UNIT_DIGITS = 3  # of metrics between 0 and 1; only these share the scale of the drawn intervals
WORDS = {"better": "A better", "worse": "B better", "unclear": "unclear"}
HALF = 70.0  # half the width of the drawn scale


@dataclass(frozen=True, kw_only=True)
class DifferenceRow:
    """A metric of both runs.

    Attributes:
        words, kind: The metric, and the kind of threshold.
        a, b: Value of each run.
        difference: A − B with its interval.
        p: Two-sided p value.
        sort: Difference, used for sorting.
        verdict, says: Which run is better, as CSS class and in words.
        forest: Lower end, value and upper end on the drawn scale; empty without an interval.
    """

    words: str
    kind: str
    a: str
    b: str
    difference: Cell
    p: str
    sort: float
    verdict: str
    says: str
    forest: list[float]


def render_comparison(comparison: PathLike, *, title: str) -> str:
    """The page of a `comparison.json` as HTML text.

    Raises:
        UsageError: There is no such file, or it is not a comparison.
    """
    content, path = read_comparison(comparison), Path(comparison)
    file = path / COMPARISON_FILE if path.is_dir() else path
    template = templates().get_template("compare.html.j2")
    return template.render(
        title=title,
        version=None,
        sides=[_side("A", content.a), _side("B", content.b)],
        rows=differences(content),
        about_intervals=about_intervals(content.rules, content.differences.values()),
        n_cases=content.n_cases,
        space=content.space,
        settings=[
            ("Rules", list(flat(content.rules.model_dump()))),
            ("Labels", list(flat(content.labels))),
            ("Comparison", [("file", str(file.resolve()))]),
        ],
        table_script=script("table.js"),
    )


def differences(content: Comparison) -> list[DifferenceRow]:
    """A row for every metric that both runs have: A, B, A − B with its interval, and the better run."""
    listed = [(row, content.differences[row.key]) for row in metric_rows(content.differences)]
    known = [(row, figure) for row, figure in listed if figure.known]
    ends = [abs(end) for row, figure in known if row.digits == UNIT_DIGITS for end in _ends(figure)]
    reach = max(ends, default=0.0) or 1.0
    return [_row(content, row, figure, reach) for row, figure in known]


def _row(content: Comparison, row: MetricRow, figure: Difference, reach: float) -> DifferenceRow:
    found = verdict(figure)
    return DifferenceRow(
        words=row.words,
        kind=row.kind,
        a=decimal(content.a.values.get(row.key), row.digits),
        b=decimal(content.b.values.get(row.key), row.digits),
        difference=interval(figure, row.digits),
        p=number(figure.p, 2),
        sort=figure.value,
        verdict=found,
        says=WORDS[found] if figure.ci else DASH,
        forest=[HALF * end / reach for end in _ends(figure)] if row.digits == UNIT_DIGITS else [],
    )


def _ends(figure: Difference) -> Sequence[float]:
    """Lower end, value and upper end of a figure; empty if it has no interval."""
    return () if figure.ci is None else (figure.ci[0], figure.value, figure.ci[1])


def _side(name: str, side: Side) -> tuple[str, str, str, list[tuple[str, str]]]:
    """Name, folder, score and thresholds of a run."""
    known = side.thresholds
    return name, side.run, side.score, [(KIND_WORDS[kind], number(known[kind])) for kind in KIND_WORDS if kind in known]
