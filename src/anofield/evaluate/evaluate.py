"""Metrics of a run against lesion labels, and of two runs against each other, streamed case by case."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path

import numpy as np

from anofield._files import file_hash, write_json, write_text
from anofield._words import counted
from anofield.bootstrap import LEVEL
from anofield.curves import Curve
from anofield.data.cohort.case import Case
from anofield.errors import UsageError
from anofield.evaluate import card
from anofield.evaluate.bands import curve_bands
from anofield.evaluate.card import Evidence
from anofield.evaluate.case import TOP_SHARE, Kind, Measured, Scored, dice
from anofield.evaluate.gather import Options, gather
from anofield.evaluate.labels import labelled_cases, read_run
from anofield.evaluate.table import format_comparison, format_table
from anofield.typing import Json, PathLike

__all__ = ["Options", "compare", "dice", "evaluate", "format_comparison", "format_table", "plain"]

CURVE_POINTS = 300
SPACES = {"brain": "native voxels, inside the brain", "all": "native voxels, background included"}


def evaluate(run: PathLike, labels: PathLike | None, out: PathLike, options: Options | None = None) -> Json:
    """Compare a run with lesion labels and write `out/results.json` and `out/cases.tsv`.

    Args:
        run: Folder written by `anofield detect`.
        labels: Folder (HCP, BraTS or BIDS tree, or loose label files named after the cases) or glob; None takes the
            labels found beside the scans when they were detected.
        out: Folder of the results.
        options: See `Options`.

    Returns:
        The content of `results.json`.

    Raises:
        CohortError: No run, no finished case, no label for any case, or no case whose files can be read.
        UsageError: The validation results or the run of healthy people cannot be used here.
    """
    options = options or Options()
    run, out = Path(run), Path(out)
    about = read_run(run)
    cases = labelled_cases(run, about["cases"], labels, options.dataset)
    evidence, failures = gather(run, about, cases, options)
    content = {
        "space": SPACES[evidence.rules.space],
        "preset": options.preset,
        "run": str(run),
        "score": about["score"],
        "baselines": about["baselines"],
        "threshold_meaning": (about["threshold"] or {}).get("meaning"),
        "labels": {case.id: str(case.label) for case in cases},
        "n_cases": int(evidence.pooled_cases.sum()),
        "failures": [vars(failure) for failure in failures],
        "rules": _rules(evidence, options),
        "thresholds": evidence.thresholds,
        "scores": {name: _summary(evidence, name, options) for name in evidence.names},
        **({} if options.preset else _card(evidence, about, options)),
        "cases": _rows(evidence),
        "curves": {name: _thin(curve) for name, curve in evidence.curves.items()},
    }
    write_json(out / "results.json", plain(content))
    _write_table(out / "cases.tsv", content["cases"], evidence.names)
    return content


def compare(a: PathLike, b: PathLike, labels: PathLike | None, out: PathLike, options: Options | None = None) -> Json:
    """Compare the main scores of two runs on the same cases; write `out/comparison.json`.

    Subjects are drawn once for both runs, so what is common to them cancels.

    Args:
        a, b: Folders written by `anofield detect`.
        labels, options: As for `evaluate`.
        out: Folder of the comparison.

    Returns:
        The content of `comparison.json`.

    Raises:
        CohortError: As `evaluate`.
        UsageError: The runs hold other cases or other labels, a case of one cannot be read, or a preset is asked for.
    """
    options = options or Options()
    if options.preset:
        raise UsageError("a preset cannot be compared", remedy="leave out --preset")
    runs = [Path(a), Path(b)]
    abouts = [read_run(run) for run in runs]
    cases = [labelled_cases(r, about["cases"], labels, options.dataset) for r, about in zip(runs, abouts, strict=True)]
    _refuse_unequal(runs, cases)
    sides = [gather(*parts, options, only_main=True) for parts in zip(runs, abouts, cases, strict=True)]
    for run, (_, failures) in zip(runs, sides, strict=True):
        if failures:
            raise UsageError(
                f"{counted(len(failures), 'case')} cannot be evaluated, the first: {failures[0].error}",
                where=run,
                why="both runs must be measured on the same cases",
                remedy="mend or remove them in both runs",
            )
    one, other = (evidence for evidence, _ in sides)
    if one.rules != other.rules:
        raise UsageError(
            f"the runs count lesions from {one.rules.min_lesion_ml} and {other.rules.min_lesion_ml} ml",
            remedy="give the minimum for both with --min-lesion-ml",
        )
    weights = card.draw(one, options.resamples, options.seed)
    found = [card.figures(evidence, evidence.score, weights) for evidence in (one, other)]
    people = {key: card.rests_on(one, one.score, key) for key in found[0][0]}
    content = {
        "space": SPACES[one.rules.space],
        "rules": _rules(one, options),
        "n_cases": int(one.pooled_cases.sum()),
        "labels": {case.id: str(case.label) for case in cases[0]},
        **{
            side: {"run": e.run, "score": e.score, "thresholds": e.thresholds[e.score], "values": values}
            for side, e, (values, _) in zip("ab", (one, other), found, strict=True)
        },
        "differences": card.differences(found[0], found[1], people),
    }
    write_json(Path(out) / "comparison.json", plain(content))
    return content


def _rules(evidence: Evidence, options: Options) -> Json:
    return {
        **asdict(evidence.rules),
        "connectivity": 26,
        "false_finding": "touches no labelled voxel",
        "scan_score": f"mean of the highest {100 * TOP_SHARE:g} % of the voxels",
        "interval": f"{100 * LEVEL:g} % percentile bootstrap over subjects",
        "subjects": len({case.subject for case in evidence.scored}),
        "resamples": options.resamples,
        "seed": options.seed,
        "threshold_from": None if options.threshold_from is None else str(options.threshold_from),
        "healthy_run": None if options.healthy is None else str(options.healthy),
    }


def _card(evidence: Evidence, about: Json, options: Options) -> Json:
    """Everything that has intervals or concerns lesions, surfaces and healthy scans."""
    weights = card.draw(evidence, options.resamples, options.seed)
    cards, margins = card.make_card(evidence, weights)
    kinds = evidence.kinds(evidence.score)
    rows = card.by_size(evidence, evidence.score, kinds[0]) if kinds else []
    quantile = (about["threshold"] or {}).get("quantile")
    return {
        "card": cards,
        "margins": margins,
        "by_size": {"threshold": kinds[0] if kinds else None, "rows": rows},
        "froc": {name: card.froc_points(evidence, name) for name in evidence.froc},
        "bands": {name: curve_bands(evidence, name, weights) for name in evidence.names},
        "surface": {name: _surface(evidence, name) for name in evidence.names},
        "healthy": card.healthy_summary(evidence, quantile),
    }


def _surface(evidence: Evidence, name: str) -> Json:
    """Scans with a lesion whose surfaces could be compared, and those in which nothing was found."""
    if not evidence.rules.surface:
        return {}
    columns = {kind: evidence.column(name, kind, "hd95") for kind in evidence.kinds(name) if kind != "oracle"}
    return {
        kind: {"measured": int(np.isfinite(far).sum()), "nothing_found": int(np.isinf(far).sum())}
        for kind, far in columns.items()
    }


def _summary(evidence: Evidence, name: str, options: Options) -> Json:
    """Figures of one score; with a preset, the notebook's."""
    curve, known = evidence.curves[name], evidence.thresholds[name]
    best, at = curve.best_dice()
    if options.preset:  # a score is positive from the threshold on, SD over the cases at hand
        at, ddof = float(np.nextafter(np.float32(at), np.float32(np.inf))), 0
    else:
        ddof = 1
    figures = {
        "ap": curve.average_precision(),
        "auroc": curve.roc_auc(),
        "fpr95": curve.fpr_at_recall(0.95),
        "dice_oracle": best,
        "threshold_oracle": at,
        **_dices(evidence, name, "oracle", ddof),
        "exact": evidence.exact[name],
        **{f"{key}_bounds": list(bounds) for key, bounds in evidence.bounds[name].items()},
    }
    if options.preset:
        return figures
    own = {**_dices(evidence, name, "calibrated", ddof), **_dices(evidence, name, "validation", ddof)}
    return {
        **figures,
        **own,
        "dice_calibrated_pooled": _pooled_dice(evidence, name, "calibrated"),
        "threshold": known.get("calibrated", float("nan")),
        "threshold_validation": known.get("validation", float("nan")),
    }


