"""Metrics of a run in words and digits: table of scores, comparison with the baseline, Dice of every case."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from statistics import median

from anofield.evaluation.parts import ScoreFigures
from anofield.evaluation.results import Results
from anofield.reports.curves import kind_of, styles_of
from anofield.reports.folder import Run
from anofield.reports.numerals import DASH, decimal, finite, number

LANES = 5  # different heights for the dots of neighbouring cases
SCORE_WORDS = {
    "deviation": "how far a voxel differs from the prediction of the fitted healthy anatomy, in standard deviations "
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
    "dice_oracle_mean": ("Dice, oracle", "mean over cases"),
    "dice_calibrated_pooled": ("Dice", "all voxels pooled"),
    "dice_oracle": ("Dice, oracle", "all voxels pooled"),
    "threshold": ("Threshold", "calibrated"),
}


@dataclass(frozen=True)
class ScoreRow:
    """A score in the table: name, description, kind (main, method or baseline), and cells by column."""

    name: str
    words: str
    kind: str
    cells: dict[str, str]


@dataclass(frozen=True)
class Verdict:
    """Average precision of the main score against the best baseline."""

    score: str
    ours: float
    rival: str
    theirs: float

    @property
    def ahead(self) -> bool:
        """Whether the main score is better."""
        return self.ours > self.theirs


@dataclass(frozen=True)
class Summary:
    """The table of scores.

    Attributes:
        columns: Headings by key.
        rows: Scores, the main one first.
        verdict: The comparison with the best baseline; None without one.
        space: Voxels that count, in words.
        n_cases: Number of labelled cases.
    """

    columns: Mapping[str, tuple[str, str]]
    rows: list[ScoreRow]
    verdict: Verdict | None
    space: str
    n_cases: int


@dataclass(frozen=True)
class Dot:
    """A case in the strip of Dice values: id, Dice, address of its card or None, and height."""

    id: str
    value: float
    card: str | None
    lane: int


@dataclass(frozen=True)
class StripRow:
    """The cases of a score in the strip, with their median."""

    name: str
    style: str
    dots: list[Dot]

    @property
    def median(self) -> float:
        """Median of the Dice."""
        return median(dot.value for dot in self.dots)


def summarise(results: Results) -> Summary | None:
    """The table of scores; None if no score was evaluated."""
    rows = [
        ScoreRow(name, SCORE_WORDS.get(name, ""), kind_of(results, name), _cells(results.scores[name]))
        for name in results.names
    ]
    return Summary(COLUMNS, rows, _verdict(results), results.space, results.n_cases) if rows else None


def dice_strip(run: Run, link: Mapping[int, str]) -> list[StripRow]:
    """Dots for the Dice of every case, per score, with the address of the case's card if it has one."""
    results = run.results
    if results is None:
        return []
    known = {case.id: link.get(place) for place, case in enumerate(run.cases)}
    names = [name for name in results.names if any(name in row.dice for row in results.rows)]
    rows = [StripRow(name, style, _dots(results, name, known)) for name, style in styles_of(results, names).items()]
    return [row for row in rows if row.dots]


def _dots(results: Results, name: str, card: Mapping[str, str | None]) -> list[Dot]:
    found = [(row.id, finite(row.dice.get(name))) for row in results.rows]
    return [
        Dot(case, value, card.get(case), place % LANES)
        for place, (case, value) in enumerate(found)
        if value is not None
    ]


def _cells(measured: ScoreFigures) -> dict[str, str]:
    cells = {key: decimal(measured.get(key)) for key in COLUMNS if key not in ("dice", "threshold")}
    mean, spread = decimal(measured.dice_calibrated_mean), decimal(measured.dice_calibrated_sd)
    cells["dice"] = mean if DASH in (mean, spread) else f"{mean} ± {spread}"
    cells["threshold"] = number(measured.threshold)
    return cells


def _verdict(results: Results) -> Verdict | None:
    """Average precision of the main score against the best baseline."""
    ours = finite(results.scores[results.score].ap)
    rivals = {name: finite(results.scores[name].ap) for name in results.baselines if name != results.score}
    measured = {name: ap for name, ap in rivals.items() if ap is not None}
    if ours is None or not measured:
        return None
    rival = max(measured, key=lambda name: measured[name])
    return Verdict(results.score, ours, rival, measured[rival])
