"""Every verb is killed at every change of a file; then the same command must give what it gives undisturbed."""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

import pytest

from hostile.killer import KILLED
from hostile.world import ATLAS, CALIBRATE, DETECT, EVALUATE, PREPARE, TRAIN, World, difference, state_of, tree

SHARE = {  # kills in the default suite
    "prepare": 2, "prepare --force": 2, "train": 2, "detect, other score": 1, "report again": 1,
    "baseline train --force": 1, "export nt": 1,
}  # fmt: skip
REFUSALS = {2, 3, 4, 5, 6}
Kill = tuple[int, str]  # number of the event, and whether it is cut off before it or in the middle of its write


@dataclass(frozen=True)
class Verb:
    """A command that is killed: the states that it starts from, and what readers must get right after a kill."""

    words: str
    states: tuple[str, ...]
    readers: tuple[str, ...]
    pages: tuple[str, ...] = ()  # readers that also show a state in between; they must not fail

    @property
    def every_reader(self) -> tuple[str, ...]:
        """Readers of content and pages."""
        return (*self.readers, *self.pages)


WITH_MAPS, RESULTS = f"{CALIBRATE} --preset small-lesions", ("run", "results")
BIDS = "detect -m exp -i glioma.tsv -o bids --naming bids"
VERBS = {
    "prepare": Verb(f"{PREPARE} 12", (), ("store",)),
    "prepare --force": Verb(f"{PREPARE} 12 --force", ("old-store",), ("store",)),
    "train": Verb(TRAIN, ("store", "specs"), ("training",), ("training_report",)),
    "calibrate": Verb(CALIBRATE, ("trained",), ("calibration",)),
    "calibrate again": Verb(f"{CALIBRATE} --quantile 0.99", ("calibrated",), ("calibration",)),
    "calibrate, reference maps": Verb(WITH_MAPS, ("calibrated",), ("calibration_with_maps",)),
    "calibrate again, reference maps": Verb(f"{WITH_MAPS} --quantile 0.99", ("with-maps",), ("calibration_with_maps",)),
    "detect": Verb(DETECT, ("calibrated",), ("evaluation", "run_report")),
    "detect, other score": Verb(f"{DETECT} --score crps", ("calibrated", *RESULTS), ("evaluation", "run_report")),
    "detect, one more scan": Verb(DETECT, ("calibrated", "half-run"), ("evaluation",)),
    "detect, names of BIDS": Verb(BIDS, ("calibrated",), ("bids_evaluation",)),
    "evaluate": Verb(EVALUATE, ("run",), ("results",)),
    "evaluate again": Verb(f"{EVALUATE} --space all", RESULTS, ("run_report", "result_files")),
    "evaluate --compare": Verb("evaluate --compare run atlas-run -o compared --bootstrap 10", ("run", "atlas-run"),
                               ("comparison_report",)),
    "report": Verb("report -p run -r results -o report.html", RESULTS, ()),
    "report again": Verb("report -p run -r results -o report.html --title other", (*RESULTS, "report"), ()),
    "baseline train": Verb(ATLAS, ("store",), ("baseline",)),
    "baseline train --force": Verb(f"{ATLAS} --force --seed 1", ("store", "calibrated-atlas"), ("baseline",)),
    "baseline calibrate": Verb("baseline zscore calibrate -m atlas -i healthy.tsv", ("atlas",), ("baseline",)),
    "baseline detect": Verb("baseline zscore detect -m atlas -i glioma.tsv -o atlas-run", ("calibrated-atlas",),
                            ("atlas_evaluation", "atlas_report")),
    "export nt": Verb("export -i train.zarr -o nt", ("store",), ()),
    "export ifl2021": Verb("export -i exp -o published --format ifl2021", ("trained",), ("published_model",)),
    "import nt": Verb("import -i nt -o imported.zarr", ("nt",), ()),
}  # fmt: skip


