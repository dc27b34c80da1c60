"""The contrast of a scan without a name, from the order of its tissues.

White matter lies deep in the brain, grey matter and fluid near its surface. Fluid is bright in T2w and dark in T1w and
FLAIR; in FLAIR it is far darker than everything else, and in T1w it follows on grey matter.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from anofield.typing import Mask

RIM_MM, DEEP_MM = (2.0, 8.0), (14.0, 30.0)  # distances from the surface: cortex with sulci, white matter
# Chosen by hand between the values of nine real and six synthetic scans, in interquartile ranges of the brain.
# Deep minus rim: T1w 0.72 to 0.97, T2w −0.89 to −0.34, FLAIR 0.06 to 0.77.
T2W_BELOW, T1W_ABOVE = -0.2, 0.5
# Middle of the rim minus its darkest twentieth: T1w 0.50 to 1.17, FLAIR 2.50 to 3.53.
T1W_FLUID, FLAIR_FLUID = 1.5, 2.0


def contrast_by_tissues(intensity: NDArray[np.floating], brain: Mask, spacing: float) -> str:
    """`T1w`, `T2w` or `FLAIR`; empty if the order of the tissues fits none of them clearly.

    Args:
        intensity: Intensity on a cubic lattice, (R, R, R), in any unit.
        brain: Brain voxels, (R, R, R).
        spacing: Width of a voxel, mm.
    """
    depth = ndimage.distance_transform_edt(brain) * spacing
    rim, deep = (intensity[brain & (depth >= low) & (depth < high)] for low, high in (RIM_MM, DEEP_MM))
    if not rim.size or not deep.size:
        return ""
    unit = float(np.subtract(*np.percentile(intensity[brain], (75, 25))))
    if unit <= 0:
        return ""
    difference = float(np.median(deep) - np.median(rim)) / unit
    fluid = float(np.median(rim) - np.percentile(rim, 5)) / unit
    if difference < T2W_BELOW:
        return "T2w"
    if fluid > FLAIR_FLUID:
        return "FLAIR"
    return "T1w" if difference > T1W_ABOVE and fluid < T1W_FLUID else ""


def agreed(contrasts: Sequence[str]) -> str:
    """The contrast on which at least half of some scans agree, if no scan has another one; otherwise empty.

    >>> agreed(["T1w", "T1w", ""]), agreed(["T1w", "T2w", "T1w"]), agreed(["", "", "T1w"]), agreed([])
    ('T1w', '', '', '')
    """
    known = {contrast for contrast in contrasts if contrast}
    clear = len(known) == 1 and 2 * sum(map(bool, contrasts)) >= len(contrasts)
    return known.pop() if clear else ""
