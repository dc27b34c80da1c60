"""`anofield baseline NAME train|calibrate|detect`: methods to compare with, through the same stores and runs."""

from __future__ import annotations

import json
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from anofield._words import counted
from anofield.cli._detection import (
    EdgeMm,
    GaussianMm,
    MinimumMm,
    NativeEdgeMm,
    RimMm,
    Standardise,
    run_cases,
    switches_of,
)
from anofield.cli._options import (
    Dataset,
    DatasetOption,
    Device,
    Filter,
    Force,
    Json,
    Label,
    Mask,
    ModalityOption,
    Scheduler,
    Tail,
    Workers,
    finish,
)  # fmt: skip

if TYPE_CHECKING:
    from anofield.baselines.run import TrainedBaseline
    from anofield.detect.method import RunOptions

app = typer.Typer(help="Train, calibrate and run a method to compare with; `anofield baseline list` names them.")

Folder = Annotated[Path, typer.Option("--model", "-m", help="Folder of the trained baseline.")]
TailOption = Annotated[Tail, typer.Option("--tail", help="Departures that count.")]


@app.callback(invoke_without_command=True)
def _named(context: typer.Context, name: Annotated[str, typer.Argument(help="Name of the baseline, or list.")]) -> None:
    if context.invoked_subcommand is not None:
        context.obj = name
        return
    from anofield.baselines.registry import known_baselines

    names = list(known_baselines()) if name == "list" else [name]
    sys.stdout.write("\n".join(_described(name) for name in names) + "\n")


@app.command("train")
def _train(
    context: typer.Context,
    store: Annotated[Path, typer.Option("--data", help="Store of prepared healthy people.")],
    output: Annotated[Path, typer.Option("--output", "-o", help="Folder of the baseline.")],
    seed: Annotated[int, typer.Option("--seed", min=0, help="Of everything random.")] = 0,
    setting: Annotated[list[str] | None, typer.Option("--set", help="key=value; `anofield baseline NAME`.")] = None,
    device: Device = "auto",
    force: Force = False,
    json_: Json = False,
) -> None:
    """Train on the healthy people of a store."""
    from anofield.baselines.run import make_settings, train_baseline
    from anofield.data.store import Store

    settings = make_settings(context.obj, {"seed": seed, **_changes(setting or [])})
    made = train_baseline(context.obj, Store(store), output, settings, device=device, force=force)
    about = {"name": made.name, "folder": str(output), "cases": len(made.training_ids), "losses": list(made.losses),
             "seconds": made.training_seconds, "hash": made.hash}  # fmt: skip
    people = counted(len(made.training_ids), "person", "people")
    text = f"{made.name}: {people}, {made.training_seconds:.1f} s, written to {output}"
    sys.stdout.write((json.dumps(about, indent=2) if json_ else text) + "\n")


@app.command("calibrate")
def _calibrate(
    context: typer.Context,
    model: Folder,
    source: Annotated[str, typer.Option("--input", "-i", help="Healthy scans that were not trained on.")],
    dataset: DatasetOption = Dataset.auto,
    modality: ModalityOption = "T2w",
    filter_: Filter = "",
    mask: Mask = None,
    quantile: Annotated[float, typer.Option("--quantile", help="Share of healthy brain below the threshold.")] = 0.999,
    tail: TailOption = Tail.bright,
    rim_mm: RimMm = None,
    minimum_mm: MinimumMm = None,
    gaussian_mm: GaussianMm = None,
    edge_mm: EdgeMm = None,
    native_edge_mm: NativeEdgeMm = None,
    standardise: Standardise = None,
    device: Device = "auto",
    json_: Json = False,
) -> None:
    """Set the threshold so that a known share of healthy brain lies above it."""
    switches = switches_of(locals())
    from anofield.data.cohort.bids import parse_entities
    from anofield.data.cohort.find import find_cases
    from anofield.data.parallel import failures_of
    from anofield.detect.calibrate import calibrate

    opened, options = _open(context.obj, model, device, **switches)
    entities = parse_entities(filter_)
    cases = find_cases(source, dataset=dataset.value, modality=modality, entities=entities, mask=mask)
    content, outcomes = calibrate(cases, opened, options, quantile=quantile)
    text = f"Threshold {content['thresholds'][context.obj]:.4f}. Meaning: {content['meaning']}."
    finish(content, failures_of(outcomes), len(content["cases"]), as_json=json_, text=text)


@app.command("detect")
def _detect(
    context: typer.Context,
    source: Annotated[str, typer.Option("--input", "-i", help="Scan, folder, quoted glob or manifest (.tsv).")],
    model: Folder,
    output: Annotated[Path, typer.Option("--output", "-o", help="Folder of the run.")],
    dataset: DatasetOption = Dataset.auto,
    modality: ModalityOption = "T2w",
    filter_: Filter = "",
    label: Label = None,
    mask: Mask = None,
    tail: TailOption = Tail.bright,
    rim_mm: RimMm = None,
    minimum_mm: MinimumMm = None,
    gaussian_mm: GaussianMm = None,
    edge_mm: EdgeMm = None,
    native_edge_mm: NativeEdgeMm = None,
    standardise: Standardise = None,
    device: Device = "auto",
    workers: Workers = 1,
    scheduler: Scheduler = None,
    force: Force = False,
    json_: Json = False,
) -> None:
    """Write a run like that of `anofield detect`; finished cases are skipped, failing ones do not stop the rest."""
    switches = switches_of(locals())
    from anofield.data.cohort.bids import parse_entities
    from anofield.data.cohort.find import find_cases

    start = time.monotonic()
    opened, options = _open(context.obj, model, device, **switches)
    entities = parse_entities(filter_)
    cases = find_cases(source, dataset=dataset.value, modality=modality, entities=entities, label=label, mask=mask)
    run, found, failures = run_cases(cases, opened, options, output, start=start, force=force, workers=workers,
                                     scheduler=scheduler)  # fmt: skip
    text = f"{counted(len(found), 'case')} written to {output}"
    finish({**run, "results": found}, failures, len(found), as_json=json_, text=text)


def _open(name: str, folder: Path, device: str, **filters: Any) -> tuple[TrainedBaseline, RunOptions]:
    """The baseline and the options of its run.

    Raises:
        UsageError: The folder holds another baseline.
    """
    from anofield.baselines.run import baseline_options, load_baseline
    from anofield.cli._detection import Preset, options_from
    from anofield.errors import UsageError

    opened = load_baseline(folder, device=device)
    if opened.name != name:
        raise UsageError(f"holds the baseline {opened.name}, not {name}", where=folder, remedy="give its own name")
    return opened, baseline_options(name, options_from(Preset.default, None, "none", **filters).filters)


def _changes(words: list[str]) -> dict[str, Any]:
    """`key=value` pairs.

    Raises:
        UsageError: One is no pair.
    """
    from anofield.errors import UsageError

    for word in words:
        if "=" not in word:
            raise UsageError(f"--set {word}", remedy="give key=value, for example --set steps=500")
    return dict(word.split("=", 1) for word in words)


def _described(name: str) -> str:
    from anofield.baselines.registry import find_baseline

    found = find_baseline(name)
    settings = ", ".join(f"{key}={field.default}" for key, field in found.settings_type.model_fields.items())
    return f"{name:12} {found.title}\n{'':12} {found.paper}\n{'':12} {settings}"
