"""Figures of maps in memory: those of a run that was written and evaluated, and the false volume of healthy people."""

from __future__ import annotations

import numpy as np
import pytest

from anofield import study
from anofield.baselines.run import baseline_options, make_settings, train_baseline
from anofield.benchmark.measure import measure, see
from anofield.detect.calibrate import calibrate
from anofield.detect.calibration import look_up
from anofield.detect.run import detect_cases
from anofield.evaluation.evaluate import evaluate

pytestmark = pytest.mark.slow
PLAN = study.Plan(n_train=3, n_calibration=2, n_test=3, scan_size=40, resolution=20, epochs=1)


@pytest.fixture(scope="module")
def measured(tmp_path_factory: pytest.TempPathFactory):
    out = tmp_path_factory.mktemp("measure")
    people = {name: study.make_people(out / name, name, PLAN, 0) for name in ("train", "calibration", "test")}
    store = study.make_store(people["train"], out / "train.zarr", PLAN, 0)
    method, options = (
        train_baseline("zscore", store, out / "z", make_settings("zscore", {})),
        baseline_options("zscore"),
    )
    calibrate(people["calibration"], method, options)
    calibrated = look_up(method, options)
    assert calibrated is not None
    return out, people, method, options, calibrated


def test_they_are_those_of_a_written_run(measured) -> None:
    out, people, method, options, calibrated = measured
    seen = see({"ill": people["test"]}, method, options, calibrated)
    found = measure(seen, options, calibrated, seed=0)
    run = detect_cases(people["test"], method, options, out / "run")
    card = evaluate(run.path, None, out / "results")["zscore"].card
    for name, key in (("ap", "ap"), ("auroc", "auroc"), ("dice", "dice_calibrated_mean"),
                      ("dice_oracle", "dice_oracle_mean"), ("recall_at_1", "froc_recall_at_1")):  # fmt: skip
        assert found[name].value == pytest.approx(card[key].value), name
        assert found[name].plain()["ci"] == pytest.approx(card[key].ci), name
    assert np.isnan(found["false_ml"].value)


def test_the_false_volume_is_that_of_the_healthy_alone(measured) -> None:
    _, people, method, options, calibrated = measured
    ill = see({"ill": people["test"]}, method, options, calibrated)
    healthy = see({"healthy": people["calibration"]}, method, options, calibrated)
    found = measure([*healthy, *ill], options, calibrated, seed=0)
    above = [float((one.map > calibrated.thresholds["zscore"]).sum()) * one.scan.voxel_ml for one in healthy]
    promise = [(1 - calibrated.quantile) * one.brain.sum() * one.scan.voxel_ml for one in healthy]
    assert found["false_ml"].value == pytest.approx(np.mean(above))
    assert found["false_promise"].value == pytest.approx(sum(above) / sum(promise))
    assert found["ap"].value == measure(ill, options, calibrated, seed=0)["ap"].value
    alone = measure(healthy, options, calibrated, seed=0)
    assert alone["false_ml"].value == found["false_ml"].value
    assert np.isnan(alone["ap"].value)
    assert alone["ap"].plain() == {"value": None, "ci": None}


def test_every_kind_of_lesion_has_its_own_precision(measured) -> None:
    _, people, method, options, calibrated = measured
    groups = {"one": people["test"][:1], "two": people["test"][1:]}
    found = measure(see(groups, method, options, calibrated), options, calibrated, seed=0)
    for group, cases in groups.items():
        alone = measure(see({group: cases}, method, options, calibrated), options, calibrated, seed=0)
        assert found[f"ap {group}"].value == pytest.approx(alone["ap"].value)
        assert f"ap {group}" not in alone
