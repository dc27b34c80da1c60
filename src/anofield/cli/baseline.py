"""`anofield baseline NAME train|calibrate|detect`: other methods on the same stores and with the same runs."""

from __future__ import annotations

import sys
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from anofield._words import counted
from anofield.cli._detection import Filters, filters_from
from anofield.cli._options import (
    Computing,
    Device,
    Force,
    HealthyInput,
    Json,
    LabelledInput,
    Quantile,
    RunFolder,
    Threads,
    finish,
    print_result,
)
from anofield.cli._outcome import Strict, end_run
from anofield.cli._parameters import Verb, expanded
from anofield.cli._tables import table
from anofield.errors import UsageError

if TYPE_CHECKING:
    from anofield.baselines.run import TrainedBaseline
    from anofield.detect.options import BaselineOptions

app = typer.Typer(
    name="baseline",
    help="Train, calibrate and run a baseline; `anofield baseline list` lists all baselines.",
    add_completion=False,
)


@dataclass(frozen=True)
class Chosen:
    """A trained baseline, and the device that it uses."""

    model: Annotated[Path, typer.Option("--model", "-m", help="Folder of the trained baseline.")]
    device: Device = "auto"

    def load(self, name: str, filters: dict[str, Any]) -> tuple[TrainedBaseline, BaselineOptions]:
        """The baseline of this name, and the options of its run.

        Raises:
            UsageError: The folder holds another baseline.
        """
        from anofield.baselines.run import baseline_options, load_baseline

        opened = load_baseline(self.model, device=self.device)
        if opened.name != name:
            raise UsageError(
                f"holds the baseline {opened.name}, not {name}", where=self.model, remedy=f"name {opened.name}"
            )
        return opened, baseline_options(name, filters_from(filters))


@app.callback(invoke_without_command=True)
def _named(context: typer.Context, name: Annotated[str, typer.Argument(help="Name of the baseline, or list.")]) -> None:
    if context.invoked_subcommand is not None:
        context.obj = name
        return
    from anofield.baselines.registry import known_baselines

    described = [row for one in known_baselines() for row in _listed(one)] if name == "list" else _described(name)
    sys.stdout.write(table(described) + "\n")


@app.command("train", cls=Verb)
def _train(
    context: typer.Context,
    store: Annotated[Path, typer.Option("--data", help="Store of prepared healthy subjects.")],
    output: Annotated[Path, typer.Option("--output", "-o", help="Folder of the baseline.")],
    seed: Annotated[int, typer.Option("--seed", min=0, help="Seed of all random numbers.")] = 0,
    setting: Annotated[
        list[str] | None, typer.Option("--set", help="KEY=VALUE; `anofield baseline NAME` lists the keys.")
    ] = None,
    device: Device = "auto",
    threads: Threads = "auto",
    force: Force = False,
    json_: Json = False,
) -> None:
    """Train on the healthy subjects of a store."""
    from anofield.baselines.run import make_settings, train_baseline
    from anofield.data.store import Store
    from anofield.field.threads import use_threads

    use_threads(threads, device=device)
    settings = make_settings(context.obj, {"seed": seed, **_changes(setting or [])})
    made = train_baseline(context.obj, Store(store), output, settings, device=device, force=force)
    about = {"name": made.name, "folder": str(output), "cases": len(made.training_ids), "losses": made.info.losses,
             "seconds": made.info.seconds, "hash": made.hash}  # fmt: skip
    subjects = counted(len(made.training_ids), "subject")
    print_result(about, f"{made.name}: {subjects}, {made.info.seconds:.1f} s, written to {output}", as_json=json_)


@app.command("calibrate", cls=Verb)
@expanded
def _calibrate(
    *,
    context: typer.Context,
    chosen: Chosen,
    scans: HealthyInput,
    quantile: Quantile = 0.999,
    filters: Filters,
    work: Computing,
    json_: Json = False,
) -> None:
    """Set the threshold so that a known share of healthy brain lies above it."""
    from anofield.data.parallel import failures_of
    from anofield.detect.calibrate import calibrate

    spread = work.begin(chosen.device)
    method, options = chosen.load(context.obj, filters)
    info, outcomes = calibrate(scans.cases(), method, options, quantile=quantile, spread=spread)
    text = f"Threshold {info.thresholds[context.obj]:.4f}. Meaning: {info.meaning}."
    finish(info.model_dump(mode="json"), failures_of(outcomes), len(info.cases), as_json=json_, text=text)


@app.command("detect", cls=Verb)
@expanded
def _detect(
    *,
    context: typer.Context,
    scans: LabelledInput,
    chosen: Chosen,
    output: RunFolder,
    filters: Filters,
    work: Computing,
    force: Force = False,
    strict: Strict = False,
    json_: Json = False,
) -> None:
    """Write a run like that of `anofield detect`; finished cases are skipped, failing ones are recorded."""
    from anofield.detect.run import detect_cases, threads_before

    scans.check_apart(output)
    spread = work.begin(chosen.device, threads_before(output))
    method, options = chosen.load(context.obj, filters)
    run = detect_cases(scans.cases(), method, options, output, force=force, spread=spread)
    end_run(run, output, strict=strict, as_json=json_)


def _changes(words: list[str]) -> dict[str, Any]:
    """Parse `KEY=VALUE` pairs.

    Raises:
        UsageError: A word is not a `KEY=VALUE` pair.
    """
    for word in words:
        if "=" not in word:
            raise UsageError(f"--set {word}", remedy="give KEY=VALUE, for example --set steps=500")
    return dict(word.split("=", 1) for word in words)


def _listed(name: str) -> list[tuple[str, str]]:
    """Description of a baseline; of one that cannot be used, the reason."""
    try:
        return _described(name)
    except UsageError as error:
        return [(name, f"cannot be used: {error}")]


def _described(name: str) -> list[tuple[str, str]]:
    """Title, paper and options of a baseline, one row each; the first begins with its name."""
    from anofield.baselines.registry import find_baseline

    found = find_baseline(name)
    settings = ", ".join(f"{key}={field.default}" for key, field in found.settings_type.model_fields.items())
    return [(name, found.title), ("", found.paper), ("", settings)]
