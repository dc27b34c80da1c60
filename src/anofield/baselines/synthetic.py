"""Synthetic anomalies for training: shape, texture and brightness are drawn apart (DISYRE v2's generator, in 3-D).

Source: Naval Marimont et al. 2024, "Ensembled cold-diffusion restorations for unsupervised anomaly detection", MICCAI
(arXiv 2407.06635), and the published code. how-to/baselines.md says what differs.
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional

from anofield.baselines.heads import brain_centers, rotations, snapped, voxel_mm
from anofield.data.recipe import Recipe

SIZES_MM = (15.0, 80.0)  # smallest and largest diameter; chosen by hand (published: 10 to 88 pixels of a slice)
EDGE_MM = 10.0  # widest transition of a soft edge; published: Gaussians of SD 0 to 5 pixels, in 70 % of the shapes
SOFT = 0.7
RANGES = 5  # intensity ranges that a change of brightness may affect; the published codebook has five centres
LUMPS = 0.35  # SD of the relative radius of an irregular shape; chosen by hand (the published shapes are files)


def corrupted(images: Tensor, foreign: Tensor, recipe: Recipe, generator: torch.Generator) -> tuple[Tensor, Tensor]:
    """Images with one anomaly each, and its severity.

    Args:
        images: Crops of healthy heads, (n, 1, s, s, s), 0 outside the brain.
        foreign: As many other crops, which give the texture.
        recipe: Recipe of the crops; its class centres are the intensities that a voxel can have.
        generator: Source of all random numbers.

    Returns:
        Corrupted crops, (n, 1, s, s, s), and severity in [0, 1], (n,): the larger of the share of the foreign texture
        and the greatest change of brightness relative to the range of the centres.
    """
    count, brain = len(images), images > 0
    mask = random_shapes(brain, voxel_mm(recipe), generator) * brain
    share, strength, sign = torch.rand((3, count, 1, 1, 1, 1), generator=generator).unbind()
    centers = brain_centers(recipe)
    textured = images + share * mask * (_matched(foreign, images, mask > 0, float(centers[0])) - images)
    span = float(centers[-1] - centers[0])
    change = strength * torch.where(sign < 0.5, -span, span) * mask * random_ranges(textured, mask, recipe, generator)
    bent = (textured + change).clamp(float(centers[0]), float(centers[-1]))
    greatest = ((bent - textured).abs() * (mask > 0)).flatten(1).amax(1) / span
    seen = torch.where(mask > 0, snapped(bent, recipe), images)
    severity = torch.maximum(share.flatten(), greatest) * (seen != images).flatten(1).any(1)
    return seen, severity


def random_shapes(brain: Tensor, mm: float, generator: torch.Generator) -> Tensor:
    """Boxes, ellipsoids and lumps around a random brain voxel of each image, (n, 1, s, s, s) in [0, 1].

    Args:
        brain: Brain voxels, (n, 1, s, s, s).
        mm: Edge of a voxel.
        generator: Source of all random numbers.
    """
    count, side = len(brain), brain.shape[-1]
    some = brain.flatten(1).float() + 1e-6  # an image without brain has a centre as well
    centre = torch.multinomial(some, 1, generator=generator)
    axis = torch.arange(side, dtype=torch.float32)
    grid = torch.cartesian_prod(axis, axis, axis)
    half = (SIZES_MM[0] + torch.rand((count, 3), generator=generator) * (SIZES_MM[1] - SIZES_MM[0])) / (2 * mm)
    turns = rotations((torch.rand((count, 3), generator=generator) - 0.5) * torch.pi)
    apart = ((grid - grid[centre]) @ turns) / half[:, None]  # (n, s³, 3), in half diameters
    box, ball = apart.abs().amax(2), apart.norm(dim=2)
    kind, edge, soft = torch.rand((3, count, 1), generator=generator).unbind()
    lumps = functional.interpolate(
        torch.randn((count, 1, 4, 4, 4), generator=generator), size=(side,) * 3, mode="trilinear", align_corners=False
    ).flatten(1)
    radius = torch.where(kind < 1 / 3, box, torch.where(kind < 2 / 3, ball, ball * (LUMPS * lumps).exp()))
    width = torch.where(soft < SOFT, edge * EDGE_MM / mm, 0).clamp_min(1e-3)
    depth = (1 - radius) * half.mean(1, keepdim=True)  # voxels inside the edge, about
    return (0.5 + depth / width).clamp(0, 1).reshape(brain.shape)


def random_ranges(images: Tensor, mask: Tensor, recipe: Recipe, generator: torch.Generator) -> Tensor:
    """Where the intensity belongs to some random ranges, smoothed over 3³ voxels, (n, 1, s, s, s) in [0, 1].

    A range is chosen with a probability equal to its share of the mask; if none is chosen, all are.
    """
    centers = brain_centers(recipe)
    limits = centers[torch.linspace(0, len(centers) - 1, RANGES + 1).round().long()[1:-1]]
    which = torch.bucketize(images, limits)
    belongs = functional.one_hot(which, RANGES).float()  # (n, 1, s, s, s, range)
    shares = (belongs * (mask > 0)[..., None]).flatten(1, 4).sum(1)
    shares = shares / shares.sum(1, keepdim=True).clamp_min(1)
    chosen = torch.rand(shares.shape, generator=generator) < shares
    chosen = chosen | ~chosen.any(1, keepdim=True)
    picked = (belongs * chosen[:, None, None, None, None]).sum(-1)
    return functional.avg_pool3d(picked, 3, stride=1, padding=1, count_include_pad=False)


def _matched(foreign: Tensor, images: Tensor, mask: Tensor, lowest: float) -> Tensor:
    """Foreign crops with the range that the images have in the mask; outside their brain they count as `lowest`."""
    foreign = foreign.clamp_min(lowest)
    theirs, own = (_extremes(part, mask) for part in (foreign, images))
    return (foreign - theirs[0]) * (own[1] - own[0]) / (theirs[1] - theirs[0]).clamp_min(1e-3) + own[0]


def _extremes(images: Tensor, mask: Tensor) -> tuple[Tensor, Tensor]:
    """Lowest and highest normalised intensity in the mask, (n, 1, 1, 1, 1) each; 1 and 0 if the mask is empty."""
    low, high = images.masked_fill(~mask, 1.0), images.masked_fill(~mask, 0.0)
    return low.amin((1, 2, 3, 4), keepdim=True), high.amax((1, 2, 3, 4), keepdim=True)
