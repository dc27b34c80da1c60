"""A template: tissue maps of one head in the frame that all templates share, and what is derived from them.

Template coordinates are mm from `CENTRE` along the axes of MNI space, RAS+. `icbm152` has the ICBM152 2009a symmetric
maps that nilearn ships, prepared once per process; other templates are aligned to it.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import cached_property, lru_cache
from typing import Any

import numpy as np
from nilearn import datasets
from numpy.typing import NDArray
from scipy import ndimage

from anofield.phantom.warp import STEP, Displacement, lattice_points
from anofield.typing import FloatVolume, Mask, Volume

CENTRE = np.array([0.0, -18.0, 5.0])  # middle of the template brain's bounding box, MNI mm
HALF_EXTENT = np.array([73.0, 91.0, 78.0])  # half of that box, mm
PAD = 12  # empty voxels around the box, so that displaced heads stay inside the array
SHAPE = (171, 207, 181)  # voxels of 1 mm of the frame: the box and its padding
ORIGIN = -HALF_EXTENT - PAD  # template coordinates of voxel (0, 0, 0)
SHARPEN = 1.7  # exponent that undoes some of the averaging of 152 people; 1 leaves the maps as they are
VENTRICLE_SEED = (-9.0, 10.0, 16.0)  # MNI mm, in the body of the left lateral ventricle
VENTRICLE_REACH_MM = 12.0  # distance from the ventricles at which the effect of their growth falls to 1/e
VENTRICLE_MARGIN_MM, VENTRICLE_DEPTH_MM = 7.0, 12.0  # of another template: from ICBM152's, and below the surface
SULCUS_REACH_MM = 9.0  # the same for the fluid of sulci and cisterns: chosen by hand, more than the cortex is thick
COARSE = 2.0  # mm, voxels of the smooth maps around the ventricles
BLUR_PER_MM = 0.42  # Gaussian sigma per mm of voxel width: half maximum at the edges of a voxel
KEPT_BLURS = 3  # blurred copies of the maps that a template keeps
DERIVED = ("depth", "ventricle", "growth", "opening", "ribbon")  # maps that a prepared template has ready
RIBBON_BLUR_MM, RIBBON_GAIN = 3.0, 2.2  # of grey matter; sheets of 3 mm reach 1
DEEP_CENTRE, DEEP_HALF = (0.0, -3.0, 4.0), (36.0, 36.0, 26.0)  # MNI mm: an ellipsoid around the deep nuclei


@dataclass(frozen=True)
class Tissue:
    """Grey and white matter fractions of the template, 1 mm voxels, blurred to one voxel width."""

    grey: FloatVolume
    white: FloatVolume


@dataclass(frozen=True)
class Geometry:
    """Distances of the template in mm; `origin` is the template coordinate of voxel (0, 0, 0).

    `depth` is positive inside the brain, `ventricle` positive outside the lateral ventricles; `growth`
    `(3, i, j, k)` is the unit displacement of growing ventricles; both have voxels of `COARSE` mm.
    """

    depth: FloatVolume
    ventricle: FloatVolume
    growth: FloatVolume
    origin: NDArray[np.float64]


@dataclass(frozen=True, eq=False)
class Template:
    """Tissue maps of one head; `grey`, `white` and `brain` are shares `(i, j, k)` of the frame's 1 mm voxels.

    `velocity` `(3, i, j, k)` leads from ICBM152 into this head: the head at `exp(velocity)(x)` holds what ICBM152
    holds at `x`; `None` for ICBM152 itself. `ready` are derived maps that were computed before.
    """

    name: str
    grey: FloatVolume
    white: FloatVolume
    brain: FloatVolume
    velocity: FloatVolume | None = None
    ready: dict[str, FloatVolume] = field(default_factory=dict, repr=False)
    _blurs: dict[float, Tissue] = field(default_factory=dict, repr=False)

    def tissue(self, spacing: float) -> Tissue:
        """The tissue maps blurred to voxels `spacing` mm wide, so that a coarse grid does not alias."""
        if spacing not in self._blurs:
            sigma = BLUR_PER_MM * float(np.sqrt(max(spacing**2 - 1.0, 0.0)))
            while len(self._blurs) >= KEPT_BLURS:
                del self._blurs[next(iter(self._blurs))]
            self._blurs[spacing] = Tissue(_blurred(self.grey, sigma), _blurred(self.white, sigma))
        return self._blurs[spacing]

    @cached_property
    def geometry(self) -> Geometry:
        """Depth below the brain's surface, distance to the ventricles and their growth."""
        if "depth" in self.ready:
            return Geometry(self.ready["depth"], self.ready["ventricle"], self.ready["growth"], ORIGIN)
        solid = np.asarray(ndimage.binary_fill_holes(self.brain > 0.5), dtype=np.bool_)  # the mask has pinholes
        depth = -_blurred(_signed_distance(solid), 0.7)
        distance, growth = _growth(self._lateral(depth)[_every(COARSE)] > 0, VENTRICLE_REACH_MM)
        return Geometry(depth, distance, growth, ORIGIN)

    @cached_property
    def opening(self) -> FloatVolume:
        """Unit displacement `(3, i, j, k)` of widening sulci and cisterns, voxels of `COARSE` mm."""
        if "opening" in self.ready:
            return self.ready["opening"]
        step = _every(COARSE)
        thin = (self.grey + self.white)[step] < 0.5
        return _growth(thin & ~(self.geometry.ventricle < 2.0), SULCUS_REACH_MM)[1]

    @cached_property
    def ribbon(self) -> FloatVolume:
        """Nearness to the cortex `(i, j, k)`, 0 to 1, on the lattice of displacements; 0 at the deep nuclei."""
        if "ribbon" in self.ready:
            return self.ready["ribbon"]
        near = np.clip(RIBBON_GAIN * _blurred(self.grey, RIBBON_BLUR_MM)[_every(STEP)], 0, 1)
        middle, half = (np.array(v).reshape(3, 1, 1, 1) for v in (np.array(DEEP_CENTRE) - CENTRE, DEEP_HALF))
        away = (((lattice_points() - middle) / half) ** 2).sum(0)
        return np.asarray(near * np.clip((away - 0.7) / 0.6, 0, 1), dtype=np.float32)

    @property
    def derived(self) -> dict[str, FloatVolume]:
        """The maps of `DERIVED` by their names."""
        shape = self.geometry
        maps = (shape.depth, shape.ventricle, shape.growth, self.opening, self.ribbon)
        return dict(zip(DERIVED, maps, strict=True))

    def _lateral(self, depth: FloatVolume) -> Mask:
        """The lateral ventricles."""
        fluid = self.brain - self.grey - self.white > 0.5
        if self.velocity is None:
            return _ventricles(fluid)
        back = Displacement.exponential(-self.velocity)
        close = np.zeros(SHAPE, np.bool_)
        voxels = np.nonzero(fluid & (depth > VENTRICLE_DEPTH_MM))
        points = np.stack(voxels).astype(np.float32) + ORIGIN.astype(np.float32)[:, None]
        distance = sample(icbm152().geometry.ventricle, back.moved(points), step=COARSE)
        close[voxels] = distance < VENTRICLE_MARGIN_MM
        return close


