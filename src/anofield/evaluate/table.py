"""The metric card and the comparison of two runs as text, at most about 110 columns wide."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from anofield._words import counted
from anofield.evaluate.card import KIND_WORDS
from anofield.evaluate.case import Kind
from anofield.typing import Json

NONE = "–"
NO_INTERVAL = "[< 2 subjects]"
COMPARED = {  # metric: words
    "ap": "AP, voxels pooled",
    "ap_scan": "AP, mean over scans",
    "auroc": "AUROC, voxels pooled",
    "fpr95": "FPR@95",
    "dice_calibrated_mean": "Dice, healthy-calibrated",
    "dice_validation_mean": "Dice, validation",
    "dice_oracle_pooled": "Dice, oracle (test labels)",
    "lesion_recall_calibrated": "Lesion recall",
    "lesion_precision_calibrated": "Lesion precision",
    "lesion_f1_calibrated": "Lesion F1",
    "froc_recall_at_1": "Lesion recall at ≤ 1 false finding per scan",
    "false_per_scan_calibrated": "False findings per scan",
    "hd95_calibrated": "HD95, mm",
    "assd_calibrated": "ASSD, mm",
    "healthy_ml_calibrated": "Healthy scans, ml above threshold",
    "scan_auroc": "AUROC of scans",
}


def format_table(results: Json) -> str:
    """Metrics of a run, the method's scores first, baselines below."""
    if results.get("preset"):
        return _preset(results)
    names = sorted(results["scores"], key=lambda name: (name in results["baselines"], name != results["score"]))
    parts = [_voxels(results, names), _dices(results, names)]
    parts += [part for part in (_lesions(results, names), _surfaces(results, names), _details(results)) if part]
    return "\n\n".join(parts)


def format_comparison(comparison: Json) -> str:
    """Two runs side by side, with the paired difference."""
    rows: list[tuple[str, ...]] = [("metric", "A", "B", "A − B [95 % CI]", "p")]
    for key, words in COMPARED.items():
        row = comparison["differences"].get(key)
        if row is not None and not np.isnan(row["value"]):
            values = [_digits(comparison[side]["values"][key]) for side in ("a", "b")]
            rows.append((words, *values, _with_ci(row, signed=True), _digits(row["p"])))
    sides = [f"{side.upper()}: {comparison[side]['run']} ({comparison[side]['score']})" for side in ("a", "b")]
    return "\n".join([*sides, "", _align(rows)])


def _preset(results: Json) -> str:
    rows: list[tuple[str, ...]] = [
        ("score", "AP", "ROC AUC", "FPR@95", "best Dice, oracle (test labels)", "threshold", "per-case Dice")
    ]
    for name, row in results["scores"].items():
        spread = f"{_digits(row['dice_oracle_mean'])} ± {_digits(row['dice_oracle_sd'])}"
        figures = (_digits(row[key]) for key in ("ap", "auroc", "fpr95", "dice_oracle", "threshold_oracle"))
        rows.append((_label(results, name), *figures, spread))
    return _align(rows)


def _voxels(results: Json, names: Sequence[str]) -> str:
    rows: list[tuple[str, ...]] = [
        ("voxels", "AP [95 % CI]", "AP per scan", "AUROC [95 % CI]", "per scan", "FPR@95", "AUROC of scans")
    ]
    for name in names:
        card = results["card"][name]
        cells = _with_ci(card["ap"]), _value(card, "ap_scan"), _with_ci(card["auroc"]), _value(card, "auroc_scan")
        rows.append((_label(results, name), *cells, _value(card, "fpr95"), _value(card, "scan_auroc")))
    return _align(rows)


def _dices(results: Json, names: Sequence[str]) -> str:
    """Per-case Dice at thresholds chosen without and with the test labels."""
    known = _kinds(results)
    rows: list[tuple[str, ...]] = [
        ("Dice, mean ± SD over scans", *(KIND_WORDS[kind] for kind in known), "oracle, voxels pooled")
    ]
    for name in names:
        row, card = results["scores"][name], results["card"][name]
        cells = [_spread(row, card, kind) for kind in known]
        rows.append((_label(results, name), *cells, _digits(row["dice_oracle"])))
    return _align(rows)


def _spread(row: Json, card: Json, kind: str) -> str:
    if np.isnan(row.get(f"dice_{kind}_mean", np.nan)):
        return NONE
    ci = "" if kind == "oracle" else f" {_ci(card[f'dice_{kind}_mean'])}"
    return f"{_digits(row[f'dice_{kind}_mean'])} ± {_digits(row[f'dice_{kind}_sd'])}{ci}"


