"""The parts of a lesion: shapes with a level in mm, positive inside, from which cover and label of a voxel follow."""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple, Protocol

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from anofield.phantom.anatomy import Fractions
from anofield.typing import FloatVolume, Mask

NECROSIS, OEDEMA, CORE = 1, 2, 4  # BraTS'18
DARK = CAVITY = 1
SPOT = INFARCT = 2
CHANGED = 3  # infiltrated or malformed tissue, whose signal is hardly that of a lesion
BLOOD = 4

SPARED = ("spot", "dark", "infarct", "infiltration", "dysplasia")  # matters that leave the fluid of sulci as it is
WEDGE_ROUGH_MM, BORDER_ROUGH_MM = 3.0, 4.0  # unevenness of a wedge's sides and of the border of a territory
DYSPLASTIC = 0.3  # share of grey matter from which a malformed voxel is labelled


@dataclass(frozen=True)
class Ground:
    """The brain voxels on which a lesion is drawn, `n` of them, in C order.

    Attributes:
        head: Head coordinates in mm, `(3, n)`.
        tissue: Fractions of tissue, after displacement.
        rough: The lesion's field of unevenness, unit standard deviation, `(n,)`.
        edge: Width of a lesion's blurred edge, mm.
        inside: Which voxels of the array are brain, `(i, j, k)` with `n` true.
        steps: Voxel widths along the axes of the array, mm.
    """

    head: FloatVolume
    tissue: Fractions
    rough: FloatVolume
    edge: np.float32
    inside: Mask
    steps: tuple[float, float, float]

    def share(self, level: FloatVolume) -> FloatVolume:
        """Share of a voxel that is inside, for levels in mm."""
        return np.asarray(np.clip(0.5 + level / self.edge, 0, 1))

    def blurred(self, values: FloatVolume, where: NDArray[np.intp], width: float) -> FloatVolume:
        """Gaussian mean of values `(n,)` over `width` mm (standard deviation) at the voxels `where`."""
        volume = np.zeros(self.inside.shape, np.float32)
        volume[self.inside] = values
        marked = np.zeros(len(values), np.bool_)
        marked[where] = True
        chosen = np.zeros(self.inside.shape, np.bool_)
        chosen[self.inside] = marked
        sigma = [width / step for step in self.steps]
        box = _box(chosen, [int(3 * one) + 1 for one in sigma])
        smooth = ndimage.gaussian_filter(volume[box], sigma, truncate=3.0)
        return np.asarray(smooth[chosen[box]])  # `where` is in C order, as every selection here


class Cover(NamedTuple):
    """Where a part lies: `share` of the voxels `where` is lesion, and it covers `amount` of their signal."""

    where: NDArray[np.intp]
    share: FloatVolume
    amount: FloatVolume


class Part(Protocol):
    """One part of a lesion."""

    @property
    def matter(self) -> str:
        """Key of the part's signal."""

    @property
    def label(self) -> int:
        """Label of voxels of which at least half is this part."""

    @property
    def brightness(self) -> float:
        """Place between the lowest signal of the matter, 0, and the highest, 1."""

    def cover(self, ground: Ground) -> Cover:
        """The part on a set of voxels."""


@dataclass(frozen=True)
class Blob:
    """A rough ellipsoid: `shape` `(3, 3)` maps it, in mm from `centre`, to a ball of `radius` mm."""

    matter: str
    label: int
    centre: NDArray[np.float64]
    shape: NDArray[np.float64]
    radius: float
    roughness: float
    brightness: float
    strength: float = 1.0  # share of the signal that the matter covers

    def level(self, head: FloatVolume, rough: FloatVolume) -> FloatVolume:
        """Level in mm at head coordinates `(3, n)`; `rough` `(n,)` has unit standard deviation."""
        away = self.shape.astype(np.float32) @ (head - self.centre.astype(np.float32)[:, None])
        distance = np.sqrt((away**2).sum(0))
        level: FloatVolume = np.float32(self.radius) * (1 + np.float32(self.roughness) * rough) - distance
        return level

    def near(self, head: FloatVolume) -> NDArray[np.intp]:
        """Indices of the points that the blob can reach."""
        reach = self.radius * (1 + 4 * self.roughness) + 8
        reach = reach * float(np.linalg.norm(np.linalg.inv(self.shape), 2))
        close = np.ones(head.shape[1], np.bool_)
        for row, middle in zip(head, self.centre, strict=True):
            close &= np.abs(row - np.float32(middle)) < reach
        return np.flatnonzero(close)

    def cover(self, ground: Ground) -> Cover:
        """The blob on a set of voxels."""
        where = self.near(ground.head)
        share = ground.share(self.level(ground.head[:, where], ground.rough[where]))
        if self.matter in SPARED:
            share *= 1 - ground.tissue.csf[where]
        return Cover(where, share, share * np.float32(self.strength))


