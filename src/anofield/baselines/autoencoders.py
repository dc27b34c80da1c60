"""Autoencoders on axial slices (Baur et al. 2021): the anomaly map is the part of a slice that is not reproduced."""

from __future__ import annotations

from abc import abstractmethod

import torch
from pydantic import Field
from torch import Tensor, nn

from anofield.baselines import networks
from anofield.baselines.base import Scored, observed, tail_of
from anofield.baselines.heads import Heads
from anofield.baselines.slices import Slicing, moved_slices, training_slices
from anofield.baselines.training import WIDEST, Draw, NetworkBaseline, NetworkSettings
from anofield.data.prepared import Prepared
from anofield.data.store import Store
from anofield.detect.options import Tail

BAUR = "Baur et al. 2021, Medical Image Analysis 69:101952 (arXiv 2004.03271)"
SCORE_BATCH = 64  # slices per batch when a scan is scored


class SliceSettings(NetworkSettings):
    """Settings of a network on slices; the defaults train in minutes on two cores at R = 64.

    Attributes:
        latent: Length of a dense code, or channels of a spatial one.
    """

    latent: int = Field(default=128, ge=1, le=WIDEST)


class SpatialSettings(SliceSettings):
    """Settings for an image of codes; with more than one channel it also reproduces lesions (how-to/baselines.md)."""

    latent: int = Field(default=1, ge=1, le=WIDEST)


class NarrowSettings(SliceSettings):
    """Settings for `AutoencoderKL`: its residual blocks cost more, and noise limits the information in its code."""

    latent: int = Field(default=4, ge=1, le=WIDEST)
    width: int = Field(default=8, ge=1, le=WIDEST)
    batch: int = Field(default=16, ge=1)


class SliceBaseline(NetworkBaseline):
    """Base class of networks that are trained to reproduce axial slices of healthy subjects."""

    settings_type = SliceSettings

    settings: SliceSettings

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

    def make(self) -> nn.Module:
        """The network for slices of the recipe's lattice."""
        return self.build(Slicing.of(self.recipe).side)

    def images_of(self, store: Store) -> Draw:
        """Random axial slices, (batch, 1, side, side): of heads moved at random, or as they lie in the store."""
        slicing, batch = Slicing.of(self.recipe), self.settings.batch
        if self.settings.augment:
            heads = Heads.of(store)
            return lambda generator: moved_slices(heads, slicing, batch, generator)
        slices = training_slices(store, slicing)
        return lambda generator: slices[torch.randint(len(slices), (batch,), generator=generator)].float()

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
