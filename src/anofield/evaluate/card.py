"""The metric card: every figure of a run with its interval, from what each case contributed."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import cast

import numpy as np
from numpy.typing import NDArray

from anofield import bootstrap
from anofield.bootstrap import Samples, Weights
from anofield.curves import Curve
from anofield.evaluate.case import KINDS, Kind, Measured, Rules, Scored, Thresholds
from anofield.evaluate.lesions import size_bin, size_names
from anofield.evaluate.pooled import Bounds, stack_counts
from anofield.typing import Json

KIND_WORDS: dict[Kind, str] = {
    "calibrated": "healthy-calibrated",
    "validation": "validation",
    "oracle": "oracle (test labels)",
}
HIGHER_IS_WORSE = ("fpr95", "hd95", "assd", "false_per_scan", "healthy_ml")

Column = NDArray[np.float64]


@dataclass(frozen=True)
class Evidence:
    """All that a run's figures are computed from.

    Attributes:
        run: Its folder.
        score: The main score.
        baselines: Scores that are no method of ours.
        rules: What counted.
        thresholds: Per score and kind.
        froc: Per score, thresholds of the FROC, falling.
        scored, measured: Per case, in the same order.
        curves: Pooled, per score.
        bounds: Per score, where `ap` and `auroc` of the unrounded scores lie.
        exact: Per score, whether nothing was rounded.
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
        """All scores, as the run lists them."""
        return list(self.thresholds)

    @cached_property
    def pooled_cases(self) -> NDArray[np.bool_]:
        """Cases of the run itself, not of the run of healthy people, (case,)."""
        return np.array([not case.healthy_run for case in self.scored])

    @cached_property
    def ill(self) -> NDArray[np.bool_]:
        """Cases with a labelled voxel that counts, (case,)."""
        return np.array([case.lesion_ml > 0 for case in self.scored])

    @cached_property
    def healthy(self) -> NDArray[np.bool_]:
        """Cases without any labelled voxel, (case,)."""
        return np.array([case.lesion_ml == 0 and case.outside_ml == 0 for case in self.scored])

    def kinds(self, name: str) -> list[Kind]:
        """Thresholds that are known for a score."""
        return [kind for kind in KINDS if kind in self.thresholds[name]]

    def column(self, name: str, kind: Kind, attribute: str) -> Column:
        """One number per case, of a score at a threshold."""
        return np.array([getattr(case.at[name][kind], attribute) for case in self.measured], dtype=float)


def draw(evidence: Evidence, resamples: int, seed: int) -> Weights:
    """Resamples of the subjects, (resample, case)."""
    subjects = [case.subject for case in evidence.scored]
    return bootstrap.draw(subjects, resamples, np.random.default_rng(seed))


def figures(evidence: Evidence, name: str, weights: Weights) -> tuple[dict[str, float], dict[str, Samples]]:
    """Every metric of a score: its value, and its value in every resample; NaN where `rests_on` is too little."""
    once = np.ones((1, len(evidence.scored)))
    values = {key: float(sample[0]) for key, sample in _metrics(evidence, name, once).items()}
    samples = _metrics(evidence, name, weights)
    for key, exact in voxel_values(evidence.curves[name]).items():
        samples[key] = samples[key] + (exact - values[key])  # resamples are binned by 0.4 %: centre them
        values[key] = exact
    for key in (key for key in samples if rests_on(evidence, name, key) < bootstrap.LEAST_SUBJECTS):
        samples[key] = np.full(len(weights), np.nan)
    return values, samples


def rests_on(evidence: Evidence, name: str, key: str) -> int:
    """Number of subjects behind a metric: those with a lesion, or the rarer kind where two are compared."""

    def count(cases: NDArray[np.bool_]) -> int:
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


def voxel_values(curve: Curve) -> dict[str, float]:
    """The pooled metrics that need no threshold, and the oracle's Dice."""
    return {
        "ap": curve.average_precision(),
        "auroc": curve.roc_auc(),
        "fpr95": curve.fpr_at_recall(0.95),
        "dice_oracle_pooled": curve.best_dice()[0],
    }


