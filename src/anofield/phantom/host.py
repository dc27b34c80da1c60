"""A real brain as a host of lesions: its frame, its tissues and their levels, in the terms of the phantom.

The head frame of a host is RAS+ mm from the middle of the brain's bounding box. That box, stretched to the box of the
template, says roughly where in the template a point lies; the exact place of tissue comes from the scan itself.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from anofield.data.brain import StrippedScan
from anofield.errors import ScanError
from anofield.phantom import template
from anofield.phantom.anatomy import PLAN_STEP, BrainVoxels, Fractions, plan_axes
from anofield.phantom.contrast import MODALITIES, SIGNAL
from anofield.phantom.lesions.plan import Plan
from anofield.phantom.spline import Axes
from anofield.typing import FloatVolume, Mask, Volume

STEP = PLAN_STEP / 2  # mm, the lattice on which tissue is told apart
FEW_VALUES = 32  # a scan has hundreds of intensities; a map of tissues or regions in a brain may have some dozens
PRIOR_BLUR = 10.0  # mm of voxel width to which the template is blurred: the boxes fit to about this
PRIOR_TRUST = 0.9  # the rest is shared among the three tissues
STEPS, ROUNDS = 15, 2  # of expectation maximisation; of this and the unevenness of the coil in turn
GAIN_WIDTH, GAIN_LIMITS = 20.0, (0.7, 1.4)  # mm standard deviation of the smooth field; its lowest and highest value
VENTRICLE_MM, VENTRICLE_DEPTH = 10.0, 15.0  # fluid this near to the template's ventricles and this deep is theirs
FLAIR_GREY = 0.85  # place of grey matter between fluid, 0, and white matter, 1: above it in FLAIR, below it in T1w
ENOUGH = 50  # points of such fluid
PURE = 20  # percentile of it, from the end that is farther from tissue
BLUR_PER_MM = template.BLUR_PER_MM
TISSUES = ("grey", "white", "fluid")


@dataclass(frozen=True)
class Host:
    """A scan that lesions can be implanted into.

    Attributes:
        native: The scan and its brain.
        modality: Contrast of the scan, one of `MODALITIES`.
        centre: Middle of the brain's bounding box, world mm.
        zero: Intensity that stands for no signal.
        levels: Intensities of grey matter, white matter and fluid.
        spread: Standard deviations of the three.
        tissue: Shares of the three tissues on the lattice of `STEP`, `(3, i, j, k)`.
        gain: Unevenness of the coil on the planning lattice, `(i, j, k)`.
        plan: The planning lattice.
    """

    native: StrippedScan
    modality: str
    centre: NDArray[np.float64]
    zero: float
    levels: NDArray[np.float64]
    spread: NDArray[np.float64]
    tissue: FloatVolume
    gain: FloatVolume
    plan: Plan

    def head(self, voxels: NDArray[np.float32]) -> FloatVolume:
        """Head coordinates `(3, n)` of voxel indices `(3, n)`."""
        affine = self.native.scan.affine
        shift = affine[:3, 3] - self.centre
        return np.asarray(affine[:3, :3].astype(np.float32) @ voxels + shift.astype(np.float32)[:, None])

    def gain_at(self, head: FloatVolume) -> FloatVolume:
        """Unevenness of the coil at head coordinates `(3, n)`."""
        return _lookup(self.gain, head, PLAN_STEP)

    def fractions(self, values: FloatVolume, head: FloatVolume) -> Fractions:
        """Shares of tissue `(n,)` at head coordinates `(3, n)`, by the lattice and the intensities there."""
        prior = np.stack([_lookup(one, head, STEP) for one in self.tissue])
        flat = (values - np.float32(self.zero)) / self.gain_at(head) + np.float32(self.zero)
        grey, white, fluid = _posterior(flat, np.maximum(prior, 0.01), self.levels, self.spread)
        return Fractions(grey, white, fluid)

    def expected(self, tissue: Fractions, gain: FloatVolume) -> FloatVolume:
        """Intensities `(n,)` that tissue would have without noise."""
        shares = np.stack([tissue.grey, tissue.white, tissue.csf])
        signal = (self.levels - self.zero).astype(np.float32) @ shares
        return np.asarray(signal * gain + np.float32(self.zero))

    def intensity(self, signal: float) -> float:
        """Intensity in the scan's units of a signal of the phantom's table, where white matter is 1.

        The table's tissues and the scan's are anchors, linear between them. Below the lowest, the way leads to no
        signal at all. Above the highest, a step is as large as between the lowest and the highest.
        """
        grey, fluid = SIGNAL[self.modality]
        table = np.array([grey, 1.0, fluid])
        order = np.argsort(table)
        known, found = table[order], np.maximum.accumulate(self.levels[order])
        if signal > known[-1]:
            return float(found[-1] + (signal - known[-1]) * (found[-1] - found[0]) / (known[-1] - known[0]))
        return float(np.interp(signal, [0.0, *known], [self.zero, *found]))


def host_of(native: StrippedScan, modality: str, tissues: Volume | None = None) -> Host:
    """Tell the tissues of a scan apart: a mixture of three intensities, guided by the blurred template.

    Args:
        native: The scan and its brain.
        modality: Contrast of the scan, one of `MODALITIES`.
        tissues: Map on the scan's voxels with 1 for fluid, 2 for grey and 3 for white matter, `(i, j, k)`; `None`
            finds them by intensity.

    Raises:
        ScanError: The scan has few different values, like a label map; its tissues are not as bright as those of the
            modality, or hardly any white matter lies above the tentorium; or the map of tissues does not fit.
    """
    _check_values(native)
    _check_map(native, tissues)
    centre, half = _box(native)
    axes = _fine_axes()
    inside, values = _on_lattice(native, native.scan.data, centre, axes)
    head = np.stack([axis.astype(np.float32)[i] for axis, i in zip(axes, np.nonzero(inside), strict=True)])
    points = head * (template.HALF_EXTENT / half).astype(np.float32)[:, None]
    flat = values[inside]
    zero = min(0.0, float(np.percentile(flat, 0.1)))
    if tissues is None:
        prior = _prior(points)
    else:
        prior = np.stack([_on_lattice(native, tissues == k, centre, axes)[1][inside] for k in (2, 3, 1)])
    levels, spread, share, gain = _tell_apart(flat, prior, zero, inside)
    depth = STEP * np.asarray(ndimage.distance_transform_edt(inside), dtype=np.float32) - np.float32(STEP / 2)
    expected = template.sample(template.geometry().ventricle, points, step=template.COARSE)
    deep = (share[2] > 0.5) & (expected < VENTRICLE_MM) & (depth[inside] > VENTRICLE_DEPTH)
    ventricle = _ventricle(deep, expected, inside)
    tissue = np.zeros((3, *inside.shape), np.float32)
    tissue[:, inside] = share
    levels[2] = _pure_fluid(flat, deep, levels)
    _check_order(native, modality, levels)
    plan = _plan(inside, tissue, depth, ventricle, half)
    _check_cerebrum(native, plan)
    return Host(native, modality, centre, zero, levels, spread, tissue, gain, plan)


def _check_values(native: StrippedScan) -> None:
    """Refuse a label map."""
    some = native.scan.data[native.brain][::7]
    if len(np.unique(some)) <= FEW_VALUES:
        raise ScanError(
            f"holds only {len(np.unique(some))} different values in the brain",
            where=native.scan.path,
            why="that is a map of labels, not a scan",
            remedy="give the scan itself",
        )


def _check_map(native: StrippedScan, tissues: Volume | None) -> None:
    """Refuse a map of tissues of another shape, or without one of the three."""
    if tissues is None:
        return
    found = set(np.unique(tissues[native.brain])) if tissues.shape == native.brain.shape else set()
    if not {1, 2, 3} <= found:
        raise ScanError(
            "its map of tissues does not fit",
            where=native.scan.path,
            why=f"it has shape {tissues.shape} for {native.brain.shape}"
            if not found
            else "one of 1, 2 and 3 is missing",
            remedy="give a map on the scan's voxels with 1 for fluid, 2 for grey and 3 for white matter",
        )


def _check_cerebrum(native: StrippedScan, plan: Plan) -> None:
    """Refuse a scan without white matter where that of a cerebrum should be."""
    if (plan.cerebrum & (plan.parts.white > 0.5)).sum() < ENOUGH:
        raise ScanError(
            "hardly any white matter is found above the tentorium",
            where=native.scan.path,
            why="lesions are planned there",
            remedy="check the orientation in its header, its contrast and its skull stripping",
        )


def _check_order(native: StrippedScan, modality: str, levels: NDArray[np.float64]) -> None:
    """Refuse a scan whose tissues are not as bright, one against the other, as in its contrast."""
    if _fits(modality, levels):
        return
    told = ", ".join(f"{name} {level:.4g}" for name, level in zip(TISSUES, levels, strict=True))
    others = [other for other in MODALITIES if _fits(other, levels)]
    raise ScanError(
        f"does not look like {modality}: its tissues have the intensities {told}",
        where=native.scan.path,
        why=f"in {modality} the order from dark to bright is {', '.join(_order(modality))}",
        remedy=f"name its contrast with --modality{' ' + others[0] if others else ''}, or check its skull stripping",
    )


def _order(modality: str) -> list[str]:
    """The three tissues from dark to bright."""
    grey, fluid = SIGNAL[modality]
    return [TISSUES[i] for i in np.argsort([grey, 1.0, fluid])]


def _fits(modality: str, levels: NDArray[np.float64]) -> bool:
    """Whether the levels can be those of a modality.

    Grey matter lies between fluid and white matter in T1w and T2w. In FLAIR it is about as bright as white matter.
    """
    grey, white, fluid = levels
    place = (grey - fluid) / (white - fluid) if white != fluid else 0.0
    if (fluid > white) != (modality == "T2w"):
        return False
    return (
        bool(place > FLAIR_GREY) if modality == "FLAIR" else bool(0 < place < (1 if modality == "T2w" else FLAIR_GREY))
    )


def _box(native: StrippedScan) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Middle and half the size of the brain's bounding box, world mm."""
    affine = native.scan.affine
    voxels = np.argwhere(native.brain)[::5]
    world = voxels @ affine[:3, :3].T + affine[:3, 3]
    low, high = world.min(0), world.max(0)
    return (low + high) / 2, (high - low) / 2


