"""`provenance.json`: what each start of a training run used, and the check that nothing essential changed."""

from __future__ import annotations

import platform
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING

import torch
from pydantic import BaseModel, ConfigDict, JsonValue, TypeAdapter, ValidationError

from anofield._files import explain, write_json
from anofield._progress import say
from anofield._version import __version__
from anofield.data.origin import Origin
from anofield.data.recipe import Recipe
from anofield.data.store import Store
from anofield.errors import ExperimentError, UsageError
from anofield.field.experiment import PROVENANCE_FILE
from anofield.field.specs import Specs
from anofield.field.threads import threads_of

if TYPE_CHECKING:
    from anofield.field.step import Run

DEFINING = ("NetworkArch", "NetworkSpecs", "CodeLength", "L", "CodeBound")  # keys of specs that a field is made of
TRAINING_ONLY = ("dropout", "dropout_prob", "latent_dropout")
FIXED_MID_EPOCH = ("ScenesPerBatch", "Seed")  # they decide the order of the cases


class Start(BaseModel):
    """One entry of `provenance.json`: a start of a training run.

    Attributes:
        format: Version of the entry.
        started: Local time with its offset from UTC.
        anofield: Version of this package.
        torch: Version of torch.
        python: Version of Python.
        device: Device and its name.
        command: Command line.
        store: Path of the store.
        store_hash: Hash of the store's content.
        origin: Where the training scans come from; None in entries of older versions.
        specs: Content of `specs.json`; not `Specs`, because an entry outlives the keys of the version that wrote it.
        recipe: Content of `recipe.json`; None in entries of older versions.
        precision: Precision of the matrix products.
        ranks: Number of processes.
        threads: CPU threads of torch in each of them; None in entries of older versions.
        epoch: Number of whole epochs before this start.
    """

    model_config = ConfigDict(frozen=True, extra="allow")

    format: int = 1
    started: str
    anofield: str
    torch: str
    python: str
    device: str
    command: str
    store: str
    store_hash: str
    origin: Origin | None = None
    specs: dict[str, JsonValue]
    recipe: dict[str, JsonValue] | None = None
    precision: str
    ranks: int
    threads: int | None = None
    epoch: int


STARTS = TypeAdapter(list[Start])


def describe_start(run: Run, store: Store, recipe: Recipe) -> Start:
    """Describe the start of a run on a store: versions, machine, command, store, specs and recipe."""
    device = run.device
    name = torch.cuda.get_device_name(device) if device.type == "cuda" else platform.processor() or platform.machine()
    return Start(
        started=time.strftime("%Y-%m-%dT%H:%M:%S%z"),
        anofield=__version__,
        torch=torch.__version__,
        python=platform.python_version(),
        device=f"{device} ({name})",
        command=" ".join(sys.argv),
        store=str(store.path.resolve()),
        store_hash=store.content_hash(),
        origin=store.origin,
        specs=run.specs.dump(),
        recipe=recipe.model_dump(mode="json"),
        precision="bfloat16" if run.bfloat16 else "float32",
        ranks=run.ranks.size,
        threads=threads_of(),
        epoch=run.epoch,
    )


def read_provenance(path: Path, *, quiet: bool = False) -> list[Start]:
    """Read the entries of an experiment, oldest first; one of the published code has none.

    Damaged entries are lost; unless `quiet`, a line on stderr says that changes since the last start cannot be checked
    any more.
    """
    try:
        return STARTS.validate_json((path / PROVENANCE_FILE).read_bytes())
    except FileNotFoundError:
        return []
    except (OSError, ValidationError) as error:
        told = explain(error) if isinstance(error, ValidationError) else str(error)
        if not quiet:
            say(f"{path / PROVENANCE_FILE} is damaged ({told}): what changed since the training cannot be checked")
        return []


def threads_before(path: Path) -> int | None:
    """CPU threads of the last start of a training; None if there was none, or an older version trained."""
    starts = read_provenance(path)
    return starts[-1].threads if starts else None


def read_origin(path: Path) -> Origin | None:
    """Where the training scans of an experiment come from; None if no entry says it."""
    known = [start.origin for start in read_provenance(path, quiet=True) if start.origin is not None]
    return known[-1] if known else None


def add_provenance(path: Path, entry: Start) -> None:
    """Append an entry."""
    write_json(path / PROVENANCE_FILE, [start.model_dump(mode="json") for start in (*read_provenance(path), entry)])


def check_as_trained(path: Path, specs: Specs, recipe: Recipe) -> None:
    """Compare what defines a trained field with the last start of its training; without entries nothing is compared.

    Args:
        path: Experiment directory.
        specs: Content of its `specs.json`.
        recipe: Content of its `recipe.json`.

    Raises:
        ExperimentError: A value differs; weights and codes fit it, so that the results would be wrong without an error.
    """
    last = next(reversed(read_provenance(path)), None)
    if last is None:
        return
    now = {"specs.json": specs.dump(), "recipe.json": recipe.model_dump(mode="json")}
    then = {
        "specs.json": {key: last.specs[key] for key in DEFINING if key in last.specs},
        "recipe.json": last.recipe or {},
    }
    for file, values in then.items():
        differing = [key for key in values if key in now[file] and _defined(now[file][key]) != _defined(values[key])]
        if differing:
            key = differing[0]
            raise ExperimentError(
                f"{key} is {_shown(now[file][key])}, the field was trained with {_shown(values[key])}",
                where=path / file,
                why="the weights fit another value as well, and the results would be wrong",
                remedy=f"put back the {file} of the training ({PROVENANCE_FILE} has its values)",
            )


def _defined(value: JsonValue) -> JsonValue:
    """A value without what only training depends on."""
    return {key: one for key, one in value.items() if key not in TRAINING_ONLY} if isinstance(value, dict) else value


def _shown(value: JsonValue) -> str:
    return text if len(text := str(value)) <= 60 else f"{text[:57]}…"


def check_unchanged(path: Path, entry: Start, *, mid_epoch: bool) -> None:
    """Compare a start with the previous one; allowed changes of the specs are reported on stderr.

    Args:
        path: Experiment directory.
        entry: The new start.
        mid_epoch: Whether the start continues inside an epoch, where the order of the cases must not change.

    Raises:
        UsageError: The content of the store changed, or the order of the cases inside a started epoch would change.
    """
    before = read_provenance(path)
    if not before:
        return
    last = before[-1]
    if last.store_hash != entry.store_hash:
        raise UsageError(
            "the scans of the store differ from those of the training",
            where=entry.store,
            why=f"their contents changed since {last.started} (then {last.store})",
            remedy="restore the store, or start a new experiment on the new one",
        )
    old, new = last.specs, entry.specs
    changed = [key for key in new if old.get(key) != new[key]]
    fixed = [key for key in FIXED_MID_EPOCH if key in changed]
    if mid_epoch and fixed:
        raise UsageError(
            f"{', '.join(fixed)} changed inside an epoch",
            where=path / "specs.json",
            why="the remaining cases of this epoch would change",
            remedy=f"put back {', '.join(f'{key} {old.get(key)}' for key in fixed)} until the epoch is over",
        )
    if changed:
        say("specs.json changed: " + ", ".join(f"{key} {old.get(key)} → {new[key]}" for key in changed))
