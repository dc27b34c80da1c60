"""Samples of the code: the prior where the scan says nothing, ever closer to the fit the more it says."""

from __future__ import annotations

import torch

from anofield.codes import CodePrior
from anofield.posterior import sample_codes

PRIOR = CodePrior.fit(torch.randn(50, 3, generator=torch.Generator().manual_seed(0)) * torch.tensor([1.0, 2.0, 0.5]))
CODE = torch.tensor([0.3, -1.0, 2.0])
POINTS = 10


def drawn(evidence: float, count: int = 4000) -> torch.Tensor:
    """Samples under a loss whose gradient per point is standard normal, so that its Fisher matrix is the identity."""
    noise = torch.randn(128, 3, generator=torch.Generator().manual_seed(1)) / POINTS**0.5
    generator = torch.Generator().manual_seed(2)
    return sample_codes(lambda codes: (codes * noise).sum(dim=1), CODE, PRIOR, count, POINTS, evidence, generator)


def test_without_evidence_the_spread_is_the_priors() -> None:
    expected = torch.linalg.inv(PRIOR.precision)
    torch.testing.assert_close(torch.cov(drawn(0.0).T), expected, rtol=0.15, atol=0.05)


def test_evidence_narrows_the_spread_around_the_fitted_code() -> None:
    for evidence in (10.0, 1000.0):
        samples = drawn(evidence)
        torch.testing.assert_close(samples.mean(dim=0), CODE, rtol=0, atol=0.15 / evidence**0.5)
        assert float(torch.cov(samples.T).diagonal().mean()) < 1.4 / evidence


def test_samples_depend_on_the_generator_alone() -> None:
    assert torch.equal(drawn(5.0, 3), drawn(5.0, 3))
