"""Metrics: damaged lines are said and dropped, whole ones stay byte for byte; a lost history keeps its places."""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np
import pytest

from anofield.field.logs import LINE_LIMIT, Logs, MetricsLine, append_metrics, cut_metrics, read_metrics


def line(epoch: int, held_out: float | None = None) -> MetricsLine:
    return MetricsLine(epoch=epoch, loss_per_point=0.1 + epoch / 3, learning_rate=(1e-3, 5e-4), seconds=1.25,
                       points_per_s=1000, code_norm=0.9, held_out_ce=held_out)  # fmt: skip


def test_lines_are_read_as_they_were_written(tmp_path: Path) -> None:
    path = tmp_path / "metrics.jsonl"
    for written in (line(1), line(2, 0.5)):
        append_metrics(path, written)
    assert read_metrics(path) == [line(1), line(2, 0.5)]
    assert "held_out_ce" not in path.read_text().splitlines()[0]
    assert read_metrics(tmp_path / "none.jsonl") == []


def test_a_cut_drops_later_epochs_and_an_unfinished_line(tmp_path: Path) -> None:
    path = tmp_path / "metrics.jsonl"
    for epoch in (1, 2, 3):
        append_metrics(path, line(epoch))
    whole = path.read_text()
    cut_metrics(path, 3)
    assert path.read_text() == whole
    path.write_text(whole + '{"epoch": 4, "loss')
    cut_metrics(path, 2)
    assert path.read_text() == "".join(whole.splitlines(keepends=True)[:2])
    cut_metrics(tmp_path / "none.jsonl", 2)
    assert not (tmp_path / "none.jsonl").exists()


DAMAGED = {
    "half": b'{"epoch": 2, "loss',
    "no UTF-8": b"\xff\xfe{}",
    "NUL": b"\0" * 40,
    "other types": b'{"epoch": "two", "loss_per_point": []}',
    "no epoch": line(1).text().strip().encode().replace(b'"epoch": 1', b'"epoch": 0'),
    "a list": b"[1, 2]",
    "deep": b"[" * 100_000,
    "huge": b"x" * (3 * LINE_LIMIT + 5),
    "long number": b'{"epoch": ' + b"9" * 10_000 + b"}",
    "empty": b"",
}


@pytest.mark.parametrize("damage", DAMAGED.values(), ids=DAMAGED)
def test_damaged_lines_are_left_out_and_said(tmp_path: Path, capsys: pytest.CaptureFixture[str], damage: bytes) -> None:
    path = tmp_path / "metrics.jsonl"
    whole = [line(epoch).text().encode() for epoch in (1, 2, 3)]
    path.write_bytes(whole[0] + damage + b"\n" + whole[1] + whole[2])
    assert read_metrics(path) == [line(1), line(2), line(3)]
    assert "metrics.jsonl: 1 line cannot be read and is left out (line 2)" in capsys.readouterr().err
    cut_metrics(path, 2)
    assert path.read_bytes() == whole[0] + whole[1]
    assert "(line 2)" in capsys.readouterr().err
    cut_metrics(path, 2)
    assert read_metrics(path) == [line(1), line(2)]
    assert capsys.readouterr().err == ""


def test_a_whole_last_line_without_its_end_is_kept(tmp_path: Path) -> None:
    path = tmp_path / "metrics.jsonl"
    path.write_text(line(1).text() + line(2).text().strip())
    cut_metrics(path, 5)
    append_metrics(path, line(3))
    assert read_metrics(path) == [line(1), line(2), line(3)]


def test_no_bytes_escape_as_an_error(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path, generator = tmp_path / "metrics.jsonl", np.random.default_rng(0)
    whole = "".join(line(epoch).text() for epoch in range(1, 9)).encode()
    for _ in range(200):
        data = bytearray(whole)
        for place in generator.integers(len(data), size=int(generator.integers(1, 9))):
            data[place] = int(generator.integers(256))
        path.write_bytes(data[: int(generator.integers(1, len(data)))])
        cut_metrics(path, 4)
        capsys.readouterr()
        assert all(found.epoch <= 4 for found in read_metrics(path))
        assert capsys.readouterr().err == ""


def test_a_lost_history_is_filled_so_that_later_entries_keep_their_places() -> None:
    logs = Logs()
    logs.cut(3, 2, 1)
    assert logs.fill(7, ["lin0.bias"]) == 3
    assert len(logs.loss) == 7 and all(math.isnan(loss) for loss in logs.loss)
    assert len(logs.learning_rate) == 3
    assert {len(one) for one in (logs.timing, logs.latent_magnitude, logs.param_magnitude["lin0.bias"])} == {3}
    logs.loss += [1.0]
    logs.timing.append(2.0)
    logs.cut(3, 2, 0)
    assert len(logs.loss) == 6 and len(logs.timing) == 3
    assert logs.fill(6, ["lin0.bias"]) == 0
