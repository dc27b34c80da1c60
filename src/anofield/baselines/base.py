"""What a baseline is: trained on a store of healthy people, it scores a prepared scan on the lattice."""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import ClassVar

import numpy as np
import torch
from pydantic import BaseModel, ConfigDict, Field
from torch import Tensor

from anofield.data.prepare import Prepared, Recipe, RecipeName
from anofield.data.store import Store
from anofield.detect.scores import Tail
from anofield.typing import Classes, FloatVolume, Mask

State = dict[str, Tensor]
LEFT_RIGHT: dict[RecipeName, int] = {"box": 0, "ifl2021-hcp": 2, "ifl2021-brats": 2}  # lattice axis; the box is RAS+,
AXIAL: dict[RecipeName, int] = {"box": 2, "ifl2021-hcp": 0, "ifl2021-brats": 0}  # the published ones are transposed


class Settings(BaseModel):
    """What a user may set about the training of a baseline; a baseline adds its own.

    Attributes:
        seed: Of everything random.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    seed: int = Field(default=0, ge=0)


@dataclass(frozen=True)
class Scored:
    """What a baseline says about one scan.

    Attributes:
        anomaly: Higher where it is less like the healthy people, (R, R, R) float32, any unit.
        restoration: Healthy version of the scan in normalised intensity, (R, R, R) float32; None if there is none.
    """

    anomaly: FloatVolume
    restoration: FloatVolume | None = None


class Baseline(ABC):
    """One method. A subclass names itself and its paper, trains, scores, and says what training left behind.

    Args:
        recipe: How its scans are prepared.
        settings: Of the class `settings_type`.
        device: Where it computes.

    Attributes:
        title: The method in a few words.
        paper: Where it comes from.
        settings_type: Its settings.
        losses: Of the training, averaged over about twenty equal parts of it; empty if it minimises nothing.
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
        """Learn from the complete cases of a store, all of them healthy."""

    def state(self) -> State:
        """What training left behind, tensors only."""
        return {}

    def restore(self, state: State) -> None:  # noqa: B027 - some methods learn nothing
        """Take up what `state` gave.

        Raises:
            KeyError, RuntimeError: It is the state of something else.
        """

    @abstractmethod
    def score(self, prepared: Prepared, key: str, tail: Tail) -> Scored:
        """Score one scan.

        Args:
            prepared: On the lattice of the recipe.
            key: Case id; with the seed, the source of anything random.
            tail: Which departures count.
        """


def observed(classes: Classes, brain: Mask, recipe: Recipe) -> FloatVolume:
    """Intensity that a class stands for, (R, R, R) float32, 0 outside the brain.

    A store keeps classes and no intensities, so the baselines learn from, and look at, what the field does.
    """
    values = np.asarray(recipe.centers, dtype=np.float32)[classes]
    return np.where(brain, values, np.float32(0)).astype(np.float32)


def observed_in(store: Store, index: int) -> FloatVolume:
    """`observed` of a stored case."""
    return observed(store.classes(index), store.brain(index) > 0, store.recipe)


def tail_of(residual: FloatVolume, tail: Tail) -> FloatVolume:
    """The part of a residual (observed − expected) that counts, never negative."""
    if tail == "both":
        return np.abs(residual)
    return np.maximum(residual if tail == "bright" else -residual, np.float32(0))