@dataclass(frozen=True)
class Wedge:
    """What one artery feeds: a cone that widens from `apex` along the unit vector `axis`, within borders.

    Attributes:
        slope: Tangent of half the cone's angle.
        borders: Pairs of a point on a plane and its unit normal, which points inward; all in mm of the head.
        inset: The wedge is this much smaller on all sides, mm.
        only_grey: Whether only grey matter is covered.
    """

    matter: str
    label: int
    apex: NDArray[np.float64]
    axis: NDArray[np.float64]
    slope: float
    borders: tuple[tuple[NDArray[np.float64], NDArray[np.float64]], ...]
    brightness: float
    inset: float = 0.0
    only_grey: bool = False

    def retreat(self, head: FloatVolume, rough: FloatVolume) -> FloatVolume:
        """By how many mm the apex must move back for the cone to hold head coordinates `(3, n)`."""
        away = head - self.apex.astype(np.float32)[:, None]
        along = self.axis.astype(np.float32) @ away
        aside = np.sqrt(np.maximum((away**2).sum(0) - along**2, 0)) - np.float32(WEDGE_ROUGH_MM) * rough
        return np.asarray(aside / np.float32(self.slope) - along, dtype=np.float32)

    def border(self, head: FloatVolume, rough: FloatVolume) -> FloatVolume:
        """Distance in mm to the nearest border, positive inside."""
        level = np.full(head.shape[1], np.inf, np.float32)
        for point, normal in self.borders:
            away = normal.astype(np.float32) @ (head - point.astype(np.float32)[:, None])
            level = np.minimum(level, away + np.float32(BORDER_ROUGH_MM) * rough)
        return level

    def level(self, head: FloatVolume, rough: FloatVolume) -> FloatVolume:
        """Level in mm at head coordinates `(3, n)`."""
        sine = np.float32(self.slope / np.hypot(1, self.slope))
        cone = -self.retreat(head, rough) * sine
        return np.asarray(np.minimum(cone, self.border(head, rough)) - np.float32(self.inset))

    def cover(self, ground: Ground) -> Cover:
        """The wedge on a set of voxels."""
        share = ground.share(self.level(ground.head, ground.rough))
        if self.matter in SPARED:
            share *= 1 - ground.tissue.csf
        if self.only_grey:
            share *= ground.tissue.grey
        where = np.flatnonzero(share > 0)
        return Cover(where, share[where], share[where])


@dataclass(frozen=True)
class Dysplasia:
    """Malformed cortex within a blob: grey matter reaches `gain` times its share blurred over `blur` mm."""

    within: Blob
    blur: float
    gain: float

    @property
    def matter(self) -> str:
        """Key of the part's signal."""
        return self.within.matter

    @property
    def label(self) -> int:
        """Label of malformed voxels."""
        return self.within.label

    @property
    def brightness(self) -> float:
        """Place between the lowest and the highest signal of the matter."""
        return self.within.brightness

    def cover(self, ground: Ground) -> Cover:
        """The malformed tissue on a set of voxels: cortex, and white matter close to it."""
        where, share, _ = self.within.cover(ground)
        grey = np.clip(np.float32(self.gain) * ground.blurred(ground.tissue.grey, where, self.blur), 0, 1)
        return Cover(where, share * (grey >= DYSPLASTIC), share * grey)


def _box(chosen: Mask, margin: list[int]) -> tuple[slice, ...]:
    """The box of the chosen voxels `(i, j, k)`, larger by a margin of voxels."""
    found = [np.flatnonzero(chosen.any(axis=tuple({0, 1, 2} - {axis}))) for axis in range(3)]
    pairs = zip(found, margin, strict=True)
    return tuple(slice(max(0, one[0] - more), one[-1] + 1 + more) if len(one) else slice(0) for one, more in pairs)
