"""A trained experiment ready for detection: field, code prior, recipe, calibrations."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import torch
from pydantic import ValidationError
from torch import Tensor

from anofield._files import write_json
from anofield._progress import say
from anofield.data.prepare import Recipe
from anofield.data.recipe import missing_keys, recipe_in_place
from anofield.detect.calibration import Calibrations, read_calibrations, read_object
from anofield.errors import ExperimentError, MachineError, UsageError
from anofield.field.codes import CodePrior
from anofield.field.decoder import Decoder, FieldModule, FrozenField
from anofield.field.experiment import DECODER, LATEST, Checkpoint, Experiment, Specs
from anofield.field.plugins import installed_field
from anofield.typing import PathLike

Precision = Literal["auto", "float32", "bfloat16"]
RECIPE_FILE = "recipe.json"


@dataclass(frozen=True)
class Model:
    """What a detection needs of an experiment.

    Attributes:
        path: Experiment directory.
        field: The trained field, its weights frozen.
        prior: Gaussian of the training codes.
        recipe: How scans are prepared.
        calibrations: Thresholds per settings, empty if the model is not calibrated.
        hash: Of weights and codes.
        device: Where the field lives.
    """

    path: Path
    field: FrozenField
    prior: CodePrior
    recipe: Recipe
    calibrations: Calibrations
    hash: str
    device: torch.device


def build_field(specs: Specs) -> FieldModule:
    """The field that a `specs.json` describes, with fresh weights.

    Raises:
        UsageError: A layer is too narrow, or `NetworkArch` names a field that cannot be made, see `installed_field`.
    """
    if specs.network_arch != DECODER:
        return installed_field(specs)
    network = specs.network_specs
    return Decoder(
        specs.code_length,
        specs.octaves,
        dims=network.dims,
        classes=network.dim_out,
        latent_in=network.latent_in,
        norm_layers=network.norm_layers,
        weight_norm=network.weight_norm,
        dropout=network.dropout,
        dropout_prob=network.dropout_prob,
        xyz_in_all=network.xyz_in_all,
        latent_dropout=network.latent_dropout,
    )


def load_weights(field: FieldModule, weights: dict[str, Tensor], where: PathLike) -> None:
    """Put weights into a field, every name and shape as expected.

    Raises:
        ExperimentError: They are of another network.
    """
    try:
        field.load_state_dict(weights)
    except RuntimeError as error:
        raise ExperimentError(
            "its weights do not fit its specs.json",
            where=where,
            why=str(error).splitlines()[-1].strip(),
            remedy="restore the specs.json it was trained with",
        ) from error


def codes_of(checkpoint: Checkpoint, case_ids: list[str], length: int, where: PathLike) -> Tensor:
    """Codes of these cases, (case, code); published codes, which name no cases, go to them in their order.

    Raises:
        ExperimentError: They belong to other cases, or are of another length or number.
    """
    if checkpoint.code_ids and checkpoint.code_ids != case_ids:
        odd = sorted(set(checkpoint.code_ids) ^ set(case_ids))[:3]
        raise ExperimentError(
            "was trained on other cases than the store holds now "
            + (f"(first differences: {odd})" if odd else "(the same, in another order)"),
            where=where,
            why="codes belong to cases",
            remedy="use the store it was trained on, or start a new experiment",
        )
    if checkpoint.codes.shape != (len(case_ids), length):
        rows, found = checkpoint.codes.shape
        raise ExperimentError(
            f"has {rows} codes of length {found}; the store has {len(case_ids)} cases, CodeLength is {length}",
            where=where,
            why="every case needs its own code",
            remedy="train on the store made by `anofield import` from the folder of .nt files with their dict_cid.k",
        )
    if not checkpoint.code_ids:
        say(f"{where} names no cases: its codes are taken for those of the store, in the order of the store")
    return checkpoint.codes


def load_model(
    path: PathLike,
    *,
    epoch: str = LATEST,
    device: str = "auto",
    precision: Precision = "float32",
    recipe: str | None = None,
) -> Model:
    """Load an experiment for detection.

    Args:
        path: Experiment directory.
        epoch: `latest` or the number of a snapshot.
        device: `auto`, `cpu`, `cuda[:N]` or `mps`.
        precision: Of the matrix products; `auto` takes bfloat16 where the device multiplies it faster.
        recipe: Name or file of one to prepare scans with instead of the experiment's own, see `recipe_in_place`.

    Raises:
        ExperimentError: No such experiment, no checkpoint, no recipe, or weights or codes of another network.
        UsageError: The recipe given does not fit the field.
        MachineError: The device is not there.
    """
    experiment = Experiment(path)
    checkpoint = experiment.load(epoch)
    field = build_field(experiment.specs)
    load_weights(field, checkpoint.model, experiment.path)
    if checkpoint.codes.shape[1] != field.code_length:
        raise ExperimentError(
            f"has codes of length {checkpoint.codes.shape[1]}, CodeLength is {field.code_length}",
            where=experiment.path,
            remedy="restore the specs.json it was trained with",
        )
    where = pick_device(device)
    frozen = FrozenField(field.to(where), bfloat16=wants_bfloat16(precision, where))
    own = read_recipe(experiment.path)
    return Model(
        experiment.path,
        frozen,
        CodePrior.fit(checkpoint.codes),
        own if recipe is None else recipe_in_place(own, recipe),
        read_calibrations(experiment.path),
        experiment.model_hash(epoch),
        where,
    )


def read_recipe(path: Path) -> Recipe:
    """The recipe of an experiment.

    Raises:
        ExperimentError: There is none, it cannot be read, or it lacks keys.
    """
    remedy = "copy recipe.json from the experiment's backup, or go on training from the store, which writes it"
    if not (path / RECIPE_FILE).is_file():
        raise ExperimentError(
            f"has no {RECIPE_FILE}", where=path, why="scans must be prepared as in training", remedy=remedy
        )
    try:
        content = read_object(path / RECIPE_FILE, remedy)
        recipe = Recipe.model_validate(content)
    except ValidationError as error:
        raise ExperimentError(f"its {RECIPE_FILE} is damaged", where=path, why=str(error), remedy=remedy) from error
    if lacking := missing_keys(content):
        raise ExperimentError(
            f"its {RECIPE_FILE} lacks {', '.join(lacking)}",
            where=path,
            why="scans must be prepared as in training, and a default may be another value",
            remedy=remedy,
        )
    return recipe


def check_recipe(path: Path, recipe: Recipe) -> None:
    """Compare a recipe with that of an experiment, if it has one already.

    Raises:
        UsageError: The experiment was trained on a store of another recipe.
    """
    if (path / RECIPE_FILE).exists() and read_recipe(path) != recipe:
        raise UsageError(
            "the store was prepared with another recipe than this experiment was trained on",
            where=path / RECIPE_FILE,
            why="classes and places would mean something else",
            remedy="train on the old store (with the old Lattice in specs.json), or start a new experiment",
        )


def write_recipe(path: Path, recipe: Recipe) -> None:
    """Write the recipe beside the specs; see `check_recipe`."""
    check_recipe(path, recipe)
    write_json(path / RECIPE_FILE, recipe.model_dump(mode="json"))


def wants_bfloat16(precision: Precision, device: torch.device) -> bool:
    """Whether to multiply matrices in bfloat16; `auto` does where the device has it in hardware."""
    return has_fast_bfloat16(device) if precision == "auto" else precision == "bfloat16"


def has_fast_bfloat16(device: torch.device) -> bool:
    """Whether the device multiplies bfloat16 matrices in hardware (tensor cores, AVX512-BF16, AMX)."""
    if device.type == "cuda":
        return bool(torch.cuda.is_bf16_supported())
    return device.type == "cpu" and bool(torch.cpu._is_avx512_bf16_supported())


def pick_device(name: str) -> torch.device:
    """`auto` takes CUDA, then MPS, then the CPU.

    Raises:
        MachineError: The named device is not there.
        UsageError: No device has such a name.
    """
    available = {"cpu": True, "cuda": torch.cuda.is_available(), "mps": torch.backends.mps.is_available()}
    if name == "auto":
        return torch.device(next(kind for kind in ("cuda", "mps", "cpu") if available[kind]))
    kind, _, number = name.partition(":")
    if kind not in available or (number and not number.isdigit()):
        raise UsageError(f"unknown device {name!r}", remedy="use auto, cpu, cuda, cuda:N or mps")
    if not available[kind] or (kind == "cuda" and number and int(number) >= torch.cuda.device_count()):
        raise MachineError(f"no device {name!r} here", remedy="use --device auto; `anofield info` lists the devices")
    return torch.device(name)
