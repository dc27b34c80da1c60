"""The page of a comparison: the differences of two runs, each with its interval."""

from __future__ import annotations

from pathlib import Path

from anofield.errors import UsageError
from anofield.report.card import KINDS, interval, rows, sureness, verdict
from anofield.report.folder import read_json, section
from anofield.report.numerals import DASH, decimal, finite, number
from anofield.report.page import flat, templates
from anofield.report.viewer import script
from anofield.typing import Json, PathLike

UNIT_DIGITS = 3  # of metrics between 0 and 1; only these share the scale of the drawn intervals
WORDS = {"better": "A better", "worse": "B better", "unclear": "not clear of 0"}
HALF = 70.0  # of the drawn scale, from its middle


def render_comparison(comparison: PathLike, *, title: str) -> str:
    """The page of a `comparison.json` as HTML text.

    Raises:
        UsageError: No such file, or it is no comparison.
    """
    path = Path(comparison)
    path = path / "comparison.json" if path.is_dir() else path
    remedy = "give the file that `anofield evaluate --compare` wrote"
    if not path.is_file():
        raise UsageError("no such file", where=path, remedy=remedy)
    content: Json = read_json(path, dict)
    if not all(isinstance(content.get(key), dict) for key in ("a", "b", "differences")):
        raise UsageError("is no comparison of two runs", where=path, remedy=remedy)
    rules, found = section(content, "rules"), section(content, "differences")
    return (
        templates()
        .get_template("compare.html.j2")
        .render(
            title=title,
            version=None,
            sides=[(side.upper(), *_side(content[side])) for side in "ab"],
            kinds=KINDS,
            rows=differences(content),
            sureness=sureness(rules, found.values()),
            n_cases=content.get("n_cases"),
            space=str(content.get("space") or ""),
            settings=[
                ("Rules", list(flat(rules))),
                ("Labels", list(flat(section(content, "labels")))),
                ("Comparison", [("file", str(path.resolve()))]),
            ],
            table_script=script("table.js"),
        )
    )


def differences(content: Json) -> list[Json]:
    """A row for every metric that both runs have: A, B, A − B with its interval, which is better."""
    found = section(content, "differences")
    listed = [(row, section(found, row[0])) for row in rows(found)]
    known = [(row, figure) for row, figure in listed if finite(figure.get("value")) is not None]
    ends = [abs(end) for (*_, digits), figure in known if digits == UNIT_DIGITS for end in _ends(figure)]
    reach = max(ends, default=0.0) or 1.0
    return [
        {
            "words": words,
            "kind": kind,
            "a": decimal(section(content["a"], "values").get(key), digits),
            "b": decimal(section(content["b"], "values").get(key), digits),
            "difference": interval(figure, digits),
            "p": number(figure.get("p"), 2),
            "sort": figure.get("value"),
            "verdict": verdict(figure),
            "says": WORDS[verdict(figure)] if figure.get("ci") else DASH,
            "forest": [HALF * end / reach for end in _ends(figure)] if digits == UNIT_DIGITS else [],
        }
        for (key, words, kind, digits), figure in known
    ]


def _ends(figure: Json) -> list[float]:
    """Lower end, value and upper end of a figure; empty if it has no interval."""
    low, high = figure.get("ci") or (None, None)
    ends = [finite(low), finite(figure.get("value")), finite(high)]
    return [end for end in ends if end is not None] if None not in ends else []


def _side(run: Json) -> tuple[str, str, list[tuple[str, str]]]:
    """Folder, score and thresholds of a run."""
    known = section(run, "thresholds")
    return str(run.get("run")), str(run.get("score")), [(KINDS[k], number(known[k])) for k in KINDS if k in known]
