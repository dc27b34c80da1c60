"""What is taken from folders and globs, by contrast and by name, and that whatever is left out is said."""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest

from anofield.data.cohort.case import Case, cohort_of
from anofield.data.cohort.cohort import Cohort
from anofield.data.cohort.contrast import contrast_in
from anofield.data.cohort.find import find_cases
from anofield.data.cohort.loose import looks_like_a_label, subject_of
from anofield.data.scan import stem
from anofield.errors import CohortError, UsageError
from images import load_image

HCP = "{}/T1w/T2w_acpc_dc_restore_brain.nii.gz"


def plant(root: Path, *names: str) -> Path:
    """Empty files below `root`."""
    for name in names:
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).touch()
    return root


def ids(cases: list[Case]) -> list[str]:
    return [case.id for case in cases]


def left_out(cases: Cohort) -> dict[str, str]:
    """Name and reason of everything that is not among the cases."""
    return {one.path.name: one.reason for one in cases.left_out}


@pytest.mark.parametrize(
    ("name", "contrast"),
    [
        *((f"p1{word}", "T2w") for word in ("_T2w", "-t2", "_T2", " t2w", "_T2w_brain", ".T2w")),
        *((f"p1_{word}", "T2w") for word in ("T2w2T1w", "T2toT1", "T2_reg_T1", "T2w_in_T1w")),
        *((f"p1_{word}", "T1w") for word in ("T1", "T1w", "t1n", "MPRAGE", "axT1", "space-T2w_T1w")),
        *((f"p1_t2_{word}", "FLAIR") for word in ("tirm_tra_dark-fluid", "darkfluid", "spc_da-fl", "tirm")),
        *((f"p1_{word}", "FLAIR") for word in ("FLAIR", "flair", "t2f", "T2_FLAIR", "T2FLAIR", "3DFLAIR")),
        *((f"p1_{word}", "T1c") for word in ("t1ce", "T1c", "T1Gd", "T1_Gd", "T1w_ce", "ce-gadolinium_T1w")),
        *(
            (f"p1_{word}", "T1c")
            for word in ("T1w_postcontrast", "post-contrast_T1", "gadolinium_T1w", "T1+C", "acq-ce_T1w")
        ),
        *((f"p1_{word}", "T1w") for word in ("T1_pre", "non-contrast_T1", "T1w_without_contrast", "gd_T1w", "mice_T1")),
        *(("p1_PD", "PDw"), ("p1_SWI", "SWI"), ("p1_dwi", "DWI"), ("T2w_acpc_dc_restore_brain", "T2w")),
        *((name, "") for name in ("p1", "PD_012", "CT_012", "T10_a", "Tt2", "patient2", "flaired")),
    ],
)
def test_a_contrast_is_read_from_a_name(name: str, contrast: str) -> None:
    assert contrast_in(name) == contrast


