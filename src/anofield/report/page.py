"""The pages of a run: what the templates show, in words and with sensible digits, split where one is too large."""

from __future__ import annotations

import gc
import json
from collections.abc import Iterable, Iterator, Sequence
from datetime import datetime
from pathlib import Path
from statistics import median
from typing import Any

import jinja2

from anofield._words import counted
from anofield.report import card as cards
from anofield.report.cases import LESION_COLUMNS, draw_card, row_of
from anofield.report.charts import Chart, Line, curve
from anofield.report.figures import Scale, gradient, scale_of
from anofield.report.folder import Run, section
from anofield.report.numerals import DASH, decimal, duration, finite, ml, number, value
from anofield.report.paging import Fragment, grouped, mark, numbered
from anofield.report.planes import bright_end
from anofield.report.viewer import library, licences, script
from anofield.typing import Json

FEW_CASES = 40  # the table of all cases is open up to this many
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
KINDS = {
    "scan": "Scan",
    "restoration": "Restoration",
    "anomaly": "Anomaly map",
    "outlines": "Outlines",
}


def render(run: Run, *, title: str, max_cases: int, notes: str, name: str = "report.html") -> Iterator[tuple[str, str]]:
    """The pages of a run as (file name, HTML text): those of cases, if they need their own, then the first, `name`.

    Args:
        run: What `read_run` read.
        title: Heading.
        max_cases: Cases that get a card with pictures.
        notes: Plain text; an empty line begins a paragraph.
        name: File name of the first page.
    """
    shown = run.cases[:max_cases]
    scale = scale_of(map(bright_end, shown), run.threshold)
    common = {**_common(run, scale, len(shown)), "title": title, "home": name}
    groups = grouped(_fragments(len(shown), run, common))
    group, after = next(groups), next(groups, None)
    if after is None:
        link = {place: f"#case-{place}" for place in range(len(shown))}
        yield name, _page("page.html.j2", group, **common, **_index(run, notes, link), pages=[])
        return
    files: list[str] = []
    link = {}
    while group:
        files.append(numbered(name, len(files) + 2))
        first = len(link)
        link |= {place: f"{files[-1]}#case-{place}" for place in range(first, first + len(group))}
        near = {"before": files[-2:-1], "after": [numbered(name, len(files) + 2)] if after else []}
        yield files[-1], _page("cases.html.j2", group, **common, **near, first=first, mark=mark(files[-1]))
        gc.collect()  # contexts of templates lie in cycles, each with a whole page
        group, after = after or [], next(groups, None)
    yield name, _page("page.html.j2", [], **common, **_index(run, notes, link), pages=files)


def _common(run: Run, scale: Scale, shown: int) -> Json:
    """What the pages of a run share."""
    return {
        "version": run.info.get("anofield"),
        "head": _head(run),
        "kinds": KINDS,
        "dash": DASH,
        "lesion_columns": LESION_COLUMNS,
        "scale": scale,
        "gradient": gradient(),
        "left_out": len(run.cases) - shown,
        "n_shown": shown,
        "n_cases": len(run.cases),
        "scripts": {"table": script("table.js"), "viewer": script("viewer.js")},
    }


def _fragments(shown: int, run: Run, common: Json) -> Iterator[Fragment]:
    """The first cases as HTML text, one after the other."""
    template = templates().get_template("case.html.j2")
    for place in range(shown):
        card = draw_card(run, place, common["scale"])
        yield Fragment(template.render(card=card, **common), card["viewer"] is not None)


def _page(template: str, group: Sequence[Fragment], **content: Any) -> str:
    """A page with the library of the interactive view if any of its cases has one."""
    embedded = any(fragment.viewer for fragment in group)
    more = {"library": library(), "licences": licences()} if embedded else {"library": "", "licences": ""}
    return templates().get_template(template).render(cards=[f.text for f in group], **more, **content)


def _index(run: Run, notes: str, link: dict[int, str]) -> Json:
    """What the first page alone shows."""
    names = _ordered(run, section(run.results, "scores"))
    listed = [{**row_of(run, case, place), "link": link.get(place)} for place, case in enumerate(run.cases)]
    return {
        "notes": [part.strip() for part in notes.split("\n\n") if part.strip()],
        "summary": _summary(run),
        "figures": _figures(run, names),
        "charts": _charts(run),
        "strip": _strip(run, link),
        "few": len(run.cases) <= FEW_CASES,
        "rows": listed,
        "untrusted": [row for row in listed if row["trusted"] is False],
        "failures": [{key: str(f.get(key) or DASH) for key in ("id", "stage", "error", "image")} for f in run.failures],
        "settings": _settings(run),
    }


