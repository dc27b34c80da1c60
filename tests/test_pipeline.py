"""The whole way, once through the command line and once through the demo: scans in, report out."""

from __future__ import annotations

import json
import math
import signal
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from anofield.cli import main
from anofield.demo import run_demo
from anofield.errors import UsageError
from anofield.field.experiment import Experiment
from anofield.study import Plan
from helpers import World, facts_of, small_world, tiny_specs

pytestmark = pytest.mark.slow

Command = Callable[..., tuple[int, str, str]]
TINY = Plan(n_train=3, n_calibration=1, n_test=2, scan_size=32, resolution=16, epochs=3, points=64, people=3,
            width=64, depth=3, octaves=3, code_length=8, classes=5)  # fmt: skip
METRICS = {"ap", "auroc", "dice_calibrated_mean", "dice_calibrated_sd", "dice_oracle_mean", "dice_oracle", "fpr95"}


@pytest.fixture(scope="session")
def world(tmp_path_factory: pytest.TempPathFactory) -> World:
    return small_world(tmp_path_factory.getbasetemp() / "world")


@pytest.fixture
def anofield(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Command:
    """Run `anofield …` in this process → exit code, stdout, stderr."""
    handlers = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}

    def call(*words: object) -> tuple[int, str, str]:
        monkeypatch.setattr(sys, "argv", ["anofield", *map(str, words)])
        monkeypatch.setenv("ANOFIELD_DEBUG", "")
        try:
            with pytest.raises(SystemExit) as ended:
                main()
        finally:
            for number, handler in handlers.items():
                signal.signal(number, handler)
        captured = capsys.readouterr()
        return int(ended.value.code or 0), captured.out, captured.err

    return call


def test_every_verb_from_scans_to_report(world: World, anofield: Command, tmp_path: Path) -> None:
    def done(*words: object) -> Any:
        code, out, err = anofield(*words)
        assert code == 0, err
        return json.loads(out) if "--json" in words else out

    store, experiment, run, results = (tmp_path / name for name in ("train.zarr", "experiment", "run", "results"))
    prepared = done("prepare", "-i", world.root / "train", "-o", store, "--res", 16, "--centers", "fit:4", "--json")
    assert prepared["done"] == 8
    Experiment.create(experiment, tiny_specs(DataSource="../train.zarr", NumEpochs=2))
    assert done("train", "-e", experiment, "-d", "cpu", "--json")["epoch"] == 2
    code, _, err = anofield("train", "-e", experiment, "-d", "cpu")
    assert code == 2
    assert "--continue latest" in err
    done("calibrate", "-m", experiment, "-i", world.root / "healthy", "-d", "cpu")
    found = done("detect", "-m", experiment, "-i", world.root / "glioma", "-o", run, "-d", "cpu", "--json")
    assert found["cases"] == [case.id for case in world.glioma]
    stamps = {path: path.stat().st_mtime_ns for path in run.glob("*/*")}
    done("detect", "-m", experiment, "-i", world.root / "glioma", "-o", run, "-d", "cpu")
    assert {path: path.stat().st_mtime_ns for path in run.glob("*/*")} == stamps
    numbers = done("evaluate", "-p", run, "-o", results, "--json")
    assert numbers == facts_of(results / "results.json")
    assert 0 < numbers["scores"]["deviation"]["ap"] <= 1
    done("report", "-p", run, "-r", results, "-o", tmp_path / "report.html")
    page = (tmp_path / "report.html").read_text()
    assert all(case.id in page for case in world.glioma)


