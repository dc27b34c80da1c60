"""An experiment → the directory that the code published in 2021 reads and goes on with.

Layout of Naval Marimont & Tarroni 2021: published keys in `specs.json`, nothing but the published content in every
`.pth`, Adam's state as torch wrote it then, and `dict_cid.k`, which belongs into the folder of the `.nt` files.
"""

from __future__ import annotations

from collections import OrderedDict
from copy import deepcopy
from pathlib import Path
from typing import Any

import torch

from anofield._files import write_json
from anofield.data.rows import ROWS_FILE, write_rows
from anofield.errors import ExperimentError, UsageError
from anofield.field.experiment import LATEST, PREVIOUS, Checkpoint, CosineRate, Experiment, Specs, save_file
from anofield.typing import Json, PathLike

PUBLISHED_KEYS = (
    "Description", "DataSource", "SamplesPerScene", "ScenesPerBatch", "DataLoaderThreads", "NetworkSpecs", "CodeLength",
    "L", "NumEpochs", "SnapshotFrequency", "AdditionalSnapshots", "LearningRateSchedule", "LogFrequency",
    "CodeRegularization", "CodeRegularizationLambda", "CodeBound", "CodeInitStdDev", "GradientClipNorm", "EncodeImage",
)  # fmt: skip
PUBLISHED_NETWORK_KEYS = (
    "dims", "dim_out", "dropout", "dropout_prob", "norm_layers", "latent_in", "xyz_in_all", "latent_dropout",
    "weight_norm",
)  # fmt: skip
# Keys of this project (`NetworkSpecs.` before those that stand there) that change the network → the published value
OWN_NETWORK_KEYS: dict[str, Any] = {"NetworkArch": "decoder"}
OWN_TRAINING_KEYS: dict[str, Any] = {  # keys that training alone heeds → published way
    "BrainFraction": 0.0,
    "Lattice": None,
    "HeldOutSource": None,
    "HeldOutFrequency": 100,
    "Seed": 0,
}
ADAM_KEYS = ("lr", "betas", "eps", "weight_decay", "amsgrad", "params")  # of a parameter group, torch 1.8


def export_experiment(experiment: Experiment, folder: PathLike) -> tuple[list[Path], list[str]]:
    """Write `latest` and every snapshot of an experiment as the published code would have.

    Args:
        experiment: A trained one.
        folder: Directory to make; `specs.json` is written last.

    Returns:
        The files written, and a sentence on everything that the published code cannot express.

    Raises:
        UsageError: A key of this project makes the network another one, or the folder holds an experiment.
        ExperimentError: No checkpoint stands at the end of an epoch.
    """
    folder = Path(folder)
    if (folder / "specs.json").exists():
        raise UsageError(
            "holds an experiment", where=folder, why="it would be overwritten", remedy="choose another -o, or delete it"
        )
    _refuse_other_networks(experiment)
    found, notes = _checkpoints(experiment)
    latest = found[LATEST]
    written = [path for name, checkpoint in found.items() for path in _write_parts(folder, name, checkpoint)]
    save_file(folder / "Logs.pth", _published_logs(latest, experiment.specs))
    written.append(folder / "Logs.pth")
    if latest.code_ids:
        write_rows(folder / ROWS_FILE, {cid: row for row, cid in enumerate(latest.code_ids)})
        written.append(folder / ROWS_FILE)
        notes.append(f"DataSource: a folder made by `anofield export --format nt`, with the {ROWS_FILE} written here")
    else:
        notes.append(f"the codes name no cases: no {ROWS_FILE} is written, keep the one of the .nt files")
    specs, converted = published_specs(experiment.specs, latest.epoch)
    write_json(folder / "specs.json", specs)
    return [*written, folder / "specs.json"], notes + converted


