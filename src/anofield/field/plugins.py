"""Fields that `NetworkArch` can name: the published decoder, and those that other packages install."""

from __future__ import annotations

from importlib.metadata import EntryPoint, entry_points
from typing import cast

import torch
from torch import nn

from anofield.errors import UsageError
from anofield.field.decoder import FieldModule
from anofield.field.specs import DECODER, Specs

GROUP = "anofield.fields"  # entry points: name = "package.module:callable", from `Specs` to a `FieldModule`


def known_fields() -> list[str]:
    """Every allowed value of `NetworkArch`; another package cannot use the name of the published decoder."""
    return [DECODER, *(name for name in _installed() if name != DECODER)]


def installed_field(specs: Specs) -> FieldModule:
    """Build the field of another package that `NetworkArch` names, with fresh weights.

    Args:
        specs: Specs for the package's callable, which builds a field of `CodeLength` and `dim_out` classes.

    Raises:
        UsageError: No package installs a field of that name, it cannot be imported or built, it is not a torch module
            with the attributes of `FieldModule`, or its sizes differ from the specs.
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
            remedy="fix or uninstall the package that provides it",
        ) from error
    return cast(FieldModule, found)


def _installed() -> dict[str, EntryPoint]:
    return {point.name: point for point in entry_points(group=GROUP)}


def _check(point: EntryPoint, found: object, specs: Specs) -> None:
    """Check that an object is a field with the sizes of these specs."""
    if not isinstance(found, nn.Module):
        raise UsageError(f"the field {point.name!r} is not a torch module", where=point.value)
    field = cast(FieldModule, found)
    expected = {"code_length": specs.code_length, "classes": specs.network_specs.dim_out}
    for name, value in expected.items():
        if getattr(field, name) != value:
            raise UsageError(
                f"the field {point.name!r} has {name} {getattr(field, name)}, specs.json says {value}",
                where=point.value,
                remedy="build it from the specs that the callable gets",
            )
    if (shape := _decoded_shape(field)) != (1, 2, field.classes):
        raise UsageError(
            f"the field {point.name!r} gives logits of shape {shape} for one case and two points",
            where=point.value,
            remedy=f"return (case, point, class), here (1, 2, {field.classes})",
        )


def _decoded_shape(field: FieldModule) -> tuple[int, ...]:
    """Shape of the logits of one case at two points; the field keeps its training mode."""
    training = field.training
    with torch.no_grad():
        logits = field.eval().logits(torch.zeros(1, 2, 3), torch.zeros(1, field.code_length))
    field.train(training)
    return tuple(logits.shape)
