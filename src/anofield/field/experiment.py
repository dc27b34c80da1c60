"""The experiment directory: `specs.json` with the published keys, checkpoints that survive interruptions, logs.

Layout of DeepSDF (Park et al. 2019) as used by Naval Marimont & Tarroni 2021; tensors and plain values only.
"""

from __future__ import annotations

import hashlib
import io
import os
import pickle
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from anofield._files import replacing, replacing_together, write_json
from anofield.data.nt import ROWS_FILE, read_rows
from anofield.errors import ExperimentError
from anofield.field.logs import Logs
from anofield.field.published import AdamState, plain_codes, plain_logs, plain_weights
from anofield.field.specs import DECODER, Specs
from anofield.typing import PathLike

CONTENT = {  # folder → key of its content
    "ModelParameters": "model_state_dict",
    "LatentCodes": "latent_codes",
    "OptimizerParameters": "optimizer_state_dict",
}
PARTS = tuple(CONTENT)
LATEST, PREVIOUS = "latest", "previous"


@dataclass(frozen=True, kw_only=True)
class Checkpoint:
    """State of a training run after `epoch` whole epochs and `step` steps of the next one.

    Attributes:
        epoch: Whole epochs done.
        step: Steps done of the next epoch.
        model: State dict of the network.
        code_ids: Case ids, row by row; empty for published files, unless a `dict_cid.k` lies beside `specs.json`.
        codes: Stored codes, (case, code).
        optimizer: State of Adam; empty where OptimizerParameters is missing, which is enough for detection but not for
            further training.
        logs: Logs up to this state.
        hash: SHA-256 of the files of weights and codes, shortened; empty for a state that was not read from files.
    """

    epoch: int
    step: int
    model: dict[str, Tensor]
    code_ids: list[str]
    codes: Tensor
    optimizer: AdamState
    logs: Logs
    hash: str = ""


@dataclass(frozen=True)
class _File:
    """A readable `.pth` file: path, SHA-256 of its bytes, and content."""

    path: Path
    hash: str
    content: dict[str, Any]

    @property
    def stamp(self) -> tuple[int, int]:
        """Epoch and step."""
        return int(self.content["epoch"]), int(self.content.get("step", 0))


