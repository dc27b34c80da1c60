"""Codes that explain a scan about as well as the fitted one: Laplace approximation with the empirical Fisher matrix."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from anofield.codes import CodePrior

BATCHES = 128  # random batches whose gradients give the Fisher matrix
Gradient = Callable[[Tensor], Tensor]  # codes (b, code) → mean loss of an own random batch each (b,)


def sample_codes(
    loss: Gradient, code: Tensor, prior: CodePrior, count: int, points: int, evidence: float, generator: torch.Generator
) -> Tensor:
    """Draw codes around a fitted one, (count, code) on the CPU.

    Args:
        loss: Mean loss of `points` random points for each of some codes.
        code: The fitted code, (code,).
        prior: Its precision is the posterior's where the scan says nothing.
        count: Samples.
        points: Points per batch of `loss`.
        evidence: Independent points that the scan is worth.
        generator: Source of randomness, on the CPU.
    """
    codes = code[None].repeat(BATCHES, 1).requires_grad_(True)
    (gradients,) = torch.autograd.grad(loss(codes).sum(), codes)
    centred = (gradients - gradients.mean(dim=0)).double().cpu()
    fisher = centred.T @ centred / (BATCHES - 1) * points  # covariance of one point's gradient
    precision = evidence * fisher + prior.precision.double()
    lower = torch.linalg.cholesky(torch.linalg.inv(precision))
    noise = torch.randn(count, len(code), generator=generator, dtype=torch.float64)
    drawn: Tensor = code.detach().cpu().double() + noise @ lower.T
    return drawn.float()
