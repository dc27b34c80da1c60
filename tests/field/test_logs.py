"""Metrics: lines that a kill left unfinished are dropped, whole ones stay byte for byte."""

from __future__ import annotations

from pathlib import Path

from anofield.field.logs import MetricsLine, append_metrics, cut_metrics, read_metrics


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
