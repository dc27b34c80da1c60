"""Lesions in real scans: nothing else changes, noise and levels are the scan's, any geometry works."""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import replace
from functools import cache
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
import pytest
from scipy import ndimage

from anofield.data.brain import StrippedScan, as_stripped
from anofield.data.cohort.case import Case
from anofield.data.cohort.find import find_cases
from anofield.errors import CohortError, ScanError, UsageError
from anofield.phantom.anatomy import Fractions
from anofield.phantom.contrast import SIGNAL
from anofield.phantom.host import Host, _check_cerebrum, host_of
from anofield.phantom.implants import Implants, subjects_of
from anofield.phantom.layouts import grid_of
from anofield.phantom.lesions.kinds import LESION_KINDS
from anofield.phantom.lesions.plan import Plan
from anofield.phantom.onto import Implanted, implant, implant_in
from anofield.phantom.person import Look, make_person
from images import load_image

pytestmark = pytest.mark.slow
REAL = Path(os.environ.get("ANOFIELD_REAL", ""))
needs_real = pytest.mark.skipif("ANOFIELD_REAL" not in os.environ, reason="ANOFIELD_REAL names no folder")


@cache
def _scan(modality: str = "T2w", turn: str = "none") -> StrippedScan:
    """A healthy person at 3.3 mm, in place of a real one; stored in another order, turned or in thick slices."""
    grid = grid_of("bids", 64)
    image: Any = nib.Nifti1Image(make_person(31, 5, grid, look=Look(modality=modality)).image, grid.affine)
    if turn == "stored":
        image = image.as_reoriented(nib.orientations.axcodes2ornt(("P", "S", "L")))
    if turn == "thick":
        thick = np.asarray(image.dataobj).reshape(64, 64, 32, 2).mean(3)
        affine = grid.affine @ np.diag([1, 1, 2, 1])
        affine[2, 3] += grid.spacing[2] / 2
        image = nib.Nifti1Image(thick, affine)
    if turn == "oblique":
        c, s = np.cos(0.35), np.sin(0.35)
        way = np.array([[c, -s, 0, 0], [s, c, 0, 0], [0, 0, 1, 0], [0, 0, 0, 1]])
        step = np.linalg.inv(grid.affine) @ np.linalg.inv(way) @ grid.affine @ np.eye(4)
        inverse = np.linalg.inv(step)
        data = np.asarray(image.dataobj)
        turned = ndimage.affine_transform(data, inverse[:3, :3], inverse[:3, 3], order=0)
        # The head stays where it is in the world; the lattice of voxels is turned about it.
        image = nib.Nifti1Image(turned, grid.affine @ inverse)
    return as_stripped((np.asarray(image.dataobj), image.affine))


@cache
def _host(modality: str = "T2w", turn: str = "none") -> Host:
    return host_of(_scan(modality, turn), modality)


@cache
def _implanted(kind: str, seed: int = 0, turn: str = "none") -> Implanted:
    return implant_in(_host(turn=turn), kind, seed)


@pytest.mark.parametrize("kind", LESION_KINDS)
def test_nothing_changes_outside_the_lesion_and_its_displacement(kind: str) -> None:
    native, done = _scan(), _implanted(kind)
    assert done.image.dtype == np.float32 and done.label.dtype == np.uint8
    np.testing.assert_array_equal(done.image[~done.touched], native.scan.data[~done.touched])
    ill = done.label > 0
    assert ill.any() and done.touched[ill].all() and native.brain[done.touched].all()
    assert done.touched.sum() < 0.7 * native.brain.sum()
    assert (done.image[native.brain] > 0).all()


@pytest.mark.parametrize("kind", ["small", "ms", "dark"])
def test_lesions_without_mass_touch_only_their_surroundings(kind: str) -> None:
    done = _implanted(kind)
    assert done.touched.sum() < max(0.03 * _scan().brain.sum(), 4 * (done.label > 0).sum())


def test_an_implant_is_a_function_of_scan_kind_and_seed() -> None:
    again = implant(_scan(), "small", 0, modality="T2w")
    np.testing.assert_array_equal(again.image, _implanted("small").image)
    assert not np.array_equal(implant_in(_host(), "small", 1).label, again.label)


def test_the_order_of_storage_does_not_matter() -> None:
    straight, stored = _implanted("glioma"), _implanted("glioma", turn="stored")
    back: Any = nib.Nifti1Image(stored.label, _scan(turn="stored").scan.affine).as_reoriented(
        nib.orientations.ornt_transform(
            nib.io_orientation(_scan(turn="stored").scan.affine), nib.io_orientation(_scan().scan.affine)
        )
    )
    same = (np.asarray(back.dataobj) > 0) & (straight.label > 0)
    assert 2 * same.sum() > 0.97 * ((stored.label > 0).sum() + (straight.label > 0).sum())