def _dices(evidence: Evidence, name: str, kind: Kind, ddof: int) -> Json:
    """Mean and SD of the per-case Dice at one threshold."""
    values = evidence.column(name, kind, "dice") if kind in evidence.thresholds[name] else np.zeros(0)
    known = values[~np.isnan(values)]
    return {
        f"dice_{kind}_mean": float(known.mean()) if known.size else float("nan"),
        f"dice_{kind}_sd": float(known.std(ddof=ddof)) if known.size > ddof else float("nan"),
    }


def _pooled_dice(evidence: Evidence, name: str, kind: Kind) -> float:
    """Dice of all voxels of all cases at once, NaN without a threshold or without any labelled voxel."""
    if kind not in evidence.thresholds[name] or not evidence.curves[name].positives:
        return float("nan")
    hit, above, labelled = (
        evidence.column(name, kind, key)[evidence.pooled_cases].sum() for key in ("hit", "above", "labelled")
    )
    return float(2 * hit / (above + labelled))


def _rows(evidence: Evidence) -> list[Json]:
    """One row per case of the run."""
    rows = zip(evidence.scored, evidence.measured, strict=True)
    return [_row(evidence, scored, measured) for scored, measured in rows if not scored.healthy_run]


def _row(evidence: Evidence, scored: Scored, measured: Measured) -> Json:
    def dices(kind: Kind) -> Json:
        return {name: at[kind].dice if kind in at else float("nan") for name, at in measured.at.items()}

    row = {
        "id": scored.id,
        "subject": scored.subject,
        "lesion_ml": scored.lesion_ml,
        "label_outside_ml": scored.outside_ml,
        "detected_ml": scored.detected_ml,
        "dice": dices("calibrated"),
        "dice_oracle": dices("oracle"),
        "ap": scored.ap,
        "auroc": scored.auroc,
        "scan_score": scored.top,
    }
    first = next(iter(evidence.kinds(evidence.score)), None)
    found = None if first is None else measured.at[evidence.score][first]
    if found is not None and found.lesions is not None:
        row["lesions"] = {
            "threshold": first,
            "true": len(found.lesions.found),
            "found": int(found.lesions.found.sum()),
            "findings": found.lesions.findings,
            "false": found.lesions.false,
            "hd95_mm": found.hd95,
            "assd_mm": found.assd,
        }
    return row


