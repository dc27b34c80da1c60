"""Intensity classes: ordered bins of normalised intensity, given by the centres of a one-dimensional k-means."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from anofield.errors import UsageError
from anofield.typing import Classes, FloatVolume, Mask, Volume

PAPER_CENTERS = (  # k-means of normalised HCP T2w intensities; Naval Marimont & Tarroni 2021, published with the code
    0.00833687, 0.16112877, 0.25637716, 0.3324647, 0.4016978, 0.4740464, 0.559336, 0.66161925, 0.7928223, 0.96524215,
)  # fmt: skip
MAX_CLASSES = 64  # a class is a uint8; more classes than this only cost decoder outputs
POOL_SLAB = 16  # planes pooled at once: the ten class masks of a slab stay in the processor's cache


def fit_centers(intensities: NDArray[np.float32], count: int, seed: int = 0) -> tuple[float, ...]:
    """Fit the centres of `count` ordered classes: 0 for background, the rest by k-means over brain intensities.

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
    """Index of the nearest centre for every voxel; a value half-way between two centres takes the lower index.

    Args:
        intensity: Normalised intensity, any shape.
        centers: Increasing class centres.
    """
    found = np.zeros(np.shape(intensity), dtype=np.uint8)
    for limit in _upper_limits(tuple(centers)):
        found += intensity > limit
    return found


def assign_brain(intensity: FloatVolume, brain: Mask, centers: Sequence[float]) -> Classes:
    """Like `assign`, but class 0 is reserved for voxels outside the brain and never assigned inside it."""
    classes = np.zeros(brain.shape, dtype=np.uint8)
    classes[brain] = np.maximum(assign(intensity[brain], centers), 1)
    return classes


def mode_pool(classes: Classes, width: int, count: int) -> Classes:
    """Most frequent class in a window of `width`³, ties to the lowest class, zero padding, stride 1.

    The window reaches one voxel to both sides for width 3, one voxel back for width 2 (reference: published
    preprocessing, Naval Marimont & Tarroni 2021).

    Args:
        classes: (i, j, k), each below `count`.
        width: 2 or 3.
        count: k, number of classes.

    Raises:
        UsageError: The width is neither 2 nor 3.
    """
    if width not in (2, 3):
        raise UsageError(f"mode pool of width {width}", remedy="choose 2 or 3, or leave it out")
    pooled = np.zeros_like(classes)
    box = ndimage.find_objects(classes != 0, 1)[0]
    if box is None:
        return pooled
    inner = pooled[box]  # outside, at most half of a window is not class 0, and class 0 wins ties
    padded = np.pad(classes[box], (1, width - 2))  # outside the box is class 0, like the published padding
    for start in range(0, len(inner), POOL_SLAB):
        target = inner[start : start + POOL_SLAB]
        target[...] = _most_frequent(padded[start : start + len(target) + width - 1], width, count)
    return pooled


@lru_cache(maxsize=16)
def _upper_limits(centers: tuple[float, ...]) -> NDArray[np.float64]:
    """Per centre the largest float64 that is not nearer to the next centre; the rounded mid-point may miss it."""
    limits = []
    for low, high in itertools.pairwise(centers):
        nearer, farther = np.float64(low), np.float64(high)
        while nearer < (middle := nearer + (farther - nearer) / 2) < farther:
            if abs(middle - low) <= abs(middle - high):
                nearer = middle
            else:
                farther = middle
        limits.append(nearer)
    return np.array(limits, dtype=np.float64)  # its items are float64 scalars: float32 intensities compare exactly


def _most_frequent(padded: Classes, width: int, count: int) -> Classes:
    """Mode of every full window of `padded`."""
    best = np.zeros([n - width + 1 for n in padded.shape], dtype=np.uint16)
    for index in range(count):
        votes = padded == index
        if votes.any():  # the key orders by votes, then by lower class
            key = _window_sum(votes.view(np.uint8), width) * np.uint16(256) + np.uint16(255 - index)
            np.maximum(best, key, out=best)
    return (255 - (best & 255)).astype(np.uint8)


def _window_sum(votes: NDArray[np.uint8], width: int) -> NDArray[np.uint8]:
    """Sum over every full window of `width`³ voxels, at most 27."""
    for axis in range(3):
        lines = np.moveaxis(votes, axis, 0)
        count = len(lines) - width + 1
        total = lines[:count] + lines[1 : count + 1]
        votes = np.moveaxis(total + lines[2:] if width == 3 else total, 0, axis)
    return votes
