"""The metric card of the report: figures with their intervals, lesions by size, FROC; words and digits, no HTML."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

from anofield._words import counted
from anofield.bootstrap import FEW_SUBJECTS
from anofield.report.charts import Chart, Line, area, svg_path
from anofield.report.folder import section
from anofield.report.numerals import DASH, decimal, finite, ml, number
from anofield.typing import Json

KINDS = {"calibrated": "healthy-calibrated", "validation": "validation", "oracle": "oracle (test labels)"}
LARGEST_P = 0.05  # above it a difference is called unclear
MAX_FALSE = 8.0  # false findings per scan at the right edge of the FROC
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
    "false_per_scan_*": ("False findings per scan", 2),
    "froc_recall_at_1": ("Lesions found at 1 false finding per scan", 3),
    "hd95_*": ("HD95, mm", 1),
    "assd_*": ("Mean surface distance, mm", 1),
    "scan_auroc": ("AUROC of scans, highest 1 % of voxels", 3),
    "scan_auroc_case_score": ("AUROC of scans, the run's case score", 3),
    "healthy_ml_*": ("Above the threshold in healthy scans, ml", 2),
}


def rows(found: Iterable[str]) -> list[tuple[str, str, str, int]]:
    """Metrics of a card in the order of the page: (key, words, kind of threshold or empty, digits)."""
    known = set(found)
    listed = []
    for pattern, (words, digits) in METRICS.items():
        for kind, label in KINDS.items() if "*" in pattern else [("", "")]:
            key = pattern.replace("*", kind)
            if key in known:
                listed.append((key, words, label, digits))
    return listed


def interval(figure: Any, digits: int) -> tuple[str, str]:
    """A figure and its 95 % interval as text; the second is empty if there is none."""
    figure = figure if isinstance(figure, dict) else {}
    low, high = figure.get("ci") or (None, None)
    known = finite(low) is not None and finite(high) is not None
    return decimal(figure.get("value"), digits), f"[{decimal(low, digits)}, {decimal(high, digits)}]" if known else ""


def card_table(card: Json, names: Sequence[str], baselines: Sequence[str]) -> Json | None:
    """The card as a table, a row per metric, a column per score; rows without any value are left out."""
    shown = [name for name in names if name in card]
    keys = dict.fromkeys(key for name in shown for key in card[name])
    content = [
        {"words": words, "kind": kind, "cells": [interval(card[name].get(key), digits) for name in shown]}
        for key, words, kind, digits in rows(keys)
        if any(finite(section(card[name], key).get("value")) is not None for name in shown)
    ]
    heads = [{"name": name, "baseline": name in baselines} for name in shown]
    return {"heads": heads, "rows": content} if content else None


def margins(found: Json) -> list[Json]:
    """Main score minus each baseline in average precision, in words."""
    listed = []
    for rival, metrics in found.items():
        value, ci = interval(section(metrics, "ap"), 3)
        if value != DASH:
            ahead = "" if not ci else verdict(section(metrics, "ap"))
            listed.append({"rival": rival, "value": value, "ci": ci, "ahead": ahead})
    return listed


def verdict(row: Json) -> str:
    """`better`, `worse` or `unclear`: whether a difference's interval excludes 0, and on which side.

    With so few subjects that chance alone could do it (p above 0.05), an interval that excludes 0 is too narrow.
    """
    low, high = (finite(end) for end in row.get("ci") or (None, None))
    if low is None or high is None or low <= 0 <= high or (finite(row.get("p")) or 0.0) > LARGEST_P:
        return "unclear"
    return "worse" if (low > 0) == bool(row.get("higher_is_worse")) else "better"


def by_size(found: Json) -> Json | None:
    """Lesions by volume: how many, how many found, mean share covered."""
    kind = KINDS.get(str(found.get("threshold")), "")
    content = [
        (str(row.get("size")), str(row.get("lesions")), str(row.get("found")), _percent(row.get("recall")),
         _percent(row.get("covered")))
        for row in found.get("rows") or []
    ]  # fmt: skip
    return {"kind": kind, "rows": content} if content else None


def thresholds(found: Json, names: Sequence[str]) -> list[tuple[str, list[str]]]:
    """Per score, its threshold of every kind that any score has; the labels head the columns."""
    kinds = [kind for kind in KINDS if any(kind in section(found, name) for name in names)]
    cells = [(name, [number(section(found, name).get(kind)) for kind in kinds]) for name in names if name in found]
    return [("Score", [KINDS[kind] for kind in kinds]), *cells] if kinds and cells else []


def froc(results: Json, styles: dict[str, str]) -> Chart | None:
    """Recall of lesions against false findings per scan, with its band and the interval of the recall at one."""
    found, card = section(results, "froc"), section(results, "card")
    lines = []
    for name in (name for name in styles if found.get(name)):
        points = sorted((finite(p.get("false_per_scan")), finite(p.get("recall"))) for p in found[name] if _known(p))
        inside = [(x, y) for x, y in points if x is not None and y is not None and x <= MAX_FALSE]
        if not inside:
            continue
        places = [(100 * x / MAX_FALSE, 100 * (1 - y)) for x, y in inside]
        dots = "".join(f"M{x:.2f} {y:.2f}h0" for x, y in places)
        value, ci = interval(section(section(card, name), "froc_recall_at_1"), 2)
        note = f"recall at 1: {value} {ci}".strip()
        around = band(results, name, "froc", right=MAX_FALSE)
        lines.append(Line(legend(name, styles[name]), styles[name], svg_path(places, digits=2), note, dots, around))
    ticks = tuple((100 * tick / MAX_FALSE, f"{tick:g}") for tick in (0, 1, 2, 4, 6, 8))
    words = "False findings per scan"
    if not lines:
        return None
    return Chart("FROC of lesions", words, "Lesions found", tuple(lines), x_ticks=ticks, note=band_words(results))


def legend(name: str, style: str) -> str:
    """Name of a score beside its line."""
    return f"{name} (baseline)" if "baseline" in style else name


def band(results: Json, name: str, curve: str, *, right: float = 1.0) -> str:
    """Band of a score's curve as an SVG path; empty if the results have none."""
    return area(section(section(section(results, "bands"), name), curve), right)


