"""Whether a scan's fit is to be trusted: its diagnostics against those of the healthy scans of the calibration."""

from __future__ import annotations

from collections.abc import Mapping

from anofield.detect.fit import Fit
from anofield.typing import Json

PERCENTILES = (5, 50, 95)
SLACK = {  # how many times the healthy spread beyond the 5th or 95th percentile is still usual; lesions raise the loss
    "loss": 6.0,
    "code_distance": 6.0,
    "contrast": 8.0,
    "outside": 4.0,
    "brain_ml": 3.0,
}
LEAST = {"loss": 0.05, "code_distance": 0.1, "contrast": 0.02, "outside": 0.005, "brain_ml": 60.0}  # spread, at least
LOW = {
    "contrast": "the contrast is not the training's: another modality, or inverted intensities",
    "brain_ml": "the brain is far smaller than healthy ones: a cut field of view, or a wrong mask or spacing",
}
HIGH = {
    "loss": "no healthy person of the field explains the scan: another modality, orientation, age or protocol",
    "code_distance": "the code is unlike the training's people",
    "outside": "much of the mask lies where the field expects no brain: skull not stripped, or a wrong orientation",
    "brain_ml": "the mask is far larger than healthy brains: skull not stripped, or a wrong mask or spacing",
}
TURNED = "turned by quarters the scan fits better: wrong orientation in its header"


def diagnostics(fit: Fit, brain_ml: float) -> dict[str, float]:
    """What is compared, as plain numbers."""
    return {
        "loss": fit.loss,
        "code_distance": fit.code_distance,
        "contrast": fit.contrast,
        "outside": fit.outside,
        "brain_ml": brain_ml,
    }


def verdict(fit: Fit, brain_ml: float, healthy: Mapping[str, Json]) -> tuple[bool | None, list[str]]:
    """Whether a fit is to be trusted, and what speaks against it.

    Args:
        fit: Of the scan.
        brain_ml: Its volume.
        healthy: `fit` of the calibration: 5th, 50th and 95th percentile per diagnostic; empty without calibration.

    Returns:
        True, False, or None where nothing speaks against it but there is nothing to compare with; and the reasons.
    """
    reasons = [TURNED] if fit.turned else []
    for name, value in diagnostics(fit, brain_ml).items():
        if name not in healthy:
            continue
        low, middle, high = (float(edge) for edge in healthy[name])
        floor = low - SLACK[name] * _spread(name, middle - low)
        ceiling = high + SLACK[name] * _spread(name, high - middle)
        if value < floor and name in LOW:
            reasons.append(f"{LOW[name]} ({name} {value:.3g}, healthy {low:.3g} to {high:.3g})")
        if value > ceiling and name in HIGH:
            reasons.append(f"{HIGH[name]} ({name} {value:.3g}, healthy {low:.3g} to {high:.3g})")
    return (False if reasons else True if healthy else None), reasons


def _spread(name: str, value: float) -> float:
    return max(value, LEAST[name])
