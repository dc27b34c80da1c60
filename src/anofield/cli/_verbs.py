"""The verbs by name; the module of a verb is imported when the verb is run or its help is shown."""

from __future__ import annotations

import signal
from importlib import import_module
from keyword import iskeyword
from typing import Any

import typer
from typer.core import TyperGroup
from typer.main import get_command

from anofield.cli._parameters import Verb
from anofield.errors import Interrupted, known_error

VERBS = {  # name: first line of its help, as in its module
    "demo": "Run every step on a phantom cohort: prepare, train, calibrate, detect, evaluate, report.",
    "phantom": "Write a synthetic cohort, with lesion labels.",
    "check": "Check geometry, brain, intensities, labels and duplicates of every scan; changes no file.",
    "split": "Write a manifest that divides a cohort into groups at random; no subject and no scan is in two groups.",
    "prepare": "Resample scans to the lattice as intensity classes, and store them; an existing store is resumed.",
    "train": "Train the field of an experiment directory on prepared healthy subjects.",
    "sample": "Show anatomy that the field has learned: training subjects, samples of its prior, or steps between two.",
    "calibrate": "Set each score's threshold so that a known share of healthy brain lies above it.",
    "detect": "Show where scans differ from healthy anatomy; finished cases are skipped, failing ones are recorded.",
    "evaluate": "Compare a run with lesion labels, or two runs with each other; inside the brain by default.",
    "report": "Write the offline HTML report of a run, a comparison or a training.",
    "import": "Turn the .nt files of the published code into a store (-i, -o), or add a recipe to its experiment (-m).",
    "export": "Write a store or an experiment as the files that the code published in 2021 reads.",
    "mood": "Score scans as the MOOD challenge requires: numbers in [0, 1], ½ at the calibrated threshold.",
    "info": "Show versions, devices and verbs; with a model, its calibrations.",
    "benchmark": "Train, calibrate, run and compare every method on suites of people; resumes where it stopped.",
    "baseline": "Train, calibrate and run a baseline; `anofield baseline list` lists all baselines.",
}


class Verbs(TyperGroup):
    """The verbs as commands: listed from the table, imported when one is resolved."""

    def __init__(self, **attributes: Any) -> None:
        super().__init__(**attributes)
        self.commands = {name: Verb(name, help=line) for name, line in VERBS.items()}

    def invoke(self, ctx: Any) -> Any:
        """Run a verb; typer would take some errors of its work for the end of the input or of the output."""
        try:
            return super().invoke(ctx)
        except KeyboardInterrupt as error:
            raise Interrupted(signal.SIGINT) from error
        except (OSError, EOFError) as error:
            raise known_error(error) or error from error

    def resolve_command(self, ctx: Any, args: list[str]) -> Any:
        """The command that the words name, from its own module."""
        name, listed, rest = super().resolve_command(ctx, args)
        return name, listed and load(str(listed.name)), rest


def load(name: str) -> Any:
    """The command of a verb, with its options."""
    module = import_module(f"anofield.cli.{name}{'_' if iskeyword(name) else ''}")
    if name == "baseline":
        return get_command(module.app)
    alone = typer.Typer(add_completion=False)
    alone.command(name=name, cls=Verb)(module.command)
    return get_command(alone)
