"""Intensity classes: ordered bins of normalised intensity, given by the centres of a one-dimensional k-means."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from anofield.errors import UsageError
from anofield.typing import Classes, FloatVolume, Mask, Volume

PAPER_CENTERS = (  # k-means of normalised HCP T2w intensities; Naval Marimont & Tarroni 2021, published with the code
    0.00833687, 0.16112877, 0.25637716, 0.3324647, 0.4016978, 0.4740464, 0.559336, 0.66161925, 0.7928223, 0.96524215,
)  # fmt: skip
MAX_CLASSES = 64  # a class is a uint8; more classes than this only cost decoder outputs


def fit_centers(intensities: NDArray[np.float32], count: int, seed: int = 0) -> tuple[float, ...]:
    """Centres of `count` ordered classes: 0 for background, the rest by k-means over brain intensities.

    Args:
        intensities: Normalised brain intensities, any number, in (0, 1].
        count: k, background included.
        seed: Seed of the k-means.

    Raises:
        UsageError: k is not in 3 … `MAX_CLASSES`, or there are fewer different intensities than classes.
    """
    from sklearn.cluster import KMeans

    if not 3 <= count <= MAX_CLASSES:
        raise UsageError(f"{count} classes asked for", remedy=f"choose 3 to {MAX_CLASSES}")
    heights, edges = np.histogram(intensities, bins=2048, range=(0.0, 1.0))
    middle = ((edges[:-1] + edges[1:]) / 2)[heights > 0]
    if len(middle) < count:
        raise UsageError(
            f"the cohort has fewer than {count} different intensities",
            remedy="check the scans with a viewer, or ask for fewer classes",
        )
    start = np.quantile(intensities, (np.arange(count - 1) + 0.5) / (count - 1))
    model = KMeans(count - 1, init=np.unique(start)[:, None] if len(np.unique(start)) == count - 1 else "k-means++",
                   n_init=1, random_state=seed)  # fmt: skip
    model.fit(middle[:, None], sample_weight=heights[heights > 0])
    return (0.0, *sorted(float(c) for c in model.cluster_centers_[:, 0]))


def assign(intensity: Volume, centers: Sequence[float]) -> Classes:
    """Index of the nearest centre for every voxel; a value half-way between two centres takes the lower index."""
    values = np.asarray(centers, dtype=np.float64)
    return np.searchsorted((values[:-1] + values[1:]) / 2, intensity, side="left").astype(np.uint8)


def assign_brain(intensity: FloatVolume, brain: Mask, centers: Sequence[float]) -> Classes:
    """As `assign`, with class 0 kept for what lies outside the brain and never given inside it."""
    inside = np.maximum(assign(intensity, centers), 1)
    return np.where(brain, inside, 0).astype(np.uint8)


def mode_pool(classes: Classes, width: int, count: int) -> Classes:
    """Most frequent class in a window of `width`³, ties to the lowest class, zero padding, stride 1.

    The window reaches one voxel to both sides for width 3, one voxel back for width 2 (reference: published
    preprocessing, Naval Marimont & Tarroni 2021).
    """
    if width not in (2, 3):
        raise UsageError(f"mode pool of width {width}", remedy="choose 2 or 3, or leave it out")
    best = np.zeros(classes.shape, dtype=np.uint8)
    most = np.full(classes.shape, -1, dtype=np.int8)
    for index in range(count):
        votes = _window_sum((classes == index).astype(np.int8), width, pad=1 if index == 0 else 0)
        better = votes > most
        best[better], most[better] = index, votes[better]
    return best


def _window_sum(votes: NDArray[np.int8], width: int, pad: int) -> NDArray[np.int8]:
    for axis in range(3):  # for width 2 scipy's window covers index −1 and 0, as published
        votes = ndimage.correlate1d(votes, np.ones(width), axis=axis, mode="constant", cval=0)
    return np.asarray(votes + _padding_votes(votes.shape, width) if pad else votes, dtype=np.int8)


def _padding_votes(shape: tuple[int, ...], width: int) -> NDArray[Any]:
    """How many voxels of each window lie in the zero padding (they vote for class 0)."""
    inside = [ndimage.correlate1d(np.ones(n), np.ones(width), mode="constant", cval=0.0) for n in shape]
    covered = inside[0][:, None, None] * inside[1][None, :, None] * inside[2][None, None, :]
    return np.asarray(width**3 - covered)
