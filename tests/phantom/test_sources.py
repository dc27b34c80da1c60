"""Templates from files: what a folder may hold, what is refused, and what the cache keeps."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
from scipy import ndimage

from anofield.errors import CohortError, MachineError, ScanError
from anofield.phantom import align, prepared
from anofield.phantom.align import Head, align_affine
from anofield.phantom.colin import FILE, OVERRIDE, colin27_head
from anofield.phantom.layouts import grid_of
from anofield.phantom.person import make_person
from anofield.phantom.sources import Source, find_sources, read_head
from anofield.phantom.template import CENTRE, ORIGIN, Template, icbm152
from anofield.phantom.variety import Variety

SPACING = 2.0
AFFINE = np.diag([SPACING, SPACING, SPACING, 1.0])
AFFINE[:3, 3] = ORIGIN + CENTRE
TOKENS = ("label-GM", "label-WM", "label-CSF")


def _shares() -> list[np.ndarray]:
    """Grey matter, white matter and fluid of ICBM152 with 2 mm voxels."""
    fixed = icbm152()
    step = (slice(None, None, 2),) * 3
    return [m[step] for m in (fixed.grey, fixed.white, np.clip(fixed.brain - fixed.grey - fixed.white, 0, 1))]


def _labels() -> np.ndarray:
    grey, white, fluid = _shares()
    best = np.argmax(np.stack([fluid, grey, white]), 0) + 1
    return np.where(grey + white + fluid > 0.5, best, 0).astype(np.uint8)


def _save(path: Path, data: np.ndarray, affine: np.ndarray = AFFINE) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    nib.Nifti1Image(data, affine).to_filename(path)
    return path


@pytest.fixture
def quick(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[Path]:
    """Few steps of alignment, and a cache of the test's own."""
    monkeypatch.setattr(align, "AFFINE_ROUNDS", ((6.0, 3),))
    monkeypatch.setattr(align, "DEMONS_ROUNDS", ((2.0, 1),))
    monkeypatch.setenv("ANOFIELD_CACHE", str(tmp_path / "cache"))
    prepared._loaded.cache_clear()
    prepared.load_velocity.cache_clear()
    yield tmp_path / "cache" / "templates"
    prepared._loaded.cache_clear()


