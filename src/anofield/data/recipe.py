"""The recipe, which says how scans become classes: the values fixed by its name, its file, and its checks."""

from __future__ import annotations

import itertools
from collections.abc import Container
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, get_args

import numpy as np
from pydantic import BaseModel, ConfigDict, Field, ValidationError, ValidationInfo, field_validator

from anofield._files import explain, read_json, write_json
from anofield.data.classes import MAX_CLASSES, PAPER_CENTERS
from anofield.data.lattice import Convention
from anofield.errors import AnofieldError, ExperimentError, UsageError

BOX_MM = 200.0  # adult brains reach about 190 mm from frontal to occipital pole; 5 mm stay free on both sides
RECIPE_FILE = "recipe.json"  # in an experiment
FIELD_VALUES = ("resolution", "box_mm", "normalise", "centers", "mode_pool", "lattice")  # what a field learned

RecipeName = Literal["box", "ifl2021-hcp", "ifl2021-brats"]
LabelResampling = Literal["nearest", "published"]
Normalisation = Literal["robust", "clip-minmax", "tissue"]
NAMES: tuple[RecipeName, ...] = get_args(RecipeName)


@dataclass(frozen=True, kw_only=True)
class Kind:
    """The values that the name of a recipe fixes. Only this class and the steps of a recipe depend on its name.

    Attributes:
        published: Whether it is a recipe of 2021: it has a full resolution, and may resample labels as published.
        dtype: Type of the scan's intensities while it is prepared.
        normalisations: Allowed values of `Recipe.normalise`; the first is the default.
        lattice: Default of `Recipe.lattice`.
        outside_class: Whether class 0 is reserved for voxels outside the brain.
        left_right: Lattice axis that runs from one side of the head to the other.
        axial: Lattice axis that runs from foot to head.
    """

    published: bool
    dtype: type[np.floating[Any]]
    normalisations: tuple[Normalisation, ...]
    lattice: Convention
    outside_class: bool
    left_right: int
    axial: int


_BOX = Kind(
    published=False,
    dtype=np.float32,
    normalisations=("robust", "clip-minmax", "tissue"),
    lattice="center",
    outside_class=True,
    left_right=0,  # the box is RAS+
    axial=2,
)
_PUBLISHED = Kind(
    published=True,
    dtype=np.float64,
    normalisations=("clip-minmax",),
    lattice="corner",
    outside_class=False,
    left_right=2,  # the published arrays are transposed
    axial=0,
)
KINDS: dict[RecipeName, Kind] = {"box": _BOX, "ifl2021-hcp": _PUBLISHED, "ifl2021-brats": _PUBLISHED}


