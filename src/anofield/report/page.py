"""The page: what the template shows, in words and with sensible digits."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from datetime import datetime
from statistics import median
from typing import Any

import jinja2

from anofield.report.charts import Chart, Line, curve
from anofield.report.figures import draw, gradient, scale_of
from anofield.report.folder import CaseFolder, Run, section
from anofield.report.numerals import DASH, decimal, duration, finite, ml, number
from anofield.report.planes import CaseView, view_case
from anofield.typing import Json

BUDGET = 15_000_000  # characters of the whole file
RESERVE = 2_000_000  # of these for text, tables and curves
LESION_ROWS = 8
FEW_CASES = 40  # the table of all cases is open up to this many
OUTLIER = 3.5  # modified z-score, Iglewicz & Hoaglin 1993
WORDS = {
    "deviation": "how far a voxel departs from what the fitted healthy anatomy predicts there, in standard deviations "
    "of that prediction",
    "crps": "how far the fitted distribution of intensity classes lies from the class observed, in classes",
    "cross-entropy": "how improbable a voxel is under the fitted healthy anatomy, in nats",
    "intensity": "how bright a voxel is, without any model",
}
COLUMNS = {  # key in results.json: (heading, second line)
    "ap": ("Average precision", ""),
    "auroc": ("AUROC", ""),
    "fpr95": ("False-positive rate", "at 95 % sensitivity"),
    "dice": ("Dice", "mean ± SD over cases"),
    "dice_calibrated_pooled": ("Dice", "all voxels pooled"),
    "dice_oracle": ("Dice, oracle", "threshold chosen on the test labels"),
    "threshold": ("Threshold", "calibrated"),
}
LESION_COLUMNS = {
    "lesion": "Lesion",
    "volume_ml": "Volume, ml",
    "peak": "Peak",
    "mean": "Mean",
    "x_mm": "x, mm",
    "y_mm": "y, mm",
    "z_mm": "z, mm",
}
FIT_WORDS = {"loss": "Fit loss", "code_distance": "Code distance"}
KINDS = {
    "scan": "Scan",
    "restoration": "Restoration",
    "anomaly": "Anomaly map",
    "outlines": "Outlines",
}


def render(run: Run, *, title: str, max_cases: int, notes: str) -> str:
    """The page of a run as HTML text.

    Args:
        run: What `read_run` read.
        title: Heading.
        max_cases: Cases that get a card with pictures.
        notes: Plain text; an empty line begins a paragraph.
    """
    return (
        templates()
        .get_template("page.html.j2")
        .render(
            title=title,
            version=run.info.get("anofield"),
            notes=[part.strip() for part in notes.split("\n\n") if part.strip()],
            head=_head(run),
            summary=_summary(run),
            charts=_charts(run),
            strip=_strip(run, max_cases),
            few=len(run.cases) <= FEW_CASES,
            rows=[_row(run, case, place) for place, case in enumerate(run.cases)],
            failures=[
                {key: str(f.get(key) or DASH) for key in ("id", "stage", "error", "image")} for f in run.failures
            ],
            settings=_settings(run.info),
            kinds=KINDS,
            dash=DASH,
            lesion_columns=LESION_COLUMNS,
            **_cards(run, max_cases),
        )
    )


def templates() -> jinja2.Environment:
    """The templates of the reports; every value is escaped."""
    loader = jinja2.PackageLoader("anofield", "report")
    pages = jinja2.Environment(
        loader=loader, autoescape=True, undefined=jinja2.StrictUndefined, trim_blocks=True, lstrip_blocks=True
    )
    pages.filters.update(number=number, ml=ml, duration=duration, decimal=decimal)
    return pages


def _head(run: Run) -> Json:
    threshold = section(run.info, "threshold")
    return {
        "date": _date(run.info.get("created")),
        "finished": len(run.cases),
        "failed": len(run.failures),
        "score": run.score,
        "words": WORDS.get(run.score, ""),
        "threshold": run.threshold,
        "quantile": finite(threshold.get("quantile")),
        "meaning": str(threshold.get("meaning") or ""),
        "unfinished": not run.info,
    }


def _date(text: Any) -> str:
    try:
        when = datetime.fromisoformat(str(text))
    except ValueError:
        return str(text or DASH)
    return f"{when.day} {when:%B %Y, %H:%M}"


def _summary(run: Run) -> Json | None:
    """Rows of the metric table, the main score first, and the comparison with the baseline in words."""
    scores = section(run.results, "scores")
    if not scores:
        return None
    return {
        "columns": COLUMNS,
        "rows": [
            {"name": name, "words": WORDS.get(name, ""), "kind": _kind(run, name), "cells": _cells(scores[name] or {})}
            for name in _ordered(run, scores)
        ],
        "verdict": _verdict(run, scores),
        "space": str(run.results.get("space") or ""),
        "n_cases": run.results.get("n_cases"),
    }


def _cells(measured: Json) -> dict[str, str]:
    cells = {key: decimal(measured.get(key)) for key in COLUMNS if key not in ("dice", "threshold")}
    spread = measured.get("dice_calibrated_sd")
    mean = decimal(measured.get("dice_calibrated_mean"))
    cells["dice"] = mean if finite(spread) is None or mean == DASH else f"{mean} ± {decimal(spread)}"
    cells["threshold"] = number(measured.get("threshold"))
    return cells


def _baselines(run: Run) -> list[str]:
    return [str(name) for name in run.results.get("baselines") or []]


def _kind(run: Run, name: str) -> str:
    return "baseline" if name in _baselines(run) else "main" if name == run.score else "method"


def _ordered(run: Run, names: Iterable[str]) -> list[str]:
    """The main score, the other methods, the baselines."""
    rank = {"main": 0, "method": 1, "baseline": 2}
    return sorted(names, key=lambda name: rank[_kind(run, name)])


def _verdict(run: Run, scores: Json) -> Json | None:
    """Average precision of the main score against the best baseline."""
    ours = finite(section(scores, run.score).get("ap"))
    rivals = {name: finite(section(scores, name).get("ap")) for name in _baselines(run) if name != run.score}
    measured = {name: ap for name, ap in rivals.items() if ap is not None}
    if ours is None or not measured:
        return None
    rival = max(measured, key=lambda name: measured[name])
    return {
        "score": run.score,
        "ours": ours,
        "rival": rival,
        "theirs": measured[rival],
        "ahead": ours > measured[rival],
    }


def _styles(run: Run, names: Sequence[str]) -> dict[str, str]:
    """CSS class of every score: `main`, `method-1`…, `baseline-1`…."""
    styles: dict[str, str] = {}
    for name in names:
        kind = _kind(run, name)
        same = sum(style.startswith(kind) for style in styles.values())
        styles[name] = kind if kind == "main" else f"{kind} {kind}-{same % 3 + 1}"
    return styles


def _charts(run: Run) -> list[Chart]:
    curves = section(run.results, "curves")
    styles = _styles(run, _ordered(run, section(run.results, "scores") or curves))
    axes = (
        ("Precision–recall", "Recall (sensitivity)", "Precision", "recall", "precision", "ap", "AP"),
        ("ROC", "False-positive rate", "Sensitivity", "fpr", "tpr", "auroc", "AUROC"),
    )
    charts = []
    for heading, x_label, y_label, x, y, metric, short in axes:
        lines = tuple(
            Line(f"{name} (baseline)" if "baseline" in style else name, style, path, f"{short} {decimal(value)}")
            for name, style in styles.items()
            if (path := curve(section(curves, name).get(x) or [], section(curves, name).get(y) or []))
            for value in [section(section(run.results, "scores"), name).get(metric)]
        )
        charts.append(Chart(heading, x_label, y_label, lines, diagonal=metric == "auroc"))
    return [chart for chart in charts if chart.lines]


def _strip(run: Run, max_cases: int) -> list[Json]:
    """Per score: a dot for every case's Dice, with the number of its card if it has one."""
    cards = {case.id: place for place, case in enumerate(run.cases[:max_cases])}
    measured = run.results.get("cases") or []
    names = _ordered(run, {name: None for case in measured for name in section(case, "dice")})
    rows = []
    for name, style in _styles(run, names).items():
        found = [(str(case.get("id")), finite(section(case, "dice").get(name))) for case in measured]
        dots = [
            {"id": case, "value": value, "card": cards.get(case), "lane": place % 5}
            for place, (case, value) in enumerate(found)
            if value is not None
        ]
        if dots:
            middle = median(dot["value"] for dot in dots)  # type: ignore[type-var]
            rows.append({"name": name, "style": style, "dots": dots, "median": middle})
    return rows


