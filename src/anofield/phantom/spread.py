"""Spread of fluid from a voxel through tissue that resists it: shortest paths on a lattice."""

from __future__ import annotations

from itertools import product

import numpy as np
from scipy import ndimage, sparse
from scipy.sparse.csgraph import dijkstra

from anofield.typing import FloatVolume, Mask

# One of each pair of opposite neighbours among the 26.
STEPS = [step for step in product((-1, 0, 1), repeat=3) if step > (0, 0, 0)]
FAR = 150.0  # mm of effort beyond which nothing spreads


def spread_distance(inside: Mask, start: int, effort: FloatVolume, spacing: float) -> FloatVolume:
    """Least effort `(i, j, k)` from brain voxel number `start` to every voxel.

    Args:
        inside: Brain voxels of the lattice `(i, j, k)`.
        start: Index among the brain voxels in C order.
        effort: Cost per mm at the brain voxels `(n,)`.
        spacing: Voxel width in mm.

    Returns:
        Effort in mm of tissue without resistance, at most `FAR`; voxels outside get that of the nearest brain voxel.
    """
    graph = _graph(inside, effort, spacing)
    reached = dijkstra(graph, directed=False, indices=start, limit=FAR)
    distance = np.full(inside.shape, FAR, np.float32)
    distance[inside] = np.minimum(reached, FAR)
    nearest = ndimage.distance_transform_edt(~inside, return_distances=False, return_indices=True)
    filled: FloatVolume = distance[tuple(nearest)]
    return filled


def _graph(inside: Mask, effort: FloatVolume, spacing: float) -> sparse.csr_array:
    """Edges between brain voxels that touch, weighted by length times mean effort."""
    count = int(inside.sum())
    number = np.full(np.add(inside.shape, 2), -1)  # an empty border keeps the steps inside the array
    number[1:-1, 1:-1, 1:-1][inside] = np.arange(count)
    flat, place = number.ravel(), np.flatnonzero(number.ravel() >= 0)
    strides = np.array(number.strides) // number.itemsize
    rows, columns, weights = [], [], []
    for step in STEPS:
        other = flat[place + int(strides @ step)]
        mine = np.flatnonzero(other >= 0)
        rows.append(mine)
        columns.append(other[mine])
        weights.append(spacing * np.linalg.norm(step) * (effort[mine] + effort[other[mine]]) / 2)
    joined = (np.concatenate(weights), (np.concatenate(rows), np.concatenate(columns)))
    return sparse.csr_array(joined, shape=(count, count))
