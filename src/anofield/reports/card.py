"""The metric card of the report: figures with their intervals, lesions by size; words and digits, no HTML."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from anofield._words import counted
from anofield.bootstrap import FEW_SUBJECTS
from anofield.evaluation.parts import BySize, Difference, Figure, Healthy, RulesInfo
from anofield.evaluation.results import Results
from anofield.evaluation.rules import KIND_WORDS, Kind
from anofield.reports.numerals import DASH, decimal, finite, ml, number

LARGEST_P = 0.05  # above this p, a difference is called unclear
METRICS = {  # key, or its beginning before the threshold's kind: (words, digits)
    "ap": ("Average precision, voxels pooled", 3),
    "ap_scan": ("Average precision, mean over scans", 3),
    "auroc": ("AUROC, voxels pooled", 3),
    "fpr95": ("False-positive rate at 95 % sensitivity", 3),
    "dice_*_mean": ("Dice, mean over scans", 3),
    "dice_*_pooled": ("Dice, voxels pooled", 3),
    "lesion_recall_*": ("Lesions found", 3),
    "lesion_precision_*": ("Findings on a lesion", 3),
    "lesion_f1_*": ("F1 of lesions", 3),
    "voxel_recall_*": ("Labelled voxels above the threshold", 3),
    "voxel_precision_*": ("Voxels above the threshold that are labelled", 3),
    "false_per_scan_*": ("False findings per scan", 2),
    "froc_recall_at_1": ("Lesions found at 1 false finding per scan", 3),
    "hd95_*": ("HD95, mm", 1),
    "assd_*": ("Mean surface distance, mm", 1),
    "scan_auroc": ("AUROC of scans, highest 1 % of voxels", 3),
    "scan_auroc_case_score": ("AUROC of scans, the run's case score", 3),
    "healthy_ml_*": ("Above the threshold in healthy scans, ml", 2),
}

Cell = tuple[str, str]  # a figure and its interval


@dataclass(frozen=True)
class MetricRow:
    """Display of a metric: its key, words, kind of threshold (or empty) and digits."""

    key: str
    words: str
    kind: str
    digits: int


@dataclass(frozen=True)
class TableRow:
    """A row of the card: a metric with its value for every score."""

    words: str
    kind: str
    cells: list[Cell]


@dataclass(frozen=True)
class Head:
    """Heading of a column: a score, and whether it is a baseline."""

    name: str
    baseline: bool


@dataclass(frozen=True)
class Margin:
    """Main score minus a baseline in average precision; `ahead` is a verdict, or empty without an interval."""

    rival: str
    value: str
    ci: str
    ahead: str


@dataclass(frozen=True)
class SizeTable:
    """Lesions by volume: kind of the threshold in words, and a row per class."""

    kind: str
    rows: Sequence[tuple[str, ...]]


@dataclass(frozen=True, kw_only=True)
class CardView:
    """The metric card with the tables and notes around it.

    Attributes:
        heads, rows: Columns and rows of the card.
        margins: Main score minus each baseline.
        by_size: Lesions by volume; None without lesions.
        thresholds: Threshold per score and kind, the heads first.
        healthy: Volume above the threshold in scans without lesion, in words.
        about_intervals: Description of the intervals.
        rules: Rules of the evaluation.
    """

    heads: list[Head]
    rows: list[TableRow]
    margins: list[Margin]
    by_size: SizeTable | None
    thresholds: list[tuple[str, list[str]]]
    healthy: str
    about_intervals: str
    rules: RulesInfo


def view_card(results: Results) -> CardView | None:
    """The metric card of some results; None if they have no card or no value in it."""
    card, names = results.card or {}, results.names
    rows = _table(card, names)
    if not rows:
        return None
    return CardView(
        heads=[Head(name, name in results.baselines) for name in names if name in card],
        rows=rows,
        margins=_margins(results.margins or {}),
        by_size=_by_size(results.by_size),
        thresholds=_thresholds(results.thresholds, names),
        healthy=_healthy(results.healthy),
        about_intervals=about_intervals(
            results.rules, [figure for name in names for figure in card.get(name, {}).values()]
        ),
        rules=results.rules,
    )


def metric_rows(found: Iterable[str]) -> list[MetricRow]:
    """Metrics of a card in the order of the page."""
    known = set(found)
    listed = []
    for pattern, (words, digits) in METRICS.items():
        for kind, label in KIND_WORDS.items() if "*" in pattern else [("", "")]:
            key = pattern.replace("*", kind)
            if key in known:
                listed.append(MetricRow(key, words, label, digits))
    return listed


def interval(figure: Figure | None, digits: int) -> Cell:
    """A figure and its 95 % interval as text; the second is empty if there is none."""
    if figure is None:
        return DASH, ""
    ends = "" if figure.ci is None else f"[{decimal(figure.ci[0], digits)}, {decimal(figure.ci[1], digits)}]"
    return decimal(figure.value, digits), ends


def verdict(row: Difference) -> str:
    """`better`, `worse` or `unclear`: whether a difference's interval excludes 0, and on which side.

    An interval that excludes 0 although p is above 0.05 is too narrow, because there are few subjects: `unclear`.
    """
    low, high = row.ci or (0.0, 0.0)
    if low <= 0 <= high or (finite(row.p) or 0.0) > LARGEST_P:
        return "unclear"
    return "worse" if (low > 0) == row.higher_is_worse else "better"


def about_intervals(rules: RulesInfo, metrics: Iterable[Figure]) -> str:
    """Describe the intervals of metrics: how they were made, if they are too narrow, and why some are missing."""
    known = [figure for figure in metrics if figure.known]
    if known and not any(figure.ci for figure in known):
        return "No intervals: they need two subjects or more."
    words = f"{rules.interval}: {counted(rules.subjects, 'subject')}, {rules.resamples} resamples."
    words += " With so few subjects such intervals are too narrow." if rules.subjects < FEW_SUBJECTS else ""
    missing = any(not figure.ci for figure in known)
    return words + (" A figure without an interval has fewer than two subjects." if missing else "")


def _table(card: Mapping[str, Mapping[str, Figure]], names: Sequence[str]) -> list[TableRow]:
    """A row per metric, a cell per score; rows without any value are left out."""
    shown = [card[name] for name in names if name in card]
    found = metric_rows(key for metrics in shown for key in metrics)
    return [
        TableRow(row.words, row.kind, [interval(metrics.get(row.key), row.digits) for metrics in shown])
        for row in found
        if any(row.key in metrics and metrics[row.key].known for metrics in shown)
    ]


def _margins(found: Mapping[str, Mapping[str, Difference]]) -> list[Margin]:
    """Main score minus each baseline in average precision, in words."""
    known = ((rival, metrics["ap"]) for rival, metrics in found.items() if "ap" in metrics)
    return [Margin(rival, *interval(row, 3), verdict(row) if row.ci else "") for rival, row in known if row.known]


def _by_size(found: BySize | None) -> SizeTable | None:
    """Lesions by volume: how many, how many found, mean share covered."""
    if found is None or not found.rows:
        return None
    rows = [
        (row.size, str(row.lesions), str(row.found), _percent(row.recall), _percent(row.covered)) for row in found.rows
    ]
    return SizeTable(KIND_WORDS[found.threshold] if found.threshold else "", rows)


def _thresholds(found: Mapping[str, Mapping[Kind, float]], names: Sequence[str]) -> list[tuple[str, list[str]]]:
    """Thresholds of every kind per score; the first row holds the headings of the columns."""
    shown = [name for name in names if name in found]
    kinds = [kind for kind in KIND_WORDS if any(kind in found[name] for name in shown)]
    cells = [(name, [number(found[name].get(kind)) for kind in kinds]) for name in shown]
    return [("Score", [KIND_WORDS[kind] for kind in kinds]), *cells] if kinds else []


def _healthy(found: Healthy | None) -> str:
    """Volume above the threshold in scans without lesion, compared with the promised volume, in words."""
    mean = None if found is None else finite(found.above_ml_mean)
    if found is None or mean is None:
        return ""
    promised = finite(found.promised_ml_mean)
    against = "" if promised is None else f"; the calibration promised {ml(promised)} ml"
    return f"{counted(found.scans, 'scan')} without lesion: {ml(mean)} ml above the threshold on average{against}."


def _percent(value: float) -> str:
    return DASH if finite(value) is None else f"{100 * value:.0f} %"
