"""The notebooks run from top to bottom on tiny people; the interactive view shows what was found, where it was."""

from __future__ import annotations

import sys
from dataclasses import dataclass, field, replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import nibabel as nib
import numpy as np
import pytest

from anofield.data.cohort.case import Case
from anofield.detect.calibration import Calibrated
from anofield.detect.detection import Detection
from anofield.detect.identity import Sources
from anofield.detect.options import DetectOptions
from anofield.detect.trust import Verdict
from anofield.errors import UsageError
from helpers import make_scan

pytestmark = pytest.mark.slow

FOLDER = Path(__file__).parents[1] / "notebooks"


@pytest.mark.parametrize("name", ["quickstart", "evaluation"])
def test_a_notebook_runs(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    client = pytest.importorskip("nbclient")
    pytest.importorskip("ipykernel")
    import nbformat

    monkeypatch.setenv("ANOFIELD_NOTEBOOK_SIZE", "tiny")
    monkeypatch.setenv("ANOFIELD_NOTEBOOK_FOLDER", str(tmp_path))
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    notebook = nbformat.read(FOLDER / f"{name}.ipynb", as_version=4)
    nbformat.validate(notebook)
    assert not any(cell.get("outputs") for cell in notebook.cells)
    client.NotebookClient(notebook, timeout=120, kernel_name="python3").execute(cwd=str(tmp_path))
    pictures = [out for cell in notebook.cells for out in cell.get("outputs", ()) if "image/png" in out.get("data", {})]
    assert len(pictures) == {"quickstart": 1, "evaluation": 3}[name]


@dataclass
class Viewer:
    """What ipyniivue gives, as far as it is used."""

    volumes: list[Any] = field(default_factory=list)

    def load_volumes(self, volumes: list[Any]) -> None:
        self.volumes = volumes


@pytest.fixture
def detection() -> Detection:
    scan = make_scan((5, 6, 7))
    brain = np.zeros(scan.data.shape, bool)
    brain[1:4, 1:4, 1:4] = True
    maps = {"deviation": np.where(brain, 2.0, 0.0).astype(np.float32), "crps": np.ones(brain.shape, np.float32)}
    maps["deviation"][2, 2, 2] = 9.0
    options = DetectOptions(also=("crps",))
    calibrated = Calibrated(
        score="deviation", thresholds={"deviation": 5.0}, quantile=0.999, meaning="", healthy_fit={}, reference={}
    )
    return Detection(
        case=Case("p", scan.path),
        scan=scan,
        brain=brain,
        maps=maps,
        healed=None,
        above=brain & (maps["deviation"] > 5.0),
        findings=(),
        fit=None,
        verdict=Verdict(None),
        options=options,
        calibrated=calibrated,
        sources=Sources("", ""),
        seen=None,
        identity="",
        seconds={},
    )


class TestView:
    def test_shows_scan_map_and_mask_in_the_scans_geometry(
        self, detection: Detection, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setitem(sys.modules, "ipyniivue", SimpleNamespace(NiiVue=Viewer, Volume=SimpleNamespace))
        shown = detection.view().volumes
        images = [nib.Nifti1Image.from_bytes(volume.data) for volume in shown]
        assert [volume.name for volume in shown] == ["scan.nii", "deviation.nii", "mask.nii"]
        assert all(np.allclose(image.affine, detection.scan.affine, atol=1e-4) for image in images)
        assert np.array_equal(images[1].get_fdata(), detection.maps["deviation"])
        assert np.array_equal(np.argwhere(images[2].get_fdata()), [[2, 2, 2]])
        assert (shown[1].cal_min, shown[1].cal_max) == (5.0, 9.0)
        uncalibrated = replace(detection, calibrated=None)
        assert [volume.name for volume in uncalibrated.view("crps").volumes] == ["scan.nii", "crps.nii"]

    def test_says_what_is_missing(self, detection: Detection, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setitem(sys.modules, "ipyniivue", None)
        with pytest.raises(UsageError, match=r"anofield\[notebook\]"):
            detection.view()
        with pytest.raises(UsageError, match="deviation, crps"):
            detection.view("entropy")
