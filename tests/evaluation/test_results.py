"""Results as objects: what is read is what was written, tables say the same, workers and order change nothing."""

from __future__ import annotations

import json
import math
from pathlib import Path

import numpy as np
import pytest

from anofield.data.parallel import Spread
from anofield.detect.run import detect_cases
from anofield.errors import UsageError
from anofield.evaluation.compare import compare
from anofield.evaluation.evaluate import evaluate
from anofield.evaluation.options import Options
from anofield.evaluation.pooled import PooledScores
from anofield.evaluation.results import Results, read_comparison, read_results
from helpers import QUICK, World, facts_of, small_world
from made import case_row, results_content

FEW = Options(resamples=30)


@pytest.fixture(scope="session")
def world(tmp_path_factory: pytest.TempPathFactory) -> World:
    return small_world(tmp_path_factory.getbasetemp() / "world")


@pytest.fixture(scope="session")
def run(world: World, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Both gliomas and one healthy person."""
    out = tmp_path_factory.mktemp("run")
    return detect_cases([*world.glioma, world.healthy[0]], world.model, QUICK, out).path


@pytest.fixture(scope="session")
def folder(run: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("results")
    evaluate(run, None, out, FEW)
    return out


def test_two_workers_write_the_same_bytes_as_one(run: Path, folder: Path, tmp_path: Path) -> None:
    evaluate(run, None, tmp_path / "two", FEW, spread=Spread(2))
    for name in ("results.json", "cases.tsv"):
        assert (tmp_path / "two" / name).read_bytes() == (folder / name).read_bytes()
    for workers in (1, 2):
        compare(run, run, None, tmp_path / str(workers), FEW, spread=Spread(workers))
    one, two = ((tmp_path / str(workers) / "comparison.json").read_bytes() for workers in (1, 2))
    assert one == two


@pytest.mark.slow
@pytest.mark.parametrize("keep", [10, 10_000], ids=["rounded", "exact"])
def test_the_order_in_which_cases_end_changes_nothing(keep: int) -> None:
    generator = np.random.default_rng(0)
    cases = [(generator.gamma(1, 1, 50).astype(np.float32), generator.random(50) < 0.3) for _ in range(6)]
    found = []
    for order in (range(6), reversed(range(6))):
        pooled = PooledScores(keep)
        for place in order:
            pooled.add(*cases[place])
        curve = pooled.curve()
        found.append((curve.average_precision(), pooled.bounds(curve), pooled.quantiles([0.5, 0.9])))
    assert found[0] == found[1]


def test_what_is_read_is_what_was_written(run: Path, folder: Path, tmp_path: Path) -> None:
    written = facts_of(folder / "results.json")
    results = read_results(folder)
    assert results.model_dump(mode="json", by_alias=True) == written
    assert written["format"] == 1 and written["cases"][0]["id"] == results.rows[0].id
    comparison = compare(run, run, None, tmp_path, FEW)
    assert read_comparison(tmp_path).model_dump(mode="json") == comparison.model_dump(mode="json")


def test_a_score_has_its_metrics_as_attributes_with_their_intervals(folder: Path) -> None:
    results, written = read_results(folder), json.loads((folder / "results.json").read_text())
    figure = written["card"]["deviation"]["ap"]
    assert results["deviation"].ap.value == figure["value"]
    assert list(results["deviation"].ap.interval or ()) == figure["ci"]
    with pytest.raises(AttributeError, match="no metric 'beauty'"):
        _ = results["deviation"].beauty
    with pytest.raises(KeyError):
        _ = results["beauty"]


def test_the_tables_have_a_row_per_score_and_per_case(folder: Path) -> None:
    results = read_results(folder)
    scores, cases = results.table(), results.cases()
    assert list(scores.index) == results.names and list(cases.index) == [row.id for row in results.rows]
    assert scores.loc["deviation", "ap"] == results["deviation"].ap.value
    assert scores.loc["deviation", "ap_low"] <= scores.loc["deviation", "ap"] <= scores.loc["deviation", "ap_high"]
    assert cases["dice_deviation"].tolist() == pytest.approx(
        [row.dice["deviation"] for row in results.rows], nan_ok=True
    )


def test_one_line_says_what_they_are(folder: Path) -> None:
    text = str(read_results(folder))
    assert text == repr(read_results(folder)) and "\n" not in text
    assert text.startswith("Results(3 cases, deviation: AP 0.") and "[" in text


def test_unknown_numbers_are_nan_here_and_null_on_disk() -> None:
    content = results_content({"x": {"ap": None}}, cases=[case_row("a", detected_ml=None)])
    results = Results.model_validate(content)
    assert math.isnan(results.scores["x"].ap) and math.isnan(results.rows[0].detected_ml)
    written = results.model_dump(mode="json", by_alias=True)
    assert written["scores"]["x"]["ap"] is None and written["cases"][0]["detected_ml"] is None
    assert "card" not in written and "threshold" not in written["scores"]["x"]


def test_results_that_lack_a_key_are_refused(tmp_path: Path) -> None:
    content = results_content({"x": {}})
    del content["labels"]
    (tmp_path / "results.json").write_text(json.dumps(content))
    with pytest.raises(UsageError, match=r"results\.json: is damaged \(it lacks 'labels'\).*anofield evaluate"):
        read_results(tmp_path)
