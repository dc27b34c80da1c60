"""Networks of the baselines, built from MONAI's: dense and spatial bottlenecks, Gaussian mixture prior, U-Nets."""

from __future__ import annotations

import math
from typing import Any, NamedTuple, Protocol

import torch
from torch import Tensor, nn

from anofield.errors import MachineError

SIGMA = 0.1  # SD of the Gaussian likelihood, normalised intensity; a brain's interquartile range is 0.12
BOTTLENECK_SIDE = 8  # pixels of the spatial code; Baur et al. 2021 go from 128 to 8
ENDS = {"act": "LEAKYRELU", "norm": "BATCH"}  # activation and norm of every layer; Baur et al. 2021
LOG_VARIANCE_LIMIT = 10.0  # keeps exp() finite in the first steps


class Gaussian(NamedTuple):
    """Mean and log-variance of independent normal distributions, any shape."""

    mean: Tensor
    log_variance: Tensor

    def sample(self, noise: Tensor) -> Tensor:
        """Mean + SD · noise (the reparametrisation of Kingma & Welling 2014)."""
        return self.mean + (self.log_variance / 2).exp() * noise

    def divergence(self, other: Gaussian | None = None) -> Tensor:
        """KL(self ‖ other) per element, nats; `other` None is N(0, 1)."""
        if other is None:
            return 0.5 * (self.mean**2 + self.log_variance.exp() - 1 - self.log_variance)
        apart = (self.mean - other.mean) ** 2 + self.log_variance.exp()
        return 0.5 * (other.log_variance - self.log_variance + apart / other.log_variance.exp() - 1)

    def log_density(self, value: Tensor) -> Tensor:
        """Log-density per element, nats."""
        spread = (value - self.mean) ** 2 / self.log_variance.exp()
        return -0.5 * (spread + self.log_variance + math.log(2 * math.pi))


class Variational(Protocol):
    """A network with an evidence lower bound."""

    def reconstruct(self, images: Tensor) -> Tensor:
        """Decoded posterior mean, (n, 1, side, side)."""

    def free_energy(self, images: Tensor, generator: torch.Generator | None) -> tuple[Tensor, Tensor]:
        """Reconstruction error Σ(x − x̂)²/2σ² and divergence, both (n,) nats: their sum is the negative bound.

        Without a generator, codes are their posterior means.
        """


def monai_nets() -> Any:
    """Import `monai.networks.nets`.

    Raises:
        MachineError: MONAI is not installed.
    """
    try:
        import monai.networks.nets as nets
    except ImportError as error:
        raise MachineError(
            "MONAI, whose networks this baseline uses, is not installed",
            remedy="pip install 'anofield[baselines]'",
        ) from error
    return nets


def levels_of(side: int) -> int:
    """Number of times that a slice is halved before the bottleneck.

    >>> [levels_of(side) for side in (32, 48, 64, 128)]
    [2, 3, 3, 4]
    """
    return max(2, round(math.log2(side / BOTTLENECK_SIDE)))


def layer_sizes(side: int, width: int) -> dict[str, tuple[int, ...]]:
    """Channels and strides of an encoder: each level halves the side and doubles the channels, at most three times."""
    levels = levels_of(side)
    return {"channels": tuple(width * 2 ** min(i, 3) for i in range(levels)), "strides": (2,) * levels}


