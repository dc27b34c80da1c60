"""Calibration: thresholds that mean what their sentence says, on people the model has not seen."""

from __future__ import annotations

import json
import re
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from anofield._files import sealed
from anofield.data.cohort.case import Case
from anofield.data.parallel import Spread
from anofield.detect.calibrate import QUANTILE, calibrate
from anofield.detect.calibration import look_up
from anofield.detect.model import Model, load_model
from anofield.detect.run import detect_cases
from anofield.errors import CohortError, ExperimentError, UsageError
from helpers import QUICK, World, found_in, small_world, threshold_of


@pytest.fixture(scope="session")
def world(tmp_path_factory: pytest.TempPathFactory) -> World:
    return small_world(tmp_path_factory.getbasetemp() / "world")


@pytest.fixture
def model(world: World, tmp_path: Path) -> Model:
    """A copy of the model whose calibration may be written."""
    path = shutil.copytree(world.experiment, tmp_path / "experiment")
    return load_model(path, device="cpu", precision="float32")


@pytest.mark.parametrize("name", ["deviation", "crps", "cross-entropy", "intensity"])
def test_the_promised_share_of_healthy_brain_lies_above_the_threshold(world: World, name: str) -> None:
    options = QUICK.model_copy(update={"score": name, "also": ()})
    threshold = threshold_of(world.model, options)
    assert threshold is not None
    above = brain = 0
    for case in world.healthy:
        found = found_in(case, world.model, options)
        above += int((found.maps[name][found.brain] > threshold).sum())
        brain += int(found.brain.sum())
    assert above / brain <= 1 - QUANTILE
    assert above / brain == pytest.approx(1 - QUANTILE, abs=2e-3)


def test_quantile_is_what_is_asked_for_and_said(world: World, model: Model) -> None:
    content, _ = calibrate(world.healthy, model, QUICK, quantile=0.9)
    before, now = look_up(world.model, QUICK), look_up(model, QUICK)
    assert before is not None and now is not None
    assert all(content.thresholds[name] <= old for name, old in before.thresholds.items())
    assert "10 % of the brain" in content.meaning
    (path,) = model.path.glob("calibrations/*.json")
    assert json.loads(path.read_text()) == sealed(content)
    assert now.thresholds == content.thresholds and now.quantile == 0.9


def test_content_does_not_depend_on_the_order_of_the_scans(world: World, model: Model) -> None:
    content, _ = calibrate(world.healthy[::-1], model, QUICK)
    before = look_up(world.model, QUICK)
    assert before is not None and content.thresholds == before.thresholds
    for name, percentiles in before.healthy_fit.items():
        assert content.fit[name] == pytest.approx(percentiles)


@pytest.mark.parametrize("standardise", [False, True])
def test_workers_measure_the_same_to_the_bit(world: World, model: Model, standardise: bool) -> None:
    options = QUICK.model_copy(update={"filters": QUICK.filters.model_copy(update={"standardise": standardise})})
    one, other = (calibrate(world.healthy, model, options, spread=Spread(workers))[0] for workers in (1, 2))
    assert one == other


def test_the_same_model_detects_with_the_threshold_it_was_just_given(world: World, tmp_path: Path) -> None:
    ignored = shutil.ignore_patterns("calibrations")
    model = load_model(shutil.copytree(world.experiment, tmp_path / "new", ignore=ignored), precision="float32")
    assert model.detect(world.glioma[0].image, options=QUICK).threshold is None
    assert "not calibrated" in repr(model)
    calibrated = model.calibrate(world.healthy, options=QUICK)
    for opened in (model, calibrated, load_model(model.path, precision="float32")):
        found = opened.detect(world.glioma[0].image, options=QUICK)
        assert found.threshold == threshold_of(world.model, QUICK)
        assert found.findings == found_in(world.glioma[0], world.model, QUICK).findings
    assert "calibrated: default, iterations 15, points 512" in repr(model)


