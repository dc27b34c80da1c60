"""What a result must beat: each baseline scores the lattice, and is filtered and thresholded as any other score."""

from __future__ import annotations

from anofield.baselines.intensity import intensity_score

BASELINES = {"intensity": intensity_score}

__all__ = ["BASELINES", "intensity_score"]
