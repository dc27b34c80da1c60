"""`specs.json`: the published keys of an experiment and those of this project, with their checks and defaults.

Keys and defaults are those of DeepSDF (Park et al. 2019) as used by Naval Marimont & Tarroni 2021.
"""

from __future__ import annotations

import difflib
import json
from pathlib import Path
from typing import Annotated, Any, Literal

import torch
from pydantic import BaseModel, ConfigDict, Field, JsonValue, ValidationError, ValidationInfo, field_validator
from pydantic.alias_generators import to_pascal

from anofield.errors import ExperimentError, UsageError
from anofield.typing import PathLike

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
    """Half a cosine from Initial to Final over Length epochs (an addition of this project)."""

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
    """Shape of the decoder; keys that are left out have the defaults of the published code.

    Attributes:
        dims: Width of every hidden layer.
        dim_out: Number of ordered intensity classes.
        dropout: Layers followed by dropout in training.
        dropout_prob: Probability of that dropout.
        norm_layers: Layers with weight norm, or with layer norm after them if `weight_norm` is false; the published
            code makes a layer norm for the output layer as well, and never applies it.
        latent_in: Layers whose input is joined with code and point features.
        xyz_in_all: Whether the point's features are joined to the input of every layer but the first.
        latent_dropout: Whether a dropout of 0.2 is applied to the code in training, drawn for every point; the skip
            connection gets the same dropped code.
        weight_norm: Whether the layers of `norm_layers` have weight norm.
    """

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
        """Replace null, which the published code allows for these keys, with the default."""
        return value if value is not None else cls.model_fields[str(info.field_name)].default


PUBLISHED_NETWORK = NetworkSpecs(  # used where NetworkSpecs is left out, which the published code refuses
    dims=(512,) * 8, dim_out=10, dropout=tuple(range(8)), dropout_prob=0.2, norm_layers=tuple(range(8)), latent_in=(4,),
    weight_norm=True,
)  # fmt: skip


class Specs(_Strict):
    """Content of `specs.json`. Keys that may be left out have the defaults of the published code.

    Added keys, each with the published behaviour as its default: `NetworkArch` (the decoder, or a field of another
    package), `BrainFraction` (share of training points drawn in the brain), `Lattice` (place of a voxel in the field,
    published: `corner`; null takes the store's), `HeldOutSource` and `HeldOutFrequency` (healthy subjects that are not
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
            ExperimentError: There is no such file.
            UsageError: It is not JSON, a key is unknown (the error names the nearest known one)
                or a value is not allowed.
        """
        path = Path(path)
        if not path.is_file():
            raise ExperimentError(
                "no specs.json",
                where=path.parent,
                why="it says which network is trained on which data",
                remedy="`anofield train --preset default --data STORE` writes one",
            )
        try:
            return cls.model_validate(json.loads(path.read_text()))
        except (json.JSONDecodeError, UnicodeDecodeError) as error:
            raise UsageError(f"is not JSON ({error})", where=path, remedy="fix the line named") from error
        except ValidationError as error:
            raise UsageError(
                "; ".join(_explain(item) for item in error.errors()), where=path, remedy="fix the keys named"
            ) from error

    def dump(self) -> dict[str, JsonValue]:
        """The specs as plain values under the published keys."""
        return self.model_dump(mode="json", by_alias=True)


OWNERS: dict[str | int, type[BaseModel]] = {"NetworkSpecs": NetworkSpecs}
OWNERS |= {"Step": StepRate, "Warmup": WarmupRate, "Constant": ConstantRate, "Cosine": CosineRate}


def _explain(item: Any) -> str:
    """One pydantic error in a sentence, with the nearest known key for an unknown one."""
    place = ".".join(str(part) for part in item["loc"])
    if not item["loc"]:
        return f"must be a JSON object, is {type(item['input']).__name__}"
    if item["type"] == "extra_forbidden":
        owner = OWNERS.get(item["loc"][-2], Specs) if len(item["loc"]) > 1 else Specs
        known = [info.alias or name for name, info in owner.model_fields.items()]
        near = difflib.get_close_matches(str(item["loc"][-1]), known, n=1, cutoff=0.0)
        return f"unknown key {place!r} (nearest known: {near[0]!r})"
    return f"{place!r}: {item['msg'][0].lower()}{item['msg'][1:]}, got {item['input']!r}"
