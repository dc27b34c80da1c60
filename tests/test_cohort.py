"""A cohort: every layout's cases are found with their labels and masks, and no two share an id."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from anofield.cohort import DATASETS, Case, find_cases, split_by_subject
from anofield.errors import CohortError, UsageError


def plant(root: Path, *names: str) -> Path:
    """Empty files below `root`."""
    for name in names:
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).touch()
    return root


HCP = (
    "100307/T1w/T2w_acpc_dc_restore_brain.nii.gz",
    "100307/T1w/T1w_acpc_dc_restore_brain.nii.gz",
    "100307/T1w/T2w_acpc_dc_restore.nii.gz",
    "batch2/100206/T1w/T2w_acpc_dc_restore_brain.nii.gz",
    "batch2/100206/T1w/lesion_mask.nii.gz",
    "100408/MNINonLinear/T2w_restore_brain.nii.gz",
)
BRATS = (
    *("HGG/Brats18_A/Brats18_A_t2.nii.gz", "HGG/Brats18_A/Brats18_A_seg.nii.gz", "HGG/Brats18_A/Brats18_A_t1.nii.gz"),
    *("HGG/Brats18_A/Brats18_A_t1ce.nii.gz", "HGG/Brats18_A/Brats18_A_flair.nii.gz"),
    *("LGG/Brats18_B/Brats18_B_t2.nii", "LGG/Brats18_B/Brats18_B_seg.nii", "LGG/Brats18_B/Brats18_B_t1.nii"),
    "LGG/Brats18_C/Brats18_C_t2.nii.gz",
)
BIDS = (
    "dataset_description.json",
    "sub-02/anat/sub-02_T2w.nii.gz",
    "sub-02/anat/sub-02_T2w.json",
    "sub-02/anat/sub-02_FLAIR.nii.gz",
    *("sub-01/ses-a/anat/sub-01_ses-a_T2w.nii.gz", "sub-01/ses-b/anat/sub-01_ses-b_acq-x_T2w.nii"),
    "derivatives/lesions/sub-02/anat/sub-02_label-lesion_mask.nii.gz",
    "derivatives/brains/sub-02/anat/sub-02_desc-brain_mask.nii.gz",
    "derivatives/brains/sub-01/ses-b/anat/sub-01_ses-b_acq-x_desc-brain_mask.nii.gz",
    "derivatives/other/sub-03/anat/sub-03_T2w.nii.gz",
)
FOLDER = ("b.nii.gz", "deep/er/a.nii", "c.mgz", "b_seg.nii.gz", "b_brain_mask.nii.gz", "label_a.nii", "notes.txt")


@pytest.mark.parametrize("dataset", ["auto", "hcp"])
def test_hcp_cases_are_named_by_their_subject(dataset: str, tmp_path: Path) -> None:
    plant(tmp_path, *HCP)
    cases = find_cases(tmp_path, dataset=dataset)
    assert [case.id for case in cases] == ["100206", "100307"]
    assert cases[1] == Case("100307", tmp_path / HCP[0])
    assert cases[0].label == tmp_path / HCP[4]


@pytest.mark.parametrize(("modality", "count"), [("T2w", 2), ("T1w", 1)])
def test_hcp_modalities(modality: str, count: int, tmp_path: Path) -> None:
    cases = find_cases(plant(tmp_path, *HCP), dataset="hcp", modality=modality)
    assert len(cases) == count and all(case.image.name.startswith(modality) for case in cases)


def test_hcp_has_no_flair(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"FLAIR.*Remedy"):
        find_cases(plant(tmp_path, *HCP), dataset="hcp", modality="FLAIR")


@pytest.mark.parametrize("dataset", ["auto", "brats"])
def test_brats_cases_come_with_their_segmentation(dataset: str, tmp_path: Path) -> None:
    cases = find_cases(plant(tmp_path, *BRATS), dataset=dataset)
    assert [(case.id, case.label and case.label.name) for case in cases] == [
        ("Brats18_A", "Brats18_A_seg.nii.gz"),
        ("Brats18_B", "Brats18_B_seg.nii"),
        ("Brats18_C", None),
    ]
    assert all("_t2.nii" in case.image.name for case in cases)


@pytest.mark.parametrize(("modality", "expected"), [("T1w", ["_t1.nii.gz", "_t1.nii"]), ("FLAIR", ["_flair.nii.gz"])])
def test_brats_modalities_do_not_mix(modality: str, expected: list[str], tmp_path: Path) -> None:
    cases = find_cases(plant(tmp_path, *BRATS), dataset="brats", modality=modality)
    assert [case.image.name.removeprefix(case.id) for case in cases] == expected


@pytest.mark.parametrize("dataset", ["auto", "bids"])
def test_bids_sessions_are_cases_of_one_subject(dataset: str, tmp_path: Path) -> None:
    cases = find_cases(plant(tmp_path, *BIDS), dataset=dataset)
    assert [(case.id, case.subject) for case in cases] == [
        ("sub-01_ses-a", "sub-01"),
        ("sub-01_ses-b_acq-x", "sub-01"),
        ("sub-02", "sub-02"),
    ]
    assert [case.mask and case.mask.name for case in cases] == [
        None,
        "sub-01_ses-b_acq-x_desc-brain_mask.nii.gz",
        "sub-02_desc-brain_mask.nii.gz",
    ]
    assert [case.label and case.label.name for case in cases] == [None, None, "sub-02_label-lesion_mask.nii.gz"]


def test_a_folder_gives_every_scan_but_labels_and_masks(tmp_path: Path) -> None:
    plant(tmp_path, *FOLDER)
    assert [case.id for case in find_cases(tmp_path)] == ["a", "b", "c"]


@pytest.mark.parametrize(
    ("pattern", "expected"),
    [("*.nii.gz", ["b"]), ("**/*.nii*", ["a", "b"]), ("[ac].*", ["c"]), ("*", ["b", "c"])],
)
def test_a_glob_gives_what_it_matches_but_labels_and_masks(pattern: str, expected: list[str], tmp_path: Path) -> None:
    plant(tmp_path, *FOLDER)
    assert [case.id for case in find_cases(tmp_path / pattern)] == expected


def test_a_file_is_a_case_even_if_it_is_called_mask(tmp_path: Path) -> None:
    plant(tmp_path, "a[1]_mask.nii.gz")
    assert find_cases(tmp_path / "a[1]_mask.nii.gz") == [Case("a[1]_mask", tmp_path / "a[1]_mask.nii.gz")]


@pytest.mark.parametrize("names", [FOLDER, BIDS, BRATS, HCP], ids=["folder", "bids", "brats", "hcp"])
def test_hidden_files_are_no_scans(names: tuple[str, ...], tmp_path: Path) -> None:
    plant(tmp_path, *names)
    expected = find_cases(tmp_path)
    for name in names:  # what macOS leaves on foreign disks, and what a killed run leaves
        path = tmp_path / name
        plant(path.parent, f"._{path.name}", f".partial-7-{path.name}")
    assert find_cases(tmp_path) == expected


@pytest.mark.parametrize("dataset", DATASETS)
def test_nothing_found_names_the_place_and_a_remedy(dataset: str, tmp_path: Path) -> None:
    with pytest.raises(CohortError, match="Remedy") as caught:
        find_cases(plant(tmp_path, "notes.txt"), dataset=dataset)
    assert str(tmp_path) in str(caught.value)


@pytest.mark.parametrize("name", ["missing", "missing/*.nii.gz"])
def test_a_source_that_does_not_exist_is_a_cohort_error(name: str, tmp_path: Path) -> None:
    with pytest.raises(CohortError, match="Remedy") as caught:
        find_cases(tmp_path / name)
    assert str(tmp_path / name) in str(caught.value)


def test_an_unknown_data_set_is_named(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"'adni'.*hcp"):
        find_cases(tmp_path, dataset="adni")


@pytest.mark.parametrize(
    ("dataset", "first", "second"),
    [
        ("folder", "x/a.nii.gz", "y/a.nii.gz"),
        ("folder", "a.nii", "a.nii.gz"),
        ("hcp", "x/1/T1w/T2w_acpc_dc_restore_brain.nii.gz", "y/1/T1w/T2w_acpc_dc_restore_brain.nii.gz"),
        ("brats", "x/A/A_t2.nii.gz", "y/A/A_t2.nii.gz"),
        ("bids", "sub-1/anat/sub-1_T2w.nii", "sub-1/anat/sub-1_T2w.nii.gz"),
    ],
)
def test_two_scans_with_one_id_are_refused_and_both_named(
    dataset: str, first: str, second: str, tmp_path: Path
) -> None:
    with pytest.raises(CohortError, match="Remedy") as caught:
        find_cases(plant(tmp_path, first, second), dataset=dataset)
    assert str(tmp_path / first) in str(caught.value) and str(tmp_path / second) in str(caught.value)


def sessions(subjects: int) -> list[Case]:
    """One to three scans per subject."""
    return [Case(f"{s}-{n}", Path(f"{s}-{n}.nii"), subject=f"s{s}") for s in range(subjects) for n in range(1 + s % 3)]


@pytest.mark.parametrize("fractions", [(0.7, 0.1, 0.2), (0.5, 0.5), (0.3,), (1.0, 0.0)])
@pytest.mark.parametrize("seed", range(3))
def test_a_split_keeps_every_subject_whole(fractions: tuple[float, ...], seed: int) -> None:
    cases = sessions(40)
    parts = split_by_subject(cases, fractions, np.random.default_rng(seed))
    subjects = [{case.subject for case in part} for part in parts]
    assert len(parts) == len(fractions)
    assert len(set().union(*subjects)) == sum(map(len, subjects))
    assert [len(part) for part in subjects] == pytest.approx([40 * share for share in fractions], abs=1)
    chosen = [case for part in parts for case in part]
    assert len(set(chosen)) == len(chosen)
    if sum(fractions) == pytest.approx(1):
        assert set(chosen) == set(cases)


def test_a_split_depends_on_the_seed_and_not_on_the_order_of_the_cases() -> None:
    cases = sessions(30)
    parts = split_by_subject(cases, (0.5, 0.5), np.random.default_rng(5))
    backwards = split_by_subject(cases[::-1], (0.5, 0.5), np.random.default_rng(5))
    other = split_by_subject(cases, (0.5, 0.5), np.random.default_rng(6))
    assert [set(part) for part in parts] == [set(part) for part in backwards]
    assert set(parts[0]) != set(other[0])


def test_cases_without_a_subject_are_their_own() -> None:
    parts = split_by_subject([Case(str(i), Path(str(i))) for i in range(10)], (0.5, 0.5), np.random.default_rng(0))
    assert [len(part) for part in parts] == [5, 5]
