"""Presets: named `specs.json` files that come with the package, one JSON file each in `presets/`."""

from __future__ import annotations

import json
from importlib import resources
from pathlib import Path

from anofield.data.store import Store
from anofield.errors import UsageError
from anofield.field.experiment import Experiment
from anofield.field.specs import Specs
from anofield.typing import PathLike

PRESETS = ("default", "ifl2021-160", "ifl2021-full")  # the last two: Naval Marimont & Tarroni 2021


def preset(name: str) -> Specs:
    """Read a preset; its `DataSource` is a placeholder.

    Raises:
        UsageError: No preset has that name.
    """
    if name not in PRESETS:
        raise UsageError(f"unknown preset {name!r}", remedy=f"use one of {', '.join(PRESETS)}")
    text = resources.files("anofield.field").joinpath("presets", f"{name}.json").read_text(encoding="utf-8")
    return Specs.model_validate(json.loads(text))


def start_experiment(path: PathLike, name: str, store: Store) -> Experiment:
    """Create an experiment from a preset, or open it if it was created from the same preset.

    Args:
        path: Experiment directory.
        name: Name of the preset.
        store: Store that it will be trained on; its number of classes becomes `dim_out`.

    Raises:
        UsageError: No preset has that name, or the directory holds other specs.
    """
    specs = preset(name)
    shape = specs.network_specs.model_copy(update={"dim_out": len(store.recipe.centers)})
    specs = specs.model_copy(update={"data_source": str(store.path.resolve()), "network_specs": shape})
    if not (Path(path) / "specs.json").is_file():
        return Experiment.create(path, specs)
    found = Experiment(path)
    network = ("network_arch", "network_specs", "code_length")
    if any(getattr(found.specs, key) != getattr(specs, key) for key in network):
        raise UsageError(
            f"its specs.json describes another network than --preset {name}",
            where=path,
            remedy="leave out --preset to train the existing experiment, or choose another directory",
        )
    return found
