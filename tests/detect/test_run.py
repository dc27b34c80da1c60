"""Detection: files on the scan's own voxels, the same whatever the company, resumable, failures apart."""

from __future__ import annotations

import gzip
import json
import shutil
from dataclasses import replace
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
from pydantic import ValidationError
from scipy import ndimage

from anofield.data.cohort.case import Case
from anofield.data.parallel import Spread
from anofield.data.scan import read_scan
from anofield.detect.calibration import look_up
from anofield.detect.model import Model, load_model
from anofield.detect.options import DetectOptions, FitOptions
from anofield.detect.run import detect_cases
from anofield.errors import CohortError, UsageError
from helpers import QUICK, World, facts_of, found_in, small_world, threshold_of
from images import load_image

BASE = {"anomaly.nii.gz", "restoration.nii.gz", "case.json"}
FILES = BASE | {"mask.nii.gz", "lesions.tsv", "score-crps.nii.gz", "score-intensity.nii.gz"}


@pytest.fixture(scope="session")
def world(tmp_path_factory: pytest.TempPathFactory) -> World:
    return small_world(tmp_path_factory.getbasetemp() / "world")


@pytest.fixture(scope="session")
def run(world: World, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run over both gliomas, to look at only."""
    out = tmp_path_factory.mktemp("run")
    assert not detect_cases(world.glioma, world.model, QUICK, out).failures
    return out


@pytest.fixture
def uncalibrated(world: World, tmp_path: Path) -> Model:
    """The model without its calibrations."""
    ignored = shutil.ignore_patterns("calibrations")
    return load_model(shutil.copytree(world.experiment, tmp_path / "uncalibrated", ignore=ignored), device="cpu")


def voxels(path: Path | None) -> np.ndarray:
    return np.asarray(load_image(path).dataobj)


def times(folder: Path) -> dict[str, int]:
    return {path.name: path.stat().st_mtime_ns for path in folder.iterdir()}


class TestFiles:
    def test_are_the_documented_ones(self, world: World, run: Path) -> None:
        for case in world.glioma:
            assert {path.name for path in (run / case.id).iterdir()} == FILES

    def test_lie_on_the_scans_voxels_and_are_zero_outside_the_brain(self, world: World, run: Path) -> None:
        for case in world.glioma:
            source = load_image(case.image)
            outside = np.asarray(source.dataobj) == 0
            for name in (name for name in FILES if name.endswith(".nii.gz")):
                image = load_image(run / case.id / name)
                assert image.shape == source.shape
                np.testing.assert_array_equal(image.affine, source.affine)
                for form in ("get_sform", "get_qform"):
                    (matrix, code), (expected, wanted) = (getattr(i, form)(coded=True) for i in (image, source))
                    np.testing.assert_array_equal(matrix, expected)
                    assert code == wanted
                assert image.get_data_dtype() == (np.uint8 if name == "mask.nii.gz" else np.float32)
                assert not np.asarray(image.dataobj)[outside].any()

    def test_restoration_is_in_the_scans_intensities(self, world: World, run: Path) -> None:
        scan, restored = (
            voxels(path) for path in (world.glioma[0].image, run / world.glioma[0].id / "restoration.nii.gz")
        )
        inside = scan > 0
        assert np.median(restored[inside]) == pytest.approx(np.median(scan[inside]), rel=0.15)
        assert np.corrcoef(restored[inside], scan[inside])[0, 1] > 0.4

    def test_lesion_table_says_what_the_mask_shows(self, world: World, run: Path) -> None:
        for case in world.glioma:
            folder = run / case.id
            about = json.loads((folder / "case.json").read_text())
            mask, scan = voxels(folder / "mask.nii.gz") > 0, read_scan(case.image)
            rows = (folder / "lesions.tsv").read_text().splitlines()[1:]
            assert len(rows) == about["lesions"] == ndimage.label(mask, np.ones((3, 3, 3)))[1]
            assert sum(float(row.split("\t")[1]) for row in rows) == pytest.approx(mask.sum() * scan.voxel_ml, abs=0.1)
            assert (voxels(folder / "anomaly.nii.gz")[mask] > about["threshold"]).all()

    def test_case_json_names_scan_threshold_and_fit(self, world: World, run: Path) -> None:
        case = world.glioma[0]
        about = json.loads((run / case.id / "case.json").read_text())
        assert Path(about["image"]) == case.image.resolve()
        assert about["threshold"] == threshold_of(world.model, QUICK)
        assert about["fit"]["code_distance"] > 0
        assert set(about["seconds"]) == {"prepare", "fit", "score", "write"}

    def test_lesions_score_higher_than_the_rest_of_the_brain(self, world: World, run: Path) -> None:
        for case in world.glioma:
            score, truth = voxels(run / case.id / "anomaly.nii.gz"), voxels(case.label) > 0
            inside = voxels(case.image) > 0
            assert score[truth & inside].mean() > 2 * score[inside & ~truth].mean()


class TestIndependence:
    def test_alone_together_and_reversed_are_bitwise_the_same(self, world: World, run: Path, tmp_path: Path) -> None:
        cases = [*world.healthy, *world.glioma]
        detect_cases(cases[::-1], world.model, QUICK, tmp_path)
        for case in world.glioma:
            for name in FILES - {"case.json"}:
                first, second = (folder / case.id / name for folder in (run, tmp_path))
                if name.endswith(".nii.gz"):
                    np.testing.assert_array_equal(voxels(first), voxels(second))
                else:
                    assert first.read_bytes() == second.read_bytes()
        alone = found_in(world.glioma[1], world.model, QUICK)
        np.testing.assert_array_equal(alone.maps["deviation"], voxels(run / world.glioma[1].id / "anomaly.nii.gz"))

    def test_further_scores_do_not_change_the_map(self, world: World, run: Path) -> None:
        case = world.glioma[0]
        found = found_in(case, world.model, QUICK.model_copy(update={"also": ()}))
        assert set(found.maps) == {"deviation"}
        np.testing.assert_array_equal(found.maps["deviation"], voxels(run / case.id / "anomaly.nii.gz"))

    def test_voxel_order_of_the_file_changes_nothing(self, world: World, tmp_path: Path) -> None:
        case = world.glioma[0]
        turned = load_image(case.image).as_reoriented(np.array([[1, -1], [2, 1], [0, -1]]))
        nib.save(turned, tmp_path / "turned.nii.gz")
        maps = []
        for path in (case.image, tmp_path / "turned.nii.gz"):
            found = found_in(Case(case.id, path), world.model, QUICK)
            image = nib.Nifti1Image(found.maps["deviation"], found.scan.affine)
            maps.append(np.asarray(nib.as_closest_canonical(image).dataobj))
        assert maps[0].shape == maps[1].shape
        assert np.corrcoef(maps[0].ravel(), maps[1].ravel())[0, 1] > 0.999


class TestResume:
    @pytest.fixture
    def copy(self, run: Path, tmp_path: Path) -> Path:
        return shutil.copytree(run, tmp_path / "run")

    def test_skips_finished_cases_and_redoes_unfinished_ones(self, world: World, copy: Path) -> None:
        first, second = (copy / case.id for case in world.glioma)
        (second / "case.json").unlink()
        before = times(first), times(second)
        again = detect_cases(world.glioma, world.model, QUICK, copy)
        assert times(first) == before[0]
        after = times(second)
        assert set(after) == FILES
        assert all(after[name] > before[1][name] for name in before[1])
        assert [info.id for info in again.cases] == [case.id for case in world.glioma]

    @pytest.mark.parametrize("content", ["{}", "[]", "null", '{"id": "a", "key": 5}', "{"])
    def test_redoes_a_case_whose_json_says_nothing(self, world: World, copy: Path, content: str) -> None:
        case = world.glioma[0]
        (copy / case.id / "case.json").write_text(content)
        assert not detect_cases([case], world.model, QUICK, copy).failures
        assert json.loads((copy / case.id / "case.json").read_text())["id"] == case.id

    @pytest.mark.parametrize("name", ["anomaly.nii.gz", "mask.nii.gz", "restoration.nii.gz", "score-crps.nii.gz"])
    def test_redoes_a_case_with_a_missing_or_an_empty_file(self, world: World, copy: Path, name: str) -> None:
        first, second = (copy / case.id for case in world.glioma)
        expected = voxels(first / name), voxels(second / name)
        (first / name).unlink()
        (second / name).write_bytes(b"")
        detect_cases(world.glioma, world.model, QUICK, copy)
        for folder, values in zip((first, second), expected, strict=True):
            np.testing.assert_array_equal(voxels(folder / name), values)

    def test_redoes_a_case_whose_scan_changed(self, world: World, copy: Path, tmp_path: Path) -> None:
        source, image = world.glioma[0], load_image(world.glioma[0].image)
        case = replace(source, image=Path(shutil.copy(source.image, tmp_path)))
        detect_cases([case], world.model, QUICK, copy, force=True)
        nib.save(nib.Nifti1Image(np.asarray(image.dataobj) * 2, None, image.header), case.image)
        before = times(copy / case.id)
        detect_cases([case], world.model, QUICK, copy)
        assert all(after > before[name] for name, after in times(copy / case.id).items())

    def test_force_redoes_everything(self, world: World, copy: Path) -> None:
        before = times(copy / world.glioma[0].id)
        detect_cases(world.glioma[:1], world.model, QUICK, copy, force=True)
        assert all(after > before[name] for name, after in times(copy / world.glioma[0].id).items())

    def test_leaves_no_file_of_an_earlier_run_that_the_new_one_does_not_make(
        self, world: World, uncalibrated: Model, copy: Path
    ) -> None:
        (copy / world.glioma[0].id / "notes.txt").write_text("mine")
        detect_cases(world.glioma[:1], uncalibrated, QUICK.model_copy(update={"also": ("crps",)}), copy)
        names = {path.name for path in (copy / world.glioma[0].id).iterdir()}
        assert names == BASE | {"score-crps.nii.gz", "notes.txt"}


def test_a_failing_case_is_recorded_and_the_others_are_done(world: World, tmp_path: Path) -> None:
    case = world.glioma[0]
    truncated = tmp_path / "truncated.nii.gz"
    truncated.write_bytes(case.image.read_bytes()[:4000])
    garbage = tmp_path / "garbage.nii.gz"
    garbage.write_bytes(gzip.compress(b"not a scan"))
    bad = [Case("truncated", truncated), Case("garbage", garbage), Case("missing", tmp_path / "no.nii.gz"),
           replace(case, id="no-mask", mask=tmp_path / "no-mask.nii.gz")]  # fmt: skip
    run = detect_cases([*bad, case], world.model, QUICK, tmp_path / "run")
    failures = {failure.id: failure for failure in run.failures}
    assert set(failures) == {"truncated", "garbage", "missing", "no-mask"}
    for failure in failures.values():
        assert "Remedy" in failure.error
        assert ".nii.gz" in failure.error
        assert not failure.trace
    assert (tmp_path / "run" / case.id / "case.json").exists()
    assert not (tmp_path / "run" / "truncated" / "case.json").exists()
    assert run.info.cases == [case.id] and run.info.seconds > 0
    assert facts_of(tmp_path / "run" / "run.json") == run.info.model_dump(mode="json")
    assert len(json.loads((tmp_path / "run" / "failures.json").read_text())) == 4


def test_a_scan_that_was_damaged_since_is_no_longer_among_the_cases(world: World, run: Path, tmp_path: Path) -> None:
    copy, (source, other) = shutil.copytree(run, tmp_path / "run"), world.glioma
    case = replace(source, image=Path(shutil.copy(source.image, tmp_path)))
    detect_cases([case], world.model, QUICK, copy, force=True)
    case.image.write_bytes(source.image.read_bytes()[:4000])
    again = detect_cases([case, other], world.model, QUICK, copy)
    assert [failure.id for failure in again.failures] == [case.id]
    assert again.info.cases == [other.id]
    assert {path.name for path in (copy / case.id).iterdir()} == FILES - {"case.json"}
    assert len(detect_cases(world.glioma, world.model, QUICK, copy).info.cases) == 2


def test_workers_find_the_same_to_the_bit(world: World, run: Path, tmp_path: Path) -> None:
    detect_cases(world.glioma, world.model, QUICK, tmp_path / "run", spread=Spread(workers=2))
    for case in world.glioma:
        one, other = (voxels(folder / case.id / "anomaly.nii.gz") for folder in (run, tmp_path / "run"))
        np.testing.assert_array_equal(one, other)


def test_a_case_does_not_replace_that_of_another_scan(world: World, tmp_path: Path) -> None:
    """Subjects of a tree like HCP's have one file name; detected one by one, they would have one folder."""
    first, second = (
        Case("x", Path(shutil.copy(case.image, (tmp_path / name).with_suffix(".nii.gz"))))
        for case, name in zip(world.glioma[:2], ("a", "b"), strict=True)
    )
    out = tmp_path / "run"
    detect_cases([first], world.model, QUICK, out)
    with pytest.raises(CohortError, match="of another scan"):
        detect_cases([second], world.model, QUICK, out)
    moved = replace(first, image=Path(shutil.copy(first.image, tmp_path / "moved.nii.gz")))
    assert detect_cases([moved], world.model, QUICK, out).cases[0].image == str(first.image)
    shutil.copy(second.image, first.image)  # replaced in its place
    assert not detect_cases([first], world.model, QUICK, out).failures
    assert detect_cases([second], world.model, QUICK, out, force=True).cases[0].image == str(second.image)


def test_the_name_of_a_file_changes_nothing(world: World, run: Path, tmp_path: Path) -> None:
    """Random points are seeded by the scan's content: voxels and affine, not name, compression or stored type."""
    case, image = world.glioma[0], load_image(world.glioma[0].image)
    nib.save(nib.Nifti1Image(np.asarray(image.dataobj, dtype=np.float32), image.affine), tmp_path / "renamed.nii")
    found = found_in(Case("another", tmp_path / "renamed.nii"), world.model, QUICK)
    np.testing.assert_array_equal(found.maps["deviation"], voxels(run / case.id / "anomaly.nii.gz"))


class TestThreshold:
    @pytest.mark.parametrize(
        ("part", "changes"),
        [
            ("fit", {"iterations": 16}),
            ("fit", {"seed": 1}),
            ("filters", {"edge_mm": 33.0}),
            ("filters", {"tail": "dark"}),
        ],
    )
    def test_of_other_options_is_refused_naming_them(
        self, world: World, tmp_path: Path, part: str, changes: dict
    ) -> None:
        ((name, value),) = changes.items()
        options = QUICK.model_copy(update={part: getattr(QUICK, part).model_copy(update=changes)})
        with pytest.raises(UsageError, match=f"{name} was .*, is {value}") as caught:
            detect_cases(world.glioma, world.model, options, tmp_path / "run")
        assert Path(caught.value.where).parent == world.experiment / "calibrations"
        assert not (tmp_path / "run").exists()

    def test_of_another_state_of_the_model_is_refused(self, world: World) -> None:
        other = Model(replace(world.model.trained, hash="another"))
        with pytest.raises(UsageError, match="the checkpoint"):
            threshold_of(other, QUICK)

    def test_holds_for_every_score_of_the_same_options(self, world: World) -> None:
        calibrated = look_up(world.model, QUICK)
        assert calibrated is not None
        thresholds = calibrated.thresholds
        for name in ("deviation", "crps", "cross-entropy", "intensity"):
            assert threshold_of(world.model, QUICK.model_copy(update={"score": name, "also": ()})) == thresholds[name]

    def test_is_none_without_calibration(self, uncalibrated: Model) -> None:
        assert threshold_of(uncalibrated, QUICK) is None


def test_unknown_scores_and_options_are_refused() -> None:
    with pytest.raises(ValidationError, match="deviation, crps, cross-entropy, tail-probability, intensity"):
        DetectOptions(score="devation")
    with pytest.raises(ValidationError, match="magic"):
        DetectOptions(also=("crps", "magic"))
    with pytest.raises(ValidationError, match="iterations"):
        DetectOptions.model_validate({"fit": {"iterations": 0}})
    assert DetectOptions(score="crps", also=("crps", "intensity"), fit=FitOptions()).names == ["crps", "intensity"]


def test_a_loaded_model_is_frozen(world: World) -> None:
    model = load_model(world.experiment, device="cpu")
    decoder = model.trained.field.decoder
    assert not decoder.training
    assert not any(value.requires_grad for value in decoder.parameters())
    assert model.hash == world.model.hash


class TestTrust:
    def test_the_case_says_whether_its_fit_is_to_be_trusted(self, world: World, run: Path) -> None:
        for case in world.glioma:
            about = json.loads((run / case.id / "case.json").read_text())
            assert about["fit"]["trusted"] is (not about["fit"]["reasons"])
            assert set(about["fit"]["pose"]) == {"turn_degrees", "shift", "size"}
            assert about["case_score"] > 0

    def test_a_scan_with_a_lesion_scores_above_its_healthy_twin(self, world: World) -> None:
        scores = []
        for case in (world.healthy[0], world.glioma[0]):
            scores.append(found_in(case, world.model, QUICK).case_score)
        assert scores[0] < scores[1]
