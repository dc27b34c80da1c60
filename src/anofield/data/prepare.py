"""From a scan to classes on a lattice: geometry → clip → normalise → resample → classes → mode pool.

Recipes: `box` (one physical cube for every data set); `ifl2021-hcp`, `ifl2021-brats` (Naval Marimont & Tarroni 2021).
"""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict, Field, ValidationError, ValidationInfo, field_validator

from anofield._files import file_hash
from anofield._words import counted
from anofield.data.classes import MAX_CLASSES, PAPER_CENTERS, assign, assign_brain, fit_centers, mode_pool
from anofield.data.cohort.case import Case
from anofield.data.lattice import (
    Convention,
    Lattice,
    box_lattice,
    brain_to_lattice,
    surroundings,
    to_lattice,
    zoom_cube,
)
from anofield.data.scan import Scan, brain_mask, check_contrast, read_labels, read_scan
from anofield.errors import ScanError, UsageError
from anofield.typing import Affine, Classes, FloatVolume, Mask, Shape3, Volume

BOX_MM = 200.0  # adult brains reach about 190 mm from frontal to occipital pole; 5 mm stay free on both sides
CLIP_PERCENTILES = (2.0, 98.0)  # Naval Marimont & Tarroni 2021
ROBUST_CENTER, ROBUST_SCALE = 0.4, 0.12  # median → 0.4, one interquartile range → 0.12: CSF and oedema stay below 1
INTENSITY_FLOOR = 0.02  # of brain voxels; 0 is background
CENTER_CASES, CENTER_VOXELS = 40, 20_000  # scans and voxels per scan that class centres are fitted on

RecipeName = Literal["box", "ifl2021-hcp", "ifl2021-brats"]
LabelResampling = Literal["nearest", "published"]


