"""Sphinx extension: replaces a line `<!-- generated: NAME -->` of a page by text that is made from the program.

Names: `cli`, `specs`, `options`, `errors`, `presets`, `scores`.
"""

import inspect
import json
import re
from collections.abc import Callable, Iterator
from typing import Any

from pydantic import BaseModel
from pydantic_core import PydanticUndefined

MEANINGS = {  # what every key of specs.json means; a new key without a meaning stops the build
    "Description": "free text for readers",
    "DataSource": "path of the store, relative to the working directory or else to the experiment",
    "NetworkArch": "name of the field: the published `decoder`, or a field of another package",
    "NetworkSpecs": "shape of the network",
    "CodeLength": "length of a subject's code",
    "L": "octaves of the Fourier features; null for raw coordinates",
    "NumEpochs": "number of epochs; an epoch uses every case once",
    "SamplesPerScene": "random points per case and step",
    "ScenesPerBatch": "cases per step",
    "DataLoaderThreads": "unused",
    "LearningRateSchedule": "learning rates: first of the network, then of the codes",
    "SnapshotFrequency": "number of epochs between checkpoints that are kept",
    "AdditionalSnapshots": "further epochs whose checkpoints are kept",
    "LogFrequency": "number of epochs between saves of `latest`",
    "CodeRegularization": "whether a large norm of the codes adds to the loss",
    "CodeRegularizationLambda": "weight of that term; rises over the first 100 epochs",
    "CodeBound": "largest norm of a code",
    "CodeInitStdDev": "initial codes are drawn from N(0, this²/CodeLength)",
    "GradientClipNorm": "largest norm of the gradient; null for none",
    "EncodeImage": "unused",
    "BrainFraction": "share of the points that are drawn inside the brain; the others are drawn anywhere",
    "Lattice": "position of a voxel in the field; null takes that of the store, `corner` is the published one",
    "HeldOutSource": "store of healthy scans that are measured and not used for training",
    "HeldOutFrequency": "number of epochs between these measurements",
    "Seed": "seed of all random numbers",
    "dims": "width of every hidden layer",
    "dim_out": "number of classes",
    "dropout": "layers that have dropout during training",
    "dropout_prob": "probability of dropout",
    "norm_layers": "layers that have weight norm or layer norm",
    "latent_in": "layers whose input is extended by code and features",
    "xyz_in_all": "whether the features are added to the input of every layer",
    "latent_dropout": "whether the code has dropout of 0.2 during training",
    "weight_norm": "whether `norm_layers` have weight norm (true) or layer norm",
    "Type": "kind of schedule",
    "Initial": "learning rate at the start",
    "Interval": "number of epochs between steps",
    "Factor": "factor applied at each step",
    "Final": "learning rate at the end",
    "Length": "number of epochs until the final rate",
    "Value": "the learning rate",
}
MARK = re.compile(r"^<!-- generated: (\w+) -->$", re.MULTILINE)


def setup(app: Any) -> dict[str, bool]:
    """Connect the functions below to the events of Sphinx."""
    app.connect("source-read", replace)
    app.connect("autodoc-process-docstring", listed, priority=400)  # before napoleon
    app.connect("autodoc-process-docstring", literal)
    app.connect("autodoc-process-signature", plain)
    app.connect("autodoc-skip-member", untold)
    return {"parallel_read_safe": True}


def replace(app: Any, docname: str, source: list[str]) -> None:
    """Replace each mark by the generated Markdown."""
    source[0] = MARK.sub(lambda found: "\n".join(PARTS[found[1]]()), source[0])


def listed(app: Any, what: str, name: str, thing: Any, options: Any, lines: list[str]) -> None:
    """Turn `Attributes:` into a list of names and meanings; the types are in the signature."""
    if found := attributes("\n".join(lines)):
        first = lines.index("Attributes:")
        last = next((at for at in range(first, len(lines)) if not lines[at].strip()), len(lines))
        items = [f"    * **{names.replace(', ', '**, **')}** – {text}" for names, text in found.items()]
        lines[first:last] = [":Attributes:", *items]


