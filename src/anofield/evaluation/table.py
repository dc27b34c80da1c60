"""The metric card and the comparison of two runs as text, at most about 110 columns wide."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

from anofield._words import counted
from anofield.evaluation.parts import Figure, ScoreFigures
from anofield.evaluation.results import Comparison, Results
from anofield.evaluation.rules import KIND_WORDS, Kind

NONE = "–"
NO_INTERVAL = "[< 2 subjects]"
COMPARED = {  # metric: words
    "ap": "AP, voxels pooled",
    "ap_scan": "AP, mean over scans",
    "auroc": "AUROC, voxels pooled",
    "fpr95": "FPR@95",
    "dice_calibrated_mean": "Dice, healthy-calibrated",
    "dice_validation_mean": "Dice, validation",
    "dice_oracle_mean": "Dice, oracle (test labels)",
    "dice_calibrated_pooled": "Dice of all voxels, healthy-calibrated",
    "dice_oracle_pooled": "Dice of all voxels, oracle (test labels)",
    "lesion_recall_calibrated": "Lesion recall",
    "lesion_precision_calibrated": "Lesion precision",
    "lesion_f1_calibrated": "Lesion F1",
    "voxel_recall_calibrated": "Recall of voxels",
    "voxel_precision_calibrated": "Precision of voxels",
    "froc_recall_at_1": "Lesion recall at ≤ 1 false finding per scan",
    "false_per_scan_calibrated": "False findings per scan",
    "hd95_calibrated": "HD95, mm",
    "assd_calibrated": "ASSD, mm",
    "healthy_ml_calibrated": "Healthy scans, ml above threshold",
    "scan_auroc": "AUROC of scans",
}


Metrics = Mapping[str, Figure]


def format_table(results: Results) -> str:
    """Metrics of a run, the method's scores first, baselines below."""
    if results.card is None:
        return _notebook(results)
    parts = [_voxels(results, results.card), _dices(results, results.card)]
    parts += [
        _pooled(results, results.card),
        _lesions(results, results.card),
        _surfaces(results, results.card),
        _details(results),
    ]
    return "\n\n".join(part for part in parts if part)


def format_comparison(comparison: Comparison) -> str:
    """Two runs side by side, with the paired difference."""
    rows: list[tuple[str, ...]] = [("metric", "A", "B", "A − B [95 % CI]", "p")]
    a, b = comparison.a, comparison.b
    for key, words in COMPARED.items():
        row = comparison.differences.get(key)
        if row is not None and row.known:
            values = _digits(a.values[key]), _digits(b.values[key])
            rows.append((words, *values, _with_ci(row, signed=True), _digits(row.p)))
    sides = [f"{name}: {side.run} ({side.score})" for name, side in (("A", a), ("B", b))]
    return "\n".join([*sides, "", _align(rows)])


def _notebook(results: Results) -> str:
    """The metrics of the notebook of 2021."""
    rows: list[tuple[str, ...]] = [
        ("score", "AP", "ROC AUC", "FPR@95", "best Dice, oracle (test labels)", "threshold", "per-case Dice")
    ]
    for name, row in results.scores.items():
        spread = f"{_digits(row.dice_oracle_mean)} ± {_digits(row.dice_oracle_sd)}"
        figures = map(_digits, (row.ap, row.auroc, row.fpr95, row.dice_oracle, row.threshold_oracle))
        rows.append((_label(results, name), *figures, spread))
    return _align(rows)


def _voxels(results: Results, cards: Mapping[str, Metrics]) -> str:
    rows: list[tuple[str, ...]] = [
        ("voxels", "AP [95 % CI]", "AP per scan", "AUROC [95 % CI]", "per scan", "FPR@95", "AUROC of scans")
    ]
    for name in results.names:
        card = cards[name]
        cells = _with_ci(card["ap"]), _value(card, "ap_scan"), _with_ci(card["auroc"]), _value(card, "auroc_scan")
        rows.append((_label(results, name), *cells, _value(card, "fpr95"), _value(card, "scan_auroc")))
    return _align(rows)


def _dices(results: Results, cards: Mapping[str, Metrics]) -> str:
    """Per-case Dice at thresholds chosen without and with the test labels."""
    known = _kinds(results)
    rows: list[tuple[str, ...]] = [("Dice, mean ± SD over scans", *(KIND_WORDS[kind] for kind in known))]
    for name in results.names:
        rows.append((_label(results, name), *(_spread(results.scores[name], cards[name], kind) for kind in known)))
    return _align(rows)


def _pooled(results: Results, cards: Mapping[str, Metrics]) -> str:
    """Voxels of all scans together: recall, precision and Dice at a threshold, and the best Dice over thresholds."""
    head = ("voxels pooled", "threshold", "recall", "precision [95 % CI]", "Dice [95 % CI]", KIND_WORDS["oracle"])
    rows: list[tuple[str, ...]] = [head]
    kinds = _operating(results)
    for name in results.names:
        card, best = cards[name], _value(cards[name], "dice_oracle_pooled")
        for kind in (kind for kind in kinds if f"voxel_precision_{kind}" in card):
            precision, dice = card[f"voxel_precision_{kind}"], card[f"dice_{kind}_pooled"]
            cells = (
                _value(card, f"voxel_recall_{kind}"),
                _with_ci(precision),
                NONE if kind == "oracle" else _with_ci(dice),
            )
            rows.append((_label(results, name), KIND_WORDS[kind], *cells, best if kind == kinds[0] else ""))
    return _align(rows, left=2) if len(rows) > 1 else ""