class TestContrasts:
    def test_several_in_one_folder_must_be_chosen_between(self, tmp_path: Path) -> None:
        plant(tmp_path, "p1_T2w.nii.gz", "p1_T1w.nii.gz", "p2_T2w.nii.gz", "p1_FLAIR.nii.gz", "p3.nii.gz")
        for source in (tmp_path, tmp_path / "*.nii.gz", list(tmp_path.glob("*.nii.gz"))):
            with pytest.raises(CohortError, match=r"T2w 2, .*FLAIR 1.*unknown 1.*--modality T2w"):
                find_cases(source)
        for source in (tmp_path, tmp_path / "*.nii.gz"):
            cases = find_cases(source, modality="T2w")
            assert ids(cases) == ["p1_T2w", "p2_T2w"]
            assert "3 of another contrast (FLAIR 1, T1w 1, unknown 1)" in repr(cases)

    @pytest.mark.parametrize("modality", [["T2w", "FLAIR"], "T2w,FLAIR", "t2, flair"])
    def test_several_that_are_named_are_taken_and_said(self, modality: str | list[str], tmp_path: Path) -> None:
        cases = find_cases(plant(tmp_path, *(f"p1_{c}.nii" for c in ("T1w", "T2w", "FLAIR"))), modality=modality)
        assert ids(cases) == ["p1_FLAIR", "p1_T2w"] and {case.subject for case in cases} == {"p1"}
        assert "SEVERAL CONTRASTS TOGETHER" in repr(cases)

    @pytest.mark.parametrize("modality", [None, "T2w"])
    @pytest.mark.parametrize("names", [("a", "b"), ("a_T2w", "b"), ("a_T2w", "b_t2")])
    def test_all_are_taken_where_no_name_says_another(
        self, names: tuple[str, ...], modality: str | None, tmp_path: Path
    ) -> None:
        cases = find_cases(plant(tmp_path, *(f"{name}.nii" for name in names)), modality=modality)
        assert ids(cases) == sorted(names) and not cases.left_out

    def test_one_that_is_not_there_lists_what_is(self, tmp_path: Path) -> None:
        with pytest.raises(CohortError, match=r"no FLAIR scan.*T2w 2, T1w 1"):
            find_cases(plant(tmp_path, "a_T2w.nii", "b_T2w.nii", "c_T1w.nii"), modality="FLAIR")

    def test_the_union_of_folders_is_one_cohort(self, tmp_path: Path) -> None:
        plant(tmp_path, "x/a_T2w.nii", "y/b_T1w.nii")
        with pytest.raises(CohortError, match="several contrasts"):
            find_cases([tmp_path / "x", tmp_path / "y"])

    def test_folders_count_where_names_say_nothing(self, tmp_path: Path) -> None:
        plant(tmp_path, "T1w/a.nii", "FLAIR/b.nii", "T1w/c_T2w.nii")
        cases = find_cases(tmp_path, modality=["T1w", "T2w", "FLAIR"])
        assert {case.id: case.contrast for case in cases} == {"a": "T1w", "b": "FLAIR", "c_T2w": "T2w"}

    def test_a_manifest_and_a_file_are_judged_by_the_same_rule(self, tmp_path: Path) -> None:
        plant(tmp_path, "a_T2w.nii", "b_T1w.nii")
        (tmp_path / "m.tsv").write_text("id\timage\n1\ta_T2w.nii\n2\tb_T1w.nii\n")
        with pytest.raises(CohortError, match="several contrasts"):
            find_cases(tmp_path / "m.tsv")
        assert ids(find_cases(tmp_path / "m.tsv", modality="T1w")) == ["2"]
        with pytest.raises(CohortError, match="no FLAIR scan"):
            find_cases(tmp_path / "a_T2w.nii", modality="FLAIR")

    def test_an_unknown_word_may_be_asked_for(self, tmp_path: Path) -> None:
        plant(tmp_path, "a_UNIT1.nii", "b_T1w.nii")
        assert ids(find_cases(tmp_path, modality="UNIT1")) == ["a_UNIT1"]

    @pytest.mark.parametrize(
        "names", [{"channel_names": {"0": "T2", "1": "FLAIR"}}, {"modality": ["T2w", "flair"]}, {}]
    )
    def test_channels_of_nnunet(self, names: dict[str, object], tmp_path: Path) -> None:
        plant(tmp_path, *(f"imagesTr/{c}_000{n}.nii.gz" for c in "ab" for n in (0, 1)), "labelsTr/a.nii.gz")
        (tmp_path / "dataset.json").write_text(json.dumps(names))
        first = "T2w" if names else "0000"
        with pytest.raises(CohortError, match=f"{first} 2.*--modality {first}"):
            find_cases(tmp_path)
        cases = find_cases(tmp_path, modality=first)
        assert [(case.id, case.subject) for case in cases] == [("a_0000", "a"), ("b_0000", "b")]

    def test_numbers_of_people_are_no_channels(self, tmp_path: Path) -> None:
        assert len(find_cases(plant(tmp_path, *(f"IXI_{n:04}.nii" for n in range(12))))) == 12

    def test_trees_take_several_that_are_named(self, tmp_path: Path) -> None:
        for layout, names in {
            "hcp": ("1/T1w/T2w_acpc_dc_restore_brain.nii.gz", "1/T1w/T1w_acpc_dc_restore_brain.nii.gz"),
            "brats": ("1/1_t2.nii", "1/1_t1.nii"),
            "bids": ("sub-1/anat/sub-1_T2w.nii", "sub-1/anat/sub-1_T1w.nii"),
        }.items():
            cases = find_cases(plant(tmp_path / layout, *names), modality=["T2w", "T1w"])
            name = "sub-1" if layout == "bids" else "1"
            assert [(c.id, c.subject, c.contrast) for c in cases] == [
                (f"{name}_T1w", name, "T1w"), (f"{name}_T2w", name, "T2w")
            ]  # fmt: skip


