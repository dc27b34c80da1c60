"""What a training run was made with: `provenance.json`, one entry per start, and what may not change between two."""

from __future__ import annotations

import json
import platform
import sys
import time
from pathlib import Path

import torch

from anofield import __version__
from anofield._files import write_json
from anofield._progress import say
from anofield.data.store import Store
from anofield.errors import UsageError
from anofield.field.experiment import Specs
from anofield.typing import Json

PROVENANCE_FILE = "provenance.json"


def describe(specs: Specs, store: Store, device: torch.device, **more: object) -> Json:
    """One entry: versions, machine, command, store and specs of a start."""
    name = torch.cuda.get_device_name(device) if device.type == "cuda" else platform.processor() or platform.machine()
    return {
        "started": time.strftime("%Y-%m-%dT%H:%M:%S%z"),
        "anofield": __version__,
        "torch": torch.__version__,
        "python": platform.python_version(),
        "device": f"{device} ({name})",
        "command": " ".join(sys.argv),
        "store": str(store.path.resolve()),
        "store_hash": store.content_hash(),
        "specs": specs.dump(),
        **more,
    }


def read_provenance(path: Path) -> list[Json]:
    """The entries of an experiment, oldest first; none for one that the published code wrote."""
    try:
        entries = json.loads((path / PROVENANCE_FILE).read_text())
    except (OSError, ValueError):
        return []
    return entries if isinstance(entries, list) else []


def add_provenance(path: Path, entry: Json) -> None:
    """Append an entry."""
    write_json(path / PROVENANCE_FILE, [*read_provenance(path), entry])


def check_unchanged(path: Path, entry: Json, *, mid_epoch: bool) -> None:
    """Compare a start with the one before; harmless changes of the specs are said on stderr.

    Args:
        path: Experiment directory.
        entry: Of this start.
        mid_epoch: Whether it goes on inside an epoch, where the order of the cases must stay.

    Raises:
        UsageError: The store's content is another one, or the order of the cases inside a started epoch would be.
    """
    before = read_provenance(path)
    if not before:
        return
    last = before[-1]
    if last["store_hash"] != entry["store_hash"]:
        raise UsageError(
            "the store's scans are not those it was trained on",
            where=entry["store"],
            why=f"their contents changed since {last['started']} (then {last['store']})",
            remedy="restore the store, or start a new experiment on the new one",
        )
    old, new = last["specs"], entry["specs"]
    changed = [key for key in new if old.get(key) != new[key]]
    fixed = [key for key in ("ScenesPerBatch", "Seed") if key in changed]
    if mid_epoch and fixed:
        raise UsageError(
            f"{', '.join(fixed)} changed inside an epoch",
            where=path / "specs.json",
            why="the cases left of this epoch would be others",
            remedy=f"put back {', '.join(f'{key} {old.get(key)}' for key in fixed)} until the epoch is over",
        )
    if changed:
        say("specs.json changed: " + ", ".join(f"{key} {old.get(key)} → {new[key]}" for key in changed))
