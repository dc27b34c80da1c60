"""`anofield info`: versions, devices, verbs; with a model, its calibrations."""

from __future__ import annotations

import platform
import time
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from anofield._version import __version__
from anofield._words import counted
from anofield.cli._options import Json, print_result
from anofield.cli._tables import table
from anofield.cli._verbs import VERBS

if TYPE_CHECKING:
    from anofield.detect.calibration import Calibration

PACKAGES: tuple[str, ...] = ("numpy", "scipy", "nibabel", "nilearn", "torch", "numcodecs", "pydantic")
PACKAGES += ("distributed", "monai", "tensorboard")  # of extras
Model = Annotated[Path | None, typer.Argument(help="Experiment or baseline, to list its calibrations.")]


def command(model: Model = None, json_: Json = False) -> None:
    """Show versions, devices and verbs; with a model, its calibrations."""
    content = _collect() if model is None else _calibrations(model)
    print_result(content, "\n".join((_lines if model is None else _calibration_lines)(content)), as_json=json_)


def _lines(content: dict[str, Any]) -> list[str]:
    packages = " · ".join(f"{name} {version or '–'}" for name, version in content["packages"].items())
    about = [("packages", packages), *((name, " · ".join(content[name])) for name in ("devices", "verbs"))]
    return [f"anofield {content['anofield']} · Python {content['python']} · {content['platform']}", table(about)]


def _calibration_lines(content: dict[str, Any]) -> list[str]:
    lines = [f"{content['model']}: trained on {content['trained_on']}; tail {content['tail']}"]
    if not content["calibrations"] and not content["damaged"]:
        return [*lines, "not calibrated"]
    lines.append(counted(len(content["calibrations"]), "calibration"))
    rows = [_row(one) for one in content["calibrations"]]
    return [*lines, *([table(rows, indent=2)] if rows else []), *(f"  damaged: {one}" for one in content["damaged"])]


def _row(one: dict[str, Any]) -> tuple[str, ...]:
    holds = "" if one["holds"] else "made with another checkpoint"
    return (
        one["settings"],
        counted(one["people"], "subject"),
        f"quantile {one['quantile']}",
        one["date"],
        one["file"],
        holds,
    )


def _calibrations(model: Path) -> dict[str, Any]:
    """The calibrations of an experiment or a baseline.

    Raises:
        ExperimentError: The folder is neither, or it is damaged.
    """
    from anofield.baselines.run import ABOUT_FILE, identity, origin_of_baseline
    from anofield.detect.calibration import read_calibrations
    from anofield.detect.tail import tail_of_contrast
    from anofield.field.experiment import Experiment
    from anofield.field.provenance import read_origin

    if (model / ABOUT_FILE).is_file():
        hash_, origin = identity(model), origin_of_baseline(model)
    else:
        hash_, origin = Experiment(model).model_hash(), read_origin(model)
    every = read_calibrations(model)
    return {
        "model": str(model),
        "trained_on": "scans that it does not describe" if origin is None else str(origin),
        "tail": "chosen when it is opened" if origin is None else tail_of_contrast(origin.contrast),
        "calibrations": [_about(one, model, hash_) for one in every.found],
        "damaged": [str(error) for error in every.damaged],
    }


def _about(one: Calibration, model: Path, hash_: str) -> dict[str, Any]:
    """Facts of a calibration; `holds` is false if it was made with another checkpoint than the latest."""
    return {
        "settings": one.info.settings,
        "people": len(one.info.cases),
        "quantile": one.info.quantile,
        "date": time.strftime("%Y-%m-%d %H:%M", time.localtime(one.path.stat().st_mtime)),
        "file": str(one.path.relative_to(model)),
        "holds": one.info.model_hash == hash_,
    }


def _collect() -> dict[str, Any]:
    return {
        "anofield": __version__,
        "python": platform.python_version(),
        "platform": platform.platform(terse=True),
        "packages": {name: _version(name) for name in PACKAGES},
        "devices": _devices(),
        "verbs": list(VERBS),
    }


def _version(name: str) -> str | None:
    from importlib.metadata import PackageNotFoundError, version

    try:
        return version(name)
    except PackageNotFoundError:
        return None


def _devices() -> list[str]:
    """Compute devices; torch is imported here only."""
    import torch

    found = [f"cpu ({torch.get_num_threads()} threads)"]
    found += [f"cuda:{i} ({torch.cuda.get_device_name(i)})" for i in range(torch.cuda.device_count())]
    return found + (["mps"] if torch.backends.mps.is_available() else [])
