"""Options that several verbs share, and how verbs end."""

from __future__ import annotations

import json
import sys
from collections.abc import Sequence
from enum import StrEnum
from importlib.metadata import entry_points
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from anofield._progress import say
from anofield._words import counted
from anofield.errors import CohortError

if TYPE_CHECKING:
    from anofield.data.parallel import Failure

OWN_SCORES = ("deviation", "crps", "cross-entropy", "tail-probability", "intensity")  # to name them without torch


def score_names() -> list[str]:
    """Scores of this package, then those that others install; `DetectOptions` has the last word on a name."""
    return list(dict.fromkeys([*OWN_SCORES, *(point.name for point in entry_points(group="anofield.scores"))]))


Json = Annotated[bool, typer.Option("--json", help="Print the result as JSON on stdout.")]
Device = Annotated[str, typer.Option("--device", "-d", help="auto, cpu, cuda[:N] or mps.")]
Force = Annotated[bool, typer.Option("--force", help="Do again what is already done.")]
Workers = Annotated[int, typer.Option("--workers", min=1, help="Local worker processes (extra: cluster).")]
Experiment = Annotated[Path, typer.Option("--model", "-m", help="Experiment directory.")]


class Dataset(StrEnum):
    """How a cohort is laid out on disk."""

    auto = "auto"
    hcp = "hcp"
    brats = "brats"
    bids = "bids"
    folder = "folder"


class Precision(StrEnum):
    """Of the matrix products."""

    auto = "auto"
    float32 = "float32"
    bfloat16 = "bfloat16"


class Tail(StrEnum):
    """Which departures the deviation counts."""

    bright = "bright"
    dark = "dark"
    both = "both"


ScoreOption = Annotated[
    str | None,
    typer.Option("--score", help=f"Score of the anomaly map, by default deviation: {', '.join(score_names())}."),
]
TailOption = Annotated[Tail | None, typer.Option("--tail", help="Departures that deviation counts; default bright.")]
DatasetOption = Annotated[Dataset, typer.Option("--dataset", case_sensitive=False, help="Layout of the input tree.")]
ModalityOption = Annotated[str, typer.Option("--modality", help="T2w, T1w, FLAIR, T1c; BIDS: any suffix.")]
Filter = Annotated[str, typer.Option("--filter", help="BIDS entities, for example acq=highres,run=1.")]
Label = Annotated[str | None, typer.Option("--label", help="Lesion truth: pattern with {id}, or a folder.")]
Mask = Annotated[str | None, typer.Option("--mask", help="Brain masks: pattern with {id}, or a folder.")]
Scheduler = Annotated[str | None, typer.Option("--scheduler", help="Address of a running Dask scheduler.")]


def finish(result: Any, failures: Sequence[Failure], done: int, *, as_json: bool, text: str = "") -> None:
    """Print the result, name the failures on stderr and end with 0, 3 (some failed) or 4 (none was usable).

    Raises:
        CohortError: No case succeeded.
    """
    for failure in failures:
        say(f"failed {failure.id}: {failure.error}")
    if failures and not done:
        raise CohortError(f"none of {counted(len(failures), 'case')} could be used", remedy="mend the errors above")
    sys.stdout.write((json.dumps(result, indent=2) if as_json else text) + "\n" if as_json or text else "")
    if failures:
        say(f"{counted(done, 'case')} done, {len(failures)} failed (named above)")
        raise typer.Exit(3)
