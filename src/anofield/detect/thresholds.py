"""The calibration that the options of a run call for: its thresholds and its healthy reference maps."""

from __future__ import annotations

from collections.abc import Mapping

from anofield.detect.calibration import Calibration
from anofield.detect.method import RunOptions, Scorer
from anofield.detect.reference import Standard
from anofield.errors import UsageError
from anofield.field.model import Model
from anofield.typing import Json


def calibration_of(model: Model | Scorer, options: RunOptions) -> Calibration | None:
    """The calibration of these options; None if the model was never calibrated.

    Raises:
        UsageError: It was calibrated with other options alone, whose thresholds mean nothing here.
        ExperimentError: The calibration or its maps are damaged.
    """
    calibration = model.calibrations.pick(calibrated_settings(options, model), model.hash)
    if calibration is not None:
        _ = calibration.reference  # read now: a damaged file stops the run, not one case after the other
    return calibration


def is_calibrated(model: Model | Scorer, options: RunOptions) -> bool:
    """Whether the model has a calibration of these very options."""
    return model.calibrations.find(calibrated_settings(options, model), model.hash) is not None


def threshold_of(model: Model | Scorer, options: RunOptions, score: str | None = None) -> float | None:
    """The calibrated threshold of a score (default: the main one); None if the model was never calibrated.

    Raises:
        UsageError: It was calibrated with other options alone, whose thresholds mean nothing here.
        ExperimentError: The calibration or its maps are damaged.
    """
    value = calibrated_values(model, options).get("thresholds", {}).get(score or options.score)
    return None if value is None else float(value)


def calibrated_values(model: Model | Scorer, options: RunOptions) -> Json:
    """Content of the calibration of these options, empty if the model was never calibrated."""
    calibration = calibration_of(model, options)
    return {} if calibration is None else calibration.content


def calibrated_settings(options: RunOptions, model: Model | Scorer) -> Json:
    """The options that a calibration depends on, and the recipe that scans are prepared with, as plain values."""
    return {**options.settings, "recipe": {"recipe": model.recipe.name}}


def reference_of(model: Model | Scorer, options: RunOptions) -> Mapping[str, Standard]:
    """Healthy reference maps of the options' calibration.

    Raises:
        UsageError: The model was not calibrated with these options.
        ExperimentError: The maps cannot be read.
    """
    calibration = calibration_of(model, options)
    if calibration is None or not calibration.reference:
        raise UsageError(
            "standardise needs healthy reference maps, and the model has none",
            where=model.path,
            remedy="run `anofield calibrate` with the same options first",
        )
    return calibration.reference
