"""Codes: a bound on what is looked up, and a prior that knows what training codes are like."""

from __future__ import annotations

import pytest
import torch

from anofield.field.codes import CodePrior, CodeTable


def table(people: int = 50, length: int = 20, bound: float | None = 1.0, std: float = 1.0) -> CodeTable:
    return CodeTable([str(i) for i in range(people)], length, bound, std, torch.Generator().manual_seed(0))


def test_bound_rescales_the_rows_looked_up_in_place_and_no_others() -> None:
    codes = table(bound=0.9)
    with torch.no_grad():
        codes.weight[3] *= 0.1 / codes.weight[3].norm()
    before = codes.weight.detach().clone()
    rows = torch.tensor([0, 3, 7])
    looked_up = codes(rows)
    torch.testing.assert_close(codes.weight[rows], looked_up)
    torch.testing.assert_close(codes.weight[3], before[3])
    for row in (0, 7):
        torch.testing.assert_close(codes.weight[row], before[row] * min(1.0, 0.9 / float(before[row].norm())))
    assert float(looked_up.detach().norm(dim=1).max()) <= 0.9 + 1e-6
    others = torch.ones(50, dtype=torch.bool)
    others[rows] = False
    assert torch.equal(codes.weight[others], before[others])


def test_the_gradient_reaches_the_rows_looked_up_and_no_others() -> None:
    codes = table()
    codes(torch.tensor([4, 1])).sum().backward()
    assert codes.weight.grad is not None
    assert codes.weight.grad.abs().sum(dim=1).nonzero().flatten().tolist() == [1, 4]


def test_without_a_bound_rows_stay_as_they_are() -> None:
    codes = table(bound=None, std=10.0)
    before = codes.weight.detach().clone()
    assert torch.equal(codes(torch.arange(50)), before)


def test_a_row_of_zeros_stays_finite() -> None:
    codes = table()
    codes.weight.data[2] = 0.0
    assert torch.equal(codes(torch.tensor([2])), torch.zeros(1, 20))


@pytest.mark.parametrize("std", [0.3, 1.0])
def test_rows_start_with_norm_init_std_on_average(std: float) -> None:
    codes = table(500, 100, None, std)
    assert float(codes.weight.detach().pow(2).sum(dim=1).mean().sqrt()) == pytest.approx(std, rel=0.02)


def test_table_is_a_function_of_its_generator() -> None:
    assert torch.equal(table().weight, table().weight)


def test_training_codes_lie_at_distance_one_on_average_and_the_mean_at_none() -> None:
    shape = torch.diag(torch.linspace(0.5, 2.0, 8))
    codes = torch.randn(4000, 8, generator=torch.Generator().manual_seed(0)) @ shape + 3.0
    prior = CodePrior.fit(codes)
    assert float(prior.distance(codes).mean()) == pytest.approx(1.0, abs=0.12)
    assert float(prior.distance(codes.mean(0, keepdim=True))[0]) == pytest.approx(0.0, abs=1e-6)


def test_distance_weighs_each_direction_by_its_own_spread() -> None:
    codes = torch.randn(4000, 2, generator=torch.Generator().manual_seed(0)) @ torch.diag(torch.tensor([1.0, 0.1]))
    along, across = CodePrior.fit(codes).distance(torch.tensor([[0.5, 0.0], [0.0, 0.5]]))
    assert float(across) > 5 * float(along)


@pytest.mark.parametrize("people", [1, 2, 5])
def test_with_fewer_people_than_entries_the_prior_is_finite_and_grows_with_distance(people: int) -> None:
    codes = torch.randn(people, 64, generator=torch.Generator().manual_seed(0))
    prior = CodePrior.fit(codes)
    far = prior.mean + torch.eye(64)[:3] * torch.tensor([[1.0], [2.0], [4.0]])
    distances = prior.distance(far)
    assert torch.isfinite(prior.precision).all()
    assert torch.isfinite(distances).all()
    assert (distances > 0).all()
    torch.testing.assert_close(prior.distance(prior.mean + 2 * torch.ones(1, 64)),
                               4 * prior.distance(prior.mean + torch.ones(1, 64)))  # fmt: skip
