"""Base class of the baselines: trained on a store of healthy subjects, a baseline scores a scan on the lattice."""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import ClassVar

import numpy as np
import torch
from pydantic import BaseModel, ConfigDict, Field
from torch import Tensor

from anofield.data.prepared import Prepared
from anofield.data.recipe import Recipe
from anofield.data.store import Store
from anofield.detect.options import Tail
from anofield.typing import Classes, FloatVolume, Mask

State = dict[str, Tensor]


class Settings(BaseModel):
    """Settings of the training that all baselines have; a baseline may add its own.

    Attributes:
        seed: Seed of all random numbers.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    seed: int = Field(default=0, ge=0, lt=2**63)


@dataclass(frozen=True)
class Scored:
    """Result of a baseline for one scan.

    Attributes:
        anomaly: Anomaly map, (R, R, R) float32, any unit; higher where the scan is less like healthy subjects.
        restoration: Healthy version of the scan in normalised intensity, (R, R, R) float32; None if there is none.
    """

    anomaly: FloatVolume
    restoration: FloatVolume | None = None


class Baseline(ABC):
    """A baseline. A subclass defines its title and paper, scores scans, and, if it learns, trains and keeps its state.

    Args:
        recipe: Recipe that scans are prepared with.
        settings: Settings of the class `settings_type`; None for the defaults.
        device: Device of the computation; None for the CPU.

    Attributes:
        title: Name of the method in a few words.
        paper: Publication of the method.
        settings_type: Class of the settings.
        losses: Training loss, averaged over about twenty equal parts of the training; empty if there is no loss.
    """

    title: ClassVar[str]
    paper: ClassVar[str]
    settings_type: ClassVar[type[Settings]] = Settings

    def __init__(self, recipe: Recipe, settings: Settings | None = None, device: torch.device | None = None) -> None:
        self.recipe = recipe
        self.settings = settings or self.settings_type()
        self.device = device or torch.device("cpu")
        self.losses: list[float] = []

    def train(self, store: Store) -> None:  # noqa: B027 - some methods learn nothing
        """Train on the complete cases of a store of healthy subjects."""

    def state(self) -> State:
        """Trained state, as tensors by name."""
        return {}

    def restore(self, state: State) -> None:  # noqa: B027 - some methods learn nothing
        """Load a state that `state` returned.

        Raises:
            KeyError, RuntimeError, TypeError, ValueError: The state belongs to another baseline.
        """

    @abstractmethod
    def score(self, prepared: Prepared, key: str, tail: Tail) -> Scored:
        """Score one scan.

        Args:
            prepared: The scan on the lattice of the recipe.
            key: Hash of the scan's content; with the seed, it determines all random numbers.
            tail: Departures that count.
        """


def observed(classes: Classes, brain: Mask, recipe: Recipe) -> FloatVolume:
    """Intensities of the class centres, (R, R, R) float32, 0 outside the brain.

    A store keeps classes and no intensities, so the baselines train on and score the same data as the field.
    """
    values = np.asarray(recipe.centers, dtype=np.float32)[classes]
    return np.where(brain, values, np.float32(0)).astype(np.float32)


def observed_in(store: Store, index: int) -> FloatVolume:
    """Intensities of the class centres for a stored case, see `observed`."""
    return observed(store.classes(index), store.brain(index) > 0, store.recipe)


def tail_of(residual: FloatVolume, tail: Tail) -> FloatVolume:
    """Part of a residual (observed − expected) that lies in the chosen tail, never negative."""
    if tail == "both":
        return np.abs(residual)
    return np.maximum(residual if tail == "bright" else -residual, np.float32(0))
