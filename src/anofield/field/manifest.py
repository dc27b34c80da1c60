"""`checkpoints.json`: the SHA-256 of the files of every checkpoint, so that files of different saves are never mixed.

The number of an epoch does not tell a file from that of another training. Files that the manifest does not know, as
those of 2021, are checked by their own checksums alone.
"""

from __future__ import annotations

from pathlib import Path

from pydantic import BaseModel, ConfigDict

from anofield._files import read_json, write_json
from anofield._progress import say
from anofield.errors import ExperimentError

MANIFEST_FILE = "checkpoints.json"
KEPT = 4  # saves per name: those that a killed save may have left in place, and the new one


class Entry(BaseModel):
    """One saved checkpoint.

    Attributes:
        name: Name that it was saved under.
        epoch: Whole epochs done.
        step: Steps done of the next epoch.
        files: SHA-256 of the file of each part.
    """

    model_config = ConfigDict(frozen=True)

    name: str
    epoch: int
    step: int
    files: dict[str, str]


class Manifest(BaseModel):
    """Content of `checkpoints.json`.

    Attributes:
        format: Version of the file's format.
        checkpoints: The saves, oldest first.
    """

    model_config = ConfigDict(frozen=True)

    format: int = 1
    checkpoints: tuple[Entry, ...] = ()

    def of(self, epoch: int, step: int) -> list[Entry]:
        """The saves of an epoch and step, newest first."""
        return [entry for entry in reversed(self.checkpoints) if (entry.epoch, entry.step) == (epoch, step)]

    def with_entry(self, new: Entry) -> Manifest:
        """This manifest with one more save; of each name the latest few are kept."""
        same = [entry for entry in self.checkpoints if entry.name == new.name]
        gone = same[: max(0, len(same) - KEPT + 1)]
        kept = [entry for entry in self.checkpoints if not any(entry is one for one in gone)]
        return Manifest(checkpoints=(*kept, new))


def read_manifest(folder: Path) -> Manifest:
    """The manifest of an experiment; empty without a file, and with a damaged one, which a line on stderr reports."""
    path = folder / MANIFEST_FILE
    if not path.exists():
        return Manifest()
    try:
        return read_json(path, Manifest, remedy="", error=ExperimentError)
    except ExperimentError as error:
        say(f"{path} {error.what}: the checkpoints are checked by their own checksums alone")
        return Manifest()


def add_to_manifest(folder: Path, entry: Entry) -> None:
    """Write the manifest with one more save."""
    write_json(folder / MANIFEST_FILE, read_manifest(folder).with_entry(entry))
