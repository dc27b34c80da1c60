"""Options that several verbs share, single or in groups, and the output and exit codes of verbs."""

from __future__ import annotations

import json
import math
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal, TypeAlias

import typer

from anofield._plugins import installed
from anofield._progress import say
from anofield._words import counted
from anofield.errors import CohortError, UsageError

if TYPE_CHECKING:
    from anofield.data.cohort.cohort import Cohort
    from anofield.data.parallel import Failure, Spread
    from anofield.detect.model import Model

OWN_SCORES = (
    "deviation",
    "crps",
    "cross-entropy",
    "tail-probability",
    "intensity",
)  # to name them without torch


def score_names() -> list[str]:
    """Scores of this package, then those of other packages; `DetectOptions` makes the final check of a name."""
    return [*OWN_SCORES, *installed("score", own=OWN_SCORES)]


Dataset: TypeAlias = Literal["auto", "hcp", "brats", "bids", "folder"]

Json = Annotated[bool, typer.Option("--json", help="Print the result as JSON on stdout.")]
Device = Annotated[str, typer.Option("--device", "-d", help="auto, cpu, cuda[:N] or mps.")]
Force = Annotated[bool, typer.Option("--force", help="Repeat finished work.")]
Threads = Annotated[
    str,
    typer.Option("--threads", help="CPU threads: a number, or auto, which measures a step; one per worker process."),
]
Workers = Annotated[int, typer.Option("--workers", min=1, help="Local worker processes.")]
Scheduler = Annotated[str | None, typer.Option("--scheduler", help="Running Dask scheduler (extra: cluster).")]
Experiment = Annotated[Path, typer.Option("--model", "-m", help="Experiment directory.")]
RunFolder = Annotated[Path, typer.Option("--output", "-o", help="Folder of the run.")]
Epoch = Annotated[str, typer.Option("--epoch", help="Checkpoint: latest or a number.")]
Quick = Annotated[bool, typer.Option("--quick", help="Smaller and rougher, to check that everything works.")]
Quantile = Annotated[float, typer.Option("--quantile", help="Share of healthy brain voxels below the threshold.")]
Precision = Annotated[
    Literal["auto", "float32", "bfloat16"],
    typer.Option("--precision", help="Number format of matrix products; auto: bfloat16 where it is fast."),
]
DatasetOption = Annotated[Dataset, typer.Option("--dataset", case_sensitive=False, help="Layout of the input tree.")]
UniteLabels = Annotated[
    bool, typer.Option("--unite-labels", help="Unite several labels of a case: a voxel counts if one labels it.")
]
SCANS = "Scan, folder, quoted glob or manifest (.tsv); may be repeated."


@dataclass(frozen=True)
class Input:
    """Scans of a cohort, and the place of their brain masks."""

    source: Annotated[list[str], typer.Option("--input", "-i", help=SCANS)]
    dataset: DatasetOption = "auto"
    modality: Annotated[
        list[str] | None,
        typer.Option(
            "--modality",
            help="Contrasts: T2w, T1w, FLAIR, T1c; BIDS: any suffix. Default: T2w in trees, elsewhere the only one.",
        ),
    ] = None
    filter_: Annotated[
        list[str] | None, typer.Option("--filter", help="BIDS entities, for example acq=highres,run=1.")
    ] = None
    group: Annotated[list[str] | None, typer.Option("--group", help="Groups of a manifest; default: all.")] = None
    mask: Annotated[
        str | None,
        typer.Option("--mask", help="Brain masks, one for every scan: pattern with {id}, folder, glob or manifest."),
    ] = None

    def cases(self) -> Cohort:
        """The cases that these options name; says on stderr what was left out, and what else the choice means."""
        return self._find(unite=True)  # no label is chosen here: a lesion in any of them counts

    def check_apart(self, output: Path) -> None:
        """Check that results do not go into a folder of scans, where a later call would not take them apart.

        Raises:
            UsageError: They do.
        """
        if any(Path(source).is_dir() and output.exists() and output.samefile(source) for source in self.source):
            raise UsageError("-o is the folder of the scans", where=output, remedy="name a folder of its own with -o")

    @property
    def sources(self) -> str:
        """The sources, for messages."""
        return ", ".join(self.source)

    def _find(self, label: str | None = None, unite: bool = False) -> Cohort:
        from anofield.data.cohort.bids import parse_entities
        from anofield.data.cohort.case import printable
        from anofield.data.cohort.find import find_cases

        found = find_cases(
            self.source,
            dataset=self.dataset,
            modality=self.modality,
            entities=parse_entities(self.filter_ or ()),
            group=self.group,
            label=label,
            mask=self.mask,
            unite=unite,
        )
        if remarks := found.remarks():
            say(f"{printable(self.sources)}: {'; '.join([counted(len(found), 'scan'), *remarks])}")
        return found


