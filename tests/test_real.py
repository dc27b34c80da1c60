"""Scans of real people, where ANOFIELD_REAL names a folder that has some; the phantoms only resemble them."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import pytest

import anofield as af
from anofield.data.brain import as_stripped
from anofield.data.labels import as_labels
from anofield.data.lattice import to_lattice, to_native
from anofield.data.prepare import prepare_case
from anofield.data.recipe import Recipe

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif("ANOFIELD_REAL" not in os.environ, reason="ANOFIELD_REAL names no folder of real scans"),
]
REAL = Path(os.environ.get("ANOFIELD_REAL", ""))
SIDE = 48
RECIPE = Recipe(resolution=SIDE)
HEALTHY = [
    af.Case(name, REAL / f"oasis/brains/{name}_T1w.nii.gz", subject=name) for name in ("oas1000", "oas1001", "oas1002")
]
PATIENT = af.Case("ms26", REAL / "ms26/T2w.nii.gz", label=REAL / "ms26/lesion.nii.gz", subject="ms26")
BRAINS = pytest.mark.parametrize("case", [*HEALTHY, PATIENT], ids=lambda case: case.id)


@pytest.mark.parametrize("cases", [HEALTHY, [PATIENT]], ids=["healthy", "patient"])
def test_a_check_finds_no_problem(cases: list[af.Case]) -> None:
    assert [row.problems for row in af.check(cases)] == [[]] * len(cases)


@BRAINS
def test_the_brain_lies_in_the_middle_of_the_box(case: af.Case) -> None:
    brain, native = prepare_case(case, RECIPE).brain, as_stripped(case.image)
    np.testing.assert_allclose(np.argwhere(brain).mean(0), (SIDE - 1) / 2, atol=1)
    native_ml = np.count_nonzero(native.brain) * native.scan.voxel_ml
    assert brain.mean() * RECIPE.box_mm**3 / 1000 == pytest.approx(native_ml, rel=0.01)
    if case in HEALTHY:
        assert 0.15 < brain.mean() < 0.40


@BRAINS
def test_an_intensity_survives_the_way_to_the_scan_and_back(case: af.Case) -> None:
    prepared = prepare_case(case, RECIPE)
    there = to_native(prepared.intensity, prepared.lattice)
    back = to_lattice(there, prepared.lattice)
    inside = prepared.brain
    assert np.corrcoef(prepared.intensity[inside], back[inside])[0, 1] > 0.9


def test_a_lesion_label_is_read_on_the_scans_voxels() -> None:
    assert PATIENT.label is not None
    scan = as_stripped(PATIENT.image).scan
    label = as_labels(PATIENT.label, scan)
    assert label.shape == scan.data.shape
    assert np.count_nonzero(label) * scan.voxel_ml == pytest.approx(8.2, abs=0.3)


@pytest.mark.parametrize("subject", ["sub-lg03", "sub-lg12"])
def test_a_whole_head_is_refused(subject: str) -> None:
    (path,) = (REAL / "heads" / subject / "anat").glob("*_T2w.nii.gz")
    with pytest.raises(af.AnofieldError, match="not skull-stripped"):
        as_stripped(path)