class Recipe(BaseModel):
    """How scans become class volumes; stored with every store and experiment, so that detection repeats it.

    Attributes:
        name: Geometry and steps.
        resolution: R, lattice voxels per axis; None keeps the published full resolution (`ifl2021-*` only).
        box_mm: Side of the cube in mm (`box` only).
        normalise: `robust` (median and interquartile range) or `clip-minmax` (published).
        centers: Ordered class centres in normalised intensity.
        mode_pool: Window of the mode pool, None for none.
        lattice: Field coordinates at voxel centres, or corners as published.
        label_resampling: `nearest` keeps the values of the label map; `published` mixes them linearly and rounds, as
            the 2021 scripts do (`ifl2021-*` only).
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    name: RecipeName = "box"
    resolution: int | None = Field(default=96, ge=8, le=512)
    box_mm: float = Field(default=BOX_MM, gt=0)
    normalise: Literal["robust", "clip-minmax"] = "robust"
    centers: tuple[float, ...] = Field(default=PAPER_CENTERS, min_length=3, max_length=MAX_CLASSES)
    mode_pool: Literal[2, 3] | None = None
    lattice: Convention = "center"
    label_resampling: LabelResampling = "nearest"

    @field_validator("centers")
    @classmethod
    def _ordered(cls, centers: tuple[float, ...]) -> tuple[float, ...]:
        if not all(a < b for a, b in itertools.pairwise(centers)):  # NaN compares false
            raise ValueError("class centres must increase")
        return centers

    @field_validator("label_resampling")
    @classmethod
    def _published_only(cls, value: str, info: ValidationInfo) -> str:
        if value == "published" and info.data.get("name") == "box":
            raise ValueError("only the ifl2021 recipes resample labels as published, the box recipe takes the nearest")
        return value

    @property
    def outside_class(self) -> bool:
        """Whether class 0 is kept for what lies outside the brain; the published recipes also give it inside."""
        return self.name == "box"


@dataclass(frozen=True)
class Prepared:
    """A scan on the lattice of the field.

    Attributes:
        classes: Intensity class, (R, R, R) uint8.
        brain: Brain voxels, (R, R, R).
        intensity: Normalised intensity, (R, R, R) float32, 0 outside the brain.
        label: Lesion truth, (R, R, R) uint8, or None.
        lattice: Where the lattice lies in the scan.
        recipe: How it was prepared: class centres, field coordinates, what class 0 means.
        scan, native_brain: The scan itself and its brain voxels, (i, j, k).
        scale: (a, b): normalised = (native − a)/b.
        source_hash: SHA-256 of the scan file.
    """

    classes: Classes
    brain: Mask
    intensity: FloatVolume
    label: Classes | None
    lattice: Lattice
    recipe: Recipe
    scan: Scan
    native_brain: Mask
    scale: tuple[float, float]
    source_hash: str


def recipe_for(
    name: RecipeName,
    resolution: int | None,
    mode_pool_width: int | None = None,
    label_resampling: LabelResampling = "nearest",
) -> Recipe:
    """A recipe with the settings that belong to its name.

    Raises:
        UsageError: The resolution or the mode pool is out of range, `box` has no resolution or would mix labels.
    """
    fixed = {} if name == "box" else {"normalise": "clip-minmax", "lattice": "corner"}
    if name == "box" and resolution is None:
        raise UsageError("the box recipe has no full resolution", remedy="give voxels per axis, for example --res 160")
    wanted = {"resolution": resolution, "mode_pool": mode_pool_width, "label_resampling": label_resampling}
    try:
        return Recipe.model_validate({"name": name, **wanted, **fixed})
    except ValidationError as error:
        first = error.errors()[0]
        what = f"{first['loc'][0]} {first['input']}: {first['msg'][0].lower()}{first['msg'][1:]}"
        labels = first["loc"][0] == "label_resampling"
        remedy = "leave it at nearest" if labels else "give --res 8 to 512 and --mode-pool 2 or 3"
        raise UsageError(what, remedy=remedy) from error


def prepare_case(case: Case, recipe: Recipe) -> Prepared:
    """Read one case and bring it on the lattice of the recipe.

    Raises:
        ScanError: The scan, its mask or its label cannot be used, or its shape is not the recipe's.
    """
    scan = read_scan(case.image, dtype=np.float32 if recipe.name == "box" else np.float64)
    brain = brain_mask(scan, case.mask)
    check_contrast(scan.data[brain], case.image)
    label = None if case.label is None else read_labels(case.label, scan)
    return prepare_scan(scan, brain, label, recipe, file_hash(case.image))


def prepare_scan(scan: Scan, brain: Mask, label: Volume | None, recipe: Recipe, source_hash: str) -> Prepared:
    """Bring a scan that was read on the lattice of the recipe.

    Args:
        scan: float64 data for the published recipes, if their numbers are wanted to the letter.
        brain: Brain voxels, (i, j, k).
        label: Lesion truth (i, j, k), or None.
        recipe: How.
        source_hash: SHA-256 of the scan file.

    Raises:
        ScanError: The scan's shape is not the recipe's.
    """
    steps = _prepare_box if recipe.name == "box" else _prepare_published
    return steps(scan, brain, label, recipe, source_hash)


def fit_cohort_centers(cases: Sequence[Case], recipe: Recipe, count: int, seed: int = 0) -> tuple[float, ...]:
    """Class centres fitted on normalised brain intensities of up to `CENTER_CASES` scans, spread over the cohort.

    Raises:
        ScanError: None of the scans can be prepared.
    """
    picked = [cases[i] for i in np.unique(np.linspace(0, len(cases) - 1, CENTER_CASES).astype(int))]
    refused: list[ScanError] = []
    samples = list(_sampled_intensities(picked, recipe, seed, refused))
    if not samples:
        first = refused[0]
        what = f"{first.what} (the first of {counted(len(refused), 'scan')}, of which none can be prepared)"
        raise ScanError(what, where=first.where, why=first.why, remedy=first.remedy)
    return fit_centers(np.concatenate(samples), count, seed)


def read_centers(
    source: str, cases: Sequence[Case], recipe: Recipe, seed: int = 0, *, before: Recipe | None = None
) -> Recipe:
    """The recipe with class centres from `fit`, `fit:K`, `paper` or a text file of numbers.

    Args:
        source: Where the centres come from.
        cases: What `fit` fits on.
        recipe: Everything but the centres.
        seed: Of the fit.
        before: Recipe of a store to go on with: `fit` keeps its centres, because a scan that was mended since would
            move them, and the finished cases would belong to another recipe.

    Raises:
        UsageError: The file is missing or holds something else than increasing numbers.
    """
    if source == "paper":
        return recipe.model_copy(update={"centers": PAPER_CENTERS})
    if source == "fit" or source.startswith("fit:"):
        count = source.partition(":")[2] or str(len(PAPER_CENTERS))
        if not count.isdecimal():
            raise UsageError(f"--centers {source}", remedy="give fit, fit:K with a number K, paper or a file")
        fitted = before is not None and before.centers != PAPER_CENTERS and len(before.centers) == int(count)
        centers = before.centers if before and fitted else fit_cohort_centers(cases, recipe, int(count), seed)
        return recipe.model_copy(update={"centers": centers})
    try:
        numbers = [float(word) for word in Path(source).read_text().replace(",", " ").split()]
        return Recipe.model_validate({**recipe.model_dump(), "centers": numbers})
    except (OSError, ValueError) as error:
        raise UsageError(
            f"class centres cannot be read ({str(error).splitlines()[0]})",
            where=source,
            remedy="give fit, fit:K, paper, a store, or a text file of increasing numbers between 0 and 1",
        ) from error


def normalise_robust(values: NDArray[np.float32]) -> tuple[float, float]:
    """(a, b) so that (x − a)/b puts the brain's median at 0.4 and its interquartile range at 0.12.

    Args:
        values: Brain intensities of one scan, any number.
    """
    low, middle, high = np.percentile(values, (25.0, 50.0, 75.0))
    least = 1e-6 * (abs(float(middle)) or float(np.abs(values).max()) or 1.0)  # by the scan's own unit
    b = max(float(high - low), least) / ROBUST_SCALE
    return float(middle) - ROBUST_CENTER * b, b


def normalise_clip_minmax(values: NDArray[np.floating]) -> tuple[float, float]:
    """(a, b) so that (x − a)/b maps the 2nd and 98th percentile to 0 and 1 (published)."""
    low, high = np.percentile(values, CLIP_PERCENTILES)
    return float(low), float(high - low) or 1e-12


def _sampled_intensities(
    cases: Iterable[Case], recipe: Recipe, seed: int, refused: list[ScanError]
) -> Iterable[NDArray[np.float32]]:
    """Intensities of every case that can be prepared; the errors of the others go into `refused`."""
    for number, case in enumerate(cases):
        try:
            prepared = prepare_case(case, recipe)
        except ScanError as error:
            refused.append(error)  # the pass that writes the store names them all
            continue
        values = prepared.intensity[prepared.brain]
        generator = np.random.default_rng((seed, number))
        yield generator.choice(values, min(CENTER_VOXELS, values.size), replace=False)


def _prepare_box(scan: Scan, brain: Mask, label: Volume | None, recipe: Recipe, source_hash: str) -> Prepared:
    if recipe.resolution is None:
        raise UsageError("the box recipe needs a resolution", remedy="set it, for example 160")
    lattice = box_lattice(scan, brain, recipe.resolution, recipe.box_mm)
    normalise = normalise_robust if recipe.normalise == "robust" else normalise_clip_minmax
    values = scan.data[brain]
    shift, scale = normalise(values)
    normalised = np.zeros(brain.shape, dtype=np.float32)
    normalised[brain] = np.clip((values - shift) / scale, INTENSITY_FLOOR, 1.0)
    mean, inside = brain_to_lattice(normalised, brain, lattice)
    intensity = mean * inside
    classes = assign_brain(intensity, inside, recipe.centers)
    if recipe.mode_pool:
        pooled = mode_pool(classes, recipe.mode_pool, len(recipe.centers))
        classes = np.where(inside & (pooled > 0), pooled, classes)  # class 0 stays outside the brain
    on_lattice = None if label is None else to_lattice(label, lattice, order=0).clip(0, 255).astype(np.uint8)
    return Prepared(
        classes,
        inside,
        intensity,
        on_lattice,
        lattice,
        recipe,
        scan,
        brain,
        (shift, scale),
        source_hash,
    )


@dataclass(frozen=True)
class _Published:
    """Index arithmetic of one published data set, after the transpose to (2, 1, 0); no axis is both padded and cut."""

    native: Shape3
    flip: tuple[bool, bool, bool]
    pad: tuple[tuple[int, int], tuple[int, int], tuple[int, int]]
    cut: tuple[slice, slice, slice]

    @property
    def side(self) -> int:
        """Voxels per axis of the published cube."""
        return self.native[2] + sum(self.pad[0])

    def turned(self, volume: Volume) -> Volume:
        """View of a native volume (i, j, k) as it lies in the cube, the padding left out."""
        flipped = tuple(slice(None, None, -1) if flip else slice(None) for flip in self.flip)
        return volume.transpose(2, 1, 0)[flipped][self.cut]


_PUBLISHED = {  # Naval Marimont & Tarroni 2021, published preprocessing
    "ifl2021-hcp": _Published(
        (260, 311, 260), (False, True, False), ((20, 20), (0, 0), (20, 20)), (slice(None), slice(5, -6), slice(None))
    ),
    "ifl2021-brats": _Published(
        (240, 240, 155), (False, False, False), ((42, 43), (0, 0), (0, 0)), (slice(None), slice(None), slice(None))
    ),
}


def published_lattice(name: RecipeName, resolution: int | None, native_affine: Affine) -> Lattice:
    """The lattice of a published recipe.

    Args:
        name: `ifl2021-hcp` or `ifl2021-brats`.
        resolution: R, lattice voxels per axis; None for the published full resolution.
        native_affine: Native voxel index → world RAS+ mm, (4, 4).
    """
    steps = _PUBLISHED[name]
    count = resolution or steps.side
    return Lattice(count, _published_affine(steps, steps.side, count), steps.native, native_affine)


def _prepare_published(scan: Scan, brain: Mask, label: Volume | None, recipe: Recipe, source_hash: str) -> Prepared:
    steps = _PUBLISHED[recipe.name]
    if scan.data.shape != steps.native:
        raise ScanError(
            f"has shape {scan.data.shape}, the recipe {recipe.name} is made for {steps.native}",
            where=scan.path,
            why="its padding and cropping are fixed",
            remedy="use the box recipe, which takes any grid",
        )
    lattice = published_lattice(recipe.name, recipe.resolution, scan.affine)
    place, values, scale = _published_intensity(scan.data, steps, lattice)
    intensity = _scattered(lattice, place, values.astype(np.float32), 0)
    classes = _scattered(lattice, place, assign(values, recipe.centers), assign(np.zeros(1), recipe.centers)[0])
    if recipe.mode_pool:
        classes = mode_pool(classes, recipe.mode_pool, len(recipe.centers))
    covered, share = zoom_cube(steps.turned(brain), _start(steps), steps.side, lattice.resolution, 1, np.float32)
    inside = _scattered(lattice, covered, share > 0.5, False)
    truth = None if label is None else _published_label(label, steps, lattice, recipe)
    return Prepared(
        classes, inside, intensity, truth, lattice, recipe, scan, brain, scale, source_hash
    )  # fmt: skip


def _published_intensity(
    data: Volume, steps: _Published, lattice: Lattice
) -> tuple[NDArray[np.intp], NDArray[np.float64], tuple[float, float]]:
    """Where the lattice is not background (flat index), the normalised intensity there, and its (a, b)."""
    turned = steps.turned(data)
    box = surroundings(turned != 0, (0, 0, 0))
    part = np.array(turned[box], dtype=np.float64, order="C")
    foreground = part != 0
    values = part[foreground]
    shift, scale = normalise_clip_minmax(values)
    part[foreground] = (np.clip(values, shift, shift + scale, out=values) - shift) / scale
    start = [first + cut.start for first, cut in zip(_start(steps), box, strict=True)]
    return *zoom_cube(part, start, steps.side, lattice.resolution, 1, np.float64), (shift, scale)


def _published_label(label: Volume, steps: _Published, lattice: Lattice, recipe: Recipe) -> Classes:
    """Labels on the lattice: the nearest voxel's, or a mixture rounded to a number as published."""
    order = 1 if recipe.label_resampling == "published" else 0
    turned = steps.turned(label.clip(0, 255).astype(np.uint8))
    place, values = zoom_cube(turned, _start(steps), steps.side, lattice.resolution, order, np.uint8)
    return _scattered(lattice, place, values, 0)


