"""The curves of a run: precision–recall, ROC and FROC of every score, with their bands and intervals."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Literal

from anofield.bootstrap import FEW_SUBJECTS
from anofield.evaluation.parts import CurvePoints, FrocPoint
from anofield.evaluation.results import Results
from anofield.reports.card import interval
from anofield.reports.charts import Chart, Line, area, curve, svg_path
from anofield.reports.numerals import decimal, finite

MAX_FALSE = 8.0  # false findings per scan at the right edge of the FROC

Metric = Literal["ap", "auroc"]


def draw_curves(results: Results) -> list[Chart]:
    """The charts with at least one line."""
    styles = styles_of(results, results.names)
    precision_recall = Chart(
        "Precision–recall", "Recall (sensitivity)", "Precision", _lines(results, styles, "ap"), note=_note(results)
    )
    roc = Chart(
        "ROC",
        "False-positive rate",
        "Sensitivity",
        _lines(results, styles, "auroc"),
        diagonal=True,
        note=_note(results),
    )
    return [chart for chart in (precision_recall, roc, _froc(results, styles)) if chart.lines]


def styles_of(results: Results, names: Sequence[str]) -> dict[str, str]:
    """CSS class of every score: `main`, `method-1`…, `baseline-1`…."""
    styles: dict[str, str] = {}
    for name in names:
        kind = kind_of(results, name)
        same = sum(style.startswith(kind) for style in styles.values())
        styles[name] = kind if kind == "main" else f"{kind} {kind}-{same % 3 + 1}"
    return styles


def kind_of(results: Results, name: str) -> str:
    """Kind of a score: `main`, `baseline`, or another score of the method."""
    return "baseline" if name in results.baselines else "main" if name == results.score else "method"


def _lines(results: Results, styles: Mapping[str, str], metric: Metric) -> tuple[Line, ...]:
    """A line per score whose curve is defined."""
    band = "precision_recall" if metric == "ap" else "roc"
    drawn = [
        (name, style, _path(results.curves[name], metric)) for name, style in styles.items() if name in results.curves
    ]
    return tuple(
        Line(_legend(name, style), style, path, _area_note(results, name, metric), band=_band(results, name, band))
        for name, style, path in drawn
        if path
    )


def _path(points: CurvePoints, metric: Metric) -> str:
    return curve(points.recall, points.precision) if metric == "ap" else curve(points.fpr, points.tpr)


def _area_note(results: Results, name: str, metric: Metric) -> str:
    """The area under a curve and its interval."""
    value = results.scores[name].get(metric)
    _, ci = interval((results.card or {}).get(name, {}).get(metric), 3)
    return f"{metric.upper()} {decimal(value)} {ci}".strip()


def _froc(results: Results, styles: Mapping[str, str]) -> Chart:
    """Recall of lesions against false findings per scan, with its band and the interval of the recall at 1."""
    found = results.froc or {}
    lines = [_froc_line(results, name, style, found[name]) for name, style in styles.items() if found.get(name)]
    ticks = tuple((100 * tick / MAX_FALSE, f"{tick:g}") for tick in (0, 1, 2, 4, 6, 8))
    shown = tuple(line for line in lines if line is not None)
    words = "False findings per scan"
    return Chart("FROC of lesions", words, "Lesions found", shown, x_ticks=ticks, note=_note(results))


def _froc_line(results: Results, name: str, style: str, points: Sequence[FrocPoint]) -> Line | None:
    """The FROC of a score within the limits of the chart."""
    known = sorted((finite(p.false_per_scan), finite(p.recall)) for p in points if _known(p))
    places = [
        (100 * x / MAX_FALSE, 100 * (1 - y)) for x, y in known if x is not None and y is not None and x <= MAX_FALSE
    ]
    if not places:
        return None
    dots = "".join(f"M{x:.2f} {y:.2f}h0" for x, y in places)
    value, ci = interval((results.card or {}).get(name, {}).get("froc_recall_at_1"), 2)
    around = _band(results, name, "froc", right=MAX_FALSE)
    return Line(
        _legend(name, style), style, svg_path(places, digits=2), f"recall at 1: {value} {ci}".strip(), dots, around
    )


def _known(point: FrocPoint) -> bool:
    return finite(point.false_per_scan) is not None and finite(point.recall) is not None


def _legend(name: str, style: str) -> str:
    """Name of a score in the legend."""
    return f"{name} (baseline)" if "baseline" in style else name


def _band(results: Results, name: str, key: str, *, right: float = 1.0) -> str:
    """Band of a score's curve as an SVG path; empty if the results have none."""
    found = (results.bands or {}).get(name, {}).get(key)
    return "" if found is None else area(found, right)


def _note(results: Results) -> str:
    """Description of the bands of the curves; empty if the results have none."""
    if not any((results.bands or {}).values()):
        return ""
    subjects = results.rules.subjects
    few = "; too narrow with so few" if subjects < FEW_SUBJECTS else ""
    return f"Bands: 95 % interval at every place, over {subjects} subjects{few}."
