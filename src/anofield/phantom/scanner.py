"""How a scanner turns a magnetisation into an image: slices, k-space that ends, motion between its lines, noise.

All volumes lie on a lattice along the world's axes. What was acquired is given back on that lattice, as a scan that was
resampled to a common grid.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy import fft, ndimage
from scipy.spatial.transform import Rotation

from anofield.phantom.signal import Sequence
from anofield.phantom.template import BLUR_PER_MM
from anofield.typing import FloatVolume

SHOTS = 12  # trains of echoes that share k-space in turn; a head that moves leaves ghosts
MOVED_SHOTS = 2  # of them in which the head lies elsewhere


@dataclass(frozen=True, kw_only=True)
class Protocol:
    """How one modality is acquired.

    Attributes:
        sequence: What gives the contrast.
        voxel: Acquired voxel along the world's x, y and z, in mm; of slices, thickness along their axis.
        slices: Axis (0 to 2) along which slices are stacked, or `None` where all axes are encoded.
        gap: Distance between slices, mm.
        tilt: Angle of the slices about the axis before theirs, in degrees.
        phase: Axis along which the lines of k-space follow one another; not that of the slices.
        noise: Factor on the noise of the site, for what else differs between sequences.
    """

    sequence: Sequence
    voxel: tuple[float, float, float]
    slices: int | None = None
    gap: float = 0.0
    tilt: float = 0.0
    phase: int = 1
    noise: float = 1.0


@dataclass(frozen=True, kw_only=True)
class Quality:
    """What a scan suffers.

    Attributes:
        noise: Standard deviation per channel in a voxel of 1 mm³, in the units of the magnetisation.
        motion: Standard deviation of the head's shifts in mm and turns in degrees, per axis.
        filtered: How softly k-space ends: 0 is a hard end, 1 a Hann window.
    """

    noise: float
    motion: float
    filtered: float


def acquired(
    head: FloatVolume,
    spacing: tuple[float, float, float],
    protocol: Protocol,
    quality: Quality,
    rng: np.random.Generator,
) -> FloatVolume:
    """The magnitude image `(i, j, k)` of a head, back on its own lattice.

    Args:
        head: Transverse magnetisation when the signal is read, `(i, j, k)`.
        spacing: Voxel widths of its lattice, mm.
        protocol: How it is acquired.
        quality: What the scan suffers.
        rng: Stream of the motion and the noise.
    """
    stack = _Stack.of(head.shape, spacing, protocol)
    views = [stack.cut(view) for view in _views(head, spacing, quality.motion, rng)]
    image = _mixed(views, protocol.phase)
    image = image + _noise(image.shape, spacing, protocol, quality.noise, rng)
    for axis in stack.encoded:
        image = _band_limited(image, axis, spacing[axis], protocol.voxel[axis], quality.filtered)
    return stack.back(np.abs(image).astype(np.float32))


@dataclass(frozen=True)
class _Stack:
    """Thick slices of a lattice: weights `(across, slice, lattice)` that cut them and `(across, lattice, slice)` back.

    Tilted slices lie at other places of each column; `across` is the lattice axis along which they rise.
    """

    axis: int | None
    across: int
    weights: FloatVolume
    hats: FloatVolume

    @classmethod
    def of(cls, shape: tuple[int, ...], spacing: tuple[float, float, float], protocol: Protocol) -> _Stack:
        """The slices of a protocol; none where the lattice is not finer than they are."""
        axis = protocol.slices
        empty = np.zeros((0, 0, 0), np.float32)
        if axis is None or protocol.voxel[axis] + protocol.gap <= spacing[axis]:
            return cls(None, 0, empty, empty)
        across = (axis + 2) % 3
        step, thick = protocol.voxel[axis] + protocol.gap, protocol.voxel[axis]
        place = spacing[axis] * (np.arange(shape[axis]) - (shape[axis] - 1) / 2)
        rise = np.tan(np.radians(protocol.tilt)) * spacing[across]
        rise = rise * (np.arange(shape[across]) - (shape[across] - 1) / 2)
        reach = np.abs(place[0]) + np.abs(rise).max() + step
        middles = np.arange(-np.ceil(reach / step), np.ceil(reach / step) + 1) * step
        away = place[None, None, :] - middles[None, :, None] - rise[:, None, None]  # (across, slice, lattice)
        # The lattice itself blurs by its own voxel width. A profile narrower than a third of a voxel would miss voxels.
        added = BLUR_PER_MM * np.sqrt(max(thick**2 - spacing[axis] ** 2, 0.0))
        sigma = max(added, spacing[axis] / 3)
        profile = np.exp(-0.5 * (away / sigma) ** 2) * spacing[axis] / (np.sqrt(2 * np.pi) * sigma)
        hats = np.maximum(1 - np.abs(away) / step, 0).transpose(0, 2, 1)
        return cls(axis, across, profile.astype(np.float32), hats.astype(np.float32))

    @property
    def encoded(self) -> tuple[int, ...]:
        """Axes whose k-space is acquired."""
        return tuple(axis for axis in range(3) if axis != self.axis)

    def cut(self, volume: FloatVolume) -> FloatVolume:
        """The slices of a volume, in place of its lattice along their axis."""
        return self._along(volume, self.weights)

    def back(self, slices: FloatVolume) -> FloatVolume:
        """Slices on the lattice again, by linear interpolation between them."""
        return self._along(slices, self.hats)

    def _along(self, volume: FloatVolume, weights: FloatVolume) -> FloatVolume:
        if self.axis is None:
            return volume
        other = 3 - self.axis - self.across
        order = (self.across, other, self.axis)
        moved = volume.transpose(order) @ weights.transpose(0, 2, 1)
        return np.ascontiguousarray(moved.transpose(np.argsort(order)))


def _views(
    volume: FloatVolume, spacing: tuple[float, float, float], motion: float, rng: np.random.Generator
) -> list[FloatVolume]:
    """The head at rest and, if it moves, in other poses within about `motion` mm and degrees."""
    turns, shifts = rng.standard_normal((MOVED_SHOTS, 3)), rng.standard_normal((MOVED_SHOTS, 3))
    if motion == 0:
        return [volume]
    moved = []
    for turn, shift in zip(turns * motion, shifts * motion, strict=True):
        scale = np.diag(spacing)
        matrix = np.linalg.inv(scale) @ Rotation.from_euler("xyz", turn, degrees=True).as_matrix() @ scale
        middle = (np.array(volume.shape) - 1) / 2
        offset = middle - matrix @ middle + shift / np.array(spacing)
        moved.append(ndimage.affine_transform(volume, matrix, offset, order=1, output=np.float32))
    return [volume, *moved]


def _mixed(views: list[FloatVolume], phase: int) -> NDArray[np.complexfloating]:
    """One image of which some shots, each every `SHOTS`-th line along the axis `phase`, come from other poses."""
    if len(views) == 1:
        return views[0].astype(np.complex64)
    total = np.zeros(views[0].shape, np.complex64)
    lines = np.arange(views[0].shape[phase])
    for number, view in enumerate(views):
        shot = np.where(lines % SHOTS < MOVED_SHOTS, lines % SHOTS + 1, 0)  # view of each line; 0 is at rest
        total += fft.fft(view, axis=phase) * _on_axis((shot == number).astype(np.float32), phase)
    return np.asarray(fft.ifft(total, axis=phase))


def _noise(
    shape: tuple[int, ...],
    spacing: tuple[float, float, float],
    protocol: Protocol,
    level: float,
    rng: np.random.Generator,
) -> NDArray[np.complexfloating]:
    """Complex white noise on the lattice that has `level` / volume in acquired voxels once it is band-limited."""
    sigma = level * protocol.noise / float(np.prod(protocol.voxel))
    encoded = [axis for axis in range(3) if axis != protocol.slices]
    sigma *= float(np.sqrt(np.prod([protocol.voxel[axis] / spacing[axis] for axis in encoded])))
    values = rng.standard_normal((2, *shape), dtype=np.float32) * np.float32(sigma)
    return np.asarray(values[0] + 1j * values[1])


def _band_limited(
    image: NDArray[np.complexfloating], axis: int, step: float, voxel: float, filtered: float
) -> NDArray[np.complexfloating]:
    """The image without what an acquired `voxel` mm wide cannot hold along an axis of `step` mm."""
    count = image.shape[axis]
    length = fft.next_fast_len(count)
    place = np.abs(fft.fftfreq(length, step)) * 2 * voxel  # 1 at the edge of the acquired k-space
    window = 1 - filtered + filtered * (0.5 + 0.5 * np.cos(np.pi * np.minimum(place, 1)))
    window = np.where(place <= 1, window, 0).astype(np.float32)
    limited = fft.ifft(fft.fft(image, length, axis=axis) * _on_axis(window, axis), axis=axis)
    return np.asarray(limited[tuple(slice(0, count) if i == axis else slice(None) for i in range(3))])


def _on_axis(values: NDArray[np.float32], axis: int) -> FloatVolume:
    """Values `(n,)` as a volume of one voxel along the other axes."""
    return values.reshape([-1 if i == axis else 1 for i in range(3)])
