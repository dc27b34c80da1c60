"""Two passes over the cases of a run: scores of voxels first, then detections at thresholds that follow from them."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial

import numpy as np

from anofield._words import counted
from anofield.curves import Curve
from anofield.data.parallel import Failure, Spread, map_cases
from anofield.detect.open_run import OpenRun
from anofield.detect.run_folder import RunCase, RunInfo
from anofield.errors import CohortError
from anofield.evaluation.case import Measured, Scored, measure_case, score_case
from anofield.evaluation.evidence import Evidence
from anofield.evaluation.labels import healthy_cases, validation_thresholds
from anofield.evaluation.measures import Measures
from anofield.evaluation.options import Options
from anofield.evaluation.oracle import not_below_known
from anofield.evaluation.pooled import KEEP, Bounds, PooledScores
from anofield.evaluation.rules import Kind, Rules
from anofield.evaluation.surface import available

FROC_SHARES = (1e-5, 3e-5, 1e-4, 3e-4, 1e-3, 3e-3, 1e-2, 3e-2, 1e-1)  # of healthy voxels above the FROC's thresholds


@dataclass(frozen=True, kw_only=True)
class Task:
    """A run and how it is evaluated.

    Attributes:
        run: The run.
        cases: Labelled cases of the run.
        names: Scores that are evaluated.
        options: Options of the evaluation.
        measures: Set of metrics that is measured.
    """

    run: OpenRun
    cases: Sequence[RunCase]
    names: Sequence[str]
    options: Options
    measures: Measures

    @property
    def info(self) -> RunInfo:
        """Content of the run's `run.json`."""
        return self.run.info

    @property
    def rules(self) -> Rules:
        """Rules of the evaluation."""
        least = self.options.min_lesion_ml
        return Rules(
            space=self.options.space or self.measures.space,
            min_lesion_ml=self.info.min_lesion_ml if least is None else least,
            surface=self.measures.lesions and available(),
        )


@dataclass(frozen=True, kw_only=True)
class _First:
    """Result of the first pass over all cases; the scores of the voxels are dropped to free memory.

    Attributes:
        scored: Result of each case, by id.
        failures: Cases that could not be read.
        curves, froc, bounds, exact: Attributes of `Evidence` with these names, for every score.
    """

    scored: dict[str, Scored]
    failures: list[Failure]
    curves: dict[str, Curve]
    froc: dict[str, list[float]]
    bounds: dict[str, dict[str, Bounds]]
    exact: dict[str, bool]

    @property
    def pooled(self) -> list[str]:
        """Ids of the cases of the run itself, sorted."""
        return sorted(case_id for case_id, case in self.scored.items() if not case.healthy_run)


def gather(task: Task, spread: Spread) -> tuple[Evidence, list[Failure]]:
    """Run both passes over the cases of a run; also returns the cases that could not be read.

    Raises:
        CohortError: No case can be read, or a file changed between the passes.
        UsageError: The validation results or the run of healthy subjects cannot be used here.
    """
    beside = healthy_cases(task.options.healthy, task.info, task.cases)
    chosen = validation_thresholds(task.options.threshold_from, task.names, [case.id for case in task.cases])
    first = _first_pass(task, beside, spread)
    thresholds = {name: _thresholds(task, name, chosen, first) for name in task.names}
    wanted = (task.info.score, *task.info.baselines) if task.measures.lesions else ()
    froc = {name: values for name, values in first.froc.items() if name in wanted}
    good = [case for case in [*task.cases, *beside] if case.id in first.scored]
    inputs = {case_id: scored.inputs for case_id, scored in first.scored.items()}
    lesions = task.measures.lesions
    work = partial(measure_case, rules=task.rules, thresholds=thresholds, froc=froc, inputs=inputs, lesions=lesions)
    measured = _second_pass(work, good, spread)
    thresholds, measured = not_below_known(thresholds, measured, first.pooled)
    ids = sorted(first.scored)
    evidence = Evidence(
        run=str(task.run.path),
        score=task.info.score,
        baselines=task.info.baselines,
        rules=task.rules,
        thresholds=thresholds,
        froc=froc,
        scored=[first.scored[case_id] for case_id in ids],
        measured=[measured[case_id] for case_id in ids],
        curves=first.curves,
        bounds=first.bounds,
        exact=first.exact,
    )
    return evidence, first.failures


