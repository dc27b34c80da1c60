"""Plans of running and of killed detections, with locks and without."""

from __future__ import annotations

import errno
import fcntl
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from anofield.detect.open_run import open_run
from anofield.detect.plans import alone, drop_plans, held, planned, refuse_running
from anofield.detect.run import detect_cases
from anofield.errors import UsageError
from stub import OPTIONS, Stub, cohort

HOLDER = """
import os, sys
from pathlib import Path
from anofield.detect.plans import held

with held(Path(sys.argv[1]), "one", ["a", "b"]):
    print("held", flush=True)
    sys.stdin.read()
    os._exit(9)
"""


def test_a_plan_of_a_living_process_keeps_others_away_and_that_of_a_killed_one_does_not(tmp_path: Path) -> None:
    command = [sys.executable, "-c", HOLDER, str(tmp_path)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as holder:
        assert holder.stdout and holder.stdout.readline() == "held\n"
        refuse_running(tmp_path, "one")
        with pytest.raises(UsageError, match=rf"another detection \(.* pid {holder.pid}\)"):
            refuse_running(tmp_path, "two")
        drop_plans(tmp_path, "two")
        assert planned(tmp_path, "one") == {"a", "b"}
        holder.kill()
    refuse_running(tmp_path, "two")
    assert planned(tmp_path, "one") == {"a", "b"} and planned(tmp_path, "two") == set()
    drop_plans(tmp_path, "one", {"a"})
    assert planned(tmp_path, "one") == {"a", "b"}
    drop_plans(tmp_path, "one", {"a", "b"})
    assert not list(tmp_path.iterdir())


def test_a_plan_of_another_run_ends_with_it(tmp_path: Path) -> None:
    with alone(tmp_path), held(tmp_path, "one", ["a"]):
        pass
    drop_plans(tmp_path, "two")
    assert not list(tmp_path.glob(".plan-*"))


def test_a_damaged_plan_disturbs_nobody(tmp_path: Path) -> None:
    (tmp_path / ".plan-1.json").write_text("{")
    assert planned(tmp_path, "one") == set()
    refuse_running(tmp_path, "one")
    drop_plans(tmp_path, "one")
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("number", [errno.ENOLCK, errno.ENOSYS, errno.EOPNOTSUPP])
def test_a_file_system_without_locks_is_told_once(
    number: int,
    tmp_path: Path,
    save_brain: Callable[..., Path],
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    def refuse(*_: Any) -> None:
        raise OSError(number, "no locks here")

    monkeypatch.setattr(fcntl, "flock", refuse)
    stub, cases = Stub(path=tmp_path / "method"), cohort(tmp_path / "scans", save_brain, 2)
    for method in (stub, replace(stub, hash="second")):
        detect_cases(cases, method, OPTIONS, tmp_path / "run")
        assert capsys.readouterr().err.count("has no locks") == 1
        assert open_run(tmp_path / "run").ids == ["p0", "p1"] and not open_run(tmp_path / "run").notices()
