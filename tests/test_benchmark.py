"""The benchmark: goes on where it stopped, survives a method that fails, says what it does and measured."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from anofield import benchmark
from anofield.baselines.statistics import ZScore
from anofield.benchmark import FEW, Sizes, bootstrap_mean, run_benchmark, summarise
from anofield.detect import published as ifl2021
from anofield.errors import AnofieldError, UsageError
from anofield.evaluation.results import Results
from anofield.study import Plan
from made import case_row, results_content

pytestmark = pytest.mark.slow

SIZES = Sizes(
    Plan(n_train=3, n_calibration=1, n_test=2, scan_size=32, resolution=16, epochs=2, points=64, people=3, width=64,
         depth=3, octaves=2, code_length=4, classes=6), steps=2, few=1)  # fmt: skip


def methods_of(content: dict[str, Any]) -> list[str]:
    return [row["method"] for row in content["rows"]]


def break_zscore(monkeypatch: pytest.MonkeyPatch, error: BaseException) -> None:
    def train(self: ZScore, store: object) -> None:
        raise error

    monkeypatch.setattr(ZScore, "train", train)


def test_makes_one_row_per_method_and_goes_on(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    first, _ = run_benchmark(tmp_path, SIZES, ["zscore"], device="cpu")
    said = capsys.readouterr().err
    assert "1 of 1 methods to run\n" in said
    assert "benchmark: zscore (1 of 1)\n" in said
    assert "benchmark: zscore done in " in said
    stamp = (tmp_path / "rows" / "zscore.json").stat().st_mtime_ns
    content, table = run_benchmark(tmp_path, SIZES, ["anofield", "zscore", FEW, "random"], device="cpu")
    assert "3 of 4 methods to run" in capsys.readouterr().err
    assert (tmp_path / "rows" / "zscore.json").stat().st_mtime_ns == stamp
    assert methods_of(content) == ["anofield", "random", "zscore", FEW]
    assert first["rows"][0] == content["rows"][2]
    assert all(row["seconds_per_case"] > 0 and row["paper"] for row in content["rows"])
    assert [row["n_cases"] for row in content["rows"]] == [2, 2, 2, 1]
    for row in content["rows"][:3]:
        low, high = row["ap"]["ci"]
        assert low <= row["ap"]["value"] <= high
        assert row["dice"]["ci"][0] <= row["dice"]["ci"][1]
    assert table == (tmp_path / "table.md").read_text().rstrip("\n")
    assert "`ifl2021`, the published procedure" in table
    lines = [line.split("\t") for line in (tmp_path / "table.tsv").read_text().splitlines()]
    assert len(lines) == 5
    assert {len(line) for line in lines} == {len(lines[0])}
    assert not content["failures"]


def test_the_published_procedure_is_given_as_few_people_as_the_row_beside_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(ifl2021.fit_code, "__defaults__", ((ifl2021.Phase(3, 64), ifl2021.Phase(2, 64)),))
    content, table = run_benchmark(tmp_path, SIZES, ["ifl2021", FEW], device="cpu")
    assert methods_of(content) == [FEW, "ifl2021"]
    runs = [{path.parent.name for path in (tmp_path / "methods" / name / "run").glob("*/case.json")}
            for name in methods_of(content)]  # fmt: skip
    assert runs[0] == runs[1]
    assert [row["n_cases"] for row in content["rows"]] == [1, 1]
    assert "uses 1 person for calibration and 1 for the test" in table


@pytest.mark.parametrize(
    ("error", "words"),
    [(AnofieldError("no luck"), "no luck"), (RuntimeError("a\nb"), "RuntimeError: a\nb (a defect of anofield")],
)
def test_a_method_that_fails_leaves_the_others_their_rows(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, error: Exception, words: str
) -> None:
    with monkeypatch.context() as patched:
        break_zscore(patched, error)
        content, table = run_benchmark(tmp_path, SIZES, ["zscore", "random"], device="cpu")
    assert words in content["failures"]["zscore"]
    assert methods_of(content) == ["random"]
    assert "| zscore | failed |" in table
    assert "`zscore` failed: " in table
    widths = {line.count("|") for line in table.splitlines() if line.startswith("|")}
    assert len(widths) == 1
    assert (tmp_path / "table.tsv").read_text().splitlines()[-1].startswith("zscore\tn/a")
    assert (tmp_path / "methods" / "zscore" / "traceback.txt").is_file() == isinstance(error, RuntimeError)
    later, table = run_benchmark(tmp_path, SIZES, ["intensity"], device="cpu")
    assert "| zscore | failed |" in table  # until it is tried again
    assert methods_of(later) == ["random", "intensity"]
    again, table = run_benchmark(tmp_path, SIZES, ["zscore"], device="cpu")
    assert methods_of(again) == ["random", "intensity", "zscore"]
    assert "failed" not in table


@pytest.mark.parametrize("place", ["train", "calibrate", "detect_cases", "evaluate"])
def test_stopped_anywhere_it_goes_on(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, place: str) -> None:
    with monkeypatch.context() as patched:
        if place == "train":
            break_zscore(patched, KeyboardInterrupt())
        else:
            run_benchmark(tmp_path, SIZES, ["random"], device="cpu")

            def stop(*args: object, **named: object) -> None:
                raise KeyboardInterrupt

            patched.setattr(benchmark, place, stop)
        with pytest.raises(KeyboardInterrupt):
            run_benchmark(tmp_path, SIZES, ["random", "zscore"], device="cpu")
    assert (tmp_path / "table.md").read_text().count("| random |") == 1  # what is done is in the table already
    stamp = (tmp_path / "rows" / "random.json").stat().st_mtime_ns
    content, _ = run_benchmark(tmp_path, SIZES, ["random", "zscore"], device="cpu")
    assert methods_of(content) == ["random", "zscore"]
    assert (tmp_path / "rows" / "random.json").stat().st_mtime_ns == stamp
    whole, _ = run_benchmark(tmp_path / "whole", SIZES, ["zscore"], device="cpu")
    timeless = [{k: v for k, v in c["rows"][-1].items() if "seconds" not in k} for c in (content, whole)]
    assert timeless[0] == timeless[1]


def test_refuses_unknown_methods_and_other_folders(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="unknown method"):
        run_benchmark(tmp_path / "a", SIZES, ["magic"])
    (tmp_path / "thesis.txt").write_text("mine")
    with pytest.raises(AnofieldError, match="holds no benchmark"):
        run_benchmark(tmp_path, SIZES, ["random"])


def test_takes_the_intervals_of_the_evaluation() -> None:
    scores = {"ap": 0.4, "auroc": 0.9, "dice_calibrated_mean": 0.5, "dice_oracle": 0.6}
    rows = [case_row(str(dice), dice={"x": dice}) for dice in (0.4, 0.5, 0.6)]
    own = summarise(Results.model_validate(results_content({"x": scores}, cases=rows)))
    assert own["ap"] == {"value": 0.4, "ci": None}
    low, high = own["dice"]["ci"]
    assert 0.4 <= low < 0.5 < high <= 0.6
    card = {"x": {"ap": {"value": 0.41, "ci": [0.3, 0.5]}, "dice_calibrated_mean": {"value": 0.5, "ci": [0.1, 0.2]}}}
    given = summarise(Results.model_validate(results_content({"x": scores}, cases=rows, card=card)))
    assert given["ap"] == {"value": 0.41, "ci": [0.3, 0.5]}
    assert given["dice"]["ci"] == [0.1, 0.2]
    assert bootstrap_mean(np.array([0.3, np.nan]), 0) is None
