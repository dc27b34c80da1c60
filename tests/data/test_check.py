"""The check before long work: every defect is named with its remedy, sound scans pass, no file changes."""

from __future__ import annotations

import gzip
import hashlib
import itertools
import json
import shutil
from collections.abc import Callable
from functools import partial
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
import typer
from typer.testing import CliRunner, Result

from anofield.cli import check
from anofield.data.check import WIDTH, Row, check_case, check_cohort, format_rows
from anofield.data.cohort.case import Case
from anofield.data.cohort.find import find_cases
from anofield.errors import CohortError
from images import load_image

SaveBrain = Callable[..., Path]


@pytest.fixture
def cohort(save_brain: SaveBrain, tmp_path: Path) -> list[Case]:
    """Six sound scans."""
    return [Case(f"c{seed}", save_brain(tmp_path / f"c{seed}.nii.gz", seed=seed)) for seed in range(6)]


def rewrite(path: Path, change: Callable[[nib.Nifti1Image], nib.Nifti1Image | None]) -> Path:
    """Change an image in place."""
    image = nib.Nifti1Image.from_bytes(gzip.decompress(path.read_bytes()))
    (change(image) or image).to_filename(path)
    return path


def scaled(image: nib.Nifti1Image, factor: float, times: float = 1.0) -> nib.Nifti1Image:
    """Intensities times `factor` on a grid `times` as coarse."""
    affine = image.affine @ np.diag([times, times, times, 1])
    return nib.Nifti1Image(np.asarray(image.dataobj) * np.float32(factor), affine)


def told(row: Row) -> str:
    return " ".join([*row.problems, *row.warnings, *row.notes])


def test_sound_scans_have_neither_problems_nor_warnings(cohort: list[Case]) -> None:
    rows = check_cohort(cohort)
    assert [row.id for row in rows] == [case.id for case in cohort]
    assert all(told(row) == "" for row in rows)
    first = rows[0]
    assert (first.shape, first.orientation, first.dtype, first.mask) == ((24, 28, 22), "LAS", "float32", "non-zero")
    assert first.spacing == pytest.approx((7, 7, 7)) and first.oblique == pytest.approx(0, abs=1e-3)
    assert first.brain_ml == pytest.approx(1069, rel=0.05)
    low, middle, high = first.percentiles
    assert 100 < low < middle < high < 300
    assert first.hash == hashlib.sha256(cohort[0].image.read_bytes()).hexdigest()


@pytest.mark.parametrize("order", list(itertools.permutations(range(3))))
@pytest.mark.parametrize("flips", list(itertools.product((1, -1), repeat=3)))
def test_every_orientation_is_named_and_gives_the_same_brain(
    order: tuple[int, ...], flips: tuple[int, ...], save_brain: SaveBrain, brain_data: np.ndarray, tmp_path: Path
) -> None:
    ras = nib.as_closest_canonical(nib.Nifti1Image(brain_data, np.diag([-7.0, 7, 7, 1])))
    turned = ras.as_reoriented(np.array(list(zip(order, flips, strict=True)), dtype=float))
    row = check_case(Case("a", save_brain(tmp_path / "a.nii.gz", np.asarray(turned.dataobj), turned.affine)))
    assert row.orientation == "".join(nib.aff2axcodes(turned.affine)) and not row.problems
    assert row.brain_ml == pytest.approx(np.count_nonzero(brain_data) * 0.343, rel=1e-4)


@pytest.mark.parametrize("degrees", [0.0, 5.0, 30.0])
def test_the_obliqueness_is_the_angle_of_the_rotation(degrees: float, save_brain: SaveBrain, tmp_path: Path) -> None:
    c, s = np.cos(np.deg2rad(degrees)), np.sin(np.deg2rad(degrees))
    affine = np.array([[7 * c, -7 * s, 0, 3], [7 * s, 7 * c, 0, 9], [0, 0, 7, 1], [0, 0, 0, 1]])
    assert check_case(Case("a", save_brain(tmp_path / "a.nii.gz", affine=affine))).oblique == pytest.approx(
        degrees, abs=1e-3
    )


