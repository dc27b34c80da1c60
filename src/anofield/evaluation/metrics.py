"""Metrics of a score, once and in every resample of the subjects."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import cast

import numpy as np
from numpy.typing import NDArray

from anofield import bootstrap
from anofield.bootstrap import Samples, Weights
from anofield.evaluation.evidence import Evidence
from anofield.evaluation.oracle import best_pooled, mean_samples
from anofield.evaluation.pooled import stack_counts
from anofield.evaluation.rules import Kind


@dataclass(frozen=True)
class Sampled:
    """Every metric of a score.

    Attributes:
        values: Value per metric.
        samples: Value in every resample, per metric; NaN where too few subjects define the metric.
    """

    values: dict[str, float]
    samples: dict[str, Samples]


def figures(evidence: Evidence, name: str, weights: Weights) -> Sampled:
    """Every metric of a score, with its value in every resample."""
    once = np.ones((1, len(evidence.scored)))
    values = {key: float(sample[0]) for key, sample in _metrics(evidence, name, once).items()}
    samples = _metrics(evidence, name, weights)
    for key, exact in voxel_values(evidence, name).items():
        samples[key] = samples[key] + (exact - values[key])  # resamples are binned by 0.4 %: centre them
        values[key] = exact
    for kind in (kind for kind in evidence.kinds(name) if kind != "oracle"):
        samples["dice_oracle_pooled"] = np.fmax(samples["dice_oracle_pooled"], samples[f"dice_{kind}_pooled"])
    for key in (key for key in samples if rests_on(evidence, name, key) < bootstrap.LEAST_SUBJECTS):
        samples[key] = np.full(len(weights), np.nan)
    return Sampled(values, samples)


def rests_on(evidence: Evidence, name: str, key: str) -> int:
    """Number of subjects behind a metric: those with a lesion, or the smaller group if two groups are compared."""

    def count(cases: NDArray[np.bool_]) -> int:
        """Subjects of the chosen cases."""
        return len({case.subject for case, counts in zip(evidence.scored, cases, strict=True) if counts})

    if key.startswith("healthy_ml"):
        return count(evidence.healthy)
    if key.startswith("false_per_scan"):
        return count(evidence.pooled_cases)
    if key.startswith("scan_auroc"):
        return min(count(evidence.ill), count(evidence.healthy))
    if key.startswith(("hd95", "assd")):  # scans in which nothing was found are left out
        distance, kind = key.split("_")
        return count(np.isfinite(evidence.column(name, cast(Kind, kind), distance)) & evidence.pooled_cases)
    return count(evidence.ill)


def voxel_values(evidence: Evidence, name: str) -> dict[str, float]:
    """The pooled metrics that need no threshold, and the oracle's Dice."""
    curve = evidence.curves[name]
    return {
        "ap": curve.average_precision(),
        "auroc": curve.roc_auc(),
        "fpr95": curve.fpr_at_recall(0.95),
        "dice_oracle_pooled": best_pooled(evidence, name)[0],
    }


def _metrics(evidence: Evidence, name: str, weights: Weights) -> dict[str, Samples]:
    """Every metric of a score in every resample."""
    own = weights * evidence.pooled_cases
    counts = stack_counts([case.counts[name] for case in evidence.scored])
    voxels = bootstrap.voxel_metrics(counts, own)
    voxels["dice_oracle_pooled"] = voxels.pop("dice_oracle")
    metrics = {
        **voxels,
        "ap_scan": bootstrap.mean(np.array([case.ap[name] for case in evidence.scored]), own),
        "auroc_scan": bootstrap.mean(np.array([case.auroc[name] for case in evidence.scored]), own),
        "scan_auroc": _scan_auroc(evidence, [case.top[name] for case in evidence.scored], weights),
    }
    given = [case.case_score for case in evidence.scored]
    if name == evidence.score and not np.isnan(given).any():
        metrics["scan_auroc_case_score"] = _scan_auroc(evidence, given, weights)
    for kind in evidence.kinds(name):
        metrics |= _at_threshold(evidence, name, kind, weights)
    if evidence.froc.get(name):
        recall, false = froc_samples(evidence, name, own)
        metrics["froc_recall_at_1"] = np.where(false > 1, 0.0, recall).max(axis=1)
    return metrics


