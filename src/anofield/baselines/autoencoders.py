"""Autoencoders on axial slices (Baur et al. 2021): the anomaly map is the part of a slice that is not reproduced."""

from __future__ import annotations

from abc import abstractmethod
from typing import Any

import torch
from pydantic import Field
from torch import Tensor, nn

from anofield._progress import Progress
from anofield.baselines import networks
from anofield.baselines.base import Baseline, Scored, Settings, State, observed, tail_of
from anofield.baselines.slices import Slicing, training_slices
from anofield.data.prepared import Prepared
from anofield.data.store import Store
from anofield.detect.options import Tail
from anofield.errors import ExperimentError

BAUR = "Baur et al. 2021, Medical Image Analysis 69:101952 (arXiv 2004.03271)"
SCORE_BATCH = 64  # slices per batch when a scan is scored
WIDEST = 256  # channels and code entries: the networks then have at most 200 million weights
LOSS_PARTS = 20  # equal parts of the training; the mean loss of each is kept


class SliceSettings(Settings):
    """Settings of a network on slices; the defaults train in minutes on two cores at R = 64.

    Attributes:
        steps: Adam steps.
        batch: Slices per step.
        learning_rate: Learning rate of the first step; it falls to 0 along half a cosine.
        width: Channels of the first level.
        latent: Length of a dense code, or channels of a spatial one.
    """

    steps: int = Field(default=2000, ge=1)
    batch: int = Field(default=32, ge=1)
    learning_rate: float = Field(default=2e-3, gt=0)
    width: int = Field(default=16, ge=1, le=WIDEST)
    latent: int = Field(default=128, ge=1, le=WIDEST)


class SpatialSettings(SliceSettings):
    """Settings for an image of codes; with more than one channel it also reproduces lesions (how-to/baselines.md)."""

    latent: int = Field(default=1, ge=1, le=WIDEST)


class NarrowSettings(SliceSettings):
    """Settings for `AutoencoderKL`: its residual blocks cost more, and noise limits the information in its code."""

    latent: int = Field(default=4, ge=1, le=WIDEST)
    width: int = Field(default=8, ge=1, le=WIDEST)
    batch: int = Field(default=16, ge=1)


class SliceBaseline(Baseline):
    """Base class of networks that are trained to reproduce axial slices of healthy subjects."""

    settings_type = SliceSettings

    settings: SliceSettings
    net: Any = None

    @abstractmethod
    def build(self, side: int) -> nn.Module:
        """Make the network for slices of side × side pixels, with random weights from torch's global generator."""

    @abstractmethod
    def loss(self, images: Tensor, generator: torch.Generator) -> Tensor:
        """Loss of the training, a scalar; images (n, 1, side, side)."""

    def redraw(self, images: Tensor) -> Tensor:
        """Healthy version of some slices, (n, 1, side, side)."""
        with torch.no_grad():
            return torch.as_tensor(self.net.reconstruct(images))

    def train(self, store: Store) -> None:
        """Train with Adam on random slices; slices, noise and initial weights depend only on the seed.

        Raises:
            ExperimentError: The loss became infinite or NaN.
        """
        slices = training_slices(store, Slicing.of(self.recipe))
        self.net = self._fresh().train()
        settings, generator = self.settings, torch.Generator().manual_seed(self.settings.seed)
        optimizer = torch.optim.Adam(self.net.parameters(), lr=settings.learning_rate)
        schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, settings.steps)
        losses = torch.zeros(settings.steps)
        with Progress("train", settings.steps) as progress:
            for step in range(settings.steps):
                chosen = torch.randint(len(slices), (settings.batch,), generator=generator)
                loss = self.loss(slices[chosen].float().to(self.device), generator)
                optimizer.zero_grad(set_to_none=True)
                loss.backward()
                optimizer.step()
                schedule.step()
                losses[step] = float(loss.detach())
                progress.advance(f"loss {float(losses[step]):.4f}")
        if not losses.isfinite().all():
            raise ExperimentError("the training diverged", remedy="set a lower learning_rate")
        self.losses = [float(part.mean()) for part in losses.chunk(LOSS_PARTS)]
        self.net.eval().requires_grad_(False)

    def state(self) -> State:
        """Weights of the network."""
        return {name: value.detach().cpu().clone() for name, value in self.net.state_dict().items()}

    def restore(self, state: State) -> None:
        """Load the weights."""
        self.net = self._fresh()
        self.net.load_state_dict(state)
        self.net.eval().requires_grad_(False)

    def score(self, prepared: Prepared, key: str, tail: Tail) -> Scored:
        """Score a scan by its slices minus their healthy version; empty slices are skipped."""
        slicing = Slicing.of(self.recipe)
        values = observed(prepared.classes, prepared.brain, self.recipe)
        slices = slicing.cut(values)
        healthy = slices.clone()
        filled = torch.nonzero(slices.flatten(1).any(1))[:, 0]
        for part in filled.split(SCORE_BATCH):
            healthy[part] = self.redraw(slices[part].to(self.device)).cpu()
        restored = slicing.paste(healthy) * prepared.brain
        return Scored(tail_of(values - restored, tail) * prepared.brain, restored)

    def _fresh(self) -> nn.Module:
        """Make the network with weights from the seed; torch's global generator is not changed."""
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(self.settings.seed)
            return self.build(Slicing.of(self.recipe).side).to(self.device)


class DenseAutoencoder(SliceBaseline):
    """Autoencoder with a vector as bottleneck."""

    title = "autoencoder, dense bottleneck"
    paper = BAUR

    def build(self, side: int) -> nn.Module:
        """MONAI's `VarAutoEncoder` without its noise and divergence."""
        return networks.DenseVae(side, self.settings.width, self.settings.latent)

    def loss(self, images: Tensor, generator: torch.Generator) -> Tensor:
        """Mean absolute error."""
        return torch.as_tensor((images - self.net.reconstruct(images)).abs().mean())


class SpatialAutoencoder(DenseAutoencoder):
    """Autoencoder with an image of codes as bottleneck."""

    title = "autoencoder, spatial bottleneck"
    settings_type = SpatialSettings

    def build(self, side: int) -> nn.Module:
        """Encoder and decoder of MONAI's `AutoEncoder`."""
        return networks.SpatialAutoencoder(side, self.settings.width, self.settings.latent)


class DenseVae(SliceBaseline):
    """Variational autoencoder with a vector as bottleneck."""

    title = "variational autoencoder, dense bottleneck"
    paper = BAUR

    def build(self, side: int) -> nn.Module:
        """MONAI's `VarAutoEncoder`."""
        return networks.DenseVae(side, self.settings.width, self.settings.latent)

    def loss(self, images: Tensor, generator: torch.Generator) -> Tensor:
        """Negative evidence lower bound per pixel."""
        misfit, divergence = self.net.free_energy(images, generator)
        return torch.as_tensor((misfit + divergence).mean() / images[0].numel())


class SpatialVae(DenseVae):
    """Variational autoencoder with an image of codes as bottleneck."""

    title = "variational autoencoder, spatial bottleneck"
    settings_type = NarrowSettings

    def build(self, side: int) -> nn.Module:
        """MONAI's `AutoencoderKL`."""
        return networks.SpatialVae(side, self.settings.width, self.settings.latent)
