"""Suites of the benchmark: which people are calibrated and tested on, with which options, and what the table shows.

To add a suite, write a function `Setting -> Suite` and add it to `SUITES`. A suite names its world, which trains the
methods (`Setting.world` returns the same one for the same name, so that suites share what is trained), and its parts. A
part names a group of healthy people to calibrate on and groups to test on. A group is anything with a `name` and a
method `cases`, see `anofield.benchmark.people.People`; real scans need no more than that. Nothing is made before the
suite runs. A suite that cannot run here has a text in `missing` that says why, and is skipped with that line. Figures
that `anofield.benchmark.measure` does not have come from `Part.more`; a `Column` shows them.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from anofield.benchmark.measure import More
from anofield.benchmark.people import Changed, People, Phantoms, displaced
from anofield.benchmark.rows import Row
from anofield.benchmark.sizes import Sizes
from anofield.benchmark.world import World
from anofield.detect.options import FitOptions, ScoreOptions
from anofield.phantom.cohort import Cohort, plan_cohort

AGAINST = "against"  # figure of a column: the paired difference from the best other method


@dataclass(frozen=True, kw_only=True)
class Part:
    """One test of a suite.

    Attributes:
        name: Name of the part.
        calibration: Healthy people to calibrate on.
        test: People to test on. Healthy ones count for the false volume only.
        filters: Filters of every method.
        fit: Fit of the field.
        more: Function that gives further figures.
    """

    name: str
    calibration: People
    test: tuple[People, ...]
    filters: ScoreOptions = field(default_factory=ScoreOptions)
    fit: FitOptions = field(default_factory=FitOptions)
    more: More | None = None


@dataclass(frozen=True)
class Column:
    """A column of a table: the figure of a part, or `AGAINST`."""

    heading: str
    figure: str
    part: str


@dataclass(frozen=True, kw_only=True)
class Suite:
    """Tests that are shown in one table.

    Attributes:
        name: Name of the suite.
        shows: What it shows, a sentence.
        world: Where the methods are trained.
        parts: Tests. Parts that follow each other with the same test people and filters are scored once.
        columns: Columns of the table between the method and the times.
        rank: Figure by which rows are ordered and compared.
        lower_is_better: Whether a lower `rank` is better.
        few: Whether the rows that have few people only belong to it.
        missing: Why it cannot run here; empty if it can.
    """

    name: str
    shows: str
    world: World
    parts: tuple[Part, ...]
    columns: tuple[Column, ...]
    rank: str = "ap"
    lower_is_better: bool = False
    few: bool = False
    missing: str = ""

    def has(self, row: Row) -> bool:
        """Whether a row belongs to the suite."""
        return self.few or not row.few


@dataclass(frozen=True, kw_only=True)
class Setting:
    """What all suites of a benchmark share.

    Attributes:
        out: Folder of the benchmark.
        sizes: Sizes.
        seed: Seed of people and trainings.
        device: Device of training and scoring.
        worlds: Worlds that a suite has asked for, by name.
    """

    out: Path
    sizes: Sizes
    seed: int
    device: str
    worlds: dict[str, World] = field(default_factory=dict)

    def world(self, name: str, train: People) -> World:
        """The world of this name."""
        if name not in self.worlds:
            self.worlds[name] = World(name=name, out=self.out, train=train, sizes=self.sizes, seed=self.seed,
                                      device=self.device)  # fmt: skip
        return self.worlds[name]

    def people(self, name: str, first: int, healthy: int, kinds: Sequence[str] = (), lesions: int = 0) -> Phantoms:
        """Synthetic people of site A with case numbers from `first`, see `plan_cohort`."""
        return self.people_at("A", name, first, healthy, kinds, lesions)

    def people_at(
        self, site: str, name: str, first: int, healthy: int, kinds: Sequence[str] = (), lesions: int = 0
    ) -> Phantoms:
        """Synthetic people of a site; the same numbers are the same people at every site."""
        cohort = Cohort("brats", size=self.sizes.plan.scan_size, modality="T2w")
        return Phantoms(name=f"{site}-{name}", cohort=cohort, plan=plan_cohort(healthy, lesions, kinds, first))

    @property
    def t2w(self) -> World:
        """The world of the phantom suites."""
        return self.world("T2w", self.people("train", TRAIN, self.sizes.plan.n_train))

    def calibration(self, site: str = "A") -> Phantoms:
        """Healthy people to calibrate on."""
        return self.people_at(site, "calibration", CALIBRATION, self.sizes.plan.n_calibration)

    def tested(self, kind: str = "glioma", site: str = "A") -> Phantoms:
        """People with lesions of a kind."""
        first = LESIONS + 100 * _KINDS.index(kind)
        return self.people_at(site, kind, first, 0, (kind,), self.sizes.plan.n_test)

    def healthy(self, site: str = "A") -> Phantoms:
        """Healthy people of the test."""
        return self.people_at(site, "healthy", HEALTHY, self.sizes.healthy)


TRAIN, CALIBRATION, HEALTHY, NEW_SITE, UNUSUAL, LESIONS = 0, 1000, 2000, 3000, 4000, 5000  # first case numbers
_KINDS = ("glioma", "small", "dark")


def usual(part: str, *, small: bool = False, voxels: bool = True) -> tuple[Column, ...]:
    """Columns of a part.

    Args:
        part: Name of the part.
        small: Whether to show the recall of lesions.
        voxels: Whether to show what needs lesions.
    """
    shown = [
        ("AP", "ap", voxels),
        ("against the best other", AGAINST, voxels),
        ("AUROC", "auroc", voxels),
        ("Dice, calibrated", "dice", voxels),
        ("Dice, oracle", "dice_oracle", voxels),
        ("recall at 1 false finding", "recall_at_1", small),
        ("false volume, ml", "false_ml", True),
        ("false volume / promise", "false_promise", True),
        ("against the best other", AGAINST, not voxels),
    ]
    return tuple(Column(heading, figure, part) for heading, figure, wanted in shown if wanted)


def straight(setting: Setting) -> Suite:
    """Gliomas in heads that lie as in training."""
    part = Part(name="all", calibration=setting.calibration(), test=(setting.tested(), setting.healthy()))
    return Suite(name="straight", shows="Gliomas; heads lie straight, scanned as in training.", world=setting.t2w,
                 parts=(part,), columns=usual("all"), few=True)  # fmt: skip


def displaced_heads(setting: Setting) -> Suite:
    """The people of `straight`, turned, shifted and scaled."""
    moved = [Changed(people=group, change=displaced) for group in
             (setting.calibration(), setting.tested(), setting.healthy())]  # fmt: skip
    part = Part(name="all", calibration=moved[0], test=tuple(moved[1:]))
    return Suite(name="displaced", shows="The people of `straight`, turned by up to 30°, shifted by up to 30 mm, scaled "
                 "by 0.9 to 1.1 (the affine alone changes).", world=setting.t2w, parts=(part,),
                 columns=usual("all"))  # fmt: skip


SUITES: dict[str, Callable[[Setting], Suite]] = {"straight": straight, "displaced": displaced_heads}
