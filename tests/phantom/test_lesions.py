"""Lesions: the old kinds stay as they were; every new kind has its own place, size, signal and truth."""

from __future__ import annotations

from functools import cache

import numpy as np
import pytest
from scipy import ndimage

from anofield.phantom.anatomy import Anatomy, Fractions, draw_anatomy, find_brain_voxels, fractions, plan_axes
from anofield.phantom.contrast import LESION_SIGNAL, MODALITIES, SIGNAL
from anofield.phantom.layouts import grid_of
from anofield.phantom.lesions.kinds import HELD_OUT_KINDS, LESION_KINDS, draw_lesion
from anofield.phantom.lesions.parts import Blob, Dysplasia, Ground, Wedge
from anofield.phantom.lesions.plan import plan_of
from anofield.phantom.lesions.strokes import AGES, STAGES
from anofield.phantom.person import Look, Person, make_person
from anofield.phantom.spline import draw_field

GRID = grid_of("bids", 48)
ML = float(np.prod(GRID.spacing)) / 1000
# Voxels by label, and mean intensity of the lesion, at hcp 40, seed 4, number 2, before the new kinds were added.
BEFORE = {
    "glioma": ({1: 75, 2: 351, 4: 103}, 660.244),
    "small": ({2: 16}, 554.385),
    "dark": ({1: 206}, 168.471),
}


@cache
def _person(number: int, kind: str | None, modality: str = "T2w", contrast: float = 1.0) -> Person:
    """A person without noise; made once."""
    look = Look(modality=modality, noise=0, lesion_contrast=contrast)
    return make_person(21, number, GRID, lesion=kind, look=look)


@cache
def _anatomy(number: int) -> Anatomy:
    return draw_anatomy(np.random.default_rng(number))


def _change(number: int, kind: str, modality: str = "T2w") -> np.ndarray:
    """Relative change of the labelled voxels by the lesion's matter alone, not by what it displaces."""
    ill, hidden = _person(number, kind, modality), _person(number, kind, modality, 0.0)
    where = ill.label > 0
    return np.asarray(ill.image[where] / hidden.image[where] - 1)


def test_the_kinds_that_nobody_may_tune_on_are_the_new_ones() -> None:
    assert set(LESION_KINDS) == {*BEFORE, *HELD_OUT_KINDS}
    assert tuple(HELD_OUT_KINDS) == ("infarct", "bleeding", "infiltration", "ms", "dysplasia")


def test_shares_of_stages_and_ages_are_whole() -> None:
    assert sum(STAGES.values()) == pytest.approx(1) and sum(AGES.values()) == pytest.approx(1)


@pytest.mark.slow
@pytest.mark.parametrize("kind", BEFORE)
def test_old_kinds_are_what_they_were(kind: str) -> None:
    counts, mean = BEFORE[kind]
    person = make_person(4, 2, grid_of("hcp", 40), lesion=kind)
    assert {int(k): int((person.label == k).sum()) for k in np.unique(person.label) if k} == counts
    assert float(person.image[person.label > 0].mean()) == pytest.approx(mean, rel=1e-5)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("kind", "labels", "least", "most"),
    [
        ("infarct", {1, 2, 4}, 0.1, 200),
        ("bleeding", {1, 2, 4}, 1, 170),
        ("infiltration", {3}, 8, 110),
        ("ms", {2}, 0.3, 40),
        ("dysplasia", {3}, 0.3, 20),
    ],
)
def test_new_kinds_have_their_labels_and_sizes(kind: str, labels: set[int], least: float, most: float) -> None:
    people = [_person(number, kind) for number in range(3)]
    for person in people:
        assert set(np.unique(person.label)) - {0} <= labels
        assert person.brain[person.label > 0].all()
    volumes = [(person.label > 0).sum() * ML for person in people]
    assert least < min(volumes) and max(volumes) < most


@pytest.mark.slow
@pytest.mark.parametrize("kind", HELD_OUT_KINDS)
def test_a_new_kind_is_the_same_on_another_grid(kind: str) -> None:
    fine = make_person(21, 1, grid_of("bids", 96), lesion=kind).label > 0
    coarse = _person(1, kind).label > 0
    blocks = fine.reshape(48, 2, 48, 2, 48, 2).mean((1, 3, 5))
    assert 2 * (coarse * blocks).sum() / (coarse.sum() + blocks.sum()) > (0.5 if kind in ("ms", "dysplasia") else 0.75)


@pytest.mark.slow
def test_infiltration_is_seen_by_what_it_displaces() -> None:
    for number in range(2):
        assert np.abs(np.median(_change(number, "infiltration"))) < 0.15  # at most a fifth of the way to grey matter
        healthy, hidden = _person(number, None), _person(number, "infiltration", contrast=0.0)
        moved = np.abs(hidden.image - healthy.image)[healthy.brain] / np.median(healthy.image[healthy.brain])
        assert (moved > 0.1).mean() > 0.01


