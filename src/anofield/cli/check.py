"""`anofield check`: look at every scan before long work."""

from __future__ import annotations

from typing import Annotated

import typer

from anofield._words import counted
from anofield.cli._options import Dataset, DatasetOption, Filter, Json, Label, Mask, ModalityOption, Workers, finish
from anofield.errors import CohortError


def command(
    source: Annotated[str, typer.Option("--input", "-i", help="Scan, folder, quoted glob or manifest (.tsv).")],
    dataset: DatasetOption = Dataset.auto,
    modality: ModalityOption = "T2w",
    filter_: Filter = "",
    label: Label = None,
    mask: Mask = None,
    workers: Workers = 1,
    json_: Json = False,
) -> None:
    """Check geometry, brain, intensities, labels and duplicates of every scan; changes no file.

    Ends with 0 when every scan can be used, 3 when some cannot, 4 when none can.
    """
    from dataclasses import asdict

    from anofield.data.check import check_cohort, format_rows
    from anofield.data.cohort.bids import parse_entities
    from anofield.data.cohort.find import find_cases

    entities = parse_entities(filter_)
    cases = find_cases(source, dataset=dataset.value, modality=modality, entities=entities, label=label, mask=mask)
    rows = check_cohort(cases, workers=workers)
    bad = sum(bool(row.problems) for row in rows)
    result = {
        "scans": len(rows),
        "usable": len(rows) - bad,
        "warned": sum(bool(row.warnings) for row in rows),
        "cases": [asdict(row) for row in rows],
    }
    finish(result, (), len(rows) - bad, as_json=json_, text=format_rows(rows))
    if bad == len(rows):
        raise CohortError(
            f"none of {counted(bad, 'scan')} can be used", where=source, remedy="mend the problems listed above"
        )
    if bad:
        raise typer.Exit(3)