def _figures(run: Run, names: Sequence[str]) -> Json | None:
    """The metric card and what goes with it, None if the results have none."""
    results = run.results
    card = section(results, "card")
    table = cards.card_table(card, names, _baselines(run))
    metrics = [row for name in names for row in section(card, name).values()]
    return table and {
        **table,
        "margins": cards.margins(section(results, "margins")),
        "by_size": cards.by_size(section(results, "by_size")),
        "thresholds": cards.thresholds(section(results, "thresholds"), names),
        "healthy": cards.healthy(section(results, "healthy")),
        "sureness": cards.sureness(section(results, "rules"), metrics),
        "rules": section(results, "rules"),
    }


def templates() -> jinja2.Environment:
    """The templates of the reports; every value is escaped."""
    loader = jinja2.PackageLoader("anofield", "report")
    pages = jinja2.Environment(
        loader=loader, autoescape=True, undefined=jinja2.StrictUndefined, trim_blocks=True, lstrip_blocks=True
    )
    pages.filters.update(number=number, ml=ml, duration=duration, decimal=decimal, value=value, counted=counted)
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
        ("Precision–recall", "Recall (sensitivity)", "Precision", "recall", "precision", "ap", "precision_recall"),
        ("ROC", "False-positive rate", "Sensitivity", "fpr", "tpr", "auroc", "roc"),
    )
    charts = []
    for heading, x_label, y_label, x, y, metric, band in axes:
        lines = tuple(
            Line(
                cards.legend(name, style),
                style,
                path,
                f"{metric.upper()} {decimal(value)} {ci}".strip(),
                band=cards.band(run.results, name, band),
            )
            for name, style in styles.items()
            if (path := curve(section(curves, name).get(x) or [], section(curves, name).get(y) or []))
            for value in [section(section(run.results, "scores"), name).get(metric)]
            for _, ci in [cards.interval(section(section(section(run.results, "card"), name), metric), 3)]
        )
        note = cards.band_words(run.results)
        charts.append(Chart(heading, x_label, y_label, lines, diagonal=metric == "auroc", note=note))
    froc = cards.froc(run.results, styles)
    return [chart for chart in charts if chart.lines] + ([froc] if froc else [])


def _strip(run: Run, link: dict[int, str]) -> list[Json]:
    """Per score: a dot for every case's Dice, with the address of its card if it has one."""
    known = {case.id: link.get(place) for place, case in enumerate(run.cases)}
    measured = run.results.get("cases") or []
    names = _ordered(run, {name: None for case in measured for name in section(case, "dice")})
    rows = []
    for name, style in _styles(run, names).items():
        found = [(str(case.get("id")), finite(section(case, "dice").get(name))) for case in measured]
        dots = [
            {"id": case, "value": value, "card": known.get(case), "lane": place % 5}
            for place, (case, value) in enumerate(found)
            if value is not None
        ]
        if dots:
            middle = median(dot["value"] for dot in dots)  # type: ignore[type-var]
            rows.append({"name": name, "style": style, "dots": dots, "median": middle})
    return rows


def _settings(run: Run) -> list[tuple[str, list[tuple[str, str]]]]:
    """Everything that tells how the run and its results were made, as (heading, rows)."""
    info = run.info
    named = ("options", "recipe", "specs", "threshold", "thresholds", "versions")
    about = {key: value for key, value in info.items() if key not in (*named, "cases") and value is not None}
    hashes = {case.id: case.facts.get("source_hash") for case in run.cases if case.facts.get("source_hash")}
    measured = {key: run.results.get(key) for key in ("run", "space", "preset", "rules") if run.results.get(key)}
    parts = {
        "Run": about,
        **{name.title(): section(info, name) for name in named},
        "Specs of the model": _specs(info),
        "Results": measured,
        "Hashes of the scans": hashes,
    }
    return [(name, list(flat(content))) for name, content in parts.items() if content]


def _specs(info: Json) -> Json:
    """`specs.json` of the experiment, if it is still where the run found it."""
    path = Path(str(info.get("experiment") or "")) / "specs.json"
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return content if isinstance(content, dict) else {}


def flat(content: Any, above: str = "") -> Iterable[tuple[str, str]]:
    """Nested objects as (dotted key, text)."""
    if isinstance(content, dict):
        for key, value in content.items():
            yield from flat(value, f"{above}.{key}" if above else str(key))
    elif isinstance(content, list):
        yield above, ", ".join(map(str, content))
    else:
        yield above, DASH if content is None else str(content)
