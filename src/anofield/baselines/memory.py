"""Feature memory: distance of a patch to the nearest patches of healthy subjects near the same place.

The lattice is divided into cells, and every cell remembers some healthy patches of its surroundings.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from pydantic import Field
from scipy import ndimage
from torch import Tensor

from anofield._progress import track
from anofield._random import seed_of
from anofield.baselines.base import Baseline, Scored, Settings, State, observed, observed_in, tail_of
from anofield.baselines.heads import voxel_mm
from anofield.baselines.patches import FEATURES, Cells, coreset, described, principal, spread
from anofield.data.prepared import Prepared
from anofield.data.published import lattice_side
from anofield.data.store import Store
from anofield.detect.options import Tail

PCA_PEOPLE, PCA_DRAWS = 32, 4  # people, and patches per cell of each, that give the principal components
PARTS = ("mean", "basis", "rows", "patches", "centers")  # of the state


class MemorySettings(Settings):
    """Settings of the memory; with the defaults, a head takes about 5 MB. Chosen on 6 phantom gliomas.

    Attributes:
        patches: Patches that a cell remembers.
        candidates: Patches from which a cell chooses them, over all people.
        components: Principal components that describe a patch.
        neighbours: Nearest patches whose distances and centres are averaged.
        window_mm: Distance from its cell up to which a patch may lie.
        coreset: Whether a cell chooses the patches that cover all candidates best, as PatchCore does, or evenly.
    """

    patches: int = Field(default=128, ge=1, le=1024)
    candidates: int = Field(default=512, ge=1, le=8192)
    components: int = Field(default=8, ge=1, le=FEATURES)
    neighbours: int = Field(default=64, ge=1, le=256)
    window_mm: float = Field(default=2.0, ge=0, le=100)
    coreset: bool = True


class Patches(NamedTuple):
    """Some patches.

    Attributes:
        cell: Number of the cell that each was drawn for, (n,).
        features: Description of each, (n, feature).
        center: Intensity in the middle of each, (n,).
    """

    cell: Tensor
    features: Tensor
    center: Tensor


class PatchMemory(Baseline):
    """Nearest healthy patches."""

    title = "nearest healthy patches"
    paper = "after PatchCore: Roth et al. 2022, CVPR (arXiv 2106.08265)"
    settings_type = MemorySettings

    settings: MemorySettings
    mean: Tensor  # (feature,)
    basis: Tensor  # (feature, component)
    rows: Tensor  # (cell,), row of the memory that serves a cell: its own, or that of the nearest cell that has one
    patches: Tensor  # (row, patch, component)
    centers: Tensor  # (row, patch), intensity in the middle of each patch

    def train(self, store: Store) -> None:
        """Remember random patches of all people; the result does not depend on the order of the people."""
        people = self._people(store)
        count = -(-self.settings.candidates // len(people))
        self.mean, self.basis = principal(
            torch.cat([self._drawn(store, i, PCA_DRAWS).features for i in people[:PCA_PEOPLE]]),
            self.settings.components,
        )
        drawn = []
        for index in track(people, "patches", len(people)):
            found = self._drawn(store, index, count)
            drawn.append(found._replace(features=self._reduced(found.features)))
        self._remember(Patches(*(torch.cat(parts) for parts in zip(*drawn, strict=True))))

    def state(self) -> State:
        """Components and memory."""
        return {name: getattr(self, name) for name in PARTS}

    def restore(self, state: State) -> None:
        """Load them."""
        for name in PARTS:
            setattr(self, name, state[name])

    def score(self, prepared: Prepared, key: str, tail: Tail) -> Scored:
        """Score a scan by the distance of its patches; the restoration is the middle of the nearest healthy ones."""
        values = observed(prepared.classes, prepared.brain, self.recipe)
        voxels = np.argwhere(prepared.brain)
        anomaly, restored = np.zeros_like(values), np.zeros_like(values)
        if len(voxels) == 0:
            return Scored(anomaly, restored)
        features = self._reduced(torch.from_numpy(described(values, prepared.brain, voxels, voxel_mm(self.recipe))))
        distance, center = self._nearest(features, self._cells.of(voxels))
        place = tuple(voxels.T)
        restored[place], anomaly[place] = center.numpy(), distance.numpy()
        residual = tail_of(values - restored, tail)
        return Scored(anomaly if tail == "both" else np.sqrt(anomaly * residual), restored)

    @property
    def _cells(self) -> Cells:
        return Cells(lattice_side(self.recipe))

    def _people(self, store: Store) -> list[int]:
        """Complete cases in a random order that depends only on their content; at most as many as candidates."""
        keys = {index: self._key(store, index) for index in store.require_cases()}
        return sorted(keys, key=lambda index: (keys[index], store.ids[index]))[: self.settings.candidates]

    def _key(self, store: Store, index: int) -> int:
        return seed_of(self.settings.seed, store.contents[index] or store.ids[index])

    def _drawn(self, store: Store, index: int, count: int) -> Patches:
        """Random patches of a person, up to `count` per cell."""
        mm, brain, values = voxel_mm(self.recipe), store.brain(index) > 0, observed_in(store, index)
        generator = np.random.default_rng(self._key(store, index))
        drawn = self._cells.draw(brain, round(self.settings.window_mm / mm), count, generator)
        valid = drawn[..., 0] >= 0
        voxels = drawn[valid]
        features = described(values, brain, voxels, mm)
        return Patches(*(torch.from_numpy(part) for part in (np.nonzero(valid)[0], features, values[tuple(voxels.T)])))

    def _reduced(self, features: Tensor) -> Tensor:
        return (features - self.mean) @ self.basis

    def _remember(self, drawn: Patches) -> None:
        """Choose the patches of every cell."""
        cells, row, count = torch.unique(drawn.cell, return_inverse=True, return_counts=True)
        order = torch.argsort(row, stable=True)
        row = row[order]
        column = torch.arange(len(row)) - (count.cumsum(0) - count)[row]
        shape = (len(cells), int(count.max()))
        patches, centers = torch.zeros((*shape, self.settings.components)), torch.zeros(shape)
        valid = torch.zeros(shape, dtype=torch.bool)
        patches[row, column], centers[row, column] = drawn.features[order], drawn.center[order]
        valid[row, column] = True
        chosen = (coreset if self.settings.coreset else spread)(patches, valid, self.settings.patches)
        every = torch.arange(len(cells))[:, None]
        self.patches, self.centers = patches[every, chosen], centers[every, chosen]
        served = np.full(self._cells.shape, -1)
        served.ravel()[cells.numpy()] = np.arange(len(cells))
        near = ndimage.distance_transform_edt(served < 0, return_distances=False, return_indices=True)
        self.rows = torch.from_numpy(served[tuple(near)].ravel())

    def _nearest(self, features: Tensor, cell: NDArray[np.intp]) -> tuple[Tensor, Tensor]:
        """Distance to the nearest patches and the intensity in their middle, (n,) each: means over the neighbours.

        A neighbour weighs exp(−d²/m), with m the mean of d² over the neighbours.
        """
        row = self.rows[torch.from_numpy(cell)]
        order = torch.argsort(row, stable=True)
        distance, center = torch.empty(len(row)), torch.empty(len(row))
        kept = min(self.settings.neighbours, self.patches.shape[1])
        for part in order.split(torch.unique_consecutive(row[order], return_counts=True)[1].tolist()):
            one = int(row[part[0]])
            squares, which = (torch.cdist(features[part], self.patches[one]) ** 2).topk(kept, dim=1, largest=False)
            weights = (-squares / squares.mean(1, keepdim=True).clamp_min(1e-12)).softmax(1)
            distance[part] = (weights * squares).sum(1).sqrt()
            center[part] = (weights * self.centers[one][which]).sum(1)
        return distance, center
