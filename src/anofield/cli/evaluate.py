"""`anofield evaluate`: run + labels → metrics; two runs → their difference."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from anofield._words import counted
from anofield.cli._options import Dataset, Json, UniteLabels, Work, finish
from anofield.cli._parameters import expanded
from anofield.errors import UsageError

if TYPE_CHECKING:
    from anofield.evaluation.results import Comparison, Results


@dataclass(frozen=True)
class Rules:
    """How a run is evaluated: the fields of `anofield.evaluation.options.Options`."""

    space: Annotated[
        Literal["brain", "all"] | None, typer.Option(help="Voxels that count; default: brain; all: background as well.")
    ] = None
    preset: Annotated[
        Literal["ifl2021"] | None, typer.Option(help="ifl2021: the metrics of the 2021 notebook, over all voxels.")
    ] = None
    threshold_from: Annotated[
        Path | None, typer.Option(help="Results folder of a validation cohort, whose best threshold is applied.")
    ] = None
    healthy: Annotated[
        Path | None, typer.Option(help="Run of healthy subjects, for false positives and the AUROC of scans.")
    ] = None
    min_lesion_ml: Annotated[
        float | None, typer.Option(help="Volume (ml) below which a component does not count; default: the run's own.")
    ] = None
    resamples: Annotated[int, typer.Option("--bootstrap", help="Bootstrap resamples of the subjects.")] = 1000
    seed: Annotated[int, typer.Option(help="Seed of the bootstrap.")] = 0
    dataset: Annotated[Dataset, typer.Option("--dataset", case_sensitive=False, help="Layout of the labels at -t.")] = (
        "auto"
    )
    unite_labels: UniteLabels = False


@expanded
def command(
    *,
    output: Annotated[Path, typer.Option("--output", "-o", help="Folder of the results.")],
    run: Annotated[Path | None, typer.Option("--predictions", "-p", help="Folder of the run.")] = None,
    labels: Annotated[
        str | None,
        typer.Option(
            "--truth", "-t", help="Labels: folder, glob, pattern or manifest; default: found beside the scans."
        ),
    ] = None,
    compare_: Annotated[
        tuple[Path, Path] | None, typer.Option("--compare", help="Two runs on the same cases, instead of -p.")
    ] = None,
    rules: Rules,
    work: Work,
    json_: Json = False,
) -> None:
    """Compare a run with lesion labels, or two runs with each other; inside the brain by default."""
    from anofield.evaluation.compare import compare
    from anofield.evaluation.evaluate import evaluate
    from anofield.evaluation.options import Options
    from anofield.evaluation.table import format_comparison, format_table

    if (run is None) == (compare_ is None):
        raise UsageError("a run or two runs are needed", remedy="give either -p RUN or --compare RUN_A RUN_B")
    options = Options(**vars(rules))
    if compare_ is not None:
        comparison = compare(*compare_, labels, output, options, spread=work.spread())
        text = f"{format_comparison(comparison)}\n{_note(comparison)}\nwritten to {output}"
        finish(comparison.content(), [], comparison.n_cases, as_json=json_, text=text)
    if run is not None:
        results = evaluate(run, labels, output, options, spread=work.spread())
        text = f"{format_table(results)}\n\n{_note(results)}\nwritten to {output}"
        finish(results.content(), results.failures, results.n_cases, as_json=json_, text=text)


def _note(found: Results | Comparison) -> str:
    parts = [f"{counted(found.n_cases, 'case')}, {found.space}."]
    if found.with_intervals:
        parts.append(_intervals(found.rules.subjects))
        parts.append("" if found.rules.surface else "HD95, ASSD: pip install 'anofield[metrics]'.")
    return " ".join([*filter(None, parts), "Rules: docs/explanation/metrics.md."])


def _intervals(subjects: int) -> str:
    from anofield.bootstrap import FEW_SUBJECTS, LEAST_SUBJECTS

    if subjects < LEAST_SUBJECTS:
        return "No intervals: they need two subjects or more."
    few = f"; below {FEW_SUBJECTS} they are too narrow" if subjects < FEW_SUBJECTS else ""
    return f"Intervals: bootstrap over {subjects} subjects{few}."