@pytest.mark.slow
def test_a_person_of_a_folder_becomes_one_of_the_phantom_and_stays_in_the_cache(
    quick: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    turned = nib.as_closest_canonical(nib.Nifti1Image(_labels(), AFFINE)).slicer[::-1]  # stored from right to left
    (tmp_path / "maps").mkdir()
    nib.save(turned, tmp_path / "maps" / "a.nii.gz")
    made: list[Template] = []
    make = prepared._made

    def counted(source: Source) -> Template:
        made.append(make(source))
        return made[-1]

    monkeypatch.setattr(prepared, "_made", counted)
    variety = Variety(template=str(tmp_path / "maps"))
    person = make_person(0, 1, grid_of("hcp", 24), variety=variety)
    simple = make_person(0, 1, grid_of("hcp", 24))
    overlap = 2 * (person.brain & simple.brain).sum() / (person.brain.sum() + simple.brain.sum())
    assert overlap > 0.93  # both come from ICBM152
    note, kept = sorted(path for path in quick.iterdir() if path.suffix != ".lock")
    assert json.loads(note.read_text())["licence"] and kept.suffix == ".npz"

    prepared._loaded.cache_clear()
    make_person(0, 1, grid_of("hcp", 24), variety=variety)
    assert len(made) == 1  # it was read
    kept.write_bytes(kept.read_bytes()[:1000])
    assert prepared._read(kept, "a") is None  # then it is made again


@pytest.mark.slow
def test_an_affine_alignment_finds_size_shift_and_tilt() -> None:
    grey, white, fluid = _shares()
    tilt = np.deg2rad(8)
    moved = np.eye(4)
    moved[:3, :3] = 0.9 * np.array([[1, 0, 0], [0, np.cos(tilt), -np.sin(tilt)], [0, np.sin(tilt), np.cos(tilt)]])
    moved[:3, 3] = (4, -7, 5)
    frame = np.diag([SPACING, SPACING, SPACING, 1.0])
    frame[:3, 3] = ORIGIN
    found = align_affine(Head(grey, white, fluid, moved @ frame), icbm152())
    corners = np.array([[60, 80, 70, 1], [-60, -80, -70, 1], [60, -80, 70, 1], [0, 0, 0, 1]]).T
    assert np.abs((found - moved) @ corners).max() < 2.0


@pytest.mark.slow
def test_the_mixture_finds_the_tissues_of_a_scan(tmp_path: Path) -> None:
    grey, white, fluid = _shares()
    noise = np.random.default_rng(0).normal(0, 2, grey.shape)
    image = np.where(grey + white + fluid > 0.5, 84 * grey + 112 * white + 33 * fluid + noise, 0)
    head = colin27_head(_save(tmp_path / FILE, image.astype(np.float32)), icbm152())
    inside = head.brain > 0.5
    for found, true in ((head.grey, grey), (head.white, white), (head.fluid, fluid)):
        assert np.corrcoef(found[inside], true[inside])[0, 1] > 0.85


def test_names_of_probability_maps(tmp_path: Path) -> None:
    for names in (
        ("sub-1_label-GM_probseg", "sub-1_label-WM_probseg", "sub-1_label-CSF_probseg"),
        ("c1anna", "c2anna", "c3anna"),
        ("t1_pve_1", "t1_pve_2", "t1_pve_0"),
        ("x_gm", "x_wm", "x_csf"),
    ):
        for name in names:
            _save(tmp_path / f"{name}.nii.gz", np.zeros((2, 2, 2), np.uint8))
    sources = find_sources(str(tmp_path))
    assert len(sources) == 4 and all(source.kind == "shares" and len(source.files) == 3 for source in sources)
    first = next(source for source in sources if "sub-1" in source.files[0].name)
    assert [token in path.name for token, path in zip(TOKENS, first.files, strict=True)] == [True] * 3


def test_an_incomplete_or_empty_folder_is_refused(tmp_path: Path) -> None:
    with pytest.raises(CohortError, match=r"no tissue maps"):
        find_sources(str(tmp_path))
    _save(tmp_path / "c1anna.nii", np.zeros((2, 2, 2), np.uint8))
    with pytest.raises(CohortError, match=r"map of white matter is missing"):
        find_sources(str(tmp_path))


def test_a_missing_package_names_the_remedy(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv(OVERRIDE, str(tmp_path))
    for template in ("colin27", "mixed"):
        with pytest.raises(MachineError, match=r"apt-get install mricron-data"):
            find_sources(template)


def _with_seven(labels: np.ndarray) -> np.ndarray:
    return np.where(labels == 3, 7, labels)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("change", "affine", "told"),
    [
        (_with_seven, AFFINE, "its values are"),
        (lambda labels: labels * np.float32(0.4), AFFINE, "its values are"),
        (lambda labels: labels * 0, AFFINE, "holds 0 ml"),
        (lambda labels: labels, AFFINE @ np.diag([0.5, 0.5, 0.5, 1]), "adults have"),
        (lambda labels: np.where(labels == 3, 2, labels), AFFINE, "white matter"),
        (lambda labels: labels, AFFINE @ np.diag([2, 2, 2, 1]), "4.0 mm wide"),
    ],
)
def test_maps_that_are_no_brain_are_refused(
    change: Callable[[np.ndarray], np.ndarray], affine: np.ndarray, told: str, tmp_path: Path
) -> None:
    _save(tmp_path / "a.nii.gz", change(_labels()), affine)
    with pytest.raises(ScanError, match=told):
        read_head(find_sources(str(tmp_path))[0])


@pytest.mark.slow
def test_probability_maps_must_be_shares_on_the_same_voxels(tmp_path: Path) -> None:
    for token, share in zip(TOKENS, _shares(), strict=True):
        _save(tmp_path / f"a_{token}.nii.gz", share)
    source = find_sources(str(tmp_path))[0]
    head = read_head(source)
    assert head.brain.max() <= 1 and head.grey.sum() > head.white.sum() > head.fluid.sum()
    _save(source.files[1], 100 * _shares()[1])
    with pytest.raises(ScanError, match="no probability map"):
        read_head(source)
    _save(source.files[1], _shares()[1][:-1])
    with pytest.raises(ScanError, match="does not lie on the voxels"):
        read_head(source)


@pytest.mark.slow
def test_a_head_that_is_turned_over_is_refused(quick: Path, tmp_path: Path) -> None:
    upside_down = AFFINE.copy()
    upside_down[1:3] = AFFINE[[2, 1]]
    cut = ndimage.binary_dilation(_labels() > 0) * _labels()
    _save(tmp_path / "maps" / "a.nii.gz", cut, upside_down)
    with pytest.raises(ScanError, match=r"cannot be aligned to ICBM152"):
        make_person(0, 0, grid_of("hcp", 16), variety=Variety(template=str(tmp_path / "maps")))
    assert not list(quick.glob("*.npz"))