def _start(steps: _Published) -> list[int]:
    """Index in the cube at which the turned volume starts."""
    return [before for before, _ in steps.pad]


def _scattered(lattice: Lattice, place: NDArray[np.intp], values: NDArray[Any], background: Any) -> NDArray[Any]:
    """Lattice volume (R, R, R) that holds `values` at the flat indices `place`."""
    volume = np.full(lattice.shape, background, dtype=values.dtype)
    volume.reshape(-1)[place] = values
    return volume


def _published_affine(steps: _Published, side: int, resolution: int) -> Affine:
    """Lattice index → native voxel index: the end-point-aligned zoom, crop, pad, flip and transpose as one affine."""
    step = (side - 1) / (resolution - 1)
    to_turned = np.diag([step, step, step, 1.0])
    for axis in range(3):
        start = (steps.cut[axis].start or 0) - steps.pad[axis][0]
        to_turned[axis, 3] = start
        if steps.flip[axis]:
            last = steps.native[2 - axis] - 1
            to_turned[axis] = [-v for v in to_turned[axis]]
            to_turned[axis, 3] += last
    transpose = np.array([[0, 0, 1, 0], [0, 1, 0, 0], [1, 0, 0, 0], [0, 0, 0, 1]], dtype=np.float64)
    return np.asarray(transpose @ to_turned)
