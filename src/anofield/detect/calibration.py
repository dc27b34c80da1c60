"""Calibrations of a method, one per set of options, side by side: `calibrations/<hash of the options>.json`.

Healthy reference maps, if there are any, are in an `.npz` file of the same name.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ConfigDict, Field, FiniteFloat

from anofield._files import read_json
from anofield.detect.method import Method
from anofield.detect.options import PRESETS, RunOptions, Tail
from anofield.detect.reference import Standard, read_reference
from anofield.detect.run_folder import Record
from anofield.detect.tail import settled
from anofield.errors import ExperimentError, UsageError

FOLDER = "calibrations"
AGAIN = "delete the file and run `anofield calibrate` again"


class Kept(BaseModel):
    """Reliability of a threshold with this number of subjects."""

    model_config = ConfigDict(frozen=True, use_attribute_docstrings=True)

    score: str
    """Score of the threshold."""
    share_above: list[float]
    """Share of the brain above the threshold, per subject."""
    mean: float
    """Mean of these shares."""
    interval: tuple[float, float] | None
    """95 % interval of the mean over new subjects (bootstrap); None for one subject alone."""


class CalibrationInfo(Record):
    """Content of one calibration file."""

    settings: str
    """Nearest preset, and the options that differ from it."""
    anofield: str
    """Version of this package."""
    quantile: float
    """Share of healthy brain voxels at or below the thresholds."""
    thresholds: dict[str, FiniteFloat]
    """Threshold per score."""
    meaning: str
    """One sentence that says what the thresholds promise."""
    kept: Kept
    """Reliability of the threshold of the main score."""
    cases: list[str]
    """Ids of the healthy cases."""
    contents: list[str] = Field(default_factory=list)
    """Hash of the content of every healthy scan, in the order of `cases`."""
    fit: dict[str, tuple[float, float, float]]
    """5th, 50th and 95th percentile of every diagnostic of the fit; empty for a method that fits nothing."""
    options: dict[str, Any]
    """Options that the thresholds were measured with."""
    model_hash: str
    """Hash of the method that the thresholds were measured with."""
    threads: int | None = None
    """CPU threads of torch in every process that worked; None in files of older versions."""
    reference: str | None = None
    """SHA-256 of the file with the reference maps."""


@dataclass(frozen=True)
class Settings:
    """Everything besides the method's weights that a calibration depends on.

    Attributes:
        options: Options of the run.
        recipe: Name of the recipe that scans are prepared with.
    """

    options: RunOptions
    recipe: str

    @property
    def plain(self) -> dict[str, Any]:
        """Settings as plain values, as written to the file."""
        return {**self.options.settings, "recipe": {"recipe": self.recipe}}

    def path(self, folder: Path) -> Path:
        """Path of the calibration in the folder of a method."""
        content = json.dumps(self.plain, sort_keys=True)
        return folder / FOLDER / f"{hashlib.sha256(content.encode()).hexdigest()[:12]}.json"

    def changes(self, before: Mapping[str, Any]) -> list[tuple[str, object, object]]:
        """Options that differ from earlier plain values: name, earlier value and present value.

        Parts that these settings do not have are ignored, for example `fit` for a method that fits nothing.
        """
        now = self.plain
        old, new = dict(_flat({part: before[part] for part in before if part in now})), dict(_flat(now))
        names = [*new, *(name for name in old if name not in new)]
        pairs = [(name.rpartition(".")[2], old.get(name), new.get(name)) for name in names]
        return [(name, was, now) for name, was, now in pairs if was != now]

    def described(self, own_recipe: str, own_tail: Tail = "bright") -> str:
        """The nearest preset of `anofield detect`, and the settings that differ from it.

        Args:
            own_recipe: Name of the recipe that the method was trained with; it is not mentioned.
            own_tail: Tail that `auto` means for the method; it is not mentioned either.
        """
        presets = {name: Settings(options.with_tail(own_tail), own_recipe).plain for name, options in PRESETS.items()}
        mine = Settings(self.options.with_tail(own_tail), self.recipe)
        differing = {name: mine.changes(preset) for name, preset in presets.items()}
        nearest = min(differing, key=lambda name: len(differing[name]))
        return ", ".join([nearest, *(f"{name} {now}" for name, _, now in differing[nearest])])


@dataclass(frozen=True, kw_only=True)
class Calibrated:
    """The calibration that a run uses, looked up once per run.

    Attributes:
        score: Main score of the run.
        thresholds: Threshold per score.
        quantile: Share of healthy brain voxels at or below the thresholds.
        meaning: One sentence that says what the thresholds promise.
        healthy_fit: 5th, 50th and 95th percentile of every diagnostic of the fit over healthy subjects.
        reference: Voxel-wise healthy mean and SD per score; empty if the scores are not standardised.
        contents: Ids of the healthy scans by the hash of their content.
        people: Number of the healthy scans.
    """

    score: str
    thresholds: Mapping[str, float]
    quantile: float
    meaning: str
    healthy_fit: Mapping[str, tuple[float, float, float]]
    reference: Mapping[str, Standard] = field(default_factory=dict)
    contents: Mapping[str, str] = field(default_factory=dict)
    people: int = 1

    @property
    def threshold(self) -> float | None:
        """Threshold of the main score; None if the calibration has none."""
        return self.thresholds.get(self.score)


@dataclass(frozen=True)
class Calibration:
    """A calibration file: thresholds with the options and the method that they were measured with.

    Attributes:
        path: Path of the file.
        info: Content of the file.
    """

    path: Path
    info: CalibrationInfo

    def differences(self, settings: Settings, model_hash: str) -> list[str]:
        """Differences from this calibration as texts: settings with both values, and the checkpoint if it differs."""
        found = [f"{name} was {was}, is {now}" for name, was, now in settings.changes(self.info.options)]
        return [*found, "the checkpoint"] if self.info.model_hash != model_hash else found

    def calibrated(self, score: str) -> Calibrated:
        """Thresholds and reference maps for a run with this main score.

        Raises:
            ExperimentError: The reference maps are missing, damaged, or belong to another calibration.
        """
        info = self.info
        maps = read_reference(maps_path(self.path), info.reference) if info.reference else {}
        return Calibrated(
            score=score,
            thresholds=info.thresholds,
            quantile=info.quantile,
            meaning=info.meaning,
            healthy_fit=info.fit,
            reference=maps,
            contents=dict(zip(info.contents, info.cases, strict=False)),
            people=max(len(info.cases), 1),
        )


@dataclass(frozen=True)
class Calibrations:
    """All calibrations of one method that are on disk now.

    Attributes:
        found: Calibrations that can be read, in the order of their file names.
        damaged: Errors of the files that cannot be read.
    """

    found: tuple[Calibration, ...] = ()
    damaged: tuple[ExperimentError, ...] = ()

    def find(self, settings: Settings, model_hash: str) -> Calibration | None:
        """The calibration with these settings of this method; None if there is none."""
        return next((one for one in self.found if not one.differences(settings, model_hash)), None)

    def pick(self, settings: Settings, model_hash: str) -> Calibration | None:
        """The calibration with these settings of this method; None if the method was never calibrated.

        Raises:
            ExperimentError: The file of the calibration is damaged, or none of the existing files can be read.
            UsageError: The method was calibrated only with other options, whose thresholds are not valid for these.
        """
        chosen = self.find(settings, model_hash)
        if chosen is not None:
            return chosen
        for damage in self.damaged:
            if not self.found or Path(damage.where).name == settings.path(Path()).name:
                raise damage
        if not self.found:
            return None
        nearest = min(self.found, key=lambda one: len(one.differences(settings, model_hash)))
        others = f"; this is the nearest of {len(self.found)} calibrations" if len(self.found) > 1 else ""
        raise UsageError(
            f"the model was calibrated with other options: {', '.join(nearest.differences(settings, model_hash))}",
            where=nearest.path,
            why=f"a threshold is valid only for the options that it was measured with{others}",
            remedy="run `anofield calibrate` with these options, which keeps other calibrations, or use the options it "
            "was calibrated with",
        )


def settings_of(method: Method, options: RunOptions) -> Settings:
    """Settings of a calibration for this run."""
    return Settings(settled(options, method), method.recipe.name)


def is_calibrated(method: Method, options: RunOptions) -> bool:
    """Whether there is a calibration of this method with exactly these options."""
    return read_calibrations(method.path).find(settings_of(method, options), method.hash) is not None


def look_up(method: Method, options: RunOptions) -> Calibrated | None:
    """The calibration that a run uses, read from disk now; None if the method was never calibrated.

    Raises:
        UsageError: The method was calibrated only with other options, or the options ask for a standardised score and
            there are no reference maps.
        ExperimentError: The calibration or its reference maps are damaged.
    """
    calibration = read_calibrations(method.path).pick(settings_of(method, options), method.hash)
    found = None if calibration is None else calibration.calibrated(options.score)
    if options.filters.standardise and not (found and found.reference):
        raise UsageError(
            "standardise needs healthy reference maps, and the model has none",
            where=method.path,
            remedy="run `anofield calibrate` with the same options first",
        )
    return found


def maps_path(path: Path) -> Path:
    """Path of the reference maps of a calibration."""
    return path.with_suffix(".npz")


def read_calibrations(folder: Path) -> Calibrations:
    """All calibrations in the folder of a method."""
    found, damaged = [], []
    for path in sorted(path for path in (folder / FOLDER).glob("*.json") if not path.name.startswith(".")):
        try:
            info = read_json(path, CalibrationInfo, remedy=AGAIN, error=ExperimentError)
            found.append(Calibration(path, info))
        except ExperimentError as error:
            damaged.append(error)
    return Calibrations(tuple(found), tuple(damaged))


def _flat(values: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, object]]:
    """Options by their full names, `part.name`."""
    for name, value in values.items():
        if isinstance(value, Mapping):
            yield from _flat(value, f"{prefix}{name}.")
        else:
            yield f"{prefix}{name}", value
