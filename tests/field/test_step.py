"""One step: gradients in parts are the gradients of the whole, and the fused ReLU with dropout is both."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor
from torch.nn import functional

from anofield.field import step as module
from anofield.field.decoder import Decoder, folded_weights, relu_dropout
from anofield.field.step import Run, batch_loss, point_loss, start_run, train_step
from helpers import CLASSES, tiny_specs

CPU = torch.device("cpu")


def batch(cases: int, points: int = 30) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(1)
    places = torch.rand(cases, points, 3, generator=generator) * 2 - 1
    return places, torch.randint(CLASSES, (cases, points), generator=generator)


def run_of(cases: int = 5, **changes: Any) -> Run:
    network = tiny_specs().network_specs.model_copy(update={"dropout": ()})
    settings: dict[str, Any] = {"NetworkSpecs": network.model_dump(), **changes}
    return start_run(tiny_specs(**settings), [f"p{number}" for number in range(cases)], CPU)


def gradients(run: Run) -> list[Tensor]:
    return [parameter.grad.clone() for parameter in (*run.field.parameters(), run.codes.weight)]  # type: ignore[union-attr]


@pytest.mark.parametrize("part", [1, 60, 10_000])
def test_gradients_taken_in_parts_are_those_of_the_published_loss(monkeypatch: pytest.MonkeyPatch, part: int) -> None:
    monkeypatch.setattr(module, "PART_POINTS", part)
    run, rows, points = run_of(), torch.tensor([4, 0, 3]), batch(3)
    loss = batch_loss(run, *points, rows, 50)
    loss.backward()
    expected = gradients(run)
    monkeypatch.setattr(run.optimizer, "step", lambda: None)
    found = train_step(run, points, rows, 50, 3)
    torch.testing.assert_close(found, loss.detach())
    for one, other in zip(gradients(run), expected, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-5, atol=1e-5)


class Plain(Decoder):
    """The decoder as a field of another package would be: nothing but its logits."""


@pytest.mark.parametrize("part", [1, 60, 10_000])
def test_a_field_of_another_package_takes_the_steps_of_plain_autograd(
    monkeypatch: pytest.MonkeyPatch, part: int
) -> None:
    monkeypatch.setattr(module, "PART_POINTS", part)
    changes: dict[str, Any] = {"GradientClipNorm": 1.0, "NetworkSpecs": tiny_specs().network_specs.model_dump()}
    fast, slow = run_of(**changes), run_of(**changes)  # with dropout
    slow.field.__class__ = Plain
    assert folded_weights(fast.field) and not folded_weights(slow.field)
    for step in range(3):
        losses = [train_step(run, batch(3), torch.tensor([4, 0, 3]), 50 + step, 3) for run in (fast, slow)]
        torch.testing.assert_close(*losses)
        for one, other in zip(gradients(fast), gradients(slow), strict=True):
            torch.testing.assert_close(one, other, rtol=1e-4, atol=1e-4)


def test_codes_outside_the_batch_move_by_their_momentum_alone() -> None:
    run, rows, points = run_of(CodeRegularization=False), torch.tensor([1]), batch(1)
    before = run.codes.weight.detach().clone()
    train_step(run, points, rows, 1, 1)
    moved = (run.codes.weight.detach() != before).any(dim=1)
    assert moved.tolist() == [False, True, False, False, False]
    train_step(run, points, torch.tensor([2]), 1, 1)  # dense Adam, as published: row 1 still has momentum
    assert (run.codes.weight.detach() != before).any(dim=1).tolist() == [False, True, True, False, False]


def test_a_rank_without_cases_steps_like_the_others() -> None:
    run = run_of()
    nothing = torch.empty(0, 30, 3), torch.empty(0, 30, dtype=torch.int64)
    loss = train_step(run, nothing, torch.tensor([], dtype=torch.int64), 1, 2)
    assert float(loss) == 0
    assert {int(state["step"]) for state in run.optimizer.state.values()} == {1}
    assert len(run.optimizer.state) == len(gradients(run))


def test_bfloat16_gradients_are_close() -> None:
    results = []
    for precision in ("float32", "bfloat16"):
        run = run_of(CodeRegularization=False)
        run.set_precision(precision)
        train_step(run, batch(4, 500), torch.arange(4), 1, 4)
        results.append(torch.cat([gradient.flatten() for gradient in gradients(run)]))
    one, other = results
    assert functional.cosine_similarity(one, other, dim=0) > 0.999


class TestReluDropout:
    @pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float32, torch.float64])
    @pytest.mark.parametrize("shape", [(3, 1001), (64, 512), (1, 1, 7)])
    def test_keeps_or_drops_what_the_relu_leaves(self, shape: tuple[int, ...], dtype: torch.dtype) -> None:
        torch.manual_seed(0)
        x = torch.randn(shape, dtype=dtype, requires_grad=True)
        y = relu_dropout(x, 0.25)
        kept = y != 0
        torch.testing.assert_close(
            y[kept], (x / 0.75)[kept].to(dtype), rtol=1e-2 if dtype is torch.bfloat16 else 1e-6, atol=0
        )
        assert not (kept & (x <= 0)).any()
        y.backward(torch.ones_like(y))
        torch.testing.assert_close(x.grad, kept.to(dtype) / 0.75)

    def test_drops_the_asked_share_everywhere_alike(self) -> None:
        torch.manual_seed(1)
        dropped = relu_dropout(torch.ones(4000, 256), 0.2) == 0
        assert float(dropped.float().mean()) == pytest.approx(0.2, abs=0.002)
        assert (dropped.float().mean(dim=0) - 0.2).abs().max() < 0.04  # five SD of a column of 4000
        neighbours = dropped[:, :-1] & dropped[:, 1:]
        assert float(neighbours.float().mean()) == pytest.approx(0.04, abs=0.002)

    def test_follows_the_seed_and_leaves_its_input(self) -> None:
        x = torch.randn(50, 8)
        before = x.clone()
        draws = []
        for seed in (3, 3, 4):
            torch.manual_seed(seed)
            draws.append(relu_dropout(x, 0.5))
        assert torch.equal(draws[0], draws[1])
        assert not torch.equal(draws[0], draws[2])
        assert torch.equal(x, before)

    def test_without_probability_is_the_relu(self) -> None:
        x = torch.randn(9, 9)
        assert torch.equal(relu_dropout(x, 0.0), x.clamp_min(0))


@pytest.mark.slow
def test_the_compiled_loss_is_the_loss() -> None:
    """What CUDA takes; traced and differentiated by torch.compile, run without its code generator."""
    results = []
    for compiled in (False, True):
        run = run_of()
        if compiled:
            run.point_loss = torch.compile(point_loss, backend="aot_eager")
        loss = train_step(run, batch(3), torch.arange(3), 1, 3)
        results.append((loss, torch.cat([gradient.flatten() for gradient in gradients(run)])))
    torch.testing.assert_close(results[0], results[1], rtol=1e-5, atol=1e-6)
