"""Other shapes of a run: parts of a cohort, BIDS derivatives, the MOOD contract."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from anofield.data.cohort.case import Case, part_of
from anofield.detect.bids import RUN_FOLDER
from anofield.detect.calibrate import calibrate
from anofield.detect.mood import run_mood, unit_score
from anofield.detect.options import DetectOptions
from anofield.errors import CohortError, UsageError
from helpers import World, small_world
from images import load_image

FAST = ("--also", "none", "--device", "cpu", "--precision", "float32")


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> World:
    return small_world(tmp_path_factory.getbasetemp() / "world")


@pytest.fixture(scope="module")
def default_world(world: World, tmp_path_factory: pytest.TempPathFactory) -> World:
    """The same model, calibrated with the default options."""
    root = tmp_path_factory.mktemp("default")
    shutil.copytree(world.experiment, root / "experiment")
    copied = World(root, world.training, world.healthy, world.glioma)
    calibrate(world.healthy, copied.model, DetectOptions(also=()))
    return copied


@pytest.mark.slow
@given(st.integers(0, 30), st.integers(1, 7))
def test_parts_share_a_cohort_without_overlap(cases: int, parts: int) -> None:
    cohort = [Case(str(number), Path("x")) for number in range(cases)]
    shares = [part_of(cohort, f"{part}/{parts}")[0] for part in range(1, parts + 1)]
    assert sorted(int(case.id) for share in shares for case in share) == list(range(cases))
    assert max(map(len, shares)) - min(map(len, shares)) <= 1


@pytest.mark.parametrize("part", ["0/3", "4/3", "1", "a/b", "1/0", "-1/2"])
def test_a_part_that_is_none_is_refused(part: str) -> None:
    with pytest.raises(UsageError, match="K/N"):
        part_of([], part)


def test_parts_of_a_run_make_the_run(default_world: World, tmp_path: Path, anofield: Callable[..., Any]) -> None:
    scans = default_world.root.parent / "scans"
    shutil.copytree(default_world.glioma[0].image.parents[1], scans, dirs_exist_ok=True)
    words = ("detect", "-m", default_world.experiment, "-i", scans, *FAST)
    for part in ("2/2", "1/2"):
        assert anofield(*words, "-o", tmp_path / "parts", "--part", part).code == 0
    assert anofield(*words, "-o", tmp_path / "whole").code == 0
    runs = [json.loads((tmp_path / name / "run.json").read_text())["cases"] for name in ("parts", "whole")]
    assert runs[0] == runs[1] and len(runs[0]) == 2
    for case in runs[0]:
        one, other = (load_image(tmp_path / name / case / "anomaly.nii.gz").get_fdata() for name in ("parts", "whole"))
        np.testing.assert_array_equal(one, other)


def test_bids_naming_passes_the_validator(default_world: World, tmp_path: Path, anofield: Callable[..., Any]) -> None:
    source = tmp_path / "in" / "sub-07" / "ses-1" / "anat"
    source.mkdir(parents=True)
    shutil.copy(default_world.glioma[0].image, source / "sub-07_ses-1_T2w.nii.gz")
    loose = tmp_path / "in" / "odd_name.nii.gz"
    shutil.copy(default_world.glioma[1].image, loose)
    for scan in (source / "sub-07_ses-1_T2w.nii.gz", loose):
        ended = anofield(
            "detect", "-m", default_world.experiment, "-i", scan, "-o", tmp_path / "out", "--naming", "bids", *FAST
        )
        assert ended.code == 0, ended.err
    anat = tmp_path / "out/sub-07/ses-1/anat"
    assert {path.name for path in anat.glob("*.nii.gz")} == {
        "sub-07_ses-1_desc-anomaly_T2w.nii.gz",
        "sub-07_ses-1_desc-restoration_T2w.nii.gz",
        "sub-07_ses-1_label-lesion_desc-anofield_mask.nii.gz",
    }
    assert list((tmp_path / "out").glob("sub-oddname/anat/*_mask.nii.gz"))
    assert (tmp_path / "out" / RUN_FOLDER / "run.json").is_file()
    validator = Path(sys.executable).with_name("bids-validator-deno")
    if not validator.is_file():
        pytest.skip("bids-validator-deno is not installed")
    checked = subprocess.run([validator, tmp_path / "out", "--json"], capture_output=True, text=True, timeout=120)
    issues = json.loads(checked.stdout)["issues"]["issues"]
    assert [issue["code"] for issue in issues if issue["severity"] == "error"] == []


@pytest.mark.parametrize("naming", ["plain", "bids"])
def test_a_run_below_the_scans_is_no_input_of_the_next_call(
    naming: str, default_world: World, tmp_path: Path, anofield: Callable[..., Any]
) -> None:
    for name in ("p1.nii.gz", "-x 'y'.nii.gz", "[1]*.nii.gz"):
        shutil.copy(default_world.glioma[0].image, tmp_path / name)
    place = ("-i", tmp_path, "-m", default_world.experiment, "-o", tmp_path / "out")
    words = ("detect", *place, "--naming", naming, *FAST)
    first, again = anofield(*words, "--json"), anofield(*words, "--json")
    assert first.code == again.code == 0, first.err
    assert json.loads(first.out)["cases"] == json.loads(again.out)["cases"] == ["-x 'y'", "[1]*", "p1"]
    assert "not searched: out (" in again.err and "not searched" not in first.err
    assert ("3 scans of unknown contrast" in first.err) == (naming == "bids")


class TestMood:
    def test_pixel_keeps_name_shape_and_affine(
        self, default_world: World, tmp_path: Path, anofield: Callable[..., Any]
    ) -> None:
        image = default_world.glioma[0].image
        ended = anofield("mood", "--task", "pixel", "-i", image, "-o", tmp_path, "-m", default_world.experiment)
        assert ended.code == 0, ended.err
        found, scan = load_image(tmp_path / image.name), load_image(image)
        assert found.shape == scan.shape
        np.testing.assert_array_equal(found.affine, scan.affine)
        values = found.get_fdata()
        assert values.min() >= 0 and 0.5 < values.max() <= 1

    def test_sample_writes_one_number(self, default_world: World, tmp_path: Path, anofield: Callable[..., Any]) -> None:
        image = default_world.glioma[0].image
        ended = anofield("mood", "--task", "sample", "-i", image, "-o", tmp_path, "-m", default_world.experiment)
        assert ended.code == 0, ended.err
        assert 0 <= float((tmp_path / f"{image.name}.txt").read_text()) <= 1

    @given(st.floats(-10, 1e6), st.floats(-10, 1e6), st.floats(1e-3, 100))
    def test_calibrated_scores_keep_their_order(self, low: float, high: float, threshold: float) -> None:
        low, high = sorted((low, high))
        first, second = unit_score(np.array([low, high]), threshold)
        assert 0 <= first <= second <= 1
        assert unit_score(np.array([threshold]), threshold)[0] == pytest.approx(0.5)

    def test_two_scans_of_one_file_name_are_refused(self, default_world: World, tmp_path: Path) -> None:
        cases = [Case(name, tmp_path / name / "T2w.nii.gz") for name in "ab"]
        with pytest.raises(CohortError, match=r"two scans have the file name 'T2w\.nii\.gz'"):
            run_mood(cases, default_world.model, DetectOptions(also=()), tmp_path, "pixel")

    def test_needs_a_calibrated_model(self, world: World, tmp_path: Path, anofield: Callable[..., Any]) -> None:
        shutil.copytree(world.experiment, tmp_path / "e")
        shutil.rmtree(tmp_path / "e" / "calibrations")
        ended = anofield("mood", "--task", "sample", "-i", world.glioma[0].image, "-o", tmp_path, "-m", tmp_path / "e")
        assert (ended.code, "calibrate" in ended.err) == (5, True)
