"""Tissue levels: grey and white matter come to the same values whatever the contrast, unit, noise and lesions."""

from __future__ import annotations

import numpy as np
import pytest
from numpy.typing import NDArray
from scipy import ndimage

from anofield.data.brain import StrippedScan
from anofield.data.prepare import normalise_robust, prepare_scan
from anofield.data.recipe import Recipe
from anofield.data.tissue import LEAST, LOWER, MOST, UPPER, find_tissues, normalise_tissue
from anofield.phantom.contrast import SIGNAL
from anofield.phantom.layouts import grid_of
from anofield.phantom.person import Look, Person, make_person
from helpers import make_scan

SHARES = {"fluid": 0.12, "grey": 0.48, "white": 0.40}
Values = NDArray[np.float32]
contrasts = pytest.mark.parametrize("modality", list(SIGNAL))


def brain(modality: str, *, lesion: float = 0.0, noise: float = 0.05, bias: float = 0.0, seed: int = 0) -> Values:
    """Intensities of a brain of 60 000 voxels, a fifth of them between two tissues; white matter at 100."""
    rng, (grey, fluid) = np.random.default_rng(seed), SIGNAL[modality]
    level = {"fluid": fluid, "grey": grey, "white": 1.0}
    kinds = rng.choice(list(SHARES), (2, 60_000), p=list(SHARES.values()))
    mixed = rng.uniform(size=60_000) * (rng.uniform(size=60_000) < 0.2)
    first, second = (np.array([level[kind] for kind in row]) for row in kinds)
    values = first + mixed * (second - first)
    ill = rng.uniform(size=60_000) < lesion
    values[ill] = {"T1w": 0.5, "T2w": 2.6, "FLAIR": 1.9}[modality]
    values = values * (1 + bias * rng.uniform(-1, 1, 60_000)) + noise * rng.normal(size=60_000)
    return (100 * values.clip(0.01)).astype(np.float32)


def levels(modality: str, values: Values) -> tuple[float, float, float]:
    """Normalised levels of fluid, and of the darker and the brighter tissue."""
    found = normalise_tissue(values)
    assert found is not None
    grey, fluid = (100 * signal for signal in SIGNAL[modality])
    shift, scale = found
    darker, brighter = sorted((grey, 100.0))
    return (fluid - shift) / scale, (darker - shift) / scale, (brighter - shift) / scale


@contrasts
@pytest.mark.parametrize("noise", [0.02, 0.05])
@pytest.mark.parametrize("bias", [0.0, 0.1])
def test_grey_and_white_matter_come_to_fixed_values(modality: str, noise: float, bias: float) -> None:
    fluid, darker, brighter = levels(modality, brain(modality, noise=noise, bias=bias))
    middle = (LOWER + UPPER) / 2
    assert darker < middle + 0.01 and brighter > middle - 0.01
    if modality != "FLAIR":
        assert (darker, brighter) == pytest.approx((LOWER, UPPER), abs=0.02)
    assert LEAST - 0.06 < fluid < MOST


@contrasts
def test_a_lesion_of_a_tenth_of_the_brain_hardly_moves_the_healthy_rest(modality: str) -> None:
    healthy, ill = (levels(modality, brain(modality, lesion=share)) for share in (0.0, 0.1))
    assert ill[1:] == pytest.approx(healthy[1:], abs=0.01)


@contrasts
def test_lesions_are_not_cut_off(modality: str) -> None:
    shift, scale = normalise_tissue(brain(modality, lesion=0.1)) or (0.0, 1.0)
    lesion = {"T1w": 50, "T2w": 260, "FLAIR": 190}[modality]
    assert 0.02 < (lesion - shift) / scale < 1.0


@contrasts
@pytest.mark.parametrize(("factor", "offset"), [(0.001, 0.0), (37.0, 0.0), (2.0, 500.0)])
def test_the_unit_of_the_scan_does_not_count(modality: str, factor: float, offset: float) -> None:
    values = brain(modality)
    plain, other = normalise_tissue(values), normalise_tissue((values * factor + offset).astype(np.float32))
    assert plain is not None and other is not None
    assert ((other[0] - offset) / factor, other[1] / factor) == pytest.approx(plain, rel=0.01)


def test_one_tissue_alone_gets_the_width_of_robust() -> None:
    """Grey and white matter that cannot be told apart, as in some T2w scans."""
    values = (100 + 5 * np.random.default_rng(0).normal(size=50_000)).astype(np.float32)
    shift, scale = normalise_tissue(values) or (0.0, 1.0)
    assert (np.median(values) - shift) / scale == pytest.approx((LOWER + UPPER) / 2, abs=0.04)
    assert scale == pytest.approx(normalise_robust(values)[1], rel=0.15)


def test_a_scan_whose_voxels_are_all_alike_is_normalised_as_robust() -> None:
    data = np.zeros((12, 12, 12), np.float32)
    data[2:10, 2:10, 2:10] = 3.0
    assert normalise_tissue(data[data > 0]) is None
    native = StrippedScan(make_scan((12, 12, 12)).like(data), data > 0)
    tissue, robust = (prepare_scan(native, None, Recipe(resolution=8, normalise=n)) for n in ("tissue", "robust"))
    assert tissue.scale == robust.scale
    np.testing.assert_array_equal(tissue.classes, robust.classes)


def test_the_levels_do_not_depend_on_the_order_of_the_voxels_in_a_file() -> None:
    values = brain("T1w")
    one, other = find_tissues(values), find_tissues(np.random.default_rng(0).permutation(values))
    assert one == other


@pytest.fixture(scope="module")
def scanned() -> dict[tuple[str, str | None], list[Person]]:
    """Three people in each contrast, healthy and with a glioma, at 3.75 mm."""
    grid = grid_of("brats", 64)
    return {
        (modality, lesion): [make_person(3, n, grid, lesion=lesion, look=Look(modality=modality)) for n in range(3)]
        for modality in SIGNAL
        for lesion in (None, "glioma")
    }


@pytest.mark.slow
@contrasts
def test_a_lesion_moves_a_phantom_less_than_a_tenth_of_the_gap(
    scanned: dict[tuple[str, str | None], list[Person]], modality: str
) -> None:
    for healthy, ill in zip(scanned[modality, None], scanned[modality, "glioma"], strict=True):
        far = (ndimage.distance_transform_edt(ill.label == 0) * 3.75 > 30) & healthy.brain & ill.brain
        moved = []
        for person in (healthy, ill):
            shift, scale = normalise_tissue(person.image[person.brain]) or (0.0, 1.0)
            moved.append((person.image[far] - shift) / scale)
        assert abs(np.median(moved[1] - moved[0])) < 0.1 * (UPPER - LOWER)


@pytest.mark.slow
def test_white_matter_varies_less_between_people_than_with_robust(
    scanned: dict[tuple[str, str | None], list[Person]],
) -> None:
    """On T1w, where the white matter of a person is the brightest third of the brain."""
    spread = {}
    for name, method in (("tissue", normalise_tissue), ("robust", normalise_robust)):
        white = []
        for person in scanned["T1w", None]:
            values = person.image[person.brain]
            shift, scale = method(values) or (0.0, 1.0)
            white.append((np.percentile(values, 80) - shift) / scale)
        spread[name] = np.std(white)
    assert spread["tissue"] < spread["robust"]
