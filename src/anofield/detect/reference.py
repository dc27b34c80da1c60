"""Voxel-wise healthy mean and SD of each score on the lattice: where healthy people differ, a score counts less.

A dozen people say little about one voxel: the sums are blurred over neighbours and shrunk towards the whole brain's.
"""

from __future__ import annotations

import hashlib
import io
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from scipy import ndimage

from anofield._files import write_bytes
from anofield.data.lattice import FWHM, field_coordinates
from anofield.data.prepare import Prepared
from anofield.detect.pose import Pose
from anofield.errors import ExperimentError
from anofield.typing import FloatVolume

BLUR_MM = 5.0  # FWHM of the blur of the sums; of small lesions, AP 0.392 with 5 mm, 0.383 with 7, 0.366 with 10
SHRINK_PEOPLE = 2.0  # people that the whole brain counts for at every voxel; 1, 4, 10: AP 0.395, 0.383, 0.349
Sums = dict[str, FloatVolume]  # "count", and per score "<name>/sum" and "<name>/square", each (R, R, R)


@dataclass(frozen=True)
class Standard:
    """Mean and SD of one score over healthy people, (R, R, R), in the training's frame."""

    mean: FloatVolume
    sd: FloatVolume

    def applied(self, values: FloatVolume, prepared: Prepared, pose: Pose | None) -> FloatVolume:
        """(value − mean)/SD at the brain voxels, looked up where the pose puts them; not below 0, 0 outside."""
        at = _voxels(prepared, pose)
        mean, sd = (ndimage.map_coordinates(v, at, order=1, mode="nearest") for v in (self.mean, self.sd))
        found = np.zeros_like(values)
        found[prepared.brain] = np.maximum((values[prepared.brain] - mean) / sd, 0.0)
        return found


class Moments:
    """Sums over people, from which any one can be left out again."""

    def __init__(self, names: list[str], resolution: int) -> None:
        self.names, self.shape = names, (resolution,) * 3
        keys = ["count", *(f"{name}/{power}" for name in names for power in ("sum", "square"))]
        self.sums: Sums = {key: np.zeros(self.shape, dtype=np.float32) for key in keys}
        self.people = 0

    def add(self, values: Mapping[str, FloatVolume], prepared: Prepared, pose: Pose | None) -> None:
        """Count one person."""
        for key, volume in self._of(values, prepared, pose).items():
            self.sums[key] += volume
        self.people += 1

    def without(self, values: Mapping[str, FloatVolume], prepared: Prepared, pose: Pose | None) -> dict[str, Standard]:
        """What the others say: a person must not be measured by itself. With one person alone, what that one says."""
        if self.people < 2:
            return self.standards(float(prepared.lattice.spacing.mean()))
        own = self._of(values, prepared, pose)
        rest = Moments.__new__(Moments)
        rest.names, rest.shape, rest.people = self.names, self.shape, self.people - 1
        rest.sums = {key: volume - own[key] for key, volume in self.sums.items()}
        return rest.standards(float(prepared.lattice.spacing.mean()))

    def standards(self, spacing: float) -> dict[str, Standard]:
        """Blurred, shrunk mean and SD per score; lattice spacing in mm."""
        blurred = {key: ndimage.gaussian_filter(volume, BLUR_MM / FWHM / spacing) for key, volume in self.sums.items()}
        return {name: self._standard(name, blurred) for name in self.names}

    def _standard(self, name: str, sums: Sums) -> Standard:
        count, total, square = sums["count"], sums[f"{name}/sum"], sums[f"{name}/square"]
        people = max(float(count.sum(dtype=np.float64)), 1e-6)
        middle = float(total.sum(dtype=np.float64)) / people
        mean = (total + SHRINK_PEOPLE * middle) / (count + SHRINK_PEOPLE)
        spread = np.maximum(square - 2 * mean * total + mean**2 * count, 0.0)
        usual = float(spread.sum(dtype=np.float64)) / people
        variance = (spread + SHRINK_PEOPLE * usual) / (count + SHRINK_PEOPLE)
        return Standard(mean.astype(np.float32), np.sqrt(np.maximum(variance, 1e-12)).astype(np.float32))

    def _of(self, values: Mapping[str, FloatVolume], prepared: Prepared, pose: Pose | None) -> Sums:
        """One person's sums, at the nearest lattice voxels of the training's frame."""
        at = np.rint(_voxels(prepared, pose)).astype(np.intp).clip(0, self.shape[0] - 1)
        flat, size = np.ravel_multi_index(tuple(at), self.shape), int(np.prod(self.shape))
        count = np.bincount(flat, minlength=size)
        sums = {"count": (count > 0).reshape(self.shape).astype(np.float32)}
        for name in self.names:
            mine = values[name][prepared.brain]
            for power, weight in (("sum", mine), ("square", mine**2)):
                total = np.bincount(flat, weights=weight, minlength=size) / np.maximum(count, 1)
                sums[f"{name}/{power}"] = total.reshape(self.shape).astype(np.float32)
        return sums


def write_reference(path: Path, standards: Mapping[str, Standard]) -> str:
    """Write the maps to a file beside the calibration; returns its SHA-256, which the calibration names."""
    stream = io.BytesIO()
    maps = {f"{name}/{part}": getattr(one, part) for name, one in standards.items() for part in ("mean", "sd")}
    np.savez_compressed(stream, allow_pickle=False, **{key: value.astype(np.float32) for key, value in maps.items()})
    content = stream.getvalue()
    write_bytes(path, content)
    return hashlib.sha256(content).hexdigest()


def read_reference(where: Path, wanted: str) -> dict[str, Standard]:
    """The maps that a calibration names.

    Raises:
        ExperimentError: They are gone, damaged, or of another calibration.
    """
    remedy = "run `anofield calibrate` again"
    try:
        content = where.read_bytes()
    except OSError as error:
        raise ExperimentError(f"cannot be read ({error})", where=where, remedy=remedy) from error
    if hashlib.sha256(content).hexdigest() != wanted:
        raise ExperimentError(
            "is not the file that its calibration names", where=where, why="it is damaged or newer", remedy=remedy
        )
    with np.load(io.BytesIO(content), allow_pickle=False) as maps:
        names = sorted({key.rpartition("/")[0] for key in maps})
        return {n: Standard(*(maps[f"{n}/{part}"].astype(np.float32) for part in ("mean", "sd"))) for n in names}


def _voxels(prepared: Prepared, pose: Pose | None) -> NDArray[np.float64]:
    """Lattice indices, in the training's frame, of the brain voxels, (3, voxel)."""
    index = np.stack(np.nonzero(prepared.brain)).astype(np.float64)
    if pose is None:
        return index
    resolution = prepared.lattice.resolution
    zero, one = field_coordinates(np.array([0.0, 1.0]), resolution, prepared.recipe.lattice)
    moved = pose(torch.from_numpy((zero + (one - zero) * index.T).astype(np.float32))).numpy().astype(np.float64)
    return np.asarray((moved.T - zero) / (one - zero))
