"""`anofield evaluate`: run + labels → metrics; two runs → their difference."""

from __future__ import annotations

from enum import StrEnum
from pathlib import Path
from typing import Annotated, Any

import typer

from anofield._words import counted
from anofield.cli._options import Dataset, DatasetOption, Json, finish
from anofield.errors import UsageError


class Space(StrEnum):
    """Which voxels count."""

    brain = "brain"
    all = "all"


class Preset(StrEnum):
    """Published sets of metrics."""

    ifl2021 = "ifl2021"


def command(
    output: Annotated[Path, typer.Option("--output", "-o", help="Folder of the results.")],
    run: Annotated[Path | None, typer.Option("--predictions", "-p", help="Folder of the run.")] = None,
    labels: Annotated[
        str | None, typer.Option("--truth", "-t", help="Labels; default: found beside the scans.")
    ] = None,
    compare_: Annotated[
        tuple[Path, Path] | None, typer.Option("--compare", help="Two runs on the same cases, instead of -p.")
    ] = None,
    space: Annotated[
        Space | None, typer.Option(help="Voxels that count, default brain; all: background included.")
    ] = None,
    preset: Annotated[
        Preset | None, typer.Option(help="ifl2021: the metrics of the 2021 notebook, over all voxels.")
    ] = None,
    threshold_from: Annotated[
        Path | None, typer.Option(help="Results folder of a validation cohort: apply its best threshold.")
    ] = None,
    healthy: Annotated[
        Path | None, typer.Option(help="Run of healthy people: false positives, AUROC of scans.")
    ] = None,
    min_lesion_ml: Annotated[
        float | None, typer.Option(help="Smaller components do not count; default: the run's own.")
    ] = None,
    resamples: Annotated[int, typer.Option("--bootstrap", help="Resamples of the subjects.")] = 1000,
    seed: Annotated[int, typer.Option(help="Of the bootstrap.")] = 0,
    dataset: DatasetOption = Dataset.auto,
    json_: Json = False,
) -> None:
    """Compare a run with lesion labels, or two runs with each other; inside the brain unless told otherwise."""
    from anofield.data.parallel import Failure
    from anofield.evaluate.evaluate import Options, compare, evaluate, format_comparison, format_table, plain

    if (run is None) == (compare_ is None):
        raise UsageError("a run or two runs are needed", remedy="give either -p RUN or --compare RUN_A RUN_B")
    options = Options(
        dataset=dataset.value,
        space=None if space is None else space.value,
        preset="ifl2021" if preset is Preset.ifl2021 else None,
        threshold_from=threshold_from,
        healthy=healthy,
        min_lesion_ml=min_lesion_ml,
        resamples=resamples,
        seed=seed,
    )
    if compare_ is not None:
        comparison = compare(*compare_, labels, output, options)
        text = f"{format_comparison(comparison)}\n{_note(comparison)}\nwritten to {output}"
        finish(plain(comparison), [], comparison["n_cases"], as_json=json_, text=text)
    if run is not None:
        results = evaluate(run, labels, output, options)
        failures = [Failure(**row) for row in results["failures"]]
        text = f"{format_table(results)}\n\n{_note(results)}\nwritten to {output}"
        finish(plain(results), failures, results["n_cases"], as_json=json_, text=text)


def _note(content: dict[str, Any]) -> str:
    rules = content["rules"]
    parts = [f"{counted(content['n_cases'], 'case')}, {content['space']}."]
    if not content.get("preset"):
        parts.append(_sureness(rules["subjects"]))
        parts.append("" if rules["surface"] else "HD95, ASSD: pip install 'anofield[metrics]'.")
    return " ".join([*filter(None, parts), "Rules: docs/explanation/metrics.md."])


def _sureness(subjects: int) -> str:
    from anofield.bootstrap import FEW_SUBJECTS, LEAST_SUBJECTS

    if subjects < LEAST_SUBJECTS:
        return "No intervals, which need two subjects."
    few = f"; below {FEW_SUBJECTS} they are too narrow" if subjects < FEW_SUBJECTS else ""
    return f"Intervals: bootstrap over {subjects} subjects{few}."
