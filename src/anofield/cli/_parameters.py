"""Options of the command line made from option models and groups, so that no verb declares them again."""

from __future__ import annotations

import dataclasses
import functools
import inspect
from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated, Any, TypeAlias, TypeVar, get_args, get_origin, get_type_hints

import typer
from typer.core import TyperCommand

from anofield.errors import UsageError

if TYPE_CHECKING:
    from pydantic import BaseModel, ValidationError
    from pydantic.fields import FieldInfo

T = TypeVar("T")


class Verb(TyperCommand):
    """A command whose options with one value may be given once: a second value would silently replace the first."""

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        """Parse the words of a command line.

        Raises:
            UsageError: An option that is no list is given twice.
        """
        *_, order = self.make_parser(ctx).parse_args(args=list(args))
        once = [option for option in order if option.param_type_name == "option" and not option.multiple]
        for option, count in Counter(once).items():
            if count > 1:
                names = "/".join([*option.opts, *option.secondary_opts])
                raise UsageError(f"{names} is given {count} times", remedy="give it once: it takes one value")
        return super().parse_args(ctx, args)


Given: TypeAlias = dict[str, Any]  # the fields of an option model that the user gave

FLAGS = {  # the fields of option models that the command line offers, and their options
    "tail": "--tail",
    "rim_mm": "--rim-mm",
    "minimum_mm": "--minimum-mm",
    "gaussian_mm": "--gaussian-mm",
    "edge_mm": "--edge-mm",
    "native_edge_mm": "--native-edge-mm",
    "standardise": "--standardise/--raw",
    "pose": "--pose",
    "intensity": "--intensity-map",
    "elastic_mm": "--elastic-mm",
    "seed": "--seed",
}
LIMITS = {  # type of an error in pydantic: its message on the command line
    "greater_than_equal": "must be at least {ge:g}",
    "less_than_equal": "must be at most {le:g}",
    "greater_than": "must be above {gt:g}",
    "less_than": "must be below {lt:g}",
    "finite_number": "must be a finite number",
    "literal_error": "must be {expected}",
}


@dataclass(frozen=True)
class _Group:
    """Options that one parameter of a verb stands for, and the function from their values to its value."""

    options: list[inspect.Parameter]
    value: Callable[[dict[str, Any]], Any]


def expanded(verb: Callable[..., T]) -> Callable[..., T]:
    """Replace parameters of a verb by the options that they stand for.

    A parameter of type `Annotated[Given, Model]` becomes one option per field of the model that `FLAGS` names; the verb
    gets those that the user gave, by the names of the fields. A parameter whose type is a dataclass becomes one option
    per field; the verb gets the dataclass. All other parameters stay.
    """
    hints = get_type_hints(verb, include_extras=True)
    own = inspect.signature(verb).parameters
    groups = {name: group for name in own if (group := _group(hints[name])) is not None}
    options = [
        option
        for name, one in own.items()
        for option in (groups[name].options if name in groups else [one.replace(annotation=hints[name])])
    ]

    @functools.wraps(verb)
    def run(**values: Any) -> T:
        """Call the verb with its options gathered into groups."""
        for name, group in groups.items():
            values[name] = group.value({option.name: values.pop(option.name) for option in group.options})
        return verb(**values)

    run.__annotations__ = {option.name: option.annotation for option in options}
    run.__signature__ = inspect.Signature(options)  # type: ignore[attr-defined]
    return run


def flag_of(field: str) -> str:
    """The option of a field.

    >>> flag_of("standardise"), flag_of("intensity"), flag_of("min_lesion_ml")
    ('--standardise', '--intensity-map', '--min-lesion-ml')
    """
    return FLAGS.get(field, f"--{field.replace('_', '-')}").partition("/")[0]


def refusal(error: ValidationError) -> UsageError:
    """The first error of an option model, under the name of its option."""
    first = error.errors()[0]
    field = next((part for part in reversed(first["loc"]) if isinstance(part, str)), "")
    limit = LIMITS.get(first["type"])
    told = first["msg"].removeprefix("Value error, ")
    if limit is not None:
        told = f"{limit.format(**first.get('ctx', {}))}, got {first['input']}"
    return UsageError(f"{flag_of(field)}: {told}", remedy="anofield detect --help lists the options")


def _group(kind: Any) -> _Group | None:
    """The options that a parameter of this type stands for; None if it is a single option."""
    if dataclasses.is_dataclass(kind) and isinstance(kind, type):
        return _Group(_fields_of(kind), lambda values: kind(**values))
    if get_origin(kind) is Annotated and isinstance(model := get_args(kind)[1], type):
        return _Group(_options_of(model), _given)
    return None


def _given(values: Mapping[str, Any]) -> Given:
    return {name: value for name, value in values.items() if value is not None}


def _fields_of(group: type) -> list[inspect.Parameter]:
    """One parameter per field of a dataclass, with the annotation and default of the field."""
    hints = get_type_hints(group, include_extras=True)
    fields = dataclasses.fields(group)
    defaults = [inspect.Parameter.empty if one.default is dataclasses.MISSING else one.default for one in fields]
    return [_parameter(one.name, hints[one.name], default) for one, default in zip(fields, defaults, strict=True)]


def _options_of(model: type[BaseModel]) -> list[inspect.Parameter]:
    """One parameter per offered field of an option model; None means that it was not given."""
    offered = {name: field for name, field in model.model_fields.items() if name in FLAGS}
    return [_parameter(name, _annotated(FLAGS[name], field), None) for name, field in offered.items()]


def _annotated(flag: str, field: FieldInfo) -> Any:
    """The type of a field with its option, which has the limits, description and default of the field."""
    text = " ".join((field.description or "").split())
    option = typer.Option(
        flag, help=text, show_default=_shown(flag, field.default), min=_bound(field, "ge"), max=_bound(field, "le")
    )
    return Annotated[field.annotation | None, option]  # type: ignore[operator]


def _bound(field: FieldInfo, name: str) -> float | None:
    """A limit of a field, as an integer if it is a whole number; None for no limit."""
    found = next((getattr(rule, name) for rule in field.metadata if hasattr(rule, name)), None)
    return int(found) if found is not None and found == int(found) else found


def _shown(flag: str, default: object) -> str:
    """A default as a user would write it."""
    if isinstance(default, bool):
        return flag.split("/")[0 if default else 1].lstrip("-")
    return f"{default:g}" if isinstance(default, float) else str(default)


def _parameter(name: str, annotation: Any, default: Any) -> inspect.Parameter:
    return inspect.Parameter(name, inspect.Parameter.KEYWORD_ONLY, default=default, annotation=annotation)
