"""Damaged files of every kind that is read: one bit, or what a fuzzer does to them."""

from __future__ import annotations

from typing import Any

import pytest

from hostile.damage import KINDS, Outcomes, Way, damage
from hostile.world import World

COUNTS: dict[Way, int] = {"flip": 300, "fuzz": 500}
SHARE = 6
SHARED = [name for name, kind in KINDS.items() if kind.shared]
ALL = [(name, way) for name, kind in KINDS.items() for way in kind.ways]


def check(found: Outcomes) -> None:
    """Fail with the first descriptions of what was wrong."""
    assert not found.failures, f"{len(found.failures)} wrong of {dict(found.counts)}\n" + "\n".join(found.failures[:25])


@pytest.mark.slow
@pytest.mark.parametrize("kind", SHARED)
def test_some_damaged_files_are_refused(hostile_world: World, kind: str) -> None:
    for way in COUNTS:
        check(damage(hostile_world, kind, way, SHARE))


@pytest.mark.hostile
@pytest.mark.parametrize(("kind", "way"), ALL)
def test_damaged_files_are_refused(hostile_world: World, kind: str, way: Way, figure: Any) -> None:
    found = damage(hostile_world, kind, way, COUNTS[way])
    names = ("refused", "equal", "said", "another value", "wrong")
    counts = {name: found.counts[name] for name in names}
    figure(f"{way} of", kind, **counts, MB=found.megabytes, seconds=found.slowest)
    check(found)