@dataclass(frozen=True)
class HealthyInput(Input):
    """Scans to calibrate on."""

    source: Annotated[
        list[str], typer.Option("--input", "-i", help="Healthy scans that were not trained on; may be repeated.")
    ]


@dataclass(frozen=True)
class LabelledInput(Input):
    """Scans of a cohort, and the places of their brain masks and lesion labels."""

    label: Annotated[
        str | None, typer.Option("--label", help="Lesion labels: pattern with {id}, folder, glob or manifest.")
    ] = None
    unite_labels: UniteLabels = False

    def cases(self) -> Cohort:
        """The cases that these options name, with labels; says on stderr what was left out."""
        return self._find(self.label, self.unite_labels)


@dataclass(frozen=True)
class Work:
    """Processes that share the cases of a run."""

    workers: Workers = 1
    scheduler: Scheduler = None

    def spread(self) -> Spread:
        """Where the work on cases runs."""
        from anofield.data.parallel import Spread

        return Spread(self.workers, self.scheduler)


@dataclass(frozen=True)
class Computing(Work):
    """Processes that share the cases of a run, and the threads that each computes with."""

    threads: Threads = "auto"

    def begin(self, device: str, before: int | None = None) -> Spread:
        """Set the threads of torch, and return where the work on cases runs.

        Args:
            device: Device of the method.
            before: Number of threads that the work was begun with by an earlier call.
        """
        from anofield.field.threads import use_threads

        use_threads(self.threads, device=device, spread=self.spread(), before=before)
        return self.spread()


@dataclass(frozen=True)
class Trained:
    """A trained model, and the device that it uses."""

    model: Experiment
    device: Device = "auto"
    precision: Precision = "auto"

    def load(self, **how: Any) -> Model:
        """Open the model; further arguments are those of `load_model`."""
        from anofield.detect.model import load_model

        return load_model(self.model, device=self.device, precision=self.precision, **how)


def listed(text: str) -> tuple[str, ...]:
    """The names in a text, separated by commas.

    >>> listed("crps, intensity"), listed("")
    (('crps', 'intensity'), ())
    """
    return tuple(name.strip() for name in text.split(",") if name.strip())


def resolution_of(text: str) -> int | None:
    """Lattice voxels per axis; None for `full`.

    Raises:
        UsageError: The text is neither a whole number nor `full`.
    """
    if text != "full" and not text.isdecimal():
        raise UsageError(f"--res {text}", remedy="give a whole number of voxels per axis, or full")
    return None if text == "full" else int(text)


def print_result(result: Any, text: str, *, as_json: bool) -> None:
    """Print a result on stdout, as JSON (in ASCII, so that any terminal keeps it valid) or as text."""
    sys.stdout.write((json.dumps(_plain(result), indent=2, allow_nan=False) if as_json else text) + "\n")
    sys.stdout.flush()


def _plain(value: Any) -> Any:
    """A value that JSON can hold: numbers that are not finite become null."""
    if isinstance(value, dict):
        return {key: _plain(one) for key, one in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(one) for one in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value


def finish(result: Any, failures: Sequence[Failure], done: int, *, as_json: bool, text: str = "") -> None:
    """Print the result, name the failures on stderr and end with 0, 3 (some failed) or 4 (none could be used).

    Raises:
        CohortError: No case succeeded.
    """
    for failure in failures:
        say(f"failed {failure.id}: {failure.error}")
    if failures and not done:
        raise CohortError(f"none of {counted(len(failures), 'case')} could be used", remedy="fix the errors above")
    if as_json or text:
        print_result(result, text, as_json=as_json)
    if failures:
        say(f"{counted(done, 'case')} done, {len(failures)} failed (named above)")
        raise typer.Exit(3)
