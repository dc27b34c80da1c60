"""Counts read well in tables and messages."""

from __future__ import annotations

import pytest

from anofield._words import counted
from anofield.cli.detect import _finding


@pytest.mark.parametrize("number, text", [(0, "0 cases"), (1, "1 case"), (2, "2 cases"), (11, "11 cases")])
def test_only_one_is_singular(number: int, text: str) -> None:
    assert counted(number, "case") == text


def test_a_plural_of_its_own() -> None:
    assert [counted(n, "person", "people") for n in (1, 2)] == ["1 person", "2 people"]


def test_volumes_of_a_run_stay_in_one_column() -> None:
    rows = [_finding({"threshold": 1.0, "lesions": n, "volume_ml": 2.5}) for n in (0, 1, 12)]
    assert rows == ["  0 lesions      2.50 ml", "  1 lesion       2.50 ml", " 12 lesions      2.50 ml"]
