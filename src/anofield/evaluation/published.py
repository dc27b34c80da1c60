"""The evaluation of 2021: the metrics of the notebook, and no others.

A voxel at the threshold is positive, standard deviations are divided by the number of cases, and all voxels of a scan
count, including its background.
"""

from __future__ import annotations

import numpy as np

from anofield.evaluation.evidence import Evidence
from anofield.evaluation.parts import ScoreFigures
from anofield.evaluation.summary import oracle_figures


def notebook_figures(evidence: Evidence, name: str) -> ScoreFigures:
    """Figures of one score as in the notebook."""
    figures = oracle_figures(evidence, name, ddof=0)
    at = float(np.nextafter(np.float32(figures.threshold_oracle), np.float32(np.inf)))
    return figures.model_copy(update={"threshold_oracle": at})
