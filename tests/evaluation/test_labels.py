"""The truth of an evaluation: only a label is evaluated as one, and what has none is counted and named."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest

from anofield.data.cohort.case import Case
from anofield.data.cohort.find import find_cases
from anofield.detect.run import detect_cases
from anofield.detect.run_folder import read_case
from anofield.errors import CohortError
from anofield.evaluation.compare import compare
from anofield.evaluation.evaluate import evaluate
from anofield.evaluation.options import Options
from anofield.evaluation.results import Results, read_results
from anofield.reports.folder import read_report_run
from anofield.reports.planes import view_case
from helpers import QUICK, World, small_world
from images import load_image

FEW = Options(resamples=5)
UNITED = Options(resamples=5, unite_labels=True)


@pytest.fixture(scope="session")
def world(tmp_path_factory: pytest.TempPathFactory) -> World:
    return small_world(tmp_path_factory.getbasetemp() / "world")


@pytest.fixture(scope="session")
def run(world: World, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Both gliomas and one healthy person, detected without their labels."""
    cases = [Case(case.id, case.image) for case in (*world.glioma, world.healthy[0])]
    return detect_cases(cases, world.model, QUICK, tmp_path_factory.mktemp("run")).path


@pytest.fixture(scope="session")
def right(world: World, run: Path, tmp_path_factory: pytest.TempPathFactory) -> Results:
    """Results with nothing but the labels in the folder."""
    folder = tmp_path_factory.mktemp("labels")
    for case in world.glioma:
        shutil.copy(truth_of(case), folder / f"{case.id}_seg.nii.gz")
    return evaluate(run, folder, tmp_path_factory.mktemp("results"), FEW)


def truth_of(case: Case) -> Path:
    assert case.label is not None
    return case.label


def write(path: Path, data: np.ndarray, like: Path) -> Path:
    nib.Nifti1Image(data, load_image(like).affine).to_filename(path)
    return path


def test_a_scan_beside_the_labels_is_not_the_truth(world: World, run: Path, right: Results, tmp_path: Path) -> None:
    for case in world.glioma:
        shutil.copy(truth_of(case), tmp_path / f"{case.id}_lesion.nii.gz")
        shutil.copy(case.image, tmp_path / f"{case.id}.nii.gz")
    found = evaluate(run, tmp_path, tmp_path / "out", FEW)
    assert found.rows == right.rows and found.scores == right.scores
    assert [Path(str(path)).name for path in found.labels.values()] == [f"{c.id}_lesion.nii.gz" for c in world.glioma]


def test_a_brain_mask_beside_the_labels_is_not_the_truth(
    world: World, run: Path, right: Results, tmp_path: Path
) -> None:
    for case in world.glioma:
        shutil.copy(truth_of(case), tmp_path / f"{case.id}_seg.nii.gz")
        brain = np.asarray(load_image(case.image).dataobj) != 0
        write(tmp_path / f"{case.id}_mask.nii.gz", brain.astype(np.uint8), case.image)
    assert evaluate(run, tmp_path, tmp_path / "out", FEW).rows == right.rows


def test_brain_masks_alone_are_refused_by_their_size(world: World, run: Path, tmp_path: Path) -> None:
    for case in world.glioma:
        brain = np.asarray(load_image(case.image).dataobj) != 0
        write(tmp_path / f"{case.id}_mask.nii.gz", brain.astype(np.uint8), case.image)
    with pytest.raises(CohortError, match=r"none of 2 cases can be evaluated.*covers 100 % of the brain"):
        evaluate(run, tmp_path, tmp_path / "out", FEW)


def resampled(scan: Path, path: Path) -> None:
    """The scan with other bytes."""
    write(path, np.asarray(load_image(scan).dataobj).astype(np.float32), scan)


def probable(scan: Path, path: Path) -> None:
    """Probabilities of a lesion."""
    data = np.asarray(load_image(scan).dataobj).astype(np.float32)
    write(path, data / data.max() / 3, scan)


@pytest.mark.parametrize(
    ("make", "words"), [(resampled, "is the scan itself"), (probable, "not made of whole numbers")]
)
def test_a_file_that_is_no_label_fails_its_case_alone(
    make: Callable[[Path, Path], None], words: str, world: World, run: Path, tmp_path: Path
) -> None:
    one, other = world.glioma
    make(one.image, tmp_path / f"{one.id}_seg.nii.gz")
    shutil.copy(truth_of(other), tmp_path / f"{other.id}_seg.nii.gz")
    found = evaluate(run, tmp_path, tmp_path / "out", FEW)
    assert [failure.id for failure in found.failures] == [one.id] and words in found.failures[0].error
    assert [row.id for row in found.rows] == [other.id]


