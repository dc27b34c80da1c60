"""The public face: `import anofield as af`, from prepared scans to a report, everything possible in memory."""

from __future__ import annotations

import inspect
import json
import re
import shutil
import subprocess
import sys
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
import torch

import anofield as af
from anofield._words import counted
from anofield.detect.options import DetectOptions
from helpers import QUICK, World, small_world, tiny_specs
from images import load_image

README = Path(__file__).parents[1] / "README.md"
MODULES = ("numpy", "scipy", "nibabel", "pydantic", "torch", "numcodecs", "pandas")


@pytest.fixture(scope="session")
def world(tmp_path_factory: pytest.TempPathFactory) -> World:
    return small_world(tmp_path_factory.getbasetemp() / "world")


def test_importing_it_imports_nothing_heavy() -> None:
    code = f"import sys, anofield; print([name for name in {MODULES} if name in sys.modules])"
    assert subprocess.check_output([sys.executable, "-c", code], text=True).strip() == "[]"


def test_every_name_is_there_and_is_described_in_the_module() -> None:
    assert len(af.__all__) <= 24 and sorted(af.__all__) == af.__all__
    told = inspect.getdoc(af) or ""
    for name in af.__all__:
        assert inspect.getdoc(getattr(af, name)), name
        assert re.search(rf"^ *(\w+, )*{name}(, \w+)*: \w", told, re.MULTILINE), name
    assert set(af.__all__) <= set(dir(af))
    with pytest.raises(AttributeError, match="public names: AnofieldError, Case"):
        af.detect_everything  # noqa: B018 - the access is what is tested