def band_words(results: Json) -> str:
    """What the bands of the curves are; empty if the results have none."""
    if not any(section(results, "bands").values()):
        return ""
    subjects = section(results, "rules").get("subjects")
    few = isinstance(subjects, int) and subjects < FEW_SUBJECTS
    return f"Bands: 95 % interval at every place, over {subjects} subjects{'; too narrow with so few' if few else ''}."


def healthy(found: Json) -> str:
    """What lies above the threshold in scans without a lesion, against what was promised."""
    mean = finite(found.get("above_ml_mean"))
    if not found.get("scans") or mean is None:
        return ""
    promised = finite(found.get("promised_ml_mean"))
    against = "" if promised is None else f"; the calibration promised {ml(promised)} ml"
    return f"{counted(found['scans'], 'scan')} without lesion: {ml(mean)} ml above the threshold on average{against}."


def sureness(rules: Json, metrics: Iterable[Json]) -> str:
    """How the intervals of metrics were made, when they are too narrow, and why some are missing."""
    subjects, known = rules.get("subjects"), [row for row in metrics if finite(row.get("value")) is not None]
    if known and not any(row.get("ci") for row in known):
        return "No intervals: they need two subjects or more."
    people = counted(subjects, "subject") if isinstance(subjects, int) else "subjects"
    words = f"{rules.get('interval', 'Intervals')}: {people}, {rules.get('resamples')} resamples."
    few = isinstance(subjects, int) and subjects < FEW_SUBJECTS
    words += " With so few subjects such intervals are too narrow." if few else ""
    missing = any(not row.get("ci") for row in known)
    return words + (" A figure without one rests on fewer than two subjects." if missing else "")


def _known(point: Json) -> bool:
    return finite(point.get("false_per_scan")) is not None and finite(point.get("recall")) is not None


def _percent(value: Any) -> str:
    value = finite(value)
    return DASH if value is None else f"{100 * value:.0f} %"
