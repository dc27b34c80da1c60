"""Baselines that learn statistics of healthy volumes: voxel-wise z-score atlas, principal components."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import torch
from numpy.typing import NDArray
from pydantic import Field

from anofield._progress import track
from anofield.baselines.base import Baseline, Scored, Settings, State, observed, observed_in, tail_of
from anofield.data.prepared import Prepared
from anofield.data.store import Store
from anofield.detect.options import Tail
from anofield.typing import FloatVolume

MIN_PEOPLE = 3  # with fewer subjects at a voxel its spread is unknown: the value over all brain voxels is used
SD_FLOOR = 0.02  # normalised intensity, a sixth of a brain's interquartile range; limits scores where SD is tiny


class ZScore(Baseline):
    """Distance of each voxel from the healthy mean at its position, in healthy standard deviations."""

    title = "voxel-wise z-score atlas"
    paper = "Stamatakis & Tyler 2005, Brain and Language 94:167 (each subject against a control group)"

    mean: FloatVolume
    sd: FloatVolume

    def train(self, store: Store) -> None:
        """Compute mean and standard deviation at each voxel, over the subjects with brain there."""
        shape = (store.resolution,) * 3
        count, total, square = (np.zeros(shape) for _ in range(3))
        done = store.require_cases(2)
        for index in track(done, "z-score", len(done)):
            values = observed_in(store, index).astype(np.float64)
            count += store.brain(index) > 0
            total += values
            square += values**2
        self.mean, self.sd = _moments(count, total, square)

    def state(self) -> State:
        """Mean and standard deviation, (R, R, R)."""
        return {"mean": torch.from_numpy(self.mean), "sd": torch.from_numpy(self.sd)}

    def restore(self, state: State) -> None:
        """Load the two volumes."""
        self.mean, self.sd = state["mean"].numpy(), state["sd"].numpy()

    def score(self, prepared: Prepared, key: str, tail: Tail) -> Scored:
        """Score a scan by (x − mean)/SD; the restoration is the mean."""
        values = observed(prepared.classes, prepared.brain, self.recipe)
        deviation = ((values - self.mean) / np.maximum(self.sd, SD_FLOOR)).astype(np.float32)
        return Scored(tail_of(deviation, tail), self.mean)


class PcaSettings(Settings):
    """Settings of the principal component fit.

    Attributes:
        components: Largest number of components; at most one less than the number of subjects is used.
    """

    components: int = Field(default=16, ge=1)


class Pca(Baseline):
    """Part of a scan that the principal components of healthy volumes do not explain."""

    title = "residual of principal components"
    paper = "Erus, Zacharaki & Davatzikos 2014, Medical Image Analysis 18:542"
    settings_type = PcaSettings

    settings: PcaSettings
    inside: NDArray[np.bool_]  # (R, R, R), voxels where any subject has brain
    mean: NDArray[np.float32]  # (voxel,)
    components: NDArray[np.float32]  # (component, voxel), orthonormal

    def train(self, store: Store) -> None:
        """Compute the components incrementally (Ross et al. 2008), so that the cohort need not fit into memory."""
        from sklearn.decomposition import IncrementalPCA

        done = store.require_cases(2)
        self.inside = np.zeros((store.resolution,) * 3, dtype=bool)
        for index in done:
            self.inside |= store.brain(index) > 0
        wanted = self.settings.components
        model = IncrementalPCA(n_components=min(wanted, len(done) - 1))
        for part in _parts(done, 2 * wanted, model.n_components):
            model.partial_fit(np.stack([observed_in(store, i)[self.inside] for i in part]).astype(np.float64))
        self.mean = model.mean_.astype(np.float32)
        self.components = model.components_.astype(np.float32)

    def state(self) -> State:
        """Voxels, mean and components."""
        arrays = {"inside": self.inside, "mean": self.mean, "components": self.components}
        return {name: torch.from_numpy(array) for name, array in arrays.items()}

    def restore(self, state: State) -> None:
        """Load the arrays."""
        self.inside, self.mean, self.components = (state[n].numpy() for n in ("inside", "mean", "components"))

    def score(self, prepared: Prepared, key: str, tail: Tail) -> Scored:
        """Score a scan by its difference from its projection on the components; the restoration is the projection."""
        values = observed(prepared.classes, prepared.brain, self.recipe)
        centred = values[self.inside] - self.mean
        projected = np.zeros_like(values)
        projected[self.inside] = self.mean + (self.components @ centred) @ self.components
        return Scored(tail_of(np.where(self.inside, values - projected, 0).astype(np.float32), tail), projected)


def _moments(
    count: NDArray[np.float64], total: NDArray[np.float64], square: NDArray[np.float64]
) -> tuple[FloatVolume, FloatVolume]:
    """Mean and standard deviation (n − 1) per voxel; where few subjects have brain, those over all brain voxels."""
    n, every, squares = count.sum(), total.sum(), square.sum()
    known = count >= MIN_PEOPLE
    safe = np.where(known, count, 2.0)
    mean = np.where(known, total / safe, every / n)
    variance = np.where(known, (square - safe * mean**2) / (safe - 1), squares / n - (every / n) ** 2)
    return mean.astype(np.float32), np.sqrt(np.maximum(variance, 0)).astype(np.float32)


def _parts(items: list[int], size: int, least: int) -> Iterator[list[int]]:
    """Consecutive parts of `size` items; if the last would have fewer than `least`, it is joined to the one before."""
    while items:
        cut = size if len(items) - size >= least else len(items)
        yield items[:cut]
        items = items[cut:]