@pytest.mark.slow
def test_an_infarct_stays_in_one_hemisphere() -> None:
    for number in range(3):
        x = np.nonzero(_person(number, "infarct").label)[0] - (GRID.shape[0] - 1) / 2
        assert max((x > 0).mean(), (x < 0).mean()) > 0.97


@pytest.mark.slow
def test_plaques_touch_ventricles_and_cortex() -> None:
    for number in range(2):
        anatomy = _anatomy(number)
        plan = plan_of(anatomy)
        lesion = draw_lesion(np.random.default_rng(number), "ms", anatomy)
        centres = np.array([part.centre for part in lesion.parts if isinstance(part, Blob)])
        near = np.argmin(((plan.voxels.head.T[None] - centres[:, None]) ** 2).sum(2), axis=1)
        assert (plan.ventricle[near] < 8).mean() > 0.1
        assert ((plan.parts.grey[near] > 0.2) & (plan.ventricle[near] > 8)).mean() > 0.1


@pytest.mark.slow
def test_dysplasia_thickens_cortex_only_near_cortex() -> None:
    voxels = find_brain_voxels(_anatomy(0), plan_axes())
    parts = fractions(_anatomy(0), voxels, 4.0)
    start = int(np.flatnonzero((parts.grey > 0.4) & (voxels.depth > 8))[0])
    blob = Blob("dysplasia", 3, voxels.head[:, start].astype(float), np.eye(3), 14.0, 0.0, 0.5)
    ground = Ground(
        voxels.head, parts, np.zeros(len(voxels.depth), np.float32), np.float32(4), voxels.inside, (4.0, 4.0, 4.0)
    )
    where, share, amount = Dysplasia(blob, blur=3.0, gain=2.0).cover(ground)
    assert amount.max() > 0.5 and share.max() > 0.5
    grey = ground.blurred(parts.grey, where, 3.0)
    assert np.all(amount <= np.minimum(2.0 * grey, 1) + 1e-5)
    assert not share[grey < 0.1].any()


def test_blurring_on_a_few_voxels_is_blurring_of_the_whole() -> None:
    rng = np.random.default_rng(0)
    inside = ndimage.gaussian_filter(rng.standard_normal((20, 18, 16)), 2) > -0.1
    values = rng.random(int(inside.sum())).astype(np.float32)
    nothing = np.zeros(len(values), np.float32)
    tissue = Fractions(values, nothing, nothing)
    ground = Ground(np.zeros((3, len(values)), np.float32), tissue, nothing, np.float32(1), inside, (1.0, 2.0, 1.0))
    volume = np.zeros(inside.shape, np.float32)
    volume[inside] = values
    whole = ndimage.gaussian_filter(volume, (1.5, 0.75, 1.5), truncate=3.0, mode="constant")[inside]
    deep = ndimage.binary_erosion(np.ones(inside.shape, np.bool_), iterations=6)[inside]
    where = np.flatnonzero(deep)[::7]
    np.testing.assert_allclose(ground.blurred(values, where, 1.5), whole[where], rtol=1e-4, atol=1e-6)


def test_a_wedge_widens_from_its_apex_within_its_borders() -> None:
    border = (np.zeros(3), np.array([0.0, 1.0, 0.0]))
    wedge = Wedge("infarct", 2, np.zeros(3), np.array([1.0, 0.0, 0.0]), 0.5, (border,), 0.5)
    points = np.array([[10, 4, 0], [10, 6, 0], [10, -1, 0], [-1, 0.1, 0], [40, 18, 0]], np.float32).T
    inside = wedge.level(points, np.zeros(5, np.float32)) > 0
    assert inside.tolist() == [True, False, False, False, True]


def test_a_field_has_the_same_values_on_a_lattice_and_at_points() -> None:
    axes = (np.linspace(-60, 70, 5), np.linspace(-80, 80, 4), np.linspace(-50, 60, 6))
    spline = draw_field(np.random.default_rng(3), 14.0, 1.0, channels=2)
    points = np.stack(np.meshgrid(*axes, indexing="ij")).reshape(3, -1).astype(np.float32)
    np.testing.assert_allclose(spline.at(points), spline.on(axes).reshape(2, -1), atol=1e-4)


@pytest.mark.parametrize("modality", MODALITIES)
def test_signals_of_the_new_matters(modality: str) -> None:
    grey, fluid = SIGNAL[modality]
    signal = {name: np.mean(levels[modality]) for name, levels in LESION_SIGNAL.items()}
    assert abs(signal["cavity"] - fluid) < 0.5 * abs(1 - fluid)
    for name in ("infiltration", "dysplasia"):
        assert abs(signal[name] - grey) < 0.2
    assert (signal["infarct"] > grey) == (modality != "T1w")
    assert signal["old-blood"] > 1 and signal["blood"] < 1


@pytest.mark.slow
def test_plaques_are_bright_on_t2w_and_dark_on_t1w() -> None:
    bright = [np.median(_change(number, "ms")) for number in range(2)]
    dark = [np.median(_change(number, "ms", "T1w")) for number in range(2)]
    assert min(bright) > 0.3 and max(dark) < -0.05
