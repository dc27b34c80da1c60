"""Whether the fit of a scan can be trusted: compares its diagnostics with those of the calibration's healthy scans."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from anofield.detect.fit import Fit

PERCENTILES = (5, 50, 95)
SLACK = {  # multiples of the healthy spread beyond the 5th or 95th percentile that are usual; lesions raise the loss
    "loss": 6.0,
    "code_distance": 6.0,
    "contrast": 8.0,
    "outside": 4.0,
    "brain_ml": 3.0,
}
LEAST = {"loss": 0.05, "code_distance": 0.1, "contrast": 0.02, "outside": 0.005, "brain_ml": 60.0}  # smallest spread
LOW = {
    "contrast": "the contrast differs from the training scans: another modality, or inverted intensities",
    "brain_ml": "the brain is far smaller than healthy ones: a cut field of view, or a wrong mask or spacing",
}
HIGH = {
    "loss": "no healthy anatomy of the field explains the scan: another modality, orientation, age or protocol",
    "code_distance": "the code is unlike those of the training subjects",
    "outside": "much of the mask lies where the field expects no brain: skull not stripped, or a wrong orientation",
    "brain_ml": "the mask is far larger than healthy brains: skull not stripped, or a wrong mask or spacing",
}
# A fit is trusted only if these and the orientation were measured.
NEEDED = ("loss", "code_distance", "contrast", "brain_ml")
TURNED = "the scan fits better rotated by 90° or 180°: check its orientation"


@dataclass(frozen=True)
class Verdict:
    """Whether a fit can be trusted.

    Attributes:
        trusted: True or False; None if that could not be judged, because there is no calibration to compare with or the
            procedure does not measure everything.
        reasons: Reasons against trusting the fit.
    """

    trusted: bool | None
    reasons: tuple[str, ...] = ()


def diagnostics(fit: Fit, brain_ml: float) -> dict[str, float]:
    """Diagnostics of a fit as plain numbers, without those that were not measured."""
    values = {
        "loss": fit.loss,
        "code_distance": fit.code_distance,
        "contrast": fit.contrast,
        "outside": fit.outside,
        "brain_ml": brain_ml,
    }
    return {name: value for name, value in values.items() if value is not None}


def judge(fit: Fit, brain_ml: float, healthy: Mapping[str, tuple[float, float, float]]) -> Verdict:
    """Compare a fit with those of healthy subjects; a diagnostic that was not measured is not judged.

    Args:
        fit: Fit of the scan.
        brain_ml: Volume of the brain, ml.
        healthy: 5th, 50th and 95th percentile per diagnostic over healthy subjects; empty without a calibration.
    """
    reasons = [TURNED] if fit.turned else []
    measured = diagnostics(fit, brain_ml)
    for name, value in measured.items():
        if name in healthy:
            reasons += _against(name, value, *healthy[name])
    if reasons:
        return Verdict(False, tuple(reasons))
    complete = fit.turned is not None and all(name in measured and name in healthy for name in NEEDED)
    return Verdict(True if complete else None)


def _against(name: str, value: float, low: float, middle: float, high: float) -> list[str]:
    """The reason why a value is unusual, if it is."""
    floor = low - SLACK[name] * _spread(name, middle - low)
    ceiling = high + SLACK[name] * _spread(name, high - middle)
    told = {name: LOW.get(name)} if value < floor else {name: HIGH.get(name)} if value > ceiling else {}
    return [f"{text} ({name} {value:.3g}, healthy {low:.3g} to {high:.3g})" for name, text in told.items() if text]


def _spread(name: str, value: float) -> float:
    return max(value, LEAST[name])