class TestInMemory:
    def test_a_path_an_image_a_scan_and_an_array_give_the_same(self, world: World) -> None:
        path = world.glioma[0].image
        image = load_image(path)
        array = np.asarray(image.dataobj)
        sources = [path, str(path), image, (array, image.affine), (array.astype(np.float64), image.affine)]
        found = [world.model.detect(source, options=QUICK) for source in sources]
        found.append(world.model.detect(found[0].scan, options=QUICK))
        for other in found[1:]:
            np.testing.assert_array_equal(other.anomaly.data, found[0].anomaly.data)
            np.testing.assert_array_equal(other.mask.data, found[0].mask.data)
            assert other.findings == found[0].findings and other.trusted == found[0].trusted
        assert [one.id for one in found[:3]] == [found[0].id] * 3

    def test_a_mask_may_be_a_path_an_image_or_an_array(self, world: World, tmp_path: Path) -> None:
        image = load_image(world.glioma[0].image)
        brain = np.asarray(image.dataobj) > 0
        brain[: brain.shape[0] // 3] = False
        mask = nib.Nifti1Image(brain.astype(np.uint8), image.affine)
        nib.save(mask, tmp_path / "mask.nii.gz")
        masks = [tmp_path / "mask.nii.gz", mask, brain, (brain.astype(np.uint8), image.affine)]
        found = [world.model.detect(image, brain=one, options=QUICK) for one in masks]
        for other in found:
            np.testing.assert_array_equal(other.brain, brain)
            np.testing.assert_array_equal(other.anomaly.data, found[0].anomaly.data)

    def test_what_is_no_scan_is_named(self, world: World) -> None:
        with pytest.raises(af.AnofieldError, match="a path, a Scan, a nibabel image, or"):
            world.model.detect(np.zeros((4, 4, 4)))
        with pytest.raises(af.AnofieldError, match=r"mask.*shape"):
            world.model.detect(world.glioma[0].image, brain=np.ones((3, 3, 3), bool))
        with pytest.raises(af.AnofieldError, match=r"unknown preset 'best'.*small-lesions"):
            world.model.detect(world.glioma[0].image, options="best")
        with pytest.raises(af.AnofieldError, match=r"FitOptions where options are expected.*DetectOptions"):
            world.model.detect(world.glioma[0].image, options=af.FitOptions())  # type: ignore[arg-type]
        image = load_image(world.glioma[0].image)
        flipped = np.diag([-1.0, 1, 1, 1]) @ image.affine
        with pytest.raises(af.AnofieldError, match="brain mask's affine puts its corners"):
            world.model.detect(image, brain=(np.asarray(image.dataobj) > 0, flipped), options=QUICK)

    def test_unknown_names_are_errors(self, world: World, tmp_path: Path) -> None:
        with pytest.raises(af.AnofieldError, match="unknown precision 'float16'"):
            af.load_model(world.model.path, precision="float16")  # type: ignore[arg-type]
        with pytest.raises(af.AnofieldError, match=r"no checkpoint '999'; there are .*latest"):
            af.load_model(world.model.path, epoch="999")
        with pytest.raises(af.AnofieldError, match="unknown recipe 'foo'"):
            af.prepare(world.glioma, tmp_path / "s.zarr", recipe="foo")  # type: ignore[arg-type]
        with pytest.raises(af.AnofieldError, match="where cases are expected"):
            af.prepare("scans", tmp_path / "s.zarr")  # type: ignore[arg-type]
        for call in (af.evaluate, af.report):
            with pytest.raises(af.AnofieldError, match="NoneType where a run is expected"):
                call(None)  # type: ignore[arg-type]
        with pytest.raises(af.AnofieldError, match="at least one case"):
            af.prepare([], tmp_path / "s.zarr")
        assert str(af.load_model(world.model.path, device=torch.device("cpu")).device) == "cpu"

    def test_results_are_scans_on_the_input_voxels(self, world: World) -> None:
        image = load_image(world.glioma[0].image)
        found = world.model.detect(image, options=QUICK)
        assert found.restoration is not None
        for scan in (found.anomaly, found.mask, found.restoration):
            written = scan.to_nibabel()
            assert written.shape == image.shape
            np.testing.assert_array_equal(written.affine, image.affine)
        assert set(np.unique(found.mask.data)) <= {0, 1}
        number, trust = counted(len(found.findings), "finding"), "trusted" if found.trusted else "NOT trusted"
        volume = f"{found.volume_ml:.1f} ml above {found.threshold:.3g}"
        assert repr(found) == f"Detection({found.id}: {number}, {volume}; fit {trust})"


def test_errors_name_the_argument_to_a_python_user(world: World, tmp_path: Path) -> None:
    head = np.full((40, 40, 40), 7.0) + np.arange(40)
    with pytest.raises(af.AnofieldError, match="give a brain mask with `brain`"):
        world.model.detect((head, np.diag([5.0, 5.0, 5.0, 1.0])), options=QUICK)
    with pytest.raises(af.AnofieldError, match="name the layout: `dataset`"):
        af.find_cases(tmp_path)
    (tmp_path / "other").mkdir()
    (tmp_path / "other" / "zarr.json").write_text("{}")
    with pytest.raises(af.AnofieldError) as caught:
        af.prepare(world.training, tmp_path / "other", resolution=24)
    assert "--" not in str(caught.value)


def test_saving_writes_the_files_of_a_run(world: World, tmp_path: Path) -> None:
    case = world.glioma[0]
    run = world.model.detect_many([case], tmp_path / "run", options=QUICK)
    world.model.detect(case.image, options=QUICK, id=case.id).save(tmp_path / "saved")
    one, other = tmp_path / "run" / case.id, tmp_path / "saved"
    assert {path.name for path in one.iterdir()} == {path.name for path in other.iterdir()}
    for path in one.glob("*.nii.gz"):
        np.testing.assert_array_equal(load_image(path).get_fdata(), load_image(other / path.name).get_fdata())
    told, saved = (json.loads((folder / "case.json").read_text()) for folder in (one, other))
    assert told["key"] == saved["key"] and told["findings"] == saved["findings"]
    assert run.info.seconds > 0 and repr(run).startswith(f"Run({tmp_path / 'run'}: 1 case by deviation")


def test_the_quickstart_of_the_readme_runs(world: World, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (code,) = re.findall(r"```python\n(import anofield as af\n.*?)```", README.read_text(), re.DOTALL)
    assert len([line for line in code.splitlines() if line.strip()]) <= 12
    for name, cases in {"HEALTHY": world.training, "HELD_OUT_HEALTHY": world.healthy, "SCANS": world.glioma}.items():
        shutil.copytree(cases[0].image.parents[1], tmp_path / name)
    shutil.copytree(tmp_path / "SCANS", tmp_path / "LABELS")
    shutil.copyfile(world.glioma[0].image, tmp_path / "sub-01_T2w.nii.gz")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("anofield.field.presets.preset", lambda name: tiny_specs())
    monkeypatch.setattr("anofield.detect.options.PRESETS", {"default": DetectOptions(fit=QUICK.fit)})
    monkeypatch.setattr("anofield.detect.model.PRESETS", {"default": DetectOptions(fit=QUICK.fit)})
    names: dict[str, object] = {}
    exec(code.replace("resolution=96", "resolution=24").replace("workers=4", "workers=2"), names)
    run, results, found = names["run"], names["results"], names["found"]
    assert isinstance(run, af.Run) and isinstance(results, af.Results) and isinstance(found, af.Detection)
    assert len(run.info.cases) == 2 and results.n_cases == 2 and found.threshold is not None
    assert next(iter(results.table().index)) == "deviation"
    assert "<html" in Path("report.html").read_text()
