"""`anofield info`: versions, devices, verbs."""

from __future__ import annotations

import json
import platform
import sys
from typing import Any

from anofield import __version__
from anofield.cli._options import Json


def command(json_: Json = False) -> None:
    """Say which versions, devices and verbs there are."""
    content = _collect()
    if json_:
        sys.stdout.write(json.dumps(content, indent=2) + "\n")
        return
    lines = [f"anofield {content['anofield']} · Python {content['python']} · {content['platform']}"]
    lines.append("packages  " + " · ".join(f"{name} {version or '–'}" for name, version in content["packages"].items()))
    lines.append("devices   " + " · ".join(content["devices"]))
    lines.append("verbs     " + " · ".join(content["verbs"]))
    sys.stdout.write("\n".join(lines) + "\n")


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
