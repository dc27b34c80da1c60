"""Surface distances in millimetres, computed by MONAI (extra `metrics`)."""

from __future__ import annotations

import warnings

import numpy as np

from anofield.data.lattice import surroundings
from anofield.errors import MachineError
from anofield.typing import Mask


def available() -> bool:
    """Whether MONAI is installed."""
    from importlib.util import find_spec

    return find_spec("monai") is not None


def surface_distances(found: Mask, truth: Mask, spacing: tuple[float, float, float]) -> tuple[float, float]:
    """HD95 and ASSD in mm between the surfaces of two masks (i, j, k).

    HD95 is the larger of the two directed 95th percentiles; ASSD the mean over the surface voxels of both.

    Args:
        found, truth: Masks on the same voxels.
        spacing: Voxel edge lengths in mm; the axes are assumed to be perpendicular.

    Returns:
        HD95 and ASSD; both are NaN if both masks are empty, and infinite if one of them is.

    Raises:
        MachineError: MONAI is not installed.
    """
    if not (found.any() and truth.any()):
        none = float("nan") if found.any() == truth.any() else float("inf")
        return none, none
    try:
        import torch
        from monai.metrics.hausdorff_distance import compute_hausdorff_distance
        from monai.metrics.surface_distance import compute_average_surface_distance
    except ImportError as error:
        raise MachineError("MONAI is not installed", remedy="pip install 'anofield[metrics]'") from error
    box = surroundings(found | truth, (1, 1, 1))  # every surface voxel has a neighbour
    one, other = (torch.from_numpy(mask[box].astype(np.float32))[None, None] for mask in (found, truth))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", FutureWarning)  # MONAI 1.6 warns about its own use of a renamed argument
        far = compute_hausdorff_distance(one, other, True, percentile=95, spacing=spacing)
        apart = compute_average_surface_distance(one, other, True, symmetric=True, spacing=spacing)
    return float(far), float(apart)
