"""A cohort: every layout's cases are found with their labels and masks, and no two share an id."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from anofield.data.cohort.bids import parse_entities
from anofield.data.cohort.case import Case, cohort_of, split_by_subject
from anofield.data.cohort.find import DATASETS, find_cases
from anofield.data.cohort.trees import looks_like_a_label
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
FOLDER = ("b.nii.gz", "deep/er/a.nii", "c.mgz", "b_seg.nii.gz", "b_brain_mask.nii.gz", "label_c.nii", "notes.txt")


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


BIDS_MANY = (
    "dataset_description.json",
    *(f"sub-1/ses-0{n}/anat/sub-1_ses-0{n}_acq-{a}_run-0{r}_T2w.nii.gz" for n in (1, 2) for a in "hl" for r in (1, 2)),
    *("sub-2/anat/sub-2_run-1_T2w.nii", "sub-2/anat/sub-2_UNIT1.nii.gz", "sub-2/perf/sub-2_asl.nii.gz"),
    "derivatives/raters/deep/sub-1/ses-01/anat/sub-1_ses-01_acq-h_run-01_label-lesion_mask.nii.gz",
    "derivatives/brains/sub-1/ses-01/anat/sub-1_ses-01_acq-h_run-01_desc-brain_mask.nii.gz",
    "derivatives/brains/sub-1/ses-01/anat/sub-1_ses-01_acq-h_run-01_label-GM_probseg.nii.gz",
    "derivatives/.hidden/sub-1/anat/sub-1_ses-02_acq-h_run-01_desc-brain_mask.nii.gz",
)


@pytest.mark.parametrize(
    ("entities", "count"),
    [
        ({}, 9),
        ({"acq": "h"}, 4),
        ({"run": "1"}, 5),
        ({"run": "01", "ses": "02"}, 2),
        ({"ses": "01", "acq": "l", "run": "2"}, 1),
        ({"sub": "2"}, 1),
    ],
)
def test_bids_entities_choose_scans_and_runs_are_numbers(entities: dict[str, str], count: int, tmp_path: Path) -> None:
    cases = find_cases(plant(tmp_path, *BIDS_MANY), entities=entities)
    assert len(cases) == count
    with_label = [case for case in cases if case.label]
    assert [case.id for case in with_label] == [case.id for case in cases if case.id == "sub-1_ses-01_acq-h_run-01"]
    assert all(case.mask and "desc-brain" in case.mask.name for case in with_label)
    assert sum(case.mask is not None for case in cases) == len(with_label)


@pytest.mark.parametrize(("modality", "name"), [("UNIT1", "sub-2"), ("asl", "sub-2")])
def test_bids_takes_any_suffix(modality: str, name: str, tmp_path: Path) -> None:
    assert [case.id for case in find_cases(plant(tmp_path, *BIDS_MANY), modality=modality)] == [name]


@pytest.mark.parametrize(
    ("modality", "entities", "words"),
    [
        ("t2w", {}, ("no t2w scans", "T2w (9)", "UNIT1 (1)")),
        ("T2w", {"acq": "x"}, ("none of 9 T2w scans has acq-x", "acq (h, l)", "run (01, 02, 1)", "ses (01, 02)")),
        ("UNIT1", {"acq": "x"}, ("no entities",)),
    ],
)
def test_where_bids_has_nothing_it_is_said_what_there_is(
    modality: str, entities: dict[str, str], words: tuple[str, ...], tmp_path: Path
) -> None:
    with pytest.raises(CohortError) as caught:
        find_cases(plant(tmp_path, *BIDS_MANY), modality=modality, entities=entities)
    assert all(word in str(caught.value) for word in words)


def test_entities_are_for_bids_only(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"looks like a brats.*--dataset bids"):
        find_cases(plant(tmp_path, *BRATS), entities={"acq": "x"})


def test_a_bids_tree_is_known_without_its_description_and_masks_may_lie_beside_scans(tmp_path: Path) -> None:
    anat = "sub-1/ses-1/anat/sub-1_ses-1_space-MNI"  # as in ATLAS R2.0
    plant(tmp_path, f"{anat}_T1w.nii.gz", f"{anat}_label-L_desc-T1lesion_mask.nii.gz", f"{anat}_desc-brain_T1w.nii.gz")
    cases = find_cases(tmp_path, modality="T1w")
    assert [case.id for case in cases] == ["sub-1_ses-1_space-MNI", "sub-1_ses-1_space-MNI_desc-brain"]
    assert all(case.label and "lesion" in case.label.name and case.subject == "sub-1" for case in cases)


@pytest.mark.parametrize(
    ("text", "pairs"), [("", {}), ("acq=h, run=1", {"acq": "h", "run": "1"}), ("ses=ses-1", {"ses": "1"})]
)
def test_a_filter_is_read_from_text(text: str, pairs: dict[str, str]) -> None:
    assert parse_entities([text]) == {key: (value,) for key, value in pairs.items()}


@pytest.mark.parametrize("text", ["acq", "acq=", "=x", "acq-x"])
def test_a_filter_that_is_none_is_refused(text: str) -> None:
    with pytest.raises(UsageError, match=r"--filter.*acq=highres"):
        parse_entities(["run=1", text])


@pytest.mark.parametrize(("modality", "ending"), [("T2w", "-t2w"), ("T1w", "-t1n"), ("FLAIR", "-t2f"), ("T1c", "-t1c")])
def test_brats_2023_names(modality: str, ending: str, tmp_path: Path) -> None:
    name = "BraTS-GLI-00000-000"
    plant(tmp_path, *(f"{name}/{name}-{end}.nii.gz" for end in ("t2w", "t1n", "t2f", "t1c", "seg")))
    (case,) = find_cases(tmp_path, modality=modality)
    image, label = (tmp_path / f"{name}/{name}{end}.nii.gz" for end in (ending, "-seg"))
    assert case == Case(name, image, label, subject="BraTS-GLI-00000")  # -000 is the visit


def test_brats_has_contrast_enhanced_scans_but_no_others(tmp_path: Path) -> None:
    (case,) = find_cases(plant(tmp_path, *BRATS), modality="T1c")
    assert case.image.name == "Brats18_A_t1ce.nii.gz"
    with pytest.raises(UsageError, match=r"no PDw scans.*T1c"):
        find_cases(tmp_path, modality="PD")


@pytest.mark.parametrize(
    ("name", "is_label"),
    [
        *((f"{name}.nii.gz", True) for name in ("a_seg", "a-seg", "seg_1", "a_dseg", "a_mask_2", "mask01", "T1mask")),
        *(
            (f"{name}.nii", True)
            for name in ("aseg", "aparc+aseg", "s_label-GM_probseg", "label-l_x", "labels", "A_ROI")
        ),
        *((f"{name}.nii", False) for name in ("Seganita_T2w", "Masked_T2w", "T2w_masked", "s_T2w", "Labelle", "001")),
        *((f"{name}.nii", False) for name in ("sub-mask01_T2w", "maskell-2", "no_mask_T2w", "sub-1_desc-brain_T2w")),
        *(("labelsTr/a.nii", True), ("brain_masks/a.nii", True), ("imagesTr/a.nii", False), ("maskell/a.nii", False)),
    ],
)
def test_what_is_named_as_a_label_is_no_scan(name: str, is_label: bool, tmp_path: Path) -> None:
    plant(tmp_path, name, "other.nii")
    assert looks_like_a_label(tmp_path / name, tmp_path) == is_label
    assert len(find_cases(tmp_path)) == 2 - is_label


def test_a_folder_of_labels_only_says_so(tmp_path: Path) -> None:
    with pytest.raises(CohortError, match=r"2 files, all named like labels.*a_seg"):
        find_cases(plant(tmp_path, "a_seg.nii", "b_seg.nii"))


def test_linked_folders_are_followed_once_and_hidden_ones_never(tmp_path: Path) -> None:
    plant(tmp_path, "tree/a.nii", "store/b.nii", "tree/.git/annex/c.nii")
    (tmp_path / "tree/aaa").symlink_to(tmp_path / "store")
    (tmp_path / "tree/again").symlink_to(tmp_path / "store")
    (tmp_path / "store/round").symlink_to(tmp_path / "tree")
    assert [case.id for case in find_cases(tmp_path / "tree")] == ["a", "b"]


PATTERNS = {
    "scans/a_seg.nii.gz": "{id}_seg.nii.gz",
    "scans/truth/a.nii.gz": "truth/{name}.nii.gz",
    "truth/a.nii": "{dir}/../truth/{id}.nii",
    "scans/rater[1]-a.nii.gz": "*-{id}.nii.gz",
    "scans/deep/er/a/x.nii.gz": "**/{id}/?.nii.gz",
    "scans/truths/a.mgz": "truths",
    "scans/segs/a_seg.nii": "segs",
}


@pytest.mark.parametrize("what", ["label", "mask"])
@pytest.mark.parametrize("place", list(PATTERNS))
def test_labels_and_masks_are_found_by_pattern_or_in_a_folder(
    what: str, place: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    plant(tmp_path, "scans/a.nii.gz", "scans/b.nii.gz", place)
    monkeypatch.chdir(tmp_path)
    for root in (tmp_path, Path()):
        pattern: Any = {what: PATTERNS[place]}
        (a,) = find_cases(root / "scans/a.nii.gz", **pattern)
        assert getattr(a, what).resolve() == (tmp_path / place).resolve()
        if what == "label":
            assert [case.label == a.label for case in find_cases(root / "scans/[ab].nii.gz", **pattern)] == [
                True,
                False,
            ]
            continue
        with pytest.raises(CohortError, match=r"1 of 2 cases have no mask at .*: b"):
            find_cases(root / "scans/[ab].nii.gz", **pattern)


@pytest.mark.parametrize("names", [("a.nii.gz", "b.nii.gz"), ("a_lesion_mask.nii", "b.mgz"), ("a_seg.nii.gz",)])
def test_a_folder_of_truth_may_lie_anywhere(names: tuple[str, ...], tmp_path: Path) -> None:
    plant(tmp_path, "scans/a.nii.gz", "scans/b.nii.gz", *(f"truth/{name}" for name in names))
    cases = find_cases(tmp_path / "scans", label=str(tmp_path / "truth"))
    assert [case.label.name for case in cases if case.label] == list(names)


def test_a_scan_is_not_its_own_label(tmp_path: Path) -> None:
    plant(tmp_path, "a.nii.gz", "b.nii.gz")
    for pattern in ("{id}.nii.gz", str(tmp_path)):
        with pytest.raises(CohortError, match="no file for any of 2"):
            find_cases(tmp_path, label=pattern)


def test_a_pattern_overrides_what_the_layout_has(tmp_path: Path) -> None:
    plant(tmp_path, *BRATS, "HGG/Brats18_A/mine.nii")
    assert [case.label and case.label.name for case in find_cases(tmp_path, label="mine.nii")] == [
        "mine.nii",
        None,
        None,
    ]


def test_a_pattern_that_finds_nothing_names_the_first_path(tmp_path: Path) -> None:
    with pytest.raises(CohortError, match=r"--mask finds no file.*first path") as caught:
        find_cases(plant(tmp_path, "a.nii", "b.nii"), mask="{id}_brain.nii")
    assert str(tmp_path / "a_brain.nii") in str(caught.value)


def test_a_pattern_that_finds_two_files_is_refused(tmp_path: Path) -> None:
    plant(tmp_path, "a.nii", "a_1_seg.nii", "a_2_seg.nii")
    with pytest.raises(
        CohortError, match=r"1 case with several labels \(a: .*a_1_seg\.nii, .*a_2_seg\.nii\).*--unite-labels"
    ):
        find_cases(tmp_path, label="{id}_*_seg.nii")
    (case,) = find_cases(tmp_path, label="{id}_*_seg.nii", unite=True)
    assert [path.name for path in case.labels] == ["a_1_seg.nii", "a_2_seg.nii"]


@pytest.mark.parametrize("pattern", ["{case}.nii", "{}.nii", "{id!r}.nii"])
def test_an_unknown_placeholder_is_refused(pattern: str, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"placeholder.*\{id\}"):
        find_cases(plant(tmp_path, "a.nii"), label=pattern)


def manifest(folder: Path, *lines: str) -> Path:
    plant(folder, "s/a.nii", "s/b.nii", "s/seg.nii", "m.nii")
    path = folder / "cohort.tsv"
    path.write_text("\n".join(line.replace(" ", "\t") for line in lines) + "\n", encoding="utf-8-sig")
    return path


def test_a_manifest_lists_the_cases(tmp_path: Path) -> None:
    lines = (f"two s/b.nii n/a {tmp_path}/m.nii  n/a", "", "one s/a.nii s/seg.nii n/a test p1")
    path = manifest(tmp_path, "id image label mask group subject", *lines)
    one = Case("one", tmp_path / "s/a.nii", tmp_path / "s/seg.nii", None, "p1", "test")
    assert find_cases(path) == [one, Case("two", tmp_path / "s/b.nii", None, tmp_path / "m.nii")]
    with pytest.raises(CohortError, match=r"label of 2 cases \(one, two\)"):
        find_cases(path, label="seg.nii")


@pytest.mark.parametrize("name", ["a" * 200, "running.json", "sub-1.run"])
def test_a_manifest_may_have_any_other_id(name: str, tmp_path: Path) -> None:
    assert [case.id for case in find_cases(manifest(tmp_path, "id image", f"{name} s/a.nii"))] == [name]


def test_a_manifest_may_leave_cells_and_columns_out_and_order_them_at_will(tmp_path: Path) -> None:
    assert find_cases(manifest(tmp_path, "image id group", "s/a.nii one")) == [Case("one", tmp_path / "s/a.nii")]


@pytest.mark.parametrize(
    ("lines", "words"),
    [
        (("id image lable", "1 s/a.nii x"), ("line 1", "'lable'", "did you mean 'label'")),
        (("id,image", "1,s/a.nii"), ("line 1", "Tab-separated")),
        (("id", "1"), ("line 1", "'image' is missing")),
        (("id image id", "1 s/a.nii 2"), ("'id' is repeated",)),
        (("id image", "1 s/a.nii", "", "1 s/b.nii"), ("lines 2 and 4", "'1'")),
        (("id image", "1"), ("line 2", "no image")),
        (("id image", "n/a s/a.nii"), ("line 2", "no id")),
        (("id image", "../1 s/a.nii"), ("line 2", "'../1'", "folder")),
        (("id image", "run.json s/a.nii"), ("line 2", "'run.json'", "folder")),
        (("id image", "results.json s/a.nii"), ("line 2", "'results.json'", "folder")),
        (("id image", "Failures-1-of-2.json s/a.nii"), ("line 2", "'Failures-1-of-2.json'", "folder")),
        (("id image", f"{'a' * 201} s/a.nii"), ("line 2", "'aaa", "201 bytes", "use 200")),
        (("id image", f"{'ä' * 101} s/a.nii"), ("line 2", "202 bytes")),
        (("id image", "1 s/a.nii x"), ("line 2", "3 cells in 2 columns")),
        (("id image label", "1 s/a.nii s/seg.nii", "2 s/b.nii s/c.nii"), ("1 of 2 label files", "line 3", "s/c.nii")),
        (("id image",), ("no scans found",)),
        (("",), ("'id' is missing",)),
    ],
)
def test_a_manifest_that_cannot_be_used_says_where(
    lines: tuple[str, ...], words: tuple[str, ...], tmp_path: Path
) -> None:
    with pytest.raises(CohortError, match="Remedy") as caught:
        find_cases(manifest(tmp_path, *lines))
    assert all(word in str(caught.value) for word in (*words, "cohort.tsv"))


def test_missing_images_are_counted_and_the_first_three_named(tmp_path: Path) -> None:
    rows = [f"{n} s/{n}.nii" for n in range(5)]
    with pytest.raises(
        CohortError, match=r"5 of 6 image files.*line 3: .*0\.nii.*line 5: .*2\.nii and 2 more"
    ) as caught:
        find_cases(manifest(tmp_path, "id image", "a s/a.nii", *rows))
    assert "3.nii" not in str(caught.value)


def test_two_sources_with_one_id_are_refused_before_one_overwrites_the_other() -> None:
    one, two = Case("a", Path("one/a.nii")), Case("a", Path("two/a.nii"))
    assert cohort_of(case for case in (one, Case("b", Path("b.nii")))) == [one, Case("b", Path("b.nii"))]
    with pytest.raises(CohortError, match=r"the id 'a': one/a.nii and two/a.nii"):
        cohort_of([one, two])


@pytest.mark.parametrize("name", ["../a", "a/b", "..", "", ".a", "run.json", "failures-2.json", "a" * 300])
def test_an_id_that_would_leave_the_run_folder_is_refused(name: str) -> None:
    with pytest.raises(CohortError, match="cannot name a folder"):
        cohort_of([Case(name, Path("a.nii"))])


@pytest.mark.parametrize("given", ["scans", Path("scans"), Case("a", Path("a.nii")), None, 3, ["scan.nii"]])
def test_what_is_no_list_of_cases_is_named(given: Any) -> None:
    with pytest.raises(UsageError, match=r"where cases are expected.*find_cases"):
        cohort_of(given)
