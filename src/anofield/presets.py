"""Named `specs.json` that come with the package; one JSON file each in `presets/`."""

from __future__ import annotations

import json
from importlib import resources

from anofield.errors import UsageError
from anofield.experiment import Specs

PRESETS = ("default", "ifl2021-160", "ifl2021-full")  # the last two: Naval Marimont & Tarroni 2021


def preset(name: str) -> Specs:
    """The specs of a name; their `DataSource` is a placeholder.

    Raises:
        UsageError: No preset has that name.
    """
    if name not in PRESETS:
        raise UsageError(f"unknown preset {name!r}", remedy=f"use one of {', '.join(PRESETS)}")
    text = resources.files("anofield").joinpath("presets", f"{name}.json").read_text(encoding="utf-8")
    return Specs.model_validate(json.loads(text))
