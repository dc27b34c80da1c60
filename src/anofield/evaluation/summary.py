"""Figures without intervals: per score, per case, and the points of the curves."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from anofield.curves import Curve
from anofield.evaluation.case import Detected, Measured, Scored
from anofield.evaluation.evidence import Evidence
from anofield.evaluation.oracle import best_pooled, pooled_dice
from anofield.evaluation.parts import CaseRow, CurvePoints, LesionCounts, ScoreFigures
from anofield.evaluation.rules import Kind

CURVE_POINTS = 300
NAN = float("nan")


class Spread(NamedTuple):
    """Mean and standard deviation over scans."""

    mean: float
    sd: float


def all_figures(evidence: Evidence, name: str) -> ScoreFigures:
    """Figures of one score at every known threshold."""
    known = evidence.thresholds[name]
    calibrated, validation = (_dices(evidence, name, kind, ddof=1) for kind in ("calibrated", "validation"))
    more = {
        "dice_calibrated_mean": calibrated.mean,
        "dice_calibrated_sd": calibrated.sd,
        "dice_validation_mean": validation.mean,
        "dice_validation_sd": validation.sd,
        "dice_calibrated_pooled": pooled_dice(evidence, name, "calibrated"),
        "threshold_oracle_mean": known.get("oracle", NAN),
        "threshold": known.get("calibrated", NAN),
        "threshold_validation": known.get("validation", NAN),
    }
    return oracle_figures(evidence, name, ddof=1).model_copy(update=more)


def oracle_figures(evidence: Evidence, name: str, *, ddof: int) -> ScoreFigures:
    """Figures of one score that need no threshold, or the oracle's.

    Args:
        evidence: Evidence of the run.
        name: The score.
        ddof: Number that is subtracted from the number of scans in standard deviations.
    """
    curve, bounds = evidence.curves[name], evidence.bounds[name]
    best, at = best_pooled(evidence, name)
    dice = _dices(evidence, name, "oracle", ddof=ddof)
    return ScoreFigures(
        ap=curve.average_precision(),
        auroc=curve.roc_auc(),
        fpr95=curve.fpr_at_recall(0.95),
        dice_oracle=best,
        threshold_oracle=at,
        dice_oracle_mean=dice.mean,
        dice_oracle_sd=dice.sd,
        exact=evidence.exact[name],
        ap_bounds=bounds["ap"],
        auroc_bounds=bounds["auroc"],
    )


def case_rows(evidence: Evidence) -> list[CaseRow]:
    """One row per case of the run."""
    rows = zip(evidence.scored, evidence.measured, strict=True)
    return [_row(evidence, scored, measured) for scored, measured in rows if not scored.healthy_run]


def thinned(curve: Curve) -> CurvePoints:
    """A few hundred points of each curve, spread evenly over the recall."""
    if len(curve.thresholds) == 0:
        return CurvePoints(recall=[], precision=[], fpr=[], tpr=[])
    at = np.unique(np.searchsorted(curve.recall, np.linspace(0, 1, CURVE_POINTS)).clip(0, len(curve.recall) - 1))
    also = np.unique(np.searchsorted(curve.fpr, np.linspace(0, 1, CURVE_POINTS)).clip(0, len(curve.fpr) - 1))
    at, also = np.unique(np.r_[0, at]), np.unique(np.r_[0, also])
    return CurvePoints(
        recall=curve.recall[at].round(5).tolist(),
        precision=curve.precision[at].round(5).tolist(),
        fpr=curve.fpr[also].round(6).tolist(),
        tpr=curve.recall[also].round(5).tolist(),
    )


def _dices(evidence: Evidence, name: str, kind: Kind, *, ddof: int) -> Spread:
    """The per-case Dice at one threshold."""
    values = evidence.column(name, kind, "dice") if kind in evidence.thresholds[name] else np.zeros(0)
    known = values[~np.isnan(values)]
    mean = float(known.mean()) if known.size else NAN
    return Spread(mean, float(known.std(ddof=ddof)) if known.size > ddof else NAN)


def _row(evidence: Evidence, scored: Scored, measured: Measured) -> CaseRow:
    return CaseRow(
        id=scored.id,
        subject=scored.subject,
        lesion_ml=scored.lesion_ml,
        label_outside_ml=scored.outside_ml,
        detected_ml=scored.detected_ml,
        dice=_dice_at(measured, "calibrated"),
        voxel_precision=_precision_at(measured, "calibrated"),
        dice_oracle=_dice_at(measured, "oracle"),
        ap=scored.ap,
        auroc=scored.auroc,
        scan_score=scored.top,
        lesions=_lesions(evidence, measured),
    )


def _dice_at(measured: Measured, kind: Kind) -> dict[str, float]:
    return {name: at[kind].dice if kind in at else NAN for name, at in measured.at.items()}


def _precision_at(measured: Measured, kind: Kind) -> dict[str, float]:
    known = {name: at[kind] for name, at in measured.at.items() if kind in at}
    return {name: _share(known[name]) if name in known else NAN for name in measured.at}


def _share(at: Detected) -> float:
    """Share of the voxels above the threshold that are labelled; NaN if there are none."""
    return at.hit / at.above if at.above else NAN


def _lesions(evidence: Evidence, measured: Measured) -> LesionCounts | None:
    """Lesions of a case for the main score at the first known threshold."""
    kind = next(iter(evidence.kinds(evidence.score)), None)
    at = None if kind is None else measured.at[evidence.score][kind]
    if kind is None or at is None or at.lesions is None:
        return None
    return LesionCounts(
        threshold=kind,
        true=len(at.lesions.found),
        found=int(at.lesions.found.sum()),
        findings=at.lesions.findings,
        false=at.lesions.false,
        voxel_precision=_share(at),
        hd95_mm=at.hd95,
        assd_mm=at.assd,
    )
