"""Sites: their contrasts, and what a visit may and may not change about a person."""

from __future__ import annotations

from functools import cache
from pathlib import Path

import numpy as np
import pytest

from anofield.errors import UsageError
from anofield.phantom.cohort import Cohort, write_case
from anofield.phantom.contrast import LESION_SIGNAL, MODALITIES
from anofield.phantom.layouts import grid_of
from anofield.phantom.matter import LESION
from anofield.phantom.person import Look, Person, make_person
from anofield.phantom.site import SITES, Site, random_site
from images import load_image

GRID = grid_of("brats", 40)
EVERY = [*SITES.values(), *(random_site(np.random.default_rng(i)) for i in range(12))]


@cache
def _person(number: int, site: str | None, modality: str = "T2w", lesion: str | None = "glioma") -> Person:
    return make_person(3, number, GRID, lesion=lesion, look=Look(modality=modality, site=site))


@pytest.mark.parametrize("site", EVERY, ids=lambda site: site.name)
def test_tissues_stand_in_the_order_of_their_contrast(site: Site) -> None:
    signals = {modality: site.signals(modality) for modality in MODALITIES}
    assert signals["T1w"]["fluid"] < signals["T1w"]["grey"] < 0.92
    assert 1.15 < signals["T2w"]["grey"] < signals["T2w"]["fluid"]
    assert signals["FLAIR"]["fluid"] < 0.6 < 1 < signals["FLAIR"]["grey"]


def test_the_oasis_protocol_gives_the_contrast_measured_in_oasis() -> None:
    assert SITES["B"].signals("T1w")["grey"] == pytest.approx(0.67, abs=0.04)  # 0.68 and 0.66 in two people


def test_every_lesion_matter_of_the_table_has_relaxation_times() -> None:
    assert set(LESION_SIGNAL) <= set(LESION)


@pytest.mark.parametrize("site", SITES.values(), ids=lambda site: site.name)
@pytest.mark.parametrize("matter", ["oedema", "core", "necrosis", "spot", "dark"])
@pytest.mark.parametrize("modality", MODALITIES)
def test_lesions_are_bright_and_dark_where_the_table_says(site: Site, matter: str, modality: str) -> None:
    middle = [np.mean(levels) for levels in (LESION_SIGNAL[matter][modality], site.lesion_signals(modality)[matter])]
    assert (middle[0] > 1) == (middle[1] > 1)
    if matter != "dark":  # how dark is not the same
        assert abs(np.log(middle[1] / middle[0])) < 0.7


@pytest.mark.slow
@pytest.mark.parametrize("site", [*SITES, "random"])
def test_a_visit_is_a_function_of_seed_number_and_site(site: str) -> None:
    again = make_person(3, 1, GRID, lesion="glioma", look=Look(site=site))
    assert np.array_equal(_person(1, site).image, again.image)


@pytest.mark.slow
@pytest.mark.parametrize("site", [*SITES, "random"])
def test_modalities_of_a_visit_share_brain_and_truth(site: str) -> None:
    people = [_person(1, site, modality) for modality in MODALITIES]
    for person in people:
        assert np.array_equal(person.brain, people[0].brain) and np.array_equal(person.label, people[0].label)
        assert not person.image[~person.brain].any() and person.image[person.brain].min() > 0
        assert person.image.dtype == np.float32


@pytest.mark.slow
@pytest.mark.parametrize("lesion", ["dark", "small"])
def test_truth_is_that_of_the_person_wherever_the_scan_shows_it(lesion: str) -> None:
    for number in range(4):
        plain, seen = _person(number, None, lesion=lesion), _person(number, "C", lesion=lesion)
        assert np.array_equal(seen.label, np.where(seen.brain, plain.label, 0))
        assert 2 * (seen.label > 0).sum() >= (plain.label > 0).sum()


@pytest.mark.slow
def test_site_c_strips_wrongly_and_a_does_not() -> None:
    change = {
        site: [_person(i, site).brain.sum() / _person(i, None).brain.sum() - 1 for i in range(4)] for site in "AC"
    }
    assert np.abs(change["A"]).max() < 0.03
    assert np.abs(change["C"]).max() > 0.05


@pytest.mark.slow
def test_a_random_site_is_another_one_for_every_person() -> None:
    white = [np.median(_person(i, "random", "T1w", None).image[_person(i, None).brain]) for i in range(4)]
    assert max(white) > 1.5 * min(white)


@pytest.mark.slow
def test_thick_slices_blur_along_their_axis_only() -> None:
    def steps(site: str, axis: int) -> float:
        person = make_person(3, 1, grid_of("brats", 80), look=Look(site=site, noise=0))
        inside = person.brain & np.roll(person.brain, 1, axis)
        change = np.abs(person.image - np.roll(person.image, 1, axis))[inside]
        return float(change.mean() / person.image[person.brain].mean())

    assert steps("C", 2) / steps("C", 0) < 0.8 * steps("A", 2) / steps("A", 0)


@pytest.mark.slow
def test_a_cohort_is_written_at_its_site(tmp_path: Path) -> None:
    path = write_case(tmp_path, Cohort("hcp", size=32, seed=3, modality="T1w", site="B"), 2)
    expected = make_person(3, 2, grid_of("hcp", 32), look=Look(modality="T1w", site="B"))
    np.testing.assert_array_equal(np.asarray(load_image(path).dataobj), expected.image)


@pytest.mark.parametrize("make", [lambda: Look(site="D"), lambda: Cohort("hcp", size=32, site="D")])
def test_an_unknown_site_names_those_that_exist(make: object) -> None:
    with pytest.raises(UsageError, match="A, B, C, random"):
        make()  # type: ignore[operator]
