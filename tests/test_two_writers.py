"""Two processes that write one file: also where both have the same process id, as in two containers."""

from __future__ import annotations

import os
import sys
from pathlib import Path

import pytest

from anofield._files import write_text

ROUNDS = 1500


@pytest.mark.skipif(sys.platform == "win32", reason="needs fork")
def test_of_one_file_never_disturb_each_other(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "run.json"
    write_text(path, "a" * 2000)
    monkeypatch.setattr(os, "getpid", lambda: 1)
    child = os.fork()
    letter = "b" if child == 0 else "a"
    wrong = 0
    try:
        for _ in range(ROUNDS):
            write_text(path, letter * 2000)
            found = path.read_text()
            wrong += len(found) != 2000 or len(set(found)) != 1
    except BaseException:
        wrong += 1
        if child:
            raise
    finally:
        if child == 0:
            os._exit(min(wrong, 100))
    _, status = os.waitpid(child, 0)
    assert wrong == 0 and os.waitstatus_to_exitcode(status) == 0
    assert [file.name for file in tmp_path.iterdir()] == ["run.json"]
