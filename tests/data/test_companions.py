"""Labels and masks of cases: one order of names, one owner per file, and no file that is not the truth."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Callable
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest

from anofield.data.cohort.case import Case
from anofield.data.cohort.find import find_cases
from anofield.data.cohort.kinds import FileKind, kind_of
from anofield.errors import CohortError

SCANS = ("scans/p1.nii.gz", "scans/p2.nii.gz")


def plant(root: Path, *names: str) -> Path:
    """Files below `root`, each with its own content; those of one name in two folders differ as well."""
    for name in names:
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_text(str(root / name))
    return root


def volume(path: Path, seed: int, description: str = "") -> Path:
    """A small image with a description."""
    image = nib.Nifti1Image(np.random.default_rng(seed).integers(0, 2, (4, 4, 4)).astype(np.uint8), np.eye(4))
    image.header["descrip"] = description.encode()
    path.parent.mkdir(parents=True, exist_ok=True)
    image.to_filename(path)
    return path


def labels_of(root: Path, place: str = "truth", unite: bool = False) -> dict[str, list[str]]:
    """Names of the labels of every case in `scans`."""
    cases = find_cases(root / "scans", dataset="folder", label=str(root / place), unite=unite)
    return {case.id: [str(path.relative_to(root / place.split("*")[0])) for path in case.labels] for case in cases}


@pytest.mark.parametrize(
    ("text", "kind"),
    [
        *(
            (f"_{word}", FileKind.LESION)
            for word in ("lesion", "Lesions", "brain-lesion_seg", "tumorSeg", "lesionmask")
        ),
        *((f"_{word}", FileKind.SEGMENTATION) for word in ("seg", "Segm", "label", "truth", "dseg", "ROI", "T2w_seg")),
        *((f"_{word}", FileKind.BRAIN_MASK) for word in ("brain_mask", "brainmask", "bet_mask", "desc-brain_mask")),
        *((f"_{word}", FileKind.BRAIN) for word in ("bet", "brain", "synthstrip")),
        *(
            (f"_{word}", FileKind.OTHER)
            for word in ("aseg", "lesion_prob", "pred_seg", "FLAIR", "aparc+aseg", "gm_mask")
        ),
        *((text, FileKind.PLAIN) for text in ("", "_rater1", "-left", "_final_v2")),
    ],
)
def test_a_name_says_what_a_file_is(text: str, kind: FileKind) -> None:
    assert kind_of(text) is kind


@pytest.mark.parametrize(
    ("files", "expected"),
    [
        (("p1_seg.nii", "p1_mask.nii", "p1_brain_mask.nii", "p1.nii"), "p1_seg.nii"),
        (("p1_lesion.mgz", "p1.mgz"), "p1_lesion.mgz"),
        (("p1.nii.gz", "p1_mask.nii.gz", "p1_bet.nii.gz"), "p1.nii.gz"),
        (("p1_mask.nii.gz", "p1_bet.nii.gz"), "p1_mask.nii.gz"),
        (("p1-seg.mgh", "p1_FLAIR.nii"), "p1-seg.mgh"),
        (("p1/seg.nii.gz", "p1/brain.nii.gz"), "p1/seg.nii.gz"),
        (("p1/W39_1998.09.19_Segm.nii",), "p1/W39_1998.09.19_Segm.nii"),
        (("deep/er/p1_label-lesion_mask.nii",), "deep/er/p1_label-lesion_mask.nii"),
        (("p1_seg.nii", "p1_2_seg.nii", "p1_b_seg.nii"), "p1_seg.nii"),
        (("p1_2_seg.nii",), ""),
        (("p1_ses2_lesion.nii",), ""),
        (("p1_bet.nii", "p1_brain_mask.nii", "p1_aseg.nii", "p1_lesion_pred.nii"), ""),
    ],
)
def test_names_have_one_order_of_meaning(files: tuple[str, ...], expected: str, tmp_path: Path) -> None:
    plant(tmp_path, *SCANS, "truth/p2_seg.nii", *(f"truth/{name}" for name in files))
    assert labels_of(tmp_path)["p1"] == ([expected] if expected else [])


@pytest.mark.parametrize(
    "files",
    [
        ("p1_rater1_seg.nii", "p1_rater2_seg.nii"),
        ("p1_seg_rater-a.nii", "p1_seg_rater-b.nii"),
        ("a/p1_seg.nii", "b/p1_seg.nii"),
        ("p1_left_mask.nii", "p1_right_mask.nii"),
        ("p1_seg.nii", "p1_lesion.nii"),
        ("p1_seg.nii", "p1_seg.nii.gz"),
    ],
)
def test_several_labels_of_a_case_are_listed_or_united(files: tuple[str, ...], tmp_path: Path) -> None:
    plant(tmp_path, *SCANS, *(f"truth/{name}" for name in files))
    with pytest.raises(CohortError, match=r"1 case with several labels.*--unite-labels") as caught:
        labels_of(tmp_path)
    assert all(str(tmp_path / "truth" / name) in str(caught.value) for name in files)
    assert labels_of(tmp_path, unite=True) == {"p1": sorted(files), "p2": []}


def test_copies_of_one_label_are_one_label(tmp_path: Path) -> None:
    plant(tmp_path, *SCANS, "truth/a/p1_seg.nii")
    (tmp_path / "truth/b").mkdir()
    shutil.copy(tmp_path / "truth/a/p1_seg.nii", tmp_path / "truth/b/p1_seg.nii")
    (tmp_path / "truth/p1_label.nii").symlink_to("a/p1_seg.nii")
    assert len(labels_of(tmp_path)["p1"]) == 1


def linked(scan: Path, label: Path) -> None:
    label.symlink_to(scan)


@pytest.mark.parametrize("name", ["p1.nii.gz", "p1_seg.nii.gz"])
@pytest.mark.parametrize("make", [shutil.copy, os.link, linked])
def test_a_scan_is_never_its_own_label(make: Callable[[Path, Path], None], name: str, tmp_path: Path) -> None:
    plant(tmp_path, *SCANS, "truth/p2_seg.nii.gz")
    make(tmp_path / SCANS[0], tmp_path / "truth" / name)
    assert labels_of(tmp_path)["p1"] == []


def test_a_label_lies_beside_the_scans_and_is_taken_instead_of_them(tmp_path: Path) -> None:
    plant(tmp_path, *SCANS, "truth/p1_lesion.nii.gz", "truth/p2_lesion.nii.gz")
    for scan in SCANS:
        shutil.copy(tmp_path / scan, tmp_path / "truth")
    assert labels_of(tmp_path) == {"p1": ["p1_lesion.nii.gz"], "p2": ["p2_lesion.nii.gz"]}


@pytest.mark.parametrize("what", ["mask", "restoration", "anomaly"])
def test_what_this_package_wrote_is_no_label(what: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    plant(tmp_path, *SCANS)
    volume(tmp_path / "truth/p1_seg.nii.gz", 1, f"anofield {what}")
    volume(tmp_path / "truth/p2_seg.nii.gz", 2)
    assert labels_of(tmp_path) == {"p1": [], "p2": ["p2_seg.nii.gz"]}
    said = capsys.readouterr().err
    assert "1 file left out that anofield wrote itself" in said and "1 of 2 cases has no label: p1" in said


def test_a_run_folder_holds_no_labels(tmp_path: Path) -> None:
    plant(tmp_path, *SCANS, "truth/run/run.json", "truth/run/p1/mask.nii.gz", "truth/p1_seg.nii")
    assert labels_of(tmp_path)["p1"] == ["p1_seg.nii"]
    with pytest.raises(CohortError, match=r"for any of 2 cases; 1 file there was written by anofield"):
        volume(tmp_path / "truth/run/p1/mask.nii.gz", 1, "anofield mask")
        labels_of(tmp_path, "truth/run")


def test_cases_without_label_and_labels_without_case_are_counted_and_named(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    plant(tmp_path, *SCANS, "scans/p3.nii", "truth/p1.nii", "truth/x_seg.nii", "truth/p9.nii", "truth/p9_brain.nii")
    assert labels_of(tmp_path) == {"p1": ["p1.nii"], "p2": [], "p3": []}
    said = capsys.readouterr().err
    assert "2 of 3 cases have no label: p2, p3" in said
    assert "2 labels there belong to no case: p9.nii, x_seg.nii" in said


@pytest.mark.parametrize("place", ["truth/*.nii", "truth/p?_seg.nii", "truth/{id}_*.nii", "truth/{name}_seg.nii"])
def test_a_glob_and_a_pattern_find_the_same_labels(place: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    plant(tmp_path, *SCANS, "truth/p1_seg.nii", "truth/p2_seg.nii")
    monkeypatch.chdir(tmp_path)
    for text in (place, str(tmp_path / place)):
        cases = find_cases("scans", label=text)
        assert [case.label and case.label.resolve() for case in cases] == [
            tmp_path / "truth/p1_seg.nii",
            tmp_path / "truth/p2_seg.nii",
        ]


def test_a_manifest_names_labels_by_id(tmp_path: Path) -> None:
    plant(tmp_path, *SCANS, "truth/x.nii", "truth/y.nii")
    lines = ["id image label", f"p1 {tmp_path / SCANS[0]} x.nii", f"p7 {tmp_path / SCANS[1]} y.nii"]
    (tmp_path / "truth/list.tsv").write_text("\n".join(lines).replace(" ", "\t"))
    cases = find_cases(tmp_path / "scans", label=str(tmp_path / "truth/list.tsv"))
    assert [case.label for case in cases] == [tmp_path / "truth/x.nii", None]


@pytest.mark.parametrize("column", ["label", "mask"])
@pytest.mark.parametrize(("value", "words"), [("scan", "is a scan"), ("found", "was written by anofield")])
def test_a_manifest_may_not_list_the_scan_or_a_detection(column: str, value: str, words: str, tmp_path: Path) -> None:
    scan = volume(tmp_path / "a.nii", 0)
    shutil.copy(scan, tmp_path / "scan.nii")
    volume(tmp_path / "found.nii", 1, "anofield mask")
    (tmp_path / "list.tsv").write_text(f"id\timage\t{column}\na\ta.nii\t{value}.nii\n")
    with pytest.raises(CohortError, match=f"listed as label or mask of a, but {words}"):
        find_cases(tmp_path / "list.tsv")


def test_one_label_is_not_that_of_two_cases_and_one_mask_may_be(tmp_path: Path) -> None:
    plant(tmp_path, *SCANS, "shared.nii")
    with pytest.raises(CohortError, match=r"shared\.nii: is found as the label of 2 cases \(p1, p2\)"):
        find_cases(tmp_path / "scans", label=str(tmp_path / "shared.nii"))
    cases = find_cases(tmp_path / "scans", mask=str(tmp_path / "shared.nii"))
    assert [case.mask for case in cases] == [tmp_path / "shared.nii"] * 2


def test_a_brain_mask_is_found_by_its_order_and_missing_ones_are_named(tmp_path: Path) -> None:
    plant(tmp_path, *SCANS, "masks/p1_mask.nii", "masks/p1_brain_mask.nii", "masks/p1_lesion.nii", "masks/p1_seg.nii")
    with pytest.raises(CohortError, match=r"1 of 2 cases have no mask at .*masks: p2"):
        find_cases(tmp_path / "scans", mask=str(tmp_path / "masks"))
    plant(tmp_path, "masks/p2_bet.nii", "masks/p2_lesion.nii")
    cases = find_cases(tmp_path / "scans", mask=str(tmp_path / "masks"))
    assert [case.mask and case.mask.name for case in cases] == ["p1_brain_mask.nii", "p2_bet.nii"]


def bids(root: Path, *names: str) -> Path:
    return plant(root, "dataset_description.json", *names)


def test_the_own_derivative_of_a_dataset_holds_neither_labels_nor_masks(tmp_path: Path) -> None:
    anat, mask = "sub-1/anat", "sub-1_label-lesion_desc-anofield_mask.nii.gz"
    bids(tmp_path, f"{anat}/sub-1_T2w.nii.gz")
    own = tmp_path / "derivatives/anofield"
    volume(own / anat / mask, 0, "anofield mask")
    (own / "dataset_description.json").write_text(json.dumps({"GeneratedBy": [{"Name": "anofield"}]}))
    assert find_cases(tmp_path)[0].label is None
    volume(tmp_path / "derivatives/copied" / anat / mask.replace("desc-anofield", "desc-x"), 1, "anofield mask")
    assert find_cases(tmp_path)[0].label is None
    manual = volume(tmp_path / "derivatives/manual" / anat / "sub-1_label-lesion_mask.nii.gz", 2)
    assert find_cases(tmp_path)[0].label == manual
    assert find_cases(tmp_path, label=str(tmp_path))[0].label == manual


@pytest.mark.parametrize(
    "names",
    [
        ("a/sub-1/anat/sub-1_label-lesion_mask.nii", "b/sub-1/anat/sub-1_label-lesion_mask.nii"),
        ("a/sub-1/anat/sub-1_label-lesion_desc-r1_mask.nii", "a/sub-1/anat/sub-1_label-lesion_desc-r2_mask.nii"),
        ("a/sub-1/anat/sub-1_hemi-L_label-lesion_mask.nii", "a/sub-1/anat/sub-1_hemi-R_label-lesion_mask.nii"),
    ],
    ids=["derivatives", "raters", "sides"],
)
def test_several_masks_of_a_bids_scan_are_listed(names: tuple[str, ...], tmp_path: Path) -> None:
    bids(tmp_path, "sub-1/anat/sub-1_T2w.nii", *(f"derivatives/{name}" for name in names))
    with pytest.raises(CohortError, match="several labels") as caught:
        find_cases(tmp_path)
    assert all(name in str(caught.value) for name in names)
    assert len(find_cases(tmp_path, unite=True)[0].labels) == 2
    brains = [name.replace("label-lesion", "label-brain") for name in names]
    bids(tmp_path, *(f"derivatives/{name}" for name in brains))
    with pytest.raises(CohortError, match="several masks"):
        find_cases(tmp_path, unite=True)


@pytest.mark.parametrize(("sessions", "taken"), [(("1",), True), (("1", "2"), False)])
@pytest.mark.parametrize("kind", ["label-lesion", "desc-brain"])
def test_a_mask_without_a_session_belongs_to_the_only_session(
    kind: str, sessions: tuple[str, ...], taken: bool, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    scans = [f"sub-1/ses-{one}/anat/sub-1_ses-{one}_T2w.nii" for one in sessions]
    bids(tmp_path, *scans, f"derivatives/m/sub-1/anat/sub-1_{kind}_mask.nii")
    (case,) = find_cases(tmp_path, entities={"ses": "1"})
    assert ((case.label or case.mask) is not None) == taken
    assert ("it names no session, and sub-1 has 2" in capsys.readouterr().err) != taken


def test_tissues_and_other_contrasts_are_no_lesions(tmp_path: Path) -> None:
    made = ("dseg", "label-GM_probseg", "label-GM_mask", "desc-aseg_dseg", "FLAIR_label-lesion_mask")
    bids(tmp_path, "sub-1/anat/sub-1_T2w.nii", *(f"derivatives/f/sub-1/anat/sub-1_{name}.nii" for name in made))
    assert find_cases(tmp_path)[0].label is None


def test_runs_are_numbers_in_masks_too(tmp_path: Path) -> None:
    bids(tmp_path, "sub-1/anat/sub-1_run-1_T2w.nii", "derivatives/m/sub-1/anat/sub-1_run-01_label-lesion_mask.nii")
    assert find_cases(tmp_path)[0].label is not None


def test_scans_with_and_without_mask_are_counted(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    bids(
        tmp_path,
        *(f"sub-{n}/anat/sub-{n}_T2w.nii" for n in "123"),
        "derivatives/b/sub-1/anat/sub-1_desc-brain_mask.nii",
    )
    find_cases(tmp_path)
    expected = "brain: from a mask in 1 of 3 scans, from the voxels that are not 0 in 2 (sub-2, sub-3)"
    assert expected in capsys.readouterr().err


def test_a_label_of_a_brats_folder_may_have_another_name(tmp_path: Path) -> None:
    plant(tmp_path, "A/A_t2.nii", "A/A_seg.nii", "B/B_t2.nii", "B/B_t1.nii", "B/W39_Segm.nii", "C/C_t2.nii")
    labels = [case.label and case.label.name for case in find_cases(tmp_path, dataset="brats")]
    assert labels == ["A_seg.nii", "W39_Segm.nii", None]
    plant(tmp_path, "B/B_seg.nii")
    with pytest.raises(CohortError, match=r"B: .*B_seg\.nii, .*W39_Segm\.nii"):
        find_cases(tmp_path, dataset="brats")


@pytest.mark.parametrize(
    ("image", "label"),
    [("p1_T2w.nii", "p1_seg.nii"), ("p1_0000.nii", "p1.nii"), ("p1_T2w.nii", "p1_T2w_lesion.nii")],
)
def test_the_label_of_a_scan_has_its_name_without_contrast_or_channel(image: str, label: str, tmp_path: Path) -> None:
    plant(tmp_path, f"scans/{image}", f"truth/{label}", "truth/p1_FLAIR_seg.nii")
    if "T2w" in image:
        assert list(labels_of(tmp_path).values()) == [[label]]
    else:
        plant(tmp_path, "scans/p2_0000.nii")
        (tmp_path / "truth/p1_FLAIR_seg.nii").unlink()
        assert [case.label is not None for case in find_cases(tmp_path / "scans", label=str(tmp_path / "truth"))] == [
            True,
            False,
        ]


def test_united_labels_are_all_files_of_a_case() -> None:
    case = Case("a", Path("a.nii"), Path("b.nii"), more_labels=(Path("c.nii"),))
    assert case.labels == (Path("b.nii"), Path("c.nii")) and Case("a", Path("a.nii")).labels == ()
