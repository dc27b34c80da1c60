"""Two passes over the cases of a run: scores of voxels first, then detections at the thresholds these suggest."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, fields
from functools import partial
from pathlib import Path
from typing import Any, Literal

import numpy as np

from anofield._words import counted
from anofield.bootstrap import RESAMPLES
from anofield.curves import Curve
from anofield.data.cohort.case import Case
from anofield.data.parallel import Failure, Outcome, failures_of, map_cases
from anofield.errors import CohortError, UsageError
from anofield.evaluate.card import Evidence
from anofield.evaluate.case import Kind, Measured, Rules, Scored, Space, measure_case, score_case
from anofield.evaluate.labels import healthy_cases, validation_thresholds
from anofield.evaluate.pooled import KEEP, Bounds, PooledScores
from anofield.evaluate.surface import available
from anofield.typing import Json, PathLike

FROC_SHARES = (
    1e-5,
    3e-5,
    1e-4,
    3e-4,
    1e-3,
    3e-3,
    1e-2,
    3e-2,
    1e-1,
)  # of the healthy voxels above the FROC's thresholds
Preset = Literal["ifl2021"]


@dataclass(frozen=True)
class Options:
    """How a run is evaluated.

    Attributes:
        dataset: Layout of the labels.
        space: Inside the brain, or all voxels of the scan's grid; None for the preset's, else the brain.
        preset: `ifl2021`: the metrics of the 2021 notebook and no others, in space `all`; refused with all else but
            the layout.
        threshold_from: Results folder of a validation cohort, whose best threshold is applied.
        healthy: Run of healthy people, for false positives and the AUROC of scans.
        min_lesion_ml: Smaller components do not count; None takes the run's own.
        resamples: Of the bootstrap.
        seed: Of the bootstrap.
    """

    dataset: str = "auto"
    space: Space | None = None
    preset: Preset | None = None
    threshold_from: PathLike | None = None
    healthy: PathLike | None = None
    min_lesion_ml: float | None = None
    resamples: int = RESAMPLES
    seed: int = 0

    def __post_init__(self) -> None:
        if self.resamples < 1:
            raise UsageError(f"{self.resamples} bootstrap resamples", remedy="give 1 or more, 1000 for intervals")
        if self.min_lesion_ml is not None and self.min_lesion_ml < 0:
            raise UsageError(f"a minimum lesion of {self.min_lesion_ml} ml", remedy="give 0 or more")
        if self.preset:
            self._refuse_unheeded()

    def _refuse_unheeded(self) -> None:
        """The notebook of 2021 knows one space, its own threshold, no lesions, no healthy run and no intervals."""
        given = [field.name for field in fields(self) if getattr(self, field.name) != field.default]
        changed = [name for name in given if name not in ("dataset", "preset", "space" if self.space == "all" else "")]
        if changed:
            flag = {"resamples": "bootstrap"}.get(changed[0], changed[0].replace("_", "-"))
            raise UsageError(f"--preset {self.preset} with --{flag}", remedy="leave out one of them")


@dataclass(frozen=True)
class _Pooled:
    """What the first pass leaves: the scores themselves are forgotten, which frees their memory."""

    outcomes: list[Outcome[Scored]]
    curves: dict[str, Curve]
    froc: dict[str, list[float]]
    bounds: dict[str, dict[str, Bounds]]
    exact: dict[str, bool]


def gather(
    run: Path, about: Json, cases: Sequence[Case], options: Options, *, only_main: bool = False
) -> tuple[Evidence, list[Failure]]:
    """Both passes over the cases of a run: scores of voxels, then detections at the thresholds these suggest.

    Args:
        run, about: The run and its `run.json`.
        cases: Labelled ones; `image` is the folder in the run.
        options: See `Options`.
        only_main: Leave the run's other scores out.

    Raises:
        CohortError: No case can be read.
        UsageError: The validation results or the run of healthy people cannot be used here.
    """
    full = options.preset is None
    names: list[str] = [about["score"]] if only_main else about["scores"]
    beside = healthy_cases(options.healthy, about, cases) if full else []
    source = options.threshold_from if full else None
    chosen = validation_thresholds(source, names, [case.id for case in cases])
    rules = _rules_of(about, options)
    pooled = _pool(names, cases, beside, rules.space)
    good = [outcome.case for outcome in pooled.outcomes if outcome.value is not None]
    if all(case in beside for case in good):
        why = failures_of(pooled.outcomes)[0].error
        raise CohortError(f"none of {counted(len(cases), 'case')} can be evaluated", where=run, why=why)
    thresholds = {name: _thresholds(name, about, chosen, pooled.curves[name], options) for name in names}
    wanted = (about["score"], *about["baselines"]) if full else ()
    froc = {name: values for name, values in pooled.froc.items() if name in wanted}
    second = partial(measure_case, rules=rules, thresholds=thresholds, froc=froc, lesions=full)
    again = sorted(map_cases(second, good, label="evaluate: detections"), key=_by_id)
    scored, measured = _both(pooled.outcomes, again)
    found = pooled.curves, pooled.bounds, pooled.exact
    evidence = Evidence(str(run), about["score"], about["baselines"], rules, thresholds, froc, scored, measured, *found)
    return evidence, failures_of(pooled.outcomes)


def _pool(names: Sequence[str], cases: Sequence[Case], beside: Sequence[Case], space: Space) -> _Pooled:
    """First pass over the cases of the run and those of the run of healthy people."""
    pooled = {name: PooledScores(2 * KEEP // max(2, len(names))) for name in names}
    apart = frozenset(str(case.image) for case in beside)
    work = partial(score_case, space=space, pooled=pooled, healthy_run=apart)
    outcomes = sorted(map_cases(work, [*cases, *beside], label="evaluate: voxels"), key=_by_id)
    curves = {name: scores.curve() for name, scores in pooled.items()}
    return _Pooled(
        outcomes=outcomes,
        curves=curves,
        froc={name: _froc_thresholds(scores) for name, scores in pooled.items()},
        bounds={name: scores.bounds(curves[name]) for name, scores in pooled.items()},
        exact={name: scores.exact for name, scores in pooled.items()},
    )


def _by_id(outcome: Outcome[Any]) -> str:
    return outcome.case.id


def _both(first: Sequence[Outcome[Scored]], second: Sequence[Outcome[Measured]]) -> tuple[list[Scored], list[Measured]]:
    """Cases that both passes could read.

    Raises:
        CohortError: A file changed in between, so that the pooled figures are those of other cases.
    """
    for outcome in second:
        if outcome.failure is not None:
            raise CohortError(
                f"changed while it was evaluated: {outcome.failure.error}",
                where=outcome.case.image,
                remedy="evaluate again when nothing writes to the run",
            )
    scored = [outcome.value for outcome in first if outcome.value is not None]
    return scored, [outcome.value for outcome in second if outcome.value is not None]


def _rules_of(about: Json, options: Options) -> Rules:
    own = about["options"].get("filters", {}).get("min_lesion_ml", Rules.min_lesion_ml)
    least = own if options.min_lesion_ml is None else options.min_lesion_ml
    space: Space = "all" if options.preset else options.space or "brain"
    return Rules(space, least, surface=available() and not options.preset)


def _thresholds(name: str, about: Json, chosen: dict[str, float], curve: Curve, options: Options) -> dict[Kind, float]:
    """Where a detection begins: on healthy scans, on a validation cohort, and on the test labels themselves."""
    calibrated = None if options.preset else about["thresholds"].get(name)
    known: dict[Kind, float | None] = {"calibrated": calibrated, "validation": chosen.get(name)}
    best = curve.best_dice()[1]
    return {
        **{kind: float(value) for kind, value in known.items() if value is not None},
        **({} if np.isnan(best) else {"oracle": best}),
    }


def _froc_thresholds(pooled: PooledScores) -> list[float]:
    """Thresholds that given shares of the healthy voxels exceed, falling."""
    values = pooled.quantiles([1 - share for share in FROC_SHARES])
    return sorted({value for value in values if not np.isnan(value)}, reverse=True)
