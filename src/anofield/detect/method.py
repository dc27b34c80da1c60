"""What a run needs of a method: something that scores a prepared scan, the options of the run, what comes back."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Protocol

import torch
from pydantic import BaseModel, ConfigDict, Field

from anofield.data.prepare import Prepared, Recipe
from anofield.detect.calibration import Calibrations
from anofield.detect.fit import FitOptions
from anofield.detect.scores import ScoreOptions
from anofield.typing import FloatVolume, Json


class RunOptions(BaseModel):
    """What every run depends on besides scan and method.

    Attributes:
        score: The anomaly map and the detection are made from this score.
        also: Further scores, written as `score-<name>.nii.gz` through the same filters.
        filters: Of the scores.
        fit: Of the code; None for a method that fits none.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    score: str
    also: tuple[str, ...] = ()
    filters: ScoreOptions = Field(default_factory=ScoreOptions)
    fit: FitOptions | None = None

    @property
    def names(self) -> list[str]:
        """All scores, the main one first, each once."""
        return list(dict.fromkeys([self.score, *self.also]))

    @property
    def settings(self) -> Json:
        """The options that a calibration depends on, as plain values."""
        parts = {"fit": self.fit, "filters": self.filters}
        return {name: part.model_dump(mode="json") for name, part in parts.items() if part is not None}


@dataclass(frozen=True)
class Analysis:
    """What a method says about one scan, on its lattice.

    Attributes:
        maps: Score per name before any filter, (R, R, R) float32.
        restoration: Healthy version of the scan in normalised intensity, (R, R, R); None if the method has none.
        seconds: Per stage.
    """

    maps: dict[str, FloatVolume]
    restoration: FloatVolume | None
    seconds: dict[str, float] = field(default_factory=dict)


class Scorer(Protocol):
    """A trained method other than the field; `anofield.field.model.Model` has the same attributes."""

    @property
    def path(self) -> Path:
        """Its folder, which holds its calibrations."""

    @property
    def recipe(self) -> Recipe:
        """How scans are prepared for it."""

    @property
    def calibrations(self) -> Calibrations:
        """Thresholds per settings, empty if it is not calibrated."""

    @property
    def hash(self) -> str:
        """Of all that training left behind."""

    @property
    def device(self) -> torch.device:
        """Where it computes."""

    @property
    def training_ids(self) -> Sequence[str]:
        """Cases that it was trained on."""

    def analyse(self, prepared: Prepared, key: str, options: RunOptions) -> Analysis:
        """Score one scan under every name of the options; `key` is the case id, from which randomness is seeded."""
