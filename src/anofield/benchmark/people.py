"""Groups of people that a benchmark trains, calibrates or tests on; each is written when it is first needed."""

from __future__ import annotations

import gzip
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Protocol

import nibabel as nib
import numpy as np
from numpy.typing import NDArray
from scipy.spatial.transform import Rotation

from anofield import study
from anofield._files import write_bytes
from anofield.data.cohort.case import Case
from anofield.phantom.cohort import GZIP_LEVEL, Cohort
from anofield.typing import Volume

TURN_DEGREES, SHIFT_MM, SIZE = 30.0, 30.0, (0.9, 1.1)  # largest displacement; chosen by hand, wider than clinical heads
THICK_MM = 5.0  # slices of many clinical protocols


class People(Protocol):
    """A group of people. A group has the same scans wherever it is used, so two suites can share it by its name."""

    @property
    def name(self) -> str:
        """Name of the group, and of its folder."""

    def cases(self, folder: Path, seed: int) -> list[Case]:
        """The scans of the group; missing ones are written to a folder of its own, which no other process uses now.

        Args:
            folder: Folder that holds the folders of all groups.
            seed: Seed of the benchmark.
        """


@dataclass(frozen=True, kw_only=True)
class Phantoms:
    """Synthetic people.

    Attributes:
        name: Name of the group.
        cohort: Properties of the scans; the seed of the benchmark replaces its own.
        plan: Case numbers and lesion kinds, see `anofield.phantom.cohort.plan_cohort`.
    """

    name: str
    cohort: Cohort
    plan: Sequence[tuple[int, str | None]]

    def cases(self, folder: Path, seed: int) -> list[Case]:
        """The scans, in the layout of BraTS; missing ones are written."""
        cohort = replace(self.cohort, seed=seed)
        found = study.write_people(folder / self.name, cohort, self.plan, f"people {self.name}")
        return found[: len(self.plan)]


@dataclass(frozen=True, kw_only=True)
class First:
    """The first people of a group."""

    people: People
    count: int

    @property
    def name(self) -> str:
        """Name of the group and how many."""
        return f"{self.people.name}-first-{self.count}"

    def cases(self, folder: Path, seed: int) -> list[Case]:
        """The scans of the group, in its order."""
        return self.people.cases(folder, seed)[: self.count]


Change = Callable[[nib.Nifti1Image, bool, np.random.Generator], nib.Nifti1Image]  # image, whether it is a label, random


@dataclass(frozen=True, kw_only=True)
class Changed:
    """The scans of a group after a change, such as `displaced` and `thick`.

    Attributes:
        people: The group.
        change: Function of image, whether it is a label, and a generator that is the same for scan and label.
    """

    people: People
    change: Change

    @property
    def name(self) -> str:
        """Name of the group and of the change."""
        return f"{self.people.name}-{self.change.__name__}"

    def cases(self, folder: Path, seed: int) -> list[Case]:
        """The changed scans and labels; missing ones are written."""
        return [self._changed(case, folder / self.name, seed) for case in self.people.cases(folder, seed)]

    def _changed(self, case: Case, folder: Path, seed: int) -> Case:
        number = int("".join(filter(str.isdigit, case.id))[-5:])
        parts: dict[str, Path | None] = {"image": case.image, "label": case.label}
        made: dict[str, Path] = {}
        for part, path in parts.items():
            if path is None:
                continue
            target = made[part] = folder / path.name
            if not target.is_file():
                changed = self.change(
                    nib.Nifti1Image.from_filename(path), part == "label", np.random.default_rng([seed, number])
                )
                write_bytes(target, gzip.compress(changed.to_bytes(), GZIP_LEVEL, mtime=0))
        return Case(case.id, made["image"], made.get("label"))


def displaced(image: nib.Nifti1Image, is_label: bool, random: np.random.Generator) -> nib.Nifti1Image:
    """The same voxels, lying elsewhere in the world: turned, shifted and scaled by the affine alone."""
    turn = Rotation.from_rotvec(np.radians(random.uniform(-1, 1, 3) * TURN_DEGREES / np.sqrt(3)))
    move = np.eye(4)
    move[:3, :3] = turn.as_matrix() * random.uniform(*SIZE)
    move[:3, 3] = random.uniform(-SHIFT_MM, SHIFT_MM, 3)
    return nib.Nifti1Image(np.asarray(image.dataobj), move @ image.affine)


def thick(image: nib.Nifti1Image, is_label: bool, random: np.random.Generator) -> nib.Nifti1Image:
    """Axial slices of `THICK_MM`, each the mean over its thickness; labels become 1 where they fill half of it.

    A voxel of the scan that a new slice cuts counts with the part that lies in the slice. A voxel is brain where the
    mean over its thickness holds at least half brain.
    """
    weights = _slab_weights(image.shape[2], float(np.linalg.norm(image.affine[:3, 2])))
    affine = image.affine.copy()
    step = THICK_MM / np.linalg.norm(image.affine[:3, 2])
    affine[:3, 2] *= step
    affine[:3, 3] += image.affine[:3, 2] * (step - 1) / 2
    return nib.Nifti1Image(_mean_of_slabs(np.asarray(image.dataobj), weights, is_label), affine)


def _slab_weights(count: int, spacing: float) -> NDArray[np.float32]:
    """Share of each new slice that each of `count` old slices of `spacing` mm fills, (new, old)."""
    edges = np.arange(0, count * spacing + 1e-6, THICK_MM)
    low, high = edges[:-1, None], edges[1:, None]
    start = np.arange(count) * spacing
    shares = np.clip(np.minimum(high, start + spacing) - np.maximum(low, start), 0, None) / THICK_MM
    return np.asarray(shares, dtype=np.float32)


def _mean_of_slabs(data: Volume, weights: NDArray[np.float32], is_label: bool) -> Volume:
    """(i, j, k) → (i, j, new slice), in the type of the data."""
    if is_label:
        return np.asarray((data > 0).astype(np.float32) @ weights.T >= 0.5, dtype=data.dtype)
    brain = (data > 0).astype(np.float32) @ weights.T
    mean = (data.astype(np.float32) @ weights.T) / np.maximum(brain, 1e-6)
    return np.asarray(np.where(brain >= 0.5, np.maximum(np.rint(mean), 1), 0), dtype=data.dtype)
