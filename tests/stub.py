"""A method that costs nothing, for tests of runs: its score is the scan's own intensity."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch

from anofield.data.brain import StrippedScan
from anofield.data.cohort.case import Case
from anofield.data.origin import Origin
from anofield.data.prepared import Prepared
from anofield.data.recipe import Recipe, recipe_for
from anofield.detect.fit import Fit
from anofield.detect.method import Analysis
from anofield.detect.options import BaselineOptions, RunOptions, ScoreOptions

FROM = Origin(people=3, contrast="T2w")
OPTIONS = BaselineOptions(score="bright", filters=ScoreOptions(minimum_mm=0, edge_mm=0, native_edge_mm=0))


@dataclass(frozen=True, kw_only=True)
class Stub:
    """Implements `anofield.detect.method.Method`; `started` is called with the number of every scan that it scores."""

    path: Path
    hash: str = "first"
    training_ids: Sequence[str] = ()
    training_contents: Sequence[str] = ()
    factor: float = 1.0
    origin: Origin = FROM
    fit: Fit | None = None
    started: Callable[[Prepared], object] | None = None

    name = "stub"
    device = torch.device("cpu")
    precision = "float32"
    epoch = None
    scores = ("bright",)
    own_recipe = "box"

    @property
    def recipe(self) -> Recipe:
        return recipe_for("box", 16).model_copy(update={"centers": (0.0, 0.3, 0.6)})

    def place(self, native: StrippedScan, prepared: Prepared) -> None:
        return None

    def analyse(self, prepared: Prepared, key: str, options: RunOptions, fit: Fit | None = None) -> Analysis:
        if self.started is not None:
            self.started(prepared)
        values = (prepared.intensity * np.float32(self.factor)).astype(np.float32)
        return Analysis(
            maps={"bright": values}, restoration=None, corrected=prepared, fit=self.fit, seconds={"score": 0.0}
        )


def cohort(folder: Path, save_brain: Callable[..., Path], count: int = 4, first: int = 0) -> list[Case]:
    """People `p0`, `p1`, … with a label of a few voxels each."""
    cases = []
    for number in range(first, first + count):
        image = save_brain(folder / f"p{number}.nii.gz", seed=number)
        label = np.zeros((24, 28, 22), np.float32)
        label[10:13, 12:15, 9:12] = 1
        cases.append(Case(f"p{number}", image, save_brain(folder / "labels" / f"p{number}.nii.gz", label)))
    return cases
