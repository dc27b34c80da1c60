"""Raw intensity as a score: on T2w and FLAIR a threshold on it is a strong detector (Meissen et al. 2021)."""

from __future__ import annotations

from anofield.data.prepare import Prepared
from anofield.detect.scores import Tail
from anofield.typing import FloatVolume


def intensity_score(prepared: Prepared, tail: Tail = "bright") -> FloatVolume:
    """Normalised intensity of the scan, (R, R, R); turned round for dark lesions, distance from the median for both."""
    if tail == "bright":
        return prepared.intensity
    middle = float(sorted(prepared.intensity[prepared.brain])[int(prepared.brain.sum()) // 2])
    away = prepared.intensity - middle
    return abs(away) if tail == "both" else -away


BASELINES = {"intensity": intensity_score}  # filtered and thresholded as any other score