@pytest.mark.parametrize("turn", ["oblique", "thick"])
@pytest.mark.parametrize(("kind", "least", "most"), [("glioma", 4, 130), ("dark", 1, 45), ("infarct", 0.1, 200)])
def test_oblique_and_thick_scans(turn: str, kind: str, least: float, most: float) -> None:
    native, done = _scan(turn=turn), _implanted(kind, turn=turn)
    assert least < (done.label > 0).sum() * native.scan.voxel_ml < most
    np.testing.assert_array_equal(done.image[~done.touched], native.scan.data[~done.touched])
    assert native.brain[done.label > 0].all()


def test_tissues_of_an_oblique_scan_are_those_of_the_straight_one() -> None:
    np.testing.assert_allclose(_host(turn="oblique").levels, _host().levels, rtol=0.05)


@pytest.mark.parametrize("modality", ["T2w", "T1w"])  # in FLAIR such wide voxels mix grey matter with dark fluid
def test_levels_are_those_that_the_scan_was_made_with(modality: str) -> None:
    host = _host(modality)
    grey, white, fluid = host.levels / host.levels[1]
    assert white == 1
    assert grey == pytest.approx(SIGNAL[modality][0], rel=0.15) and fluid == pytest.approx(SIGNAL[modality][1], rel=0.3)


def test_signals_map_to_the_levels_of_the_scan() -> None:
    host = _host()
    for signal, level in zip((SIGNAL["T2w"][0], 1.0, SIGNAL["T2w"][1]), host.levels, strict=True):
        assert host.intensity(signal) == pytest.approx(level)
    rising = [host.intensity(signal) for signal in np.linspace(0.1, 6, 30)]
    assert (np.diff(rising) > 0).all()


def test_matter_has_the_brightness_of_its_kind() -> None:
    white = _host().levels[1]
    assert np.median(_implanted("dark").image[_implanted("dark").label > 0]) < 0.75 * white
    assert np.median(_implanted("small").image[_implanted("small").label > 0]) > 1.4 * white


def test_the_noise_of_the_scan_stays_on_the_lesion() -> None:
    noisy = make_person(31, 5, grid_of("bids", 64), look=Look(noise=3)).image
    native = as_stripped((noisy, grid_of("bids", 64).affine))
    host = host_of(native, "T2w")
    done = implant_in(host, "glioma", 3)
    core = ndimage.binary_erosion(done.label == 2)
    tissue = host.plan.parts
    rough = done.image - ndimage.gaussian_filter(done.image, 1)
    before = native.scan.data - ndimage.gaussian_filter(native.scan.data, 1)
    deep = ndimage.binary_erosion((np.abs(native.scan.data / host.levels[1] - 1) < 0.3) & native.brain, iterations=2)
    assert tissue.white.max() > 0.5 and core.sum() > 30 and deep.sum() > 30
    assert 0.6 < rough[core].std() / before[deep].std() < 1.6


def test_values_below_zero_work() -> None:
    native = _scan("T1w")
    data = np.where(native.brain, (native.scan.data - native.scan.data[native.brain].mean()) / 100, 0)
    scan = as_stripped((data.astype(np.float32), native.scan.affine), native.brain)
    done = implant(scan, "dark", 0, modality="T1w")
    assert np.isfinite(done.image).all() and done.image.min() >= data.min() - 1e-6
    assert np.median(done.image[done.label > 0]) < np.median(data[native.brain])


def test_a_map_of_tissues_takes_the_place_of_the_search() -> None:
    native, host = _scan("T1w"), _host("T1w")
    middles = (host.levels[2] + host.levels[0]) / 2, (host.levels[0] + host.levels[1]) / 2
    tissues = np.where(native.brain, 1 + np.digitize(native.scan.data, middles), 0)
    given = host_of(native, "T1w", tissues)
    np.testing.assert_allclose(given.levels, host.levels, rtol=0.15)


def test_about_half_of_a_steep_gain_of_the_coil_is_found() -> None:
    native = _scan("T1w")
    slope = 1 + 0.004 * (np.arange(64) - 31.5)[:, None, None] * native.scan.spacing[0] / 2
    host = host_of(as_stripped(((native.scan.data * slope).astype(np.float32), native.scan.affine)), "T1w")
    ends = np.array([[-50.0, 0, 10], [50.0, 0, 10]], np.float32).T
    low, high = host.gain_at(ends) / _host("T1w").gain_at(ends)
    assert 1.08 < high / low < 1.1 / 0.9


@pytest.mark.parametrize(
    ("call", "error", "words"),
    [
        (lambda: implant(_scan(), "cyst", 0, modality="T2w"), UsageError, "infarct"),
        (lambda: implant(_scan(), "ms", 0, modality="PD"), UsageError, "T2w"),
        (lambda: implant(_scan("T1w"), "ms", 0, modality="T2w"), ScanError, "--modality T1w"),
        (lambda: implant(_labels(), "ms", 0, modality="T1w"), ScanError, "the scan itself"),
        (lambda: host_of(_scan(), "T2w", np.ones((2, 2, 2))), ScanError, "1 for fluid"),
        (lambda: host_of(_scan(), "T2w", np.ones(_scan().brain.shape)), ScanError, "1 for fluid"),
        (lambda: _check_cerebrum(_scan(), _without_white()), ScanError, "orientation"),
        (lambda: Implants(()), UsageError, "--kinds"),
        (lambda: Implants(("ms",)).contrast(Case("a", Path("a.nii"))), UsageError, "--modality"),
        (lambda: Implants(("ms",)).contrast(Case("a", Path("a.nii"), contrast="PDw")), ScanError, "T1w"),
        (lambda: subjects_of([Case("a-1", Path("x")), Case("a_1", Path("y"))]), CohortError, "manifest"),
    ],
)
def test_errors_name_the_remedy(call: Callable[[], Any], error: type[Exception], words: str) -> None:
    with pytest.raises(error) as caught:
        call()
    assert words in caught.value.remedy  # type: ignore[attr-defined]


