"""From a scan to classes on a lattice: geometry → clip → normalise → resample → classes → mode pool.

There are two kinds of recipe. The box, one physical cube for every data set, is implemented here, and the recipes of
2021 are implemented in `data/published.py`.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from anofield.data import published
from anofield.data.brain import StrippedScan, as_stripped
from anofield.data.classes import assign_brain, mode_pool
from anofield.data.cohort.case import Case
from anofield.data.labels import read_truth
from anofield.data.lattice import box_lattice, brain_to_lattice, to_lattice
from anofield.data.prepared import Prepared
from anofield.data.published import normalise_clip_minmax
from anofield.data.recipe import Recipe, RecipeName
from anofield.errors import UsageError
from anofield.typing import Affine, Classes, Mask, Volume

ROBUST_CENTER, ROBUST_SCALE = 0.4, 0.12  # median → 0.4, one interquartile range → 0.12: CSF and oedema stay below 1
INTENSITY_FLOOR = 0.02  # lowest intensity of brain voxels; 0 is background


@dataclass(frozen=True)
class Steps:
    """The functions of a recipe: how it prepares a scan, and where its lattice lies if there is no scan.

    Attributes:
        prepare: Function of scan and brain, label (i, j, k) or None, and recipe; returns the scan on the lattice.
        assumed_affine: Function of the recipe; returns the affine from lattice index to world RAS+ mm, (4, 4).
        assumption: Function of the recipe; returns the assumption behind that affine, in words.
    """

    prepare: Callable[[StrippedScan, Volume | None, Recipe], Prepared]
    assumed_affine: Callable[[Recipe], Affine]
    assumption: Callable[[Recipe], str]


def steps_of(recipe: Recipe) -> Steps:
    """The steps of a recipe, by its name."""
    return _STEPS[recipe.name]


def prepare_case(case: Case, recipe: Recipe) -> Prepared:
    """Read one case and resample it to the lattice of the recipe, with the content hash of its scan.

    Raises:
        ScanError: The scan, its mask or its label cannot be used, or the recipe needs another shape.
    """
    native = as_stripped(case.image, case.mask, dtype=recipe.kind.dtype)
    label = read_truth(case.labels, native.scan, native.brain) if case.labels else None
    return replace(prepare_scan(native, label, recipe), content=native.scan.content_hash)


def prepare_scan(native: StrippedScan, label: Volume | None, recipe: Recipe) -> Prepared:
    """Resample a scan in memory to the lattice of the recipe.

    Args:
        native: Scan and brain; only float64 data give exactly the published numbers with the published recipes.
        label: Lesion truth (i, j, k), or None.
        recipe: How to prepare it.

    Raises:
        ScanError: The recipe needs a scan of another shape.
    """
    return steps_of(recipe).prepare(native, label, recipe)


def normalise_robust(values: NDArray[np.float32]) -> tuple[float, float]:
    """(a, b) so that (x − a)/b puts the brain's median at 0.4 and its interquartile range at 0.12.

    Args:
        values: Brain intensities of one scan, any number.
    """
    low, middle, high = np.percentile(values, (25.0, 50.0, 75.0))
    least = 1e-6 * (abs(float(middle)) or float(np.abs(values).max()) or 1.0)  # in the unit of the scan
    b = max(float(high - low), least) / ROBUST_SCALE
    return float(middle) - ROBUST_CENTER * b, b


def _prepare_box(native: StrippedScan, label: Volume | None, recipe: Recipe) -> Prepared:
    if recipe.resolution is None:
        raise UsageError("the box recipe needs a resolution", remedy="set it, for example 160")
    scan, brain = native.scan, native.brain
    lattice = box_lattice(scan, brain, recipe.resolution, recipe.box_mm)
    normalise = normalise_robust if recipe.normalise == "robust" else normalise_clip_minmax
    values = scan.data[brain]
    shift, scale = normalise(values)
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


_BOX = Steps(_prepare_box, _box_affine, _box_assumption)
_PUBLISHED = Steps(published.prepare_published, published.assumed_affine, published.assumption)
_STEPS: dict[RecipeName, Steps] = {"box": _BOX, "ifl2021-hcp": _PUBLISHED, "ifl2021-brats": _PUBLISHED}
