"""Calibration: thresholds that mean what their sentence says, on people the model has not seen."""

from __future__ import annotations

import json
import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from anofield.calibrate import QUANTILE, calibrate
from anofield.cohort import Case
from anofield.detect import detect_case, threshold_of
from anofield.errors import CohortError, UsageError
from anofield.model import Model, load_model
from helpers import QUICK, World, small_world


@pytest.fixture(scope="session")
def world(tmp_path_factory: pytest.TempPathFactory) -> World:
    return small_world(tmp_path_factory.getbasetemp() / "world")


@pytest.fixture
def model(world: World, tmp_path: Path) -> Model:
    """A copy of the model whose calibration may be written."""
    return load_model(shutil.copytree(world.experiment, tmp_path / "experiment"), device="cpu")


@pytest.mark.parametrize("name", ["deviation", "crps", "cross-entropy", "intensity"])
def test_the_promised_share_of_healthy_brain_lies_above_the_threshold(world: World, name: str) -> None:
    options = QUICK.model_copy(update={"score": name, "also": ()})
    threshold = threshold_of(world.model, options)
    assert threshold is not None
    above = brain = 0
    for case in world.healthy:
        found = detect_case(case, world.model, options)
        above += int((found.maps[name][found.brain] > threshold).sum())
        brain += int(found.brain.sum())
    assert above / brain <= 1 - QUANTILE
    assert above / brain == pytest.approx(1 - QUANTILE, abs=2e-3)


def test_quantile_is_what_is_asked_for_and_said(world: World, model: Model) -> None:
    content, _ = calibrate(world.healthy, model, QUICK, quantile=0.9)
    assert all(content["thresholds"][name] <= old for name, old in world.model.calibration["thresholds"].items())
    assert "10 % of the brain" in content["meaning"]
    assert json.loads((model.path / "calibration.json").read_text()) == content
    assert load_model(model.path, device="cpu").calibration == content


def test_content_does_not_depend_on_the_order_of_the_scans(world: World, model: Model) -> None:
    content, _ = calibrate(world.healthy[::-1], model, QUICK)
    assert content["thresholds"] == world.model.calibration["thresholds"]
    for name, percentiles in world.model.calibration["fit"].items():
        assert content["fit"][name] == pytest.approx(percentiles)


def test_a_failing_scan_is_recorded_and_left_out(world: World, model: Model, tmp_path: Path) -> None:
    content, outcomes = calibrate([Case("gone", tmp_path / "gone.nii.gz"), world.healthy[0]], model, QUICK)
    assert content["cases"] == [world.healthy[0].id]
    assert [outcome.failure is None for outcome in outcomes] == [False, True]


def test_training_cases_are_refused(world: World, model: Model) -> None:
    before = (model.path / "calibration.json").read_bytes()
    with pytest.raises(UsageError, match=f"1 of the healthy scans were trained on .{world.training[3].id}"):
        calibrate([*world.healthy, world.training[3]], model, QUICK)
    assert (model.path / "calibration.json").read_bytes() == before


@pytest.mark.parametrize("quantile", [0.0, 1.0, 99.5])
def test_a_quantile_that_is_none_is_refused(world: World, model: Model, quantile: float) -> None:
    with pytest.raises(UsageError, match="between 0 and 1"):
        calibrate(world.healthy, model, QUICK, quantile=quantile)


def test_no_usable_scan_is_an_error(world: World, model: Model, tmp_path: Path) -> None:
    with pytest.raises(CohortError, match="no healthy scan"):
        calibrate([replace(world.healthy[0], image=tmp_path / "gone.nii.gz")], model, QUICK)


class TestReferenceMaps:
    options = QUICK.model_copy(
        update={"also": (), "filters": QUICK.filters.model_copy(update={"standardise": True, "fine_mm": 9.0})}
    )

    def test_the_promise_holds_for_people_measured_by_the_others(self, world: World, model: Model) -> None:
        content, _ = calibrate(world.healthy, model, self.options, quantile=0.99)
        assert set(content["limits"]) == set(content["thresholds"])
        loaded = load_model(model.path, device="cpu")
        found = detect_case(world.glioma[0], loaded, self.options)
        assert threshold_of(loaded, self.options) is not None
        assert np.isfinite(found.maps["deviation"]).all()
        assert not found.maps["deviation"][~found.brain].any()

    def test_content_is_the_same_the_second_time(self, world: World, model: Model) -> None:
        first, second = (calibrate(world.healthy, model, self.options)[0] for _ in range(2))
        assert first == second

    def test_without_maps_such_options_are_refused(self, world: World) -> None:
        with pytest.raises(UsageError, match="anofield calibrate"):
            detect_case(world.glioma[0], world.model, self.options)

    def test_a_calibration_without_maps_names_none(self, world: World, model: Model) -> None:
        calibrate(world.healthy, model, self.options)
        content, _ = calibrate(world.healthy, model, QUICK)
        assert "reference" not in content
        assert load_model(model.path, device="cpu").reference == {}
