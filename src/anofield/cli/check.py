"""`anofield check`: check every scan before long work."""

from __future__ import annotations

import typer

from anofield._words import counted
from anofield.cli._options import Json, LabelledInput, Workers, finish
from anofield.cli._parameters import expanded
from anofield.errors import CohortError


@expanded
def command(*, scans: LabelledInput, workers: Workers = 1, json_: Json = False) -> None:
    """Check geometry, brain, intensities, labels and duplicates of every scan; changes no file.

    Ends with 0 when every scan can be used, 3 when some cannot, 4 when none can.
    """
    from dataclasses import asdict

    from anofield.data.check import check_cohort, format_rows, terminal_width
    from anofield.data.parallel import Spread

    cases = scans.cases()
    rows = check_cohort(cases, spread=Spread(workers))
    bad = sum(bool(row.problems) for row in rows)
    result = {
        "scans": len(rows),
        "usable": len(rows) - bad,
        "warned": sum(bool(row.warnings) for row in rows),
        "left_out": [{**asdict(one), "path": str(one.path)} for one in cases.left_out],
        "cases": [asdict(row) for row in rows],
    }
    finish(result, (), len(rows) - bad, as_json=json_, text=format_rows(rows, terminal_width()))
    if bad == len(rows):
        raise CohortError(
            f"none of {counted(bad, 'scan')} can be used", where=scans.sources, remedy="fix the problems listed above"
        )
    if bad:
        raise typer.Exit(3)
