"""Counts read well in tables and messages."""

from __future__ import annotations

import pytest

from anofield._words import counted


@pytest.mark.parametrize("number, text", [(0, "0 cases"), (1, "1 case"), (2, "2 cases"), (11, "11 cases")])
def test_only_one_is_singular(number: int, text: str) -> None:
    assert counted(number, "case") == text


def test_a_plural_of_its_own() -> None:
    assert [counted(n, "person", "people") for n in (1, 2)] == ["1 person", "2 people"]
