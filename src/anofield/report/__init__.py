"""The report of a run: one self-contained HTML file, readable offline, by clinicians and researchers."""

from __future__ import annotations

import os
from pathlib import Path

from anofield.errors import UsageError
from anofield.report.folder import read_run
from anofield.report.page import render
from anofield.scan import writing
from anofield.typing import PathLike

TITLE = "Anomaly detection report"


def write_report(
    run: PathLike,
    out: PathLike,
    *,
    results: PathLike | None = None,
    title: str = TITLE,
    max_cases: int = 24,
    notes: str = "",
) -> Path:
    """Write the report of a detection run, with its metrics if it was evaluated.

    Args:
        run: Folder written by `detect`; case folders without `case.json` are unfinished and left out.
        out: HTML file to write, or a folder, which gets `report.html`.
        results: Folder written by `evaluate` (holds `results.json`); without it the page shows no metrics.
        title: Heading of the page.
        max_cases: Cases shown with pictures, the first in the run's order; the table lists every case. The default
            keeps the file far below the 15 MB at which mail programs and viewers begin to refuse it.
        notes: Plain text shown under the heading; an empty line begins a new paragraph.

    Returns:
        The file written. It replaces an older one only when it is complete.

    Raises:
        UsageError: `max_cases` is negative, or a JSON file of the run or of the results is missing or damaged.
        CohortError: The run folder does not exist or holds no finished case.
        MachineError: The file cannot be written.

    Notes:
        A missing truth, mask, restoration or source scan never stops the report; the case's card says what is missing.
        About one second per shown case of 1 mm voxels.
    """
    if max_cases < 0:
        raise UsageError("is negative", where="max_cases", remedy="give 0 for a report without pictures, or more")
    page = render(read_run(run, results), title=title, max_cases=max_cases, notes=notes)
    path = Path(out)
    path = path / "report.html" if path.is_dir() else path
    _write_text(path, page)
    return path


def _write_text(path: Path, text: str) -> None:
    """Write UTF-8 text to a temporary name in the same folder, then rename it over `path`."""
    partial = path.with_name(f".partial-{os.getpid()}-{path.name}")
    with writing(path, partial):
        path.parent.mkdir(parents=True, exist_ok=True)
        partial.write_text(text, encoding="utf-8")
        partial.replace(path)
