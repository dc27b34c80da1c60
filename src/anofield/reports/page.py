"""The pages of a run: the content of the templates as text, divided into several files if one is too large."""

from __future__ import annotations

import gc
import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path

from anofield.data.parallel import Failure
from anofield.detect.run_folder import RunInfo
from anofield.evaluation.results import Results
from anofield.reports.card import CardView, view_card
from anofield.reports.cases import FINDING_COLUMNS, CaseFacts, draw_card, facts_of
from anofield.reports.charts import Chart
from anofield.reports.curves import draw_curves
from anofield.reports.figures import Scale, gradient, scale_of
from anofield.reports.folder import Run
from anofield.reports.numerals import DASH
from anofield.reports.paging import Fragment, grouped, mark, numbered
from anofield.reports.planes import bright_end
from anofield.reports.summary import SCORE_WORDS, StripRow, Summary, dice_strip, summarise
from anofield.reports.template import Settings, flat, templates
from anofield.reports.viewer import library, licences, script

FEW_CASES = 40  # the table of all cases is open up to this many
KINDS = {
    "scan": "Scan",
    "restoration": "Restoration",
    "anomaly": "Anomaly map",
    "outlines": "Outlines",
}


@dataclass(frozen=True, kw_only=True)
class Head:
    """The content at the top of the first page.

    Attributes:
        date: Date of the run.
        finished, failed: Number of cases.
        score, words: The main score and its description.
        threshold, quantile, meaning: The calibrated threshold, its quantile, and its meaning in words.
        notices: What a reader has to know about the run, one sentence each.
    """

    date: str
    finished: int
    failed: int
    score: str
    words: str
    threshold: float | None
    quantile: float | None
    meaning: str
    notices: Sequence[str]


@dataclass(frozen=True, kw_only=True)
class Common:
    """The content that all pages of a run share."""

    title: str
    home: str
    version: str | None
    head: Head
    scale: Scale
    n_shown: int
    n_cases: int
    gradient: list[str] = field(default_factory=gradient)
    kinds: dict[str, str] = field(default_factory=lambda: KINDS)
    dash: str = DASH
    finding_columns: Sequence[str] = FINDING_COLUMNS
    scripts: dict[str, str] = field(
        default_factory=lambda: {name: script(f"{name}.js") for name in ("table", "viewer")}
    )

    @property
    def left_out(self) -> int:
        """Number of cases without pictures."""
        return self.n_cases - self.n_shown


@dataclass(frozen=True, kw_only=True)
class Index:
    """The content of the first page alone.

    Attributes:
        notes: Paragraphs under the heading.
        summary, figures, charts, strip: Metrics, if the run was evaluated.
        rows: Facts of every case.
        failures: Cases that failed.
        settings: Options, versions and hashes of the run and its results.
    """

    notes: list[str]
    summary: Summary | None
    figures: CardView | None
    charts: list[Chart]
    strip: list[StripRow]
    rows: list[CaseFacts]
    failures: list[Failure]
    settings: Settings

    @property
    def few(self) -> bool:
        """Whether the table of all cases is open."""
        return len(self.rows) <= FEW_CASES

    @property
    def untrusted(self) -> list[CaseFacts]:
        """Cases whose fit is not trusted."""
        return [row for row in self.rows if row.trusted is False]


def render(run: Run, *, title: str, max_cases: int, notes: str, name: str = "report.html") -> Iterator[tuple[str, str]]:
    """The pages of a run as (file name, HTML text): pages of cases, if they are needed, then the first page, `name`.

    Args:
        run: Run from `read_report_run`.
        title: Heading of the pages.
        max_cases: Number of cases that get a card with pictures.
        notes: Plain text; an empty line begins a paragraph.
        name: File name of the first page.
    """
    common = _common(run, len(run.cases[:max_cases]), title, name)
    groups = grouped(_fragments(run, common))
    group, after = next(groups), next(groups, None)
    if after is None:
        link = {place: f"#case-{place}" for place in range(common.n_shown)}
        yield name, _first_page(common, _index(run, notes, link), group, [])
        return
    files: list[str] = []
    link = {}
    while group:
        files.append(numbered(name, len(files) + 2))
        first = len(link)
        link |= {place: f"{files[-1]}#case-{place}" for place in range(first, first + len(group))}
        near = {"before": files[-2:-1], "after": [numbered(name, len(files) + 2)] if after else []}
        yield files[-1], _page("cases.html.j2", group, common=common, **near, first=first, mark=mark(files[-1]))
        gc.collect()  # contexts of templates are in reference cycles, each with a whole page
        group, after = after or [], next(groups, None)
    yield name, _first_page(common, _index(run, notes, link), [], files)


