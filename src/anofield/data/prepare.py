"""From a scan to classes on a lattice: geometry → clip → normalise → resample → classes → mode pool.

There are two kinds of recipe. The box, one physical cube for every data set, is implemented here, and the recipes of
2021 are implemented in `data/published.py`.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from anofield.data import published
from anofield.data.brain import StrippedScan, as_stripped
from anofield.data.classes import assign_brain, mode_pool
from anofield.data.cohort.case import Case
from anofield.data.labels import read_truth
from anofield.data.lattice import box_lattice, brain_to_lattice, posed_lattice, to_lattice
from anofield.data.layout import PosedBy
from anofield.data.prepared import Prepared
from anofield.data.published import normalise_clip_minmax
from anofield.data.recipe import Normalisation, Recipe, RecipeName
from anofield.data.tissue import normalise_tissue
from anofield.errors import UsageError
from anofield.typing import Affine, Classes, Mask, Volume

ROBUST_CENTER, ROBUST_SCALE = 0.4, 0.12  # median → 0.4, one interquartile range → 0.12: CSF and oedema stay below 1
INTENSITY_FLOOR = 0.02  # lowest intensity of brain voxels; 0 is background


@dataclass(frozen=True)
class Steps:
    """The functions of a recipe: how it prepares a scan, and where its lattice lies if there is no scan.

    Attributes:
        prepare: Function of scan and brain, label (i, j, k) or None, recipe, and pose (4, 4) or None; returns the
            scan on the lattice.
        assumed_affine: Function of the recipe; returns the affine from lattice index to world RAS+ mm, (4, 4).
        assumption: Function of the recipe; returns the assumption behind that affine, in words.
    """

    prepare: Callable[[StrippedScan, Volume | None, Recipe, Affine | None], Prepared]
    assumed_affine: Callable[[Recipe], Affine]
    assumption: Callable[[Recipe], str]


class Place(Protocol):
    """Finds where a head lies, as `anofield.detect.placer.Placer` does with a trained field."""

    @property
    def source(self) -> PosedBy:
        """What finds the pose; stores and baselines record it."""

    def __call__(self, native: StrippedScan, prepared: Prepared) -> Affine:
        """The pose of a scan: its field coordinates → field coordinates in the training's frame, (4, 4)."""


def steps_of(recipe: Recipe) -> Steps:
    """The steps of a recipe, by its name."""
    return _STEPS[recipe.name]


def prepare_case(case: Case, recipe: Recipe, place: Place | None = None) -> Prepared:
    """Read one case and resample it to the lattice of the recipe, with the content hash of its scan.

    Args:
        case: The scan, its mask and its labels.
        recipe: How to prepare it.
        place: Finds its pose, so that it is prepared on the posed lattice; None takes it as it lies.

    Raises:
        ScanError: The scan, its mask or its label cannot be used, or the recipe needs another shape.
    """
    native = as_stripped(case.image, case.mask, dtype=recipe.kind.dtype)
    label = read_truth(case.labels, native.scan, native.brain) if case.labels else None
    pose = None if place is None else place(native, prepare_scan(native, None, recipe))
    return replace(prepare_scan(native, label, recipe, pose), content=native.scan.content_hash)


def prepare_scan(native: StrippedScan, label: Volume | None, recipe: Recipe, pose: Affine | None = None) -> Prepared:
    """Resample a scan in memory to the lattice of the recipe.

    Args:
        native: Scan and brain; only float64 data give exactly the published numbers with the published recipes.
        label: Lesion truth (i, j, k), or None.
        recipe: How to prepare it.
        pose: Field coordinates of the scan → field coordinates in the training's frame, (4, 4), as
            `anofield.detect.pose.Pose.matrix`. The lattice then lies in the training's frame, and is oblique in the
            scan if the head is turned. The scan is resampled once. None for a lattice along the scanner's axes.

    Raises:
        ScanError: The recipe needs a scan of another shape.
        UsageError: A pose is given with a published recipe, or is no affine map.
    """
    if pose is not None:
        _check_pose(pose, recipe)
    return steps_of(recipe).prepare(native, label, recipe, pose)


