"""`specs.json`: the published keys of an experiment and those of this project, with their checks and defaults.

Keys and defaults are those of DeepSDF (Park et al. 2019) as used by Naval Marimont & Tarroni 2021.
"""

from __future__ import annotations

import difflib
import itertools
import reprlib
from pathlib import Path
from typing import Annotated, Any, Literal

import torch
from pydantic import (
    BaseModel,
    ConfigDict,
    Field,
    JsonValue,
    ValidationError,
    ValidationInfo,
    field_validator,
    model_validator,
)
from pydantic.alias_generators import to_pascal

from anofield._files import parse_json
from anofield.errors import ExperimentError, UsageError
from anofield.typing import PathLike

DECODER = "decoder"  # NetworkArch of the published network, `field.Decoder`
MAX_PARAMETERS = 100_000_000  # 40 times the published network; training needs 16 bytes for each
SIZE_LIMIT = 1_000_000  # bytes of a specs.json; a large one has 3000
ERRORS_SHOWN, LONGEST_KEY = 5, 60
LARGEST_RATE = 1e30  # float32 holds it; training diverges long before
Count = Annotated[int, Field(ge=1, le=1_000_000_000)]


class _Strict(BaseModel):
    model_config = ConfigDict(
        extra="forbid", alias_generator=to_pascal, populate_by_name=True, frozen=True, allow_inf_nan=False
    )


class StepRate(_Strict):
    """lr = Initial · Factor^⌊epoch/Interval⌋."""

    type: Literal["Step"] = "Step"
    initial: float = Field(gt=0, le=LARGEST_RATE)
    interval: Count
    factor: float = Field(gt=0)

    def rate(self, epoch: int) -> float:
        """Learning rate of an epoch, counted from 1."""
        try:
            return min(float(self.initial * self.factor ** (epoch // self.interval)), LARGEST_RATE)
        except OverflowError:
            return LARGEST_RATE


class WarmupRate(_Strict):
    """Linear from Initial to Final over Length epochs, then Final."""

    type: Literal["Warmup"] = "Warmup"
    initial: float = Field(ge=0, le=LARGEST_RATE)
    final: float = Field(gt=0, le=LARGEST_RATE)
    length: Count

    def rate(self, epoch: int) -> float:
        """Learning rate of an epoch, counted from 1."""
        return self.initial + (self.final - self.initial) * min(1.0, epoch / self.length)


class ConstantRate(_Strict):
    """lr = Value."""

    type: Literal["Constant"] = "Constant"
    value: float = Field(gt=0, le=LARGEST_RATE)

    def rate(self, epoch: int) -> float:
        """Learning rate of an epoch, counted from 1."""
        return self.value


class CosineRate(_Strict):
    """Half a cosine from Initial to Final over Length epochs (an addition of this project)."""

    type: Literal["Cosine"] = "Cosine"
    initial: float = Field(gt=0, le=LARGEST_RATE)
    final: float = Field(ge=0, le=LARGEST_RATE)
    length: Count

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

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)

    dims: tuple[Count, ...] = Field(min_length=1, max_length=1000)
    dim_out: int = Field(ge=2, le=1_000_000_000)
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
    code_length: Count
    octaves: int | None = Field(default=None, ge=1, le=64, alias="L")  # 2^63 is the finest that float32 still counts
    num_epochs: Count
    samples_per_scene: int = Field(ge=1, le=2**24)
    scenes_per_batch: Count
    data_loader_threads: int = 0
    learning_rate_schedule: tuple[Rate, Rate]
    snapshot_frequency: Count = 1000
    additional_snapshots: tuple[int, ...] = ()
    log_frequency: Count = 10
    code_regularization: bool = True
    code_regularization_lambda: float = Field(default=1e-4, ge=0)
    code_bound: float | None = Field(default=None, gt=0)
    code_init_std_dev: float = Field(default=1.0, gt=0)
    gradient_clip_norm: float | None = Field(default=None, gt=0)
    encode_image: bool = False
    brain_fraction: float = Field(default=0.0, ge=0, le=1)
    lattice: Literal["center", "corner"] | None = None
    held_out_source: str | None = None
    held_out_frequency: Count = 100
    seed: int = Field(default=0, ge=0, lt=2**63)

    @model_validator(mode="after")
    def _buildable(self) -> Specs:
        """Refuse a network that no machine is meant to hold, before any memory is allocated."""
        if self.network_arch == DECODER and (count := self.parameters()) > MAX_PARAMETERS:
            raise ValueError(
                f"NetworkSpecs.dims, CodeLength and L make a network of {count:.3g} parameters, at most "
                f"{MAX_PARAMETERS // 10**6} million are allowed"
            )
        return self

    def parameters(self) -> int:
        """Number of parameters of the published decoder with these sizes, joins not counted; codes come on top."""
        network = self.network_specs
        first = self.code_length + (6 * self.octaves if self.octaves else 3)
        widths = [first, *network.dims, network.dim_out + 1]
        return sum((inputs + 2) * outputs for inputs, outputs in itertools.pairwise(widths))

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
            return cls.model_validate(_parsed(path))
        except ValidationError as error:
            found = error.errors()
            told = [_explain(item) for item in found[:ERRORS_SHOWN]]
            told += [f"{len(found) - ERRORS_SHOWN} more"] if len(found) > ERRORS_SHOWN else []
            raise UsageError("; ".join(told), where=path, remedy="fix the keys named") from error
        except (OSError, ValueError, RecursionError) as error:
            raise UsageError(f"is not JSON ({error})", where=path, remedy="fix the line named") from error

    def dump(self) -> dict[str, JsonValue]:
        """The specs as plain values under the published keys."""
        return self.model_dump(mode="json", by_alias=True)


OWNERS: dict[str | int, type[BaseModel]] = {"NetworkSpecs": NetworkSpecs}
OWNERS |= {"Step": StepRate, "Warmup": WarmupRate, "Constant": ConstantRate, "Cosine": CosineRate}


def _explain(item: Any) -> str:
    """One pydantic error in a sentence, with the nearest known key for an unknown one."""
    place = ".".join(str(part)[:LONGEST_KEY] for part in item["loc"])
    if item["type"] == "value_error":
        return str(item["ctx"]["error"])
    if not item["loc"]:
        return f"must be a JSON object, is {type(item['input']).__name__}"
    if item["type"] == "extra_forbidden":
        owner = OWNERS.get(item["loc"][-2], Specs) if len(item["loc"]) > 1 else Specs
        known = [info.alias or name for name, info in owner.model_fields.items()]
        near = difflib.get_close_matches(str(item["loc"][-1])[:LONGEST_KEY], known, n=1, cutoff=0.0)
        return f"unknown key {place!r} (nearest known: {near[0]!r})"
    if item["type"] == "missing":
        return f"it lacks {place!r}"
    return f"{place!r}: {item['msg'][0].lower()}{item['msg'][1:]}, got {reprlib.repr(item['input'])}"


def _parsed(path: Path) -> object:
    """The JSON of a file.

    Raises:
        ValueError, RecursionError: It is not JSON, or too large or too deep for what it should say.
    """
    with path.open("rb") as stream:
        data = stream.read(SIZE_LIMIT + 1)
    if len(data) > SIZE_LIMIT:
        raise ValueError(f"it has more than {SIZE_LIMIT} bytes")
    return parse_json(data.decode("utf-8"))
