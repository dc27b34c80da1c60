"""The fit: the code of a person comes back from the person's voxels, whatever else the run does."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from anofield.data.lattice import Convention
from anofield.data.prepared import Prepared
from anofield.detect.decode import Person, decode
from anofield.detect.fit import BOUND, Fit, fit_code
from anofield.detect.options import FitOptions
from anofield.detect.pose import Pose
from anofield.field.codes import CodePrior
from anofield.field.decoder import Decoder
from anofield.field.points import axis_coordinates
from anofield.field.specs import NetworkSpecs
from helpers import CLASSES, make_prepared

CPU = torch.device("cpu")
OPTIONS = FitOptions(iterations=60, points=512, learning_rate=0.1, pose="none")
LENGTH, PEOPLE, RESOLUTION = 3, 6, 14


def make_field() -> Decoder:
    """A frozen random field whose codes matter."""
    torch.manual_seed(1)
    field: Any = Decoder(LENGTH, 1, NetworkSpecs(dims=(24, 24), dim_out=CLASSES))
    with torch.no_grad():
        field.lin2.weight *= 12
        field.lin0.weight[:, :LENGTH] *= 2
    return field.requires_grad_(False).eval()


def make_sharp_field() -> Decoder:
    """A frozen random field that varies with the place, so that the place can be read from it."""
    torch.manual_seed(3)
    field: Any = Decoder(LENGTH, 2, NetworkSpecs(dims=(32, 32), dim_out=CLASSES))
    with torch.no_grad():
        field.lin2.weight *= 25
        field.lin0.weight[:, :LENGTH] *= 0.3
    return field.requires_grad_(False).eval()


FIELD, SHARP = make_field(), make_sharp_field()
CODES = torch.randn(PEOPLE, LENGTH, generator=torch.Generator().manual_seed(2))
PRIOR = CodePrior.fit(CODES)


def person(row: int, convention: Convention = "center") -> Prepared:
    """Somebody drawn from the field: the classes follow its probabilities at the person's code."""
    body = make_prepared(row, RESOLUTION)
    points = torch.cartesian_prod(*[axis_coordinates(RESOLUTION, convention)] * 3)
    p = torch.softmax(FIELD.logits(points[None], CODES[row : row + 1])[0], dim=-1)
    drawn = torch.multinomial(p, 1, generator=torch.Generator().manual_seed(row))
    return replace(
        body,
        classes=drawn.reshape(body.classes.shape).numpy().astype(np.uint8),
        recipe=body.recipe.model_copy(update={"lattice": convention}),
    )


