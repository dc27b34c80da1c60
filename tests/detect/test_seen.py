"""Scans that the model knows under another name: refused by calibrate, named by detect and evaluate."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest

from anofield.data.cohort.case import Case
from anofield.data.scan import read_scan
from anofield.detect.calibrate import calibrate
from anofield.detect.calibration import look_up
from anofield.detect.run import detect_cases
from anofield.detect.run_folder import Seen
from anofield.errors import UsageError
from anofield.evaluation.evaluate import evaluate
from anofield.evaluation.options import Options
from images import load_image
from stub import OPTIONS, Stub, cohort


@pytest.fixture
def cases(tmp_path: Path, save_brain: Callable[..., Path]) -> list[Case]:
    return cohort(tmp_path / "scans", save_brain)


@pytest.fixture
def stub(tmp_path: Path, save_brain: Callable[..., Path]) -> Stub:
    """A model that was trained on two people."""
    trained = cohort(tmp_path / "trained", save_brain, 2, first=50)
    contents = [read_scan(case.image).content_hash for case in trained]
    return Stub(path=tmp_path / "method", training_ids=["sub-50", "sub-51"], training_contents=contents)


def renamed(source: Path, target: Path) -> Case:
    """A scan under another name, uncompressed, of another stored type and with its first axis turned."""
    image = load_image(source)
    target.parent.mkdir(parents=True, exist_ok=True)
    turned = nib.Nifti1Image(np.asarray(image.dataobj).astype(np.float64), image.affine)
    turned.as_reoriented(np.array([[0, -1], [1, 1], [2, 1]])).to_filename(target)
    return Case(target.name.removesuffix(".nii"), target)


def healthy(cases: list[Case]) -> list[Case]:
    return [replace(case, label=None) for case in cases]


class TestCalibrate:
    def test_refuses_a_training_scan_under_another_name(self, stub: Stub, cases: list[Case], tmp_path: Path) -> None:
        stranger = renamed(tmp_path / "trained" / "p51.nii.gz", tmp_path / "new" / "stranger.nii")
        with pytest.raises(UsageError, match=r"1 of 5 healthy scans are training scans .*\(stranger is sub-51\)"):
            calibrate([*healthy(cases), stranger], stub, OPTIONS)
        assert not stub.path.exists()

    def test_refuses_the_id_of_a_training_scan(self, stub: Stub, cases: list[Case]) -> None:
        with pytest.raises(UsageError, match=r"have the id of a training scan \(sub-50\)"):
            calibrate([replace(healthy(cases)[0], id="sub-50")], stub, OPTIONS)

    def test_refuses_one_scan_under_two_names(self, stub: Stub, cases: list[Case], tmp_path: Path) -> None:
        with pytest.raises(UsageError, match="the healthy scans p0 and twin are the same scan"):
            calibrate([*healthy(cases), renamed(cases[0].image, tmp_path / "new" / "twin.nii")], stub, OPTIONS)

    def test_keeps_the_contents_of_the_scans_it_used(self, stub: Stub, cases: list[Case], tmp_path: Path) -> None:
        info, _ = calibrate([*healthy(cases), Case("gone", tmp_path / "gone.nii.gz")], stub, OPTIONS)
        assert info.contents == [read_scan(case.image).content_hash for case in cases]
        found = look_up(stub, OPTIONS)
        assert found is not None and list(found.contents.values()) == info.cases == ["p0", "p1", "p2", "p3"]

    def test_of_a_method_that_keeps_no_contents_compares_ids(self, stub: Stub, cases: list[Case]) -> None:
        unknown = replace(stub, training_contents=["", ""])
        assert len(calibrate(healthy(cases), unknown, OPTIONS)[0].cases) == 4


class TestDetect:
    def test_names_training_and_calibration_scans(
        self, stub: Stub, cases: list[Case], tmp_path: Path, capsys: pytest.CaptureFixture[str]
    ) -> None:
        calibrate(healthy(cases[:2]), stub, OPTIONS)
        stranger = renamed(tmp_path / "trained" / "p50.nii.gz", tmp_path / "new" / "stranger.nii")
        run = detect_cases([cases[0], cases[3], stranger], stub, OPTIONS, tmp_path / "run")
        seen = {case.id: case.seen for case in run.cases}
        training, calibration = Seen(role="training", id="sub-50"), Seen(role="calibration", id="p0")
        assert seen == {"p0": calibration, "p3": None, "stranger": training}
        assert json.loads((run.path / "p0" / "case.json").read_text())["seen"] == {"role": "calibration", "id": "p0"}
        told = capsys.readouterr().err
        assert "p0 is the calibration scan p0, stranger is the training scan sub-50" in told
        assert (run.path / "cases.tsv").read_text().splitlines()[3].endswith("the training scan sub-50")
        results = evaluate(run.path, None, tmp_path / "results", Options(resamples=10))
        assert results.seen == {"p0": calibration, "stranger": training}
        assert "p0 is the calibration scan p0" in capsys.readouterr().err

    def test_says_nothing_about_new_scans(
        self, stub: Stub, cases: list[Case], tmp_path: Path, capsys: pytest.CaptureFixture[str]
    ) -> None:
        detect_cases(cases, stub, OPTIONS, tmp_path / "run")
        assert "known to the model" not in capsys.readouterr().err
