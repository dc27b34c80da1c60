"""Which cases are evaluated and where their labels are: run folders, label trees, a validation run."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from anofield._words import counted, named
from anofield.data.cohort.attach import labels_at, say_unlabelled
from anofield.data.cohort.case import Case
from anofield.data.cohort.companions import LABEL, chosen
from anofield.detect.open_run import finished_run
from anofield.detect.run_folder import RunCase, RunInfo, read_case
from anofield.errors import CohortError, UsageError
from anofield.evaluation.options import Options
from anofield.evaluation.results import read_results
from anofield.typing import PathLike


@dataclass(frozen=True, kw_only=True)
class Labelled:
    """The cases of a run that have a label, and what is left over.

    Attributes:
        cases: Cases with a label, by id.
        without_label: Ids of the cases without one.
        without_case: Labels that belong to no case of the run.
    """

    cases: list[RunCase]
    without_label: list[str]
    without_case: list[str]


def labelled_cases(run: Path, ids: Sequence[str], labels: PathLike | None, options: Options) -> Labelled:
    """The labels of a run; cases without a label are counted and named on stderr.

    Args:
        run: Folder of the run.
        ids: Ids of its cases.
        labels: Place of the labels: a folder, glob, pattern or manifest, see `data.cohort.patterns.find_at`; None takes
            those found beside the scans when they were detected.
        options: Options of the evaluation: layout of the labels, and whether several labels of a case are united.

    Raises:
        CohortError: No case has a label, or a case has several that are not united.
        UsageError: A pattern holds an unknown placeholder.
    """
    infos = {case_id: read_case(run / case_id) for case_id in ids}
    strangers: list[str] = []
    if labels is None:
        found = {case_id: info.labels for case_id, info in infos.items() if info is not None and info.labels}
        say_unlabelled([case_id for case_id in ids if case_id not in found], len(ids))
    else:
        cases = [Case(case_id, Path(info.image if info else "")) for case_id, info in infos.items()]
        there = labels_at(cases, str(labels), "-t", options.dataset)
        found = chosen(there, LABEL, unite=options.unite_labels)
        strangers = list(map(str, there.strangers))
    if not found:
        raise CohortError(
            "no label belongs to any case of the run",
            where=run,
            why=f"none was found beside the scans when they were detected; the run has cases such as {named(ids)}",
            remedy="give the folder of labels with -t; files must be named after the cases, like `<case>_seg.nii.gz`",
        )
    taken = [RunCase(case_id, run / case_id, found[case_id]) for case_id in sorted(found)]
    return Labelled(cases=taken, without_label=[i for i in ids if i not in found], without_case=strangers)


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
    return [replace(beside.case(case_id), labels=()) for case_id in beside.ids]


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
