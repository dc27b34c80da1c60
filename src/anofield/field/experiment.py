"""The experiment directory: `specs.json` with the published keys, checkpoints that survive a kill, logs.

Layout of DeepSDF (Park et al. 2019) as used by Naval Marimont & Tarroni 2021; tensors and plain values only.
"""

from __future__ import annotations

import difflib
import json
import os
import pickle
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Any, Literal

import torch
from pydantic import BaseModel, ConfigDict, Field, ValidationError, ValidationInfo, field_validator
from pydantic.alias_generators import to_pascal
from torch import Tensor

from anofield._files import file_hash, replacing, replacing_together, write_json
from anofield.data.rows import ROWS_FILE, read_rows
from anofield.errors import ExperimentError, UsageError
from anofield.field.published import plain_codes, plain_logs, plain_weights
from anofield.typing import Json, PathLike

CONTENT = {  # folder → key of what it holds
    "ModelParameters": "model_state_dict",
    "LatentCodes": "latent_codes",
    "OptimizerParameters": "optimizer_state_dict",
}
PARTS = tuple(CONTENT)
LATEST, PREVIOUS = "latest", "previous"
DECODER = "decoder"  # NetworkArch of the published network, `field.Decoder`


class _Strict(BaseModel):
    model_config = ConfigDict(extra="forbid", alias_generator=to_pascal, populate_by_name=True, frozen=True)


