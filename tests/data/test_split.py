"""Groups of a cohort share no subject and no scan, and their manifest reads back exactly."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from anofield.data.cohort.case import Case
from anofield.data.cohort.find import find_cases
from anofield.data.cohort.manifest import read_manifest
from anofield.data.cohort.split import parse_groups, split_cohort, write_manifest
from anofield.errors import CohortError, UsageError

THREE = {"train": 0.5, "calibration": 0.25, "test": 0.25}


def cohort(folder: Path, *names: str) -> list[Case]:
    """Cases of files that cannot be read as scans."""
    folder.mkdir(parents=True, exist_ok=True)
    for name in names:
        (folder / f"{name}.nii.gz").write_text(name)
    return list(find_cases(folder))


def brain_of(case: Case) -> Path:
    """A mask file of a case."""
    mask = case.image.parent.with_name("masks") / case.image.name
    mask.parent.mkdir(exist_ok=True)
    mask.write_text(f"mask of {case.id}")
    return mask


def absolute(case: Case) -> Case:
    return replace(case, image=case.image.absolute(), mask=case.mask and case.mask.absolute())


def groups_of(cases: list[Case]) -> dict[str, str | None]:
    return {case.id: case.group for case in cases}


@pytest.mark.parametrize("seed", range(4))
def test_scans_of_a_subject_stay_together(seed: int, tmp_path: Path) -> None:
    names = (f"sub-{s}_ses-{n}_T2w" for s in range(8) for n in range(1 + s % 3))
    made = split_cohort(cohort(tmp_path, *names), THREE, seed)
    where = {(case.subject, case.group) for case in made.cases}
    assert len(where) == 8 and made.subjects == {"train": 4, "calibration": 2, "test": 2}
    assert sum(made.counts().values()) == len(made.cases) == sum(1 + s % 3 for s in range(8))


@pytest.mark.parametrize("seed", range(4))
@pytest.mark.parametrize("again", ["ses-{}", "visit{}", "tp0{}", "run-{}", "session_{}", "timepoint{}"])
def test_repeated_scans_in_a_folder_are_of_one_subject(again: str, seed: int, tmp_path: Path) -> None:
    names = [f"p{person}_{again.format(number)}_T2w" for person in range(4) for number in (1, 2)]
    made = split_cohort(cohort(tmp_path, *names, "p0_T2w", "p1_baseline_T2w", "p1_followup_T2w"), THREE, seed)
    assert sum(made.subjects.values()) == 4
    for person in range(4):
        assert len({case.group for case in made.cases if case.id.startswith(f"p{person}_")}) == 1


def test_the_same_scan_under_two_names_stays_together(save_brain: Callable[..., Path], tmp_path: Path) -> None:
    for number in range(6):
        save_brain(tmp_path / f"p{number}.nii.gz", seed=number // 2)
    for seed in range(4):
        made = split_cohort(find_cases(tmp_path), {"a": 0.34, "b": 0.33, "c": 0.33}, seed)
        group = groups_of(made.cases)
        assert all(group[f"p{n}"] == group[f"p{n + 1}"] for n in (0, 2, 4))
        assert made.twins == [("p0", "p1"), ("p2", "p3"), ("p4", "p5")] and made.subjects == {"a": 1, "b": 1, "c": 1}


def test_a_split_depends_on_the_seed_alone_and_may_leave_subjects_out(tmp_path: Path) -> None:
    cases = cohort(tmp_path, *(f"p{n}" for n in range(20)))
    one, other = (groups_of(split_cohort(order, THREE, 3).cases) for order in (cases, cases[::-1]))
    assert one == other != groups_of(split_cohort(cases, THREE, 4).cases)
    assert len(split_cohort(cases, {"a": 0.25, "b": 0.25}).cases) == 10


def test_a_manifest_reads_back_exactly(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    names = ("a b 'c' \"d\" é", "-x", "[1]*", "p1_T2w", "#comment", "=1")
    monkeypatch.chdir(tmp_path)
    for folder in (Path("scans"), tmp_path / "scans"):
        for out in (Path("m.tsv"), tmp_path / "m.tsv", tmp_path / "lists" / "m.tsv", tmp_path / "scans" / "m.tsv"):
            cases = [replace(case, mask=brain_of(case)) for case in cohort(folder, *names)]
            made = split_cohort(cases, {"a": 0.5, "b": 0.5}).cases
            back = read_manifest(write_manifest(made, out, force=True))
            assert list(map(absolute, back)) == list(map(absolute, made))
            assert groups_of(list(find_cases(out, group="a"))) == {c.id: "a" for c in made if c.group == "a"}
    assert "\tscans/p1_T2w.nii.gz\t" in write_manifest(made, tmp_path / "m.tsv", force=True).read_text()


def test_what_a_manifest_cannot_hold_is_refused(tmp_path: Path) -> None:
    (case,) = cohort(tmp_path / "a\tb", "p")
    several = replace(case, image=tmp_path / "p.nii", label=tmp_path / "a.nii", more_labels=(tmp_path / "b.nii",))
    for bad in (case, replace(case, image=tmp_path / "none.nii"), several):
        with pytest.raises(CohortError, match="Remedy"):
            write_manifest([bad], tmp_path / "m.tsv")
    assert not (tmp_path / "m.tsv").exists()


def test_a_file_is_not_replaced_unless_asked(tmp_path: Path) -> None:
    cases = cohort(tmp_path, "p")
    write_manifest(cases, tmp_path / "m.tsv")
    with pytest.raises(UsageError, match="--force"):
        write_manifest(cases, tmp_path / "m.tsv")
    with pytest.raises(UsageError, match=r"\.tsv"):
        write_manifest(cases, tmp_path / "m.csv")


@pytest.mark.parametrize(
    "text", ["train", "=0.5", "a=x", "a=0", "a=1.1", "a=-1", "a=nan", "a=0.5,a=0.1", "a=0.7,b=0.4", ""]
)
def test_shares_that_are_none_are_refused(text: str) -> None:
    with pytest.raises(UsageError, match="Remedy"):
        parse_groups([text])


def test_too_few_subjects_are_an_error(tmp_path: Path) -> None:
    with pytest.raises(CohortError, match="would be empty"):
        split_cohort(cohort(tmp_path, "a", "b"), THREE)


def test_the_verb(anofield: Callable[..., Any], save_brain: Callable[..., Path], tmp_path: Path) -> None:
    for number in range(4):
        save_brain(tmp_path / "s" / f"p{number}.nii.gz", seed=number)
    (tmp_path / "s" / "p4.nii.gz").write_text("no scan")
    words = ("split", "-i", tmp_path / "s", "-o", tmp_path / "m.tsv", "--groups", "train=0.6", "--groups", "test=0.2")
    ended = anofield(*words)
    assert ended.code == 0 and "train 3 scans of 3 subjects, test 1 scan of 1 subject" in ended.out
    assert "cannot be read, so only the subject counts: p4" in ended.err and "1 scan in no group" in ended.err
    assert anofield(*words).code == 2 and anofield(*words, "--force").code == 0
    ended = anofield("check", "-i", tmp_path / "m.tsv", "--group", "train", "--group", "test")
    assert "train 3, test 1" in ended.err


def test_subjects_of_a_manifest_without_that_column(tmp_path: Path) -> None:
    images = [f"sub-{s}/anat/sub-{s}_run-{n}_T2w.nii" for s in (1, 2, 3) for n in (1, 2)]
    images += [f"{p}/T2w_brain.nii" for p in "xyz"]  # all of one name, and three subjects
    for image in images:
        (tmp_path / image).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / image).touch()
    (tmp_path / "m.tsv").write_text("id\timage\n" + "".join(f"c{n}\t{image}\n" for n, image in enumerate(images)))
    made = split_cohort(find_cases(tmp_path / "m.tsv"), {"a": 0.5, "b": 0.5})
    group = groups_of(made.cases)
    assert all(group[f"c{n}"] == group[f"c{n + 1}"] for n in (0, 2, 4)) and made.subjects == {"a": 3, "b": 3}
