"""Reports as files: `write_report`, `write_comparison_report`, `write_training_report`."""

from __future__ import annotations

from pathlib import Path

from anofield.errors import UsageError
from anofield.evaluation.results import Results
from anofield.reports.compare import render_comparison
from anofield.reports.folder import read_report_run
from anofield.reports.page import render
from anofield.reports.paging import write_pages
from anofield.typing import PathLike

TITLE, TRAINING_TITLE = "Anomaly detection report", "Training report"
COMPARISON_TITLE = "Comparison of two runs"


def write_report(
    run: PathLike,
    out: PathLike,
    *,
    results: Results | PathLike | None = None,
    title: str = TITLE,
    max_cases: int = 24,
    notes: str = "",
) -> Path:
    """Write the report of a detection run, with its metrics if it was evaluated.

    Args:
        run: Folder written by `anofield detect`; cases that are not finished, or are of an earlier run, are left out,
            and the page says so.
        out: HTML file to write, or a folder, which gets `report.html`.
        results: Results of `evaluate`, or the folder that it wrote; without them the page shows no metrics.
        title: Heading of the page.
        max_cases: Cases shown with pictures, the first in the run's order; the table lists every case. Where one file
            would exceed 15 MB, cases go into numbered files beside it (`report-2.html`, …), each below 15 MB; further
            files of an older report are removed.
        notes: Plain text shown under the heading; an empty line begins a new paragraph.

    Returns:
        The file written. It replaces an older one only when it is complete.

    Raises:
        UsageError: `max_cases` is negative, or the results cannot be read or belong to another run.
        CohortError: The run folder does not exist, holds no finished case, or one of its JSON files is damaged.
        MachineError: The file cannot be written.

    Notes:
        A missing truth, mask, restoration or source scan never stops the report; the case's card says what is missing.
        It takes about one second per shown case of 1 mm voxels, and memory for two files, whatever the number of cases.
    """
    if max_cases < 0:
        raise UsageError("is negative", where="max_cases", remedy="give 0 for a report without pictures, or more")
    path = _target(out)
    write_pages(
        path, render(read_report_run(run, results), title=title, max_cases=max_cases, notes=notes, name=path.name)
    )
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
        experiment: Directory of the experiment; without a checkpoint or a `recipe.json` the page shows no subjects and
            says why.
        out: HTML file to write, or a folder, which gets `training.html`.
        data: Store that it was trained on, whose classes are shown beside the restorations.
        title: Heading of the page.
        people: Number of training subjects shown, and of subjects drawn from the prior.
        device: Device that decodes codes.

    Returns:
        The file written. It replaces an older one only when it is complete.

    Raises:
        ExperimentError: There is no such experiment.
        CohortError: `data` is not a store.
        UsageError: `people` is negative, or `specs.json` cannot be used.
        MachineError: The file cannot be written.
    """
    from anofield.reports.history import read_history  # imports torch, which the report of a run does not need
    from anofield.reports.training import render_training

    if people < 0:
        raise UsageError("is negative", where="people", remedy="give 0 for a report without pictures, or more")
    page = render_training(read_history(experiment), data=data, title=title, people=people, device=device)
    return _write_page(out, page, "training.html")


def write_comparison_report(comparison: PathLike, out: PathLike, *, title: str = COMPARISON_TITLE) -> Path:
    """Write the report of a comparison of two runs.

    Args:
        comparison: File written by `anofield evaluate --compare`, or its folder.
        out: HTML file to write, or a folder, which gets `compare.html`.
        title: Heading of the page.

    Returns:
        The file written.

    Raises:
        UsageError: There is no such file, or it is not a comparison.
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
