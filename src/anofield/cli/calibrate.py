"""`anofield calibrate`: healthy scans → thresholds stored with the experiment."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated

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
    load_scores,
    options_from,
    switches_of,
)
from anofield.cli._options import (
    Dataset,
    DatasetOption,
    Device,
    Experiment,
    Filter,
    Json,
    Mask,
    ModalityOption,
    Precision,
    TailOption,
    finish,
)  # fmt: skip


def command(
    model: Experiment,
    source: Annotated[str, typer.Option("--input", "-i", help="Healthy scans that were not trained on.")],
    dataset: DatasetOption = Dataset.auto,
    modality: ModalityOption = "T2w",
    filter_: Filter = "",
    mask: Mask = None,
    recipe: RecipeOption = None,
    preset: PresetOption = Preset.default,
    quantile: Annotated[float, typer.Option("--quantile", help="Share of healthy brain below the threshold.")] = 0.999,
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
    device: Device = "auto",
    precision: PrecisionOption = Precision.auto,
    json_: Json = False,
) -> None:
    """Set each score's threshold so that a known share of healthy brain lies above it."""
    switches = switches_of(locals())
    from anofield.data.cohort.bids import parse_entities
    from anofield.data.cohort.find import find_cases
    from anofield.data.parallel import failures_of
    from anofield.detect.calibrate import calibrate
    from anofield.detect.calibration import calibration_path
    from anofield.detect.thresholds import calibrated_settings
    from anofield.field.model import load_model

    options = options_from(preset, None, "none", **switches)
    load_scores()
    loaded = load_model(model, device=device, precision=precision.value, recipe=recipe)
    entities = parse_entities(filter_)
    cases = find_cases(source, dataset=dataset.value, modality=modality, entities=entities, mask=mask)
    content, outcomes = calibrate(cases, loaded, options, quantile=quantile)
    thresholds = "\n".join(f"  {name:14} {value:.4f}" for name, value in content["thresholds"].items())
    scans = counted(len(content["cases"]), "healthy scan")
    text = f"Thresholds from {scans}:\n{thresholds}\nMeaning: {content['meaning']}"
    text += _spread(content["kept"]["interval"], len(content["cases"]))
    text += f"\nWritten to {calibration_path(loaded.path, calibrated_settings(options, loaded))}."
    finish(content, failures_of(outcomes), len(content["cases"]), as_json=json_, text=text)


def _spread(interval: Sequence[float] | None, people: int) -> str:
    """How sure the promise is."""
    if interval is None:
        return ".\nOne person says nothing about others: calibrate on more."
    low, high = (100 * share for share in interval)
    return f";\nin new people, judged from these {people}, {low:.2g} to {high:.2g} % (95 % interval of the mean)."
