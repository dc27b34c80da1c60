"""Errors of skull stripping: brain cut off, surroundings left on, and holes.

The edge of a brain is a signed distance in mm, positive inside.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from scipy import ndimage

from anofield.phantom.spline import Axes, draw_field
from anofield.typing import FloatVolume, Mask

LOCAL_WIDTH = 30.0  # mm, over which errors of stripping vary
HOLE_RADIUS = (5.0, 10.0)  # mm


@dataclass(frozen=True, kw_only=True)
class Stripping:
    """How a site's skull stripping errs.

    Attributes:
        shift: Range of the outward shift of a person's whole edge, mm.
        local: Standard deviation of its local shift, mm.
        holes: Mean number of bites out of the edge.
    """

    shift: tuple[float, float]
    local: float
    holes: float


def edge_distance(brain: Mask, spacing: tuple[float, float, float]) -> FloatVolume:
    """Signed distance in mm to the edge of a mask `(i, j, k)`, positive inside."""
    half = float(np.mean(spacing)) / 2  # the edge lies between voxel centres
    inner = ndimage.distance_transform_edt(brain, sampling=spacing)
    outer = ndimage.distance_transform_edt(~brain, sampling=spacing)
    return np.asarray(np.where(brain, inner - half, half - outer), dtype=np.float32)


def stripped(edge: FloatVolume, axes: Axes, errors: Stripping, rng: np.random.Generator) -> Mask:
    """The mask `(i, j, k)` that a site makes of a brain; `axes` are the head coordinates of the lattice in mm."""
    shift = rng.uniform(*errors.shift)
    local = draw_field(rng, LOCAL_WIDTH, errors.local)
    mask = edge + np.float32(shift) + local.on(axes)[0] > 0
    for _ in range(rng.poisson(errors.holes)):
        mask &= ~_hole(edge, axes, rng)
    parts, count = ndimage.label(mask)
    if count > 1:
        mask = parts == 1 + np.argmax(np.bincount(parts[parts > 0])[1:])
    return np.asarray(mask, dtype=np.bool_)


def _hole(edge: FloatVolume, axes: Axes, rng: np.random.Generator) -> Mask:
    """A ball about a point of the edge in a random direction from the middle."""
    direction = rng.standard_normal(3)
    direction /= np.linalg.norm(direction)
    radius = rng.uniform(*HOLE_RADIUS)
    along = direction[:, None] * np.arange(30.0, 120.0)[None, :]
    index = tuple(np.abs(axis[:, None] - line[None, :]).argmin(0) for axis, line in zip(axes, along, strict=True))
    centre = along[:, np.abs(edge[index]).argmin()]
    x, y, z = np.ix_(*((axis - middle) ** 2 for axis, middle in zip(axes, centre, strict=True)))
    return np.asarray(x + y + z < radius**2)
