"""Which fields there are: the published decoder, and those that other packages install; `NetworkArch` chooses."""

from __future__ import annotations

from importlib.metadata import EntryPoint, entry_points
from typing import cast

import torch
from torch import nn

from anofield.errors import UsageError
from anofield.field.decoder import FieldModule
from anofield.field.experiment import DECODER, Specs

GROUP = "anofield.fields"  # entry points: name = "package.module:callable", from `Specs` to a `FieldModule`


def known_fields() -> list[str]:
    """Every value of `NetworkArch`; the name of the published decoder cannot be taken by another."""
    return [DECODER, *(name for name in _installed() if name != DECODER)]


def installed_field(specs: Specs) -> FieldModule:
    """The field of another package that `NetworkArch` names, with fresh weights.

    Args:
        specs: Given to the package's callable as they are; it builds a field of `CodeLength` and `dim_out` classes.

    Raises:
        UsageError: No package installs one of that name, it cannot be imported or built, is no torch module with the
            attributes of `FieldModule`, or has other sizes than the specs say.
    """
    point = _installed().get(specs.network_arch)
    if point is None:
        raise UsageError(
            f"NetworkArch: unknown field {specs.network_arch!r}",
            why=f"known here: {', '.join(known_fields())}",
            remedy="install the package that provides it, or name a known one",
        )
    try:
        found = point.load()(specs)
        _check(point, found, specs)
    except (ImportError, AttributeError, TypeError, ValueError, RuntimeError) as error:
        told = str(error).partition("\n")[0]
        raise UsageError(
            f"the field {point.name!r} cannot be made ({type(error).__name__}: {told})",
            where=point.value,
            remedy="mend or uninstall the package that provides it",
        ) from error
    return cast(FieldModule, found)


def _installed() -> dict[str, EntryPoint]:
    return {point.name: point for point in entry_points(group=GROUP)}


def _check(point: EntryPoint, found: object, specs: Specs) -> None:
    """Refuse what is no field of these specs."""
    if not isinstance(found, nn.Module):
        raise UsageError(f"the field {point.name!r} is no torch module", where=point.value)
    field = cast(FieldModule, found)
    expected = {"code_length": specs.code_length, "classes": specs.network_specs.dim_out}
    for name, value in expected.items():
        if getattr(field, name) != value:
            raise UsageError(
                f"the field {point.name!r} has {name} {getattr(field, name)}, its specs.json says {value}",
                where=point.value,
                remedy="build it from the specs that it is given",
            )
    if (shape := _decoded_shape(field)) != (1, 2, field.classes):
        raise UsageError(
            f"the field {point.name!r} gives logits of shape {shape} for one case and two points",
            where=point.value,
            remedy=f"return (case, point, class), here (1, 2, {field.classes})",
        )


def _decoded_shape(field: FieldModule) -> tuple[int, ...]:
    """Shape of the logits of one case at two points; leaves the field in its mode."""
    training = field.training
    with torch.no_grad():
        logits = field.eval().logits(torch.zeros(1, 2, 3), torch.zeros(1, field.code_length))
    field.train(training)
    return tuple(logits.shape)
