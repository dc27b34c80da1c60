"""Paired comparison of the rows of a table: each row against the best other method, over the same resamples."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np

from anofield import bootstrap
from anofield.benchmark.rows import POSED
from anofield.bootstrap import Samples
from anofield.typing import Json

Verdict = Literal["ahead", "behind", ""]


@dataclass(frozen=True)
class Against:
    """A row against the best other method.

    Attributes:
        other: Name of the other row.
        value: Difference, row − other.
        ci: Its 95 % interval over people.
        verdict: `ahead` if the whole interval says that the row is better, `behind` if that it is worse.
    """

    other: str
    value: float
    ci: tuple[float, float] | None
    verdict: Verdict


def compare_rows(rows: Sequence[Json], part: str, rank: str, *, lower_is_better: bool) -> dict[str, Against]:
    """Every row of a part against the best other method, by name.

    Only rows of the same people are compared, and no two rows of the same method.

    Args:
        rows: Contents of the rows' files.
        part: Name of the part.
        rank: Figure to compare.
        lower_is_better: Whether a lower figure is better.
    """
    sign = -1.0 if lower_is_better else 1.0
    found = {}
    for row in rows:
        others = [other for other in rows if _comparable(row, other, part, rank)]
        if others and row["parts"][part]["figures"][rank]["value"] is not None:
            best = max(others, key=lambda other: sign * other["parts"][part]["figures"][rank]["value"])
            found[row["name"]] = _against(row, best, part, rank, sign)
    return found


def method_of(name: str) -> str:
    """The method of a row: rows of one method differ in the help or in the people.

    >>> method_of("dae+pose"), method_of("anofield-few")
    ('dae', 'anofield')
    """
    return name.removesuffix(POSED).removesuffix("-few")


def _comparable(row: Json, other: Json, part: str, rank: str) -> bool:
    """Whether another row is of another method, of the same people, and has the figure."""
    if method_of(row["name"]) == method_of(other["name"]) or part not in other["parts"] or part not in row["parts"]:
        return False
    one, two = row["parts"][part], other["parts"][part]
    return one["people"] == two["people"] and two["figures"][rank]["value"] is not None


def _against(row: Json, other: Json, part: str, rank: str, sign: float) -> Against:
    one, two = row["parts"][part], other["parts"][part]
    value = one["figures"][rank]["value"] - two["figures"][rank]["value"]
    interval = bootstrap.interval(_samples(one, rank) - _samples(two, rank))
    return Against(other["name"], value, interval, _verdict(interval, sign))


def _verdict(interval: tuple[float, float] | None, sign: float) -> Verdict:
    if interval is None:
        return ""
    low, high = sorted(sign * end for end in interval)
    return "ahead" if low > 0 else "behind" if high < 0 else ""


def _samples(part: Mapping[str, Json], rank: str) -> Samples:
    return np.array([np.nan if value is None else value for value in part["samples"][rank]], dtype=float)