class Experiment:
    """One experiment directory.

    Attributes:
        path: The directory.
        specs: Content of its `specs.json`.
    """

    def __init__(self, path: PathLike) -> None:
        """Open a directory that holds a `specs.json`; see `Specs.read` for the errors."""
        self.path = Path(path)
        if not self.path.is_dir():
            raise ExperimentError("no such experiment directory", where=self.path, remedy="check -e or -m")
        self.specs = Specs.read(self.path / "specs.json")

    @classmethod
    def create(cls, path: PathLike, specs: Specs) -> Experiment:
        """Make the directory with its `specs.json`."""
        write_json(Path(path) / "specs.json", specs.dump())
        return cls(path)

    def file(self, part: str, name: str) -> Path:
        """Path of a file: `<part>/<name>.pth`."""
        return self.path / part / f"{name}.pth"

    def save(self, checkpoint: Checkpoint, names: list[str]) -> None:
        """Write a checkpoint under each name; after a kill at any moment a complete older checkpoint remains.

        All new files are complete before the first is renamed, and every `latest` becomes `previous` before the first
        is replaced, so the three folders always share an epoch.

        Raises:
            MachineError: The disk is full or cannot be written; the old state is intact.
        """
        stamp = {"epoch": checkpoint.epoch, "step": checkpoint.step}
        content = {
            "ModelParameters": {**stamp, "model_state_dict": checkpoint.model},
            "LatentCodes": {**stamp, "latent_codes": {"weight": checkpoint.codes}, "case_ids": checkpoint.code_ids},
            "OptimizerParameters": {**stamp, "optimizer_state_dict": checkpoint.optimizer},
        }
        save_file(self.path / "Logs.pth", vars(checkpoint.logs))
        for name in names:
            with replacing_together([self.file(part, name) for part in PARTS]) as partials:
                for part, partial in zip(PARTS, partials, strict=True):
                    _write(partial, content[part])
                if name == LATEST:
                    self._keep_latest()

    def _keep_latest(self) -> None:
        """Rename `latest` to `previous`, unless an interrupted save left new `latest` files in some folders only."""
        if self.file(PARTS[0], LATEST).exists() and not self.file(PARTS[-1], LATEST).exists():
            return
        for part in PARTS:
            if self.file(part, LATEST).exists():
                self.file(part, LATEST).replace(self.file(part, PREVIOUS))

    def load(self, name: str = LATEST) -> Checkpoint:
        """Read a checkpoint, every file once; `latest` falls back to the newest epoch that all three folders share.

        Raises:
            ExperimentError: There is no complete checkpoint of that name.
        """
        model, codes, *optimizer = self._whole(name)
        epoch, step = model.stamp
        weights = model.content["model_state_dict"]
        ids = codes.content.get("case_ids")
        return Checkpoint(
            epoch=epoch,
            step=step,
            model=(plain_weights if self.specs.network_arch == DECODER else dict)(weights),
            code_ids=self._published_ids() if ids is None else list(ids),
            codes=plain_codes(codes.content["latent_codes"], self.path / "LatentCodes"),
            optimizer=optimizer[0].content["optimizer_state_dict"] if optimizer else {},
            logs=self._logs(),
            hash=_hash(model, codes),
        )

    def has_checkpoint(self) -> bool:
        """Whether there is a complete checkpoint of any name; files of an interrupted first save do not count."""
        try:
            return bool(self._whole(LATEST))
        except ExperimentError:
            return False

    def model_hash(self, name: str = LATEST) -> str:
        """SHA-256 of the files of weights and codes that `load` reads, shortened; detections record it."""
        return _hash(*self._whole(name)[:2])

    def names(self) -> list[str]:
        """Names of the checkpoints on disk, complete or not."""
        files = (path for part in PARTS for path in (self.path / part).glob("*.pth"))
        return sorted({path.stem for path in files if not path.name.startswith(".")})

    def _whole(self, name: str) -> list[_File]:
        """The file of each part at the newest epoch and step that all share.

        The optimiser's folder may be missing, as in a model that was shared; the first save creates it.
        """
        parts = [part for part in PARTS if part != PARTS[-1] or (self.path / part).is_dir()]
        read = cache(_read)
        for names in ([name], self.names()) if name == LATEST else ([name],):
            found = [self._stamped(part, names, read) for part in parts]
            shared = set.intersection(*(set(stamps) for stamps in found))
            if shared:
                return [stamps[max(shared)] for stamps in found]
        if name != LATEST and name not in self.names():
            there = f"there are {', '.join(self.names())}" if self.names() else "there are no checkpoints"
            raise ExperimentError(f"has no snapshot {name!r}; {there}", where=self.path, remedy="name another epoch")
        found = [self._stamped(part, self.names(), read) for part in parts]
        raise ExperimentError(
            f"has no complete checkpoint {name!r}",
            where=self.path,
            why=f"model, codes and optimiser of one epoch are needed together, found: {_stamps(parts, found)}",
            remedy="train it with `anofield train`, or name another epoch",
        )

    def _stamped(
        self, part: str, names: list[str], read: Callable[[Path, str], _File | None]
    ) -> dict[tuple[int, int], _File]:
        """The readable files of a part by epoch and step."""
        files = (read(self.file(part, name), CONTENT[part]) for name in names)
        return {file.stamp: file for file in files if file}

    def _logs(self) -> Logs:
        """The logs; empty if `Logs.pth` is missing or damaged."""
        file = _read(self.path / "Logs.pth", "loss")
        logs = plain_logs(file.content) if file else {}
        return Logs(**{key: value for key, value in logs.items() if key in Logs.__dataclass_fields__})

    def _published_ids(self) -> list[str]:
        """Case ids row by row from `dict_cid.k`; empty without that file."""
        path = self.path / ROWS_FILE
        rows = read_rows(path) if path.is_file() else {}
        return sorted(rows, key=rows.__getitem__)


def _hash(model: _File, codes: _File) -> str:
    return f"{model.hash[:16]}-{codes.hash[:16]}"


def _stamps(parts: list[str], found: list[dict[tuple[int, int], _File]]) -> str:
    """The epochs of each part, in words."""
    epochs = [", ".join(str(epoch) for epoch, _ in sorted(stamps)) or "none" for stamps in found]
    return "; ".join(f"{part} {epoch}" for part, epoch in zip(parts, epochs, strict=True))


def _write(path: Path, content: Mapping[str, object]) -> None:
    with path.open("wb") as stream:
        try:
            torch.save(content, stream)
        except RuntimeError as error:  # torch reports a full disk as RuntimeError
            raise OSError(str(error).splitlines()[0]) from error
        stream.flush()
        os.fsync(stream.fileno())


def save_file(path: Path, content: Mapping[str, object]) -> None:
    """Write a `.pth` file; the file appears complete or not at all."""
    with replacing(path) as partial:
        _write(partial, content)


def _read(path: Path, key: str) -> _File | None:
    """Read a `.pth` file; None if it is missing or damaged, or holds no epoch or no `key`."""
    try:
        data = path.read_bytes()
        content = torch.load(io.BytesIO(data), map_location="cpu", weights_only=True)
    except (OSError, EOFError, RuntimeError, ValueError, KeyError, pickle.UnpicklingError):
        return None
    if not isinstance(content, dict) or not {"epoch", key} <= set(content):
        return None
    return _File(path, hashlib.sha256(data).hexdigest(), content)
