"""Results of an evaluation as types: `results.json` and `comparison.json`, each written and read here only."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import pandas as pd
from pydantic import Field

from anofield._files import read_json, sealed, write_json, write_text
from anofield._words import counted
from anofield.data.parallel import Failure
from anofield.detect.run_folder import Seen
from anofield.evaluation.options import Preset
from anofield.evaluation.parts import (
    Band,
    BySize,
    CaseRow,
    CurvePoints,
    Difference,
    Figure,
    FrocPoint,
    Healthy,
    Part,
    RulesInfo,
    ScoreFigures,
    Side,
    SurfaceCounts,
)
from anofield.evaluation.rules import Kind
from anofield.typing import PathLike

RESULTS_FILE, CASES_FILE, COMPARISON_FILE = "results.json", "cases.tsv", "comparison.json"


@dataclass(frozen=True)
class Score:
    """Figures of one score: every metric of its card is an attribute, such as `ap`, `auroc` or `dice_oracle_mean`.

    Attributes:
        name: The score.
        figures: Figures without intervals.
        card: Metrics with their intervals; empty with a preset.
    """

    name: str
    figures: ScoreFigures
    card: dict[str, Figure]

    def __getattr__(self, key: str) -> Figure:
        if key in self.card:
            return self.card[key]
        if key in ScoreFigures.model_fields:
            return Figure(value=self.figures.get(key), ci=None)
        raise AttributeError(f"no metric {key!r}; there are {', '.join(self.card)}")

    def __repr__(self) -> str:
        return f"Score({self.name}: AP {self.ap}, AUROC {self.auroc})"


class Results(Part):
    """Content of `results.json`: metrics of a run against lesion labels."""

    format: Literal[1] = 1
    """Version of the file's format."""
    space: str
    """Voxels that count, in words."""
    preset: Preset | None
    """Published set of metrics; None if all metrics were computed."""
    run: str
    """Folder of the run."""
    identity: str | None = None
    """Identity of the run when it was evaluated, as in its `run.json`."""
    notices: list[str] = Field(default_factory=list)
    """What was left out or is to be known about the run, one sentence each."""
    seen: dict[str, Seen] = Field(default_factory=dict)
    """Cases whose scan was used for training or calibration, so that their figures are better than on new scans."""
    score: str
    """Main score."""
    baselines: list[str]
    """Scores that use the scan alone."""
    threshold_meaning: str | None
    """Meaning of the calibrated threshold."""
    labels: dict[str, str | list[str]]
    """Label file of every case, or its label files if they were united."""
    without_label: list[str] = Field(default_factory=list)
    """Ids of the cases of the run that have no label and were not evaluated."""
    labels_without_case: list[str] = Field(default_factory=list)
    """Label files that belong to no case of the run."""
    n_cases: int
    """Number of cases evaluated."""
    failures: list[Failure]
    """Cases that could not be evaluated, and why."""
    rules: RulesInfo
    """Rules of the evaluation."""
    thresholds: dict[str, dict[Kind, float]]
    """Threshold per score and kind."""
    scores: dict[str, ScoreFigures]
    """Figures per score, without intervals."""
    card: dict[str, dict[str, Figure]] | None = None
    """Value and interval of every metric, per score."""
    margins: dict[str, dict[str, Difference]] | None = None
    """Main score minus each baseline, per metric."""
    by_size: BySize | None = None
    """Lesions by volume."""
    froc: dict[str, list[FrocPoint]] | None = None
    """Lesion recall against false findings, per score."""
    bands: dict[str, dict[str, Band]] | None = None
    """Intervals of the curves, per score and curve; undefined ones are left out."""
    surface: dict[str, dict[Kind, SurfaceCounts]] | None = None
    """Scans whose surfaces were compared, per score and kind of threshold."""
    healthy: Healthy | None = None
    """False positives in scans without lesion."""
    rows: list[CaseRow] = Field(alias="cases")
    """Figures of every case."""
    curves: dict[str, CurvePoints]
    """Pooled curves per score."""

    def __getitem__(self, name: str) -> Score:
        return Score(name, self.scores[name], (self.card or {}).get(name, {}))

    @property
    def names(self) -> list[str]:
        """The main score, the other scores of the method, the baselines."""
        return sorted(self.scores, key=lambda name: (name in self.baselines, name != self.score))

    @property
    def with_intervals(self) -> bool:
        """Whether the full card was computed."""
        return self.card is not None

    def table(self) -> pd.DataFrame:
        """One row per score; every metric with the ends of its interval (`ap`, `ap_low`, `ap_high`)."""
        return pd.DataFrame([dict(_cells(self[name])) for name in self.names], index=pd.Index(self.names, name="score"))

    def cases(self) -> pd.DataFrame:
        """One row per case; columns of a score end in its name (`dice_deviation`)."""
        return pd.DataFrame([_flat_row(row) for row in self.rows]).set_index("id")

    def __repr__(self) -> str:
        scores = [f"{name}: AP {self[name].ap}" for name in self.names]
        failed = [f"{len(self.failures)} failed"] if self.failures else []
        return f"Results({', '.join([counted(self.n_cases, 'case'), *failed, *scores])})"

    __str__ = __repr__


