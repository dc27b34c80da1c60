"""Codes of people: the table learned in training, its norm bound, and the prior that its rows define."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor, nn


def bounded(codes: Tensor, bound: float | None) -> Tensor:
    """Codes (case, code) with norms of at most `bound`; None for no bound."""
    if bound is None:
        return codes
    shrink: Tensor = (bound / codes.norm(dim=1, keepdim=True).clamp_min(1e-12)).clamp_max(1.0)
    return codes * shrink


class CodeTable(nn.Module):
    """One code per training case, keyed by case id.

    Args:
        ids: Case ids, row by row.
        length: Code length.
        bound: Largest norm of a row that is looked up; None for no bound.
        init_std: Rows start as N(0, init_std/√length) (published `CodeInitStdDev`).
        generator: Source of randomness.
    """

    def __init__(
        self, ids: list[str], length: int, bound: float | None, init_std: float, generator: torch.Generator
    ) -> None:
        super().__init__()
        self.ids, self.bound = list(ids), bound
        self.weight = nn.Parameter(torch.randn(len(ids), length, generator=generator) * init_std / math.sqrt(length))

    def forward(self, rows: Tensor) -> Tensor:
        """Codes of rows (c,) → (c, code); the rows are first rescaled in place to the bound."""
        if self.bound is not None:
            with torch.no_grad():
                self.weight[rows] = bounded(self.weight[rows], self.bound)
        return self.weight[rows]

    def only(self, ids: list[str]) -> CodeTable:
        """The table of some of the cases, with the codes they have here."""
        rows = [self.ids.index(case_id) for case_id in ids] if ids != self.ids else list(range(len(ids)))
        part = CodeTable(ids, self.weight.shape[1], self.bound, 1.0, torch.Generator())
        part.weight.data = self.weight.detach()[rows].clone()
        return part


@dataclass(frozen=True)
class CodePrior:
    """Gaussian fitted to the training codes, its covariance shrunk towards a multiple of the identity.

    Attributes:
        mean: (code,).
        precision: Inverse covariance, (code, code).
    """

    mean: Tensor
    precision: Tensor

    SHRINKAGE = 0.1  # share of the isotropic part; with fewer people than code entries the rest is singular

    @classmethod
    def fit(cls, codes: Tensor) -> CodePrior:
        """Fit to training codes (case, code)."""
        codes = codes.double()
        mean = codes.mean(dim=0)
        centred = codes - mean
        covariance = centred.T @ centred / max(len(codes) - 1, 1)
        isotropic = torch.eye(codes.shape[1], dtype=torch.float64) * covariance.diagonal().mean().clamp_min(1e-8)
        shrunk = (1 - cls.SHRINKAGE) * covariance + cls.SHRINKAGE * isotropic
        return cls(mean.float(), torch.linalg.inv(shrunk).float())

    def distance(self, codes: Tensor) -> Tensor:
        """Squared Mahalanobis distance per code entry: about 1 for a code like the training codes. (c, code) → (c,)."""
        centred = codes - self.mean.to(codes)
        return torch.einsum("ci,ij,cj->c", centred, self.precision.to(codes), centred) / codes.shape[1]
