"""Trust: usual fits are trusted, scans that the field cannot know are named."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
import pytest
import torch
from scipy import ndimage

from anofield.data.cohort.case import Case
from anofield.data.origin import Origin
from anofield.detect.agreement import RARE, Agreement, agreement_of
from anofield.detect.fit import Fit
from anofield.detect.options import DetectOptions, FitOptions
from anofield.detect.pose import Pose
from anofield.detect.trust import (
    FALSE_ALARMS,
    PERCENTILES,
    TURNED,
    TYPICAL,
    Interval,
    Known,
    Verdict,
    expected_range,
    judge,
)
from helpers import World, found_in, small_world
from images import load_image

HEALTHY = {  # of 16 people
    "loss": (0.9, 1.0, 1.1),
    "usual_loss": (1.5, 1.6, 1.7),
    "brighter": (0.01, 0.02, 0.03),
    "darker": (0.01, 0.02, 0.03),
    "code_distance": (0.1, 0.15, 0.2),
    "contrast": (0.8, 0.85, 0.9),
    "pattern": (0.75, 0.8, 0.85),
    "outside": (0.01, 0.02, 0.03),
    "turn": (1.0, 3.0, 5.0),
    "size": (0.97, 1.0, 1.03),
    "brain_ml": (1100.0, 1300.0, 1500.0),
}
PEOPLE = 16
USUAL = Fit(
    code=torch.zeros(3),
    loss=1.0,
    code_distance=0.16,
    contrast=0.84,
    outside=0.02,
    turned=False,
    pose=Pose.start(torch.tensor([0.05, 0.0, 0.0])),
    intensity=None,
    agreement=Agreement(usual_loss=1.62, brighter=0.02, darker=0.02, pattern=0.8),
)
PHANTOM = Origin(people=224, contrast="T2w", maker="anofield phantom")


def verdict(fit: Fit, brain_ml: float = 1250.0, **known: Any) -> Verdict:
    return judge(fit, brain_ml, HEALTHY, PEOPLE, Known(**known))


def test_a_usual_fit_is_trusted_and_a_lesions_as_well() -> None:
    assert verdict(USUAL) == Verdict(True)
    assert verdict(replace(USUAL, loss=1.35, code_distance=0.25, contrast=0.6)) == Verdict(True)


def test_without_calibration_nothing_is_promised() -> None:
    assert judge(USUAL, 1250.0, {}) == Verdict(None)
    assert judge(replace(USUAL, turned=True), 1250.0, {}) == Verdict(False, (TURNED,))


@pytest.mark.parametrize("unmeasured", ["contrast", "turned"])
def test_what_was_not_measured_is_not_judged(unmeasured: str) -> None:
    nothing: Any = {unmeasured: None}
    fit = replace(USUAL, **nothing)
    assert verdict(fit) == Verdict(None)
    assert verdict(replace(fit, code_distance=3.0)).trusted is False


def test_a_calibration_of_older_versions_judges_by_what_it_has() -> None:
    old = {name: HEALTHY[name] for name in ("loss", "code_distance", "contrast", "outside", "brain_ml")}
    assert judge(USUAL, 1250.0, old, PEOPLE) == Verdict(True)
    assert judge(replace(USUAL, contrast=0.2), 1250.0, old, PEOPLE).trusted is False


STRANGE: list[tuple[dict[str, Any], float, str]] = [
    ({"agreement": Agreement(2.3, 0.02, 0.02, 0.8)}, 1250.0, "no healthy anatomy"),
    ({"agreement": Agreement(1.6, 0.15, 0.02, 0.8)}, 1250.0, "brighter than the field expects"),
    ({"agreement": Agreement(1.6, 0.02, 0.15, 0.8)}, 1250.0, "darker than the field expects"),
    ({"code_distance": 9.0}, 1250.0, "unlike those of the training"),
    ({"agreement": Agreement(1.6, 0.02, 0.02, -0.4)}, 1250.0, "inverted intensities"),
    ({"outside": 0.4}, 1250.0, "skull"),
    ({"pose": Pose.start(torch.tensor([0.3, 0.0, 0.0]))}, 1250.0, "more turned"),
    ({"pose": Pose(torch.zeros(3), torch.zeros(3), torch.tensor([0.3]))}, 1250.0, "fitted far smaller"),
    ({}, 2600.0, "far larger"),
    ({}, 300.0, "far smaller"),
]


@pytest.mark.parametrize(("change", "brain_ml", "word"), STRANGE)
def test_what_is_unusual_is_named_with_its_value(change: dict[str, Any], brain_ml: float, word: str) -> None:
    found = verdict(replace(USUAL, **change), brain_ml)
    (reason,) = found.reasons
    assert found.trusted is False
    assert word in reason and "healthy" in reason and "usual causes: " in reason


def test_the_largest_excess_is_named_first_and_alone_with_its_causes() -> None:
    strange = replace(USUAL, agreement=Agreement(4.0, 0.06, 0.02, 0.4))
    reasons = verdict(strange, origin=Origin(people=12, contrast="T1w")).reasons
    assert [one.partition("(")[2].split()[0] for one in reasons] == ["usual_loss", "pattern", "brighter"]
    assert "the model was trained on 12 people, T1w" in reasons[0]
    assert not any("causes" in one or "trained" in one for one in reasons[1:])


def test_a_model_of_synthetic_people_says_so_of_a_real_scan_instead_of_guessing() -> None:
    strange = replace(USUAL, agreement=Agreement(4.0, 0.1, 0.1, 0.8), contrast=0.3)
    first = verdict(strange, origin=PHANTOM).reasons[0]
    assert "trained on 224 synthetic people (anofield phantom), T2w only" in first and "causes" not in first
    own = verdict(strange, origin=PHANTOM, synthetic=True).reasons[0]
    assert "usual causes" in own


def test_a_name_of_another_contrast_is_a_reason() -> None:
    found = verdict(USUAL, origin=Origin(people=12, contrast="T1w"), other_contrast="T1c")
    assert found == Verdict(False, ("by its name it is T1c, the model was trained on 12 people, T1w",))


class TestInterval:
    @pytest.mark.parametrize("name", TYPICAL)
    def test_is_narrower_the_more_people_there_are(self, name: str) -> None:
        halves = []
        for people in (1, 2, 5, 16, 100):
            reach = TYPICAL[name] * expected_range(max(people, 2)) / 2
            halves.append(Interval.of(name, (1 - reach, 1.0, 1 + reach), people).half)
        assert halves == sorted(halves, reverse=True) and halves[-1] > 2 * TYPICAL[name]

    @pytest.mark.parametrize("people", [2, 5, 16])
    def test_holds_for_one_more_person_as_often_as_it_promises(self, people: int) -> None:
        """Normal people whose spread is up to a half wider or narrower than the typical one."""
        generator, name, outside = np.random.default_rng(people), "contrast", 0
        for _ in range(1000):
            sd = TYPICAL[name] * generator.uniform(0.7, 1.3)
            low, middle, high = np.percentile(generator.normal(0.8, sd, people), PERCENTILES)
            interval = Interval.of(name, (float(low), float(middle), float(high)), people)
            outside += abs(interval.excess(generator.normal(0.8, sd))) > 1
        assert outside / 1000 < 4 * FALSE_ALARMS / 11

    def test_the_expected_range_is_that_of_normal_values(self) -> None:
        values = np.random.default_rng(0).normal(size=(20000, 7))
        low, high = np.percentile(values, (5, 95), axis=1)
        assert expected_range(7) == pytest.approx((high - low).mean(), rel=0.02)


class TestAgreement:
    def draw(self, size: int = 20) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Places of a cube, class probabilities and classes drawn from them."""
        generator = np.random.default_rng(0)
        places = np.argwhere(np.ones((size, size, size), bool))
        p = generator.dirichlet((8, 8, 8, 4, 1, 0.2), len(places))
        observed = (p.cumsum(axis=1) < generator.random(len(p))[:, None]).sum(axis=1)
        return p, observed, places

    def test_of_a_scan_from_the_field_is_what_the_field_promises(self) -> None:
        p, observed, places = self.draw()
        found = agreement_of(p, observed, places)
        assert found.usual_loss == pytest.approx(-(p * np.log(p)).sum(axis=1).mean(), rel=0.05)
        assert found.brighter < 2 * RARE and found.darker < 2 * RARE

    def test_hardly_sees_a_lesion_and_sees_what_is_everywhere(self) -> None:
        p, observed, places = self.draw()
        sick, other = observed.copy(), observed.copy()
        sick[(places < 9).all(axis=1)] = 5  # nine per cent of the brain
        other[np.random.default_rng(1).random(len(observed)) < 0.09] = 5
        healthy, lesion, spread = (agreement_of(p, classes, places) for classes in (observed, sick, other))
        assert lesion.usual_loss - healthy.usual_loss < 0.3 * (spread.usual_loss - healthy.usual_loss)
        assert lesion.brighter - healthy.brighter < 0.3 * (spread.brighter - healthy.brighter)