def test_a_failing_scan_ends_with_code_3_and_a_list(world: World, anofield: Command, tmp_path: Path) -> None:
    scans = tmp_path / "scans"
    scans.mkdir()
    (scans / "good.nii.gz").write_bytes(world.glioma[0].image.read_bytes())
    (scans / "bad.nii.gz").write_bytes(world.glioma[0].image.read_bytes()[:3000])
    (world.experiment / "calibrations").rename(tmp_path / "calibrations")  # of other options than the defaults
    try:
        code, out, err = anofield("detect", "-m", world.experiment, "-i", scans, "-o", tmp_path / "run", "-d", "cpu")
    finally:
        (tmp_path / "calibrations").rename(world.experiment / "calibrations")
    assert code == 3
    assert "bad" in err
    assert "Traceback" not in err
    assert "not calibrated" in out
    (failure,) = json.loads((tmp_path / "run" / "failures.json").read_text())
    assert failure["id"] == "bad"
    assert (tmp_path / "run" / "good" / "case.json").exists()
    assert not (tmp_path / "run" / "good" / "mask.nii.gz").exists()


@pytest.mark.parametrize(
    ("words", "code", "named"),
    [
        (("train", "-e", "nowhere"), 5, "nowhere"),
        (("detect", "-m", "nowhere", "-i", ".", "-o", "out"), 5, "nowhere"),
        (("evaluate", "-p", "nowhere", "-o", "out"), 4, "nowhere"),
        (("prepare", "-i", "nowhere", "-o", "out.zarr"), 4, "nowhere"),
    ],
)
def test_what_is_missing_ends_with_its_exit_code_and_no_traceback(
    anofield: Command, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, words: tuple[str, ...], code: int, named: str
) -> None:
    monkeypatch.chdir(tmp_path)
    ended, _, err = anofield(*words)
    assert (ended, named in err, "Traceback" in err) == (code, True, False)
    assert list(tmp_path.iterdir()) == []


@pytest.fixture(scope="module")
def demo(tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("demo") / "out"
    run_demo(out, TINY, device="cpu")
    return out


class TestDemo:
    def test_metrics_hold_the_documented_keys(self, demo: Path) -> None:
        metrics = json.loads((demo / "metrics.json").read_text())
        assert METRICS | {"score", "baseline", "n_train", "n_test", "seconds"} <= set(metrics)
        assert set(metrics["baseline"]["intensity"]) == METRICS
        assert metrics["scores"][metrics["score"]] == {key: metrics[key] for key in METRICS}
        assert (metrics["n_train"], metrics["n_test"]) == (3, 2)
        assert all(isinstance(metrics[key], float) and 0 <= metrics[key] <= 1 for key in METRICS)
        assert all(math.isfinite(value) for value in metrics["seconds"].values())

    def test_every_stage_leaves_its_files(self, demo: Path) -> None:
        assert {path.name for path in demo.iterdir()} >= {
            "cohort", "train.zarr", "experiment", "run", "results", "report.html", "metrics.json",
        }  # fmt: skip
        calibrated = json.loads(next(demo.glob("experiment/calibrations/*.json")).read_text())["cases"]
        tested = json.loads((demo / "run" / "run.json").read_text())["cases"]
        trained = Experiment(demo / "experiment").load().code_ids
        assert [len(ids) for ids in (trained, calibrated, tested)] == [3, 1, 2]
        assert len({*trained, *calibrated, *tested}) == 6

    def test_goes_on_where_it_was(self, demo: Path) -> None:
        kept = [*demo.glob("cohort/*/*/*"), *demo.glob("run/*/*"), *demo.glob("experiment/*/latest.pth")]
        before, metrics = [path.stat().st_mtime_ns for path in kept], json.loads((demo / "metrics.json").read_text())
        again, _, report = run_demo(demo, TINY, device="cpu")
        assert [path.stat().st_mtime_ns for path in kept] == before
        assert {key: again[key] for key in METRICS} == pytest.approx({key: metrics[key] for key in METRICS})
        assert report == demo / "report.html"

    def test_another_seed_and_a_foreign_folder_are_refused(self, demo: Path, tmp_path: Path) -> None:
        with pytest.raises(UsageError, match="another seed"):
            run_demo(demo, TINY, seed=1, device="cpu")
        (tmp_path / "thesis.txt").write_text("mine")
        with pytest.raises(UsageError, match="not empty"):
            run_demo(tmp_path, TINY, device="cpu", force=True)
        assert (tmp_path / "thesis.txt").exists()