FORMATS: dict[str, Callable[[np.ndarray, np.ndarray], nib.spatialimages.SpatialImage]] = {
    "a.nii": nib.Nifti1Image,
    "b.nii.gz": nib.Nifti2Image,
    "c.mgz": nib.MGHImage,
    "d.nii": lambda data, affine: nib.Nifti1Image(data, affine, nib.Nifti1Header(endianness=">")),
    "e.nii": lambda data, affine: nib.Nifti1Image(data.astype(np.int16), affine),
}


def test_one_brain_in_five_formats_is_one_brain_five_times(brain_data: np.ndarray, tmp_path: Path) -> None:
    data, affine = np.round(brain_data), np.diag([7.0, 7, 7, 1])
    for name, make in FORMATS.items():
        make(data, affine).to_filename(tmp_path / name)
    rows = check_cohort(find_cases(tmp_path))
    assert len({row.data_hash for row in rows}) == 1 and len({row.hash for row in rows}) == 5
    assert len({round(row.brain_ml or 0, 3) for row in rows}) == 1
    assert all("same voxels" in row.problems[0] and len(row.problems) == 1 for row in rows)


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda image: scaled(image, 1, 2.0), ("8", "ml", "not skull-stripped", "--mask")),
        (lambda image: nib.Nifti1Image(np.asarray(image.dataobj) * np.nan, image.affine), ("NaN",)),
        (lambda image: nib.Nifti1Image(np.zeros((9, 9, 9)), image.affine), ("every voxel is 0",)),
        (lambda image: nib.Nifti1Image(np.ones((9, 9, 9, 2)), image.affine), ("3-D",)),
        (lambda image: scaled(image, 1, 0.1), ("less than any brain",)),
        (
            lambda image: nib.Nifti1Image((np.asarray(image.dataobj) != 0).astype(np.uint8), image.affine),
            ("every brain voxel has the same intensity (1)", "mask"),
        ),
    ],
    ids=["not stripped", "nan", "constant", "4-D", "tiny", "its mask"],
)
def test_a_scan_that_cannot_be_used_is_a_problem_with_a_remedy_and_keeps_its_geometry(
    change: Callable[[nib.Nifti1Image], nib.Nifti1Image], words: tuple[str, ...], cohort: list[Case]
) -> None:
    rewrite(cohort[2].image, change)
    rows = check_cohort(cohort)
    (problem,) = rows[2].problems
    assert all(word in problem for word in (*words, "Remedy", str(cohort[2].image)))
    assert rows[2].shape and rows[2].orientation == "LAS"
    assert not any(row.problems for row in rows if row.id != "c2")


@pytest.mark.parametrize("damage", [lambda b: b[:3000], lambda b: b"no scan", lambda b: b""])
def test_a_damaged_file_is_a_problem_of_its_case_only(damage: Callable[[bytes], bytes], cohort: list[Case]) -> None:
    cohort[1].image.write_bytes(damage(cohort[1].image.read_bytes()))
    rows = check_cohort([*cohort, Case("gone", cohort[0].image.with_name("gone.nii"))])
    assert [row.id for row in rows if row.problems] == ["c1", "gone"]
    assert "no such file" in rows[-1].problems[0]


def test_copies_are_named_whether_by_file_or_by_voxels(cohort: list[Case], tmp_path: Path) -> None:
    shutil.copy(cohort[0].image, tmp_path / "copy.nii.gz")
    unzipped = tmp_path / "moved.nii"
    image = load_image(cohort[1].image)
    nib.Nifti1Image(np.asarray(image.dataobj), image.affine + np.diag([0, 0, 0, 0])).to_filename(unzipped)
    rows = {row.id: row for row in check_cohort([*cohort, Case("x", tmp_path / "copy.nii.gz"), Case("y", unzipped)])}
    assert "same file as x" in rows["c0"].problems[0] and "same file as c0" in rows["x"].problems[0]
    assert "same voxels as y" in rows["c1"].problems[0] and "same voxels as c1" in rows["y"].problems[0]
    assert sum(bool(row.problems) for row in rows.values()) == 4


