"""Denoising autoencoder with coarse noise (Kascenas et al. 2022): it learns to remove blobs from healthy slices."""

from __future__ import annotations

import torch
from pydantic import Field
from torch import Tensor, nn
from torch.nn import functional

from anofield.baselines import networks
from anofield.baselines.autoencoders import SliceBaseline, SliceSettings
from anofield.baselines.training import WIDEST

NOISE_GRID = 16  # noise values per axis of a slice; Kascenas et al. 2022
NOISE_SD = 0.2  # standard deviation of the noise, normalised intensity; Kascenas et al. 2022


class DenoisingSettings(SliceSettings):
    """Settings of the denoising autoencoder; `latent` is unused, because a U-Net has no bottleneck.

    Attributes:
        noise_sd: Standard deviation of the coarse noise, normalised intensity.
        noise_grid: Noise values per axis of a slice.
    """

    width: int = Field(default=8, ge=1, le=WIDEST)
    batch: int = Field(default=16, ge=1)  # as published
    noise_sd: float = Field(default=NOISE_SD, gt=0)
    noise_grid: int = Field(default=NOISE_GRID, ge=2, le=256)


class Denoising(SliceBaseline):
    """A U-Net that removes coarse noise."""

    title = "denoising autoencoder, coarse noise"
    paper = "Kascenas, Pugeault & O'Neil 2022, MIDL (PMLR 172:653)"
    settings_type = DenoisingSettings

    settings: DenoisingSettings

    def build(self, side: int) -> nn.Module:
        """MONAI's `BasicUNet`."""
        return networks.UNet(self.settings.width)

    def loss(self, images: Tensor, generator: torch.Generator) -> Tensor:
        """Mean squared error over the brain between the denoised and the clean slices."""
        brain = (images > 0).to(images)
        noise = coarse_noise(images, self.settings.noise_grid, self.settings.noise_sd, generator)
        error = (self.net.reconstruct(images + noise * brain) - images) * brain
        return torch.as_tensor((error**2).sum() / brain.sum().clamp_min(1))


def coarse_noise(images: Tensor, grid: int, sd: float, generator: torch.Generator) -> Tensor:
    """Normal noise on a grid² per slice, resized linearly to the slice and shifted cyclically by a random amount."""
    side = images.shape[-1]
    coarse = torch.randn((len(images), 1, grid, grid), generator=generator) * sd
    fine = functional.interpolate(coarse, size=(side, side), mode="bilinear", align_corners=False)
    down, right = torch.randint(side, (2,), generator=generator).tolist()
    return torch.roll(fine, (down, right), dims=(2, 3)).to(images)
