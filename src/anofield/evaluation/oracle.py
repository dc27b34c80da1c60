"""The oracle: the best Dice over all thresholds, chosen on the test labels, for scans on average and for pooled voxels.

The two have thresholds of their own, because the threshold that is best for the pooled voxels is not the best for the
scans on average: a large lesion counts more among pooled voxels. Neither is below the Dice of the same kind at a known
threshold.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from anofield.bootstrap import Samples, Weights, mean
from anofield.curves import Curve, scores_of
from anofield.evaluation.case import Measured
from anofield.evaluation.evidence import Evidence
from anofield.evaluation.pooled import COARSE_BITS, CaseCounts, stack_counts
from anofield.evaluation.rules import Kind, Thresholds

NAN = float("nan")


@dataclass(frozen=True)
class ScanDices:
    """The Dice of every scan above the edges of the coarse bins, which are 0.4 % apart.

    Attributes:
        thresholds: Edges of the bins, descending, (bin,).
        dice: Dice of each scan, NaN for a scan without lesion, (case, bin).
    """

    thresholds: NDArray[np.float32]
    dice: NDArray[np.float64]

    @classmethod
    def of(cls, cases: list[CaseCounts]) -> ScanDices:
        """The Dice of every scan from its coarse counts."""
        bins = np.unique(np.concatenate([case.bins for case in cases])).astype(np.int64)[::-1]
        false, true = np.moveaxis(np.cumsum(stack_counts(cases), axis=2, dtype=np.float64), 1, 0)  # (case, bin)
        labelled = true[:, -1:]
        dice = 2 * true / np.where(labelled > 0, true + false + labelled, NAN)
        return cls(scores_of((bins << COARSE_BITS) - 1), dice)

    def means(self, weights: Weights) -> NDArray[np.float64]:
        """Mean over the drawn scans with a lesion, (resample, bin); NaN where none was drawn."""
        ill = ~np.isnan(self.dice[:, 0])
        drawn = weights[:, ill].sum(axis=1, keepdims=True)
        return np.asarray(weights[:, ill] @ self.dice[ill] / np.where(drawn > 0, drawn, NAN))


def pooled_threshold(curve: Curve, counts: Sequence[CaseCounts]) -> float:
    """Threshold with the best Dice of the pooled voxels; NaN without any labelled voxel.

    Args:
        curve: Pooled curve.
        counts: Not used.
    """
    return curve.best_dice()[1]


def mean_threshold(curve: Curve, counts: Sequence[CaseCounts]) -> float:
    """Threshold with the best mean Dice over the scans, among the edges of the coarse bins; NaN without a lesion.

    Args:
        curve: Pooled curve, which is exact for a single scan.
        counts: Coarse counts of the scans.
    """
    if len(counts) < 2 or not curve.positives:
        return pooled_threshold(curve, counts)
    found = ScanDices.of(list(counts))
    return float(found.thresholds[np.argmax(found.means(np.ones((1, len(counts)))))])


def not_below_known(
    thresholds: Thresholds, measured: dict[str, Measured], pooled: Sequence[str]
) -> tuple[Thresholds, dict[str, Measured]]:
    """Let the oracle take a known threshold that lies between two edges and has a better mean Dice than any edge.

    Args:
        thresholds: Thresholds per score and kind.
        measured: Results of the second pass by case id.
        pooled: Ids of the cases of the run itself.

    Returns:
        Thresholds and results in which the mean Dice at the oracle threshold is not below that at another one.
    """
    new, cases = dict(thresholds), dict(measured)
    for name, known in thresholds.items():
        best = max(reversed(known), key=lambda kind: _mean_dice([measured[case] for case in pooled], name, kind))
        if "oracle" in known and best != "oracle":
            new[name] = {**known, "oracle": known[best]}
            cases = {case: _with_oracle(one, name, best) for case, one in cases.items()}
    return new, cases


def best_pooled(evidence: Evidence, name: str) -> tuple[float, float]:
    """Best Dice of the pooled voxels and its threshold; both NaN without any labelled voxel.

    A known threshold can be better than those of the curve only if scores were rounded to bins.
    """
    known = [(pooled_dice(evidence, name, kind), evidence.thresholds[name][kind]) for kind in evidence.kinds(name)]
    return max([evidence.curves[name].best_dice(), *known], key=lambda one: -1.0 if np.isnan(one[0]) else one[0])


def pooled_dice(evidence: Evidence, name: str, kind: Kind) -> float:
    """Dice of all voxels of all cases at once, NaN without a threshold or without any labelled voxel."""
    if kind not in evidence.thresholds[name] or not evidence.curves[name].positives:
        return NAN
    hit, above, labelled = (
        evidence.column(name, kind, key)[evidence.pooled_cases].sum() for key in ("hit", "above", "labelled")
    )
    return float(2 * hit / (above + labelled))


def mean_samples(evidence: Evidence, name: str, weights: Weights) -> Samples:
    """Best mean Dice over the scans in every resample; the threshold is chosen again in each, (resample,)."""
    own = weights * evidence.pooled_cases
    known = [mean(evidence.column(name, kind, "dice"), own)[:, None] for kind in evidence.kinds(name)]
    edges = ScanDices.of([case.counts[name] for case in evidence.scored]).means(own)
    return np.asarray(np.max(np.concatenate([edges, *known], axis=1), axis=1))


def _mean_dice(cases: Sequence[Measured], name: str, kind: Kind) -> float:
    """Mean Dice over the scans with a lesion; −1 without any."""
    values = np.array([case.at[name][kind].dice for case in cases])
    known = values[~np.isnan(values)]
    return float(known.mean()) if known.size else -1.0


def _with_oracle(case: Measured, name: str, kind: Kind) -> Measured:
    """The case with the detection at a known threshold as that of the oracle."""
    at = {**case.at[name], "oracle": case.at[name][kind]}
    return replace(case, at={**case.at, name: at})
