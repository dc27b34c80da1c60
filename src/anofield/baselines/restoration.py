"""Restoration by gradient ascent on the evidence lower bound under a total-variation penalty (You et al. 2019).

Gradient steps change a slice until it is probable under the model of healthy slices, and the penalty favours changes
of connected regions. The anomaly map is the change.
"""

from __future__ import annotations

import torch
from pydantic import Field
from torch import Tensor, nn

from anofield.baselines import networks
from anofield.baselines.autoencoders import DenseVae, SliceSettings

TV_ROUNDING = 1e-3  # normalised intensity; rounds the corner of |x| so that small differences have a gradient


class RestorationSettings(SliceSettings):
    """Settings of a restoration.

    Attributes:
        iterations: Gradient steps per slice.
        step: Length of a step, as a share of the difference between slice and reconstruction.
        variation: Weight of the total variation of the change, against ½ Σ(x − x̂)².
    """

    iterations: int = Field(
        default=26, ge=1
    )  # × step = 2.6, the total step length of the published code on ½ Σ(x − x̂)²
    step: float = Field(default=0.1, gt=0)
    variation: float = Field(default=0.1, ge=0)  # among 0.005 to 0.2, changes healthy phantom people least


class MixtureSettings(RestorationSettings):
    """Settings of a restoration with a mixture prior.

    Attributes:
        clusters: Number of Gaussians in the mixture.
        dense: Whether the code is a vector; an image of codes needs a smaller `latent`.
    """

    clusters: int = Field(default=6, ge=2, le=256)
    dense: bool = True


class VaeRestoration(DenseVae):
    """Dense VAE that restores slices instead of reconstructing them."""

    title = "VAE, restoration with total variation"
    paper = "You, Tezcan, Chen & Konukoglu 2019, MIDL (PMLR 102:540)"
    settings_type = RestorationSettings

    settings: RestorationSettings

    def redraw(self, images: Tensor) -> Tensor:
        """Restored slices, (n, 1, side, side); pixels outside the brain are unchanged."""
        settings = self.settings
        return restore(self.net, images, settings.iterations, settings.step, settings.variation)


class MixtureRestoration(VaeRestoration):
    """VAE with a mixture of Gaussians as prior, which restores slices."""

    title = "Gaussian mixture VAE, restoration with total variation"
    paper = "Chen, You, Tezcan & Konukoglu 2020, Medical Image Analysis 64:101713 (arXiv 2005.00031)"
    settings_type = MixtureSettings

    settings: MixtureSettings

    def build(self, side: int) -> nn.Module:
        """Encoder and decoder of MONAI's `AutoEncoder` around a mixture prior."""
        settings = self.settings
        return networks.MixtureVae(side, settings.width, settings.latent, settings.clusters, settings.dense)


def restore(net: networks.Variational, images: Tensor, iterations: int, step: float, variation: float) -> Tensor:
    """Slices (n, 1, side, side) after `iterations` steps down σ² (misfit + divergence) + variation · TV(x − y)."""
    brain = (images > 0).to(images)
    restored = images.clone()
    for _ in range(iterations):
        restored.requires_grad_(True)
        misfit, divergence = net.free_energy(restored, None)
        penalty = variation * total_variation(restored - images)
        energy = networks.SIGMA**2 * (misfit + divergence) + penalty
        (gradient,) = torch.autograd.grad(energy.sum(), restored)
        restored = (restored - step * brain * gradient).detach().clamp(0, 1)
    return restored


def total_variation(change: Tensor) -> Tensor:
    """Σ √(∂x² + ∂y² + ε²) − ε over the pixels, (n,)."""
    down = torch.diff(change, dim=2, append=change[:, :, -1:])
    right = torch.diff(change, dim=3, append=change[:, :, :, -1:])
    return ((down**2 + right**2 + TV_ROUNDING**2).sqrt() - TV_ROUNDING).flatten(1).sum(1)
