"""Sizes of a benchmark, and the seeds that methods may be tuned on."""

from __future__ import annotations

from dataclasses import dataclass, replace

from anofield import study

TUNING_SEEDS = range(0, 10)  # free to tune on
REPORT_SEEDS = range(100, 110)  # for reports only: nobody may choose a method or an option by them


@dataclass(frozen=True, kw_only=True)
class Sizes:
    """Sizes of a benchmark.

    Attributes:
        plan: Training people, people for calibration (`n_calibration`) and with lesions (`n_test`), scan, lattice, and
            field of every world.
        healthy: Healthy people of a test, for the false volume.
        new_site: People of a new site for calibration, at most.
        few: People for calibration, and for the test, of the published procedure, which takes a minute per scan.
        steps: Training steps of every baseline that is trained in steps.
    """

    plan: study.Plan
    healthy: int
    new_site: int
    few: int
    steps: int

    @property
    def everything_small(self) -> bool:
        """Whether the sizes show only that everything works."""
        return self == QUICK


FULL = Sizes(
    plan=replace(study.FULL, n_train=64, n_calibration=8, n_test=10, epochs=300, normalise="tissue"),
    healthy=6,
    new_site=20,
    few=4,
    steps=600,
)
QUICK = Sizes(
    plan=study.Plan(n_train=8, n_calibration=2, n_test=3, scan_size=32, resolution=24, epochs=4, points=128, people=8,
                    width=32, depth=3, octaves=3, code_length=8, normalise="tissue"),
    healthy=1,
    new_site=3,
    few=1,
    steps=4,
)  # fmt: skip


def kind_of_seed(seed: int) -> str:
    """What a seed may be used for, in words.

    >>> kind_of_seed(0)
    'seed 0, free to tune on'
    >>> kind_of_seed(100)
    'seed 100, for reports only: nothing may be tuned on it'
    """
    if seed in TUNING_SEEDS:
        return f"seed {seed}, free to tune on"
    if seed in REPORT_SEEDS:
        return f"seed {seed}, for reports only: nothing may be tuned on it"
    return f"seed {seed}, neither one to tune on ({_range(TUNING_SEEDS)}) nor one for reports ({_range(REPORT_SEEDS)})"


def _range(seeds: range) -> str:
    return f"{seeds[0]} to {seeds[-1]}"
