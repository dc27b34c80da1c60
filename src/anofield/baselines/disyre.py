"""Restoration learnt from synthetic anomalies (DISYRE): a U-Net learns to undo anomalies of a known severity.

Severity plays the part that the noise level plays in diffusion (cold diffusion: Bansal et al. 2023). At test time a
scan is restored at several severities, and the anomaly map is the mean of the changes.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import torch
from pydantic import Field
from torch import Tensor, nn
from torch.nn import functional

from anofield.baselines import networks
from anofield.baselines.base import Scored, observed, tail_of
from anofield.baselines.heads import Heads, brain_centers, moved_crops
from anofield.baselines.synthetic import corrupted
from anofield.baselines.training import WIDEST, Draw, NetworkBaseline, NetworkSettings
from anofield.data.lattice import bounding_box
from anofield.data.prepared import Prepared
from anofield.data.published import lattice_side
from anofield.data.store import Store
from anofield.detect.options import Tail

MULTIPLE = 16  # the network halves a volume four times
LEVELS = 100  # severities of the schedule; this and the next: published code
RATES = (1e-3, 2e-1)  # first and last rate (beta) of the linear schedule


class RestoringSettings(NetworkSettings):
    """Settings of the restoration; the defaults take about ten minutes of one free core.

    Attributes:
        crop: Voxels per axis of a training crop, a multiple of 16; at most the lattice, filled up to the next multiple.
        restorations: Severities at which a scan is restored.
        cold: Whether the restorations follow each other, from the highest severity to the lowest, as in the first
            publication; otherwise each starts from the scan and all are averaged, as in the second.
    """

    steps: int = Field(default=2000, ge=1)
    batch: int = Field(default=2, ge=1)
    learning_rate: float = Field(default=2e-3, gt=0)
    width: int = Field(default=16, ge=1, le=WIDEST)
    crop: int = Field(default=32, ge=MULTIPLE, multiple_of=MULTIPLE, le=256)
    restorations: int = Field(default=5, ge=1, le=LEVELS)  # as published
    cold: bool = False


class Restoring(NetworkBaseline):
    """A 3-D U-Net that undoes synthetic anomalies."""

    title = "restoration learnt from synthetic anomalies (DISYRE)"
    paper = "Naval Marimont et al. 2024, ISBI (arXiv 2311.15453) and MICCAI (arXiv 2407.06635)"
    settings_type = RestoringSettings

    settings: RestoringSettings

    def make(self) -> nn.Module:
        """A U-Net for crops of any size."""
        centers = brain_centers(self.recipe)
        return networks.SeverityUNet(self.settings.width, float(centers.median()), float(centers.std()))

    def images_of(self, store: Store) -> Draw:
        """Random crops, (2 · batch, 1, s, s, s): the second half gives the foreign textures."""
        heads, count = Heads.of(store), 2 * self.settings.batch
        side = min(self.settings.crop, -(-lattice_side(self.recipe) // MULTIPLE) * MULTIPLE)
        return lambda generator: moved_crops(heads, side, count, generator, self.settings.augment)

    def loss(self, images: Tensor, generator: torch.Generator) -> Tensor:
        """Mean squared error over the brain between the restored and the healthy crops."""
        healthy, foreign = images.chunk(2)
        seen, severity = corrupted(healthy.cpu(), foreign.cpu(), self.recipe, generator)
        restored = self.net.restore(seen.to(self.device), nearest_level(severity).to(self.device))
        brain = healthy > 0
        apart = (restored - healthy) * brain
        return torch.as_tensor((apart**2).sum() / brain.sum().clamp_min(1))

    def score(self, prepared: Prepared, key: str, tail: Tail) -> Scored:
        """Score a scan by the mean change over the severities; the restoration is the last, or the mean of all."""
        values = observed(prepared.classes, prepared.brain, self.recipe)
        box = bounding_box(prepared.brain)
        anomaly, restored = np.zeros_like(values), values.copy()
        if box is None:
            return Scored(anomaly, restored)
        seen, inside = values[box], prepared.brain[box]
        steps = [(one.numpy(), other.numpy()) for one, other in self._restorations(torch.from_numpy(seen))]
        changes = [tail_of(before - after, tail) for before, after in steps]
        anomaly[box] = np.mean(changes, axis=0) * inside
        restored[box] = (steps[-1][1] if self.settings.cold else np.mean([s[1] for s in steps], axis=0)) * inside
        return Scored(anomaly, restored)

    def _restorations(self, scan: Tensor) -> Iterator[tuple[Tensor, Tensor]]:
        """Volume before and after each restoration, (i, j, k), from the highest severity to the lowest."""
        levels = inference_levels(self.settings.restorations)
        current = padded(scan).to(self.device)
        inner = tuple(slice(0, n) for n in scan.shape)
        for number, level in enumerate(levels):
            with torch.no_grad():
                restored = self.net.restore(current, torch.full((1,), level, device=self.device))
            yield current[0, 0][inner].cpu(), restored[0, 0][inner].cpu()
            if self.settings.cold:
                following = levels[number + 1] if number + 1 < len(levels) else 0.0
                current = restored + (current - restored) * (following / level)


def schedule() -> Tensor:
    """Severity at each level of the published schedule, decreasing, (LEVELS,): √Π(1 − β), β linear."""
    return (1 - torch.linspace(*RATES, LEVELS)).cumprod(0).sqrt()


def nearest_level(severity: Tensor) -> Tensor:
    """The severities of the schedule that are nearest to some severities, (n,)."""
    levels = schedule()
    return levels[(severity[:, None] - levels).abs().argmin(1)]


def inference_levels(count: int) -> list[float]:
    """Severities of `count` restorations, decreasing: evenly spaced in the schedule, its last included.

    >>> [round(level, 3) for level in inference_levels(5)]
    [0.816, 0.438, 0.152, 0.033, 0.005]
    """
    places = torch.arange(1, count + 1) * LEVELS / count - 1
    return [float(level) for level in schedule()[places.round().long()]]


def padded(scan: Tensor) -> Tensor:
    """(i, j, k) → (1, 1, i', j', k'): 0 added at the end of each axis, up to a multiple of 16."""
    missing = [-n % MULTIPLE for n in reversed(scan.shape)]
    return functional.pad(scan, [part for n in missing for part in (0, n)])[None, None]