class StepRate(_Strict):
    """lr = Initial · Factor^⌊epoch/Interval⌋."""

    type: Literal["Step"] = "Step"
    initial: float = Field(gt=0)
    interval: int = Field(ge=1)
    factor: float = Field(gt=0)

    def rate(self, epoch: int) -> float:
        """Learning rate of an epoch, counted from 1."""
        return float(self.initial * self.factor ** (epoch // self.interval))


class WarmupRate(_Strict):
    """Linear from Initial to Final over Length epochs, then Final."""

    type: Literal["Warmup"] = "Warmup"
    initial: float = Field(ge=0)
    final: float = Field(gt=0)
    length: int = Field(ge=1)

    def rate(self, epoch: int) -> float:
        """Learning rate of an epoch, counted from 1."""
        return self.initial + (self.final - self.initial) * min(1.0, epoch / self.length)


class ConstantRate(_Strict):
    """lr = Value."""

    type: Literal["Constant"] = "Constant"
    value: float = Field(gt=0)

    def rate(self, epoch: int) -> float:
        """Learning rate of an epoch, counted from 1."""
        return self.value


class CosineRate(_Strict):
    """Half a cosine from Initial to Final over all NumEpochs (this project's own addition)."""

    type: Literal["Cosine"] = "Cosine"
    initial: float = Field(gt=0)
    final: float = Field(ge=0)
    length: int = Field(ge=1)

    def rate(self, epoch: int) -> float:
        """Learning rate of an epoch, counted from 1."""
        done = min(1.0, (epoch - 1) / self.length)
        return self.final + (self.initial - self.final) * 0.5 * (1 + float(torch.cos(torch.tensor(done * torch.pi))))


Rate = Annotated[StepRate | WarmupRate | ConstantRate | CosineRate, Field(discriminator="type")]


class NetworkSpecs(BaseModel):
    """Shape of the decoder, see `field.Decoder`; what is left out is what the published code then takes."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    dims: tuple[int, ...] = Field(min_length=1)
    dim_out: int = Field(ge=2)
    dropout: tuple[int, ...] = ()
    dropout_prob: float = Field(default=0.0, ge=0, lt=1)
    norm_layers: tuple[int, ...] = ()
    latent_in: tuple[int, ...] = ()
    xyz_in_all: bool = False
    latent_dropout: bool = False
    weight_norm: bool = False

    @field_validator("dropout", "norm_layers", "xyz_in_all", mode="before")
    @classmethod
    def _null_is_none(cls, value: Any, info: ValidationInfo) -> Any:
        """The published code takes null for these."""
        return value if value is not None else cls.model_fields[str(info.field_name)].default


PUBLISHED_NETWORK = NetworkSpecs(  # taken where NetworkSpecs is left out, which the published code refuses
    dims=(512,) * 8, dim_out=10, dropout=tuple(range(8)), dropout_prob=0.2, norm_layers=tuple(range(8)), latent_in=(4,),
    weight_norm=True,
)  # fmt: skip


class Specs(_Strict):
    """`specs.json`. Defaults are what the published code takes where a key may be left out; the rest is required.

    Added keys, each with the published behaviour as its default: `NetworkArch` (the decoder, or a field of another
    package), `BrainFraction` (share of training points drawn in the brain), `Lattice` (place of a voxel in the field,
    published: `corner`; null takes the store's), `HeldOutSource` and `HeldOutFrequency` (healthy people that are not
    trained on, and how often to measure them), `Seed`, and the `Cosine` rate.
    """

    description: str | list[str] = ""
    data_source: str
    network_arch: str = DECODER
    network_specs: NetworkSpecs = PUBLISHED_NETWORK
    code_length: int = Field(ge=1)
    octaves: int | None = Field(default=None, ge=1, alias="L")
    num_epochs: int = Field(ge=1)
    samples_per_scene: int = Field(ge=1)
    scenes_per_batch: int = Field(ge=1)
    data_loader_threads: int = 0
    learning_rate_schedule: tuple[Rate, Rate]
    snapshot_frequency: int = Field(default=1000, ge=1)
    additional_snapshots: tuple[int, ...] = ()
    log_frequency: int = Field(default=10, ge=1)
    code_regularization: bool = True
    code_regularization_lambda: float = Field(default=1e-4, ge=0)
    code_bound: float | None = Field(default=None, gt=0)
    code_init_std_dev: float = Field(default=1.0, gt=0)
    gradient_clip_norm: float | None = Field(default=None, gt=0)
    encode_image: bool = False
    brain_fraction: float = Field(default=0.0, ge=0, le=1)
    lattice: Literal["center", "corner"] | None = None
    held_out_source: str | None = None
    held_out_frequency: int = Field(default=100, ge=1)
    seed: int = Field(default=0, ge=0)

    @classmethod
    def read(cls, path: PathLike) -> Specs:
        """Read `specs.json`.

        Raises:
            ExperimentError: There is none.
            UsageError: It is not JSON, a key is unknown (the nearest known one is named) or a value has the wrong type.
        """
        path = Path(path)
        if not path.is_file():
            raise ExperimentError(
                "no specs.json",
                where=path.parent,
                why="it says what network is trained on what data",
                remedy="`anofield train --preset default --data STORE` makes one",
            )
        try:
            return cls.model_validate(json.loads(path.read_text()))
        except (json.JSONDecodeError, UnicodeDecodeError) as error:
            raise UsageError(f"is not JSON ({error})", where=path, remedy="mend the line it names") from error
        except ValidationError as error:
            raise UsageError(
                "; ".join(_explain(item) for item in error.errors()), where=path, remedy="mend the keys named"
            ) from error

    def dump(self) -> Json:
        """Plain values under the published names."""
        return self.model_dump(mode="json", by_alias=True)


@dataclass
class Logs:
    """What `Logs.pth` holds: one loss per step, one entry per epoch of everything else."""

    epoch: int = 0
    loss: list[float] = field(default_factory=list)
    learning_rate: list[list[float]] = field(default_factory=list)
    timing: list[float] = field(default_factory=list)
    latent_magnitude: list[float] = field(default_factory=list)
    param_magnitude: dict[str, list[float]] = field(default_factory=dict)

    def cut(self, epoch: int, steps_per_epoch: int, step: int = 0) -> None:
        """Drop what was logged after `step` steps beyond `epoch`."""
        self.epoch = epoch
        del self.loss[epoch * steps_per_epoch + step :]
        del self.learning_rate[epoch:], self.timing[epoch:], self.latent_magnitude[epoch:]
        for series in self.param_magnitude.values():
            del series[epoch:]


@dataclass(frozen=True)
class Checkpoint:
    """State of a training run after `epoch` whole epochs and `step` steps of the next one.

    Published files name no cases: `code_ids` is then empty, unless a `dict_cid.k` lies beside `specs.json`. Where
    OptimizerParameters is missing, `optimizer` is empty: good for detection, not for going on.
    """

    epoch: int
    step: int
    model: dict[str, Tensor]
    code_ids: list[str]
    codes: Tensor
    optimizer: Json
    logs: Logs


class Experiment:
    """One experiment directory.

    Attributes:
        path: The directory.
        specs: Its `specs.json`.
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
        """`<part>/<name>.pth`."""
        return self.path / part / f"{name}.pth"

    def save(self, checkpoint: Checkpoint, names: list[str]) -> None:
        """Write a checkpoint under each name; a kill at any moment leaves a whole older one.

        All new files are complete before the first is renamed, and every `latest` becomes `previous` before the first
        is replaced, so the three folders always share an epoch.

        Raises:
            MachineError: The disk refuses; the old state is intact.
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
        """Rename `latest` to `previous`, unless a kill left new `latest` files in the first folders only."""
        if self.file(PARTS[0], LATEST).exists() and not self.file(PARTS[-1], LATEST).exists():
            return
        for part in PARTS:
            if self.file(part, LATEST).exists():
                self.file(part, LATEST).replace(self.file(part, PREVIOUS))

    def load(self, name: str = LATEST) -> Checkpoint:
        """Read a checkpoint; `latest` falls back to the newest epoch that all three folders share.

        Raises:
            ExperimentError: There is no whole checkpoint of that name.
        """
        return self._assemble(*(content for _, content in self._whole(name)))

    def has_checkpoint(self) -> bool:
        """Whether there is a whole checkpoint of any name; what a killed first save left behind is none."""
        try:
            return bool(self._whole(LATEST))
        except ExperimentError:
            return False

    def model_hash(self, name: str = LATEST) -> str:
        """SHA-256 over the files of weights and codes that `load` reads; detections record it."""
        return "-".join(file_hash(path)[:16] for path, _ in self._whole(name)[:2])

    def names(self) -> list[str]:
        """Names of the checkpoints on disk, whole or not."""
        files = (path for part in PARTS for path in (self.path / part).glob("*.pth"))
        return sorted({path.stem for path in files if not path.name.startswith(".")})

    def _whole(self, name: str) -> list[tuple[Path, Json]]:
        """Path and content of each part at the newest epoch and step that all share.

        The optimiser's folder may be missing, as in a model that was passed on; the first save makes it.
        """
        parts = [part for part in PARTS if part != PARTS[-1] or (self.path / part).is_dir()]
        for names in ([name], self.names()) if name == LATEST else ([name],):
            found = [self._stamped(part, names) for part in parts]
            shared = set.intersection(*(set(stamps) for stamps in found))
            if shared:
                return [stamps[max(shared)] for stamps in found]
        found = [self._stamped(part, self.names()) for part in parts]
        raise ExperimentError(
            f"has no whole checkpoint {name!r}",
            where=self.path,
            why=f"model, codes and optimiser of one epoch are needed together, found: {_stamps(parts, found)}",
            remedy="train it with `anofield train`, or name another epoch",
        )

    def _stamped(self, part: str, names: list[str]) -> dict[tuple[int, int], tuple[Path, Json]]:
        """The readable files of a part by epoch and step."""
        paths = (self.file(part, name) for name in names)
        read = ((path, _read(path, CONTENT[part])) for path in paths)
        return {(int(found["epoch"]), int(found.get("step", 0))): (path, found) for path, found in read if found}

    def _assemble(self, model: Json, codes: Json, optimizer: Json | None = None) -> Checkpoint:
        at = int(model["epoch"]), int(model.get("step", 0))
        logs = plain_logs(_read(self.path / "Logs.pth", "loss") or {})
        known = {key: value for key, value in logs.items() if key in Logs.__dataclass_fields__}
        table = plain_codes(codes["latent_codes"], self.path / "LatentCodes")
        ids = list(codes["case_ids"]) if "case_ids" in codes else self._published_ids()
        state = optimizer["optimizer_state_dict"] if optimizer else {}
        weights = (plain_weights if self.specs.network_arch == DECODER else dict)(model["model_state_dict"])
        return Checkpoint(*at, weights, ids, table, state, Logs(**known))

    def _published_ids(self) -> list[str]:
        """Case ids row by row, as `dict_cid.k` gives them; none without it."""
        path = self.path / ROWS_FILE
        rows = read_rows(path) if path.is_file() else {}
        return sorted(rows, key=rows.__getitem__)


OWNERS: dict[str | int, type[BaseModel]] = {"NetworkSpecs": NetworkSpecs}
OWNERS |= {"Step": StepRate, "Warmup": WarmupRate, "Constant": ConstantRate, "Cosine": CosineRate}


def _explain(item: Any) -> str:
    """One pydantic error in a sentence, with the nearest known key for an unknown one."""
    place = ".".join(str(part) for part in item["loc"])
    if not item["loc"]:
        return f"must be a JSON object of keys and values, is {type(item['input']).__name__}"
    if item["type"] == "extra_forbidden":
        owner = OWNERS.get(item["loc"][-2], Specs) if len(item["loc"]) > 1 else Specs
        known = [info.alias or name for name, info in owner.model_fields.items()]
        near = difflib.get_close_matches(str(item["loc"][-1]), known, n=1, cutoff=0.0)
        return f"unknown key {place!r} (nearest known: {near[0]!r})"
    return f"{place!r}: {item['msg'][0].lower()}{item['msg'][1:]}, got {item['input']!r}"


def _stamps(parts: list[str], found: list[dict[tuple[int, int], Any]]) -> str:
    """What epochs each part has."""
    epochs = [", ".join(str(epoch) for epoch, _ in sorted(stamps)) or "none" for stamps in found]
    return "; ".join(f"{part} {epoch}" for part, epoch in zip(parts, epochs, strict=True))


def _write(path: Path, content: Json) -> None:
    with path.open("wb") as stream:
        try:
            torch.save(content, stream)
        except RuntimeError as error:  # torch reports a full disk as RuntimeError
            raise OSError(str(error).splitlines()[0]) from error
        stream.flush()
        os.fsync(stream.fileno())


def save_file(path: Path, content: Json) -> None:
    """Write a `.pth` file, whole or not at all."""
    with replacing(path) as partial:
        _write(partial, content)


def _read(path: Path, key: str) -> Json | None:
    """Content of a `.pth` file; None if it is missing, damaged or holds no epoch or no `key`."""
    if not path.is_file():
        return None
    try:
        content = torch.load(path, map_location="cpu", weights_only=True)
    except (OSError, EOFError, RuntimeError, ValueError, KeyError, pickle.UnpicklingError):
        return None
    return content if isinstance(content, dict) and {"epoch", key} <= set(content) else None