def literal(app: Any, what: str, name: str, thing: Any, options: Any, lines: list[str]) -> None:
    """Make reStructuredText read `code` as Markdown does, whatever follows it, and vertical bars as plain text."""
    for number, line in enumerate(lines):
        if not line.lstrip().startswith(">>>"):
            parts = re.split(r"(`[^`]+`)", line)
            code = [f"`{part}`\\ " if part.startswith("`") else part.replace("|", "\\|") for part in parts]
            spaced = "".join(code) if len(parts) > 1 else code[0]
            lines[number] = re.sub(r"\\ (?=[\s.,;:!?)\]]|$)", "", spaced)


def untold(app: Any, what: str, name: str, thing: Any, skip: bool, options: Any) -> bool | None:
    """Leave out the fields of named tuples: they have no docstring, and the docstring of the class describes them."""
    return True if type(thing).__name__ == "_tuplegetter" else None


def plain(app: Any, what: str, name: str, thing: Any, options: Any, given: str | None, back: str | None) -> Any:
    """Return a signature as it is in the source: aliases by name, types without the checks of pydantic.

    Protocols, and the models of `specs.json`, whose keys have a page of their own, get no signature.
    """
    if getattr(thing, "_is_protocol", False) or getattr(thing, "model_config", {}).get("alias_generator"):
        return "", None
    return tuple(text and readable(text) for text in (given, back))


def readable(text: str) -> str:
    """Remove from the text of a signature what Python added to the source."""
    text = re.sub(r"TypeAliasForwardRef\('(\w+)'\)", r"\1", text)
    text = re.sub(r"~?(?:typing\.)?Annotated\[((?:[^\[\]]|\[[^\[\]]*\])*?)(?:, [~\w.]+\([^()]*\))+\]", r"\1", text)
    text = re.sub(r"<class '(?:\w+\.)*(\w+)'>", r"\1", text)
    return text.replace("<factory>", "...")


def cli() -> Iterator[str]:
    """Describe every verb of the command line with its options."""
    from anofield.cli import loaded

    root = loaded()
    yield from command(root, root.make_context("anofield", [], resilient_parsing=True))


def command(verb: Any, context: Any) -> Iterator[str]:
    """Describe one verb, then its subcommands."""
    yield from (f"## {context.command_path}", "", inspect.cleandoc(verb.help or ""), "")
    options = [option for option in verb.params if not getattr(option, "hidden", False)]
    if options:
        yield from ("| | value | default | |", "|---|---|---|---|")
        yield from (row(option, context) for option in options)
        yield ""
    for name, below in sorted(getattr(verb, "commands", {}).items()):
        yield from command(below, below.make_context(name, [], parent=context, resilient_parsing=True))


def row(option: Any, context: Any) -> str:
    """Describe one option in a row of a table."""
    flag = getattr(option, "is_flag", False)
    names = [*option.opts, *option.secondary_opts] if option.opts[0].startswith("-") else [option.name.upper()]
    kind = "" if flag else ", ".join(f"`{part}`" for part in option.display_type(context).strip("<>").split("|"))
    default = "required" if option.required else shown(default_of_option(option), flag)
    return cells(", ".join(f"`{name}`" for name in names), kind, default, getattr(option, "help", "") or "")


def default_of_option(option: Any) -> Any:
    """Its default; that of its option model where the program keeps none; None for one that is computed."""
    told = getattr(option, "show_default", None)
    if isinstance(told, str):
        return told
    return None if callable(option.default) else option.default


def shown(value: Any, flag: bool = False) -> str:
    """Show a default value; empty for a flag that is off and for an option without default."""
    value = getattr(value, "value", value)
    return "" if value in (None, "", ()) or (flag and value is False) else f"`{value}`"


def cells(*texts: str) -> str:
    """Join cells to a row of a table."""
    return "| " + " | ".join(text.replace("|", "\\|").replace("\n", " ") for text in texts) + " |"


def specs() -> Iterator[str]:
    """Describe the keys of `specs.json`, of the network and of the learning rates."""
    from anofield.field.specs import ConstantRate, CosineRate, NetworkSpecs, Specs, StepRate, WarmupRate

    yield from ("## Top level", "", *keys(Specs))
    yield from ("## NetworkSpecs", "", (inspect.getdoc(NetworkSpecs) or ""), "", *keys(NetworkSpecs))
    rates = "Two entries: the first for the network, the second for the codes. `Type` is the kind:"
    yield from ("## LearningRateSchedule", "", rates, "")
    for rate in (StepRate, WarmupRate, ConstantRate, CosineRate):
        yield from (f"### {rate.__name__.removesuffix('Rate')}", "", inspect.getdoc(rate) or "", "", *keys(rate))


