"""Voxel-wise healthy mean and SD of each score on the lattice: where healthy subjects differ, a score counts less.

A dozen subjects say little about one voxel, so sums are blurred over neighbours and shrunk towards the brain's average.
"""

from __future__ import annotations

import hashlib
import io
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from scipy import ndimage

from anofield._files import write_bytes
from anofield.data.lattice import FWHM, field_coordinates
from anofield.data.prepared import Prepared
from anofield.detect.pose import Pose
from anofield.errors import ExperimentError
from anofield.typing import FloatVolume

BLUR_MM = 5.0  # FWHM of the blur of the sums; AP of small lesions: 0.392 with 5 mm, 0.383 with 7, 0.366 with 10
SHRINK_SUBJECTS = 2.0  # weight of the brain's average at every voxel, subjects; 1, 4, 10: AP 0.395, 0.383, 0.349
Sums = dict[str, FloatVolume]  # "count", and per score "<name>/sum" and "<name>/square", each (R, R, R)


@dataclass(frozen=True)
class Standard:
    """Mean and SD of one score over healthy subjects, (R, R, R), in the training's frame."""

    mean: FloatVolume
    sd: FloatVolume

    def applied(self, values: FloatVolume, prepared: Prepared, pose: Pose | None) -> FloatVolume:
        """Scores as (value − mean)/SD, read at the positions given by the pose; at least 0, and 0 outside the brain."""
        at = _voxels(prepared, pose)
        mean, sd = (ndimage.map_coordinates(v, at, order=1, mode="nearest") for v in (self.mean, self.sd))
        found = np.zeros_like(values)
        found[prepared.brain] = np.maximum((values[prepared.brain] - mean) / sd, 0.0)
        return found


@dataclass(frozen=True)
class Moments:
    """Sums over subjects, from which any subject can be removed.

    Attributes:
        names: Names of the scores.
        sums: Sums per score, each (R, R, R).
        subjects: Number of subjects.
    """

    names: Sequence[str]
    sums: Sums
    subjects: int

    @classmethod
    def none(cls, names: Sequence[str], like: Sums) -> Moments:
        """Sums over no subject, in the shape of a contribution."""
        return cls(names, {key: np.zeros_like(volume) for key, volume in like.items()}, 0)

    def plus(self, sums: Sums) -> Moments:
        """The sums with one more subject's contribution."""
        return Moments(self.names, {key: volume + sums[key] for key, volume in self.sums.items()}, self.subjects + 1)

    @staticmethod
    def sums_of(names: Sequence[str], values: Mapping[str, FloatVolume], prepared: Prepared, pose: Pose | None) -> Sums:
        """One subject's contribution, at the nearest lattice voxels of the training's frame."""
        shape = prepared.lattice.shape
        at = np.rint(_voxels(prepared, pose)).astype(np.intp).clip(0, shape[0] - 1)
        flat, size = np.ravel_multi_index(tuple(at), shape), int(np.prod(shape))
        count = np.bincount(flat, minlength=size)
        sums = {"count": (count > 0).reshape(shape).astype(np.float32)}
        for name in names:
            mine = values[name][prepared.brain]
            for power, weight in (("sum", mine), ("square", mine**2)):
                total = np.bincount(flat, weights=weight, minlength=size) / np.maximum(count, 1)
                sums[f"{name}/{power}"] = total.reshape(shape).astype(np.float32)
        return sums

    def without(self, sums: Sums) -> Moments:
        """The sums without one subject, so that it is not compared with itself; unchanged if it is the only one."""
        if self.subjects < 2:
            return self
        return Moments(self.names, {key: volume - sums[key] for key, volume in self.sums.items()}, self.subjects - 1)

    def standards(self, spacing: float) -> dict[str, Standard]:
        """Blurred and shrunk mean and SD per score; `spacing` is the lattice spacing, mm."""
        blurred = {key: ndimage.gaussian_filter(volume, BLUR_MM / FWHM / spacing) for key, volume in self.sums.items()}
        return {name: self._standard(name, blurred) for name in self.names}

    def _standard(self, name: str, sums: Sums) -> Standard:
        count, total, square = sums["count"], sums[f"{name}/sum"], sums[f"{name}/square"]
        subjects = max(float(count.sum(dtype=np.float64)), 1e-6)
        middle = float(total.sum(dtype=np.float64)) / subjects
        mean = (total + SHRINK_SUBJECTS * middle) / (count + SHRINK_SUBJECTS)
        spread = np.maximum(square - 2 * mean * total + mean**2 * count, 0.0)
        usual = float(spread.sum(dtype=np.float64)) / subjects
        variance = (spread + SHRINK_SUBJECTS * usual) / (count + SHRINK_SUBJECTS)
        return Standard(mean.astype(np.float32), np.sqrt(np.maximum(variance, 1e-12)).astype(np.float32))


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
        ExperimentError: The maps are missing, damaged, or belong to another calibration.
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
