"""Comparison of rows: over the same resamples, with the best other method of the same people."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from anofield.benchmark.pairs import compare_rows

RANDOM = np.random.default_rng(0)
COMMON = RANDOM.normal(0, 0.1, 1000)


def row(name: str, value: float | None, samples: np.ndarray | None = None, people: str = "abc") -> dict[str, Any]:
    drawn = COMMON + (value or 0) if samples is None else samples
    part = {"figures": {"ap": {"value": value, "ci": None}}, "samples": {"ap": drawn.tolist()}, "people": list(people)}
    return {"name": name, "parts": {"all": part}}


def verdicts(*rows: dict[str, Any], lower: bool = False) -> dict[str, tuple[str, str]]:
    found = compare_rows(rows, "all", "ap", lower_is_better=lower)
    return {name: (against.other, against.verdict) for name, against in found.items()}


def test_what_people_have_in_common_cancels() -> None:
    """The plain intervals overlap by far; paired, the difference is sure."""
    assert verdicts(row("a", 0.60), row("b", 0.58)) == {"a": ("b", "ahead"), "b": ("a", "behind")}


def test_a_row_is_ahead_only_if_its_whole_interval_is() -> None:
    apart = RANDOM.normal(0.60, 0.1, 1000)
    assert verdicts(row("a", 0.60, apart), row("b", 0.58)) == {"a": ("b", ""), "b": ("a", "")}


def test_every_row_is_compared_with_the_best_other_method() -> None:
    found = verdicts(row("a", 0.9), row("a+pose", 0.8), row("b", 0.5), row("c", 0.3))
    assert found == {"a": ("b", "ahead"), "a+pose": ("b", "ahead"), "b": ("a", "behind"), "c": ("a", "behind")}


def test_rows_of_other_people_and_rows_without_figure_are_not_compared() -> None:
    assert verdicts(row("a", 0.9), row("b", 0.5, people="ab"), row("c", None)) == {}
    few = verdicts(row("anofield", 0.9), row("anofield-few", 0.5, people="ab"), row("ifl2021", 0.4, people="ab"))
    assert few == {"anofield-few": ("ifl2021", "ahead"), "ifl2021": ("anofield-few", "behind")}


def test_lower_may_be_better() -> None:
    assert verdicts(row("a", 2.0), row("b", 3.0), row("c", 9.0), lower=True) == {
        "a": ("b", "ahead"), "b": ("a", "behind"), "c": ("a", "behind")}  # fmt: skip


@pytest.mark.parametrize("samples", [np.full(1000, np.nan), np.zeros(1000)])
def test_without_an_interval_there_is_no_verdict(samples: np.ndarray) -> None:
    assert {verdict for _, verdict in verdicts(row("a", 0.9, samples), row("b", 0.5, samples)).values()} == {""}