def keys(model: type[BaseModel]) -> Iterator[str]:
    """Describe the fields of a pydantic model under the names that files use."""
    yield from ("| key | | type | default |", "|---|---|---|---|")
    for name, field in model.model_fields.items():
        key, kind = field.alias or name, f"`{annotation(field.annotation)}`"
        limits = ", ".join(limit(item) for item in field.metadata)
        yield cells(f"`{key}`", MEANINGS[key], f"{kind} {limits}", default_of(field))
    yield ""


def annotation(kind: Any) -> str:
    """Show a type without module names."""
    text = kind.__name__ if isinstance(kind, type) and not hasattr(kind, "__args__") else str(kind)
    text = re.sub(r"typing\.|anofield\.\w+\.", "", text)
    text = re.sub(r"Optional\[(.*)\]$", r"\1 | None", text)
    return re.sub(r"Annotated\[(.*?), FieldInfo\((?:[^()]|\([^()]*\))*\)\]", r"\1", text)


def default_of(field: Any) -> str:
    """Show the default of a field in JSON."""
    if field.is_required():
        return "required"
    value = field.default if field.default is not PydanticUndefined else field.default_factory()
    if isinstance(value, BaseModel):
        return "below"
    return f"`{json.dumps(value)}`"


def limit(item: Any) -> str:
    """Show one constraint in mathematical signs."""
    signs = {"ge": "≥ ", "gt": "> ", "le": "≤ ", "lt": "< ", "min_length": "length ≥ "}
    signs["max_length"] = "length ≤ "
    return " ".join(f"{sign}{getattr(item, name)}" for name, sign in signs.items() if hasattr(item, name))


def options() -> Iterator[str]:
    """Describe the option models of a detection; the meaning of a field is the docstring below it."""
    from anofield.detect.options import DetectOptions, FitOptions, PublishedFilters, PublishedOptions, ScoreOptions

    for model in (DetectOptions, FitOptions, ScoreOptions, PublishedOptions, PublishedFilters):
        yield from (f"## {model.__name__}", "", inspect.getdoc(model) or "", "")
        yield ("| name | default | |")
        yield ("|---|---|---|")
        for name, field in model.model_fields.items():
            yield cells(f"`{name}`", default_of(field), field.description or "")
        yield ""


def attributes(doc: str) -> dict[str, str]:
    """Return the `Attributes:` of a Google docstring by name (or by several names separated by commas)."""
    text = doc.partition("Attributes:\n")[2].partition("\n\n")[0]
    items = re.finditer(r"(?ms)^    (\w+(?:, \w+)*): (.*?)(?=^    \w|\Z)", text)
    return {item[1]: " ".join(item[2].split()) for item in items}


def errors() -> Iterator[str]:
    """List the error classes with their exit codes."""
    from anofield import errors as module

    yield from ("| class | exit code | when |", "|---|---|---|")
    for name, kind in vars(module).items():
        if isinstance(kind, type) and issubclass(kind, BaseException):
            code = "128 + signal" if name == "Interrupted" else str(kind.exit_code)
            yield cells(f"`{name}`", code, (inspect.getdoc(kind) or "").splitlines()[0])


def presets() -> Iterator[str]:
    """Show the content of every preset."""
    from anofield.field.presets import PRESETS, preset

    for name in PRESETS:
        text = json.dumps(preset(name).dump(), indent=2)
        text = re.sub(r"\[([\d\s,]+)\]", lambda found: f"[{' '.join(found[1].split())}]", text)  # numbers on one line
        yield from (f"## `{name}`", "", "```json", text, "```", "")


def scores() -> Iterator[str]:
    """List the scores with the first line of their docstrings."""
    from anofield.detect.scores import OWN_SCORES

    yield from ("| score | what it is |", "|---|---|")
    for name, score in OWN_SCORES.items():
        yield cells(f"`{name}`", (inspect.getdoc(score) or "").splitlines()[0])


PARTS: dict[str, Callable[[], Iterator[str]]] = {
    part.__name__: part for part in (cli, specs, options, errors, presets, scores)
}