def sample(volume: Volume, points: FloatVolume, step: float = 1.0) -> FloatVolume:
    """Linear interpolation of a map of `step` mm voxels at template coordinates `(3, ...)`."""
    origin = ORIGIN.astype(np.float32)
    places = (points - origin.reshape(3, *[1] * (points.ndim - 1))) / np.float32(step)
    result: FloatVolume = ndimage.map_coordinates(
        volume, places, order=1, mode="nearest", prefilter=False, output=np.float32
    )
    return result


def nearest(volume: FloatVolume, points: FloatVolume) -> FloatVolume:
    """A template map at the voxel nearest to template coordinates `(3, ...)`; several times cheaper."""
    index = np.zeros(points.shape[1:], np.int32)
    for channel, first, count in zip(points, ORIGIN, volume.shape, strict=True):
        place = np.rint(channel - np.float32(first)).astype(np.int32)
        index = index * np.int32(count) + np.clip(place, 0, count - 1)
    return volume.ravel()[index]


def geometry() -> Geometry:
    """Geometry of ICBM152."""
    return icbm152().geometry


@lru_cache(maxsize=1)
def icbm152() -> Template:
    """ICBM152, with sharpened grey and white matter."""
    images = (
        datasets.load_mni152_gm_template(resolution=1),
        datasets.load_mni152_wm_template(resolution=1),
        datasets.load_mni152_brain_mask(resolution=1),
    )
    first = np.round(CENTRE - HALF_EXTENT - images[0].affine[:3, 3]).astype(int)
    grey, white, brain = (_boxed(image, first) for image in images)
    csf = np.clip(brain - grey - white, 0, 1)
    parts = np.stack([grey, white, csf]) ** SHARPEN
    parts *= brain / np.maximum(parts.sum(0), 1e-6)
    return Template("icbm152", parts[0], parts[1], brain)


def _boxed(image: Any, first: NDArray[np.int_]) -> FloatVolume:
    """The voxels of the template's brain box, with `PAD` empty voxels around them."""
    stop = first + (2 * HALF_EXTENT + 1).astype(int)
    data = np.asarray(image.dataobj, dtype=np.float32)
    start = np.maximum(first, 0)
    box = data[start[0] : stop[0], start[1] : stop[1], start[2] : stop[2]]
    before = PAD + start - first
    after = (2 * HALF_EXTENT + 1).astype(int) + 2 * PAD - before - box.shape
    return np.pad(box, list(zip(before, after, strict=True)))


def _ventricles(csf: Mask) -> Mask:
    """The connected part of the fluid nearest to `VENTRICLE_SEED`: both lateral ventricles."""
    parts, _ = ndimage.label(csf)
    voxels = np.argwhere(csf)
    seed = np.array(VENTRICLE_SEED) - CENTRE - ORIGIN
    nearest = voxels[np.argmin(((voxels - seed) ** 2).sum(1))]
    return np.asarray(parts == parts[tuple(nearest)], dtype=np.bool_)


def _growth(fluid: Mask, reach: float) -> tuple[FloatVolume, FloatVolume]:
    """Distance to a fluid space of `COARSE` mm voxels, and the unit displacement of its growth."""
    distance = _blurred(COARSE * _signed_distance(fluid), 0.75)
    slope: list[FloatVolume] = list(np.gradient(distance, COARSE))
    growth = np.stack(slope) * np.exp(-np.maximum(distance, 0) / reach)
    return distance, growth.astype(np.float32)


def _every(step: float) -> tuple[slice, slice, slice]:
    """The voxels of a coarser lattice with the same origin."""
    one = slice(None, None, int(step))
    return one, one, one


def _signed_distance(inside: Mask) -> FloatVolume:
    """Distance to the surface of a mask in voxels, negative inside."""
    outer = ndimage.distance_transform_edt(~inside)
    inner = ndimage.distance_transform_edt(inside)
    return np.asarray(outer - inner, dtype=np.float32)


def _blurred(volume: FloatVolume, sigma: float) -> FloatVolume:
    """Gaussian blur, standard deviation in voxels."""
    return np.asarray(ndimage.gaussian_filter(volume, sigma, truncate=3.0), dtype=np.float32)
