"""View of a scan and its anomaly map in a notebook, with NiiVue (ipyniivue, extra `notebook`)."""

from __future__ import annotations

from collections.abc import Mapping
from importlib import import_module
from typing import Any

import numpy as np
from nibabel import Nifti1Image

from anofield.data.scan import Scan
from anofield.errors import UsageError
from anofield.typing import FloatVolume, Json, Mask


def view(
    scan: Scan, brain: Mask, maps: Mapping[str, FloatVolume], score: str | None = None, threshold: float | None = None
) -> Any:
    """Open a NiiVue widget with the scan, a map over it and, if there is a threshold, the voxels above it.

    Args:
        scan: Scan to show.
        brain: Brain voxels, (i, j, k).
        maps: Map per score, (i, j, k).
        score: Score whose map is shown; None for the first.
        threshold: Lowest value of the map that is shown; None shows all values and no mask.

    Raises:
        UsageError: ipyniivue is not installed, or there is no such map.
    """
    name = score or next(iter(maps))
    if name not in maps:
        raise UsageError(f"there is no map of the score {name!r}", remedy=f"choose one of {', '.join(maps)}")
    try:
        niivue = import_module("ipyniivue")
    except ImportError as error:
        raise UsageError("ipyniivue is not installed", remedy="pip install 'anofield[notebook]'") from error
    anomaly = maps[name]
    lowest, highest = threshold or 0.0, float(anomaly.max())
    warm = {"colormap": "warm", "opacity": 0.6, "cal_min": lowest, "cal_max": max(highest, lowest + 1e-6)}
    shown: list[tuple[str, FloatVolume, Json]] = [("scan", scan.data, {"colormap": "gray"}), (name, anomaly, warm)]
    if threshold is not None:
        above = ((anomaly > threshold) & brain).astype(np.float32)
        shown.append(("mask", above, {"colormap": "red", "opacity": 0.3, "cal_min": 0.5, "cal_max": 1.0}))
    widget = niivue.NiiVue()
    widget.load_volumes([_volume(niivue, label, data, scan, look) for label, data, look in shown])
    return widget


def _volume(niivue: Any, name: str, data: FloatVolume, scan: Scan, look: Json) -> Any:
    """A volume for NiiVue, as a NIfTI file in memory."""
    content = Nifti1Image(np.asarray(data, dtype=np.float32), scan.affine).to_bytes()
    return niivue.Volume(name=f"{name}.nii", data=content, **look)