def _refuse_unequal(runs: Sequence[Path], cases: Sequence[Sequence[Case]]) -> None:
    """Both runs must hold the same cases with the same labels."""
    one, other = ({case.id: case.label for case in side} for side in cases)
    for run, extra in zip(runs, (sorted(set(one) - set(other)), sorted(set(other) - set(one))), strict=True):
        if extra:
            raise UsageError(
                f"{counted(len(extra), 'labelled case')} in this run only ({', '.join(extra[:3])})",
                where=run,
                why="a paired comparison needs every case in both runs",
                remedy="detect the same scans in both, or give -t a folder with the labels of the common cases",
            )
    for case_id, label in one.items():
        if label != other[case_id] and label and other[case_id] and file_hash(label) != file_hash(other[case_id] or ""):
            raise UsageError(
                f"case {case_id} has other labels in the two runs",
                where=label,
                why=f"the other is {other[case_id]}",
                remedy="give the labels for both with -t",
            )


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
    write_text(path, "\n".join(lines) + "\n")


def plain(value: object) -> Json:
    """The same content for JSON, which has neither NaN nor infinity: they become null."""
    if isinstance(value, dict):
        return {key: plain(item) for key, item in value.items()}
    if isinstance(value, list):
        return [plain(item) for item in value]  # type: ignore[return-value]
    return None if isinstance(value, float) and not np.isfinite(value) else value  # type: ignore[return-value]
