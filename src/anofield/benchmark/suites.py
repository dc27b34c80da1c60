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

from collections.abc import Callable

from anofield.benchmark import synthetic
from anofield.benchmark.suite import Setting, Suite

SUITES: dict[str, Callable[[Setting], Suite]] = {
    "straight": synthetic.straight,
    "displaced": synthetic.displaced_heads,
    "sites": synthetic.sites,
    "thick": synthetic.thick_slices,
    "small": synthetic.small,
    "dark": synthetic.dark,
    "unusual": synthetic.unusual,
    "other-lesions": synthetic.other_lesions,
}
