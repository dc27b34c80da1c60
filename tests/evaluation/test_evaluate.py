"""Evaluation: the numbers of the results are those of the files, computed the slow way."""

from __future__ import annotations

import json
import math
import shutil
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
import pytest
from sklearn.metrics import average_precision_score, roc_auc_score, roc_curve

from anofield.data.cohort.case import Case
from anofield.detect.calibration import FOLDER, look_up
from anofield.detect.model import load_model
from anofield.detect.run import detect_cases
from anofield.errors import CohortError
from anofield.evaluation.case import dice
from anofield.evaluation.evaluate import evaluate
from anofield.evaluation.table import format_table
from anofield.reports.report import write_report
from helpers import QUICK, World, facts_of, small_world
from images import load_image


@pytest.fixture(scope="session")
def world(tmp_path_factory: pytest.TempPathFactory) -> World:
    return small_world(tmp_path_factory.getbasetemp() / "world")


def make_run(world: World, out: Path, cases: list[Case]) -> Path:
    return detect_cases(cases, world.model, QUICK, out).path


@pytest.fixture(scope="session")
def run(world: World, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Both gliomas and one healthy person."""
    return make_run(world, tmp_path_factory.mktemp("run"), [*world.glioma, world.healthy[0]])


@pytest.fixture(scope="session")
def results(run: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    out = tmp_path_factory.mktemp("results")
    evaluate(run, None, out)
    return json.loads((out / "results.json").read_text())


def voxels(case: Case, run: Path, name: str) -> tuple[np.ndarray, np.ndarray]:
    """Scores and truth inside the brain, from the files."""
    score = run / case.id / ("anomaly.nii.gz" if name == "deviation" else f"score-{name}.nii.gz")
    image, truth, values = (np.asarray(load_image(path).dataobj) for path in (case.image, case.label, score))
    return values[image != 0], truth[image != 0] > 0


@pytest.mark.parametrize("name", ["deviation", "crps", "intensity"])
def test_pooled_metrics_equal_scikit_learns_on_the_files(
    world: World, run: Path, results: dict[str, Any], name: str
) -> None:
    parts = [voxels(case, run, name) for case in (*world.glioma, world.healthy[0])]
    scores, truth = (np.concatenate(column) for column in zip(*parts, strict=True))
    row = results["scores"][name]
    assert row["ap"] == pytest.approx(average_precision_score(truth, scores), abs=2e-3)
    assert row["auroc"] == pytest.approx(roc_auc_score(truth, scores), abs=1e-4)
    assert row["dice_oracle"] == pytest.approx(dice(scores > row["threshold_oracle"], truth), abs=1e-9)
    assert row["dice_oracle"] >= row["dice_calibrated_pooled"]
    assert row["dice_calibrated_pooled"] == pytest.approx(dice(scores > row["threshold"], truth), abs=1e-9)
    fpr, tpr, _ = roc_curve(truth, scores, drop_intermediate=False)
    assert row["fpr95"] == pytest.approx(fpr[tpr > 0.95].min(), abs=1e-3)


@pytest.mark.parametrize("name", ["deviation", "crps", "intensity"])
def test_case_metrics_equal_numpys_on_the_files(world: World, run: Path, results: dict[str, Any], name: str) -> None:
    rows, dices = {row["id"]: row for row in results["cases"]}, []
    calibrated = look_up(world.model, QUICK)
    assert calibrated is not None
    threshold = calibrated.thresholds[name]
    for case in world.glioma:
        scores, truth = voxels(case, run, name)
        above = scores > threshold
        dices.append(2 * (above & truth).sum() / (above.sum() + truth.sum()))
        assert rows[case.id]["dice"][name] == pytest.approx(dices[-1])
        assert rows[case.id]["ap"][name] == pytest.approx(average_precision_score(truth, scores), abs=1e-9)
    summary = results["scores"][name]
    assert summary["dice_calibrated_mean"] == pytest.approx(np.mean(dices))
    assert summary["dice_calibrated_sd"] == pytest.approx(np.std(dices, ddof=1))


def test_a_person_without_lesion_counts_as_background_only(world: World, results: dict[str, Any]) -> None:
    row = next(row for row in results["cases"] if row["id"] == world.healthy[0].id)
    assert row["lesion_ml"] == 0
    assert set(row["dice"].values()) == set(row["ap"].values()) == {None}
    assert results["n_cases"] == 3


def test_a_run_of_healthy_people_only_has_no_numbers_and_no_crash(world: World, tmp_path: Path) -> None:
    run = make_run(world, tmp_path / "run", world.healthy)
    results = evaluate(run, None, tmp_path / "results")
    assert all(math.isnan(results.scores["deviation"].get(key)) for key in ("ap", "auroc", "dice_oracle", "fpr95"))
    written = json.loads((tmp_path / "results" / "results.json").read_text())
    assert written["scores"]["deviation"]["ap"] is None
    assert "–" in format_table(results)
    report = write_report(run, tmp_path / "report.html", results=tmp_path / "results")
    assert report.stat().st_size > 10_000


def test_without_calibration_only_the_calibrated_columns_are_empty(world: World, tmp_path: Path) -> None:
    bare = shutil.copytree(world.experiment, tmp_path / "bare", ignore=shutil.ignore_patterns(FOLDER))
    model = load_model(bare, device="cpu", precision="float32")
    run = detect_cases(world.glioma, model, QUICK, tmp_path / "run").path
    row = evaluate(run, None, tmp_path / "results").scores["deviation"]
    assert math.isnan(row.get("dice_calibrated_mean"))
    assert math.isnan(row.get("threshold"))
    assert 0 < row.ap <= 1


def test_labels_may_be_given_as_a_tree_a_folder_or_a_glob(
    world: World, run: Path, results: dict[str, Any], tmp_path: Path
) -> None:
    loose = tmp_path / "labels"
    loose.mkdir()
    for case in world.glioma:
        assert case.label is not None
        shutil.copy(case.label, loose / f"{case.id}_seg.nii.gz")
    forms: tuple[Path | str, ...] = (world.root / "glioma", loose, f"{loose}/*_seg.nii.gz")
    for number, labels in enumerate(forms):
        evaluate(run, labels, tmp_path / str(number))
        found = json.loads((tmp_path / str(number) / "results.json").read_text())
        assert {row["id"] for row in found["cases"]} == {case.id for case in world.glioma}
        assert found["cases"] == [row for row in results["cases"] if row["id"] != world.healthy[0].id]


def test_a_map_of_zeros_is_evaluated(world: World, run: Path, tmp_path: Path) -> None:
    copy, case = shutil.copytree(run, tmp_path / "run"), world.glioma[0]
    path = copy / case.id / "anomaly.nii.gz"
    image = load_image(path)
    nib.save(nib.Nifti1Image(np.zeros(image.shape, np.float32), None, image.header), path)
    rows = {row.id: row for row in evaluate(copy, None, tmp_path / "results").rows}
    assert rows[case.id].dice["deviation"] == 0.0


class TestRefusals:
    def test_of_a_folder_without_run(self, tmp_path: Path) -> None:
        with pytest.raises(CohortError, match="anofield detect"):
            evaluate(tmp_path, None, tmp_path / "results")

    def test_of_labels_of_other_cases(self, world: World, run: Path, tmp_path: Path) -> None:
        with pytest.raises(CohortError, match="no label belongs to any case"):
            evaluate(run, world.root / "train", tmp_path / "results")

    @pytest.mark.parametrize("content", ["{}", "[]", "null", '{"cases": 5}', '{"cases": ["a"], "score": 1}'])
    def test_of_a_damaged_run(self, run: Path, tmp_path: Path, content: str) -> None:
        copy = shutil.copytree(run, tmp_path / "run")
        (copy / "run.json").write_text(content)
        told = r"run.json: is damaged.*Remedy: run `anofield detect` again"
        with pytest.raises(CohortError, match=told):
            evaluate(copy, None, tmp_path / "results")
        with pytest.raises(CohortError, match=told):
            write_report(copy, tmp_path / "report.html")

    @pytest.mark.parametrize("key", ["score", "scores", "baselines", "threshold", "thresholds", "options"])
    def test_of_a_run_that_lacks_a_key(self, run: Path, tmp_path: Path, key: str) -> None:
        about = facts_of(run / "run.json")
        (tmp_path / "run.json").write_text(json.dumps({name: value for name, value in about.items() if name != key}))
        with pytest.raises(CohortError, match=rf"run.json: is damaged \(it lacks '{key}'\). Remedy"):
            evaluate(tmp_path, None, tmp_path / "results")

    @pytest.mark.parametrize("damage", ["unfinished", "other voxels", "truncated"])
    def test_of_one_case_leaves_the_others(self, world: World, run: Path, tmp_path: Path, damage: str) -> None:
        copy, case = shutil.copytree(run, tmp_path / "run"), world.glioma[0]
        path = copy / case.id / "anomaly.nii.gz"
        if damage == "unfinished":
            (copy / case.id / "case.json").unlink()
        elif damage == "other voxels":
            nib.save(load_image(path).slicer[:-2], path.with_name("cut.nii.gz"))
            path.with_name("cut.nii.gz").replace(path)
        else:
            path.write_bytes(path.read_bytes()[:2000])
        results = evaluate(copy, world.root / "glioma", tmp_path / "results")
        assert [failure.id for failure in results.failures] == [case.id]
        assert "Remedy" in results.failures[0].error
        without = tmp_path / "without"
        shutil.copytree(run, without)
        shutil.rmtree(without / case.id)
        alone = evaluate(without, world.root / "glioma", tmp_path / "results2")
        assert results.model_dump(mode="json")["scores"] == alone.model_dump(mode="json")["scores"]