@pytest.fixture(scope="session")
def world(tmp_path_factory: pytest.TempPathFactory) -> World:
    return small_world(tmp_path_factory.getbasetemp() / "world")


def judged(world: World, data: np.ndarray, affine: np.ndarray, folder: Path) -> tuple[bool | None, str]:
    """The verdict on these voxels."""
    path = folder / "scan.nii.gz"
    nib.save(nib.Nifti1Image(data.astype(np.float32), affine), path)
    options = DetectOptions(also=(), fit=FitOptions(iterations=15, points=512))
    found = found_in(Case("case", path), world.model, options)
    return found.trusted, " ".join(found.reasons)


@pytest.fixture
def scan(world: World) -> nib.Nifti1Image:
    return load_image(world.healthy[0].image)


def test_a_healthy_scan_is_trusted(world: World, scan: nib.Nifti1Image, tmp_path: Path) -> None:
    assert judged(world, scan.get_fdata(), scan.affine, tmp_path) == (True, "")


def test_inverted_contrast_is_caught(world: World, scan: nib.Nifti1Image, tmp_path: Path) -> None:
    data = scan.get_fdata()
    inverted = np.where(data > 0, data.max() * 1.05 - data, 0)
    trusted, why = judged(world, inverted, scan.affine, tmp_path)
    assert trusted is False
    assert "bright and dark tissues lie elsewhere" in why


def test_an_unstripped_skull_is_caught(world: World, scan: nib.Nifti1Image, tmp_path: Path) -> None:
    data = scan.get_fdata()
    head = ndimage.binary_dilation(data > 0, iterations=2)
    scalp = np.random.default_rng(0).uniform(0.2, 1.0, data.shape) * np.percentile(data[data > 0], 90)
    trusted, why = judged(world, np.where(data > 0, data, head * scalp), scan.affine, tmp_path)
    assert trusted is False
    assert "far larger" in why


@pytest.mark.parametrize("axis", [1, 2])
def test_a_flipped_orientation_is_caught(world: World, scan: nib.Nifti1Image, tmp_path: Path, axis: int) -> None:
    """Front and back, or top and bottom, are exchanged, as by a header that lies."""
    trusted, why = judged(world, np.flip(scan.get_fdata(), axis), scan.affine, tmp_path)
    assert trusted is False
    assert "orientation" in why
