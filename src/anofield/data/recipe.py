"""A recipe in place of an experiment's: scans of another data set, prepared for a field as it was trained."""

from __future__ import annotations

from collections.abc import Container
from pathlib import Path
from typing import get_args

from pydantic import ValidationError

from anofield.data.prepare import Recipe, RecipeName
from anofield.errors import UsageError

FIELD_VALUES = ("resolution", "box_mm", "normalise", "centers", "mode_pool", "lattice")  # what a field has learned by
NAMES: tuple[str, ...] = get_args(RecipeName)


def missing_keys(content: Container[str]) -> list[str]:
    """Keys that a stored recipe must have and lacks: a default in place of one would prepare scans in another way.

    >>> missing_keys(Recipe().model_dump(exclude={"centers"}))
    ['centers']
    """
    return [key for key in Recipe.model_fields if key not in content]


def recipe_in_place(own: Recipe, given: str) -> Recipe:
    """The recipe to prepare scans with instead of the experiment's own.

    Only what depends on the data set may change: which native grid is flipped, padded and cut how. Class centres,
    normalisation, lattice and mode pool are what the field was trained with.

    Args:
        own: Of the experiment.
        given: A name, which keeps every other value; or a file that holds a recipe, such as a `recipe.json`.

    Raises:
        UsageError: No such name or file, or a value that the field depends on differs.

    >>> own = Recipe(name="ifl2021-hcp", normalise="clip-minmax", lattice="corner")
    >>> recipe_in_place(own, "ifl2021-brats") == own.model_copy(update={"name": "ifl2021-brats"})
    True
    """
    found = own.model_copy(update={"name": given}) if given in NAMES else _read(Path(given))
    differing = [
        f"{name} is {_shown(getattr(found, name))}, in training {_shown(getattr(own, name))}"
        for name in FIELD_VALUES
        if getattr(found, name) != getattr(own, name)
    ]
    if found.outside_class != own.outside_class:
        differing.insert(0, f"it is {found.name}, in training {own.name}, which differ in what class 0 means")
    if differing:
        raise UsageError(
            f"the recipe {given} does not fit the field: {'; '.join(differing)}",
            why="classes and places would mean something else than in training",
            remedy="give a recipe that differs in the data set alone, such as ifl2021-brats for ifl2021-hcp",
        )
    return found


def _read(path: Path) -> Recipe:
    remedy = f"give {', '.join(NAMES)} or a recipe.json"
    try:
        found = Recipe.model_validate_json(path.read_bytes())
    except OSError as error:
        raise UsageError("is neither the name of a recipe nor a file of one", where=path, remedy=remedy) from error
    except ValidationError as error:
        first = error.errors()[0]
        key = ".".join(str(part) for part in first["loc"])
        why = f"{key!r}: {first['msg']}" if key else first["msg"]
        raise UsageError("holds no recipe", where=path, why=why, remedy=remedy) from error
    if lacking := missing_keys(found.model_fields_set):
        why = "a default in its place may be another value than meant"
        raise UsageError(f"lacks {', '.join(lacking)}", where=path, why=why, remedy=remedy)
    return found


def _shown(value: object) -> str:
    """A value in a few words; centres by their number and ends."""
    if isinstance(value, tuple):
        return f"{len(value)} from {value[0]:g} to {value[-1]:g}"
    return str(value)