def _lesions(results: Json, names: Sequence[str]) -> str:
    rows: list[tuple[str, ...]] = [
        ("lesions", "threshold", "recall", "precision", "F1 [95 % CI]", "false/scan", "FROC recall@1")
    ]
    for name in names:
        for kind in _operating(results):
            card = results["card"][name]
            if f"lesion_f1_{kind}" in card:
                cells = [_value(card, f"{key}_{kind}") for key in ("lesion_recall", "lesion_precision")]
                f1, false = _with_ci(card[f"lesion_f1_{kind}"]), _value(card, f"false_per_scan_{kind}", 2)
                any_threshold = _value(card, "froc_recall_at_1") if kind == _operating(results)[0] else ""
                words = KIND_WORDS[kind]
                rows.append((_label(results, name), words, *cells, f1, false, any_threshold))
    return _align(rows, left=2) if len(rows) > 1 else ""


def _surfaces(results: Json, names: Sequence[str]) -> str:
    rows: list[tuple[str, ...]] = [
        ("surfaces", "threshold", "HD95, mm [95 % CI]", "ASSD, mm [95 % CI]", "scans", "nothing found in")
    ]
    for name in names:
        for kind, row in results["surface"].get(name, {}).items():
            card = results["card"][name]
            far, apart = (_with_ci(card[f"{key}_{kind}"], 1) for key in ("hd95", "assd"))
            words = KIND_WORDS[kind]
            rows.append((_label(results, name), words, far, apart, str(row["measured"]), str(row["nothing_found"])))
    return _align(rows, left=2) if len(rows) > 1 else ""


def _details(results: Json) -> str:
    """Lesions by size, healthy scans and the margin over the baselines, of the main score."""
    lines = []
    kind, sizes = results["by_size"].get("threshold"), results["by_size"].get("rows", [])
    cells = [f"{row['size']}: {row['found']}/{row['lesions']}" for row in sizes if row["lesions"]]
    if cells:
        lines.append(f"lesions found by size ({results['score']}, {KIND_WORDS[kind]}): {' · '.join(cells)}")
    healthy = results["healthy"]
    if "above_ml_mean" in healthy:
        scans = counted(healthy["scans"], "scan")
        text = f"{scans} without lesion: {healthy['above_ml_mean']:.1f} ml above the threshold on average"
        promised = healthy["promised_ml_mean"]
        lines.append(text if np.isnan(promised) else f"{text}, {promised:.1f} ml promised")
    for name, margin in results["margins"].items():
        row = margin["ap"]
        if not np.isnan(row["value"]):
            lines.append(f"AP of {results['score']} − {name}: {_with_ci(row, signed=True)}")
    return "\n".join(lines)


def _kinds(results: Json) -> list[Kind]:
    return [kind for kind in KIND_WORDS if any(kind in known for known in results["thresholds"].values())]


def _operating(results: Json) -> list[Kind]:
    """Thresholds chosen without the test labels; the oracle only where there is no other."""
    known = _kinds(results)
    return [kind for kind in known if kind != "oracle"] or known


def _label(results: Json, name: str) -> str:
    return f"{name} (baseline)" if name in results["baselines"] else name


def _align(rows: Sequence[Sequence[str]], left: int = 1) -> str:
    """Columns under a rule, the first `left` flush left."""
    widths = [max(len(row[i]) for row in rows) for i in range(len(rows[0]))]
    padded = [[f"{cell:{'<' if i < left else '>'}{widths[i]}}" for i, cell in enumerate(row)] for row in rows]
    lines = ["  ".join(row) for row in padded]
    return "\n".join([lines[0].rstrip(), "─" * max(map(len, lines)), *(line.rstrip() for line in lines[1:])])


def _value(card: Json, key: str, digits: int = 3) -> str:
    return _digits(card[key]["value"], digits) if key in card else NONE


def _with_ci(row: Json, digits: int = 3, signed: bool = False) -> str:
    text = _digits(row["value"], digits)
    text = f"+{text}" if signed and row["value"] > 0 else text
    return text if text == NONE else f"{text} {_ci(row, digits)}".rstrip()


def _ci(row: Json, digits: int = 3) -> str:
    if row["ci"] is None:
        return "" if np.isnan(row["value"]) else NO_INTERVAL
    return f"[{row['ci'][0]:.{digits}f}, {row['ci'][1]:.{digits}f}]"


def _digits(value: float, digits: int = 3) -> str:
    return NONE if np.isnan(value) else f"{value:.{digits}f}"
