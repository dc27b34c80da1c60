"""Metrics of a run against lesion labels: inside the brain, in the scans' own voxels, streamed case by case."""

from __future__ import annotations

import glob
import json
from collections.abc import Sequence
from functools import partial
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from anofield.cluster import failures_of, map_cases
from anofield.cohort import Case, find_cases
from anofield.detect import read_case
from anofield.errors import CohortError, ScanError
from anofield.histogram import Curve, ScoreHistogram, exact_curve
from anofield.scan import brain_mask, read_labels, read_map, read_scan, stem, write_json, writing
from anofield.typing import Json, Mask, PathLike

CURVE_POINTS = 300
ROW_ORDER = ("ap", "auroc", "dice_calibrated_mean", "dice_calibrated_sd", "dice_calibrated_pooled", "dice_oracle",
             "threshold", "threshold_oracle", "fpr95")  # fmt: skip


def evaluate(run: PathLike, labels: PathLike | None, out: PathLike, *, dataset: str = "auto") -> Json:
    """Compare a run with lesion labels and write `out/results.json` and `out/cases.tsv`.

    Args:
        run: Folder written by `anofield detect`.
        labels: Folder (HCP, BraTS or BIDS tree, or loose label files named after the cases) or glob; None takes the
            labels found beside the scans when they were detected.
        out: Folder of the results.
        dataset: Layout of `labels`.

    Returns:
        The content of `results.json`.

    Raises:
        CohortError: No run, no finished case, no label for any case, or no case whose files can be read.
    """
    run, out = Path(run), Path(out)
    about = _read_run(run)
    truths = _labels_of(run, about["cases"], labels, dataset)
    names: list[str] = about["scores"]
    histograms = {name: ScoreHistogram() for name in names}
    thresholds = {name: _number(about["thresholds"].get(name)) for name in names}
    work = partial(_evaluate_case, main=about["score"], thresholds=thresholds, histograms=histograms)
    asked = [Case(case_id, run / case_id, label=truths[case_id]) for case_id in sorted(truths)]
    outcomes = list(map_cases(work, asked, label="evaluate"))
    rows = [outcome.value for outcome in outcomes if outcome.value is not None]
    failures = failures_of(outcomes)
    if not rows:
        raise CohortError(f"none of {len(asked)} cases can be evaluated", where=run, why=failures[0].error)
    curves = {name: histogram.curve() for name, histogram in histograms.items()}
    content = {
        "space": "native voxels, inside the brain",
        "run": str(run),
        "score": about["score"],
        "baselines": about["baselines"],
        "threshold_meaning": (about["threshold"] or {}).get("meaning"),
        "labels": {case_id: str(path) for case_id, path in truths.items()},
        "n_cases": len(rows),
        "failures": [vars(failure) for failure in failures],
        "scores": {name: _summary(curves[name], thresholds[name], rows, name) for name in names},
        "cases": rows,
        "curves": {name: _thin(curve) for name, curve in curves.items()},
    }
    write_json(out / "results.json", plain(content))
    _write_table(out / "cases.tsv", rows, names)
    return content


def dice(a: Mask, b: Mask) -> float:
    """2 |a ∩ b| / (|a| + |b|); NaN if both are empty.

    >>> dice(np.array([True, True, False]), np.array([True, False, False]))
    0.6666666666666666
    """
    total = int(a.sum()) + int(b.sum())
    return 2.0 * int((a & b).sum()) / total if total else float("nan")


def format_table(results: Json) -> str:
    """The metric table as text, the method's scores first, baselines below."""
    head = ("score", "AP", "AUROC", "Dice (calibrated)", "Dice (oracle)", "FPR@95")
    rows = [head]
    names = sorted(results["scores"], key=lambda name: (name in results["baselines"], name != results["score"]))
    for name in names:
        row = results["scores"][name]
        mean, sd = _digits(row["dice_calibrated_mean"]), _digits(row["dice_calibrated_sd"])
        label = f"{name} (baseline)" if name in results["baselines"] else name
        rows.append(
            (
                label,
                _digits(row["ap"]),
                _digits(row["auroc"]),
                f"{mean} ± {sd}",
                _digits(row["dice_oracle"]),
                _digits(row["fpr95"]),
            )
        )
    widths = [max(len(row[i]) for row in rows) for i in range(len(head))]
    padded = [[cell.rjust(width) for cell, width in zip(row, widths, strict=True)] for row in rows]
    lines = ["  ".join([row[0].ljust(widths[0]), *cells[1:]]) for row, cells in zip(rows, padded, strict=True)]
    return "\n".join([lines[0], "─" * len(lines[0]), *lines[1:]])


def _evaluate_case(
    case: Case, *, main: str, thresholds: dict[str, float], histograms: dict[str, ScoreHistogram]
) -> Json:
    """Metrics of one case (its `image` is its folder in the run); counted only once all of its files could be read."""
    about = read_case(case.image)
    if about is None or case.label is None:
        raise ScanError("is not finished", where=case.image, remedy="run `anofield detect` again")
    scan = read_scan(about["image"])
    brain = brain_mask(scan, about["mask"])
    truth = (read_labels(case.label, scan) > 0)[brain]
    maps = {name: read_map(_map_path(case.image, name, main), scan)[brain] for name in thresholds}
    for name, scores in maps.items():
        histograms[name].add(scores, truth)
    return {
        "id": case.id,
        "lesion_ml": float(truth.sum()) * scan.voxel_ml,
        "detected_ml": about["volume_ml"] if about["threshold"] is not None else float("nan"),
        "dice": {name: _dice_at(scores, truth, thresholds[name]) for name, scores in maps.items()},
        "ap": {name: exact_curve(scores, truth).average_precision() for name, scores in maps.items()},
    }