class Comparison(Part):
    """Content of `comparison.json`: the main scores of two runs on the same cases."""

    format: Literal[1] = 1
    """Version of the file's format."""
    space: str
    """Voxels that count, in words."""
    rules: RulesInfo
    """Rules of the evaluation."""
    n_cases: int
    """Number of cases in both runs."""
    labels: dict[str, str | list[str]]
    """Label file of every case, or its label files if they were united."""
    a: Side
    """First run."""
    b: Side
    """Second run."""
    differences: dict[str, Difference]
    """A − B per metric."""

    @property
    def with_intervals(self) -> bool:
        """A comparison always has intervals."""
        return True

    def __repr__(self) -> str:
        ap = self.differences.get("ap")
        return f"Comparison({counted(self.n_cases, 'case')}, AP of A − B {ap})"

    __str__ = __repr__


def write_results(out: Path, results: Results) -> None:
    """Write `results.json` and `cases.tsv`."""
    write_json(out / RESULTS_FILE, sealed(results))
    write_text(out / CASES_FILE, _tsv(results.rows, list(results.scores)))


def read_results(path: PathLike, *, remedy: str = "give the output folder of `anofield evaluate`") -> Results:
    """Read the results in a folder, or a `results.json`.

    Raises:
        UsageError: There is no such file, or it holds no results.
    """
    path = Path(path)
    return read_json(path if path.suffix == ".json" else path / RESULTS_FILE, Results, remedy=remedy)


def write_comparison(out: Path, comparison: Comparison) -> None:
    """Write `comparison.json`."""
    write_json(out / COMPARISON_FILE, sealed(comparison))


def read_comparison(path: PathLike) -> Comparison:
    """Read the comparison in a folder, or a `comparison.json`.

    Raises:
        UsageError: There is no such file, or it holds no comparison.
    """
    path = Path(path)
    file = path / COMPARISON_FILE if path.is_dir() else path
    return read_json(file, Comparison, remedy="give the file that `anofield evaluate --compare` wrote")


def _cells(score: Score) -> Iterator[tuple[str, float]]:
    """Columns of a score in the table."""
    plain = [key for key, value in score.figures if isinstance(value, float)]
    for key in score.card or plain:
        figure: Figure = getattr(score, key)
        yield key, figure.value
        if figure.ci is not None:
            yield from zip((f"{key}_low", f"{key}_high"), figure.ci, strict=True)


def _flat_row(row: CaseRow) -> dict[str, float | str]:
    """A case's figures by column."""
    flat: dict[str, float | str] = {}
    for key, value in row.model_dump().items():
        flat |= {f"{key}_{name}": item for name, item in value.items()} if isinstance(value, dict) else {key: value}
    return flat


def _tsv(rows: Sequence[CaseRow], names: Sequence[str]) -> str:
    columns = ("dice", "ap", "voxel_precision")
    head = ["id", "lesion_ml", "detected_ml", *(f"{column}_{name}" for column in columns for name in names)]
    lines = ["\t".join(head)]
    for row in rows:
        per_score = (getattr(row, column).get(name, math.nan) for column in columns for name in names)
        values = [row.lesion_ml, row.detected_ml, *per_score]
        lines.append("\t".join([row.id, *("n/a" if math.isnan(v) else f"{v:.4f}" for v in values)]))
    return "\n".join(lines) + "\n"