def test_a_failing_scan_is_recorded_and_left_out(world: World, model: Model, tmp_path: Path) -> None:
    content, outcomes = calibrate([Case("gone", tmp_path / "gone.nii.gz"), world.healthy[0]], model, QUICK)
    assert content.cases == [world.healthy[0].id]
    assert [outcome.failure is None for outcome in outcomes] == [False, True]


def test_people_with_a_lesion_label_are_left_out(world: World, model: Model) -> None:
    content, outcomes = calibrate([*world.healthy, world.glioma[0]], model, QUICK)
    assert world.glioma[0].id not in content.cases
    (failure,) = [outcome.failure for outcome in outcomes if outcome.failure is not None]
    assert "lesion label" in failure.error


def test_a_lesion_of_any_rater_counts(world: World, model: Model, tmp_path: Path) -> None:
    one, other = world.healthy
    assert other.label is not None and world.glioma[0].label is not None
    rated = replace(other, more_labels=(world.glioma[0].label,))
    content, outcomes = calibrate([one, rated], model, QUICK)
    assert content.cases == [one.id]
    (failure,) = [outcome.failure for outcome in outcomes if outcome.failure is not None]
    assert "lesion label" in failure.error and str(world.glioma[0].label) in failure.error


def test_where_every_scan_fails_the_first_are_named(model: Model, tmp_path: Path) -> None:
    with pytest.raises(CohortError, match=r"none of 2 healthy scans.*(?i:away): .*gone: "):
        calibrate([Case(name, tmp_path / f"{name}.nii.gz") for name in ("gone", "away")], model, QUICK)


def test_the_share_kept_is_that_of_every_person(world: World, model: Model) -> None:
    """`kept` is counted from the highest scores alone; here it is counted from whole maps."""
    content, _ = calibrate(world.healthy, model, QUICK, quantile=0.99)
    score, kept = content.kept.score, content.kept
    found = [found_in(case, model, QUICK) for case in world.healthy]
    shares = [float((one.maps[score][one.brain] > content.thresholds[score]).mean()) for one in found]
    assert kept.share_above == pytest.approx(shares)
    assert kept.mean == pytest.approx(np.mean(shares))
    assert kept.interval is not None and kept.interval[0] <= kept.mean <= kept.interval[1]


def test_training_cases_are_refused(world: World, model: Model) -> None:
    (path,) = model.path.glob("calibrations/*.json")
    before = path.read_bytes()
    with pytest.raises(
        UsageError, match=rf"1 of \d+ healthy scans have the id of a training scan .{world.training[3].id}"
    ):
        calibrate([*world.healthy, world.training[3]], model, QUICK)
    assert path.read_bytes() == before


@pytest.mark.parametrize("quantile", [0.0, 1.0, 99.5])
def test_a_quantile_that_is_none_is_refused(world: World, model: Model, quantile: float) -> None:
    with pytest.raises(UsageError, match="between 0 and 1"):
        calibrate(world.healthy, model, QUICK, quantile=quantile)


def test_no_usable_scan_is_an_error(world: World, model: Model, tmp_path: Path) -> None:
    with pytest.raises(CohortError, match="none of 1 healthy scans"):
        calibrate([replace(world.healthy[0], image=tmp_path / "gone.nii.gz")], model, QUICK)


class TestReferenceMaps:
    options = QUICK.model_copy(update={"also": (), "filters": QUICK.filters.model_copy(update={"standardise": True})})

    def test_the_promise_holds_for_people_measured_by_the_others(self, world: World, model: Model) -> None:
        content, _ = calibrate(world.healthy, model, self.options, quantile=0.99)
        assert content.kept.mean == pytest.approx(0.01, abs=2e-3)
        loaded = load_model(model.path, device="cpu", precision="float32")
        found = found_in(world.glioma[0], loaded, self.options)
        assert threshold_of(loaded, self.options) is not None
        assert np.isfinite(found.maps["deviation"]).all()
        assert not found.maps["deviation"][~found.brain].any()

    def test_content_is_the_same_the_second_time(self, world: World, model: Model) -> None:
        first, second = (calibrate(world.healthy, model, self.options)[0] for _ in range(2))
        assert first == second

    def test_without_maps_such_options_are_refused(self, world: World) -> None:
        with pytest.raises(UsageError, match="anofield calibrate"):
            found_in(world.glioma[0], world.model, self.options)

    def test_a_calibration_without_maps_names_none(self, world: World, model: Model) -> None:
        content, _ = calibrate(world.healthy, model, QUICK)
        assert content.reference is None
        found = look_up(model, QUICK)
        assert found is not None and found.reference == {}


