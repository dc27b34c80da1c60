"""Lesions with truth, implanted into real scans of healthy people in the scans' own intensities.

The lesion is planned in mm as in the phantom, in the tissue of the scan. Its matter gets the level that lies between
the scan's fluid, grey and white matter where the phantom's table has it. The noise of the scan stays on top of it.
"""

from __future__ import annotations

import zlib
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from anofield.data.brain import StrippedScan
from anofield.phantom.anatomy import PLAN_STEP, Fractions
from anofield.phantom.contrast import LESION_SIGNAL
from anofield.phantom.grain import grain_of, smoothed
from anofield.phantom.host import Host, host_of
from anofield.phantom.lesions.kinds import draw_on
from anofield.phantom.lesions.lesion import EDGE_MM, Layer, Lesion, drawn
from anofield.phantom.lesions.parts import Ground
from anofield.phantom.person import check_kind, check_modality
from anofield.typing import Classes, FloatVolume, Mask, Volume

STILL_MM = 0.3  # a shift below this is none; all shifts are this much smaller, so that none ends abruptly
NEAR_MM = 8.0  # how far from a lesion on the planning lattice its voxels are looked for
DENOISED_MM = 0.7  # standard deviation of the blur with which tissues are told apart
THICK_MM = 1.5  # voxels are cut into pieces of about this length, so that thick slices mix as a scanner mixes them


@dataclass(frozen=True)
class Implanted:
    """A scan with a lesion.

    Attributes:
        image: Intensities in the scan's units, `(i, j, k)`, float32.
        label: Lesion label, 0 for healthy tissue, `(i, j, k)`, uint8.
        touched: Voxels that may differ from the scan: the lesion and the tissue that it displaces, `(i, j, k)`.
    """

    image: FloatVolume
    label: Classes
    touched: Mask


class _Crop(NamedTuple):
    """A box of the scan, and the `n` brain voxels in it that the lesion may change."""

    box: tuple[slice, ...]
    near: Mask  # (i, j, k) of the box, n of them true
    head: FloatVolume  # (3, n) mm
    values: FloatVolume  # intensities after displacement
    smooth: FloatVolume  # the same with less noise
    moved: NDArray[np.bool_]


def implant(native: StrippedScan, kind: str, seed: int, *, modality: str, tissues: Volume | None = None) -> Implanted:
    """Implant a lesion into a skull-stripped scan.

    The lesion depends on the seed, the kind and the content of the scan. The scan may have any orientation and voxel
    size.

    Args:
        native: The scan of a healthy person, and its brain.
        kind: One of `LESION_KINDS`.
        seed: Seed of the lesion.
        modality: Contrast of the scan, one of `MODALITIES`.
        tissues: Map on the scan's voxels with 1 for fluid, 2 for grey and 3 for white matter, `(i, j, k)`; `None`
            finds the tissues by intensity.

    Raises:
        UsageError: The kind or the modality is unknown.
        ScanError: The scan is a label map or has another contrast.
    """
    check_kind(kind)
    check_modality(modality)
    return implant_in(host_of(native, modality, tissues), kind, seed)


def implant_in(host: Host, kind: str, seed: int) -> Implanted:
    """`implant` for a scan whose tissues are known; several lesions can share the host.

    Raises:
        UsageError: The kind is unknown.
    """
    check_kind(kind)
    scan = host.native.scan
    content = int(scan.content_hash[:8], 16)
    rng = np.random.default_rng([seed, zlib.crc32(kind.encode()), content])
    lesion = draw_on(rng, kind, host.plan)
    crop = _crop(host, lesion)
    values, label, changed = _drawn(host, lesion, crop, rng)
    image = np.array(scan.data, dtype=np.float32)
    labels, touched = np.zeros(image.shape, np.uint8), np.zeros(image.shape, np.bool_)
    here = changed | crop.moved
    touched[crop.box][crop.near] = here
    labels[crop.box][crop.near] = label
    lowest = image[host.native.brain].min()  # a voxel of brain never turns into background
    image[touched] = np.maximum(values[here], lowest)
    return Implanted(image, labels, touched)


def _crop(host: Host, lesion: Lesion) -> _Crop:
    """The part of the scan that a lesion may change, with tissue displaced."""
    scan = host.native.scan
    box, near = _reach(host, lesion)
    brain, sigma = host.native.brain[box], [DENOISED_MM / one for one in scan.spacing]
    start = np.array([one.start for one in box], np.float32)
    places = np.stack(np.nonzero(near)).astype(np.float32)
    head = host.head(places + start[:, None])
    smooth = smoothed(scan.data[box], brain, sigma)
    filled = np.where(brain, scan.data[box], smooth).astype(np.float32)
    values, moved = filled[near], np.zeros(head.shape[1], np.bool_)
    shift = _shift(lesion, head)
    if shift is not None:
        moved = np.asarray((shift != 0).any(0))
        way = np.linalg.inv(scan.affine[:3, :3]).astype(np.float32)
        source = places[:, moved] - way @ shift[:, moved]
        values[moved] = ndimage.map_coordinates(filled, source, order=3, mode="nearest", output=np.float32)
        filled[near] = values
        smooth = smoothed(filled, brain, sigma)
    return _Crop(box, near, head, values, smooth[near], moved)


