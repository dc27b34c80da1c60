"""Unsupervised anomaly detection in brain MRI with an implicit field of healthy anatomy.

The names below are the public API; everything else is internal and may change. Heavy libraries such as torch are
imported at first use.

Data
    find_cases: find the scans of a cohort in a folder, a BIDS, HCP or BraTS tree, a glob or a manifest
    check: find problems in a cohort before long work
    prepare: turn a cohort into a store of intensity classes on a lattice
    Case: one scan of a cohort with its label and mask
    Scan: one volume with its affine and header
    Store: a prepared cohort on disk, a dataset for torch loaders

Model
    train: train a field of healthy anatomy on a store
    load_model: open a trained field for detection
    Model: a trained field, which is calibrated on healthy subjects and detects in one scan or a cohort
    load_baseline: open a trained baseline, a method to compare the field with
    DetectOptions, FitOptions, ScoreOptions: options of this package's procedure
    PublishedOptions: options of the procedure of Naval Marimont & Tarroni 2021

Results
    Detection: anomaly map, mask, restoration and findings of one scan
    Run: a run folder
    evaluate: compare a run with lesion labels
    compare: compare two runs on the same cases
    Results: figures of an evaluation, as tables
    report: write a run as an offline HTML page

AnofieldError: base class of all errors; a message says what is wrong, where, why and how to fix it

Example:
    >>> import anofield as af
    >>> model = af.load_model("experiment")  # doctest: +SKIP
    >>> found = model.detect("sub-01_T2w.nii.gz", brain="mask.nii.gz")  # doctest: +SKIP
    >>> found.findings[0].center_mm, found.trusted  # doctest: +SKIP
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

from anofield._version import __version__ as __version__
from anofield.errors import for_python

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from anofield.baselines.run import load_baseline as load_baseline
    from anofield.data.check import Row
    from anofield.data.cohort.case import Case as Case
    from anofield.data.cohort.find import find_cases as find_cases
    from anofield.data.recipe import RecipeName
    from anofield.data.scan import Scan as Scan
    from anofield.data.store import Store as Store
    from anofield.detect.detection import Detection as Detection
    from anofield.detect.model import Model as Model
    from anofield.detect.model import load_model as load_model
    from anofield.detect.options import DetectOptions as DetectOptions
    from anofield.detect.options import FitOptions as FitOptions
    from anofield.detect.options import PublishedOptions as PublishedOptions
    from anofield.detect.options import ScoreOptions as ScoreOptions
    from anofield.detect.run import Run as Run
    from anofield.errors import AnofieldError as AnofieldError
    from anofield.evaluation.results import Comparison
    from anofield.evaluation.results import Results as Results
    from anofield.typing import PathLike

__all__ = [
    "AnofieldError",
    "Case",
    "DetectOptions",
    "Detection",
    "FitOptions",
    "Model",
    "PublishedOptions",
    "Results",
    "Run",
    "Scan",
    "ScoreOptions",
    "Store",
    "check",
    "compare",
    "evaluate",
    "find_cases",
    "load_baseline",
    "load_model",
    "prepare",
    "report",
    "train",
]
_PLACES = {  # name → module that it is imported from at its first use
    "AnofieldError": "anofield.errors",
    "Case": "anofield.data.cohort.case",
    "DetectOptions": "anofield.detect.options",
    "Detection": "anofield.detect.detection",
    "FitOptions": "anofield.detect.options",
    "Model": "anofield.detect.model",
    "PublishedOptions": "anofield.detect.options",
    "Results": "anofield.evaluation.results",
    "Run": "anofield.detect.run",
    "Scan": "anofield.data.scan",
    "ScoreOptions": "anofield.detect.options",
    "Store": "anofield.data.store",
    "find_cases": "anofield.data.cohort.find",
    "load_baseline": "anofield.baselines.run",
    "load_model": "anofield.detect.model",
}


def __getattr__(name: str) -> Any:
    if name not in _PLACES:
        raise AttributeError(f"module 'anofield' has no attribute {name!r}; public names: {', '.join(__all__)}")
    found = getattr(import_module(_PLACES[name]), name)
    found = found if isinstance(found, type) else for_python(found)
    globals()[name] = found
    return found


def __dir__() -> list[str]:
    return sorted([*globals(), *_PLACES])


@for_python
def check(cases: Sequence[Case], *, workers: int = 1) -> list[Row]:
    """Check every scan of a cohort for problems; writes nothing.

    Args:
        cases: Cases from `find_cases`.
        workers: Local processes.

    Returns:
        One row per case, with its problems, warnings and notes.
    """
    from anofield.data.check import check_cohort
    from anofield.data.parallel import Spread

    return check_cohort(cases, spread=Spread(workers))


@for_python
def prepare(
    cases: Sequence[Case],
    out: PathLike,
    *,
    resolution: int | None = 96,
    recipe: RecipeName = "box",
    workers: int = 1,
    force: bool = False,
) -> Store:
    """Prepare healthy scans for training: intensity classes on a lattice; an existing store is resumed.

    Args:
        cases: Cases from `find_cases`.
        out: Path of the store, by convention `NAME.zarr`.
        resolution: Lattice voxels per axis; None for the full resolution of the recipes of 2021.
        recipe: `box`, or the published preprocessing `ifl2021-hcp` or `ifl2021-brats`. `box` fits class centres on the
            cohort; the others use the published centres.
        workers: Local processes.
        force: Replace an existing store.

    Raises:
        UsageError: The existing store holds other cases or another recipe.
        CohortError: Two cases have the same id; or a scan cannot be prepared, then the store holds the others, and the
            error names the first.
        MachineError: The store cannot be written.
    """
    from anofield.data.centers import read_centers
    from anofield.data.cohort.case import cohort_of
    from anofield.data.parallel import Spread, failures_of
    from anofield.data.recipe import recipe_for
    from anofield.data.store import prepare_cohort, stored_recipe
    from anofield.errors import CohortError

    cases, wanted = cohort_of(cases), recipe_for(recipe, resolution)
    source = "paper" if wanted.kind.published else "fit"
    wanted = read_centers(source, cases, wanted, before=None if force else stored_recipe(out))
    store, outcomes = prepare_cohort(cases, wanted, out, spread=Spread(workers), force=force)
    for failure in failures_of(outcomes)[:1]:
        raise CohortError(f"{len(failures_of(outcomes))} of {len(cases)} scans failed, the first: {failure.error}",
                          where=store.path, remedy="fix or leave out these scans, and prepare again")  # fmt: skip
    return store


@for_python
def train(
    experiment: PathLike,
    store: Store | PathLike,
    *,
    preset: str | None = "default",
    device: str = "auto",
    held_out: Store | PathLike | None = None,
) -> Path:
    """Train a field of healthy anatomy; an experiment that was trained before is resumed.

    Args:
        experiment: Experiment directory, created if it does not exist.
        store: Store from `prepare`.
        preset: `default`, `ifl2021-160` or `ifl2021-full` for a new experiment; None needs an existing `specs.json`.
        device: `auto`, `cpu`, `cuda[:N]` or `mps`.
        held_out: Store of healthy subjects for validation, which are not trained on.

    Returns:
        The experiment directory, for `load_model`.

    Raises:
        UsageError: Store, specs or preset do not fit each other or the experiment.
        Interrupted: SIGINT or SIGTERM; the state is saved, and the same call resumes.
    """
    from anofield.field.start import train_experiment

    return train_experiment(experiment, store, preset=preset, device=device, held_out=held_out)


@for_python
def evaluate(
    run: Run | PathLike,
    labels: PathLike | None = None,
    out: PathLike | None = None,
    *,
    unite: bool = False,
    workers: int = 1,
) -> Results:
    """Compare a run with lesion labels; writes `results.json` and `cases.tsv`.

    Scans that failed in the detection (`run.failures`) are not among the cases.

    Args:
        run: Run from `Model.detect_many`, or a run folder.
        labels: Folder, tree, glob or manifest of label maps, or a pattern with `{id}`; None takes those found beside
            the scans when they were detected.
        out: Folder of the results; None for `RUN-results` beside the run folder.
        unite: Whether several labels of a case are united; otherwise they are an error.
        workers: Local processes.

    Raises:
        CohortError: There is no finished run, no case has a label, or a case has several.
    """
    from anofield.data.parallel import Spread
    from anofield.evaluation.evaluate import evaluate as work
    from anofield.evaluation.options import Options

    path = _path(run)
    out = path.parent / f"{path.name}-results" if out is None else out
    return work(path, labels, out, Options(unite_labels=unite), spread=Spread(workers))


@for_python
def compare(a: Run | PathLike, b: Run | PathLike, labels: PathLike | None = None, *, out: PathLike) -> Comparison:
    """Compare the anomaly maps of two runs on the same cases; writes `comparison.json`.

    Args:
        a, b: Runs from `Model.detect_many`, or run folders.
        labels: Labels, as in `evaluate`.
        out: Folder of the comparison.

    Raises:
        UsageError: The runs differ in their cases or labels.
    """
    from anofield.evaluation.compare import compare as work

    return work(_path(a), _path(b), labels, out)


@for_python
def report(run: Run | PathLike, results: Results | PathLike | None = None, out: PathLike = "report.html") -> Path:
    """Write the report of a run: one offline HTML page with tables, curves and an interactive view of every case.

    Args:
        run: Run from `Model.detect_many`, or a run folder.
        results: Results from `evaluate`, or a folder of results; None for a report without metrics.
        out: HTML file to write.

    Raises:
        CohortError: The run folder holds no finished case.
        MachineError: The file cannot be written.
    """
    from anofield.reports.report import write_report

    return write_report(_path(run), out, results=results)


def _path(run: Run | PathLike) -> Path:
    """Folder of a run.

    Raises:
        UsageError: The argument is neither a run nor a path.
    """
    from pathlib import Path

    from anofield.detect.run import Run
    from anofield.errors import UsageError

    if isinstance(run, Run):
        return run.path
    if not isinstance(run, str | Path):
        what = f"{type(run).__name__} where a run is expected"
        raise UsageError(what, remedy="give the Run of `Model.detect_many`, or a run folder")
    return Path(run)