class TestSideBySide:
    maps = TestReferenceMaps.options

    @pytest.fixture
    def both(self, world: World, model: Model) -> Model:
        """Calibrated with and without reference maps."""
        calibrate(world.healthy, model, self.maps)
        return load_model(model.path, device="cpu", precision="float32")

    def test_every_one_is_used_with_its_own_options(self, world: World, both: Model, tmp_path: Path) -> None:
        thresholds = [threshold_of(both, options) for options in (QUICK, self.maps)]
        assert thresholds[0] == threshold_of(world.model, QUICK) != thresholds[1]
        for options, threshold in zip((QUICK, self.maps), thresholds, strict=True):
            run = detect_cases(world.glioma[:1], both, options, tmp_path / "run", force=True)
            assert run.cases[0].threshold == threshold
            assert run.info.threshold is not None and run.info.threshold.value == threshold

    def test_the_same_settings_replace_their_own_alone(self, world: World, both: Model) -> None:
        before = threshold_of(both, QUICK), threshold_of(both, self.maps)
        files = sorted((both.path / "calibrations").iterdir())
        calibrate(world.healthy, both, QUICK, quantile=0.9)
        assert sorted((both.path / "calibrations").iterdir()) == files
        assert threshold_of(both, self.maps) == before[1] and threshold_of(both, QUICK) != before[0]

    def test_a_run_goes_on_whatever_else_is_calibrated(self, world: World, model: Model, tmp_path: Path) -> None:
        def stamps(opened: Model) -> list[int]:
            detect_cases(world.glioma[:1], opened, QUICK, tmp_path / "run")
            return [path.stat().st_mtime_ns for path in sorted((tmp_path / "run").glob("*/*"))]

        first = stamps(model)
        calibrate(world.healthy, model, self.maps)
        assert stamps(load_model(model.path, device="cpu", precision="float32")) == first
        calibrate(world.healthy, model, QUICK, quantile=0.9)
        assert stamps(load_model(model.path, device="cpu", precision="float32")) != first

    def test_damaged_maps_stop_their_own_run_before_the_first_scan(
        self, world: World, both: Model, tmp_path: Path
    ) -> None:
        (maps,) = both.path.glob("calibrations/*.npz")
        maps.write_bytes(b"no maps")
        opened = load_model(both.path, device="cpu", precision="float32")
        with pytest.raises(ExperimentError, match=f"{maps.name}.*damaged or newer"):
            detect_cases(world.glioma, opened, self.maps, tmp_path / "run")
        assert not (tmp_path / "run").exists()
        assert threshold_of(opened, QUICK) is not None

    def test_info_lists_them(self, world: World, both: Model, anofield: Callable[..., Any]) -> None:
        (both.path / "calibrations" / "0.json").write_text("{")
        listed = json.loads(anofield("info", both.path, "--json").out)
        quick = "default, iterations 15, points 512"
        assert {one["settings"] for one in listed["calibrations"]} == {
            quick, f"{quick}, standardise True"
        }  # fmt: skip
        assert all(one["people"] == 2 and one["holds"] for one in listed["calibrations"])
        told = anofield("info", both.path).out
        assert re.search(f"^  {quick}  +2 subjects  quantile 0.999 ", told, re.MULTILINE)
        assert "0.json: cannot be read" in told


def test_info_of_a_model_without_calibration(model: Model, anofield: Callable[..., Any]) -> None:
    shutil.rmtree(model.path / "calibrations")
    origin = "8 synthetic people (anofield phantom), T2w"
    assert anofield("info", model.path).out == f"{model.path}: trained on {origin}; tail bright\nnot calibrated\n"
    assert anofield("info", model.path / "ModelParameters").code == 5
