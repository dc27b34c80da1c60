"""A trained experiment opened for use: field, training codes, recipe."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import torch
from torch import Tensor

from anofield._progress import say
from anofield.data.origin import Origin
from anofield.data.published import lattice_side
from anofield.data.recipe import Recipe, read_recipe, recipe_in_place
from anofield.errors import ExperimentError
from anofield.field.codes import CodePrior, Codes
from anofield.field.decoder import Decoder, FieldModule, FrozenField
from anofield.field.device import Precision, pick_device, wants_bfloat16
from anofield.field.experiment import Checkpoint, Experiment
from anofield.field.parts import LATEST
from anofield.field.plugins import installed_field
from anofield.field.provenance import check_as_trained, read_origin
from anofield.field.specs import DECODER, Specs
from anofield.typing import PathLike


@dataclass(frozen=True, kw_only=True, repr=False, eq=False)
class TrainedField:
    """An experiment opened for use: the frozen field, the codes that it was trained with, and the recipe.

    Attributes:
        path: Experiment directory.
        specs: Content of its `specs.json`.
        field: The trained field, its weights frozen.
        codes: Codes of the training subjects.
        recipe: Recipe that prepares scans.
        hash: SHA-256 of the files of weights and codes, shortened.
        epoch: Epoch in use: of the checkpoint that was read, which may be older than a damaged one that was asked for.
        device: Device of the field.
        origin: Where the training scans come from; None if the experiment does not say it.
    """

    path: Path
    specs: Specs
    field: FrozenField
    codes: Codes
    recipe: Recipe
    hash: str
    epoch: int
    device: torch.device
    origin: Origin | None = None

    @cached_property
    def prior(self) -> CodePrior:
        """Gaussian of the training codes."""
        return self.codes.prior()

    @property
    def precision(self) -> str:
        """Precision of the matrix products, `bfloat16` or `float32`."""
        return "bfloat16" if self.field.bfloat16 else "float32"

    def __repr__(self) -> str:
        side = lattice_side(self.recipe)
        return (
            f"TrainedField({self.path.name}: {self.recipe.name} {side}³, {len(self.codes)} subjects, "
            f"epoch {self.epoch}, {self.device})"
        )


def open_field(
    path: PathLike,
    *,
    epoch: str = LATEST,
    device: str | torch.device = "auto",
    precision: Precision = "float32",
    recipe: str | None = None,
) -> TrainedField:
    """Open a trained experiment; every file is read once.

    Args:
        path: Experiment directory.
        epoch: `latest` or the number of an epoch.
        device: `auto`, `cpu`, `cuda[:N]` or `mps`.
        precision: Precision of the matrix products; `auto` takes bfloat16 where the device multiplies it faster.
        recipe: Name or file of a recipe to prepare scans with instead of the experiment's own, see `recipe_in_place`.

    Raises:
        ExperimentError: There is no experiment, checkpoint or recipe; its files are damaged or belong to another
            network; or specs or recipe are not those of the training.
        UsageError: The recipe given does not fit the field.
        MachineError: The device is not available.
    """
    experiment = Experiment(path)
    checkpoint = experiment.load(epoch)
    field = build_field(experiment.specs)
    load_weights(field, checkpoint.model, experiment.path)
    _check_codes(checkpoint, field, experiment.path)
    where = pick_device(device)
    own = read_recipe(experiment.path)
    check_as_trained(experiment.path, experiment.specs, own)
    return TrainedField(
        path=experiment.path,
        specs=experiment.specs,
        field=FrozenField(field.to(where), bfloat16=wants_bfloat16(precision, where)),
        codes=Codes(
            ids=checkpoint.code_ids,
            contents=checkpoint.code_contents,
            values=checkpoint.codes,
            bound=experiment.specs.code_bound,
        ),
        recipe=own if recipe is None else recipe_in_place(own, recipe),
        hash=checkpoint.hash,
        epoch=checkpoint.epoch,
        device=where,
        origin=read_origin(experiment.path),
    )


def _check_codes(checkpoint: Checkpoint, field: FieldModule, where: Path) -> None:
    """Check that the codes have the length that the field takes."""
    length = checkpoint.codes.shape[1]
    if length != field.code_length:
        raise ExperimentError(
            f"has codes of length {length}, CodeLength is {field.code_length}",
            where=where,
            remedy="restore the specs.json it was trained with",
        )


def build_field(specs: Specs) -> FieldModule:
    """Build the field that a `specs.json` describes, with fresh weights.

    Raises:
        UsageError: A layer is too narrow, or the field that `NetworkArch` names cannot be built, see `installed_field`.
    """
    if specs.network_arch != DECODER:
        return installed_field(specs)
    return Decoder(specs.code_length, specs.octaves, specs.network_specs)


def load_weights(field: FieldModule, weights: dict[str, Tensor], where: PathLike) -> None:
    """Load weights into a field; every name and shape must agree.

    Raises:
        ExperimentError: The weights belong to another network.
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
    """Codes of these cases, (case, code); published codes, which name no cases, are assigned to them in order.

    Raises:
        ExperimentError: The codes belong to other cases, or their length or number differs.
    """
    if checkpoint.code_ids and checkpoint.code_ids != case_ids:
        odd = sorted(set(checkpoint.code_ids) ^ set(case_ids))[:3]
        raise ExperimentError(
            "was trained on other cases than the store holds now "
            + (f"(first differences: {odd})" if odd else "(the same, in another order)"),
            where=where,
            why="every code belongs to one case",
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
        say(f"{where} names no cases: its codes are assigned to the cases of the store in the order of the store")
    return checkpoint.codes
