"""Contents of result files that no evaluation made, complete and small."""

from __future__ import annotations

from typing import Any

RULES: dict[str, Any] = {
    "space": "brain",
    "min_lesion_ml": 0.1,
    "overlap": 0.1,
    "surface": False,
    "connectivity": 26,
    "false_finding": "touches no labelled voxel",
    "scan_score": "mean of the highest 1 % of the voxels",
    "interval": "95 % percentile bootstrap over subjects",
    "subjects": 3,
    "resamples": 10,
    "seed": 0,
    "threshold_from": None,
    "healthy_run": None,
}
FIGURES: dict[str, Any] = {
    **dict.fromkeys(("ap", "auroc", "fpr95", "dice_oracle", "threshold_oracle", "dice_oracle_mean", "dice_oracle_sd")),
    "exact": True,
    "ap_bounds": [None, None],
    "auroc_bounds": [None, None],
}


def case_row(name: str, **change: Any) -> dict[str, Any]:
    """A row of `cases`."""
    per_score: dict[str, Any] = {key: {} for key in ("dice", "dice_oracle", "ap", "auroc", "scan_score")}
    volumes = {"lesion_ml": 0.3, "label_outside_ml": 0.0, "detected_ml": 0.3}
    return {"id": name, "subject": name, **volumes, **per_score, **change}


def results_content(scores: dict[str, dict[str, Any]], **change: Any) -> dict[str, Any]:
    """Content of a `results.json`; what `change` and the scores leave out is unknown."""
    rules = {**RULES, **change.pop("rules", {})}
    line: dict[str, list[float]] = {"recall": [], "precision": [], "fpr": [], "tpr": []}
    content = {
        "format": 1,
        "space": "native, inside the brain",
        "preset": None,
        "run": "run",
        "score": next(iter(scores)),
        "baselines": [],
        "threshold_meaning": None,
        "labels": {},
        "n_cases": 3,
        "failures": [],
        "rules": rules,
        "thresholds": {},
        "scores": {name: {**FIGURES, **figures} for name, figures in scores.items()},
        "cases": [],
        "curves": dict.fromkeys(scores, line),
    }
    return {**content, **change}