def _spread(row: ScoreFigures, card: Metrics, kind: Kind) -> str:
    mean, sd = (row.get(f"dice_{kind}_{part}") for part in ("mean", "sd"))
    if math.isnan(mean):
        return NONE
    ci = "" if kind == "oracle" else f" {_ci(card[f'dice_{kind}_mean'])}"
    return f"{_digits(mean)} ± {_digits(sd)}{ci}"


def _lesions(results: Results, cards: Mapping[str, Metrics]) -> str:
    rows: list[tuple[str, ...]] = [
        ("lesions", "threshold", "recall", "precision", "F1 [95 % CI]", "false/scan", "FROC recall@1")
    ]
    kinds = _operating(results)
    for name in results.names:
        card = cards[name]
        for kind in (kind for kind in kinds if f"lesion_f1_{kind}" in card):
            cells = [_value(card, f"{key}_{kind}") for key in ("lesion_recall", "lesion_precision")]
            f1, false = _with_ci(card[f"lesion_f1_{kind}"]), _value(card, f"false_per_scan_{kind}", 2)
            any_threshold = _value(card, "froc_recall_at_1") if kind == kinds[0] else ""
            rows.append((_label(results, name), KIND_WORDS[kind], *cells, f1, false, any_threshold))
    return _align(rows, left=2) if len(rows) > 1 else ""


def _surfaces(results: Results, cards: Mapping[str, Metrics]) -> str:
    rows: list[tuple[str, ...]] = [
        ("surfaces", "threshold", "HD95, mm [95 % CI]", "ASSD, mm [95 % CI]", "scans", "nothing found in")
    ]
    for name in results.names:
        for kind, row in (results.surface or {}).get(name, {}).items():
            far, apart = (_with_ci(cards[name][f"{key}_{kind}"], 1) for key in ("hd95", "assd"))
            counts = str(row.measured), str(row.nothing_found)
            rows.append((_label(results, name), KIND_WORDS[kind], far, apart, *counts))
    return _align(rows, left=2) if len(rows) > 1 else ""


def _details(results: Results) -> str:
    """Lesions by size, healthy scans and the margin over the baselines, of the main score."""
    margins = ((name, rows["ap"]) for name, rows in (results.margins or {}).items())
    lines = [_sizes(results), _healthy(results)]
    lines += [f"AP of {results.score} − {name}: {_with_ci(row, signed=True)}" for name, row in margins if row.known]
    return "\n".join(line for line in lines if line)


def _sizes(results: Results) -> str:
    by_size = results.by_size
    if by_size is None or by_size.threshold is None:
        return ""
    cells = [f"{row.size}: {row.found}/{row.lesions}" for row in by_size.rows if row.lesions]
    words = f"lesions found by size ({results.score}, {KIND_WORDS[by_size.threshold]}): {' · '.join(cells)}"
    return words if cells else ""


def _healthy(results: Results) -> str:
    healthy = results.healthy
    if healthy is None or healthy.above_ml_mean is None:
        return ""
    scans = counted(healthy.scans, "scan")
    text = f"{scans} without lesion: {healthy.above_ml_mean:.1f} ml above the threshold on average"
    promised = healthy.promised_ml_mean
    return text if promised is None or math.isnan(promised) else f"{text}, {promised:.1f} ml promised"


def _kinds(results: Results) -> list[Kind]:
    return [kind for kind in KIND_WORDS if any(kind in known for known in results.thresholds.values())]


def _operating(results: Results) -> list[Kind]:
    """Thresholds chosen without the test labels; the oracle only if there is no other."""
    known = _kinds(results)
    return [kind for kind in known if kind != "oracle"] or known


def _label(results: Results, name: str) -> str:
    return f"{name} (baseline)" if name in results.baselines else name


def _align(rows: Sequence[Sequence[str]], left: int = 1) -> str:
    """Columns with a line below the heading; the first `left` are aligned to the left."""
    widths = [max(len(row[i]) for row in rows) for i in range(len(rows[0]))]
    padded = [[f"{cell:{'<' if i < left else '>'}{widths[i]}}" for i, cell in enumerate(row)] for row in rows]
    lines = ["  ".join(row) for row in padded]
    return "\n".join([lines[0].rstrip(), "─" * max(map(len, lines)), *(line.rstrip() for line in lines[1:])])


def _value(card: Metrics, key: str, digits: int = 3) -> str:
    return _digits(card[key].value, digits) if key in card else NONE


def _with_ci(row: Figure, digits: int = 3, *, signed: bool = False) -> str:
    text = _digits(row.value, digits)
    text = f"+{text}" if signed and row.value > 0 else text
    return text if text == NONE else f"{text} {_ci(row, digits)}".rstrip()


def _ci(row: Figure, digits: int = 3) -> str:
    if row.ci is None:
        return NO_INTERVAL if row.known else ""
    return f"[{row.ci[0]:.{digits}f}, {row.ci[1]:.{digits}f}]"


def _digits(value: float, digits: int = 3) -> str:
    return NONE if math.isnan(value) else f"{value:.{digits}f}"
