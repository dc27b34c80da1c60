"""The published detection without changes: fit, decoding grid, score and filters of Naval Marimont & Tarroni 2021.

Its defects are kept (no prior, no schedule, points and score on the background too, a decoding grid up to one voxel off
the training lattice), so that other procedures can be compared with it. Source: the published evaluation notebook.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import torch
from scipy import ndimage
from torch import Tensor
from torch.nn import functional

from anofield._random import seed_of
from anofield.data.prepared import Prepared
from anofield.detect.fit import Fit
from anofield.field.decoder import Field
from anofield.field.model import TrainedField
from anofield.field.points import axis_coordinates, coordinates_of
from anofield.typing import FloatVolume


class Phase(NamedTuple):
    """One phase of the fit, with a new Adam optimiser.

    Attributes:
        iterations: Number of steps.
        points: Random points per step.
    """

    iterations: int
    points: int


SCHEDULE = (Phase(501, 10_000), Phase(101, 50_000))
LEARNING_RATE = 1e-3
MINIMUM, MEAN = 3, 15  # widths of the filters, voxels
DECODE_POINTS = 16_384


def fit(trained: TrainedField, prepared: Prepared, key: str, seed: int) -> Fit:
    """The published fit; it does not measure contrast, outside, orientation and pose, so they are None."""
    code, loss = fit_code(trained.field, prepared, key, seed, trained.device)
    return Fit(
        code=code,
        loss=loss,
        code_distance=float(trained.prior.distance(code[None])[0]),
        contrast=None,
        outside=None,
        turned=None,
        pose=None,
        intensity=None,
    )


def fit_code(
    field: Field, prepared: Prepared, key: str, seed: int, device: torch.device, schedule: tuple[Phase, ...] = SCHEDULE
) -> tuple[Tensor, float]:
    """Fit a code from N(0, 1/length) by Adam on plain cross-entropy of random voxels of the whole lattice.

    Args:
        field: The field, its weights frozen.
        prepared: The scan on its lattice.
        key: Hash of the scan's content; with the seed it determines the first code and the points.
        seed: Seed of the first code and the points.
        device: Device of the field.
        schedule: Phases, one after the other.

    Returns:
        The code (code,) and the mean cross-entropy of the last phase's last tenth, nats per point.
    """
    generator = torch.Generator().manual_seed(seed_of(seed, key, "ifl2021"))
    start = torch.randn(1, field.code_length, generator=generator) / field.code_length**0.5
    code = start.to(device).requires_grad_(True)
    targets = torch.from_numpy(prepared.classes.reshape(-1)).long()
    axis = axis_coordinates(prepared.lattice.resolution, prepared.recipe.lattice)
    losses: list[Tensor] = []
    for iterations, count in schedule:
        optimizer = torch.optim.Adam([code], lr=LEARNING_RATE)
        losses = []
        for _ in range(iterations):
            flat = torch.randint(len(targets), (count,), generator=generator)
            points = coordinates_of(flat, len(axis), axis).to(device)[None]
            loss = functional.cross_entropy(field.logits(points, code)[0], targets[flat].to(device))
            optimizer.zero_grad(set_to_none=True)
            loss.backward()
            optimizer.step()
            losses.append(loss.detach())
    last = torch.stack(losses[-max(1, len(losses) // 10) :])
    return code.detach()[0].cpu(), float(last.mean())


def decode(field: Field, code: Tensor, prepared: Prepared, device: torch.device) -> tuple[Tensor, FloatVolume]:
    """Decode on `linspace(−1, 1, R)` per axis.

    Returns:
        Log-probabilities at the brain voxels, (voxel, class), and the cross-entropy of every voxel, (R, R, R).
    """
    resolution = prepared.lattice.resolution
    axis = torch.linspace(-1, 1, resolution)
    observed = torch.from_numpy(prepared.classes.reshape(-1)).long()
    brain = torch.from_numpy(prepared.brain.reshape(-1))
    codes, inside, scores = code[None].to(device), [], []
    with torch.no_grad():
        for flat in torch.arange(resolution**3).split(DECODE_POINTS):
            points = coordinates_of(flat, resolution, axis).to(device)[None]
            log_p = torch.log_softmax(field.logits(points, codes)[0], dim=-1).cpu()
            scores.append(-log_p.gather(1, observed[flat][:, None])[:, 0])
            inside.append(log_p[brain[flat]])
    volume = torch.cat(scores).numpy().reshape(prepared.lattice.shape)
    return torch.cat(inside), np.asarray(volume, dtype=np.float32)


def smooth(values: FloatVolume) -> FloatVolume:
    """Minimum over 3³ voxels, ignoring those beyond the border, then mean over 15³, taking those as 0; (R, R, R)."""
    low = ndimage.minimum_filter(values, MINIMUM, mode="constant", cval=float(np.finfo(np.float32).max))
    return np.asarray(ndimage.uniform_filter(low, MEAN, mode="constant", cval=0.0), dtype=np.float32)