def normalise_robust(values: NDArray[np.float32]) -> tuple[float, float]:
    """(a, b) so that (x − a)/b puts the brain's median at 0.4 and its interquartile range at 0.12.

    Args:
        values: Brain intensities of one scan, any number.
    """
    low, middle, high = np.percentile(values, (25.0, 50.0, 75.0))
    least = 1e-6 * (abs(float(middle)) or float(np.abs(values).max()) or 1.0)  # in the unit of the scan
    b = max(float(high - low), least) / ROBUST_SCALE
    return float(middle) - ROBUST_CENTER * b, b


def check_posable(recipe: Recipe) -> None:
    """Check that scans can be prepared on a posed lattice.

    Raises:
        UsageError: The recipe is a published one.
    """
    if recipe.kind.published:
        raise UsageError(
            f"the recipe {recipe.name} takes no pose",
            why="its voxels are fixed crops of the scanner's own, as published",
            remedy="use the box recipe for posed scans",
        )


def _check_pose(pose: Affine, recipe: Recipe) -> None:
    check_posable(recipe)
    if pose.shape != (4, 4) or not np.isfinite(pose).all() or np.linalg.det(pose[:3, :3]) <= 0:
        raise UsageError(
            "the pose is no affine map", why="it must be (4, 4), finite, and not mirror the head", remedy="fit it again"
        )


def _prepare_box(native: StrippedScan, label: Volume | None, recipe: Recipe, pose: Affine | None) -> Prepared:
    if recipe.resolution is None:
        raise UsageError("the box recipe needs a resolution", remedy="set it, for example 160")
    scan, brain = native.scan, native.brain
    lattice = box_lattice(scan, brain, recipe.resolution, recipe.box_mm)
    if pose is not None:
        lattice = posed_lattice(lattice, pose, recipe.lattice)
    values = scan.data[brain]
    shift, scale = _NORMALISATIONS[recipe.normalise](values)
    normalised = np.zeros(brain.shape, dtype=np.float32)
    normalised[brain] = np.clip((values - shift) / scale, INTENSITY_FLOOR, 1.0)
    mean, inside = brain_to_lattice(normalised, brain, lattice)
    intensity = mean * inside
    return Prepared(
        classes=_pooled(assign_brain(intensity, inside, recipe.centers), inside, recipe),
        brain=inside,
        intensity=intensity,
        label=None if label is None else to_lattice(label, lattice, order=0).clip(0, 255).astype(np.uint8),
        lattice=lattice,
        recipe=recipe,
        scale=(shift, scale),
    )


def _normalise_tissue(values: NDArray[np.float32]) -> tuple[float, float]:
    """Grey and white matter at fixed values; as `normalise_robust` where they cannot be told apart."""
    return normalise_tissue(values) or normalise_robust(values)


def _prepare_published(native: StrippedScan, label: Volume | None, recipe: Recipe, pose: Affine | None) -> Prepared:
    return published.prepare_published(native, label, recipe)  # `_check_pose` refuses a pose


def _pooled(classes: Classes, inside: Mask, recipe: Recipe) -> Classes:
    """Classes after the mode pool, if there is one; class 0 stays outside the brain."""
    if not recipe.mode_pool:
        return classes
    pooled = mode_pool(classes, recipe.mode_pool, len(recipe.centers))
    return np.where(inside & (pooled > 0), pooled, classes)


def _box_affine(recipe: Recipe) -> Affine:
    """Lattice index → world RAS+ mm of a box around the world's origin."""
    side = published.lattice_side(recipe)
    step = recipe.box_mm / side
    affine = np.diag([step, step, step, 1.0])
    affine[:3, 3] = -step * (side - 1) / 2
    return affine


def _box_assumption(recipe: Recipe) -> str:
    return f"the {recipe.box_mm:g} mm box with the brain's centre of mass at the world's origin"


_NORMALISATIONS: dict[Normalisation, Callable[[NDArray[np.float32]], tuple[float, float]]] = {
    "robust": normalise_robust,
    "clip-minmax": normalise_clip_minmax,
    "tissue": _normalise_tissue,
}
_BOX = Steps(_prepare_box, _box_affine, _box_assumption)
_PUBLISHED = Steps(_prepare_published, published.assumed_affine, published.assumption)
_STEPS: dict[RecipeName, Steps] = {"box": _BOX, "ifl2021-hcp": _PUBLISHED, "ifl2021-brats": _PUBLISHED}
