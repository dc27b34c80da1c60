"""Cases of a report: what is known of each in words, its pictures and the volumes of its interactive view."""

from __future__ import annotations

from statistics import median
from typing import Any

from anofield.report.figures import Scale, draw
from anofield.report.folder import CaseFolder, Run, section
from anofield.report.numerals import DASH, decimal, finite, ml, number
from anofield.report.planes import CaseView, view_case
from anofield.typing import Json

PICTURES = 540_000  # characters of a case's pictures
LESION_ROWS = 8
OUTLIER = 3.5  # modified z-score, Iglewicz & Hoaglin 1993
LESION_COLUMNS = {
    "lesion": "Lesion",
    "volume_ml": "Volume, ml",
    "peak": "Peak",
    "mean": "Mean",
    "x_mm": "x, mm",
    "y_mm": "y, mm",
    "z_mm": "z, mm",
}
FIT_WORDS = {"loss": "Fit loss", "code_distance": "Code distance", "contrast": "Contrast", "outside": "Share outside"}


def draw_card(run: Run, place: int, scale: Scale) -> Json:
    """The card of a case with its pictures.

    Args:
        run: What `read_run` read.
        place: Of the case in it.
        scale: Of the colours, that of every case.
    """
    case = run.cases[place]
    view = view_case(case, run.threshold)
    rows = draw(view, scale, PICTURES)
    if view.planes and not rows:
        view.notes.append("Its pictures were left out to keep the file small.")
    if not view.planes:
        view.notes.append("It has no image that can be shown.")
    return {**_card(run, case, view, place), "planes": rows}


def row_of(run: Run, case: CaseFolder, place: int) -> Json:
    """What is known of a case without its images."""
    measured: Json = next((row for row in run.results.get("cases") or [] if str(row.get("id")) == case.id), {})
    fit, lesions = section(case.facts, "fit"), section(measured, "lesions")
    baselines = [str(name) for name in run.results.get("baselines") or []]
    return {
        "id": case.id,
        "place": place,
        "truth_ml": measured.get("lesion_ml"),
        "detected_ml": case.facts.get("volume_ml") if case.facts.get("threshold") is not None else None,
        "dice": section(measured, "dice").get(run.score),
        "rivals": [(name, section(measured, "dice").get(name)) for name in baselines] if measured else [],
        "ap": section(measured, "ap").get(run.score),
        "components": case.facts.get("lesions"),
        "lesions_found": f"{lesions.get('found')} of {lesions.get('true')}" if lesions else "",
        "false": lesions.get("false"),
        "seconds": _total(case.facts.get("seconds")),
        "fit": [(FIT_WORDS[key], fit.get(key)) for key in FIT_WORDS if finite(fit.get(key)) is not None],
        "trusted": fit.get("trusted"),
        "reasons": [str(reason) for reason in fit.get("reasons") or []],
        "case_score": finite(case.facts.get("case_score")),
        "unusual": _unusual(run, case),
        "brain_ml": case.facts.get("brain_ml"),
        "shape": " × ".join(str(n) for n in case.facts.get("shape") or []),
        "file": case.image.name if case.image else DASH,
    }


def _total(seconds: Any) -> float | None:
    if not isinstance(seconds, dict):
        return finite(seconds)
    parts = [value for value in map(finite, seconds.values()) if value is not None]
    return sum(parts) if parts else None


def _unusual(run: Run, case: CaseFolder) -> bool:
    """Whether a case's fit loss lies far above the run's others; such a fit is not to be trusted."""
    losses = [finite(section(other.facts, "fit").get("loss")) for other in run.cases]
    known = [loss for loss in losses if loss is not None]
    own = finite(section(case.facts, "fit").get("loss"))
    if own is None or len(known) < 5:
        return False
    middle = median(known)
    spread = median(abs(loss - middle) for loss in known)
    return spread > 0 and 0.6745 * (own - middle) / spread > OUTLIER


def _card(run: Run, case: CaseFolder, view: CaseView, place: int) -> Json:
    row = row_of(run, case, place)
    truth = row["truth_ml"] if row["truth_ml"] is not None else view.truth_ml
    return {
        **row,
        "truth_ml": truth,
        "lesions": [[_cell(lesion, key) for key in LESION_COLUMNS] for lesion in case.lesions[:LESION_ROWS]],
        "more": max(0, len(case.lesions) - LESION_ROWS),
        "centre": view.centre,
        "at": " ".join(f"{mm:.1f}" for mm in view.at),
        "viewer": view.viewer,
        "notes": view.notes,
    }


def _cell(lesion: dict[str, str], key: str) -> str:
    value = lesion.get(key)
    if key == "lesion":
        return value or DASH
    if key == "volume_ml":
        return ml(value)
    return decimal(value, 0) if key.endswith("_mm") else number(value)
