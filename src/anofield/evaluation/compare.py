"""Two runs on the same cases: the metrics of both, and their paired differences."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from anofield._progress import say
from anofield._words import counted, named
from anofield.data.parallel import HERE, Spread
from anofield.data.volume import volume_hash
from anofield.detect.open_run import finished_run
from anofield.errors import UsageError
from anofield.evaluation.card import differences
from anofield.evaluation.evaluate import label_names, rules_info
from anofield.evaluation.evidence import Evidence
from anofield.evaluation.gather import Task, gather
from anofield.evaluation.labels import labelled_cases
from anofield.evaluation.measures import FULL
from anofield.evaluation.metrics import Sampled, figures, rests_on
from anofield.evaluation.options import Options
from anofield.evaluation.parts import Side
from anofield.evaluation.results import Comparison, write_comparison
from anofield.evaluation.rules import SPACES
from anofield.typing import PathLike


def compare(
    a: PathLike,
    b: PathLike,
    labels: PathLike | None,
    out: PathLike,
    options: Options | None = None,
    *,
    spread: Spread = HERE,
) -> Comparison:
    """Compare the main scores of two runs on the same cases; write `out/comparison.json`.

    Subjects are drawn once for both runs, so effects common to both cancel.

    Args:
        a, b: Folders written by `anofield detect`.
        labels, options, spread: Arguments of `evaluate`.
        out: Folder of the comparison.

    Returns:
        The content of `comparison.json`.

    Raises:
        CohortError: See `evaluate`.
        UsageError: The runs differ in cases or labels, a case cannot be read, or the options have a preset.
        MachineError: See `evaluate`.
    """
    options = options or Options()
    if options.preset:
        raise UsageError("a preset cannot be compared", remedy="leave out --preset")
    tasks = [_task(Path(run), labels, options) for run in (a, b)]
    _refuse_unequal(tasks)
    one, other = (_gathered(task, spread) for task in tasks)
    _refuse_other_rules(one, other)
    weights = one.draw(options.resamples, options.seed)
    found = [figures(evidence, evidence.score, weights) for evidence in (one, other)]
    subjects = {key: rests_on(one, one.score, key) for key in found[0].values}
    comparison = Comparison(
        space=SPACES[one.rules.space],
        rules=rules_info(one, options),
        n_cases=one.n_cases,
        labels=label_names(tasks[0].cases),
        a=_side(one, found[0]),
        b=_side(other, found[1]),
        differences=differences(found[0], found[1], subjects),
    )
    write_comparison(Path(out), comparison)
    return comparison


def _task(run: Path, labels: PathLike | None, options: Options) -> Task:
    opened = finished_run(run)
    for notice in opened.notices():
        say(notice)
    cases = labelled_cases(opened.path, opened.ids, labels, options).cases
    return Task(run=opened, cases=cases, names=[opened.info.score], options=options, measures=FULL)


def _gathered(task: Task, spread: Spread) -> Evidence:
    """The evidence of a run; every case must be readable."""
    evidence, failures = gather(task, spread)
    if failures:
        raise UsageError(
            f"{counted(len(failures), 'case')} cannot be evaluated, the first: {failures[0].error}",
            where=task.run.path,
            why="both runs must be measured on the same cases",
            remedy="fix or remove them in both runs",
        )
    return evidence


def _side(evidence: Evidence, found: Sampled) -> Side:
    thresholds = evidence.thresholds[evidence.score]
    return Side(run=evidence.run, score=evidence.score, thresholds=thresholds, values=found.values)


def _refuse_other_rules(one: Evidence, other: Evidence) -> None:
    if one.rules != other.rules:
        raise UsageError(
            f"the runs count lesions from {one.rules.min_lesion_ml} and {other.rules.min_lesion_ml} ml",
            remedy="give the minimum for both with --min-lesion-ml",
        )


def _refuse_unequal(tasks: Sequence[Task]) -> None:
    """Both runs must hold the same cases with the same labels."""
    one, other = ({case.id: case.labels for case in task.cases} for task in tasks)
    for task, extra in zip(tasks, (sorted(set(one) - set(other)), sorted(set(other) - set(one))), strict=True):
        if extra:
            raise UsageError(
                f"{counted(len(extra), 'labelled case')} in this run only ({', '.join(extra[:3])})",
                where=task.run.path,
                why="a paired comparison needs every case in both runs",
                remedy="detect the same scans in both, or give -t a folder with the labels of the common cases",
            )
    for case_id, labels in one.items():
        if not _same_labels(labels, other[case_id]):
            raise UsageError(
                f"case {case_id} has different labels in the two runs",
                where=named(map(str, labels)),
                why=f"the other has {named(map(str, other[case_id]))}",
                remedy="give the labels for both with -t",
            )


def _same_labels(one: Sequence[Path], other: Sequence[Path]) -> bool:
    """Whether two labels are the same files, or files with the same content."""
    return one == other or {volume_hash(path) for path in one} == {volume_hash(path) for path in other}
