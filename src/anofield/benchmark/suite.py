"""A suite of the benchmark: its world, its parts with the people of calibration and test, and its table."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path

from anofield.benchmark.measure import More
from anofield.benchmark.people import People
from anofield.benchmark.rows import MethodRow
from anofield.benchmark.sizes import Sizes
from anofield.benchmark.world import World
from anofield.detect.options import FitOptions, ScoreOptions

BRIGHT = ScoreOptions(tail="bright")
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
        world: Where the methods are trained; None for the world of the suite.
    """

    name: str
    calibration: People
    test: tuple[People, ...]
    filters: ScoreOptions = BRIGHT
    fit: FitOptions = field(default_factory=FitOptions)
    more: More | None = None
    world: World | None = None


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
        judged_only: Whether only the field belongs to it, which judges whether a scan can be trusted. The reasons are
            written below the table.
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
    judged_only: bool = False
    missing: str = ""

    def has(self, row: MethodRow) -> bool:
        """Whether a row belongs to the suite."""
        return (self.few or not row.few) and (row.is_field or not self.judged_only)


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

    def world(self, name: str, train: People, sizes: Sizes | None = None) -> World:
        """The world of this name, which is trained on some people; `sizes` are those of the setting by default."""
        if name not in self.worlds:
            self.worlds[name] = World(name=name, out=self.out, train=train, sizes=sizes or self.sizes, seed=self.seed,
                                      device=self.device)  # fmt: skip
        return self.worlds[name]


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
