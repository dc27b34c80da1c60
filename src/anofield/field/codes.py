"""Codes: the table that training learns, the codes of a trained field, and the Gaussian prior fitted to them."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn


def bounded(codes: Tensor, bound: float | None) -> Tensor:
    """Rescale codes (case, code) to norms of at most `bound`; None leaves them as they are."""
    if bound is None:
        return codes
    shrink: Tensor = (bound / codes.norm(dim=1, keepdim=True).clamp_min(1e-12)).clamp_max(1.0)
    return codes * shrink


class CodeTable(nn.Module):
    """One learned code per training case, found by its case id.

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
        """A table of some of the cases, with their codes in this table."""
        rows = [self.ids.index(case_id) for case_id in ids] if ids != self.ids else list(range(len(ids)))
        part = CodeTable(ids, self.weight.shape[1], self.bound, 1.0, torch.Generator())
        part.weight.data = self.weight.detach()[rows].clone()
        return part


@dataclass(frozen=True)
class CodePrior:
    """Gaussian fitted to the training codes, its covariance shrunk towards a multiple of the identity.

    Attributes:
        mean: Mean of the training codes, (code,).
        precision: Inverse covariance, (code, code).
    """

    mean: Tensor
    precision: Tensor

    SHRINKAGE = 0.1  # share of the isotropic part; with fewer subjects than code entries the rest is singular

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


@dataclass(frozen=True, kw_only=True, repr=False, eq=False)
class Codes:
    """The codes that a field was trained with, one row per training case.

    Attributes:
        ids: Case ids, row by row; empty for experiments of 2021, which do not store them.
        values: Stored codes, (case, code); after the last step of training, rows may exceed the bound.
        bound: `CodeBound` of the specs; None for no bound.
        contents: Content hash of the scan of each row; empty where it is not known.

    >>> Codes(ids=("a", "b"), values=torch.tensor([[3.0, 4.0], [0.0, 0.5]]), bound=1.0).seen()
    tensor([[0.6000, 0.8000],
            [0.0000, 0.5000]])
    """

    ids: Sequence[str]
    values: Tensor
    bound: float | None
    contents: Sequence[str] = ()

    def __len__(self) -> int:
        return len(self.values)

    def __repr__(self) -> str:
        bound = "no bound" if self.bound is None else f"norms up to {self.bound:g}"
        return f"Codes({len(self)} subjects, length {self.values.shape[1]}, {bound})"

    @property
    def names(self) -> list[str]:
        """The case ids, or the row numbers where the experiment keeps no ids."""
        return list(self.ids) or [str(row) for row in range(len(self))]

    def seen(self) -> Tensor:
        """Codes as the field saw them in training, (case, code): every row is rescaled to the bound."""
        return bounded(self.values.float(), self.bound)

    def prior(self) -> CodePrior:
        """Gaussian of the codes that the field saw."""
        return CodePrior.fit(self.seen())