@contextmanager
def objective(bound: float | None = None, prior_weight: float = 0.0) -> Iterator[None]:
    """Fit by plain cross-entropy, or with another bound and weight of the prior than the fit's own."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("anofield.detect.fit.PRIOR_WEIGHT", prior_weight)
        if bound is None:
            patch.setattr("anofield.detect.fit._bounded", lambda entropy: entropy)
        else:
            patch.setattr("anofield.detect.fit.BOUND", bound)
        yield


def fit(
    row: int,
    key: str = "case",
    options: FitOptions = OPTIONS,
    convention: Convention = "center",
    prior_weight: float = 0.0,
) -> Fit:
    with objective(prior_weight=prior_weight):
        return fit_code(FIELD, PRIOR, person(row, convention), key, options, CPU)


@pytest.mark.slow
@pytest.mark.parametrize("convention", ["center", "corner"])
@pytest.mark.parametrize("row", range(3))
def test_a_persons_code_is_recovered(row: int, convention: Convention) -> None:
    found = fit(row, convention=convention)
    miss, start = (found.code - CODES[row]).norm(), (PRIOR.mean - CODES[row]).norm()
    assert float(miss) < 0.35 * float(start)
    at_mean = decode(Person(FIELD, PRIOR.mean, CPU), person(row, convention))
    body = person(row, convention)
    observed = torch.from_numpy(body.classes[body.brain]).long()[:, None]
    assert found.loss < float(-at_mean.gather(1, observed).mean())


@pytest.mark.slow
def test_a_fit_is_a_function_of_scan_seed_and_key() -> None:
    first = fit(0)
    fit(1)
    torch.rand(7)
    again = fit(0)
    assert torch.equal(first.code, again.code)
    assert (first.loss, first.code_distance) == (again.loss, again.code_distance)
    assert not torch.equal(first.code, fit(0, key="another").code)
    assert not torch.equal(first.code, fit(0, options=OPTIONS.model_copy(update={"seed": 1})).code)


@pytest.mark.slow
def test_what_lies_far_from_the_brain_is_not_looked_at() -> None:
    body = person(2)
    assert body.brain[4:10, 4:10, 4:10].all()
    changed = body.classes.copy()
    small = np.zeros_like(body.brain)
    small[5:9, 5:9, 5:9] = True
    near = np.zeros_like(small)
    near[4:10, 4:10, 4:10] = True
    changed[~near] = (changed[~near] + 1) % CLASSES
    options = OPTIONS.model_copy(update={"margin": 1, "iterations": 5})
    with objective():
        results = [
            fit_code(FIELD, PRIOR, replace(body, classes=classes, brain=small), "case", options, CPU).code
            for classes in (body.classes, changed)
        ]
    assert torch.equal(*results)


@pytest.mark.slow
def test_a_heavy_prior_keeps_the_code_at_the_mean_of_training() -> None:
    free, bound = fit(0), fit(0, prior_weight=1e6)
    assert bound.code_distance < 0.01 * free.code_distance
    assert free.code_distance == pytest.approx(float(PRIOR.distance(free.code[None])[0]))


@pytest.mark.slow
@pytest.mark.parametrize("row", [1, 2])
def test_a_bounded_loss_lets_an_improbable_lesion_pull_less(row: int) -> None:
    body = person(row)
    sick = body.classes.copy()
    sick[3:8, 3:11, 3:11] = 0  # a class that hardly occurs there
    misses = {}
    for bound in (None, 1e6, 2.0):
        with objective(bound):
            found = fit_code(FIELD, PRIOR, replace(body, classes=sick), "case", OPTIONS, CPU)
        misses[bound] = float((found.code - CODES[row]).norm())
    assert misses[2.0] < 0.6 * misses[None]
    assert misses[1e6] == pytest.approx(misses[None], rel=0.01)  # a high bound binds nothing


@pytest.mark.slow
def test_the_field_collects_no_gradients() -> None:
    fit(0)
    assert all(value.grad is None for value in FIELD.parameters())


@pytest.mark.parametrize("recipe", ["box", "ifl2021-hcp"])
@pytest.mark.parametrize("piece", [1, 100, 10**6])
def test_decoding_in_pieces_is_the_field_given_the_brain(
    piece: int, recipe: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("anofield.detect.decode.DECODE_POINTS", piece)
    body = person(1)
    body = replace(body, recipe=body.recipe.model_copy(update={"name": recipe}))
    if piece == 1:
        body = replace(body, brain=body.brain & (np.arange(RESOLUTION) == 6)[:, None, None])
    axis = axis_coordinates(RESOLUTION, "center")
    points = axis[torch.from_numpy(np.argwhere(body.brain))]
    p = torch.softmax(FIELD.logits(points[None], CODES[1:2])[0], dim=-1)
    if recipe == "box":  # class 0 is kept for the outside and cannot be observed in the brain
        p = torch.where(torch.arange(CLASSES) == 0, 0.0, p) / p[:, 1:].sum(dim=1, keepdim=True)
    expected = p.log()
    found = decode(Person(FIELD, CODES[1], CPU), body)
    assert found.shape == (int(body.brain.sum()), CLASSES)
    torch.testing.assert_close(found, expected, rtol=1e-5, atol=1e-5)


def displaced(pose: Pose, seed: int = 5) -> Prepared:
    """Somebody of the mean code whose head lies elsewhere in the box."""
    body = make_prepared(0, RESOLUTION)
    points = torch.cartesian_prod(*[axis_coordinates(RESOLUTION, "center")] * 3)
    p = torch.softmax(SHARP.logits(pose(points)[None], PRIOR.mean[None])[0], dim=-1)
    drawn = torch.multinomial(p, 1, generator=torch.Generator().manual_seed(seed))
    return replace(body, classes=drawn.reshape(body.classes.shape).numpy().astype(np.uint8))


@pytest.mark.slow
@pytest.mark.parametrize(
    "pose",
    [
        Pose(torch.tensor([0.15, -0.1, 0.2]), torch.zeros(3), torch.zeros(1)),
        Pose(torch.zeros(3), torch.tensor([0.06, -0.04, 0.05]), torch.zeros(1)),
        Pose(torch.tensor([0.4, 0.0, -0.3]), torch.tensor([0.0, 0.05, 0.0]), torch.tensor([0.1])),
    ],
)
def test_a_known_pose_is_recovered(pose: Pose) -> None:
    options = FitOptions(iterations=120, points=1024, pose="similarity")
    with objective(prior_weight=1.0):
        found = fit_code(SHARP, PRIOR, displaced(pose), "case", options, CPU)
        blind = fit_code(SHARP, PRIOR, displaced(pose), "case", options.model_copy(update={"pose": "none"}), CPU)
    assert found.pose is not None
    assert blind.pose is None
    torch.testing.assert_close(found.pose.turn, pose.turn, rtol=0, atol=0.06)
    torch.testing.assert_close(found.pose.shift, pose.shift, rtol=0, atol=0.04)
    torch.testing.assert_close(found.pose.log_size, pose.log_size, rtol=0, atol=0.04)
    assert found.loss < blind.loss


@pytest.mark.slow
@pytest.mark.parametrize("strength", [0.15, 0.4])
def test_the_bound_does_not_lose_where_the_field_knows_little(strength: float) -> None:
    """A field that was hardly trained finds everything improbable; a bound of 1 nat would cut all of it off."""
    poor: Any = make_field()
    with torch.no_grad():
        poor.lin2.weight *= strength
    points = torch.cartesian_prod(*[axis_coordinates(RESOLUTION, "center")] * 3)
    body, losses = make_prepared(1, RESOLUTION), {}
    p = torch.softmax(poor.logits(points[None], CODES[1:2])[0], dim=-1)
    drawn = torch.multinomial(p, 1, generator=torch.Generator().manual_seed(4)).reshape(body.classes.shape)
    body = replace(body, classes=drawn.numpy().astype(np.uint8))
    for bound in (None, 1.0, BOUND):
        with objective(bound):
            losses[bound] = np.mean([fit_code(poor, PRIOR, body, key, OPTIONS, CPU).loss for key in "abc"])
    assert losses[BOUND] < 1.02 * losses[None] < losses[1.0]


class TestStride:
    @pytest.mark.parametrize("resolution", [12, 13])
    def test_of_two_is_exact_where_logits_are_linear(self, resolution: int) -> None:
        prepared = make_prepared(2, resolution)
        exact, coarse = (decode(Person(Linear(), torch.zeros(2), CPU), prepared, stride) for stride in (1, 2))
        torch.testing.assert_close(coarse, exact, rtol=1e-4, atol=1e-4)

    def test_auto_is_coarse_on_fine_lattices_alone(self) -> None:
        assert [FitOptions().step(side) for side in (64, 127, 128, 160)] == [1, 1, 2, 2]
        assert FitOptions(stride=1).step(160) == 1


class Linear:
    """Logits that are linear in the place."""

    code_length, classes = 2, 4

    def logits(self, points: Tensor, codes: Tensor) -> Tensor:
        return points @ torch.tensor([[1.0, 0.2, -1.0, 3.0], [0.0, 2.0, 1.0, -1.0], [1.0, 1.0, 0.5, 0.0]])


@pytest.mark.slow
def test_a_known_affine_pose_is_recovered() -> None:
    pose = Pose(torch.tensor([0.1, -0.1, 0.2]), torch.tensor([0.05, 0.0, 0.0]), torch.tensor([0.12, -0.1, 0.0]),
                torch.tensor([0.1, 0.0, 0.0]))  # fmt: skip
    options = FitOptions(iterations=150, points=1024, pose="affine")
    with objective(prior_weight=1.0):
        found = fit_code(SHARP, PRIOR, displaced(pose), "case", options, CPU)
        similar = fit_code(
            SHARP, PRIOR, displaced(pose), "case", options.model_copy(update={"pose": "similarity"}), CPU
        )
    assert found.pose is not None
    np.testing.assert_allclose(found.pose.matrix, pose.matrix, atol=0.06)
    assert found.loss < similar.loss