def test_detections_are_not_the_truth_of_their_own_run(
    world: World, run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for case in world.glioma:
        shutil.copy(run / case.id / "mask.nii.gz", tmp_path / f"{case.id}_seg.nii.gz")
    with pytest.raises(CohortError, match="2 files there were written by anofield"):
        evaluate(run, tmp_path, tmp_path / "out", FEW)
    assert "2 files left out that anofield wrote itself" in capsys.readouterr().err
    with pytest.raises(CohortError, match="written by anofield"):
        evaluate(run, run, tmp_path / "out", FEW)


def test_cases_without_label_and_labels_without_case_stand_in_the_results(
    world: World, run: Path, right: Results, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    healthy = world.healthy[0].id
    assert right.without_label == [healthy] and right.labels_without_case == []
    for name in (f"{world.glioma[0].id}_seg", "Brats18_other_seg"):
        shutil.copy(truth_of(world.glioma[0]), tmp_path / f"{name}.nii.gz")
    found = evaluate(run, tmp_path, tmp_path / "out", FEW)
    assert read_results(tmp_path / "out").without_label == found.without_label
    assert set(found.without_label) == {healthy, world.glioma[1].id}
    assert found.labels_without_case == [str(tmp_path / "Brats18_other_seg.nii.gz")]
    said = capsys.readouterr().err
    assert "2 of 3 cases have no label: " in said and "1 label there belongs to no case: Brats18_other_seg" in said


def test_two_halves_of_a_label_are_listed_or_united_everywhere(
    world: World, run: Path, right: Results, tmp_path: Path
) -> None:
    labels = tmp_path / "labels"
    labels.mkdir()
    for case in world.glioma:
        whole = np.asarray(load_image(truth_of(case)).dataobj).copy()
        middle = int(np.median(np.nonzero(whole)[0]))
        for side, inside in (("left", slice(None, middle)), ("right", slice(middle, None))):
            half = np.zeros_like(whole)
            half[inside] = whole[inside]
            write(labels / f"{case.id}_{side}_lesion.nii.gz", half, case.image)
    with pytest.raises(CohortError, match=r"2 cases with several labels.*_left_lesion.*_right_lesion.*--unite-labels"):
        evaluate(run, labels, tmp_path / "out", FEW)
    found = evaluate(run, labels, tmp_path / "out", UNITED)
    assert found.rows == right.rows and all(len(files) == 2 for files in found.labels.values())
    plain = compare(run, run, labels, tmp_path / "compared", UNITED)
    assert plain.a.values["ap"] == found.scores[found.score].ap

    cases = find_cases(world.root / "glioma", label=f"{labels}/{{id}}_*.nii.gz", unite=True)
    again = detect_cases(cases, world.model, QUICK, tmp_path / "run").path
    info = read_case(again / cases[0].id)
    assert info is not None and info.labels == cases[0].labels
    assert evaluate(again, None, tmp_path / "out", FEW).rows == right.rows
    truth = [view_case(case).truth_ml for case in read_report_run(again).cases]
    parts = [np.count_nonzero(load_image(truth_of(case)).dataobj) for case in world.glioma]
    assert truth[0] is not None and truth[1] is not None
    assert truth[0] / truth[1] == pytest.approx(parts[0] / parts[1], rel=1e-3)


def test_a_manifest_may_hold_the_truth(world: World, run: Path, right: Results, tmp_path: Path) -> None:
    rows = [f"{case.id}\t{case.image}\t{case.label}" for case in world.glioma]
    (tmp_path / "truth.tsv").write_text("\n".join(["id\timage\tlabel", *rows]) + "\n")
    assert evaluate(run, tmp_path / "truth.tsv", tmp_path / "out", FEW).rows == right.rows


def test_a_run_without_any_label_says_where_they_may_be(run: Path, tmp_path: Path) -> None:
    with pytest.raises(CohortError, match=r"no label belongs to any case of the run.*-t"):
        evaluate(run, None, tmp_path / "out", FEW)
