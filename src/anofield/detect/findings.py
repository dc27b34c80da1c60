"""Findings: connected components of a scan above the threshold."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from anofield.data.scan import Scan
from anofield.detect.run_folder import Finding
from anofield.typing import FloatVolume, Mask

CONNECTIVITY = np.ones((3, 3, 3), dtype=bool)  # 26 neighbours
COLUMNS = ("lesion", "volume_ml", "peak", "mean", "x_mm", "y_mm", "z_mm")


def components(mask: Mask) -> tuple[NDArray[np.int32], int]:
    """Number of the 26-connected component of every voxel, (i, j, k), 0 outside the mask, and number of components."""
    labels, count = ndimage.label(mask, structure=CONNECTIVITY)
    return labels, int(count)


def find_findings(anomaly: FloatVolume, above: Mask, scan: Scan, min_ml: float) -> tuple[Mask, list[Finding]]:
    """Connected components of the voxels above the threshold, the largest first.

    Args:
        anomaly: Anomaly map, (i, j, k).
        above: Voxels above the threshold, (i, j, k).
        scan: Scan, for its geometry.
        min_ml: Smallest volume of a finding, ml.

    Returns:
        Voxels of the findings, (i, j, k), and the findings.
    """
    labels, count = components(above)
    sizes = np.bincount(labels.reshape(-1), minlength=count + 1)[1:] * scan.voxel_ml
    kept = np.arange(1, count + 1)[sizes >= min_ml]
    boxes = ndimage.find_objects(labels)
    largest_first = kept[np.argsort(-sizes[kept - 1], kind="stable")]
    found = [
        _finding(anomaly, labels, label, boxes[label - 1], float(sizes[label - 1]), scan) for label in largest_first
    ]
    return np.isin(labels, kept), found


def _finding(
    anomaly: FloatVolume, labels: NDArray[np.int32], label: int, box: tuple[slice, ...], volume: float, scan: Scan
) -> Finding:
    inside = labels[box] == label
    values = anomaly[box][inside]
    at = np.argwhere(inside).mean(axis=0) + [axis.start for axis in box]
    x, y, z = scan.affine[:3, :3] @ at + scan.affine[:3, 3]
    center = (float(x), float(y), float(z))
    return Finding(volume_ml=volume, peak=float(values.max()), mean=float(values.mean()), center_mm=center)


def findings_table(findings: Sequence[Finding]) -> str:
    """The findings as tab-separated text, one per line under the names of `COLUMNS`."""
    rows = ["\t".join(COLUMNS)]
    for number, one in enumerate(findings, start=1):
        x, y, z = one.center_mm
        rows.append(f"{number}\t{one.volume_ml:.3f}\t{one.peak:.4f}\t{one.mean:.4f}\t{x:.1f}\t{y:.1f}\t{z:.1f}")
    return "\n".join(rows) + "\n"