def test_a_subject_in_two_groups_is_a_problem_of_both_scans(cohort: list[Case]) -> None:
    belongs = [("s1", "train"), ("s1", "test"), ("s2", "train"), ("s2", "train"), ("", "test"), ("s1", None)]
    cases = [Case(c.id, c.image, subject=who, group=group) for c, (who, group) in zip(cohort, belongs, strict=True)]
    rows = check_cohort(cases)
    assert [row.id for row in rows if row.problems] == ["c0", "c1"]
    assert "here train" in rows[0].problems[0] and "c1 (test)" in rows[0].problems[0]


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda image: scaled(image, 1000), ("intensities span", "median")),
        (lambda image: scaled(image, 1, 1.25), ("8.75×8.75×8.75", "5 of 6", "7×7×7")),
        (lambda image: image.slicer[:, :, 1:], ("24×28×21", "24×28×22")),
        (lambda image: scaled(image, 1, 0.8), ("ml, the cohort's median",)),
    ],
    ids=["scale", "spacing", "shape", "volume"],
)
def test_the_odd_one_out_is_warned_of_and_no_other(
    change: Callable[[nib.Nifti1Image], nib.Nifti1Image], words: tuple[str, ...], cohort: list[Case]
) -> None:
    rewrite(cohort[3].image, change)
    rows = check_cohort(cohort)
    assert any(all(word in warning for word in words) for warning in rows[3].warnings), rows[3].warnings
    assert not rows[3].problems
    assert all(told(row) == "" for row in rows if row.id != "c3")


def test_without_a_majority_no_grid_is_odd(cohort: list[Case]) -> None:
    for number, case in enumerate(cohort):
        rewrite(case.image, partial(scaled, factor=1, times=1 + number / 100))
    assert all(told(row) == "" for row in check_cohort(cohort))


def forms(image: nib.Nifti1Image, sform: int, qform: int, shift: float) -> None:
    moved = image.affine.copy()
    moved[0, 3] += shift
    image.set_sform(image.affine, sform)
    image.set_qform(moved, qform)


@pytest.mark.parametrize(
    ("sform", "qform", "shift", "word"),
    [(1, 1, 0, ""), (1, 1, 10, "10.0 mm apart"), (1, 0, 10, ""), (0, 1, 10, "")],
)
def test_a_header_that_contradicts_itself_is_warned_of(
    sform: int, qform: int, shift: float, word: str, cohort: list[Case]
) -> None:
    rewrite(cohort[0].image, lambda image: forms(image, sform, qform, shift))
    row = check_case(cohort[0])
    assert not row.problems and bool(row.warnings) == bool(word)
    assert word in told(row)


def label_of(path: Path, image: Path, ranges: tuple[slice, ...], value: int = 1, move: float = 0.0) -> Path:
    scan = load_image(image)
    data = np.zeros(scan.shape, np.uint8)
    data[ranges] = value
    affine = scan.affine.copy()
    affine[0, 3] += move
    nib.Nifti1Image(data, affine).to_filename(path)
    return path


INSIDE = (slice(10, 14), slice(12, 15), slice(10, 12))
EVERYWHERE = (slice(None),) * 3


@pytest.mark.parametrize(
    ("ranges", "move", "kind", "words"),
    [
        (INSIDE, 0.0, "none", ()),
        ((slice(0),) * 3, 0.0, "notes", ("empty", "healthy")),
        ((slice(0, 2),) * 3, 0.0, "warnings", ("100 %", "outside the brain")),
        (EVERYWHERE, 0.0, "problems", ("covers 100 %", "tissues")),
        (INSIDE, 50.0, "problems", ("50.0 mm away",)),
    ],
    ids=["inside", "empty", "outside", "everywhere", "moved"],
)
def test_a_label_is_held_against_the_scan_and_its_brain(
    ranges: tuple[slice, ...], move: float, kind: str, words: tuple[str, ...], cohort: list[Case], tmp_path: Path
) -> None:
    label = label_of(tmp_path / "l.nii.gz", cohort[0].image, ranges, 3, move)
    row = check_case(Case("c0", cohort[0].image, label))
    assert all(word in " ".join(getattr(row, kind)) for word in words) if words else not told(row)
    assert (kind == "problems") == bool(row.problems)
    if ranges is INSIDE and not move:
        assert row.label_ml == pytest.approx(24 * 0.343) and row.label_values == (3,)


