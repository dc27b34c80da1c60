"""Export an experiment as a directory that the code published in 2021 can read and continue.

Layout of Naval Marimont & Tarroni 2021: published keys in `specs.json`, only the published content in every `.pth`,
Adam's state as torch wrote it in 2021, and `dict_cid.k`, which belongs in the folder of the `.nt` files.
"""

from __future__ import annotations

from collections import OrderedDict
from copy import deepcopy
from pathlib import Path

import torch
from pydantic import JsonValue

from anofield._files import write_json
from anofield.data.nt import ROWS_FILE, write_rows
from anofield.errors import ExperimentError, UsageError
from anofield.field.experiment import LOGS_FILE, SPECS_FILE, Checkpoint, Experiment
from anofield.field.parts import LATEST, PREVIOUS
from anofield.field.published import AdamState
from anofield.field.specs import DECODER, ConstantRate, CosineRate, Rate, Specs
from anofield.field.tensor_file import write_tensors
from anofield.typing import PathLike

PUBLISHED_KEYS = (
    "Description", "DataSource", "SamplesPerScene", "ScenesPerBatch", "DataLoaderThreads", "NetworkSpecs", "CodeLength",
    "L", "NumEpochs", "SnapshotFrequency", "AdditionalSnapshots", "LearningRateSchedule", "LogFrequency",
    "CodeRegularization", "CodeRegularizationLambda", "CodeBound", "CodeInitStdDev", "GradientClipNorm", "EncodeImage",
)  # fmt: skip
PUBLISHED_NETWORK_KEYS = (
    "dims", "dim_out", "dropout", "dropout_prob", "norm_layers", "latent_in", "xyz_in_all", "latent_dropout",
    "weight_norm",
)  # fmt: skip
# Keys of this project that change the network (those of NetworkSpecs with its name before them) → published value
OWN_NETWORK_KEYS: dict[str, JsonValue] = {"NetworkArch": DECODER}
OWN_TRAINING_KEYS: dict[str, JsonValue] = {  # keys that only training uses → published value
    "BrainFraction": 0.0,
    "Lattice": None,
    "HeldOutSource": None,
    "HeldOutFrequency": 100,
    "Seed": 0,
}
ADAM_KEYS = ("lr", "betas", "eps", "weight_decay", "amsgrad", "params")  # of a parameter group, torch 1.8


def export_experiment(experiment: Experiment, folder: PathLike) -> tuple[list[Path], list[str]]:
    """Write `latest` and every snapshot of an experiment in the format of the published code.

    Args:
        experiment: A trained experiment.
        folder: Directory to create; `specs.json` is written last.

    Returns:
        The files written, and a sentence on every feature that the published code lacks.

    Raises:
        UsageError: A key of this project changes the network, or the folder holds an experiment.
        ExperimentError: There is no checkpoint at the end of an epoch.
    """
    folder = Path(folder)
    if (folder / SPECS_FILE).exists():
        raise UsageError(
            "holds an experiment", where=folder, why="it would be overwritten", remedy="choose another -o, or delete it"
        )
    _refuse_other_networks(experiment)
    found, notes = _checkpoints(experiment)
    latest = found[LATEST]
    written = [path for name, checkpoint in found.items() for path in _write_parts(folder, name, checkpoint)]
    write_tensors(folder / LOGS_FILE, _published_logs(latest, experiment.specs))
    written.append(folder / LOGS_FILE)
    if latest.code_ids:
        write_rows(folder / ROWS_FILE, {cid: row for row, cid in enumerate(latest.code_ids)})
        written.append(folder / ROWS_FILE)
        notes.append(f"DataSource: a folder made by `anofield export --format nt`, with the {ROWS_FILE} written here")
    else:
        notes.append(f"the codes name no cases: no {ROWS_FILE} is written, keep the one of the .nt files")
    specs, converted = published_specs(experiment.specs, latest.epoch)
    write_json(folder / SPECS_FILE, _published_keys(specs))
    return [*written, folder / SPECS_FILE], notes + converted


