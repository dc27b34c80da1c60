"""Metrics of a run against lesion labels, streamed case by case."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path

from anofield._progress import say
from anofield.bootstrap import LEVEL
from anofield.data.parallel import HERE, Failure, Spread
from anofield.detect.open_run import OpenRun, finished_run
from anofield.detect.run_folder import AGAIN, RunCase
from anofield.errors import ScanError, UsageError
from anofield.evaluation.case import TOP_SHARE
from anofield.evaluation.evidence import Evidence
from anofield.evaluation.gather import Task, gather
from anofield.evaluation.labels import labelled_cases
from anofield.evaluation.measures import MEASURES
from anofield.evaluation.options import Options
from anofield.evaluation.parts import RulesInfo
from anofield.evaluation.results import Results, write_results
from anofield.evaluation.rules import SPACES
from anofield.evaluation.summary import case_rows, thinned
from anofield.typing import PathLike


def evaluate(
    run: PathLike,
    labels: PathLike | None,
    out: PathLike,
    options: Options | None = None,
    *,
    spread: Spread = HERE,
) -> Results:
    """Compare a run with lesion labels and write `out/results.json` and `out/cases.tsv`.

    Args:
        run: Folder written by `anofield detect`, also with `--naming bids`.
        labels: Place of the labels: a folder (HCP, BraTS or BIDS tree, or files named after the cases), glob, pattern
            or manifest; None takes the labels found beside the scans when they were detected.
        out: Folder of the results.
        options: Options of the evaluation; None takes the defaults.
        spread: Where the work runs; results do not depend on it.

    Returns:
        The content of `results.json`.

    Raises:
        CohortError: There is no run or no finished case, no case has a label or one has several,
            or no case can be read.
        UsageError: The validation results or the run of healthy subjects cannot be used here, or `out` is the folder
            of the run.
        MachineError: The results cannot be written, or the workers cannot be started.
    """
    options, opened = options or Options(), finished_run(run)
    beside = [] if options.healthy is None else [finished_run(options.healthy)]
    info, notices = opened.info, [notice for one in (opened, *beside) for notice in one.notices()]
    if Path(out).resolve() == opened.path.resolve():
        raise UsageError("-o is the folder of the run", where=out, why="both hold a cases.tsv", remedy="choose another")
    for notice in notices:
        say(notice)
    labelled = labelled_cases(opened.path, opened.ids, labels, options)
    cases = labelled.cases
    measures = MEASURES[options.preset]
    task = Task(run=opened, cases=cases, names=info.scores, options=options, measures=measures)
    evidence, failures = gather(task, spread)
    quantile, meaning = (info.threshold.quantile, info.threshold.meaning) if info.threshold else (None, None)
    card = measures.card(evidence, options, quantile) if measures.card else None
    results = Results(
        space=SPACES[evidence.rules.space],
        preset=options.preset,
        run=str(opened.path),
        identity=info.identity,
        notices=notices,
        seen={case_id: scan for one in (opened, *beside) for case_id, scan in one.seen.items()},
        score=info.score,
        baselines=info.baselines,
        threshold_meaning=meaning,
        labels=label_names(cases),
        without_label=labelled.without_label,
        labels_without_case=labelled.without_case,
        n_cases=evidence.n_cases,
        failures=sorted([*_unfinished(opened), *failures], key=lambda failure: failure.id),
        rules=rules_info(evidence, options),
        thresholds=evidence.thresholds,
        scores={name: measures.figures(evidence, name) for name in evidence.names},
        cases=case_rows(evidence),
        curves={name: thinned(curve) for name, curve in evidence.curves.items()},
        **(vars(card) if card else {}),
    )
    write_results(Path(out), results)
    return results


def _unfinished(run: OpenRun) -> list[Failure]:
    """Cases that the detection has not finished, as failures of the evaluation."""
    folders = {case_id: run.path / case_id for case_id in run.pending}
    return [
        Failure(case_id, str(folder), str(ScanError("is not finished", where=folder, remedy=AGAIN)))
        for case_id, folder in folders.items()
    ]


def label_names(cases: Sequence[RunCase]) -> dict[str, str | list[str]]:
    """Label file of every case, or its files if they are united, as results and comparisons hold them."""
    return {case.id: str(case.labels[0]) if len(case.labels) == 1 else list(map(str, case.labels)) for case in cases}


def rules_info(evidence: Evidence, options: Options) -> RulesInfo:
    """The rules of an evaluation, as results and comparisons hold them."""
    return RulesInfo(
        **asdict(evidence.rules),
        connectivity=26,
        false_finding="touches no labelled voxel",
        scan_score=f"mean of the highest {100 * TOP_SHARE:g} % of the voxels",
        interval=f"{100 * LEVEL:g} % percentile bootstrap over subjects",
        subjects=len({case.subject for case in evidence.scored}),
        resamples=options.resamples,
        seed=options.seed,
        threshold_from=None if options.threshold_from is None else str(options.threshold_from),
        healthy_run=None if options.healthy is None else str(options.healthy),
    )
