"""The benchmark: goes on where it stopped, survives a method that fails, shares its work, says what it measured."""

from __future__ import annotations

import json
import shutil
import threading
import time
from collections.abc import Iterator
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from anofield.baselines.statistics import ZScore
from anofield.benchmark import Sizes, run, run_benchmark, world
from anofield.benchmark.rows import FEW
from anofield.benchmark.suite import Setting
from anofield.benchmark.suites import SUITES
from anofield.detect import published as ifl2021
from anofield.detect.options import FitOptions
from anofield.errors import AnofieldError, UsageError
from anofield.study import Plan

pytestmark = pytest.mark.slow

SIZES = Sizes(
    plan=Plan(n_train=3, n_calibration=1, n_test=2, scan_size=32, resolution=16, epochs=2, points=64, people=3,
              width=64, depth=3, octaves=2, code_length=4, classes=6, normalise="tissue"),
    healthy=2, new_site=2, few=1, steps=2)  # fmt: skip


FIT = FitOptions(iterations=8, points=256)


@pytest.fixture(scope="module", autouse=True)
def short_fits() -> Iterator[None]:
    """Fits of a few steps, of poses too."""
    plain, pose = run.options_of, FIT.model_copy(update={"pose": "affine"})
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(run, "options_of", lambda row, part: plain(row, replace(part, fit=FIT)))
        patched.setattr(world, "posing", partial(world.posing, fit=pose))
        yield