def _without_white() -> Plan:
    """A plan of a brain without white matter."""
    plan = _host().plan
    nothing = np.zeros_like(plan.parts.white)
    return replace(plan, parts=Fractions(plan.parts.grey, nothing, plan.parts.csf))


def _labels() -> StrippedScan:
    """A map of three tissues."""
    native = _scan()
    return StrippedScan(native.scan.like(np.digitize(native.scan.data, (1, 500, 900)).astype(np.float32)), native.brain)


def test_the_tree_is_a_cohort_with_truth(anofield: Callable[..., Any], tmp_path: Path) -> None:
    folder, out = tmp_path / "scans", tmp_path / "out"
    folder.mkdir()
    native = _scan()
    nib.Nifti1Image(native.scan.data, native.scan.affine).to_filename(folder / "p-1_T2w.nii.gz")
    ended = anofield("phantom", "--onto", folder, "-o", out, "--kinds", "infarct,small", "--seed", 4)
    assert ended.code == 0, ended.err
    cases = find_cases(out)
    assert [case.id for case in cases] == ["sub-p1_ses-infarct", "sub-p1_ses-small"]
    for case in cases:
        written, label = load_image(case.image), np.asarray(load_image(case.label or Path()).dataobj)
        np.testing.assert_allclose(written.affine, native.scan.affine, atol=1e-5)
        same = implant_in(_host(), case.id.rpartition("-")[2], 4)
        np.testing.assert_array_equal(label, same.label)
        np.testing.assert_array_equal(np.asarray(written.dataobj), same.image)
        np.testing.assert_array_equal(np.asarray(load_image(case.mask or Path()).dataobj) > 0, native.brain)
    ended = anofield("phantom", "--onto", out, "-o", tmp_path / "again", "--kinds", "ms")
    assert ended.code == 4 and "has a lesion label" in ended.err
    ended = anofield("phantom", "-o", out, "--size", 32, "--healthy", 1)
    assert ended.code == 2 and "is another dataset" in ended.err


def test_options_that_do_not_count_are_refused(anofield: Callable[..., Any], tmp_path: Path) -> None:
    ended = anofield("phantom", "--onto", "scans", "-o", tmp_path / "out", "--healthy", 3, "--site", "A")
    assert ended.code == 2 and "--onto with --healthy, --site" in ended.err
    ended = anofield("phantom", "-o", tmp_path / "out", "--kinds", "ms")
    assert ended.code == 2 and "--lesion" in ended.err


def test_whole_heads_are_refused(anofield: Callable[..., Any], tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    head = rng.uniform(50, 90, (40, 40, 40)).astype(np.float32)
    nib.Nifti1Image(head, np.diag([5.0, 5, 5, 1])).to_filename(tmp_path / "head_T1w.nii.gz")
    ended = anofield("phantom", "--onto", tmp_path / "head_T1w.nii.gz", "-o", tmp_path / "out")
    assert ended.code == 4 and "skull" in ended.err
    assert not (tmp_path / "out" / "participants.tsv").exists()


@needs_real
@pytest.mark.parametrize(
    ("path", "modality"),
    [
        ("oasis/brains/oas1101_T1w.nii.gz", "T1w"),
        ("ms26/T1w.nii.gz", "T1w"),
        ("ms26/T2w.nii.gz", "T2w"),
        ("ms26/FLAIR.nii.gz", "FLAIR"),
    ],
)
def test_real_scans_are_hosts(path: str, modality: str) -> None:
    native = as_stripped(REAL / path)
    host = host_of(native, modality)
    for kind in ("infarct", "ms"):
        done = implant_in(host, kind, 1)
        ill = done.label > 0
        assert 0.1 < ill.sum() * native.scan.voxel_ml < 200
        np.testing.assert_array_equal(done.image[~done.touched], native.scan.data[~done.touched])


@needs_real
def test_levels_of_real_scans_are_those_of_their_tissue_maps() -> None:
    for name in ("oas1000", "oas1036", "oas1119"):
        native = as_stripped(REAL / "oasis" / "brains" / f"{name}_T1w.nii.gz")
        tissues = np.asarray(load_image(REAL / "oasis" / "tissues" / f"{name}_tissues.nii.gz").dataobj)
        known = [float(np.median(native.scan.data[(tissues == k) & native.brain])) for k in (2, 3)]
        np.testing.assert_allclose(host_of(native, "T1w").levels[:2], known, rtol=0.12)
