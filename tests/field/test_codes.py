"""Codes: a bound on what is looked up, and a prior that knows what training codes are like."""

from __future__ import annotations

import pytest
import torch

from anofield.field.codes import CodePrior, Codes, CodeTable


def table(people: int = 50, length: int = 20, bound: float | None = 1.0, std: float = 1.0) -> CodeTable:
    return CodeTable([str(i) for i in range(people)], length, bound, std, torch.Generator().manual_seed(0))


@pytest.mark.slow
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


class TestCodes:
    """Codes of a trained field."""

    def test_are_seen_and_fitted_within_the_bound_that_the_field_looked_them_up_with(self) -> None:
        values = 3 * torch.randn(40, 5, generator=torch.Generator().manual_seed(0))
        codes = Codes(ids=[str(row) for row in range(40)], values=values, bound=1.0)
        assert float(codes.seen().norm(dim=1).max()) <= 1 + 1e-6
        prior = codes.prior()
        torch.testing.assert_close(prior.mean, codes.seen().mean(dim=0))
        assert float(prior.distance(codes.seen()).mean()) == pytest.approx(1.0, abs=0.2)
        assert not torch.allclose(prior.precision, CodePrior.fit(values).precision)

    def test_without_a_bound_are_seen_as_they_are_stored(self) -> None:
        values = torch.randn(3, 5)
        assert torch.equal(Codes(ids=("a", "b", "c"), values=values, bound=None).seen(), values)

    def test_that_name_no_cases_are_named_by_their_rows(self) -> None:
        codes = Codes(ids=(), values=torch.zeros(2, 5), bound=None)
        assert (codes.names, len(codes)) == (["0", "1"], 2)

    def test_say_what_they_are(self) -> None:
        codes = Codes(ids=(), values=torch.zeros(2, 5), bound=0.5)
        assert repr(codes) == "Codes(2 subjects, length 5, norms up to 0.5)"
