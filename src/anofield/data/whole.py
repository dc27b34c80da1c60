"""Whether a brain is whole: signs that a field of view or a stripping tool cut off a part of it, perhaps half of it.

The limits were chosen by hand on 24 healthy brains of OASIS (19 to 83 years), one MS patient and Colin27, as they are
and cut at every side: see the figures beside each limit.
"""

from __future__ import annotations

from collections.abc import Iterator

import nibabel as nib
import numpy as np
from numpy.typing import NDArray

from anofield._words import named
from anofield.typing import Affine, Mask

FLAT = 0.15  # area of the outermost slice / largest slice; whole: at most 0.02; cut by 20 mm at any side: 0.19 up
THIN_MM, PER_MM = 3.0, 0.025  # a slice that is thicker reaches deeper into the brain: more is usual per mm above 3 mm
NARROW = 0.5  # SD of the voxels along the shortest / longest principal axis; whole: 0.65 up, half: 0.39 to 0.46
SIDES = 0.07  # by which a side may differ from half of the brain; whole: 0.02, without one hemisphere's half: 0.1
HIND, HIND_DEPTH = 0.033, 0.2  # share of the brain behind its centre and 0.2 brain lengths below it, where the
# cerebellum lies; whole: 0.07 to 0.12, tilted by 20 degrees: 0.037 up; without the cerebellum: at most 0.029
STEP_MM = 2.0  # distance of the voxels from which shape is computed
SIDE_NAMES = (("left", "right"), ("back", "front"), ("bottom", "top"))
LOOK = "look at the scan in a viewer; take a series that shows the whole head, strip it again if a part is missing"


def half(brain: Mask, affine: Affine) -> str | None:
    """The sign that half of a brain is missing, whatever the direction of the cut; None for any other brain.

    Args:
        brain: Brain voxels, (i, j, k).
        affine: Voxel index → world, RAS+ mm, (4, 4).
    """
    ratio = _narrowness(_world_points(brain, affine))
    if ratio >= NARROW:
        return None
    return (
        f"it is about half a brain or a slab of one (SD along its shortest axis / along its longest: {ratio:.2f}, "
        "whole brains 0.65 and more): the field knows whole heads and is laid wrongly over a half"
    )


def doubts(brain: Mask, affine: Affine) -> tuple[str, ...]:
    """Signs that a part of the brain is missing, one sentence each; none for a whole brain.

    Args:
        brain: Brain voxels, (i, j, k).
        affine: Voxel index → world, RAS+ mm, (4, 4).
    """
    if (narrow := half(brain, affine)) is not None:
        return (narrow,)
    found = [f"it is cut off flat at the {named(cuts)}: {_WHY}" for cuts in [list(_cuts(brain, affine))] if cuts]
    points = _world_points(brain, affine)
    coarse = np.abs(affine[0, :3]).max() / np.ptp(points[:, 0])  # a voxel more or less on one side
    if abs(left := _left_share(points) - 0.5) > SIDES + coarse:
        more = "left" if left > 0 else "right"
        found.append(f"its two sides differ: {100 * (0.5 + abs(left)):.0f} % of it lie on the {more}; {_WHY}")
    if not found and _hind_share(points) < HIND:
        found.append(
            "there is almost nothing below and behind, where the cerebellum lies: it was cut off, or the orientation "
            "in the header is wrong"
        )
    return tuple(found)


_WHY = "a part is outside the field of view or the mask, or neck and skull were not stripped"


def _cuts(brain: Mask, affine: Affine) -> Iterator[str]:
    """Sides at which the brain ends with a large flat area, in words."""
    ornt = nib.io_orientation(affine)
    step = np.linalg.norm(affine[:3, :3], axis=0)
    for axis in range(3):
        areas = np.count_nonzero(brain, axis=tuple(other for other in range(3) if other != axis))
        filled = np.flatnonzero(areas)
        if len(filled) < 2:
            continue
        limit = FLAT + PER_MM * max(0.0, float(step[axis]) - THIN_MM)
        world, sign = int(ornt[axis, 0]), ornt[axis, 1]
        for end, at in enumerate((filled[0], filled[-1])):
            if areas[at] > limit * areas.max():
                name = SIDE_NAMES[world][end if sign > 0 else 1 - end]
                place = "at the border of the scan" if at in (0, len(areas) - 1) else "inside the scan"
                yield f"{name} ({place}, {areas[at] / areas.max():.0%} of the largest slice)"


def _world_points(brain: Mask, affine: Affine) -> NDArray[np.float64]:
    """World positions of brain voxels about `STEP_MM` apart, mm, (n, 3)."""
    strides = [max(1, round(STEP_MM / step)) for step in np.linalg.norm(affine[:3, :3], axis=0)]
    index = np.argwhere(brain[:: strides[0], :: strides[1], :: strides[2]]) * strides
    return np.asarray(nib.affines.apply_affine(affine, index))


def _narrowness(points: NDArray[np.float64]) -> float:
    """SD along the shortest principal axis divided by that along the longest."""
    variances = np.linalg.eigvalsh(np.cov(points.T))
    return float(np.sqrt(max(variances[0], 0.0) / max(variances[-1], 1e-9)))


def _left_share(points: NDArray[np.float64]) -> float:
    """Share of the brain on the left of its own middle, which is that of its 1st and 99th percentile."""
    x = points[:, 0]
    return float(np.mean(x < np.quantile(x, (0.01, 0.99)).mean()))


def _hind_share(points: NDArray[np.float64]) -> float:
    """Share of the brain that lies behind its centre, and `HIND_DEPTH` brain lengths or more below it."""
    from_centre = points - points.mean(axis=0)
    length = np.ptp(points[:, 1])
    return float(np.mean((from_centre[:, 1] < 0) & (from_centre[:, 2] < -HIND_DEPTH * length)))