@pytest.fixture(scope="module")
def once(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A benchmark with people, store, field and the row of chance."""
    out = tmp_path_factory.mktemp("once")
    straight(out, "random", "anofield")
    (out / "straight" / "rows" / "anofield.json").unlink()
    return out


@pytest.fixture
def begun(once: Path, tmp_path: Path) -> Path:
    """A copy of it."""
    return Path(shutil.copytree(once, tmp_path / "bench"))


def straight(out: Path, *methods: str, **more: Any) -> tuple[dict[str, Any], str]:
    contents, table = run_benchmark(out, SIZES, ["straight"], methods, device="cpu", **more)
    return contents["straight"], table


def methods_of(content: dict[str, Any]) -> set[str]:
    return {row["name"] for row in content["rows"]}


def break_zscore(monkeypatch: pytest.MonkeyPatch, error: BaseException) -> None:
    def train(self: ZScore, store: object) -> None:
        raise error

    monkeypatch.setattr(ZScore, "train", train)


def stamps(out: Path) -> dict[str, int]:
    return {path.name: path.stat().st_mtime_ns for path in out.glob("straight/rows/*.json")}


def test_makes_one_row_per_method_and_goes_on(begun: Path, capsys: pytest.CaptureFixture[str]) -> None:
    first, _ = straight(begun, "zscore")
    assert "straight: 1 of 1 method to run\n" in capsys.readouterr().err
    before = stamps(begun)
    content, table = straight(begun, "anofield", "zscore", FEW, "random")
    assert "2 of 4 methods to run" in capsys.readouterr().err
    assert stamps(begun).items() >= before.items()
    assert methods_of(content) == {"anofield", "random", "zscore", FEW}
    assert first["rows"][0] in content["rows"]
    assert [row["n_cases"] for row in content["rows"]].count(2) == 1  # few: one of each group
    assert not content["failures"]
    for row in content["rows"]:
        part = row["parts"]["all"]
        assert part["seconds_per_case"] > 0
        for name, figure in part["figures"].items():
            if figure["ci"] is not None:
                assert figure["ci"][0] <= figure["value"] <= figure["ci"][1], name
    assert table == (begun / "straight.md").read_text().rstrip("\n")
    assert "free to tune on" in table
    lines = [line.split("\t") for line in (begun / "straight.tsv").read_text().splitlines()]
    assert {len(line) for line in lines} == {len(lines[0])}
    assert len(lines) == 5
    assert not list(begun.glob("straight/**/*.nii.gz"))  # volumes are measured in memory


def test_a_posed_row_is_trained_and_run_where_the_field_lays_the_head(begun: Path) -> None:
    content, _ = straight(begun, "zscore", "zscore+pose")
    assert methods_of(content) == {"random", "zscore", "zscore+pose"}
    folder = begun / "worlds" / "T2w"
    poses = list((folder / "experiment" / "poses").glob("*.json"))
    assert len(poses) == SIZES.plan.n_train + SIZES.plan.n_calibration + SIZES.plan.n_test + SIZES.healthy
    infos = [json.loads((folder / "methods" / name / "model" / "baseline.json").read_text())
             for name in ("zscore", "zscore+pose")]  # fmt: skip
    assert [info["pose"] is None for info in infos] == [True, False]
    assert infos[0]["contents"] == infos[1]["contents"]
    one, other = (row["parts"]["all"] for row in content["rows"] if row["name"] != "random")
    assert one["people"] == other["people"]
    assert one["figures"]["ap"] != other["figures"]["ap"]


def test_the_published_procedure_has_as_few_people_as_the_row_beside_it(
    begun: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(ifl2021.fit_code, "__defaults__", ((ifl2021.Phase(3, 64), ifl2021.Phase(2, 64)),))
    content, table = straight(begun, "ifl2021", FEW)
    people = {row["name"]: row["parts"]["all"]["people"] for row in content["rows"]}
    assert people[FEW] == people["ifl2021"]
    assert (len(people[FEW]), len(people["random"])) == (2, 4)
    assert "has 1 person for calibration" in table
    assert not SUITES["thick"](Setting(out=begun, sizes=SIZES, seed=0, device="cpu")).few


@pytest.mark.parametrize(
    ("error", "words"),
    [(AnofieldError("no luck"), "no luck"), (RuntimeError("a\nb"), "RuntimeError: a\nb (a defect of anofield")],
)
def test_a_method_that_fails_leaves_the_others_their_rows(
    begun: Path, monkeypatch: pytest.MonkeyPatch, error: Exception, words: str
) -> None:
    with monkeypatch.context() as patched:
        break_zscore(patched, error)
        content, table = straight(begun, "zscore", "random")
    assert words in content["failures"]["zscore"]
    assert methods_of(content) == {"random"}
    assert "| `zscore` | failed |" in table
    assert "`zscore` failed: " in table
    assert len({line.count("|") for line in table.splitlines() if line.startswith("|")}) == 1
    assert (begun / "straight.tsv").read_text().splitlines()[-1].startswith("zscore\tn/a")
    trace = begun / "straight" / "failed" / "zscore.traceback.txt"
    assert trace.is_file() == isinstance(error, RuntimeError)
    _, table = straight(begun, "intensity")
    assert "| `zscore` | failed |" in table  # until it is tried again
    again, table = straight(begun, "zscore")
    assert methods_of(again) == {"random", "intensity", "zscore"}
    assert "failed" not in table
    assert not trace.is_file()


@pytest.mark.parametrize("place", ["train", "calibrate", "see", "measure"])
def test_stopped_anywhere_it_goes_on(once: Path, begun: Path, monkeypatch: pytest.MonkeyPatch, place: str) -> None:
    with monkeypatch.context() as patched:
        if place == "train":
            break_zscore(patched, KeyboardInterrupt())
        else:

            def stop(*args: object, **named: object) -> None:
                raise KeyboardInterrupt

            patched.setattr(run, place, stop)
        with pytest.raises(KeyboardInterrupt):
            straight(begun, "random", "zscore")
    assert (begun / "straight.md").read_text().count("| `random` |") == 1  # what is done is in the table already
    before = stamps(begun)
    content, _ = straight(begun, "random", "zscore")
    assert stamps(begun).items() >= before.items()
    shutil.copytree(once, once_more := begun.with_name("whole"))
    whole, _ = straight(once_more, "random", "zscore")
    assert [figures_of(row) for row in content["rows"]] == [figures_of(row) for row in whole["rows"]]


def figures_of(row: dict[str, Any]) -> object:
    return row["name"], {name: part["figures"] for name, part in row["parts"].items()}


def test_two_processes_share_the_rows(begun: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    measured: list[tuple[int, str]] = []
    plain = run.SuiteRun.measured

    def slowly(self: run.SuiteRun, row: run.MethodRow) -> dict[str, Any]:
        measured.append((threading.get_ident(), row.name))
        time.sleep(0.2)
        return plain(self, row)

    monkeypatch.setattr(run.SuiteRun, "measured", slowly)
    found: list[dict[str, Any]] = []
    wanted = ("intensity", "equalised", "zscore", "asymmetry")
    workers = [threading.Thread(target=lambda: found.append(straight(begun, *wanted)[0])) for _ in range(2)]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join()
    assert sorted(name for _, name in measured) == sorted(wanted)  # none twice
    assert len({who for who, _ in measured}) == 2
    assert all(methods_of(content) == {*wanted, "random"} for content in found)  # both wait for the last row


def test_a_row_at_which_one_process_failed_is_not_tried_by_the_other(
    begun: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    tried: list[str] = []

    def fail(self: run.SuiteRun, row: run.MethodRow) -> dict[str, Any]:
        tried.append(row.name)
        time.sleep(0.2)
        raise AnofieldError("no luck")

    monkeypatch.setattr(run.SuiteRun, "measured", fail)
    workers = [threading.Thread(target=lambda: straight(begun, "zscore")) for _ in range(2)]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join()
    assert tried == ["zscore"]
    straight(begun, "zscore")
    assert tried == ["zscore", "zscore"]  # a new start tries again


def test_refuses_unknown_names_and_other_folders(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="unknown method 'magic'"):
        run_benchmark(tmp_path / "a", SIZES, ["straight"], ["magic"])
    with pytest.raises(UsageError, match="unknown suite 'magic'"):
        run_benchmark(tmp_path / "a", SIZES, ["magic"])
    assert not (tmp_path / "a").exists()
    (tmp_path / "thesis.txt").write_text("mine")
    with pytest.raises(AnofieldError, match="holds no benchmark"):
        straight(tmp_path, "random")


def test_a_suite_that_cannot_run_is_skipped_with_its_reason(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    dark = SUITES["dark"]
    monkeypatch.setitem(SUITES, "dark", lambda setting: replace(dark(setting), missing="no scans"))
    contents, table = run_benchmark(tmp_path, SIZES, ["dark"], device="cpu")
    assert (contents, table) == ({}, "")
    assert "benchmark: suite dark is skipped: no scans" in capsys.readouterr().err
