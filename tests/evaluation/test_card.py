"""The metric card of a run and the comparison of two: figures follow from the files, refusals name the remedy."""

from __future__ import annotations

import json
import math
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
import pytest
from scipy import ndimage
from sklearn.metrics import average_precision_score, precision_recall_curve, roc_auc_score, roc_curve
from typer.testing import CliRunner

from anofield.cli import app
from anofield.data.cohort.case import Case
from anofield.detect.calibrate import QUANTILE
from anofield.detect.run import detect_cases
from anofield.errors import CohortError, UsageError
from anofield.evaluation.compare import compare
from anofield.evaluation.evaluate import evaluate
from anofield.evaluation.lesions import OVERLAP
from anofield.evaluation.options import Options
from anofield.evaluation.results import read_results
from anofield.evaluation.surface import available
from anofield.evaluation.table import format_comparison, format_table
from helpers import QUICK, World, facts_of, small_world
from images import load_image

FEW = Options(resamples=60)
SCORES = ["deviation", "crps", "intensity"]


@pytest.fixture(scope="session")
def world(tmp_path_factory: pytest.TempPathFactory) -> World:
    return small_world(tmp_path_factory.getbasetemp() / "world")


@pytest.fixture(scope="session")
def run(world: World, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Both gliomas and one healthy person."""
    return make_run(world, tmp_path_factory.mktemp("run"), [*world.glioma, world.healthy[0]])


def make_run(world: World, out: Path, cases: list[Case], **changes: Any) -> Path:
    model, options = world.model, QUICK.model_copy(update=changes)
    return detect_cases(cases, model, options, out).path


@pytest.fixture(scope="session")
def results(run: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    out = tmp_path_factory.mktemp("results")
    evaluate(run, None, out, FEW)
    content: dict[str, Any] = json.loads((out / "results.json").read_text())
    return content


def part_of(run: Path, out: Path, cases: list[Case], **facts: Any) -> Path:
    """A run with some of the cases of another, whose `case.json` says something else."""
    shutil.copytree(run, out)
    ids = {case.id for case in cases}
    for folder in (folder for folder in out.iterdir() if folder.is_dir() and folder.name not in ids):
        shutil.rmtree(folder)
    for file in (out / case_id / "case.json" for case_id in ids):
        file.write_text(json.dumps({**facts_of(file), **facts}))
    return out


def arrays(case: Case, run: Path, name: str = "deviation") -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Scan, truth and score of a case from its files."""
    score = run / case.id / ("anomaly.nii.gz" if name == "deviation" else f"score-{name}.nii.gz")
    image, truth, values = (np.asarray(load_image(path).dataobj) for path in (case.image, case.label, score))
    return image, truth > 0, values


def edit(path: Path, change: Callable[[np.ndarray], np.ndarray], affine: np.ndarray | None = None) -> None:
    """Rewrite an image with other voxels, or at another place."""
    image = load_image(path)
    header, data = image.header, change(np.asarray(image.dataobj))
    nib.save(nib.Nifti1Image(data, image.affine if affine is None else affine, header), path.with_name("new.nii.gz"))
    path.with_name("new.nii.gz").replace(path)


class TestCard:
    def test_every_figure_has_an_interval_around_it_or_says_why_not(self, results: dict[str, Any]) -> None:
        for metrics in results["card"].values():
            for key, row in metrics.items():
                if row["ci"] is None:
                    assert row["value"] is None or key.startswith(("healthy_ml", "scan_auroc"))  # of one healthy scan
                    assert row["resamples"] == 0
                elif key in ("ap_scan", "dice_calibrated_mean", "lesion_recall_calibrated", "scan_auroc"):
                    assert row["ci"][0] - 1e-9 <= row["value"] <= row["ci"][1] + 1e-9
                assert 0 <= row["resamples"] <= 60

    def test_card_and_scores_say_the_same(self, results: dict[str, Any]) -> None:
        for name, metrics in results["card"].items():
            row = results["scores"][name]
            for key in ("ap", "auroc", "fpr95", "dice_calibrated_mean", "dice_calibrated_pooled", "dice_oracle_mean"):
                assert metrics[key]["value"] == pytest.approx(row[key])
            assert metrics["dice_oracle_pooled"]["value"] == row["dice_oracle"]

    @pytest.mark.parametrize("name", SCORES)
    def test_pooled_figures_are_exactly_scikit_learns(
        self, world: World, run: Path, results: dict[str, Any], name: str
    ) -> None:
        cases = [arrays(case, run, name) for case in (*world.glioma, world.healthy[0])]
        scores = np.concatenate([values[image != 0] for image, _, values in cases])
        truth = np.concatenate([mask[image != 0] for image, mask, _ in cases])
        row = results["scores"][name]
        assert row["exact"]
        assert row["ap"] == pytest.approx(average_precision_score(truth, scores), abs=1e-12)
        assert row["auroc"] == pytest.approx(roc_auc_score(truth, scores), abs=1e-12)
        assert row["ap_bounds"] == [row["ap"]] * 2

    def test_lesions_are_those_of_the_masks_that_detect_wrote(
        self, world: World, run: Path, results: dict[str, Any]
    ) -> None:
        cube, rows = np.ones((3, 3, 3)), {row["id"]: row["lesions"] for row in results["cases"]}
        total = np.zeros(4)
        for case in (*world.glioma, world.healthy[0]):
            image, truth, _ = arrays(case, run)
            mask = np.asarray(load_image(run / case.id / "mask.nii.gz").dataobj) > 0
            lesions, n = ndimage.label(truth & (image != 0), cube)
            findings, m = ndimage.label(mask, cube)
            found = sum(mask[lesions == i].mean() >= OVERLAP for i in range(1, n + 1))
            false = sum(not truth[findings == i].any() for i in range(1, m + 1))
            row = rows[case.id]
            assert (row["true"], row["found"], row["findings"], row["false"]) == (n, found, m, false)
            total += (n, found, m, false)
        card = results["card"]["deviation"]
        assert card["lesion_recall_calibrated"]["value"] == pytest.approx(total[1] / total[0])
        assert card["lesion_precision_calibrated"]["value"] == pytest.approx(1 - total[3] / total[2])
        assert card["false_per_scan_calibrated"]["value"] == pytest.approx(total[3] / 3)
        assert sum(row["lesions"] for row in results["by_size"]["rows"]) == total[0]

    def test_recall_of_the_froc_is_the_best_with_at_most_one_false_finding_per_scan(
        self, results: dict[str, Any]
    ) -> None:
        points = results["froc"]["deviation"]
        assert len(points) > 4
        best = max((point["recall"] for point in points if point["false_per_scan"] <= 1), default=0)
        assert results["card"]["deviation"]["froc_recall_at_1"]["value"] == best

    def test_healthy_scans_count_voxels_above_the_threshold(
        self, world: World, run: Path, results: dict[str, Any]
    ) -> None:
        image, _, values = arrays(world.healthy[0], run)
        ml = abs(np.linalg.det(load_image(world.healthy[0].image).affine[:3, :3])) / 1000
        healthy = results["healthy"]
        above = (values[image != 0] > results["scores"]["deviation"]["threshold"]).sum() * ml
        assert healthy["scans"] == 1
        assert healthy["above_ml_mean"] == pytest.approx(above)
        assert healthy["promised_ml_mean"] == pytest.approx((1 - QUANTILE) * (image != 0).sum() * ml)

    def test_a_run_of_healthy_people_adds_scans_and_no_voxels(
        self, world: World, run: Path, results: dict[str, Any], tmp_path: Path
    ) -> None:
        beside = make_run(world, tmp_path / "healthy", world.healthy[1:])
        found = evaluate(run, None, tmp_path / "out", Options(resamples=20, healthy=beside))
        assert found.healthy is not None and found.healthy.scans == 2
        assert found.n_cases == len(found.rows) == 3
        for name in SCORES:
            assert found.scores[name].ap == results["scores"][name]["ap"]
            assert found[name].false_per_scan_calibrated.value == pytest.approx(
                results["card"][name]["false_per_scan_calibrated"]["value"]
            )

    def test_seed_decides_the_intervals_and_nothing_else(self, run: Path, tmp_path: Path) -> None:
        one, same, other = (
            evaluate(run, None, tmp_path / str(i), Options(resamples=40, seed=seed)) for i, seed in enumerate((0, 0, 1))
        )
        assert one["deviation"].ap == same["deviation"].ap
        assert one["deviation"].ap.interval != other["deviation"].ap.interval
        assert one.scores["deviation"].ap == other.scores["deviation"].ap

    @pytest.mark.skipif(not available(), reason="needs MONAI (extra: metrics)")
    def test_scans_without_any_finding_are_counted_not_averaged(self, run: Path, tmp_path: Path, world: World) -> None:
        copy = shutil.copytree(run, tmp_path / "run")
        edit(copy / world.glioma[0].id / "anomaly.nii.gz", np.zeros_like)
        found = evaluate(copy, None, tmp_path / "out", FEW)
        assert found.surface is not None
        row = found.surface["deviation"]["calibrated"]
        assert row.nothing_found == 1
        assert row.measured == 1
        assert np.isfinite(found["deviation"].hd95_calibrated.value)

    def test_the_table_is_at_most_120_columns_wide_and_names_the_oracle(self, run: Path, tmp_path: Path) -> None:
        text = format_table(evaluate(run, None, tmp_path, FEW))
        assert text == format_table(read_results(tmp_path))
        assert max(map(len, text.splitlines())) <= 120
        assert "oracle (test labels)" in text
        for line in text.splitlines():
            assert "oracle" not in line or "test labels" in line


class TestPublishedFigures:
    def test_all_voxels_count_with_the_background(self, world: World, run: Path, tmp_path: Path) -> None:
        found = evaluate(run, None, tmp_path / "out", Options(space="all", resamples=20))
        cases = [arrays(case, run) for case in (*world.glioma, world.healthy[0])]
        scores, truth = (np.concatenate([case[i].reshape(-1) for case in cases]) for i in (2, 1))
        row = found.scores["deviation"]
        assert row.ap == pytest.approx(average_precision_score(truth, scores), abs=1e-12)
        assert row.auroc == pytest.approx(roc_auc_score(truth, scores), abs=1e-12)

    @pytest.mark.parametrize("name", SCORES)
    def test_the_preset_computes_what_the_notebook_computed(
        self, world: World, run: Path, tmp_path: Path, name: str
    ) -> None:
        found = evaluate(run, None, tmp_path / "out", Options(preset="ifl2021"))
        cases = [arrays(case, run, name) for case in (*world.glioma, world.healthy[0])]
        scores, truth = (np.concatenate([case[i].reshape(-1) for case in cases]) for i in (2, 1))
        row = found.scores[name]
        precision, recall, thresholds = precision_recall_curve(truth, scores)
        with np.errstate(invalid="ignore"):
            best = np.nan_to_num(2 * precision * recall / (precision + recall))
        at = thresholds[best[:-1].argmax()]
        fpr, tpr, _ = roc_curve(truth, scores, drop_intermediate=False)
        dices = [2 * (mask & (v >= at)).sum() / (mask.sum() + (v >= at).sum()) for _, mask, v in cases[:2]]
        assert row.ap == pytest.approx(average_precision_score(truth, scores), abs=1e-12)
        assert row.fpr95 == pytest.approx(fpr[tpr > 0.95].min(), abs=1e-12)
        assert row.dice_oracle == pytest.approx(best.max(), abs=1e-12)
        assert row.threshold_oracle == at
        assert (row.dice_oracle_mean, row.dice_oracle_sd) == pytest.approx((np.mean(dices), np.std(dices)))
        written = json.loads((tmp_path / "out" / "results.json").read_text())
        assert found.card is None and "card" not in written and "threshold" not in written["scores"][name]


class TestValidationThreshold:
    def test_is_the_best_of_the_other_cohort(self, world: World, run: Path, tmp_path: Path) -> None:
        parts = [make_run(world, tmp_path / case.id, [case]) for case in world.glioma]
        chosen = evaluate(parts[0], None, tmp_path / "validation", FEW).scores["deviation"].threshold_oracle
        found = evaluate(parts[1], None, tmp_path / "o", Options(resamples=9, threshold_from=tmp_path / "validation"))
        row, (image, truth, values) = found.scores["deviation"], arrays(world.glioma[1], parts[1])
        above = (values > chosen) & (image != 0)
        assert row.threshold_validation == chosen
        assert row.dice_validation_mean == pytest.approx(2 * (above & truth).sum() / (above.sum() + truth.sum()))
        assert row.dice_oracle >= row.get("dice_validation_mean")
        with pytest.raises(UsageError, match="with the test"):
            evaluate(run, None, tmp_path / "x", Options(threshold_from=tmp_path / "validation"))

    @pytest.mark.parametrize("content", ["", "[]", "{}", '{"scores": {}, "labels": {}}'])
    def test_of_anything_but_results_is_refused(self, run: Path, tmp_path: Path, content: str) -> None:
        (tmp_path / "results.json").write_text(content)
        with pytest.raises(UsageError, match=r"results\.json|threshold for none"):
            evaluate(run, None, tmp_path / "out", Options(threshold_from=tmp_path))


class TestCompare:
    def test_a_run_equals_itself(self, run: Path, tmp_path: Path) -> None:
        found = compare(run, run, None, tmp_path, FEW)
        for key, row in found.differences.items():
            if found.a.values[key] == found.a.values[key]:
                lone = key.startswith(("healthy_ml", "scan_auroc"))  # there is one healthy scan
                assert row.value == 0.0
                assert row.ci == (None if lone else (0.0, 0.0)), key
                assert math.isnan(row.p) if lone else row.p == 1.0, key
        assert json.loads((tmp_path / "comparison.json").read_text())["n_cases"] == 3
        assert "AP, voxels pooled" in format_comparison(found)

    def test_differences_change_sign_with_the_order(self, world: World, run: Path, tmp_path: Path) -> None:
        other = make_run(world, tmp_path / "other", [*world.glioma, world.healthy[0]], score="intensity", also=())
        one, back = compare(run, other, None, tmp_path / "1", FEW), compare(other, run, None, tmp_path / "2", FEW)
        assert one.a.score == "deviation"
        assert one.b.score == "intensity"
        for key in ("ap", "auroc", "dice_calibrated_mean", "lesion_f1_calibrated"):
            assert one.differences[key].value == pytest.approx(-back.differences[key].value)
            assert one.differences[key].ci == pytest.approx(tuple(-v for v in (back.differences[key].ci or ())[::-1]))
        assert one.differences["ap"].value > 0

    def test_other_cases_or_labels_are_refused(self, world: World, run: Path, tmp_path: Path) -> None:
        fewer = make_run(world, tmp_path / "fewer", world.glioma)
        with pytest.raises(UsageError, match="in this run only"):
            compare(run, fewer, None, tmp_path / "out", FEW)
        copy, case = shutil.copytree(fewer, tmp_path / "copy"), world.glioma[0]
        label = tmp_path / "label.nii.gz"
        shutil.copy(case.label or "", label)
        facts = facts_of(copy / case.id / "case.json")
        (copy / case.id / "case.json").write_text(json.dumps({**facts, "label": str(label)}))
        compare(fewer, copy, None, tmp_path / "out", FEW)  # another file with the same content
        edit(label, np.zeros_like)
        with pytest.raises(UsageError, match="different labels"):
            compare(fewer, copy, None, tmp_path / "out", FEW)


class TestOneSubject:
    """Resamples of one subject are all the same: an interval of width 0 and a small p would be made up."""

    def test_alone_has_neither_interval_nor_band(self, world: World, run: Path, tmp_path: Path) -> None:
        lone = part_of(run, tmp_path / "run", [world.glioma[0]])
        found = evaluate(lone, None, tmp_path / "out", FEW)
        assert found["deviation"].ap.value > 0
        tables: list[dict[str, Any]] = [*(found.card or {}).values(), *(found.margins or {}).values()]
        for rows in tables:
            assert {row.ci for row in rows.values()} == {None}
        assert found.bands == {name: {} for name in SCORES}
        assert "[0" not in format_table(found) and "[< 2 subjects]" in format_table(found)

    def test_with_a_lesion_among_healthy_ones_has_none_but_for_what_all_share(
        self, world: World, run: Path, tmp_path: Path
    ) -> None:
        lone = part_of(run, tmp_path / "run", [world.glioma[0], world.healthy[0]])
        card = evaluate(lone, None, tmp_path / "out", FEW)["deviation"].card
        with_interval = {key for key, row in card.items() if row.ci is not None}
        assert with_interval == {key for key in card if key.startswith("false_per_scan")}

    def test_two_scans_of_one_person_are_one_subject(self, world: World, run: Path, tmp_path: Path) -> None:
        both = part_of(run, tmp_path / "run", world.glioma, subject="one")
        found = evaluate(both, None, tmp_path / "out", FEW)
        assert found.rules.subjects == 1
        assert {row.ci for row in found["deviation"].card.values()} == {None}

    def test_is_compared_without_interval_and_p(self, world: World, run: Path, tmp_path: Path) -> None:
        lone = part_of(run, tmp_path / "run", [world.glioma[0]])
        other = make_run(world, tmp_path / "other", [world.glioma[0]], score="intensity", also=())
        found = compare(lone, other, None, tmp_path / "out", FEW)
        assert found.differences["ap"].value != 0
        for row in found.differences.values():
            assert row.ci is None and math.isnan(row.p)
        assert " –" in format_comparison(found) and "[< 2 subjects]" in format_comparison(found)
        command = ["evaluate", "--compare", str(lone), str(other), "-o", str(tmp_path / "out")]
        printed = CliRunner().invoke(app, command).output
        assert "1 case, " in printed and "No intervals: they need two subjects or more." in printed


class TestRefusals:
    @pytest.mark.parametrize("damage", ["missing", "shape", "affine", "nan label", "nan map"])
    def test_a_case_that_cannot_be_used_is_named_and_the_others_counted(
        self, world: World, run: Path, tmp_path: Path, damage: str
    ) -> None:
        copy, case = shutil.copytree(run, tmp_path / "run"), world.glioma[0]
        labels = tmp_path / "labels"
        labels.mkdir()
        for person in world.glioma:
            shutil.copy(person.label or "", labels / f"{person.id}_seg.nii.gz")
        label, moved = labels / f"{case.id}_seg.nii.gz", np.eye(4)
        moved[:3, 3] = 30

        def holed(data: np.ndarray) -> np.ndarray:
            return np.where(np.arange(data.size).reshape(data.shape) == 7, np.nan, data).astype(np.float32)

        if damage == "missing":
            label.unlink()
            label.symlink_to(tmp_path / "nowhere.nii.gz")
        elif damage == "shape":
            edit(label, lambda data: data[:-1])
        elif damage == "affine":
            edit(label, lambda data: data, affine=moved @ load_image(label).affine)
        elif damage == "nan label":
            nib.save(nib.Nifti1Image(holed(np.asarray(load_image(label).dataobj)), load_image(label).affine), label)
        else:
            edit(copy / case.id / "anomaly.nii.gz", holed)
        found = evaluate(copy, str(labels / "*_seg.nii.gz"), tmp_path / "out", FEW)
        assert [row.id for row in found.rows] == [world.glioma[1].id]
        if damage != "missing":  # a dangling link may be no label at all
            assert [failure.id for failure in found.failures] == [case.id]
            assert "Remedy" in found.failures[0].error

    def test_of_a_healthy_run_that_does_not_fit(self, world: World, run: Path, tmp_path: Path) -> None:
        with pytest.raises(UsageError, match="shares 3 cases"):
            evaluate(run, None, tmp_path / "out", Options(healthy=run))
        other = make_run(world, tmp_path / "other", world.healthy[1:], also=())
        with pytest.raises(UsageError, match="differs in options"):
            evaluate(run, None, tmp_path / "out", Options(healthy=other))
        with pytest.raises(CohortError, match="anofield detect"):
            evaluate(run, None, tmp_path / "out", Options(healthy=tmp_path))

    def test_of_options_without_sense(self, run: Path, tmp_path: Path) -> None:
        with pytest.raises(UsageError, match="resamples"):
            Options(resamples=0)
        with pytest.raises(UsageError, match="ml"):
            Options(min_lesion_ml=-1)
        with pytest.raises(UsageError, match="preset"):
            compare(run, run, None, tmp_path, Options(preset="ifl2021"))

    @pytest.mark.parametrize(
        "flag, given",
        [
            ("space", {"space": "brain"}),
            ("threshold-from", {"threshold_from": "results"}),
            ("healthy", {"healthy": "run"}),
            ("min-lesion-ml", {"min_lesion_ml": 0.1}),
            ("bootstrap", {"resamples": 10}),
            ("seed", {"seed": 1}),
        ],
    )
    def test_of_what_the_preset_would_ignore(self, flag: str, given: dict[str, Any]) -> None:
        with pytest.raises(UsageError, match=f"--preset ifl2021 with --{flag}"):
            Options(preset="ifl2021", **given)
        Options(preset="ifl2021", space="all", dataset="brats")


class TestCommand:
    def test_both_forms_print_a_table_and_json(self, run: Path, tmp_path: Path) -> None:
        one = CliRunner().invoke(app, ["evaluate", "-p", str(run), "-o", str(tmp_path / "1"), "--bootstrap", "20"])
        assert one.exit_code == 0, one.output
        assert "oracle (test labels)" in one.output
        arguments = ["evaluate", "--compare", str(run), str(run), "-o", str(tmp_path / "2"), "--bootstrap", "20"]
        assert "A − B" in CliRunner().invoke(app, arguments).output
        printed = CliRunner().invoke(app, [*arguments, "--json"])
        assert json.loads(printed.stdout)["differences"]["ap"]["value"] == 0

    @pytest.mark.parametrize("arguments", [[], ["-p", "a", "--compare", "a", "b"]])
    def test_one_run_or_two_are_needed(self, arguments: list[str], tmp_path: Path) -> None:
        found = CliRunner().invoke(app, ["evaluate", "-o", str(tmp_path), *arguments])
        assert isinstance(found.exception, UsageError)