def _measured(run: Run, case: CaseFolder) -> Json:
    return next((row for row in run.results.get("cases") or [] if str(row.get("id")) == case.id), {})


def _row(run: Run, case: CaseFolder, place: int) -> Json:
    """What is known of a case without its images."""
    measured = _measured(run, case)
    fit = section(case.facts, "fit")
    return {
        "id": case.id,
        "place": place,
        "truth_ml": measured.get("lesion_ml"),
        "detected_ml": case.facts.get("volume_ml") if case.facts.get("threshold") is not None else None,
        "dice": section(measured, "dice").get(run.score),
        "rivals": [(name, section(measured, "dice").get(name)) for name in _baselines(run)] if measured else [],
        "ap": section(measured, "ap").get(run.score),
        "components": case.facts.get("lesions"),
        "seconds": _total(case.facts.get("seconds")),
        "fit": [(FIT_WORDS.get(key, key.replace("_", " ")), value) for key, value in fit.items()],
        "unusual": _unusual(run, case),
        "brain_ml": case.facts.get("brain_ml"),
        "shape": " × ".join(str(n) for n in case.facts.get("shape") or []),
        "file": case.image.name if case.image else DASH,
    }


def _total(seconds: Any) -> float | None:
    if not isinstance(seconds, dict):
        return finite(seconds)
    parts = [value for value in map(finite, seconds.values()) if value is not None]
    return sum(parts) if parts else None