def _common(run: Run, shown: int, title: str, home: str) -> Common:
    return Common(
        title=title,
        home=home,
        version=run.info.anofield,
        head=_head(run),
        scale=scale_of(map(bright_end, run.cases[:shown]), run.threshold),
        n_shown=shown,
        n_cases=len(run.cases),
    )


def _head(run: Run) -> Head:
    threshold = run.info.threshold
    return Head(
        date=_date(run.info.created),
        finished=len(run.cases),
        failed=len(run.failures),
        score=run.score,
        words=SCORE_WORDS.get(run.score, ""),
        threshold=run.threshold,
        quantile=threshold.quantile if threshold else None,
        meaning=threshold.meaning if threshold else "",
        notices=run.notices,
    )


def _date(text: str) -> str:
    try:
        when = datetime.fromisoformat(text)
    except ValueError:
        return text or DASH
    return f"{when.day} {when:%B %Y, %H:%M}"


def _fragments(run: Run, common: Common) -> Iterator[Fragment]:
    """The first cases as HTML text, one after the other."""
    template = templates().get_template("case.html.j2")
    for place in range(common.n_shown):
        card = draw_card(run, place, common.scale)
        yield Fragment(template.render(card=card, **_names(common)), card.viewer is not None)


def _first_page(common: Common, index: Index, group: Sequence[Fragment], pages: list[str]) -> str:
    return _page("page.html.j2", group, common=common, **_names(index), pages=pages)


def _page(template: str, group: Sequence[Fragment], *, common: Common, **content: object) -> str:
    """A page with the library of the interactive view if any of its cases has one."""
    embedded = any(fragment.viewer for fragment in group)
    more = {"library": library(), "licences": licences()} if embedded else {"library": "", "licences": ""}
    cards = [fragment.text for fragment in group]
    return templates().get_template(template).render(cards=cards, **more, **_names(common), **content)


def _names(content: Common | Index) -> dict[str, object]:
    """Fields and properties of the content as variables of a template."""
    properties = [name for name, value in vars(type(content)).items() if isinstance(value, property)]
    return {**vars(content), **{name: getattr(content, name) for name in properties}}


def _index(run: Run, notes: str, link: dict[int, str]) -> Index:
    results = run.results
    return Index(
        notes=[part.strip() for part in notes.split("\n\n") if part.strip()],
        summary=summarise(results) if results else None,
        figures=view_card(results) if results else None,
        charts=draw_curves(results) if results else [],
        strip=dice_strip(run, link),
        rows=[facts_of(run, case, place, link.get(place)) for place, case in enumerate(run.cases)],
        failures=run.failures,
        settings=_settings(run),
    )


def _settings(run: Run) -> Settings:
    """All settings of the run and its results."""
    hashes = {case.id: case.info.source_hash for case in run.cases if case.info.source_hash}
    parts = {
        **_made(run.info),
        "Results": _measured(run.results) if run.results else {},
        "Hashes of the scans": hashes,
    }
    return [(name, list(flat(content))) for name, content in parts.items() if content]


def _made(info: RunInfo) -> dict[str, object]:
    """Sections about the run."""
    named = ("options", "recipe", "threshold", "thresholds", "versions")
    content = info.model_dump(mode="json", exclude={"format", "cases"})
    about = {key: value for key, value in content.items() if key not in named and value is not None}
    return {"Run": about, **{name.title(): content[name] for name in named}, "Specs of the model": _specs(info)}


def _measured(results: Results) -> dict[str, object]:
    content = {
        "run": results.run,
        "space": results.space,
        "preset": results.preset,
        "rules": results.rules.model_dump(),
    }
    return {key: value for key, value in content.items() if value}


def _specs(info: RunInfo) -> object:
    """Content of the experiment's `specs.json`, if it is still where the run found it."""
    try:
        return json.loads((Path(info.experiment) / "specs.json").read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