def _first_pass(task: Task, beside: Sequence[RunCase], spread: Spread) -> _First:
    """Scores of the voxels of the run and of the run of healthy subjects.

    The keys of a case are added to the pools when it is finished and then dropped, so that memory does not grow with
    the number of cases. Sums of counts do not depend on the order in which cases finish.

    Raises:
        CohortError: No labelled case can be read.
    """
    pools = {name: PooledScores(2 * KEEP // max(2, len(task.names))) for name in task.names}
    apart = frozenset(case.id for case in beside)
    work = partial(score_case, names=task.names, space=task.rules.space, healthy_run=apart)
    scored: dict[str, Scored] = {}
    failures: list[Failure] = []
    own = [replace(case, identity=task.info.identity) for case in task.cases]
    for outcome in map_cases(work, [*own, *beside], label="evaluate: voxels", spread=spread):
        if outcome.value is None:
            failures += [outcome.failure] if outcome.failure else []
            continue
        scored[outcome.case.id] = outcome.value.scored
        for name, keys in outcome.value.keys.items():
            pools[name].add_keys(keys)
    failures.sort(key=lambda failure: failure.id)
    if all(case.healthy_run for case in scored.values()):
        why = failures[0].error
        raise CohortError(f"none of {counted(len(task.cases), 'case')} can be evaluated", where=task.run.path, why=why)
    return _pooled(scored, failures, pools)


def _pooled(scored: dict[str, Scored], failures: list[Failure], pools: Mapping[str, PooledScores]) -> _First:
    curves = {name: pool.curve() for name, pool in pools.items()}
    return _First(
        scored=scored,
        failures=failures,
        curves=curves,
        froc={name: froc_thresholds(pool) for name, pool in pools.items()},
        bounds={name: pool.bounds(curves[name]) for name, pool in pools.items()},
        exact={name: pool.exact for name, pool in pools.items()},
    )


def _second_pass(work: Callable[[RunCase], Measured], cases: Sequence[RunCase], spread: Spread) -> dict[str, Measured]:
    """Detections of every case, by id.

    Raises:
        CohortError: A file changed since the first pass, so the pooled figures would not match the cases.
    """
    found = {}
    for outcome in map_cases(work, cases, label="evaluate: detections", spread=spread):
        if outcome.failure is not None:
            raise CohortError(
                f"changed while it was evaluated: {outcome.failure.error}",
                where=outcome.case.folder,
                remedy="evaluate again when no program writes to the run",
            )
        if outcome.value is not None:
            found[outcome.case.id] = outcome.value
    return found


def _thresholds(task: Task, name: str, chosen: Mapping[str, float], first: _First) -> dict[Kind, float]:
    """Thresholds of a score: from healthy scans, from a validation cohort, and from the test labels themselves."""
    counts = [first.scored[case_id].counts[name] for case_id in first.pooled]
    known: dict[Kind, float | None] = {
        "calibrated": task.info.thresholds.get(name),
        "validation": chosen.get(name),
        "oracle": task.measures.oracle(first.curves[name], counts),
    }
    return {
        kind: float(value)
        for kind, value in known.items()
        if kind in task.measures.kinds and value is not None and not np.isnan(value)
    }


def froc_thresholds(pooled: PooledScores) -> list[float]:
    """Thresholds that given shares of the healthy voxels exceed, in descending order."""
    values = pooled.quantiles([1 - share for share in FROC_SHARES])
    return sorted({value for value in values if not np.isnan(value)}, reverse=True)
