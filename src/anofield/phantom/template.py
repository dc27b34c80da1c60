"""The ICBM152 2009a symmetric tissue maps that nilearn ships, prepared once per process.

Template coordinates are mm from `CENTRE` along the axes of MNI space, RAS+.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import numpy as np
from nilearn import datasets
from numpy.typing import NDArray
from scipy import ndimage

from anofield.typing import FloatVolume, Mask, Volume

CENTRE = np.array([0.0, -18.0, 5.0])  # middle of the template brain's bounding box, MNI mm
HALF_EXTENT = np.array([73.0, 91.0, 78.0])  # half of that box, mm
PAD = 12  # empty voxels around the box, so that displaced heads stay inside the array
SHARPEN = 1.7  # exponent that undoes some of the averaging of 152 people; 1 leaves the maps as they are
VENTRICLE_SEED = (-9.0, 10.0, 16.0)  # MNI mm, in the body of the left lateral ventricle
VENTRICLE_REACH_MM = 12.0  # distance from the ventricles at which the effect of their growth falls to 1/e
COARSE = 2.0  # mm, voxels of the smooth maps around the ventricles
BLUR_PER_MM = 0.42  # Gaussian sigma per mm of voxel width: half maximum at the edges of a voxel


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


def sample(volume: Volume, points: FloatVolume, step: float = 1.0) -> FloatVolume:
    """Linear interpolation of a map of `step` mm voxels at template coordinates `(3, ...)`."""
    origin = geometry().origin.astype(np.float32)
    places = (points - origin.reshape(3, *[1] * (points.ndim - 1))) / np.float32(step)
    result: FloatVolume = ndimage.map_coordinates(
        volume, places, order=1, mode="nearest", prefilter=False, output=np.float32
    )
    return result


def nearest(volume: FloatVolume, points: FloatVolume) -> FloatVolume:
    """A template map at the voxel nearest to template coordinates `(3, ...)`; several times cheaper."""
    index = np.zeros(points.shape[1:], np.int32)
    for channel, first, count in zip(points, geometry().origin, volume.shape, strict=True):
        place = np.rint(channel - np.float32(first)).astype(np.int32)
        index = index * np.int32(count) + np.clip(place, 0, count - 1)
    return volume.ravel()[index]


@lru_cache(maxsize=4)
def tissue(spacing: float) -> Tissue:
    """The tissue maps blurred to voxels `spacing` mm wide, so that a coarse grid does not alias."""
    sigma = BLUR_PER_MM * float(np.sqrt(max(spacing**2 - 1.0, 0.0)))
    maps = [_blurred(tissue_map, sigma) for tissue_map in _raw()[:2]]
    return Tissue(maps[0], maps[1])


@lru_cache(maxsize=1)
def geometry() -> Geometry:
    """Depth below the brain's surface, distance to the ventricles and their growth."""
    grey, white, brain, origin = _raw()
    step = int(COARSE)
    ventricles = _ventricles(brain - grey - white > 0.5, origin)[::step, ::step, ::step]
    distance = _blurred(COARSE * _signed_distance(ventricles), 0.75)
    slope: list[FloatVolume] = list(np.gradient(distance, COARSE))
    growth = np.stack(slope) * np.exp(-np.maximum(distance, 0) / VENTRICLE_REACH_MM)
    solid = np.asarray(ndimage.binary_fill_holes(brain > 0.5), dtype=np.bool_)  # the mask has pinholes
    return Geometry(-_blurred(_signed_distance(solid), 0.7), distance, growth.astype(np.float32), origin)


@lru_cache(maxsize=1)
def _raw() -> tuple[FloatVolume, FloatVolume, FloatVolume, NDArray[np.float64]]:
    """Sharpened grey and white matter, brain, and the template coordinate of the first voxel."""
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
    return parts[0], parts[1], brain, -HALF_EXTENT - PAD


def _boxed(image: Any, first: NDArray[np.int_]) -> FloatVolume:
    """The voxels of the template's brain box, with `PAD` empty voxels around them."""
    stop = first + (2 * HALF_EXTENT + 1).astype(int)
    data = np.asarray(image.dataobj, dtype=np.float32)
    start = np.maximum(first, 0)
    box = data[start[0] : stop[0], start[1] : stop[1], start[2] : stop[2]]
    before = PAD + start - first
    after = (2 * HALF_EXTENT + 1).astype(int) + 2 * PAD - before - box.shape
    return np.pad(box, list(zip(before, after, strict=True)))


def _ventricles(csf: Mask, origin: NDArray[np.float64]) -> Mask:
    """The connected part of the fluid nearest to `VENTRICLE_SEED`: both lateral ventricles."""
    parts, _ = ndimage.label(csf)
    voxels = np.argwhere(csf)
    seed = np.array(VENTRICLE_SEED) - CENTRE - origin
    nearest = voxels[np.argmin(((voxels - seed) ** 2).sum(1))]
    return np.asarray(parts == parts[tuple(nearest)], dtype=np.bool_)


def _signed_distance(inside: Mask) -> FloatVolume:
    """Distance to the surface of a mask in voxels, negative inside."""
    outer = ndimage.distance_transform_edt(~inside)
    inner = ndimage.distance_transform_edt(inside)
    return np.asarray(outer - inner, dtype=np.float32)


def _blurred(volume: FloatVolume, sigma: float) -> FloatVolume:
    """Gaussian blur, standard deviation in voxels."""
    return np.asarray(ndimage.gaussian_filter(volume, sigma, truncate=3.0), dtype=np.float32)
