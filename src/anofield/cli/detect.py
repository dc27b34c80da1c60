"""`anofield detect`: scan → anomaly map, restoration, mask, lesion table."""

from __future__ import annotations

import time
from enum import StrEnum
from pathlib import Path
from typing import Annotated, Any

import typer

from anofield._words import counted
from anofield.cli._detection import (
    EdgeMm,
    ElasticMm,
    GaussianMm,
    IntensityOption,
    MinimumMm,
    NativeEdgeMm,
    PoseOption,
    PrecisionOption,
    Preset,
    PresetOption,
    RecipeOption,
    RimMm,
    Seed,
    Standardise,
    options_from,
    run_cases,
    switches_of,
)
from anofield.cli._options import (
    Dataset,
    DatasetOption,
    Device,
    Experiment,
    Filter,
    Force,
    Json,
    Label,
    Mask,
    ModalityOption,
    Precision,
    Scheduler,
    ScoreOption,
    TailOption,
    Workers,
    finish,
)  # fmt: skip


class Naming(StrEnum):
    """How results are named."""

    plain = "plain"
    bids = "bids"


def command(
    source: Annotated[str, typer.Option("--input", "-i", help="Scan, folder, quoted glob or manifest (.tsv).")],
    model: Experiment,
    output: Annotated[Path, typer.Option("--output", "-o", help="Folder of the run.")],
    dataset: DatasetOption = Dataset.auto,
    modality: ModalityOption = "T2w",
    filter_: Filter = "",
    label: Label = None,
    mask: Mask = None,
    recipe: RecipeOption = None,
    preset: PresetOption = Preset.default,
    score: ScoreOption = None,
    also: Annotated[str, typer.Option("--also", help="Further scores, comma separated; none.")] = "intensity",
    tail: TailOption = None,
    rim_mm: RimMm = None,
    minimum_mm: MinimumMm = None,
    gaussian_mm: GaussianMm = None,
    edge_mm: EdgeMm = None,
    native_edge_mm: NativeEdgeMm = None,
    standardise: Standardise = None,
    pose: PoseOption = None,
    intensity_map: IntensityOption = None,
    elastic_mm: ElasticMm = None,
    seed: Seed = 0,
    epoch: Annotated[str, typer.Option("--epoch", help="Checkpoint: latest or a number.")] = "latest",
    device: Device = "auto",
    precision: PrecisionOption = Precision.auto,
    part: Annotated[
        str | None, typer.Option("--part", help="K/N: the K-th of N parts of the cases, for job arrays.")
    ] = None,
    naming: Annotated[Naming, typer.Option("--naming", help="bids: a BIDS derivative dataset.")] = Naming.plain,
    workers: Workers = 1,
    scheduler: Scheduler = None,
    force: Force = False,
    json_: Json = False,
) -> None:
    """Show where scans depart from healthy anatomy; finished cases are skipped, failing ones do not stop the rest."""
    switches = switches_of(locals())
    from anofield.data.cohort.bids import parse_entities
    from anofield.data.cohort.case import part_of
    from anofield.data.cohort.find import find_cases
    from anofield.detect.bids import RUN_FOLDER, write_derivatives
    from anofield.field.model import load_model

    start = time.monotonic()
    options = options_from(preset, score, also, **switches)
    loaded = load_model(model, epoch=epoch, device=device, precision=precision.value, recipe=recipe)
    entities = parse_entities(filter_)
    cases = find_cases(source, dataset=dataset.value, modality=modality, entities=entities, label=label, mask=mask)
    folder = output / RUN_FOLDER if naming is Naming.bids else output
    run, found, failures = run_cases(cases, loaded, options, folder, start=start, part=part, force=force,
                                     workers=workers, scheduler=scheduler)  # fmt: skip
    if naming is Naming.bids:
        write_derivatives(output, part_of(cases, part)[0])
    finish({**run, "results": found}, failures, len(found), as_json=json_, text=_text(found, folder))


def _text(found: list[dict[str, Any]], output: Path) -> str:
    width = max([len(str(row["id"])) for row in found], default=0)
    lines = [f"{row['id']!s:{width}}  {_finding(row)}" for row in found]
    return "\n".join([*lines, f"written to {output}"])


def _finding(row: dict[str, Any]) -> str:
    if row["threshold"] is None:
        return "anomaly map only: the model is not calibrated (anofield calibrate)"
    number, noun = counted(row["lesions"], "lesion").split()
    return f"{number:>3} {noun:7}  {row['volume_ml']:8.2f} ml"