@dataclass
class Trial:
    """Kills of one verb. States that are equal after a kill are continued once."""

    world: World
    verb: Verb
    failures: list[str] = field(default_factory=list)
    outcomes: Counter[str] = field(default_factory=Counter)
    seen: dict[Any, list[str]] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.start: list[dict[str, Any]] = self._facts_of_start()
        self.events, self.undisturbed = self._undisturbed()
        self.allowed = [[*self.start[n : n + 1], facts] for n, facts in enumerate(self._facts())]

    def _facts_of_start(self) -> list[dict[str, Any]]:
        self.world.lay(*self.verb.states)
        return self._facts()

    def _facts(self) -> list[dict[str, Any]]:
        """What each reader says about the arena as it is: its facts, or nothing where it refuses."""
        found = [self.world.call("hostile.readers:read", reader).value for reader in self.verb.every_reader]
        assert not any("defect" in one for one in found), found
        return [one.get("facts", {}) for one in found]

    def _undisturbed(self) -> tuple[list[list[str]], dict[str, object]]:
        """Events and final tree of the command, which must show every change of a file as an event."""
        self.world.lay(*self.verb.states)
        before = tree(self.world.arena)
        ended = self.world.run(self.verb.words)
        assert ended.code == 0, ended.said
        after = tree(self.world.arena)
        shown = {path for _, *paths in ended.events for path in paths}
        changed = [Path(name) for name, value in after.items() if before.get(name) != value]
        hidden = [str(path) for path in changed if shown.isdisjoint(map(str, (path, *path.parents)))]
        assert not hidden, f"written without an event: {hidden}"
        return ended.events, after

    @cached_property
    def kills(self) -> list[Kill]:
        """All kills: before each event, and in the middle of each write."""
        numbered = list(enumerate(self.events, 1))
        return [(n, "before") for n, _ in numbered] + [(n, "torn") for n, (event, *_) in numbered if event == "open"]

    def kill(self, at: int, how: str) -> None:
        """Kill the command once, read what it left, and run it again."""
        self.world.lay(*self.verb.states)
        ended = self.world.run(self.verb.words, at=at, how=how)
        if ended.code != KILLED:  # all writes that followed were too short to be torn
            self.outcomes["ended"] += ended.code == 0
            self.failures += [] if ended.code == 0 else [f"torn at {at}: exit {ended.code}: {ended.said[-300:]}"]
            return
        state = state_of(self.world.arena)
        if state not in self.seen:
            self.seen[state] = [*self._misread(), *self._continued()]
        self.outcomes["wrong" if self.seen[state] else "equal"] += 1
        event = " ".join(self.events[at - 1])
        self.failures += [f"{how} event {at} ({event}): {text}" for text in self.seen[state]]

    def _misread(self) -> Iterator[str]:
        """What readers get wrong right after the kill."""
        for reader, allowed in zip(self.verb.every_reader, self.allowed, strict=True):
            found = self.world.call("hostile.readers:read", reader).value or {"defect": "the reader died"}
            if "defect" in found:
                yield f"{reader}: {found['defect']}"
            if reader in self.verb.pages:
                continue
            facts = found.get("facts", {})
            if not any(facts.items() <= one.items() for one in allowed):
                yield f"{reader}: neither the old content nor the new"

    def _continued(self) -> Iterator[str]:
        """What is wrong after the same command was run again."""
        ended = self.world.run(self.verb.words)
        if ended.code:
            yield f"the same command ends with {ended.code}: {ended.said.strip().splitlines()[-1][:200]}"
        elif apart := difference(self.undisturbed, tree(self.world.arena)):
            yield f"not as undisturbed: {apart}"


def run_kills(world: World, name: str, share: int | None = None) -> Trial:
    """Kill a verb at all its events, or at a seeded share of them."""
    trial = Trial(world, VERBS[name])
    chosen = trial.kills if share is None else random.Random(name).sample(trial.kills, min(share, len(trial.kills)))
    for at, how in chosen:
        trial.kill(at, how)
    return trial


@pytest.mark.slow
@pytest.mark.parametrize("verb", SHARE)
def test_some_kills_are_survived(hostile_world: World, verb: str) -> None:
    trial = run_kills(hostile_world, verb, SHARE[verb])
    assert not trial.failures, "\n".join(trial.failures)


@pytest.mark.hostile
@pytest.mark.parametrize("verb", VERBS)
def test_every_kill_is_survived(hostile_world: World, verb: str, figure: Any) -> None:
    trial = run_kills(hostile_world, verb)
    outcomes = {what: trial.outcomes[what] for what in ("equal", "ended", "wrong")}
    figure("verb", verb, events=len(trial.events), kills=len(trial.kills), states=len(trial.seen), **outcomes)
    assert not trial.failures, f"{len(trial.failures)} failures\n" + "\n".join(trial.failures[:40])
