"""Fit of a code to a scan: the healthy person of the field that explains the scan best."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass

import numpy as np
import torch
from pydantic import BaseModel, ConfigDict
from pydantic import Field as Value
from scipy import ndimage
from torch import Tensor
from torch.nn import functional

from anofield.codes import CodePrior
from anofield.field import Field
from anofield.points import axis_coordinates, coordinates_of
from anofield.prepare import Prepared

DECODE_POINTS = 32_768  # points decoded at a time: some tens of megabytes of activations


class FitOptions(BaseModel):
    """How a code is fitted.

    Attributes:
        iterations: Adam steps.
        points: Random points of the brain per step.
        learning_rate: Of the first step; it falls to 0 along half a cosine.
        prior_weight: Weight of the squared Mahalanobis distance to the training codes, divided by the number of brain
            voxels; 0 for none. Neighbouring voxels say the same, so it is far above the ½ of independent voxels.
        bound: c of the bounded loss c (1 − exp(−CE/c)), nats: a lesion that no healthy person explains pulls the fit
            no further; None fits plain cross-entropy.
        margin: Voxels around the brain that points are drawn from as well: they hold the outline.
        seed: With the case id, the source of the random points.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    iterations: int = Value(default=60, ge=1)
    points: int = Value(default=4096, ge=1)
    learning_rate: float = Value(default=0.03, gt=0)
    prior_weight: float = Value(default=30.0, ge=0)
    bound: float | None = Value(default=3.0, gt=0)
    margin: int = Value(default=2, ge=0)
    seed: int = Value(default=0, ge=0)


@dataclass(frozen=True)
class Fit:
    """A fitted code and how well it fits.

    Attributes:
        code: (code,).
        loss: Mean cross-entropy of the last tenth of the steps, nats per point.
        code_distance: Squared Mahalanobis distance per code entry from the training codes; about 1 is usual.
    """

    code: Tensor
    loss: float
    code_distance: float


def fit_code(
    field: Field, prior: CodePrior, prepared: Prepared, key: str, options: FitOptions, device: torch.device
) -> Fit:
    """Fit a code to one scan, starting from the mean training code.

    Args:
        field: Frozen.
        prior: Of the training codes.
        prepared: The scan on its lattice.
        key: Case id; with the seed it fixes the points, so the result depends on nothing else of the run.
        options: See `FitOptions`.
        device: Where the field lives.
    """
    near = ndimage.binary_dilation(prepared.brain, iterations=options.margin) if options.margin else prepared.brain
    index = torch.from_numpy(np.flatnonzero(near))
    targets = torch.from_numpy(prepared.classes.reshape(-1)).long()
    resolution = prepared.lattice.resolution
    axis = axis_coordinates(resolution, prepared.recipe.lattice)
    generator = torch.Generator().manual_seed(_seed(options.seed, key))
    code = prior.mean.clone()[None].to(device).requires_grad_(True)
    optimizer = torch.optim.Adam([code], lr=options.learning_rate)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, options.iterations)
    weight = options.prior_weight * field.code_length / max(int(prepared.brain.sum()), 1)
    losses = []
    for _ in range(options.iterations):
        flat = index[torch.randint(len(index), (options.points,), generator=generator)]
        points = coordinates_of(flat, resolution, axis).to(device)[None]  # (1, point, 3)
        logits = field.logits(points, code)[0]
        entropy = functional.cross_entropy(logits.float(), targets[flat].to(device), reduction="none")
        loss = _bounded(entropy, options.bound).mean() + weight * prior.distance(code)[0]
        optimizer.zero_grad(set_to_none=True)
        loss.backward()
        optimizer.step()
        schedule.step()
        losses.append(entropy.detach().mean())
    fitted = code.detach()
    tail = torch.stack(losses[-max(1, options.iterations // 10) :]).mean()
    return Fit(fitted[0].cpu(), float(tail), float(prior.distance(fitted)[0]))


def decode(field: Field, code: Tensor, prepared: Prepared, device: torch.device) -> Tensor:
    """Log-probabilities of the classes at the brain voxels of the lattice, (voxel, class) float32 on the CPU.

    Voxels come in the order of `numpy.flatnonzero(prepared.brain)`. Where the recipe keeps class 0 for the outside, the
    distribution is the one given that the voxel is brain: else the rim, which the field half expects to be outside,
    would deviate.
    """
    index = torch.from_numpy(np.flatnonzero(prepared.brain))
    resolution = prepared.lattice.resolution
    axis = axis_coordinates(resolution, prepared.recipe.lattice)
    codes = code[None].to(device)
    parts = []
    with torch.no_grad():
        for flat in index.split(DECODE_POINTS):
            points = coordinates_of(flat, resolution, axis).to(device)[None]
            logits = field.logits(points, codes)[0].float()
            if prepared.recipe.outside_class:
                logits[:, 0] = -torch.inf
            parts.append(torch.log_softmax(logits, dim=-1).cpu())
    return torch.cat(parts)


def _bounded(entropy: Tensor, bound: float | None) -> Tensor:
    """c (1 − exp(−CE/c)): as CE where it is small, never above c."""
    return entropy if bound is None else bound * (1 - torch.exp(-entropy / bound))


def _seed(seed: int, key: str) -> int:
    return int.from_bytes(hashlib.sha256(f"{seed}/{key}".encode()).digest()[:8], "big") >> 1
