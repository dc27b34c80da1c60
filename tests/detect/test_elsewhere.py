"""Relative paths with workers of a scheduler whose working directory is another one."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from anofield.data.parallel import Spread
from anofield.detect.calibrate import calibrate
from anofield.detect.open_run import open_run
from anofield.detect.run import detect_cases
from anofield.evaluation.evaluate import evaluate
from anofield.evaluation.options import Options
from stub import OPTIONS, Stub, cohort


@pytest.fixture
def elsewhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Spread]:
    """A scheduler whose worker runs in another directory than this process, which runs in `tmp_path`."""
    distributed = pytest.importorskip("distributed")
    monkeypatch.chdir(tmp_path)
    (tmp_path / "elsewhere").mkdir()
    how: dict[str, Any] = {"n_workers": 1, "threads_per_worker": 1, "dashboard_address": None, "silence_logs": 50}
    with distributed.LocalCluster(**how) as cluster, distributed.Client(cluster) as client:
        client.run(os.chdir, tmp_path / "elsewhere")
        yield Spread(scheduler=cluster.scheduler_address)


@pytest.mark.slow
def test_a_run_is_written_and_read_where_the_user_is(
    elsewhere: Spread, tmp_path: Path, save_brain: Callable[..., Path]
) -> None:
    stub, cases = Stub(path=Path("method")), cohort(Path("scans"), save_brain, 2)
    healthy = [replace(case, label=None) for case in cohort(Path("healthy"), save_brain, 2, first=9)]
    calibrate(healthy, stub, OPTIONS, spread=elsewhere)
    run = detect_cases(cases, stub, OPTIONS, "run", spread=elsewhere)
    assert not run.failures and open_run("run").ids == ["p0", "p1"]
    assert evaluate("run", "scans/labels", "results", Options(resamples=10), spread=elsewhere).n_cases == 2
    assert not list((tmp_path / "elsewhere").rglob("*.json"))
