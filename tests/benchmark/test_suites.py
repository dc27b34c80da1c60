"""The suites: who is tested where, each with one method from start to end, and which people they share."""

from __future__ import annotations

from pathlib import Path

import pytest

from anofield.benchmark.people import Changed, First, Phantoms
from anofield.benchmark.rows import all_rows, chosen_rows
from anofield.benchmark.sizes import FULL, REPORT_SEEDS, TUNING_SEEDS, kind_of_seed
from anofield.benchmark.suite import Setting, Suite
from anofield.benchmark.suites import REAL, SUITES
from anofield.phantom.lesions.kinds import HELD_OUT_KINDS


def suites(sizes=FULL) -> dict[str, Suite]:
    setting = Setting(out=Path("nowhere"), sizes=sizes, seed=0, device="cpu")
    return {name: make(setting) for name, make in SUITES.items() if not name.startswith(REAL)}


def numbers(group: object) -> set[int]:
    while not isinstance(group, Phantoms):
        assert isinstance(group, Changed | First)
        group = group.people
    return {number for number, _ in group.plan}


def test_nobody_is_trained_or_calibrated_on_and_tested() -> None:
    for suite in suites().values():
        train = numbers(suite.world.train)
        for part in suite.parts:
            calibration = numbers(part.calibration)
            tested = [numbers(group) for group in part.test]
            assert len(set().union(*tested)) == sum(map(len, tested))
            assert not (train & calibration or (train | calibration) & set().union(*tested))


def test_suites_share_one_world_and_have_their_own_names() -> None:
    made = suites()
    assert {suite.name for suite in made.values()} == set(made)
    assert len({id(suite.world) for suite in made.values()}) == 1


def test_groups_of_one_name_are_the_same_people() -> None:
    known: dict[str, object] = {}
    for suite in suites().values():
        for group in [group for part in suite.parts for group in (part.calibration, *part.test)]:
            assert known.setdefault(group.name, group) == group


def test_each_suite_differs_from_straight_in_one_way() -> None:
    made = suites()
    straight = made["straight"].parts[0]
    for name in ("displaced", "thick"):
        pairs = zip(made[name].parts[0].test, straight.test, strict=True)
        assert all(isinstance(changed, Changed) and changed.people == plain for changed, plain in pairs)
    for part in made["sites"].parts:
        assert [numbers(group) for group in part.test] == [numbers(group) for group in straight.test]
    assert [part.calibration == straight.calibration for part in made["sites"].parts] == [True, False, False] * 2
    assert made["unusual"].parts[0].calibration == straight.calibration
    groups = [group for group in made["other-lesions"].parts[0].test if isinstance(group, Phantoms)]
    assert {kind for group in groups for _, kind in group.plan} == {None, *HELD_OUT_KINDS}
    tails = {name: {part.filters.tail for part in suite.parts} for name, suite in made.items()}
    assert {name for name, tail in tails.items() if tail != {"bright"}} == {"dark", "other-lesions"}


def test_parts_of_the_same_people_follow_each_other() -> None:
    tests = [part.test for part in suites()["sites"].parts]
    assert tests[0] == tests[1] == tests[2] != tests[3] == tests[4] == tests[5]


def test_columns_name_parts_that_exist() -> None:
    for suite in suites().values():
        assert {column.part for column in suite.columns} <= {part.name for part in suite.parts}


def test_methods_that_depend_on_position_run_twice() -> None:
    names = [row.name for row in all_rows()]
    assert len(set(names)) == len(names)
    assert {"dae", "dae+pose", "zscore", "zscore+pose", "disyre+pose", "patch-memory+pose"} <= set(names)
    assert not {"random+pose", "intensity+pose", "equalised+pose", "anofield+pose"} & set(names)
    assert [row.name for row in chosen_rows(("zscore+pose", "random"))] == ["random", "zscore+pose"]


@pytest.mark.parametrize(("seed", "words"), [(3, "free to tune on"), (100, "for reports only"), (50, "neither")])
def test_seeds_say_what_they_are_for(seed: int, words: str) -> None:
    assert words in kind_of_seed(seed)
    assert not set(TUNING_SEEDS) & set(REPORT_SEEDS)
