"""Metrics of a run against lesion labels, streamed case by case."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path

from anofield.bootstrap import LEVEL
from anofield.data.parallel import HERE, Spread
from anofield.detect.run_folder import RunCase
from anofield.evaluation.case import TOP_SHARE
from anofield.evaluation.evidence import Evidence
from anofield.evaluation.gather import Task, gather
from anofield.evaluation.labels import finished_run, labelled_cases
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
        run: Folder written by `anofield detect`.
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
        UsageError: The validation results or the run of healthy subjects cannot be used here.
        MachineError: The results cannot be written, or the workers cannot be started.
    """
    options, run = options or Options(), Path(run)
    info = finished_run(run)
    labelled = labelled_cases(run, info.cases, labels, options)
    cases = labelled.cases
    measures = MEASURES[options.preset]
    task = Task(run=run, info=info, cases=cases, names=info.scores, options=options, measures=measures)
    evidence, failures = gather(task, spread)
    quantile, meaning = (info.threshold.quantile, info.threshold.meaning) if info.threshold else (None, None)
    card = measures.card(evidence, options, quantile) if measures.card else None
    results = Results(
        space=SPACES[evidence.rules.space],
        preset=options.preset,
        run=str(run),
        score=info.score,
        baselines=info.baselines,
        threshold_meaning=meaning,
        labels=label_names(cases),
        without_label=labelled.without_label,
        labels_without_case=labelled.without_case,
        n_cases=evidence.n_cases,
        failures=failures,
        rules=rules_info(evidence, options),
        thresholds=evidence.thresholds,
        scores={name: measures.figures(evidence, name) for name in evidence.names},
        cases=case_rows(evidence),
        curves={name: thinned(curve) for name, curve in evidence.curves.items()},
        **(vars(card) if card else {}),
    )
    write_results(Path(out), results)
    return results


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
