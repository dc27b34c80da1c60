"""Options of a detection from the command line."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any, Literal, TypeAlias, get_args

import typer
from pydantic import BaseModel, ValidationError

from anofield.cli._parameters import Given, flag_of, refusal
from anofield.detect.options import PRESETS, FieldOptions, FitOptions, ScoreOptions
from anofield.errors import UsageError

Preset: TypeAlias = Literal["default", "small-lesions", "ifl2021"]

Filters = Annotated[Given, ScoreOptions]
Fit = Annotated[Given, FitOptions]
PresetOption = Annotated[
    Preset,
    typer.Option(
        "--preset", help="small-lesions: for lesions of 5 to 12 mm; ifl2021: fit, score and filters as published."
    ),
]
RecipeOption = Annotated[
    str | None,
    typer.Option(
        "--recipe",
        help="Name or file of another recipe that fits the model, for example ifl2021-brats for ifl2021-hcp.",
    ),
]


def options_from(
    preset: Preset = "default",
    *,
    score: str | None = None,
    also: tuple[str, ...] = (),
    fit: Mapping[str, Any] | None = None,
    filters: Mapping[str, Any] | None = None,
) -> FieldOptions:
    """Options of a run: those of a preset, replaced by those that were given.

    Args:
        preset: Name in `PRESETS`.
        score: Main score; None for that of the preset.
        also: Further scores.
        fit: Fields of `FitOptions` that were given.
        filters: Fields of `ScoreOptions` that were given.

    Raises:
        UsageError: A score is unknown, a value is out of range, or the preset does not have an option.
    """
    base = PRESETS[preset]
    content = {**base.model_dump(), "also": also}
    given = {**(filters or {}), **(fit or {}), **({} if score in (None, base.score) else {"score": score})}
    for name, value in given.items():
        part = _part(base, content, name)
        if part is None:
            told = f" {value}" if name == "score" else ""
            raise UsageError(f"--preset {preset} with {flag_of(name)}{told}", remedy="leave out one of them")
        part[name] = value
    try:
        return type(base).model_validate(content)
    except ValidationError as error:
        raise refusal(error) from error


def filters_from(given: Mapping[str, Any]) -> ScoreOptions:
    """Filters with the given values, and defaults for all others.

    Raises:
        UsageError: A value is out of range.
    """
    try:
        return ScoreOptions.model_validate(given)
    except ValidationError as error:
        raise refusal(error) from error


def _part(options: BaseModel, content: dict[str, Any], name: str) -> dict[str, Any] | None:
    """The part of the options that has this field and allows more than one value; None if no part does."""
    field = type(options).model_fields.get(name)
    if field is not None and len(get_args(field.annotation)) != 1:  # a literal with one value cannot be changed
        return content
    below = ((getattr(options, key), value) for key, value in content.items() if isinstance(value, dict))
    return next((part for one, value in below if (part := _part(one, value, name)) is not None), None)
