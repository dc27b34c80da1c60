"""Which cases are evaluated and where their labels are: run folders, label trees, a validation run."""

from __future__ import annotations

import glob
import math
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from anofield._words import counted
from anofield.data.cohort.find import LABEL_ENDINGS, find_cases
from anofield.data.scan import stem
from anofield.detect.open_run import finished_run
from anofield.detect.run_folder import RunCase, RunInfo, read_case
from anofield.errors import CohortError, UsageError
from anofield.evaluation.results import read_results
from anofield.typing import PathLike


def labelled_cases(run: Path, cases: Sequence[str], labels: PathLike | None, dataset: str = "auto") -> list[RunCase]:
    """Every case of a run that has a label, by id.

    Args:
        run: Folder of the run.
        cases: Ids of its cases.
        labels: Tree, folder or glob of labels; None takes those found beside the scans when they were detected.
        dataset: Layout of `labels`.

    Raises:
        CohortError: No case has a label.
    """
    if labels is None:
        known = [info for info in (read_case(run / case_id) for case_id in cases) if info is not None]
        found = {info.id: Path(info.label) for info in known if info.label}
    else:
        found = _match(cases, labels, dataset)
    if not found:
        raise CohortError(
            "no label belongs to any case of the run",
            where=str(labels or run),
            why=f"the run has cases such as {', '.join(list(cases)[:3])}",
            remedy="give the folder of labels with -t; files must be named after the cases, like `<case>_seg.nii.gz`",
        )
    return [RunCase(case_id, run / case_id, found[case_id]) for case_id in sorted(found)]


def healthy_cases(run: PathLike | None, info: RunInfo, taken: Sequence[RunCase]) -> list[RunCase]:
    """All cases of a run of healthy subjects; their labels, if any, are ignored.

    Raises:
        CohortError: There is no run.
        UsageError: It has another checkpoint, options or scores, or shares a case with the evaluated run.
    """
    if run is None:
        return []
    beside = finished_run(run)
    differing = [key for key in ("model_hash", "options") if getattr(beside.info, key) != getattr(info, key)]
    if differing:
        raise UsageError(
            f"the healthy run differs in {' and '.join(differing)}",
            where=run,
            why="its scores and the threshold would not belong together",
            remedy="detect the healthy scans with the same experiment and options",
        )
    shared = sorted({case.id for case in taken} & set(beside.ids))
    if shared:
        raise UsageError(
            f"shares {counted(len(shared), 'case')} with the run evaluated ({', '.join(shared[:3])})",
            where=run,
            why="the same scan would count as ill and as healthy",
            remedy="give a run of healthy subjects only",
        )
    return [replace(beside.case(case_id), label=None) for case_id in beside.ids]


def validation_thresholds(results: PathLike | None, names: Sequence[str], cases: Sequence[str]) -> dict[str, float]:
    """Thresholds with the best Dice on another cohort, per score of that cohort.

    Args:
        results: Results folder of `anofield evaluate` on the validation cohort, or its `results.json`; None for none.
        names: Scores wanted.
        cases: Ids of the test cases.

    Raises:
        UsageError: There are no results, they have none of the scores, or a test case is among their cases.
    """
    if results is None:
        return {}
    other = read_results(results)
    shared = sorted(set(other.labels) & set(cases))
    if shared:
        raise UsageError(
            f"shares {counted(len(shared), 'case')} with the test ({', '.join(shared[:3])})",
            where=results,
            why="a threshold chosen on the test labels is the oracle's, which is reported anyway",
            remedy="evaluate a cohort of other subjects and give its results folder",
        )
    best = {name: other.scores[name].threshold_oracle for name in names if name in other.scores}
    found = {name: value for name, value in best.items() if not math.isnan(value)}
    if not found:
        raise UsageError(
            "holds a threshold for none of the run's scores",
            where=results,
            why=f"it has {', '.join(other.scores) or 'none'}; the run has {', '.join(names)}",
            remedy="evaluate a validation run with the same scores, whose cases have lesions",
        )
    return found


def _match(cases: Sequence[str], labels: PathLike, dataset: str) -> dict[str, Path]:
    """Label of every case that has one, found by the layout of the cohort, else by file names."""
    wanted = set(cases)
    try:
        tree = list(find_cases(labels, dataset=dataset))
    except CohortError:
        tree = []
    found = {case.id: case.label for case in tree if case.id in wanted and case.label is not None}
    if found:
        return found
    loose = (
        Path(labels).rglob("*.nii*") if Path(labels).is_dir() else map(Path, glob.iglob(str(labels), recursive=True))
    )
    by_name = {stem(path): path for path in sorted(loose)}
    first = {
        case: next((by_name[case + end] for end in LABEL_ENDINGS if case + end in by_name), None) for case in cases
    }
    return {case: path for case, path in first.items() if path is not None}
