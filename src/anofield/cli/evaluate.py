"""`anofield evaluate`: run + labels → metrics."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from anofield.cli._options import Dataset, DatasetOption, Json, finish


def command(
    run: Annotated[Path, typer.Option("--predictions", "-p", help="Folder of the run.")],
    output: Annotated[Path, typer.Option("--output", "-o", help="Folder of the results.")],
    labels: Annotated[
        str | None, typer.Option("--truth", "-t", help="Labels; default: found beside the scans.")
    ] = None,
    dataset: DatasetOption = Dataset.auto,
    json_: Json = False,
) -> None:
    """Compare a run with lesion labels, inside the brain, beside the intensity baseline."""
    from anofield.cluster import Failure
    from anofield.evaluate import evaluate, format_table, plain

    results = evaluate(run, labels, output, dataset=dataset.value)
    failures = [Failure(**row) for row in results["failures"]]
    note = (
        "Dice (calibrated): per case, threshold from healthy scans. Dice (oracle): best threshold on the test labels."
    )
    text = f"{format_table(results)}\n{results['n_cases']} cases. {note}\nwritten to {output}"
    finish(plain(results), failures, results["n_cases"], as_json=json_, text=text)