def _reach(host: Host, lesion: Lesion) -> tuple[tuple[slice, ...], Mask]:
    """The box of voxels that a lesion may change and those of its brain voxels that are near the lesion."""
    voxels, scan = host.plan.voxels, host.native.scan
    close = ndimage.binary_dilation(_planned(lesion, host), np.ones((3, 3, 3)))
    steps = np.argwhere(close)
    first = np.array([axis[0] for axis in voxels.axes])
    low, high = (first + PLAN_STEP * end for end in (steps.min(0) - 1, steps.max(0) + 1))
    corners = np.array(np.meshgrid(*zip(low, high, strict=True))).reshape(3, -1) + host.centre[:, None]
    way = np.linalg.inv(scan.affine)
    ends, last = way[:3, :3] @ corners + way[:3, [3]], np.array(scan.data.shape) - 1
    start = np.clip(np.floor(ends.min(1)).astype(int), 0, last)
    stop = np.clip(np.ceil(ends.max(1)).astype(int), start, last) + 1
    box = tuple(slice(int(a), int(b)) for a, b in zip(start, stop, strict=True))
    near = host.native.brain[box].copy()
    head = host.head(np.stack(np.nonzero(near)).astype(np.float32) + start[:, None].astype(np.float32))
    places = np.rint((head - first[:, None].astype(np.float32)) / np.float32(PLAN_STEP)).astype(np.intp)
    inner = tuple(np.clip(one, 0, n - 1) for one, n in zip(places, close.shape, strict=True))
    near[near] = close[inner]
    return box, near


def _planned(lesion: Lesion, host: Host) -> Mask:
    """Where on the planning lattice a lesion may lie, within `NEAR_MM`, or shift tissue, `(i, j, k)`."""
    voxels, step = host.plan.voxels, (PLAN_STEP,) * 3
    rough = voxels.field(lesion.rough)
    ground = Ground(voxels.head, host.plan.parts, rough, np.float32(2 * NEAR_MM), voxels.inside, step)
    near = np.zeros(voxels.head.shape[1], np.bool_)
    for part in lesion.parts:
        cover = part.cover(ground)
        near[cover.where[(cover.share > 0) | (cover.amount > 0)]] = True
    shift = _shift(lesion, voxels.head)
    if shift is not None:
        near |= (shift != 0).any(0)
    planned = np.zeros(voxels.inside.shape, np.bool_)
    planned[voxels.inside] = near
    return planned


def _shift(lesion: Lesion, head: FloatVolume) -> FloatVolume | None:
    """Displacement in mm `(3, n)`, exactly zero where it would be small."""
    shift = lesion.displacement(head)
    if shift is None:
        return None
    length = np.sqrt((shift**2).sum(0))
    return np.asarray(shift * np.maximum(1 - np.float32(STILL_MM) / np.maximum(length, 1e-6), 0))


def _drawn(
    host: Host, lesion: Lesion, crop: _Crop, rng: np.random.Generator
) -> tuple[FloatVolume, Classes, NDArray[np.bool_]]:
    """Intensities, labels and whether they changed, at the brain voxels `(n,)` of a crop."""
    pieces = [max(1, round(one / THICK_MM)) if one > 2 * THICK_MM - 0.5 else 1 for one in host.native.scan.spacing]
    tissue = host.fractions(crop.smooth, crop.head)
    gain = host.gain_at(crop.head)
    rest = crop.values - host.expected(tissue, gain)
    grain = grain_of(rest, crop.smooth, crop.near, host.native.scan.spacing, rng)
    total = np.zeros(crop.values.shape, np.float32)
    votes: dict[int, NDArray[np.float32]] = {}
    offsets = _offsets(host, pieces)
    changed = np.zeros(crop.values.shape, np.bool_)
    for offset in offsets.T:
        layers, label = _on_piece(host, lesion, crop, tissue, offset)
        values = crop.values.copy()
        for layer in layers:
            _cover(host, values, layer, grain, gain)
            changed[layer.where[layer.cover > 0]] = True
        total += values
        for value in np.unique(label[label > 0]):
            votes.setdefault(int(value), np.zeros(len(label), np.float32))
            votes[int(value)] += label == value
    count = offsets.shape[1]
    values = np.where(changed, total / np.float32(count), crop.values)
    return values, _elected(votes, count, len(values)), changed


def _offsets(host: Host, pieces: list[int]) -> FloatVolume:
    """Shifts in mm of the head `(3, m)` from the middle of a voxel to the middles of its pieces."""
    axes = [(np.arange(n) + 0.5) / n - 0.5 for n in pieces]
    grid = np.stack(np.meshgrid(*axes, indexing="ij")).reshape(3, -1)
    return np.asarray(host.native.scan.affine[:3, :3] @ grid, dtype=np.float32)


def _on_piece(
    host: Host, lesion: Lesion, crop: _Crop, tissue: Fractions, offset: FloatVolume
) -> tuple[list[Layer], Classes]:
    """Layers and labels of one piece of every voxel."""
    head = crop.head + offset[:, None]
    x, y, z = host.native.scan.spacing
    edge = np.float32(max(EDGE_MM, min(x, y, z)))
    ground = Ground(head, tissue, lesion.rough.at(head)[0], edge, crop.near, (x, y, z))
    return drawn(lesion, ground, 1 + lesion.texture.at(head)[0])


def _cover(host: Host, values: FloatVolume, layer: Layer, grain: FloatVolume, gain: FloatVolume) -> None:
    """Draw a layer over intensities `(n,)`, in place."""
    low, high = LESION_SIGNAL[layer.matter][host.modality]
    level = host.intensity(low + layer.brightness * (high - low))
    signal = np.float32(level - host.zero) * layer.texture * gain[layer.where] + np.float32(host.zero)
    values[layer.where] += layer.cover * (signal + grain[layer.where] - values[layer.where])


def _elected(votes: dict[int, NDArray[np.float32]], count: int, n: int) -> Classes:
    """The most frequent label of the pieces of each voxel, where at least half of them have one."""
    label = np.zeros(n, np.uint8)
    if not votes:
        return label
    names, table = np.array(list(votes), np.uint8), np.stack(list(votes.values()))
    ill = table.sum(0) >= count / 2
    label[ill] = names[table.argmax(0)[ill]]
    return label
