"""Two processes that write to one output at the same time, also with one process id, as two containers have it."""

from __future__ import annotations

from typing import Any

import pytest

from hostile.test_kills import REFUSALS, VERBS
from hostile.world import World, difference, tree

DELAYS = (0.0, 0.02, 0.1, 0.25)  # seconds by which the second process starts later
PAIRS = (
    "prepare", "prepare --force", "train", "calibrate", "calibrate, reference maps", "detect", "detect, other score",
    "evaluate", "report", "baseline train", "baseline train --force", "baseline detect", "export nt", "import nt",
)  # fmt: skip
SHARE = ("prepare", "train")
WRITES = 1500


def run_pairs(world: World, name: str, delays: tuple[float, ...]) -> dict[str, int]:
    """Run a verb twice at the same time, once per delay; returns how often one was refused and how often both ended."""
    verb = VERBS[name]
    world.lay(*verb.states)
    assert world.run(verb.words).code == 0
    alone = tree(world.arena)
    outcomes = {"both ended": 0, "one refused": 0}
    for delay in delays:
        world.lay(*verb.states)
        job = {"argv": verb.words.split(), "cwd": str(world.arena), "pid": 1}
        pair = world.server.ask(job, {**job, "wait": delay})
        said = "\n".join(ended.said[-600:] for ended in pair)
        codes = sorted(ended.code for ended in pair)
        assert codes[0] == 0, f"none of the two did the work, {delay} s apart\n{said}"
        assert codes[1] in {0, *REFUSALS}, f"exit {codes[1]}, {delay} s apart\n{said}"
        assert not (apart := difference(alone, tree(world.arena))), f"{delay} s apart: {apart}\n{said}"
        outcomes["one refused" if codes[1] else "both ended"] += 1
    return outcomes


@pytest.mark.slow
@pytest.mark.parametrize("verb", SHARE)
def test_two_processes_at_once_leave_no_damage(hostile_world: World, verb: str) -> None:
    run_pairs(hostile_world, verb, DELAYS[:2])


@pytest.mark.hostile
@pytest.mark.parametrize("verb", PAIRS)
def test_two_processes_leave_the_result_of_one(hostile_world: World, verb: str, figure: Any) -> None:
    figure("two processes", verb, **run_pairs(hostile_world, verb, DELAYS))


@pytest.mark.slow
def test_two_processes_with_one_id_never_write_to_one_temporary_file(hostile_world: World) -> None:
    hostile_world.lay()
    job = {"call": "hostile.readers:write_often", "args": [WRITES], "cwd": str(hostile_world.arena), "pid": 1}
    pair = hostile_world.server.ask(job, job)
    assert [ended.value for ended in pair] == [[], []], "\n".join(ended.said[-500:] for ended in pair)
    assert [path.name for path in (hostile_world.arena / "written").iterdir()] == ["one.json"]