def make_card(evidence: Evidence, weights: Weights) -> tuple[Json, Json]:
    """The card (score → metric → value, ci), and the main score's margins over every baseline (paired by subject)."""
    found = {name: figures(evidence, name, weights) for name in evidence.names}
    card = {
        name: {key: bootstrap.summary(value, samples[key]) for key, value in values.items()}
        for name, (values, samples) in found.items()
    }
    rivals = [name for name in evidence.baselines if name in found and name != evidence.score]
    people = {key: rests_on(evidence, evidence.score, key) for key in found[evidence.score][0]}
    return card, {name: differences(found[evidence.score], found[name], people) for name in rivals}


def differences(
    one: tuple[dict[str, float], dict[str, Samples]],
    other: tuple[dict[str, float], dict[str, Samples]],
    people: Mapping[str, int],
) -> Json:
    """First minus second for every metric that both have, over the same resamples.

    Args:
        one, other: From `figures`.
        people: Subjects that every metric rests on.
    """
    result = {}
    for key in (key for key in one[0] if key in other[0]):
        samples = one[1][key] - other[1][key]
        row = bootstrap.summary(one[0][key] - other[0][key], samples)
        p = bootstrap.sign_share(samples, people[key])
        result[key] = {**row, "p": p, "higher_is_worse": key.startswith(HIGHER_IS_WORSE)}
    return result


def by_size(evidence: Evidence, name: str, kind: Kind) -> list[Json]:
    """Lesions by volume: how many, how many found, mean share covered."""
    matches = [m.at[name][kind].lesions for m in _own(evidence, evidence.measured)]
    known = [match for match in matches if match is not None]
    volumes, found, covered = (
        np.concatenate([getattr(match, key) for match in known] or [np.zeros(0)])
        for key in ("volumes_ml", "found", "covered")
    )
    classes = size_bin(volumes)
    rows = []
    for number, size in enumerate(size_names()):
        here = classes == number
        n = int(here.sum())
        rate = {"recall": float(found[here].mean()), "covered": float(covered[here].mean())} if n else {}
        empty = {"recall": float("nan"), "covered": float("nan")}
        rows.append({"size": size, "lesions": n, "found": int(found[here].sum()), **(rate or empty)})
    return rows


def froc_points(evidence: Evidence, name: str) -> list[Json]:
    """Lesion recall against false findings per scan, one point per threshold."""
    once = np.ones((1, len(evidence.scored)))
    recall, false = froc_samples(evidence, name, once)
    return [
        {"threshold": threshold, "recall": float(r), "false_per_scan": float(f)}
        for threshold, r, f in zip(evidence.froc.get(name, []), recall[0], false[0], strict=True)
    ]


def healthy_summary(evidence: Evidence, quantile: float | None) -> Json:
    """False positives of the main score on scans without lesion, against what the calibration promised."""
    chosen = np.flatnonzero(evidence.healthy)
    if not chosen.size or "calibrated" not in evidence.thresholds[evidence.score]:
        return {"scans": int(chosen.size)}
    found = [evidence.measured[i].at[evidence.score]["calibrated"] for i in chosen]
    volumes = np.array([one.above_ml for one in found])
    sizes = np.array([evidence.scored[i].voxels_ml for i in chosen])
    counts = [one.lesions.findings for one in found if one.lesions is not None]
    return {
        "scans": int(chosen.size),
        "above_ml_mean": float(volumes.mean()),
        "above_ml_median": float(np.median(volumes)),
        "above_ml_max": float(volumes.max()),
        "above_share": float(volumes.sum() / sizes.sum()),
        "promised_share": float("nan") if quantile is None else 1 - quantile,
        "promised_ml_mean": float("nan") if quantile is None else float((1 - quantile) * sizes.mean()),
        "scans_without_finding": int(sum(count == 0 for count in counts)),
        "cases": [
            {"id": evidence.scored[i].id, "above_ml": float(volume)} for i, volume in zip(chosen, volumes, strict=True)
        ],
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
    metrics = {f"dice_{kind}_mean": bootstrap.mean(evidence.column(name, kind, "dice"), own)}
    if kind != "oracle":  # the oracle's pooled Dice is the curve's
        metrics[f"dice_{kind}_pooled"] = bootstrap.ratio(2 * hit, above + labelled, own)
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


def _own(evidence: Evidence, rows: list[Measured]) -> list[Measured]:
    return [row for row, own in zip(rows, evidence.pooled_cases, strict=True) if own]
