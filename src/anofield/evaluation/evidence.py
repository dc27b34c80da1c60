"""Evidence: the data from which all figures of a run are computed."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from anofield import bootstrap
from anofield.bootstrap import Weights
from anofield.curves import Curve
from anofield.evaluation.case import Measured, Scored
from anofield.evaluation.pooled import Bounds
from anofield.evaluation.rules import KINDS, Kind, Rules, Thresholds

Column = NDArray[np.float64]


@dataclass(frozen=True, kw_only=True)
class Evidence:
    """The data from which all figures of a run are computed.

    Attributes:
        run: Folder of the run.
        score: Main score.
        baselines: Scores that use the scan alone.
        rules: Rules of the evaluation.
        thresholds: Thresholds per score and kind.
        froc: Thresholds of the FROC per score, in descending order.
        scored, measured: Results of the first and second pass per case, in the same order.
        curves: Pooled curve per score.
        bounds: Limits within which `ap` and `auroc` of the unrounded scores lie, per score.
        exact: Whether nothing was rounded, per score.
    """

    run: str
    score: str
    baselines: list[str]
    rules: Rules
    thresholds: Thresholds
    froc: dict[str, list[float]]
    scored: list[Scored]
    measured: list[Measured]
    curves: dict[str, Curve]
    bounds: dict[str, dict[str, Bounds]]
    exact: dict[str, bool]

    @property
    def names(self) -> list[str]:
        """All scores, in the order of the run."""
        return list(self.thresholds)

    @cached_property
    def pooled_cases(self) -> NDArray[np.bool_]:
        """Cases of the run itself, not of the run of healthy subjects, (case,)."""
        return np.array([not case.healthy_run for case in self.scored])

    @property
    def n_cases(self) -> int:
        """Number of cases of the run itself."""
        return int(self.pooled_cases.sum())

    @cached_property
    def ill(self) -> NDArray[np.bool_]:
        """Cases with a labelled voxel that counts, (case,)."""
        return np.array([case.lesion_ml > 0 for case in self.scored])

    @cached_property
    def healthy(self) -> NDArray[np.bool_]:
        """Cases without any labelled voxel, (case,)."""
        return np.array([case.lesion_ml == 0 and case.outside_ml == 0 for case in self.scored])

    def kinds(self, name: str) -> list[Kind]:
        """Kinds of threshold that are known for a score."""
        return [kind for kind in KINDS if kind in self.thresholds[name]]

    def column(self, name: str, kind: Kind, attribute: str) -> Column:
        """One number per case for a score at a threshold."""
        return np.array([getattr(case.at[name][kind], attribute) for case in self.measured], dtype=float)

    @property
    def own(self) -> list[Measured]:
        """Results of the second pass for the run's own cases."""
        return [row for row, own in zip(self.measured, self.pooled_cases, strict=True) if own]

    def draw(self, resamples: int, seed: int) -> Weights:
        """Resamples of the subjects, (resample, case)."""
        subjects = [case.subject for case in self.scored]
        return bootstrap.draw(subjects, resamples, np.random.default_rng(seed))
