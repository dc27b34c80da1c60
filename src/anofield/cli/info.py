"""`anofield info`: versions, devices, verbs; with a model, its calibrations."""

from __future__ import annotations

import json
import platform
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from anofield import __version__
from anofield._words import counted
from anofield.cli._options import Json

if TYPE_CHECKING:
    from anofield.detect.calibration import Calibration

Model = Annotated[Path | None, typer.Argument(help="Experiment or baseline, to list its calibrations.")]


def command(model: Model = None, json_: Json = False) -> None:
    """Say which versions, devices and verbs there are; with a model, how it is calibrated."""
    content = _collect() if model is None else _calibrations(model)
    if json_:
        sys.stdout.write(json.dumps(content, indent=2) + "\n")
        return
    sys.stdout.write("\n".join(_lines(content) if model is None else _calibration_lines(content)) + "\n")


def _lines(content: dict[str, Any]) -> list[str]:
    lines = [f"anofield {content['anofield']} · Python {content['python']} · {content['platform']}"]
    lines.append("packages  " + " · ".join(f"{name} {version or '–'}" for name, version in content["packages"].items()))
    lines.append("devices   " + " · ".join(content["devices"]))
    return [*lines, "verbs     " + " · ".join(content["verbs"])]


def _calibration_lines(content: dict[str, Any]) -> list[str]:
    if not content["calibrations"] and not content["damaged"]:
        return [f"{content['model']}: not calibrated"]
    count = len(content["calibrations"])
    lines = [f"{content['model']}: {counted(count, 'calibration')}"]
    for one in content["calibrations"]:
        about = [counted(one["people"], "person", "people"), f"quantile {one['quantile']}", one["date"], one["file"]]
        about += [] if one["holds"] else ["of another checkpoint"]
        lines.append(f"  {one['settings']}: {' · '.join(about)}")
    return [*lines, *(f"  damaged: {error}" for error in content["damaged"])]


def _calibrations(model: Path) -> dict[str, Any]:
    """The calibrations of an experiment or a baseline.

    Raises:
        ExperimentError: It is neither, or damaged.
    """
    from anofield.baselines.run import ABOUT_FILE, identity
    from anofield.detect.calibration import read_calibrations
    from anofield.field.experiment import Experiment
    from anofield.field.model import read_recipe

    if (model / ABOUT_FILE).is_file():
        recipe, hash_ = identity(model)
    else:
        hash_, recipe = Experiment(model).model_hash(), read_recipe(model).name
    every = read_calibrations(model)
    return {
        "model": str(model),
        "calibrations": [_about(one, model, recipe, hash_) for one in every.found],
        "damaged": [str(error) for error in every.damaged],
    }


def _about(one: Calibration, model: Path, recipe: str, hash_: str) -> dict[str, Any]:
    """What there is to say of a calibration; `holds` unless it is of another checkpoint than the latest."""
    from anofield.detect.calibrate import described

    return {
        "settings": described(one.content["options"], recipe),
        "people": len(one.content.get("cases", ())),
        "quantile": one.content["quantile"],
        "date": time.strftime("%Y-%m-%d %H:%M", time.localtime(one.path.stat().st_mtime)),
        "file": str(one.path.relative_to(model)),
        "holds": one.content["model_hash"] == hash_,
    }


def _collect() -> dict[str, Any]:
    from anofield.cli import app

    names = ("numpy", "scipy", "nibabel", "nilearn", "torch", "zarr", "pydantic", "distributed", "monai", "tensorboard")
    return {
        "anofield": __version__,
        "python": platform.python_version(),
        "platform": platform.platform(terse=True),
        "packages": {name: _version(name) for name in names},
        "devices": _devices(),
        "verbs": [str(verb.name) for verb in app.registered_commands],
    }


def _version(name: str) -> str | None:
    from importlib.metadata import PackageNotFoundError, version

    try:
        return version(name)
    except PackageNotFoundError:
        return None


def _devices() -> list[str]:
    """Compute devices, found in a subprocess-free way that imports torch only here."""
    import torch

    found = [f"cpu ({torch.get_num_threads()} threads)"]
    found += [f"cuda:{i} ({torch.cuda.get_device_name(i)})" for i in range(torch.cuda.device_count())]
    return found + (["mps"] if torch.backends.mps.is_available() else [])
