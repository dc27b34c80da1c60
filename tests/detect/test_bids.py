"""BIDS names of a run: every scan has its own, no two subjects share a label, and the contrast is the scan's."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from anofield.data.cohort.case import Case
from anofield.data.cohort.find import find_cases
from anofield.detect.bids import bids_names
from anofield.errors import CohortError, UsageError


def named(root: Path, *cases: Case) -> list[str]:
    """Paths of the anomaly maps."""
    return [str(name.file("anomaly.nii.gz")) for name in bids_names(root, cases).values()]


def case(path: str, name: str = "", **about: Any) -> Case:
    return Case(name or Path(path).name.partition(".")[0], Path(path), **about)


@pytest.mark.parametrize(
    ("one", "expected"),
    [
        (case("d/sub-1_ses-2_acq-h_FLAIR.nii", "x"), "sub-1/ses-2/anat/sub-1_ses-2_acq-h_desc-anomaly_FLAIR"),
        (case("p1_FLAIR.nii", contrast="FLAIR"), "sub-p1/anat/sub-p1_desc-anomaly_FLAIR"),
        (case("p1_t1.nii", contrast="T1w"), "sub-p1/anat/sub-p1_desc-anomaly_T1w"),
        (case("p1-t1ce.nii", contrast="T1c"), "sub-p1/anat/sub-p1_ce-gadolinium_desc-anomaly_T1w"),
        (case("p1.nii", contrast="T2w"), "sub-p1/anat/sub-p1_desc-anomaly_T2w"),
        (case("p1.nii"), "sub-p1/anat/sub-p1_desc-anomaly_MRI"),
        (case("p1_0001.nii", contrast="0001"), "sub-p10001/anat/sub-p10001_desc-anomaly_MRI"),
        (case("T2w_brain.nii.gz", "100307", contrast="T2w"), "sub-100307/anat/sub-100307_desc-anomaly_T2w"),
        (case("sub-1_desc-preproc_T2w.nii", contrast="T2w"), "sub-1/anat/sub-1_desc-anomaly_T2w"),
        (case("d/sub-1/perf/sub-1_asl.nii", contrast="asl"), "sub-1/perf/sub-1_desc-anomaly_asl"),
    ],
)  # fmt: skip
def test_entities_session_and_contrast_are_kept(one: Case, expected: str, tmp_path: Path) -> None:
    assert named(tmp_path, one) == [f"{expected}.nii.gz"]


@pytest.mark.parametrize(
    "pair",
    [
        (case("a_1.nii"), case("a-1.nii")),
        (case("a1_T2w.nii", contrast="T2w"), case("a_1_FLAIR.nii", contrast="FLAIR")),
        (case("A1.nii"), case("a-1.nii")),
        (case("x/sub-1_T2w.nii", "a"), case("y/sub-1_T2w.nii", "b")),
        (case("x/sub-1/anat/sub-1_ses-1_T2w.nii", "a"), case("y/sub-1/anat/sub-1_ses-2_T2w.nii", "b")),
        (case("sub-1_ses-1_T2w.nii", "a", subject="A"), case("sub-1_ses-2_T2w.nii", "b", subject="B")),
        (case("sub-1_T2w.nii"), case("sub-1_desc-brain_T2w.nii")),
        (case("é.nii"), case("b.nii")),
    ],
)
def test_what_would_share_a_name_is_refused_before_the_work(pair: tuple[Case, Case], tmp_path: Path) -> None:
    with pytest.raises(CohortError, match=r"BIDS (name|label).*Remedy"):
        bids_names(tmp_path, pair)


def test_scans_of_one_subject_share_its_folder(tmp_path: Path) -> None:
    for name in (
        "sub-1/anat/sub-1_run-1_T2w.nii",
        "sub-1/anat/sub-1_run-2_T2w.nii",
        "sub-1/anat/sub-1_acq-a_FLAIR.nii",
    ):
        (tmp_path / "bids" / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / "bids" / name).touch()
    cases = find_cases(tmp_path / "bids", modality=["T2w", "FLAIR"])
    assert {name.subject for name in bids_names(tmp_path, cases).values()} == {"sub-1"}
    apart = (case("p1_T1w.nii", contrast="T1w", subject="p1"), case("p1_T1c.nii", contrast="T1c", subject="p1"))
    assert len(set(named(tmp_path, *apart))) == 2


@pytest.mark.parametrize("names", [("p1_T2w.nii", "p1_FLAIR.nii"), ("sub-1_T2w.nii", "sub-1_FLAIR.nii")])
def test_two_contrasts_do_not_share_a_mask(names: tuple[str, str], tmp_path: Path) -> None:
    """The name of a map has the contrast, that of a mask has not."""
    cases = [case(name, contrast=name[:-4].rpartition("_")[2], subject="1") for name in names]
    with pytest.raises(CohortError, match=r"have the BIDS name .*a folder of its own"):
        bids_names(tmp_path, cases)
    (name,) = bids_names(tmp_path, cases[:1]).values()
    sidecar = (tmp_path / name.file("mask.nii.gz")).with_suffix("").with_suffix(".json")
    sidecar.parent.mkdir(parents=True)
    sidecar.write_text(json.dumps({"AnofieldCase": cases[0].id}))
    assert bids_names(tmp_path, cases[:1])
    with pytest.raises(CohortError, match="An earlier call wrote that case"):
        bids_names(tmp_path, cases[1:])


def test_a_dataset_of_others_is_not_written_into(tmp_path: Path) -> None:
    (tmp_path / "dataset_description.json").write_text('{"Name": "theirs"}')
    with pytest.raises(UsageError, match=r"did not make.*Remedy"):
        bids_names(tmp_path, [case("p1.nii")])


def test_a_name_is_kept_by_the_first_call(tmp_path: Path) -> None:
    sidecar = tmp_path / "sub-a1/anat/sub-a1_desc-anomaly_MRI.json"
    sidecar.parent.mkdir(parents=True)
    sidecar.write_text(json.dumps({"AnofieldCase": "a_1"}))
    assert named(tmp_path, case("a_1.nii"))
    with pytest.raises(CohortError, match=r"'a1' has the BIDS name sub-a1 of 'a_1'"):
        bids_names(tmp_path, [case("a1.nii")])