def half(width: int) -> int:
    """Half the width, at least 1: channels at the resolution of the slice, where a layer costs most."""
    return max(width // 2, 1)


class LastLayer(nn.Module):
    """Layers after the last upsampling: some channels → intensity in (0, 1).

    MONAI's decoders upsample directly to one channel. Each pixel of a 2 × 2 block then has its own weights, as few as
    one per channel, and the output shows a checkerboard. This class upsamples to many channels and then convolves, as
    Baur et al. 2021 do.
    """

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.net = nn.Sequential(
            nn.BatchNorm2d(channels), nn.LeakyReLU(), nn.Conv2d(channels, 1, 3, padding=1), nn.Sigmoid()
        )

    def forward(self, features: Tensor) -> Tensor:
        """(n, channels, side, side) → (n, 1, side, side)."""
        return torch.as_tensor(self.net(features))


class SpatialAutoencoder(nn.Module):
    """MONAI's `AutoEncoder` around a bottleneck of `latent` channels without norm and activation."""

    def __init__(self, side: int, width: int, latent: int) -> None:
        super().__init__()
        sizes = layer_sizes(side, width)
        deep = sizes["channels"][-1]
        self.net, self.last = monai_nets().AutoEncoder(2, 1, half(width), **sizes, **ENDS), LastLayer(half(width))
        self.to_code, self.from_code = nn.Conv2d(deep, latent, 1), nn.Conv2d(latent, deep, 1)

    def reconstruct(self, images: Tensor) -> Tensor:
        """Decoded code, (n, 1, side, side) in (0, 1)."""
        code = self.to_code(self.net.encode(images))
        return torch.as_tensor(self.last(self.net.decode(self.from_code(code).relu())))


class DenseVae(nn.Module):
    """MONAI's `VarAutoEncoder` with a vector as code; used as a plain autoencoder, it ignores the log-variances."""

    def __init__(self, side: int, width: int, latent: int) -> None:
        super().__init__()
        sizes, shape = layer_sizes(side, width), (1, side, side)
        self.net = monai_nets().VarAutoEncoder(2, shape, half(width), latent, **sizes, **ENDS)
        self.last = LastLayer(half(width))

    def encode(self, images: Tensor) -> Gaussian:
        """Posterior of the code, (n, latent)."""
        mean, log_variance = self.net.encode_forward(images)
        return Gaussian(mean, log_variance.clamp(-LOG_VARIANCE_LIMIT, LOG_VARIANCE_LIMIT))

    def decode(self, code: Tensor) -> Tensor:
        """(n, latent) → (n, 1, side, side) in (0, 1)."""
        return torch.as_tensor(self.last(self.net.decode_forward(code, use_sigmoid=False)))

    def reconstruct(self, images: Tensor) -> Tensor:
        """Decoded posterior mean."""
        return self.decode(self.encode(images).mean)

    def free_energy(self, images: Tensor, generator: torch.Generator | None) -> tuple[Tensor, Tensor]:
        """Reconstruction error and divergence, see `Variational`."""
        posterior = self.encode(images)
        code = posterior.mean if generator is None else posterior.sample(noise_like(posterior.mean, generator))
        return misfit(images, self.decode(code)), posterior.divergence().flatten(1).sum(1)


class SpatialVae(DenseVae):
    """MONAI's `AutoencoderKL` with an image of codes."""

    def __init__(self, side: int, width: int, latent: int) -> None:
        nn.Module.__init__(self)
        channels = tuple(width * 2 ** min(i, 2) for i in range(levels_of(side) + 1))
        self.net = monai_nets().AutoencoderKL(
            2, num_res_blocks=1, channels=channels, attention_levels=(False,) * len(channels), latent_channels=latent,
            norm_num_groups=math.gcd(width, 8), with_encoder_nonlocal_attn=False, with_decoder_nonlocal_attn=False,
        )  # fmt: skip

    def encode(self, images: Tensor) -> Gaussian:
        """Posterior of the code, (n, latent, s, s)."""
        mean, sigma = self.net.encode(images)
        return Gaussian(mean, 2 * sigma.log())

    def decode(self, code: Tensor) -> Tensor:
        """(n, latent, s, s) → (n, 1, side, side)."""
        return torch.as_tensor(self.net.decode(code))


class MixtureVae(nn.Module):
    """Gaussian mixture VAE (Dilokthanakul et al. 2016); the code is a vector or, as in Chen et al. 2020, an image.

    z | w, c ~ N(mean_c(w), variance_c(w)), w ~ N(0, 1), c uniform over `clusters`; every pixel of the code has its own
    w and c, and a vector is an image of one pixel. MONAI has no such network; encoder and decoder are MONAI's.
    """

    def __init__(self, side: int, width: int, latent: int, clusters: int, dense: bool) -> None:
        super().__init__()
        sizes, nets = layer_sizes(side, width), monai_nets()
        self.clusters, self.latent = clusters, latent
        self.net, self.last = nets.AutoEncoder(2, 1, half(width), **sizes, **ENDS), LastLayer(half(width))
        deep, reach = sizes["channels"][-1], side // 2 ** levels_of(side) if dense else 1
        self.z_head, self.w_head = (nn.Conv2d(deep, 2 * latent, reach) for _ in range(2))
        self.from_z = nn.ConvTranspose2d(latent, deep, reach)
        self.prior = nn.Sequential(nn.Conv2d(latent, width, 1), nn.Tanh(), nn.Conv2d(width, 2 * latent * clusters, 1))

    def encode(self, images: Tensor) -> tuple[Gaussian, Gaussian]:
        """Posteriors of z and w, (n, latent, s, s) each."""
        features = self.net.encode(images)
        return _split(self.z_head(features)), _split(self.w_head(features))

    def decode(self, code: Tensor) -> Tensor:
        """(n, latent, s, s) → (n, 1, side, side) in (0, 1)."""
        return torch.as_tensor(self.last(self.net.decode(self.from_z(code).relu())))

    def reconstruct(self, images: Tensor) -> Tensor:
        """Decoded posterior mean of z."""
        return self.decode(self.encode(images)[0].mean)

    def free_energy(self, images: Tensor, generator: torch.Generator | None) -> tuple[Tensor, Tensor]:
        """Reconstruction error and divergence, see `Variational`.

        Source: Dilokthanakul et al. 2016, eq. 5, without their bound on the last term.
        """
        posterior, of_w = self.encode(images)
        z, w = (g.mean if generator is None else g.sample(noise_like(g.mean, generator)) for g in (posterior, of_w))
        components = _split(self.prior(w).unflatten(1, (2 * self.latent, self.clusters)))  # (n, latent, cluster, s, s)
        share = components.log_density(z[:, :, None]).sum(1).softmax(1)  # p(c | z, w), (n, cluster, s, s)
        wide = Gaussian(posterior.mean[:, :, None], posterior.log_variance[:, :, None])
        of_z = (share * wide.divergence(components).sum(1)).flatten(1).sum(1)
        of_c = (share * (share.clamp_min(1e-8) * self.clusters).log()).flatten(1).sum(1)
        return misfit(images, self.decode(z)), of_z + of_w.divergence().flatten(1).sum(1) + of_c


class UNet(nn.Module):
    """MONAI's `BasicUNet`; its skip connections keep the denoised slice sharp."""

    def __init__(self, width: int) -> None:
        super().__init__()
        features = (width, width, 2 * width, 4 * width, 4 * width, width)
        groups = ("group", {"num_groups": math.gcd(width, 8)})
        self.net = monai_nets().BasicUNet(2, 1, 1, features=features, norm=groups)

    def reconstruct(self, images: Tensor) -> Tensor:
        """Denoised images, (n, 1, side, side)."""
        return torch.as_tensor(self.net(images))


class SeverityUNet(nn.Module):
    """MONAI's `BasicUNet` in 3-D that is told how severe the anomaly is; it predicts the change that restores."""

    def __init__(self, width: int, middle: float, spread: float) -> None:
        super().__init__()
        features = (width, width, 2 * width, 4 * width, 4 * width, width)
        groups = ("group", {"num_groups": math.gcd(width, 8)})
        self.middle, self.spread = middle, spread  # of the intensities of a brain, so that the network sees about ±1
        self.net = monai_nets().BasicUNet(3, 2, 1, features=features, norm=groups)
        nn.init.zeros_(self.net.final_conv.weight)  # the training starts from "nothing changes"
        nn.init.zeros_(self.net.final_conv.bias)

    def restore(self, images: Tensor, severity: Tensor) -> Tensor:
        """Restored images, (n, 1, s, s, s), for severities in [0, 1], (n,); sides are multiples of 16."""
        told = severity.reshape(-1, 1, 1, 1, 1).expand_as(images)
        seen = (images - self.middle) / self.spread * (images > 0)
        return images + self.spread * torch.as_tensor(self.net(torch.cat([seen, told], 1)))


def misfit(images: Tensor, decoded: Tensor) -> Tensor:
    """Negative Gaussian log-likelihood up to a constant, summed over pixels, (n,) nats."""
    return ((images - decoded) ** 2).flatten(1).sum(1) / (2 * SIGMA**2)


def noise_like(value: Tensor, generator: torch.Generator) -> Tensor:
    """Standard normal noise, drawn on the CPU so that it is the same for every device."""
    return torch.randn(value.shape, generator=generator).to(value)


def _split(heads: Tensor) -> Gaussian:
    mean, log_variance = heads.chunk(2, dim=1)
    return Gaussian(mean, log_variance.clamp(-LOG_VARIANCE_LIMIT, LOG_VARIANCE_LIMIT))