class Recipe(BaseModel):
    """How scans become class volumes; stored with every store and experiment, so that detection repeats it.

    Attributes:
        name: Name of the geometry and the steps.
        resolution: R, lattice voxels per axis; None keeps the published full resolution (`ifl2021-*` only).
        box_mm: Side of the cube in mm (`box` only).
        normalise: Normalisation, `robust` (median and interquartile range), `tissue` (levels of grey and white matter)
            or `clip-minmax` (published).
        centers: Ordered class centres in normalised intensity.
        mode_pool: Window width of the mode pool; None for no mode pool.
        lattice: Field coordinates at voxel centres, or at corners as published.
        label_resampling: Resampling of labels; `nearest` keeps their values, `published` mixes and rounds them, as
            the 2021 scripts do (`ifl2021-*` only).
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    name: RecipeName = "box"
    resolution: int | None = Field(default=96, ge=8, le=512)
    box_mm: float = Field(default=BOX_MM, gt=0)
    normalise: Normalisation = "robust"
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
        name = info.data.get("name")
        if value == "published" and name is not None and not KINDS[name].published:
            raise ValueError("only the ifl2021 recipes resample labels as published, the box recipe takes the nearest")
        return value

    @property
    def kind(self) -> Kind:
        """The values that the name fixes."""
        return KINDS[self.name]

    @property
    def outside_class(self) -> bool:
        """Whether class 0 is reserved for voxels outside the brain; the published recipes also assign it inside."""
        return self.kind.outside_class


class RecipeFile(Recipe):
    """`recipe.json` of an experiment: a recipe and the number of its format."""

    format: Literal[1] = 1


def recipe_for(
    name: RecipeName,
    resolution: int | None,
    mode_pool_width: int | None = None,
    label_resampling: LabelResampling = "nearest",
) -> Recipe:
    """A recipe with the values that belong to its name.

    Raises:
        UsageError: The name is unknown; the resolution or the mode pool is out of range; `box` has no resolution or
            resamples labels as published.
    """
    if name not in KINDS:
        raise UsageError(f"unknown recipe {name!r}", remedy=f"choose one of {', '.join(KINDS)}")
    kind = KINDS[name]
    if resolution is None and not kind.published:
        raise UsageError("the box recipe has no full resolution", remedy="give voxels per axis, for example --res 160")
    wanted = {"resolution": resolution, "mode_pool": mode_pool_width, "label_resampling": label_resampling}
    fixed = {"normalise": kind.normalisations[0], "lattice": kind.lattice}
    try:
        return Recipe.model_validate({"name": name, **wanted, **fixed})
    except ValidationError as error:
        key = error.errors()[0]["loc"][0]
        labels = key == "label_resampling"
        remedy = "leave it at nearest" if labels else "give --res 8 to 512 and --mode-pool 2 or 3"
        text = explain(error).removeprefix(f"{key!r}: ")
        raise UsageError(f"{key} {error.errors()[0]['input']}: {text}", remedy=remedy) from error


def missing_keys(content: Container[str]) -> list[str]:
    """Required keys that a stored recipe lacks. With a default instead, scans could be prepared in another way.

    >>> missing_keys(Recipe().model_dump(exclude={"centers"}))
    ['centers']
    """
    return [key for key in Recipe.model_fields if key not in content]


def read_recipe(path: Path) -> Recipe:
    """The recipe of an experiment.

    Args:
        path: Directory of the experiment.

    Raises:
        ExperimentError: There is no recipe, it cannot be read, or it lacks keys.
    """
    return _read_file(
        path / RECIPE_FILE,
        error=ExperimentError,
        why="scans must be prepared as in training",
        remedy="copy recipe.json from the experiment's backup, or continue training on the store, which writes it",
    )


def write_recipe(path: Path, recipe: Recipe) -> None:
    """Write the recipe of an experiment next to its specs; see `check_recipe`."""
    check_recipe(path, recipe)
    write_json(path / RECIPE_FILE, RecipeFile(**recipe.model_dump()))


def check_recipe(path: Path, recipe: Recipe) -> None:
    """Compare a recipe with that of an experiment, if it has one already.

    Raises:
        UsageError: The experiment was trained on a store of another recipe.
    """
    if (path / RECIPE_FILE).exists() and read_recipe(path) != recipe:
        raise UsageError(
            "the store was prepared with another recipe than this experiment was trained on",
            where=path / RECIPE_FILE,
            why="classes and positions would have another meaning",
            remedy="train on the old store (with the old Lattice in specs.json), or start a new experiment",
        )


def recipe_in_place(own: Recipe, given: str) -> Recipe:
    """The recipe that replaces the experiment's own in the preparation of scans.

    Only values that depend on the data set may change: the native grid and how it is flipped, padded and cut. Class
    centres, normalisation, lattice and mode pool must be those of the training.

    Args:
        own: The experiment's recipe.
        given: Name of a recipe, which leaves all other values unchanged; or a recipe file, such as a `recipe.json`.

    Raises:
        UsageError: There is no such name or file, or a value that the field depends on differs.

    >>> own = Recipe(name="ifl2021-hcp", normalise="clip-minmax", lattice="corner")
    >>> recipe_in_place(own, "ifl2021-brats") == own.model_copy(update={"name": "ifl2021-brats"})
    True
    """
    found = own.model_copy(update={"name": given}) if given in NAMES else _given_file(Path(given))
    if differing := _differences(found, own):
        raise UsageError(
            f"the recipe {given} does not fit the field: {'; '.join(differing)}",
            why="classes and positions would have another meaning than in training",
            remedy="give a recipe that differs only in the data set, such as ifl2021-brats for ifl2021-hcp",
        )
    return found


def _differences(found: Recipe, own: Recipe) -> list[str]:
    """Values of `found` that a field trained with `own` cannot use, in words."""
    differing = [
        f"{name} is {_shown(getattr(found, name))}, in training {_shown(getattr(own, name))}"
        for name in FIELD_VALUES
        if getattr(found, name) != getattr(own, name)
    ]
    if found.outside_class != own.outside_class:
        differing.insert(0, f"it is {found.name}, in training {own.name}: class 0 has another meaning")
    return differing


def _given_file(path: Path) -> Recipe:
    remedy = f"give {', '.join(NAMES)} or a recipe.json"
    if not path.is_file():
        raise UsageError("is neither the name of a recipe nor a recipe file", where=path, remedy=remedy)
    return _read_file(path, error=UsageError, why="scans must be prepared as in training", remedy=remedy)


def _read_file(path: Path, *, error: type[AnofieldError], why: str, remedy: str) -> Recipe:
    """Read a recipe file, which must state every key."""
    found = read_json(path, RecipeFile, remedy=remedy, error=error, why=why)
    if lacking := missing_keys(found.model_fields_set):
        why = f"{why}, and a default may be another value"
        raise error(f"lacks {', '.join(lacking)}", where=path, why=why, remedy=remedy)
    return Recipe.model_validate(found.model_dump(exclude={"format"}))


def _shown(value: object) -> str:
    """A value in a few words; centres by their number and ends."""
    if isinstance(value, tuple):
        return f"{len(value)} from {value[0]:g} to {value[-1]:g}"
    return str(value)