def published_specs(specs: Specs, epoch: int) -> tuple[Specs, list[str]]:
    """Specs that the published code can read, and a sentence on each key that had to change.

    Args:
        specs: Specs of the experiment.
        epoch: Epoch of the checkpoint; a `Cosine` rate becomes the `Constant` of this epoch.
    """
    dumped = specs.dump()
    notes = [
        f"{key} {dumped[key]} is left out: the published code takes {value}"
        for key, value in OWN_TRAINING_KEYS.items()
        if dumped[key] != value
    ]
    rates: list[Rate] = []
    for number, rate in enumerate(specs.learning_rate_schedule):
        constant = ConstantRate(value=rate.rate(epoch)) if isinstance(rate, CosineRate) else None
        rates.append(constant or rate)
        if constant:
            notes.append(f"LearningRateSchedule.{number}: Cosine becomes Constant {constant.value:.3g}, as at {epoch}")
    lines = [specs.description] if isinstance(specs.description, str) else specs.description
    return specs.model_copy(update={"description": lines, "learning_rate_schedule": tuple(rates)}), notes


def _published_keys(specs: Specs) -> dict[str, JsonValue]:
    """Content of a published `specs.json`."""
    dumped, network = specs.dump(), specs.network_specs.model_dump(mode="json")
    kept = {key: dumped[key] for key in PUBLISHED_KEYS}
    return kept | {"NetworkSpecs": {key: network[key] for key in PUBLISHED_NETWORK_KEYS}}


def _refuse_other_networks(experiment: Experiment) -> None:
    network = experiment.specs.network_specs.model_dump(mode="json")
    flat = experiment.specs.dump() | {f"NetworkSpecs.{key}": value for key, value in network.items()}
    for key, value in OWN_NETWORK_KEYS.items():
        if flat[key] != value:
            raise UsageError(
                f"{key} is {flat[key]}, which the code of 2021 does not support",
                where=experiment.path / SPECS_FILE,
                why=f"it changes the network; the published one has {value}",
                remedy=f"train an experiment with {key} {value}, which can be exported",
            )


def _checkpoints(experiment: Experiment) -> tuple[dict[str, Checkpoint], list[str]]:
    """`latest` (or the previous one, if `latest` is within an epoch) and the snapshots; notes on those left out."""
    notes, found = [], {}
    on_disk = experiment.names()
    for name in (LATEST, *(name for name in on_disk if name == PREVIOUS or name.isdigit())):
        try:
            checkpoint = experiment.load(name)
        except ExperimentError as error:
            notes.append(f"checkpoint {name} is left out: {error.what}")
            continue
        if checkpoint.step:
            notes.append(f"checkpoint {name} is left out: it is {checkpoint.step} steps into an epoch")
        else:
            found[name] = checkpoint
    if not found:
        raise ExperimentError(
            "has no checkpoint at the end of an epoch",
            where=experiment.path,
            why="the code of 2021 counts whole epochs",
            remedy="train it, or continue it with `anofield train --continue latest` for at least an epoch",
        )
    newest = max(found.values(), key=lambda checkpoint: checkpoint.epoch)
    snapshots = {name: checkpoint for name, checkpoint in found.items() if name.isdigit()}
    return {LATEST: newest} | snapshots, notes


def _write_parts(folder: Path, name: str, checkpoint: Checkpoint) -> list[Path]:
    content: dict[str, dict[str, object]] = {
        "ModelParameters": {"model_state_dict": OrderedDict(checkpoint.model)},
        "LatentCodes": {"latent_codes": OrderedDict(weight=checkpoint.codes)},
    }
    if checkpoint.optimizer:
        content["OptimizerParameters"] = {"optimizer_state_dict": _adam_of_2021(checkpoint.optimizer)}
    paths = {part: folder / part / f"{name}.pth" for part in content}
    for part, path in paths.items():
        write_tensors(path, {"epoch": checkpoint.epoch, **content[part]})
    return list(paths.values())


def _adam_of_2021(state: AdamState) -> AdamState:
    """Adam's state as torch 1.8 wrote it: counters are integers, and options of its implementation are missing."""
    entries = {key: {**entry, "step": int(entry["step"])} for key, entry in state["state"].items()}
    groups = [{key: group[key] for key in ADAM_KEYS} for group in state["param_groups"]]
    return {"state": entries, "param_groups": [{**group, "lr": float(group["lr"])} for group in groups]}


def _published_logs(checkpoint: Checkpoint, specs: Specs) -> dict[str, object]:
    """Content of `Logs.pth` at the end of the checkpoint's epoch; magnitudes of codes are tensors there."""
    logs = deepcopy(checkpoint.logs)
    logs.cut(checkpoint.epoch, -(-len(checkpoint.codes) // specs.scenes_per_batch))
    return vars(logs) | {"latent_magnitude": [torch.tensor(value) for value in logs.latent_magnitude]}
