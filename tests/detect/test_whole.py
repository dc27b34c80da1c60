"""What a run says about a brain that is not whole, and about a mask on another grid."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest

from anofield.data.cohort.case import Case
from anofield.detect.run import detect_cases
from anofield.detect.run_folder import read_case
from helpers import QUICK, World, small_world
from images import load_image

pytestmark = pytest.mark.slow


@pytest.fixture(scope="session")
def world(tmp_path_factory: pytest.TempPathFactory) -> World:
    return small_world(tmp_path_factory.getbasetemp() / "world")


def test_a_brain_that_is_cut_off_is_examined_but_not_trusted(world: World, tmp_path: Path) -> None:
    image = nib.as_closest_canonical(load_image(world.healthy[0].image))
    data = np.asarray(image.dataobj).copy()
    filled = np.flatnonzero(data.any(axis=(0, 1)))
    data[:, :, filled[-1] - 5 :] = 0
    nib.Nifti1Image(data, image.affine).to_filename(tmp_path / "cut.nii.gz")
    run = detect_cases([Case("cut", tmp_path / "cut.nii.gz")], world.model, QUICK, tmp_path / "run")
    info = read_case(run.path / "cut")
    assert info is not None and info.trusted is False and run.untrusted == (info,)
    assert len(info.doubts) == 1 and "cut off flat at the top" in info.doubts[0] == info.reasons[0]
    assert "cut off flat" in (run.path / "cases.tsv").read_text()
    assert (run.path / "cut/anomaly.nii.gz").is_file()


def test_a_mask_on_another_grid_is_noted_and_gives_the_same_brain(
    world: World, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    case = world.healthy[0]
    image = load_image(case.image)
    mask = np.pad((np.asarray(image.dataobj) != 0).astype(np.uint8), ((2, 1), (0, 3), (4, 0)))
    affine = image.affine @ nib.affines.from_matvec(np.eye(3), (-2, 0, -4))
    nib.Nifti1Image(mask, affine).to_filename(tmp_path / "mask.nii.gz")
    run = detect_cases([replace(case, mask=tmp_path / "mask.nii.gz")], world.model, QUICK, tmp_path / "run")
    plain = detect_cases([case], world.model, QUICK, tmp_path / "plain")
    info, other = run.cases[0], plain.cases[0]
    assert len(info.notes) == 1 and "was resampled" in info.notes[0] and info.notes[0] in capsys.readouterr().err
    assert info.brain_ml == other.brain_ml and not other.notes and not other.doubts
    maps = [load_image(one.path / case.id / "anomaly.nii.gz").get_fdata() for one in (run, plain)]
    assert np.array_equal(maps[0], maps[1])
