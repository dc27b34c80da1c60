"""Which files of an experiment together form a checkpoint: those of one save, none of them damaged."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

from anofield.errors import ExperimentError
from anofield.field.manifest import MANIFEST_FILE, Manifest, read_manifest
from anofield.field.tensor_file import TensorFile, read_tensors

CONTENT = {  # folder → key of its content
    "ModelParameters": "model_state_dict",
    "LatentCodes": "latent_codes",
    "OptimizerParameters": "optimizer_state_dict",
}
PARTS = tuple(CONTENT)
LATEST, PREVIOUS = "latest", "previous"
Stamp = tuple[int, int]  # whole epochs, and steps of the next one


@dataclass(frozen=True)
class Whole:
    """The files of one checkpoint.

    Attributes:
        stamp: Epoch and step.
        files: File of each part; the optimiser's is missing where its folder is missing.
        note: What to tell the user: why it is not the checkpoint that was asked for; empty if it is.
    """

    stamp: Stamp
    files: list[TensorFile]
    note: str = ""

    @property
    def hash(self) -> str:
        """SHA-256 of the files of weights and codes, shortened."""
        return "-".join(file.hash[:16] for file in self.files[:2])


class Parts:
    """The checkpoint files of an experiment, each read at most once.

    Attributes:
        damaged: What is wrong with each file that exists and cannot be used.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.damaged: dict[Path, str] = {}
        self._read: dict[Path, TensorFile | None] = {}

    def path(self, part: str, name: str) -> Path:
        """Path of a file: `<part>/<name>.pth`."""
        return self.folder / part / f"{name}.pth"

    def names(self) -> list[str]:
        """Names of the checkpoints on disk, complete or not."""
        files = (path for part in PARTS for path in (self.folder / part).glob("*.pth"))
        return sorted({path.stem for path in files if not path.name.startswith(".")})

    def whole(self, name: str) -> Whole:
        """The files of a checkpoint; for `latest` those of the newest save that is complete.

        Raises:
            ExperimentError: There is no complete checkpoint of that name.
        """
        if found := self._newest([name]):
            return found
        if name != LATEST and name not in self.names():
            there = f"there are {', '.join(self.names())}" if self.names() else "there are no checkpoints"
            what = f"has no checkpoint {name!r}; {there}"
            raise ExperimentError(what, where=self.folder, remedy="name another epoch")
        trouble = self._trouble(name)
        if name == LATEST and (found := self._newest(self.names())):
            instead = f"{self.folder}: {trouble}; the checkpoint of epoch {_said(found.stamp)} is used instead"
            return Whole(found.stamp, found.files, instead)
        raise ExperimentError(
            f"has no complete checkpoint {name!r}: {trouble}",
            where=self.folder,
            why=f"model, codes and optimiser of one save are needed together, found: {self._found()}",
            remedy="restore the damaged files from a backup or name another epoch"
            if self.damaged
            else "train it with `anofield train`, or name another epoch",
        )

    @cached_property
    def _manifest(self) -> Manifest:
        return read_manifest(self.folder)

    @property
    def _needed(self) -> list[str]:
        """The optimiser's folder may be missing, as in a model that was shared; the first save creates it."""
        return [part for part in PARTS if part != PARTS[-1] or (self.folder / part).is_dir()]

    def _newest(self, names: Sequence[str]) -> Whole | None:
        """The newest save all of whose files are among those of these names."""
        files = [self._stamped(part, names) for part in self._needed]
        for stamp in sorted(set.intersection(*(set(stamps) for stamps in files)), reverse=True):
            if chosen := self._of_one_save(stamp, [stamps[stamp] for stamps in files]):
                return Whole(stamp, chosen)
        return None

    def _of_one_save(self, stamp: Stamp, files: list[list[TensorFile]]) -> list[TensorFile] | None:
        """One file of each part, all of one save by the manifest; the last ones where it does not know the stamp."""
        known = self._manifest.of(*stamp)
        for entry in known:
            wanted = [entry.files.get(part) for part in self._needed]
            chosen = [next((f for f in some if f.hash == one), None) for some, one in zip(files, wanted, strict=True)]
            if all(chosen):
                return [file for file in chosen if file]
        return None if known else [some[-1] for some in files]

    def _stamped(self, part: str, names: Sequence[str]) -> dict[Stamp, list[TensorFile]]:
        """The readable files of a part by epoch and step."""
        stamps: dict[Stamp, list[TensorFile]] = {}
        for name in names:
            if file := self._file(self.path(part, name), CONTENT[part]):
                stamps.setdefault(_stamp(file), []).append(file)
        return stamps

    def _file(self, path: Path, key: str) -> TensorFile | None:
        """A file; None if it is missing or damaged."""
        if path not in self._read:
            self._read[path] = None
            try:
                file = read_tensors(path, ("epoch", key))
                _stamp(file)
                self._read[path] = file
            except ExperimentError as error:
                if path.exists():
                    self.damaged[path] = error.what
            except (TypeError, ValueError):
                self.damaged[path] = "its epoch is not a number"
        return self._read[path]

    def _trouble(self, name: str) -> str:
        """Why the files of a name form no checkpoint."""
        paths = [self.path(part, name) for part in self._needed]
        short = {path: f"{path.parent.name}/{path.name}" for path in paths}
        told = [f"{short[path]} {self.damaged[path]}" for path in paths if path in self.damaged]
        told += [f"{short[path]} is missing" for path in paths if not path.exists()]
        if told:
            return ", ".join(told)
        stamps = {_stamp(file) for path in paths if (file := self._read[path])}
        if len(stamps) > 1:
            return f"the files {name}.pth are of different epochs"
        return f"the files {name}.pth are not of one save (by {MANIFEST_FILE})"

    def _found(self) -> str:
        """The epochs of each part, in words."""
        stamped = {part: self._stamped(part, self.names()) for part in self._needed}
        epochs = {part: ", ".join(str(epoch) for epoch, _ in sorted(stamps)) for part, stamps in stamped.items()}
        return "; ".join(f"{part} {found or 'none'}" for part, found in epochs.items())


def _stamp(file: TensorFile) -> Stamp:
    """Epoch and step of a file."""
    return int(file.content["epoch"]), int(file.content.get("step", 0))


def _said(stamp: Stamp) -> str:
    epoch, step = stamp
    return f"{epoch} and {step} steps" if step else str(epoch)