class TestNames:
    @pytest.mark.parametrize("name", ["SEG01_T2w", "ROI_07_T2w", "mask-3_FLAIR", "label_a", "seg_p1_t1", "p_lesion"])
    def test_a_word_for_labels_may_be_part_of_an_id(self, name: str, tmp_path: Path) -> None:
        assert ids(find_cases(plant(tmp_path, f"{name}.nii.gz"))) == [name]

    @pytest.mark.parametrize("name", ["a_lesion", "a-truth", "mask_a", "seg_a", "gt_a", "a_seg_final", "A_SEG_2"])
    def test_beside_the_scan_a_label_is_known(self, name: str, tmp_path: Path) -> None:
        cases = find_cases(plant(tmp_path, "a.nii.gz", f"{name}.nii.gz"))
        assert ids(cases) == ["a"] and left_out(cases) == {f"{name}.nii.gz": "named like labels or masks"}

    def test_the_folder_of_a_subject_is_no_folder_of_labels(self, tmp_path: Path) -> None:
        plant(tmp_path, "ROI_07/ROI_07_T2w.nii", "SEG/SEG_T2w.nii", "masks/a_T2w.nii")
        assert ids(find_cases(tmp_path)) == ["ROI_07_T2w", "SEG_T2w"]
        assert looks_like_a_label(tmp_path / "masks/a_T2w.nii", tmp_path)

    def test_suffixes_in_capitals_and_pairs(self, tmp_path: Path) -> None:
        plant(tmp_path, "a.NII.GZ", "b.Nii", "c.hdr", "c.img", "d.MGZ", "e.nii.nii.gz", "f.img")
        cases = find_cases(tmp_path)
        assert ids(cases) == ["a", "b", "c", "d", "e"] and left_out(cases) == {"f.img": "without their header (.hdr)"}
        assert ids(find_cases(tmp_path / "*.img")) == ["c"]
        assert [stem(name) for name in ("a.NII.GZ", "c.img", "e.nii.nii.gz", ".nii")] == ["a", "c", "e", ".nii"]

    @pytest.mark.parametrize("cwd", ["100307", "100307/T1w", ".", "100307/MNINonLinear"])
    def test_a_relative_hcp_path_gives_the_subject(
        self, cwd: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        plant(tmp_path / "hcp", HCP.format("100307"), "100307/MNINonLinear/x.nii.gz")
        monkeypatch.chdir(tmp_path / "hcp" / cwd)
        for source in (".", "T1w", ".."):
            if Path(source).is_dir() and any(Path(source).rglob("T2w_*")):
                assert ids(find_cases(source)) == ["100307"], source

    def test_a_relative_brats_path_gives_the_case(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        plant(tmp_path, "A/A_t2.nii", "A/A_t1.nii", "A/A_seg.nii")
        monkeypatch.chdir(tmp_path / "A")
        assert find_cases(".") == [Case("A", Path("A_t2.nii"), Path("A_seg.nii"))]

    @pytest.mark.parametrize(
        ("name", "subject"),
        [("sub-01_ses-1_T2w", "sub-01"), ("BraTS-GLI-00003-001-t2w", "BraTS-GLI-00003"), ("p1_T2w", "p1"), ("p1", "")],
    )
    def test_the_subject_is_read_from_a_name(self, name: str, subject: str) -> None:
        assert subject_of(name) == subject


class TestIds:
    @pytest.mark.parametrize(
        "name", ["a\nb", "a\tb", "\x1b[31m", "a.", " a", "a ", "CON", "nul.x", "n" * 201, "run.json"]
    )
    def test_one_that_breaks_a_table_or_a_file_system_is_refused(self, name: str) -> None:
        with pytest.raises(CohortError, match=r"cannot name a folder.*Remedy") as caught:
            cohort_of([Case(name, Path("x.nii"))])
        assert "\n" not in str(caught.value) and "\x1b" not in str(caught.value)

    @pytest.mark.parametrize("name", ["-x", "[1]*", "a b 'c' \"d\" é", "COM", "control", "患者一", "n" * 200])
    def test_any_other_is_taken(self, name: str) -> None:
        assert ids(cohort_of([Case(name, Path("x.nii"))])) == [name]

    @pytest.mark.parametrize("pair", [("P1", "p1"), ("é", "e\u0301"), ("STRASSE", "strasse")])
    def test_two_that_a_disk_may_take_for_one_are_refused(self, pair: tuple[str, str]) -> None:
        with pytest.raises(CohortError, match="which some disks take for one"):
            cohort_of([Case(name, Path(f"{name}.nii")) for name in pair])

    def test_all_bad_ones_are_named_at_once(self, tmp_path: Path) -> None:
        plant(tmp_path, "a\nb.nii.gz", "run.json.nii.gz", f"{'n' * 240}.nii.gz", "good.nii.gz")
        with pytest.raises(CohortError, match=r"3 of 4 scans.*'a\\nb'.*240 bytes.*'run\.json'"):
            find_cases(tmp_path)

    def test_a_name_that_is_no_unicode_is_refused_by_name(self, tmp_path: Path) -> None:
        try:
            (tmp_path / os.fsdecode(b"caf\xe9.nii.gz")).touch()
        except OSError:
            pytest.skip("this file system has no such names")
        with pytest.raises(CohortError, match=r"no Unicode text") as caught:
            find_cases(tmp_path)
        assert str(caught.value).encode()  # can be written

    def test_a_folder_that_is_no_unicode_is_refused_by_name(self) -> None:
        with pytest.raises(CohortError, match="no Unicode text"):
            cohort_of([Case("a", Path(os.fsdecode(b"caf\xe9/a.nii")))])


class TestLeftOut:
    def test_nothing_is_said_where_nothing_is(self, tmp_path: Path) -> None:
        cases = find_cases(plant(tmp_path, "a.nii", "b.nii", "notes.txt", "._a.nii", "__MACOSX/._a.nii", "Thumbs.db"))
        assert repr(cases) == "Cohort(2 scans)" and cases.remarks() == [] == cases.left_out

    @pytest.mark.parametrize("mark", ["run.json", "results.json", "specs.json", "baseline.json", "zarr.json"])
    def test_results_of_this_package_are_not_searched(self, mark: str, tmp_path: Path) -> None:
        plant(tmp_path, "p1.nii.gz", f"out/{mark}", "out/p1/anomaly.nii.gz")
        cases = find_cases(tmp_path)
        assert ids(cases) == ["p1"] and "not searched: out (" in repr(cases)
        with pytest.raises(CohortError, match=r"out: is .*Remedy: give the folder of the scans"):
            find_cases(tmp_path / "out")

    def test_nor_is_a_derivative_that_it_made(self, tmp_path: Path) -> None:
        plant(tmp_path, "p1.nii.gz", "out/sub-p1/anat/sub-p1_desc-anomaly_T2w.nii.gz")
        made = {"GeneratedBy": [{"Name": "anofield"}]}
        (tmp_path / "out/dataset_description.json").write_text(json.dumps(made))
        assert ids(find_cases(tmp_path)) == ["p1"]

    @pytest.mark.parametrize("source", ["", "**/*.nii.gz"])
    def test_an_image_that_it_wrote_is_no_scan(
        self, source: str, save_brain: Callable[..., Path], tmp_path: Path
    ) -> None:
        image = load_image(save_brain(tmp_path / "p1.nii.gz"))
        image.header["descrip"] = b"anofield anomaly"
        plant(tmp_path, "killed/p1/anomaly.nii.gz")
        nib.save(
            nib.Nifti1Image(np.asarray(image.dataobj), image.affine, image.header),
            tmp_path / "killed/p1/anomaly.nii.gz",
        )
        cases = find_cases(tmp_path / source)
        assert ids(cases) == ["p1"] and left_out(cases) == {"anomaly.nii.gz": "written by anofield"}

    def test_derived_data_of_a_plain_folder_are_not_searched(self, tmp_path: Path) -> None:
        cases = find_cases(plant(tmp_path, "a.nii", "derivatives/a.nii", "x/sourcedata/b.nii"))
        assert ids(cases) == ["a"] and set(left_out(cases)) == {"derivatives", "sourcedata"}

    def test_of_trees_it_is_said_what_could_be_meant(self, tmp_path: Path) -> None:
        plant(
            tmp_path / "h", HCP.format("1"), "2/T1w/T1w_acpc_dc_restore_brain.nii.gz", "1/T1w/x.nii.gz", "extra.nii.gz"
        )
        assert set(left_out(find_cases(tmp_path / "h"))) == {"T1w_acpc_dc_restore_brain.nii.gz", "extra.nii.gz"}
        plant(tmp_path / "b", "A/A_t2.nii", "A/A_t1.nii", "A/A_seg.nii", "B/B_t1.nii", "C/other_t2.nii")
        assert set(left_out(find_cases(tmp_path / "b"))) == {"B_t1.nii", "other_t2.nii"}
        plant(tmp_path / "s", "sub-1/anat/sub-1_T2w.nii", "sub-1/anat/sub-1_FLAIR.nii", "sub-1/func/sub-1_bold.nii")
        plant(
            tmp_path / "s", "sub-2/sub-2_T2w.nii", "old/sub-3/anat/sub-3_T2w.nii", "derivatives/x/a.nii", "code/a.nii"
        )
        (tmp_path / "s/sub-4").symlink_to("nowhere")
        assert set(left_out(find_cases(tmp_path / "s"))) == {"sub-1_FLAIR.nii", "sub-2_T2w.nii", "old", "sub-4"}

    def test_folders_that_a_glob_matches_are_named(self, tmp_path: Path) -> None:
        cases = find_cases(plant(tmp_path, "a.nii", "deep/b.nii") / "*")
        assert ids(cases) == ["a"] and set(left_out(cases)) == {"deep"}

    def test_a_filter_says_what_it_took_away(self, tmp_path: Path) -> None:
        plant(tmp_path, *(f"sub-1/anat/sub-1_run-{n}_T2w.nii" for n in (1, 2, 3)))
        cases = find_cases(tmp_path, entities={"run": ("1", "3")})
        assert ids(cases) == ["sub-1_run-1", "sub-1_run-3"]
        assert "1 without the wanted entities (sub-1_run-2_T2w.nii)" in repr(cases)

    def test_a_link_to_nothing_stays_a_case(self, tmp_path: Path) -> None:
        plant(tmp_path, "a.nii.gz", "bids/sub-1/anat/sub-1_T2w.nii.gz", "bids/sub-2/anat/x.json")
        for path in (tmp_path / "b.nii.gz", tmp_path / "bids/sub-2/anat/sub-2_T2w.nii.gz"):
            path.symlink_to("../.git/annex/objects/none.nii.gz")
        assert ids(find_cases(tmp_path / "bids")) == ["sub-1", "sub-2"]
        for source in (tmp_path / "*.nii.gz", [tmp_path / "a.nii.gz", tmp_path / "b.nii.gz"]):
            assert ids(find_cases(source)) == ["a", "b"]


class TestSources:
    def test_several_are_united(self, tmp_path: Path) -> None:
        plant(tmp_path, "x/b.nii", "y/a.nii", "z.nii")
        (tmp_path / "m.tsv").write_text("id\timage\nmine\tz.nii\n")
        assert ids(find_cases([tmp_path / "x", tmp_path / "y/*.nii", tmp_path / "m.tsv"])) == ["a", "b", "mine"]

    def test_one_scan_counts_once(self, tmp_path: Path) -> None:
        plant(tmp_path, "a.nii", "b.nii")
        cases = find_cases([tmp_path, tmp_path / "a.nii"])
        assert ids(cases) == ["a", "b"] and left_out(cases) == {"a.nii": "named twice"}

    def test_two_scans_with_one_id_are_refused(self, tmp_path: Path) -> None:
        plant(tmp_path, "x/a.nii", "y/a.nii")
        with pytest.raises(CohortError, match="two scans have the id 'a'"):
            find_cases([tmp_path / "x", tmp_path / "y"])


class TestGroups:
    @pytest.fixture
    def table(self, tmp_path: Path) -> Path:
        plant(tmp_path, *(f"{name}.nii" for name in "abcd"))
        rows = [
            "id\timage\tage\tgroup",
            "1\ta.nii\t30\ttrain",
            "2\tb.nii\t31\ttrain",
            "3\tc.nii\t32\ttest",
            "4\td.nii\t33\t",
        ]
        (tmp_path / "m.tsv").write_text("\n".join(rows) + "\n")
        return tmp_path / "m.tsv"

    @pytest.mark.parametrize(
        ("group", "expected"), [("train", "12"), (["train", "test"], "123"), ("test,train", "123")]
    )
    def test_are_taken_by_name(self, group: str | list[str], expected: str, table: Path) -> None:
        cases = find_cases(table, group=group)
        assert ids(cases) == list(expected)
        assert f"{4 - len(expected)} of other groups" in repr(cases)

    def test_all_are_taken_with_a_word_and_unread_columns_are_named(self, table: Path) -> None:
        assert repr(find_cases(table)) == (
            "Cohort(4 scans; columns that are not read: age; all groups are taken (train 2, test 1))"
        )

    def test_one_that_is_not_there_lists_those_that_are(self, table: Path) -> None:
        with pytest.raises(CohortError, match=r"no scan has the group 'tset'.*train 2, test 1"):
            find_cases(table, group="tset")
        with pytest.raises(UsageError, match="Only a manifest"):
            find_cases(table.parent / "a.nii", group="train")


@pytest.mark.parametrize(
    "label",
    [
        *("p1_wmh", "p1_tumor", "p1_lesion", "p1_stroke_acute", "p1_msk", "p1_annotation", "p1_ManualSegmentation_1"),
        *("tumor_p1", "p1_pred", "p1_gm", "p1_anomaly", "wmh", "tumor"),
    ],
)
@pytest.mark.parametrize("scan", ["p1", "p1_FLAIR"])
def test_a_label_of_any_name_beside_its_scan_is_no_scan(label: str, scan: str, tmp_path: Path) -> None:
    if label == "tumor_p1" and scan != "p1":
        pytest.skip("the name of the scan does not follow")
    cases = find_cases(plant(tmp_path, f"{scan}.nii", f"{label}.nii"))
    assert ids(cases) == [scan] and left_out(cases) == {f"{label}.nii": "named like labels or masks"}


def test_people_named_after_their_disease_are_scans(tmp_path: Path) -> None:
    names = ["stroke_03_T2w", "tumor_01_T2w", "tumor_02_T2w", "wmh_1_T2w"]
    assert ids(find_cases(plant(tmp_path, *(f"{name}.nii" for name in names)))) == names


@pytest.mark.parametrize("modality", [None, "T2w"])
def test_scans_without_a_contrast_among_others_are_named(modality: str | None, tmp_path: Path) -> None:
    cases = find_cases(plant(tmp_path, "p1_T2w.nii", "p1_MP2RAGE.nii"), modality=modality)
    assert cases.remarks() == ["1 name no contrast (p1_MP2RAGE), taken with T2w 1"]


def test_a_case_that_lacks_a_channel_hides_no_channels(tmp_path: Path) -> None:
    plant(tmp_path, "a_0000.nii", "a_0001.nii", "b_0001.nii")
    with pytest.raises(CohortError, match="several contrasts: 0001 2, 0000 1"):
        find_cases(tmp_path)
    assert ids(find_cases(tmp_path, modality="0000")) == ["a_0000"]


@pytest.mark.parametrize("first", ["scans", "cohort.tsv"])
def test_what_one_of_two_sources_says_of_a_scan_is_kept(first: str, tmp_path: Path) -> None:
    plant(tmp_path, "scans/a.nii", "labels/a.nii", "masks/a.nii")
    row = "a\tscans/a.nii\tlabels/a.nii\tmasks/a.nii\ttest\tanna"
    (tmp_path / "cohort.tsv").write_text(f"id\timage\tlabel\tmask\tgroup\tsubject\n{row}\n")
    for folder in ("labels", "masks", "scans"):
        (tmp_path / folder / "a.nii").write_text(folder)
    sources = [tmp_path / first, tmp_path / ("scans" if first != "scans" else "cohort.tsv")]
    (case,) = find_cases(sources)
    assert (case.group, case.subject) == ("test", "anna")
    assert [path and path.parent.name for path in (case.label, case.mask)] == ["labels", "masks"]


def test_chosen_groups_are_not_called_all(tmp_path: Path) -> None:
    plant(tmp_path, "a.nii", "b.nii", "c.nii")
    rows = "".join(f"{one}\t{one}.nii\tgroup-{one}\n" for one in "abc")
    (tmp_path / "cohort.tsv").write_text(f"id\timage\tgroup\n{rows}")
    told = find_cases(tmp_path / "cohort.tsv", group=["group-a", "group-b"]).remarks()
    assert told == ["left out 1 file: 1 of other groups (group-c 1)"]