def test_a_mask_makes_a_head_usable_and_one_on_another_grid_is_a_problem(cohort: list[Case], tmp_path: Path) -> None:
    image = load_image(cohort[0].image)
    mask = tmp_path / "m.nii.gz"
    nib.Nifti1Image((np.asarray(image.dataobj) > 0).astype(np.uint8), image.affine).to_filename(mask)
    bare = check_case(cohort[0])
    noise = np.random.default_rng(0).uniform(1, 9, image.shape).astype(np.float32)
    rewrite(cohort[0].image, lambda scan: nib.Nifti1Image(np.asarray(scan.dataobj) + noise, scan.affine))
    assert "--mask" in check_case(cohort[0]).problems[0]
    row = check_case(Case("c0", cohort[0].image, mask=mask))
    assert row.mask == "file" and not row.problems and row.brain_ml == bare.brain_ml
    nib.Nifti1Image(np.ones((3, 3, 3), np.uint8), image.affine).to_filename(mask)
    assert "shape (3, 3, 3)" in check_case(Case("c0", cohort[0].image, mask=mask)).problems[0]


def test_the_table_fits_and_what_is_wrong_follows_it(cohort: list[Case]) -> None:
    cohort[0].image.write_bytes(b"")
    cases = [Case(f"{case.id}-{'long' * 20}", case.image) for case in cohort]
    text = format_rows(check_cohort(cases))
    table, said, total = text.split("\n\n")
    assert len(table.splitlines()) == 14 and all(len(line) <= WIDTH for line in table.splitlines())
    assert table.splitlines()[2::2] == [case.id for case in cases]  # whole names, each above its row
    assert said.startswith(cases[0].id + ": problem:") and "Remedy" in said
    assert total == "6 scans: 5 usable, 1 with problems, 0 with warnings"
    wide = format_rows(check_cohort(cases), 240).split("\n\n")[0]
    assert all(line.split()[0] == case.id for line, case in zip(wide.splitlines()[1:], cases, strict=True))


def run(*words: object) -> Result:
    app = typer.Typer()
    app.command()(check.command)
    return CliRunner().invoke(app, [str(word) for word in words])


def test_the_verb_ends_with_0_3_or_4_and_changes_no_file(cohort: list[Case], tmp_path: Path) -> None:
    def state() -> list[tuple[str, int, bytes]]:
        return [(p.name, p.stat().st_mtime_ns, p.read_bytes()) for p in sorted(tmp_path.iterdir())]

    before = state()
    sound = run("-i", tmp_path)
    assert sound.exit_code == 0 and "6 scans: 6 usable" in sound.stdout and state() == before
    cohort[0].image.write_bytes(b"")
    before = state()
    some = run("-i", tmp_path, "--json")
    content = json.loads(some.stdout)
    assert some.exit_code == 3 and (content["scans"], content["usable"]) == (6, 5)
    assert [case["id"] for case in content["cases"] if case["problems"]] == ["c0"] and state() == before
    none = run("-i", cohort[0].image)
    assert isinstance(none.exception, CohortError) and none.exception.exit_code == 4
    assert "is empty" in none.stdout and state()[1:] == before[1:]


def test_the_verb_takes_filter_and_patterns(cohort: list[Case], tmp_path: Path) -> None:
    for number, case in enumerate(cohort[:3]):
        anat = tmp_path / f"b/sub-{number}/anat"
        anat.mkdir(parents=True)
        shutil.copy(case.image, anat / f"sub-{number}_acq-x_UNIT1.nii.gz")
        label_of(anat / f"truth-{number}.nii.gz", case.image, INSIDE)
    words = ("-i", tmp_path / "b", "--modality", "UNIT1", "--filter", "acq=x", "--label", "truth-?.nii.gz", "--json")
    ended = run(*words)
    assert ended.exit_code == 0, ended.output
    assert [case["label_values"] for case in json.loads(ended.stdout)["cases"]] == [[1]] * 3
