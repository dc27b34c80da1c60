"""How healthy people differ: the simple phantom stays, and folds, sides, age and unusual anatomy do what they say."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from anofield.errors import UsageError
from anofield.phantom.anatomy import BrainVoxels, Fractions, draw_anatomy, find_brain_voxels, fractions, plan_axes
from anofield.phantom.cohort import Cohort, plan_cohort, write_cohort
from anofield.phantom.layouts import grid_of
from anofield.phantom.person import Look, make_person
from anofield.phantom.spline import draw_field
from anofield.phantom.template import ORIGIN, SHAPE, icbm152, sample
from anofield.phantom.variation import FOLD_SD, LEAST_JACOBIAN, draw_folds, draw_individual
from anofield.phantom.variety import FULL_VARIETY, SIMPLE, UNUSUAL, Variety, parse_ages
from anofield.phantom.warp import FRAME_ORIGIN, LATTICE, STEP, Displacement, lattice_axes, lattice_points

SMALL = grid_of("hcp", 32)
CELL_ML = 4.0**3 / 1000  # of the planning lattice


@cache
def _tissue(number: int, variety: Variety) -> tuple[BrainVoxels, Fractions]:
    """Tissue of a person on the planning lattice."""
    first, *_, own = np.random.SeedSequence([4, number]).spawn(5)
    anatomy = draw_anatomy(np.random.default_rng(first), draw_individual(own, variety))
    voxels = find_brain_voxels(anatomy, plan_axes())
    return voxels, fractions(anatomy, voxels, 4.0)


def _fluid(number: int, variety: Variety, left: bool | None = None) -> float:
    """Fluid in ml, of both sides or of one."""
    voxels, parts = _tissue(number, variety)
    side = np.ones(len(parts.csf), bool) if left is None else (voxels.template[0] < 0) == left
    return float(parts.csf[side].sum()) * CELL_ML


def _ventricles(number: int, variety: Variety) -> float:
    """Fluid in ml within 8 mm of where ICBM152 has its lateral ventricles."""
    voxels, parts = _tissue(number, variety)
    near = sample(icbm152().geometry.ventricle, voxels.template, step=2.0) < 8
    return float(parts.csf[near].sum()) * CELL_ML


@pytest.mark.slow
@pytest.mark.parametrize(
    ("case", "outline", "levels"),
    [
        ((3, 7, "brats", 32, "glioma", "FLAIR"), "fc81db691d29", (466.27670, 670.45764, 738.59558)),
        ((1, 2, "bids", 24, "small", "T1w"), "ef2abe5bf271", (151.17917, 207.89615, 265.98350)),
        ((5, 1, "hcp", 24, "dark", "T2w"), "9d457bd5b6c9", (423.49479, 603.63074, 945.31414)),
    ],
)
def test_the_simple_phantom_is_that_of_earlier_releases(
    case: tuple[int, int, str, int, str, str], outline: str, levels: tuple[float, float, float]
) -> None:
    """Figures of release 0.1.0; images are compared by quantiles, because the last bits depend on the processor."""
    seed, number, layout, size, lesion, modality = case
    person = make_person(seed, number, grid_of(layout, size), lesion=lesion, look=Look(modality=modality))
    shapes = hashlib.sha256(person.brain.tobytes() + person.label.tobytes()).hexdigest()
    assert shapes.startswith(outline)
    np.testing.assert_allclose(np.quantile(person.image[person.brain], (0.1, 0.5, 0.9)), levels, rtol=1e-6)
    assert person.age is None and person.traits == ()


def test_lattice_and_frame_agree() -> None:
    np.testing.assert_array_equal(FRAME_ORIGIN, ORIGIN)
    assert all(count * STEP >= voxels for count, voxels in zip(LATTICE, SHAPE, strict=True))


@pytest.mark.slow
def test_folds_move_by_millimetres_in_the_cortex_only_and_never_fold_space() -> None:
    ribbon = icbm152().ribbon
    folds = draw_folds(np.random.default_rng(0), icbm152(), FOLD_SD)
    assert folds.jacobian().min() >= LEAST_JACOBIAN
    length = np.sqrt((folds.shift**2).sum(0))
    assert np.quantile(length[ribbon > 0.9], 0.5) > 1.7 and 4 < length.max() < 9
    assert length[ribbon == 0].max() < 1.0


def test_a_displacement_and_its_opposite_cancel() -> None:
    velocity = draw_field(np.random.default_rng(3), 24.0, 3.0, channels=3).on(lattice_axes())
    there, back = Displacement.exponential(velocity), Displacement.exponential(-velocity)
    points = lattice_points()[:, 5:-5, 5:-5, 5:-5]
    wrong = np.sqrt(((back.moved(there.moved(points)) - points) ** 2).sum(0))
    length = np.sqrt((there.shift**2).sum(0)).max()
    assert np.quantile(wrong, 0.99) < 0.1 * length


@pytest.mark.slow
def test_folds_change_tissue_but_not_the_outline() -> None:
    plain, folded = (make_person(2, 3, SMALL, variety=Variety(folds=f), look=Look(noise=0)) for f in (0.0, 1.0))
    assert np.array_equal(plain.brain, folded.brain)
    change = np.abs(plain.image - folded.image)[plain.brain] / np.median(plain.image[plain.brain])
    assert 0.02 < change.mean() < 0.5


@pytest.mark.slow
def test_fluid_grows_with_age_and_the_head_does_not() -> None:
    number = 0
    people = [Variety(age=(age, age)) for age in (25.0, 50.0, 85.0)]
    fluid, ventricles = ([measure(number, one) for one in people] for measure in (_fluid, _ventricles))
    assert fluid[0] < fluid[1] < fluid[2] and ventricles[0] < ventricles[1] < ventricles[2]
    assert fluid[2] - fluid[1] > 1.4 * (fluid[1] - fluid[0])  # 35 years against 25, and faster in old age
    inside = [_tissue(number, one)[0].inside for one in people]
    assert np.array_equal(inside[0], inside[2])


@pytest.mark.slow
def test_ventricles_and_brain_change_with_age_as_published() -> None:
    """Pfefferbaum et al. 1994: ventricles +0.3 ml a year; Fotenos et al. 2005: brain -0.45 % a year in old age."""
    brain = [np.mean([(1 - _tissue(n, Variety(age=(a, a)))[1].csf).sum() for n in range(3)]) for a in (65.0, 85.0)]
    assert 0.3 < 100 * (brain[0] - brain[1]) / brain[0] / 20 < 0.65
    volume = [np.mean([_ventricles(n, Variety(age=(a, a))) for n in range(3)]) for a in (25.0, 70.0)]
    assert 0.15 < (volume[1] - volume[0]) / 45 < 0.6


@pytest.mark.slow
def test_asymmetry_makes_the_hemispheres_differ() -> None:
    people = [(_fluid(n, Variety(asymmetry=1), left=True), _fluid(n, Variety(asymmetry=0), left=True)) for n in (0, 1)]
    assert max(abs(uneven - even) for uneven, even in people) > 0.5  # ml
    straight, uneven = (_tissue(0, Variety(asymmetry=f))[0].template[1].copy() for f in (0.0, 1.0))
    assert straight.shape != uneven.shape or np.abs(straight - uneven).max() > 0.3  # mm, forward and backward


@pytest.mark.slow
@pytest.mark.parametrize("kind", UNUSUAL)
def test_unusual_people_are_healthy_and_visibly_different(kind: str) -> None:
    usual = make_person(0, 5, SMALL, variety=Variety(folds=0.5), look=Look(noise=0))
    unusual = make_person(0, 5, SMALL, variety=Variety(folds=0.5, unusual=(kind,)), look=Look(noise=0))
    assert unusual.traits == (kind,) and not unusual.label.any()
    assert np.array_equal(usual.brain, unusual.brain)
    change = np.abs(usual.image - unusual.image)[usual.brain] / np.median(usual.image[usual.brain])
    assert (change > 0.3).sum() * np.prod(SMALL.spacing) / 1000 > 0.5  # ml


@pytest.mark.slow
def test_large_ventricles_hold_more_fluid_and_a_cavum_lies_between_them() -> None:
    usual = Variety(folds=0.5)
    assert _ventricles(1, Variety(folds=0.5, unusual=("ventricles",))) > _ventricles(1, usual) + 20
    voxels, parts = _tissue(1, Variety(folds=0.5, unusual=("cavum",)))
    added = parts.csf - _tissue(1, usual)[1].csf
    middle = np.abs(voxels.template[0]) < 8
    assert added[middle].max() > 0.25 > np.abs(added[np.abs(voxels.template[0]) > 20]).max()


@pytest.mark.slow
def test_what_is_switched_on_leaves_the_other_draws_as_they_are() -> None:
    alone, crowded = Variety(age=(20, 80)), Variety(age=(20, 80), folds=1, asymmetry=1, unusual=tuple(UNUSUAL))
    seeds = [np.random.SeedSequence(9).spawn(1)[0] for _ in range(2)]
    first, second = (draw_individual(seed, one) for seed, one in zip(seeds, (alone, crowded), strict=True))
    assert first.age == second.age and first.opening == second.opening


@pytest.mark.slow
def test_participants_have_ages_and_traits_where_there_are_any(tmp_path: Path) -> None:
    cohort = Cohort("bids", size=24, variety=Variety(age=(30, 40), unusual=("cavum", "cortex")))
    write_cohort(tmp_path, Cohort("bids", size=24), plan_cohort(1, 0))
    write_cohort(tmp_path, cohort, plan_cohort(1, 1, first=1))
    header, *rows = [line.split("\t") for line in (tmp_path / "participants.tsv").read_text().splitlines()]
    assert header == ["participant_id", "group", "age", "traits"]
    assert rows[0] == ["sub-ano0000", "healthy", "n/a", "n/a"]
    assert rows[2][1] == "glioma" and 30 <= float(rows[2][2]) <= 40 and rows[2][3] in ("cavum", "cortex")


@pytest.mark.parametrize(
    ("call", "remedy"),
    [
        (lambda: Variety(folds=-1), "0 to 1.0"),
        (lambda: Variety(asymmetry=float("nan")), "0 to 1.5"),
        (lambda: Variety(age=(80, 20)), "18-95"),
        (lambda: Variety(age=(5, 20)), "18-95"),
        (lambda: Variety(unusual=("tumour",)), "ventricles, cavum"),
        (lambda: Variety(template=""), "icbm152"),
        (lambda: parse_ages("old"), "20-85"),
        (lambda: parse_ages("20-850"), "18-95"),
        (lambda: Cohort("hcp", variety=Variety(template="no/such/folder")), "icbm152, colin27, mixed"),
    ],
)
def test_bad_varieties_name_the_remedy(call: Callable[[], Any], remedy: str) -> None:
    with pytest.raises(UsageError, match=r"Remedy: ") as caught:
        call()
    assert remedy in caught.value.remedy


def test_varieties() -> None:
    assert Variety() == SIMPLE != FULL_VARIETY
    assert parse_ages("20-85") == FULL_VARIETY.age


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (("--age", "90-20"), "18-95"),
        (("--template", "icbm"), "mixed"),
        (("--unusual", "tumour"), "cisterns"),
        (("--variety", "much"), "full"),
    ],
)
def test_wrong_options_are_2(words: tuple[str, ...], told: str, anofield: Any, tmp_path: Path) -> None:
    ended = anofield("phantom", "-o", tmp_path / "p", "--healthy", 1, "--size", 16, *words)
    assert ended.code == 2 and told in ended.err and "Traceback" not in ended.err
    assert not (tmp_path / "p").exists()


@pytest.mark.slow
def test_the_options_reach_the_cohort(anofield: Any, tmp_path: Path) -> None:
    words = ("--variety", "full", "--age", "70-80", "--unusual", "cisterns")
    ended = anofield("phantom", "-o", tmp_path, "--healthy", 1, "--size", 16, *words)
    assert ended.code == 0
    header, row = [line.split("\t") for line in (tmp_path / "participants.tsv").read_text().splitlines()]
    assert row[header.index("traits")] == "cisterns" and 70 <= float(row[header.index("age")]) <= 80
