"""Fields that `NetworkArch` can name: the published decoder, and those that other packages install."""

from __future__ import annotations

from typing import cast

import torch
from torch import nn

from anofield._plugins import Plugin, installed
from anofield.errors import UsageError
from anofield.field.decoder import FieldModule
from anofield.field.specs import DECODER, Specs

POINTS = torch.tensor([[0.0, 0.0, 0.0], [-1.0, -1.0, -1.0], [1.0, 0.5, -0.5]])  # of the check of a new field


def known_fields() -> list[str]:
    """Every allowed value of `NetworkArch`; another package cannot use the name of the published decoder."""
    return [DECODER, *installed("field", own=[DECODER])]


def installed_field(specs: Specs) -> FieldModule:
    """Build the field of another package that `NetworkArch` names, with fresh weights.

    Args:
        specs: Specs for the package's callable, which builds a field of `CodeLength` and `dim_out` classes.

    Raises:
        UsageError: No package installs a field of that name, it cannot be imported or built, it is not a torch module
            with the attributes of `FieldModule`, its sizes differ from the specs, or its logits are not finite.
    """
    plugin = installed("field", own=[DECODER]).get(specs.network_arch)
    if plugin is None:
        raise UsageError(
            f"NetworkArch: unknown field {specs.network_arch!r}",
            why=f"known here: {', '.join(known_fields())}",
            remedy="install the package that provides it, or name a known one",
        )
    build = plugin.load()
    with plugin.blamed("cannot be built"):
        found = build(specs)
    if not isinstance(found, nn.Module):
        raise plugin.refused("is not a torch module")
    field = cast(FieldModule, found)
    with plugin.blamed("cannot be used"):
        _check(plugin, field, specs)
    return field


def _check(plugin: Plugin, field: FieldModule, specs: Specs) -> None:
    """Check that a field has the sizes of these specs, and gives finite logits; it keeps its training mode."""
    expected = {"code_length": specs.code_length, "classes": specs.network_specs.dim_out}
    for name, value in expected.items():
        if getattr(field, name) != value:
            raise plugin.refused(f"has {name} {getattr(field, name)}, specs.json says {value}")
    training = field.training
    with torch.no_grad():
        logits = field.eval().logits(POINTS[None], torch.zeros(1, field.code_length))
    field.train(training)
    if (shape := tuple(logits.shape)) != (1, len(POINTS), field.classes):
        wanted = f"(case, point, class), here (1, {len(POINTS)}, {field.classes})"
        raise plugin.refused(f"gives logits of the shape {shape}, not {wanted}")
    if not torch.isfinite(logits).all():
        raise plugin.refused("gives logits that are not finite with fresh weights")
