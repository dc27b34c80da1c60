"""Calibrations of a model, one per settings, side by side: `calibrations/<hash of the settings>.json`.

Healthy reference maps, where there are any, lie beside as `.npz`.
"""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

from anofield.detect.reference import Standard, read_reference
from anofield.errors import ExperimentError, UsageError
from anofield.typing import Json

CALIBRATIONS = "calibrations"  # folder
KEYS: dict[str, type | tuple[type, ...]] = {
    "quantile": (int, float),
    "thresholds": dict,
    "meaning": str,
    "options": dict,
    "model_hash": str,
}


@dataclass(frozen=True)
class Calibration:
    """One file: thresholds, and the settings and the model that they hold for.

    Attributes:
        path: Of the file.
        content: Of the file.
    """

    path: Path
    content: Json

    @cached_property
    def reference(self) -> Mapping[str, Standard]:
        """Voxel-wise healthy mean and SD per score, read at the first use; empty if it was calibrated without.

        Raises:
            ExperimentError: They are gone, damaged, or of another calibration.
        """
        named = self.content.get("reference")
        return read_reference(maps_path(self.path), named) if named else {}

    def differences(self, settings: Json, model_hash: str | None = None) -> list[str]:
        """What it was not made with, both values each; of the model as well if its hash is given."""
        found = [f"{name} was {old}, is {new}" for name, old, new in changes(self.content["options"], settings)]
        other = model_hash is not None and self.content["model_hash"] != model_hash
        return [*found, "the checkpoint"] if other else found


@dataclass(frozen=True)
class Calibrations:
    """All of one model.

    Attributes:
        found: Those that can be read, in the order of their names.
        damaged: What is wrong with the others.
    """

    found: tuple[Calibration, ...] = ()
    damaged: tuple[ExperimentError, ...] = ()

    def find(self, settings: Json, model_hash: str) -> Calibration | None:
        """The one of these settings and this model; None if there is none."""
        return next((one for one in self.found if not one.differences(settings, model_hash)), None)

    def pick(self, settings: Json, model_hash: str) -> Calibration | None:
        """The one of these settings and this model; None if the model was never calibrated.

        Raises:
            ExperimentError: The file that would hold it is damaged, or no other can be read.
            UsageError: It was calibrated with other options, whose thresholds mean nothing here.
        """
        chosen = self.find(settings, model_hash)
        if chosen is not None:
            return chosen
        meant = calibration_path(Path(), settings).name
        for damage in self.damaged:
            if not self.found or Path(damage.where).name == meant:
                raise damage
        if not self.found:
            return None
        nearest = min(self.found, key=lambda one: len(one.differences(settings, model_hash)))
        raise UsageError(
            f"the model was calibrated otherwise: {', '.join(nearest.differences(settings, model_hash))}",
            where=nearest.path,
            why="a threshold holds only for the scores it was measured on"
            + (f"; of {len(self.found)} calibrations this is the nearest" if len(self.found) > 1 else ""),
            remedy="run `anofield calibrate` with these options, which leaves other calibrations as they are, or use "
            "the options it was calibrated with",
        )


def changes(before: Json, now: Json) -> list[tuple[str, object, object]]:
    """Name, former and present value of every option that differs; both by part (fit, filters, recipe)."""
    values = [(name, before.get(part, {}).get(name), now[part][name]) for part in now for name in now[part]]
    return [(name, old, new) for name, old, new in values if old != new]


def calibration_path(folder: Path, settings: Json) -> Path:
    """Where the calibration of some settings lies in the folder of a model."""
    content = json.dumps(settings, sort_keys=True)
    return folder / CALIBRATIONS / f"{hashlib.sha256(content.encode()).hexdigest()[:12]}.json"


def maps_path(path: Path) -> Path:
    """Where the reference maps of a calibration lie."""
    return path.with_suffix(".npz")


def read_calibrations(folder: Path) -> Calibrations:
    """All calibrations of a model, which lies in `folder`: an experiment or a baseline."""
    found, damaged = [], []
    for path in sorted(path for path in (folder / CALIBRATIONS).glob("*.json") if not path.name.startswith(".")):
        try:
            found.append(_read(path))
        except ExperimentError as error:
            damaged.append(error)
    return Calibrations(tuple(found), tuple(damaged))


def _read(path: Path) -> Calibration:
    remedy = "delete the file and run `anofield calibrate` again"
    content = read_object(path, remedy)
    missing = [key for key, kind in KEYS.items() if not isinstance(content.get(key), kind)]
    if missing or not all(isinstance(part, dict) for part in content["options"].values()):
        lacking = ", ".join(missing) or "options by part"
        raise ExperimentError(f"lacks {lacking}", where=path, why="it is damaged", remedy=remedy)
    wrong = [name for name, value in content["thresholds"].items() if not _finite(value)]
    if wrong:
        raise ExperimentError(
            f"has no number as threshold of {wrong[0]}", where=path, why="it is damaged", remedy=remedy
        )
    return Calibration(path, content)


def _finite(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)


def read_object(path: Path, remedy: str) -> Json:
    """The JSON object in a file.

    Raises:
        ExperimentError: It cannot be read, or holds something else.
    """
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise ExperimentError(f"cannot be read ({error})", where=path, remedy=remedy) from error
    if not isinstance(content, dict):
        raise ExperimentError("holds no JSON object", where=path, why="it is damaged", remedy=remedy)
    return content
