"""Reports of a run, of a comparison and of a training: self-contained HTML for clinicians and researchers, offline."""

from __future__ import annotations

from pathlib import Path

from anofield.errors import UsageError
from anofield.report.compare import render_comparison
from anofield.report.folder import read_run
from anofield.report.page import render
from anofield.report.paging import write_pages
from anofield.typing import PathLike

TITLE, TRAINING_TITLE = "Anomaly detection report", "Training report"
COMPARISON_TITLE = "Comparison of two runs"


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
        max_cases: Cases shown with pictures, the first in the run's order; the table lists every case. Where one file
            would exceed 15 MB, cases go into numbered files beside it (`report-2.html`, …), each below 15 MB; those of
            an older report beyond them are removed.
        notes: Plain text shown under the heading; an empty line begins a new paragraph.

    Returns:
        The file written. It replaces an older one only when it is complete.

    Raises:
        UsageError: `max_cases` is negative, or a JSON file of the run or of the results is missing or damaged.
        CohortError: The run folder does not exist or holds no finished case.
        MachineError: The file cannot be written.

    Notes:
        A missing truth, mask, restoration or source scan never stops the report; the case's card says what is missing.
        About one second per shown case of 1 mm voxels; memory for two files of cases, however many there are.
    """
    if max_cases < 0:
        raise UsageError("is negative", where="max_cases", remedy="give 0 for a report without pictures, or more")
    path = _target(out)
    write_pages(path, render(read_run(run, results), title=title, max_cases=max_cases, notes=notes, name=path.name))
    return path


def write_training_report(
    experiment: PathLike,
    out: PathLike,
    *,
    data: PathLike | None = None,
    title: str = TRAINING_TITLE,
    people: int = 6,
    device: str = "auto",
) -> Path:
    """Write the report of a training, finished or not, of this program or of 2021.

    Args:
        experiment: Its directory; without a checkpoint or a `recipe.json` the page shows no people and says why.
        out: HTML file to write, or a folder, which gets `training.html`.
        data: Store it was trained on: stored classes are shown beside the restorations.
        title: Heading of the page.
        people: Shown of the training, and as many from the prior.
        device: Where they are decoded.

    Returns:
        The file written. It replaces an older one only when it is complete.

    Raises:
        ExperimentError: No such experiment.
        CohortError: `data` is no store.
        UsageError: `people` is negative, or `specs.json` cannot be used.
        MachineError: The file cannot be written.
    """
    from anofield.report.history import read_history  # with torch, which the report of a run does without
    from anofield.report.training import render_training

    if people < 0:
        raise UsageError("is negative", where="people", remedy="give 0 for a report without pictures, or more")
    page = render_training(read_history(experiment), data=data, title=title, people=people, device=device)
    return _write_page(out, page, "training.html")


def write_comparison_report(comparison: PathLike, out: PathLike, *, title: str = COMPARISON_TITLE) -> Path:
    """Write the report of a comparison of two runs.

    Args:
        comparison: Written by `anofield evaluate --compare`, or the folder that holds it.
        out: HTML file to write, or a folder, which gets `compare.html`.
        title: Heading of the page.

    Returns:
        The file written.

    Raises:
        UsageError: No such file, or it is no comparison.
        MachineError: The file cannot be written.
    """
    return _write_page(out, render_comparison(comparison, title=title), "compare.html")


def _write_page(out: PathLike, page: str, name: str) -> Path:
    path = _target(out, name)
    write_pages(path, [(path.name, page)])
    return path


def _target(out: PathLike, name: str = "report.html") -> Path:
    path = Path(out)
    return path / name if path.is_dir() else path