def _unusual(run: Run, case: CaseFolder) -> bool:
    """Whether a case's fit loss lies far above the run's others; such a fit is not to be trusted."""
    losses = [finite(section(other.facts, "fit").get("loss")) for other in run.cases]
    known = [loss for loss in losses if loss is not None]
    own = finite(section(case.facts, "fit").get("loss"))
    if own is None or len(known) < 5:
        return False
    middle = median(known)
    spread = median(abs(loss - middle) for loss in known)
    return spread > 0 and 0.6745 * (own - middle) / spread > OUTLIER


def _cards(run: Run, max_cases: int) -> Json:
    """Cards of the first cases with their pictures, and the colour scale that they share."""
    shown = run.cases[:max_cases]
    views = [view_case(case) for case in shown]
    scale = scale_of(views, run.threshold)
    share = (BUDGET - RESERVE) // max(1, len(shown))
    cards = [_card(run, case, view, place) for place, (case, view) in enumerate(zip(shown, views, strict=True))]
    for card, view in zip(cards, views, strict=True):
        card["planes"] = draw(view, scale, share)
        if view.planes and not card["planes"]:
            card["notes"].append("Its pictures were left out to keep the file small; show fewer cases.")
        if not view.planes:
            card["notes"].append("It has no image that can be shown.")
    return {"cards": cards, "scale": scale, "gradient": gradient(), "left_out": len(run.cases) - len(shown)}


def _card(run: Run, case: CaseFolder, view: CaseView, place: int) -> Json:
    row = _row(run, case, place)
    truth = row["truth_ml"] if row["truth_ml"] is not None else view.truth_ml
    lesions = [[_cell(lesion, key) for key in LESION_COLUMNS] for lesion in case.lesions[:LESION_ROWS]]
    more = max(0, len(case.lesions) - LESION_ROWS)
    return {**row, "truth_ml": truth, "lesions": lesions, "more": more, "centre": view.centre, "notes": view.notes}


def _cell(lesion: dict[str, str], key: str) -> str:
    value = lesion.get(key)
    if key == "lesion":
        return value or DASH
    if key == "volume_ml":
        return ml(value)
    return decimal(value, 0) if key.endswith("_mm") else number(value)


def _settings(info: Json) -> list[tuple[str, list[tuple[str, str]]]]:
    """Everything in `run.json` that tells how the run was made, as (heading, rows)."""
    run = {key: info.get(key) for key in ("command", "experiment", "created", "anofield", "seconds") if key in info}
    parts = {
        "Run": run,
        **{name.title(): section(info, name) for name in ("options", "recipe", "threshold", "versions")},
    }
    return [(name, list(flat(content))) for name, content in parts.items() if content]


def flat(content: Any, above: str = "") -> Iterable[tuple[str, str]]:
    """Nested objects as (dotted key, text)."""
    if isinstance(content, dict):
        for key, value in content.items():
            yield from flat(value, f"{above}.{key}" if above else str(key))
    elif isinstance(content, list):
        yield above, ", ".join(map(str, content))
    else:
        yield above, DASH if content is None else str(content)