def published_specs(specs: Specs, epoch: int) -> tuple[Json, list[str]]:
    """Content of a published `specs.json`, and a sentence on each key that could not stay as it is.

    Args:
        specs: Of this project.
        epoch: Where training stands; a `Cosine` rate becomes the `Constant` of this epoch.
    """
    dumped = specs.dump()
    notes = [
        f"{key} {dumped[key]} is left out: the published code takes {value}"
        for key, value in OWN_TRAINING_KEYS.items()
        if dumped[key] != value
    ]
    kept = {key: dumped[key] for key in PUBLISHED_KEYS}
    kept["Description"] = [specs.description] if isinstance(specs.description, str) else list(specs.description)
    kept["NetworkSpecs"] = {key: kept["NetworkSpecs"][key] for key in PUBLISHED_NETWORK_KEYS}
    for number, rate in enumerate(specs.learning_rate_schedule):
        if isinstance(rate, CosineRate):
            kept["LearningRateSchedule"][number] = {"Type": "Constant", "Value": rate.rate(epoch)}
            notes.append(
                f"LearningRateSchedule.{number}: Cosine becomes Constant {rate.rate(epoch):.3g}, as at {epoch}"
            )
    return kept, notes


def _refuse_other_networks(experiment: Experiment) -> None:
    dumped = experiment.specs.dump()
    flat = dumped | {f"NetworkSpecs.{key}": value for key, value in dumped["NetworkSpecs"].items()}
    for key, value in OWN_NETWORK_KEYS.items():
        if flat[key] != value:
            raise UsageError(
                f"{key} is {flat[key]}, which the code of 2021 does not know",
                where=experiment.path / "specs.json",
                why=f"it changes the network; the published one has {value}",
                remedy=f"train one with {key} {value} to export it",
            )


def _checkpoints(experiment: Experiment) -> tuple[dict[str, Checkpoint], list[str]]:
    """`latest` (the one before it, if that stands within an epoch) and the snapshots; what was left out."""
    notes, found = [], {}
    on_disk = experiment.names()
    for name in (LATEST, *(name for name in on_disk if name == PREVIOUS or name.isdigit())):
        try:
            checkpoint = experiment.load(name)
        except ExperimentError as error:
            notes.append(f"checkpoint {name} is left out: {error.what}")
            continue
        if checkpoint.step:
            notes.append(f"checkpoint {name} is left out: it stands {checkpoint.step} steps into an epoch")
        else:
            found[name] = checkpoint
    if not found:
        raise ExperimentError(
            "has no checkpoint at the end of an epoch",
            where=experiment.path,
            why="the code of 2021 counts whole epochs",
            remedy="train it, or go on with `anofield train --continue latest` for an epoch or more",
        )
    newest = max(found.values(), key=lambda checkpoint: checkpoint.epoch)
    snapshots = {name: checkpoint for name, checkpoint in found.items() if name.isdigit()}
    return {LATEST: newest} | snapshots, notes


def _write_parts(folder: Path, name: str, checkpoint: Checkpoint) -> list[Path]:
    content: dict[str, Json] = {
        "ModelParameters": {"model_state_dict": OrderedDict(checkpoint.model)},
        "LatentCodes": {"latent_codes": OrderedDict(weight=checkpoint.codes)},
    }
    if checkpoint.optimizer:
        content["OptimizerParameters"] = {"optimizer_state_dict": _adam_of_2021(checkpoint.optimizer)}
    paths = {part: folder / part / f"{name}.pth" for part in content}
    for part, path in paths.items():
        save_file(path, {"epoch": checkpoint.epoch, **content[part]})
    return list(paths.values())


def _adam_of_2021(state: Json) -> Json:
    """Adam's state as torch 1.8 wrote it: whole counters, no word of how it computes."""
    entries = {key: {**entry, "step": int(entry["step"])} for key, entry in state["state"].items()}
    groups = [{key: group[key] for key in ADAM_KEYS} for group in state["param_groups"]]
    return {"state": entries, "param_groups": [{**group, "lr": float(group["lr"])} for group in groups]}


def _published_logs(checkpoint: Checkpoint, specs: Specs) -> Json:
    """Content of `Logs.pth` at the end of the checkpoint's epoch; magnitudes of codes are tensors there."""
    logs = deepcopy(checkpoint.logs)
    logs.cut(checkpoint.epoch, -(-len(checkpoint.codes) // specs.scenes_per_batch))
    return vars(logs) | {"latent_magnitude": [torch.tensor(value) for value in logs.latent_magnitude]}