def _map_path(folder: Path, name: str, main: str) -> Path:
    return folder / ("anomaly.nii.gz" if name == main else f"score-{name}.nii.gz")


def _dice_at(scores: NDArray[np.float32], truth: Mask, threshold: float) -> float:
    """Dice at a threshold; NaN without a threshold, or for a person without lesions."""
    if np.isnan(threshold) or not truth.any():
        return float("nan")
    return dice(scores > threshold, truth)


def _summary(curve: Curve, threshold: float, rows: Sequence[Json], name: str) -> Json:
    dices = np.array([row["dice"][name] for row in rows], dtype=float)
    known = dices[~np.isnan(dices)]
    best, at = curve.best_dice()
    pooled = float("nan")
    if not np.isnan(threshold) and curve.positives:
        above = curve.thresholds >= np.float32(threshold)
        pooled = float(curve.dice[above][-1]) if above.any() else 0.0
    return {
        "ap": curve.average_precision(),
        "auroc": curve.roc_auc(),
        "dice_calibrated_mean": float(known.mean()) if known.size else float("nan"),
        "dice_calibrated_sd": float(known.std(ddof=1)) if known.size > 1 else float("nan"),
        "dice_calibrated_pooled": pooled,
        "dice_oracle": best,
        "threshold_oracle": at,
        "threshold": threshold,
        "fpr95": curve.fpr_at_recall(0.95),
    }


def _labels_of(run: Path, cases: Sequence[str], labels: PathLike | None, dataset: str) -> dict[str, Path]:
    """Label file of every case that has one."""
    if labels is None:
        known = {case_id: (read_case(run / case_id) or {}).get("label") for case_id in cases}
        found = {case_id: Path(path) for case_id, path in known.items() if path}
    else:
        found = _match(cases, labels, dataset)
    if not found:
        raise CohortError(
            "no label belongs to any case of the run",
            where=str(labels or run),
            why=f"the run has cases such as {', '.join(list(cases)[:3])}",
            remedy="give -t the folder of labels; files must be named after the cases, like `<case>_seg.nii.gz`",
        )
    return found


def _match(cases: Sequence[str], labels: PathLike, dataset: str) -> dict[str, Path]:
    wanted = set(cases)
    try:
        tree = find_cases(labels, dataset=dataset)
    except CohortError:
        tree = []
    found = {case.id: case.label for case in tree if case.id in wanted and case.label is not None}
    if found:
        return found
    files = sorted(Path(labels).rglob("*.nii*")) if Path(labels).is_dir() else [Path(p) for p in _glob(labels)]
    by_name = {stem(path): path for path in files}
    endings = ("", "_seg", "_mask", "_lesion_mask", "_label-lesion_mask", "_label", "_truth")
    pairs = ((case_id, by_name[case_id + end]) for case_id in cases for end in endings if case_id + end in by_name)
    return dict(pairs)


def _glob(pattern: PathLike) -> list[str]:
    return sorted(glob.glob(str(pattern), recursive=True))


def _read_run(run: Path) -> Json:
    try:
        about: Json = json.loads((run / "run.json").read_text())
    except (OSError, ValueError) as error:
        raise CohortError(
            "is not a finished run", where=run, why=str(error), remedy="run `anofield detect` with this folder as -o"
        ) from error
    if not about["cases"]:
        raise CohortError("has no finished case", where=run, remedy="look into failures.json")
    return about


def _thin(curve: Curve) -> Json:
    """A few hundred points of each curve, spread evenly over the recall."""
    if len(curve.thresholds) == 0:
        return {"recall": [], "precision": [], "fpr": [], "tpr": []}
    at = np.unique(np.searchsorted(curve.recall, np.linspace(0, 1, CURVE_POINTS)).clip(0, len(curve.recall) - 1))
    also = np.unique(np.searchsorted(curve.fpr, np.linspace(0, 1, CURVE_POINTS)).clip(0, len(curve.fpr) - 1))
    at, also = np.unique(np.r_[0, at]), np.unique(np.r_[0, also])
    return {
        "recall": curve.recall[at].round(5).tolist(),
        "precision": curve.precision[at].round(5).tolist(),
        "fpr": curve.fpr[also].round(6).tolist(),
        "tpr": curve.recall[also].round(5).tolist(),
    }


def _write_table(path: Path, rows: Sequence[Json], names: Sequence[str]) -> None:
    head = ["id", "lesion_ml", "detected_ml", *(f"dice_{n}" for n in names), *(f"ap_{n}" for n in names)]
    lines = ["\t".join(head)]
    for row in rows:
        values = [
            row["lesion_ml"],
            row["detected_ml"],
            *(row["dice"][n] for n in names),
            *(row["ap"][n] for n in names),
        ]
        lines.append("\t".join([row["id"], *("n/a" if np.isnan(v) else f"{v:.4f}" for v in values)]))
    with writing(path):
        path.write_text("\n".join(lines) + "\n")


def plain(value: object) -> Json:
    """The same content for JSON, which has no NaN: they become null."""
    if isinstance(value, dict):
        return {key: plain(item) for key, item in value.items()}
    if isinstance(value, list):
        return [plain(item) for item in value]  # type: ignore[return-value]
    return None if isinstance(value, float) and np.isnan(value) else value  # type: ignore[return-value]


def _number(value: float | None) -> float:
    return float("nan") if value is None else float(value)


def _digits(value: float) -> str:
    return "–" if np.isnan(value) else f"{value:.3f}"
