"""Convert state dicts of the published code and of torch versions since 2021 to the names and shapes used here.

Source: files of Naval Marimont & Tarroni 2021 and of DeepSDF (Park et al. 2019), on which they are based.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any, TypedDict, cast

import torch
from torch import Tensor

from anofield.errors import ExperimentError
from anofield.field.tensor_file import is_plain
from anofield.typing import PathLike

PARALLEL = "module."  # torch.nn.DataParallel puts it before every name
NEWER_NAMES = {  # torch.nn.utils.parametrizations.weight_norm → the hook of 2021
    ".parametrizations.weight.original0": ".weight_g",
    ".parametrizations.weight.original1": ".weight_v",
}
IMPLEMENTATION = ("foreach", "fused", "capturable")  # implementation of Adam; not part of its state


class AdamState(TypedDict, total=False):
    """State of an Adam optimiser as torch saves it; empty if it was not saved.

    Attributes:
        state: Step and moments by parameter number.
        param_groups: Options and parameter numbers of each group.
    """

    state: dict[int, dict[str, Any]]
    param_groups: list[dict[str, Any]]


def plain_weights(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Rename a network's state dict to the names of `field.Decoder`."""
    plain = {}
    for name, value in state.items():
        short = name.removeprefix(PARALLEL)
        for newer, older in NEWER_NAMES.items():
            short = short.replace(newer, older)
        plain[short] = value
    return plain


def plain_codes(found: Any, where: PathLike) -> Tensor:
    """Read codes, (case, code), from a state dict, a tensor, or the (case, 1, code) of DeepSDF's first version.

    Raises:
        ExperimentError: The content is none of these.
    """
    if isinstance(found, Mapping):
        found = next((value for name, value in found.items() if name.removeprefix(PARALLEL) == "weight"), None)
    if isinstance(found, list) and found and all(is_plain(code) for code in found):
        found = torch.cat([code.reshape(1, -1) for code in found])
    if isinstance(found, Tensor) and found.ndim == 3 and found.shape[1] == 1:
        found = found[:, 0]
    if not isinstance(found, Tensor) or found.ndim != 2:
        raise ExperimentError(
            "holds no table of codes",
            where=where,
            why="a row of numbers per case is needed",
            remedy="restore the file from a backup, or name another epoch",
        )
    return found


def plain_logs(logs: Mapping[str, Any]) -> dict[str, Any]:
    """Content of `Logs.pth` with numbers where the published code kept tensors of one number.

    Raises:
        TypeError, ValueError: They are no numbers.
    """
    return {**logs} | {"latent_magnitude": [float(value) for value in logs.get("latent_magnitude", [])]}


def plain_optimizer(found: Any, where: PathLike) -> AdamState:
    """What a file holds as the state of Adam, if it has the structure of one; {} means that none was saved.

    Raises:
        ExperimentError: It has another structure.
    """
    if not isinstance(found, Mapping) or not _is_state(found.get("param_groups", []), found.get("state", {})):
        raise _misfit(where, "it is not the state of an optimiser")
    return cast(AdamState, found)


def load_optimizer(optimizer: torch.optim.Optimizer, state: AdamState, where: PathLike) -> None:
    """Load a saved state into a fresh Adam, whatever version of torch wrote it.

    Parameters are matched by their order, as torch does, and every shape must agree. The fresh Adam keeps its own way
    of computing (`foreach`, `fused`, `capturable`).

    Raises:
        ExperimentError: There is no state, it belongs to other parameters, or one of its numbers is not finite.
    """
    groups = state.get("param_groups", [])
    if [len(group["params"]) for group in groups] != [len(group["params"]) for group in optimizer.param_groups]:
        raise _misfit(where, "it has another number of parameters" if groups else "there is no optimiser state")
    own = [parameter for group in optimizer.param_groups for parameter in group["params"]]
    keys = [key for group in groups for key in group["params"]]
    for number, (parameter, key) in enumerate(zip(own, keys, strict=True)):
        entry = state.get("state", {}).get(key, {})
        if odd := _other_shape(entry, parameter):
            raise _misfit(where, f"parameter {number} has shape {tuple(parameter.shape)}, its state {odd}")
        for name, value in entry.items():
            if not torch.isfinite(torch.as_tensor(value)).all():
                raise _misfit(where, f"the {name} of parameter {number} has values that are not finite")
    merged = [
        saved | {name: fresh[name] for name in IMPLEMENTATION if name in fresh}
        for saved, fresh in zip(groups, optimizer.param_groups, strict=True)
    ]
    optimizer.load_state_dict({"state": state.get("state", {}), "param_groups": merged})


def _is_state(groups: object, entries: object) -> bool:
    """Whether values have the structure of Adam's groups of parameter numbers and of its entry for each number."""
    if not isinstance(groups, list) or not isinstance(entries, Mapping):
        return False
    if not all(isinstance(group, Mapping) and _are_numbers(group.get("params")) for group in groups):
        return False
    if not all(isinstance(entry, Mapping) for entry in entries.values()):
        return False
    values = (value for entry in entries.values() for value in entry.values())
    return all(is_plain(value) or isinstance(value, int | float) for value in values)


def _are_numbers(found: object) -> bool:
    return isinstance(found, list) and bool(found) and all(isinstance(number, int) for number in found)


def _other_shape(entry: Mapping[str, Any], parameter: Tensor) -> tuple[int, ...] | None:
    """Shape of a moment that differs from the parameter's; None if all agree."""
    moments: Iterable[Tensor] = (torch.as_tensor(value) for name, value in entry.items() if name != "step")
    return next((tuple(value.shape) for value in moments if value.shape != parameter.shape), None)


def _misfit(where: PathLike, why: str) -> ExperimentError:
    return ExperimentError(
        "its optimiser state does not fit its network",
        where=where,
        why=why,
        remedy="restore OptimizerParameters and specs.json as they were, or start a new experiment",
    )
