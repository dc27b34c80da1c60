"""What a detection prints: untrusted scans are marked and counted, and `--strict` makes them a failure."""

from __future__ import annotations

import csv
import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
import torch
import typer

from anofield.cli._outcome import end_run
from anofield.detect.calibrate import calibrate
from anofield.detect.fit import Fit
from anofield.detect.run import Run, detect_cases
from anofield.detect.trust import TURNED
from stub import OPTIONS, Stub, cohort

USUAL = Fit(
    code=torch.zeros(2),
    loss=1.0,
    code_distance=1.0,
    contrast=0.8,
    outside=0.01,
    turned=False,
    pose=None,
    intensity=None,
)


@pytest.fixture
def run(tmp_path: Path, save_brain: Callable[..., Path]) -> Run:
    """Four scans of a calibrated model, of which the last two fit better rotated."""
    healthy = [replace(case, label=None) for case in cohort(tmp_path / "healthy", save_brain, 3, first=30)]
    stub, cases = Stub(path=tmp_path / "method", fit=USUAL), cohort(tmp_path / "scans", save_brain)
    calibrate(healthy, stub, OPTIONS)
    detect_cases(cases[:2], stub, OPTIONS, tmp_path / "run")
    detect_cases(cases, replace(stub, fit=replace(USUAL, turned=True)), OPTIONS, tmp_path / "run")
    return detect_cases(cases, stub, OPTIONS, tmp_path / "run")


def test_an_untrusted_scan_is_marked_and_the_last_line_counts(run: Run, capsys: pytest.CaptureFixture[str]) -> None:
    end_run(run, Path("run"), strict=False, as_json=False)
    *rows, written, last = capsys.readouterr().out.splitlines()
    marked = [f"NOT TRUSTED: {TURNED}" in row for row in rows]
    assert marked == [False, False, True, True] and written == "written to run"
    assert last == "2 of 4 scans are not trusted"
    assert repr(run).endswith("4 cases by bright, 2 NOT trusted)")


def test_strict_makes_it_a_failure(run: Run, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(typer.Exit) as stop:
        end_run(run, Path("run"), strict=True, as_json=True)
    assert stop.value.exit_code == 3
    found = json.loads(capsys.readouterr().out)
    assert found["untrusted"] == ["p2", "p3"] and found["results"][2]["fit"]["reasons"] == [TURNED]


def test_strict_changes_nothing_where_all_are_trusted(run: Run, capsys: pytest.CaptureFixture[str]) -> None:
    end_run(replace(run, cases=run.cases[:2]), Path("run"), strict=True, as_json=False)
    assert "trusted" not in capsys.readouterr().out.lower()


def test_the_table_of_the_run_says_the_same(run: Run) -> None:
    with (run.path / "cases.tsv").open(newline="") as stream:
        rows = list(csv.DictReader(stream, dialect="excel-tab"))
    assert [(row["id"], row["trusted"], row["reasons"]) for row in rows] == [
        ("p0", "yes", ""), ("p1", "yes", ""), ("p2", "no", TURNED), ("p3", "no", TURNED)
    ]  # fmt: skip
    for row, case in zip(rows, run.cases, strict=True):
        assert float(row["volume_ml"]) == pytest.approx(case.volume_ml, abs=1e-3)
        assert int(row["findings"]) == case.lesions and float(row["case_score"]) == pytest.approx(case.case_score)
