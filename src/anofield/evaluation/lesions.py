"""Lesion-wise detection: which lesions were found, and which findings are false.

A lesion is a 26-connected component of the label. It is found if detections cover at least `OVERLAP` of it
(the sensitivity rule of the MICCAI 2016 multiple sclerosis challenge: Commowick et al. 2018, α = 10 %).
A finding is a 26-connected component of the detection; it is false if it touches no labelled voxel. Components below a
minimum volume are neither lesions nor findings, but a finding that touches a lesion below that volume is not false.
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import pairwise

import numpy as np
from numpy.typing import NDArray

from anofield.detect.findings import components as connected
from anofield.typing import Mask, Volume

OVERLAP = 0.1  # Commowick et al., Scientific Reports 8:13650, 2018
SIZES_ML = (0.0, 0.1, 1.0, 10.0, 100.0, float("inf"))  # decades: a punctate lesion to a large glioma with oedema


@dataclass(frozen=True)
class Components:
    """26-connected components of a mask, without those below the minimum volume.

    Attributes:
        labels: Number of the component of each voxel, 1 … n, and 0 outside, (i, j, k).
        volumes_ml: Volume of each component, (n,).
    """

    labels: Volume
    volumes_ml: NDArray[np.float64]


@dataclass(frozen=True)
class Match:
    """The findings of one scan compared with its lesions.

    Attributes:
        volumes_ml, covered: Volume of each lesion and the share of it that findings cover, (lesion,).
        found: Whether `covered` reaches the overlap rule, (lesion,).
        findings, false: Number of findings, and number of those that touch no labelled voxel.
        false_ml: Volume of the false findings.
    """

    volumes_ml: NDArray[np.float64]
    covered: NDArray[np.float64]
    found: NDArray[np.bool_]
    findings: int
    false: int
    false_ml: float


def components(mask: Mask, voxel_ml: float, min_ml: float) -> Components:
    """26-connected components of at least `min_ml`."""
    labels, count = connected(mask)
    sizes = np.bincount(labels.reshape(-1), minlength=count + 1) * np.float64(voxel_ml)
    sizes[0] = 0.0
    kept = (sizes >= min_ml) & (np.arange(count + 1) > 0)
    number = np.where(kept, np.cumsum(kept), 0).astype(np.int32)
    return Components(number[labels], sizes[kept])


def match(truth: Mask, lesions: Components, findings: Components, overlap: float = OVERLAP) -> Match:
    """Compare findings with lesions.

    Args:
        truth: Labelled voxels, including those of lesions below the minimum volume, (i, j, k).
        lesions: Components of `truth`.
        findings: Components of the detection on the same voxels.
        overlap: Share of a lesion that must be covered, above 0.
    """
    n_lesions, n_findings = len(lesions.volumes_ml), len(findings.volumes_ml)
    sizes = np.bincount(lesions.labels.reshape(-1), minlength=n_lesions + 1)[1:]
    hit = np.bincount(lesions.labels[findings.labels > 0], minlength=n_lesions + 1)[1:]
    covered = hit / np.maximum(sizes, 1)
    false = np.bincount(findings.labels[truth], minlength=n_findings + 1)[1:] == 0
    false_ml = float(findings.volumes_ml[false].sum())
    return Match(lesions.volumes_ml, covered, covered >= overlap, n_findings, int(false.sum()), false_ml)


def size_bin(volumes_ml: NDArray[np.float64]) -> NDArray[np.intp]:
    """Number of the size class of each volume; a class includes its lower limit and excludes its upper one."""
    return np.searchsorted(SIZES_ML, volumes_ml, side="right") - 1


def size_names() -> list[str]:
    """The size classes in words.

    >>> size_names()
    ['< 0.1 ml', '0.1–1 ml', '1–10 ml', '10–100 ml', '≥ 100 ml']
    """
    inner = [f"{low:g}–{high:g} ml" for low, high in pairwise(SIZES_ML[1:-1])]
    return [f"< {SIZES_ML[1]:g} ml", *inner, f"≥ {SIZES_ML[-2]:g} ml"]
