"""All suites by name, in the order in which they run.

To add a suite, write a function `Setting -> Suite` and add it here. A suite names its world, which trains the methods
(`Setting.world` returns the same one for the same name, so that suites share what is trained), and its parts. A part
names a group of healthy people to calibrate on and groups to test on. A group is anything with a `name` and a method
`cases`, see `anofield.benchmark.people.People`; real scans need no more than that. Nothing is made before the suite
runs. A suite that cannot run here has a text in `missing` that says why, and is skipped with that line; its function
must not need what is missing. Figures that `anofield.benchmark.measure` does not have come from `Part.more`, which sees
the maps of all test people; a `Column` shows them by their name.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

from anofield.benchmark import real, synthetic
from anofield.benchmark.suite import Setting, Suite
from anofield.errors import UsageError

SUITES: dict[str, Callable[[Setting], Suite]] = {
    "straight": synthetic.straight,
    "displaced": synthetic.displaced_heads,
    "sites": synthetic.sites,
    "thick": synthetic.thick_slices,
    "small": synthetic.small,
    "dark": synthetic.dark,
    "unusual": synthetic.unusual,
    "other-lesions": synthetic.other_lesions,
    "real-healthy": real.healthy,
    "real-implants": real.implants,
    "real-ms": real.patient,
    "real-heads": real.heads,
}
REAL = "real"  # all suites on real brains


def chosen_suites(names: Sequence[str]) -> list[str]:
    """The suites with these names, in their own order; all for no names. `real` stands for all on real brains.

    Raises:
        UsageError: There is no such suite.
    """
    for name in names:
        if name not in (REAL, *SUITES):
            raise UsageError(f"unknown suite {name!r}", remedy=f"known: {', '.join(SUITES)}, {REAL}")
    chosen = set(names or SUITES)
    return [name for name in SUITES if name in chosen or (REAL in chosen and name.startswith(f"{REAL}-"))]