def _at_threshold(evidence: Evidence, name: str, kind: Kind, weights: Weights) -> dict[str, Samples]:
    """Metrics of the detection at one threshold."""
    own = weights * evidence.pooled_cases
    hit, above, labelled = (evidence.column(name, kind, key) for key in ("hit", "above", "labelled"))
    if kind == "oracle":  # its thresholds are chosen again in every resample, and the pooled Dice is the curve's
        metrics = {"dice_oracle_mean": mean_samples(evidence, name, weights)}
    else:
        metrics = {f"dice_{kind}_mean": bootstrap.mean(evidence.column(name, kind, "dice"), own)}
        metrics[f"dice_{kind}_pooled"] = bootstrap.ratio(2 * hit, above + labelled, own)
    metrics[f"voxel_recall_{kind}"] = bootstrap.ratio(hit, labelled, own)
    metrics[f"voxel_precision_{kind}"] = bootstrap.ratio(hit, above, own)
    volume = np.where(evidence.healthy, evidence.column(name, kind, "above_ml"), np.nan)
    metrics[f"healthy_ml_{kind}"] = bootstrap.mean(volume, weights)
    matches = [case.at[name][kind].lesions for case in evidence.measured]
    if any(found is None for found in matches):
        return metrics
    found, lesions, findings, false = np.array(
        [(m.found.sum(), len(m.found), m.findings, m.false) for m in matches if m is not None], dtype=float
    ).T
    recall, precision = bootstrap.ratio(found, lesions, own), bootstrap.ratio(findings - false, findings, own)
    metrics |= {f"lesion_recall_{kind}": recall, f"lesion_precision_{kind}": precision}
    metrics[f"lesion_f1_{kind}"] = _harmonic(recall, precision)
    metrics[f"false_per_scan_{kind}"] = bootstrap.ratio(false, evidence.pooled_cases.astype(float), own)
    if evidence.rules.surface and kind != "oracle":
        metrics |= {f"{key}_{kind}": bootstrap.mean(evidence.column(name, kind, key), own) for key in ("hd95", "assd")}
    return metrics


def _scan_auroc(evidence: Evidence, scores: Sequence[float], weights: Weights) -> Samples:
    """Scans with a lesion against scans without any."""
    known = evidence.ill | evidence.healthy
    return bootstrap.auroc(np.array(scores)[known], evidence.ill[known], weights[:, known])


def froc_samples(evidence: Evidence, name: str, weights: Weights) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Recall and false findings per scan, each (resample, threshold)."""
    own = weights * evidence.pooled_cases
    counts = np.array([case.froc.get(name, []) for case in evidence.measured], dtype=float)
    counts = counts.reshape(len(evidence.measured), -1, 2)  # (case, threshold, found or false)
    lesions = np.array([case.n_lesions for case in evidence.measured], dtype=float)
    columns = range(counts.shape[1])
    empty = np.zeros((len(weights), 0))
    recall = [bootstrap.ratio(counts[:, t, 0], lesions, own) for t in columns]
    false = [bootstrap.ratio(counts[:, t, 1], evidence.pooled_cases.astype(float), own) for t in columns]
    return (np.stack(recall, axis=1), np.stack(false, axis=1)) if recall else (empty, empty)


def _harmonic(recall: Samples, precision: Samples) -> Samples:
    """F1; 0 if nothing was found, NaN only where there was no lesion."""
    total = recall + np.nan_to_num(precision)
    empty = np.where(total == 0, 0.0, np.nan)
    return np.divide(2 * recall * np.nan_to_num(precision), total, out=empty, where=total > 0)