def _fine_axes() -> Axes:
    """The lattice of `STEP`, of which every second point is a planning point."""
    x, y, z = (np.arange(axis[0], axis[-1] + STEP / 2, STEP) for axis in plan_axes())
    return x, y, z


def _on_lattice(
    native: StrippedScan, volume: Volume, centre: NDArray[np.float64], axes: Axes
) -> tuple[Mask, FloatVolume]:
    """Brain and mean values of a volume of the scan `(i, j, k)` on the lattice."""
    box = ndimage.find_objects(native.brain.astype(np.uint8))[0]
    brain = native.brain[box].astype(np.float32)
    sigma = [BLUR_PER_MM * np.sqrt(max(STEP**2 - one**2, 0.0)) / one for one in native.scan.spacing]
    way = np.linalg.inv(native.scan.affine)
    first = np.array([axis[0] for axis in axes]) + centre
    offset = way[:3, :3] @ first + way[:3, 3] - [one.start for one in box]
    shape = tuple(len(axis) for axis in axes)
    both = [
        ndimage.affine_transform(
            ndimage.gaussian_filter(one, sigma, truncate=3.0, mode="constant"),
            way[:3, :3] * STEP,
            offset,
            output_shape=shape,
            order=1,
            output=np.float32,
        )
        for one in (brain, volume[box].astype(np.float32) * brain)
    ]
    inside = np.asarray(both[0] > 0.5, dtype=np.bool_)
    return inside, np.divide(both[1], both[0], out=np.zeros_like(both[1]), where=inside)


def _prior(points: FloatVolume) -> FloatVolume:
    """Chance of grey matter, white matter and fluid `(3, n)` at template coordinates, before the scan is seen."""
    maps = template.icbm152().tissue(PRIOR_BLUR)
    grey, white = template.sample(maps.grey, points), template.sample(maps.white, points)
    chance = np.stack([grey, white, np.maximum(1 - grey - white, 0)])
    return np.asarray(PRIOR_TRUST * chance + (1 - PRIOR_TRUST) / 3, dtype=np.float32)


def _tell_apart(
    values: FloatVolume, prior: FloatVolume, zero: float, inside: Mask
) -> tuple[NDArray[np.float64], NDArray[np.float64], FloatVolume, FloatVolume]:
    """Levels, standard deviations and shares `(3, n)` of the tissues, and the coil's gain on the planning lattice."""
    gain = np.ones(values.shape, np.float32)
    smooth = np.ones(tuple((n + 1) // 2 for n in inside.shape), np.float32)
    share = prior
    for _ in range(ROUNDS):
        flat = (values - np.float32(zero)) / gain + np.float32(zero)
        for _ in range(STEPS):
            levels, spread = _moments(flat, share)
            share = _posterior(flat, prior, levels, spread)
        smooth, gain = _gain(values - np.float32(zero), share, levels - zero, inside)
    return levels, spread, share, smooth


def _moments(values: FloatVolume, share: FloatVolume) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Mean and standard deviation of each tissue."""
    weight = np.maximum(share.sum(1), 1e-3).astype(np.float64)
    level = (share @ values) / weight
    spread = np.sqrt(np.maximum((share @ values**2) / weight - level**2, 0))
    return level, np.maximum(spread, 0.01 * float(np.ptp(level)) + 1e-9)


def _posterior(
    values: FloatVolume, prior: FloatVolume, levels: NDArray[np.float64], spread: NDArray[np.float64]
) -> FloatVolume:
    """Shares of the tissues `(3, n)` after the intensities `(n,)` are seen."""
    away = (values - levels[:, None].astype(np.float32)) / spread[:, None].astype(np.float32)
    away = np.minimum(away**2, np.float32(60.0))  # a value far from all tissues keeps its prior
    chance = prior * np.exp(-away / 2) / spread[:, None].astype(np.float32)
    return np.asarray(chance / chance.sum(0), dtype=np.float32)


def _gain(
    signal: FloatVolume, share: FloatVolume, levels: NDArray[np.float64], inside: Mask
) -> tuple[FloatVolume, FloatVolume]:
    """Smooth ratio of the signal to that of its tissues, on the planning lattice and at the points `(n,)`."""
    weight = share[0] + share[1]
    expected = np.maximum(levels.astype(np.float32) @ share, 1e-6)
    sums = []
    for one in (weight * np.clip(signal / expected, *GAIN_LIMITS), weight):
        volume = np.zeros(inside.shape, np.float32)
        volume[inside] = one
        coarse = ndimage.uniform_filter(volume, 2)[::2, ::2, ::2]
        sums.append(ndimage.gaussian_filter(coarse, GAIN_WIDTH / PLAN_STEP, truncate=3.0))
    smooth = np.where(sums[1] > 1e-3, sums[0] / np.maximum(sums[1], 1e-3), 1.0).astype(np.float32)
    smooth = np.clip(smooth / np.average(smooth, weights=sums[1]), *GAIN_LIMITS).astype(np.float32)
    places = np.stack(np.nonzero(inside)).astype(np.float32) / 2
    return smooth, ndimage.map_coordinates(smooth, places, order=1, mode="nearest", output=np.float32)


def _pure_fluid(values: FloatVolume, deep: NDArray[np.bool_], levels: NDArray[np.float64]) -> float:
    """Level of fluid in the ventricles, which unlike that of sulci is little mixed with tissue."""
    if deep.sum() < ENOUGH:
        return float(levels[2])
    return float(np.percentile(values[deep], PURE if levels[2] < levels[0] else 100 - PURE))


def _ventricle(deep: NDArray[np.bool_], expected: FloatVolume, inside: Mask) -> FloatVolume:
    """Distance in mm to the scan's own lateral ventricles on the lattice; to the template's, if it shows none."""
    distance = np.full(inside.shape, np.inf, np.float32)
    distance[inside] = expected
    if deep.sum() < ENOUGH:
        return distance
    fluid = np.zeros(inside.shape, np.bool_)
    fluid[inside] = deep
    return np.asarray(STEP * ndimage.distance_transform_edt(~fluid), dtype=np.float32)


def _plan(
    inside: Mask, tissue: FloatVolume, depth: FloatVolume, ventricle: FloatVolume, half: NDArray[np.float64]
) -> Plan:
    """The planning lattice: every second point of the finer one, with tissue blurred to its width."""
    some, axes = (slice(None, None, 2),) * 3, plan_axes()
    chosen = inside[some]
    sigma = BLUR_PER_MM * np.sqrt(PLAN_STEP**2 - STEP**2) / STEP
    shares = [ndimage.gaussian_filter(one, sigma, truncate=3.0)[some][chosen] for one in tissue]
    total = np.maximum(np.sum(shares, axis=0), 1e-6)
    parts = Fractions(*(one / total for one in shares))
    head = np.stack([axis.astype(np.float32)[i] for axis, i in zip(axes, np.nonzero(chosen), strict=True)])
    points = head * (template.HALF_EXTENT / half).astype(np.float32)[:, None]
    voxels = BrainVoxels(axes=axes, inside=chosen, head=head, template=points, depth=depth[some][chosen])
    return Plan(voxels, parts, ventricle[some][chosen], PLAN_STEP**3)


def _lookup(volume: FloatVolume, head: FloatVolume, step: float) -> FloatVolume:
    """Linear interpolation of a lattice of head coordinates at other ones, `(3, n)`."""
    first = np.array([axis[0] for axis in plan_axes()], np.float32)
    places = (head - first[:, None]) / np.float32(step)
    result: FloatVolume = ndimage.map_coordinates(volume, places, order=1, mode="nearest", output=np.float32)
    return result
