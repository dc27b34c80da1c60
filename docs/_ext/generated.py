"""Sphinx extension: a line `<!-- generated: NAME -->` of a page becomes what the program says of itself.

Names: `cli`, `specs`, `options`, `errors`, `presets`, `scores`.
"""

import inspect
import json
import re
from collections.abc import Callable, Iterator
from typing import Any

from pydantic import BaseModel
from pydantic_core import PydanticUndefined

MEANINGS = {  # of every key of specs.json; a new key without one stops the build
    "Description": "for people",
    "DataSource": "store; the path counts from where the command runs, else from the experiment",
    "NetworkArch": "which field: the published `decoder`, or one of another package",
    "NetworkSpecs": "shape of the network",
    "CodeLength": "length of a person's code",
    "L": "octaves of the Fourier features; null for raw coordinates",
    "NumEpochs": "an epoch sees every person once",
    "SamplesPerScene": "random points per person and step",
    "ScenesPerBatch": "people per step",
    "DataLoaderThreads": "unused",
    "LearningRateSchedule": "of the network, then of the codes",
    "SnapshotFrequency": "epochs between checkpoints that are kept",
    "AdditionalSnapshots": "further epochs to keep",
    "LogFrequency": "epochs between saves of `latest`",
    "CodeRegularization": "whether the norm of codes is punished",
    "CodeRegularizationLambda": "how much; rises over the first 100 epochs",
    "CodeBound": "largest norm of a code",
    "CodeInitStdDev": "codes start from N(0, this²/CodeLength)",
    "GradientClipNorm": "largest norm of the gradient; null for none",
    "EncodeImage": "unused",
    "BrainFraction": "share of points drawn in the brain, the others anywhere",
    "Lattice": "place of a voxel in the field; null takes the store's, `corner` as published",
    "HeldOutSource": "store of healthy people to measure and not to train on",
    "HeldOutFrequency": "every how many epochs",
    "Seed": "of everything random",
    "dims": "width of every hidden layer",
    "dim_out": "number of classes",
    "dropout": "layers with dropout in training",
    "dropout_prob": "its probability",
    "norm_layers": "layers with weight norm, or with layer norm",
    "latent_in": "layers whose input is joined with code and features",
    "xyz_in_all": "features joined to every layer's input",
    "latent_dropout": "dropout of 0.2 on the code in training",
    "weight_norm": "weight norm instead of layer norm",
    "Type": "which kind",
    "Initial": "rate at the start",
    "Interval": "epochs between steps",
    "Factor": "of one step",
    "Final": "rate at the end",
    "Length": "epochs to get there",
    "Value": "the rate",
}
MARK = re.compile(r"^<!-- generated: (\w+) -->$", re.MULTILINE)


def setup(app: Any) -> dict[str, bool]:
    """Hook into the reading of pages and of docstrings."""
    app.connect("source-read", replace)
    app.connect("autodoc-process-docstring", listed, priority=400)  # before napoleon
    app.connect("autodoc-process-docstring", literal)
    app.connect("autodoc-process-signature", plain)
    app.connect("autodoc-skip-member", untold)
    return {"parallel_read_safe": True}


def replace(app: Any, docname: str, source: list[str]) -> None:
    """Put the generated Markdown in place of each mark."""
    source[0] = MARK.sub(lambda found: "\n".join(PARTS[found[1]]()), source[0])


def listed(app: Any, what: str, name: str, thing: Any, options: Any, lines: list[str]) -> None:
    """`Attributes:` as a list of names and what they are; their types stand in the signature."""
    if found := attributes("\n".join(lines)):
        first = lines.index("Attributes:")
        last = next((at for at in range(first, len(lines)) if not lines[at].strip()), len(lines))
        items = [f"    * **{names.replace(', ', '**, **')}** – {text}" for names, text in found.items()]
        lines[first:last] = [":Attributes:", *items]


def literal(app: Any, what: str, name: str, thing: Any, options: Any, lines: list[str]) -> None:
    """Read a docstring as it is meant: `code` as in Markdown, whatever follows it, and bars as bars."""
    for number, line in enumerate(lines):
        if not line.lstrip().startswith(">>>"):
            parts = re.split(r"(`[^`]+`)", line)
            code = [f"`{part}`\\ " if part.startswith("`") else part.replace("|", "\\|") for part in parts]
            spaced = "".join(code) if len(parts) > 1 else code[0]
            lines[number] = re.sub(r"\\ (?=[\s.,;:!?)\]]|$)", "", spaced)


def untold(app: Any, what: str, name: str, thing: Any, skip: bool, options: Any) -> bool | None:
    """Leave out the fields of named tuples, which have no docstring of their own; the class tells of them."""
    return True if type(thing).__name__ == "_tuplegetter" else None


def plain(app: Any, what: str, name: str, thing: Any, options: Any, given: str | None, back: str | None) -> Any:
    """A signature as the source has it: aliases by name, types without the checks of pydantic.

    None for a protocol, and for the models of `specs.json`, whose keys have a page.
    """
    if getattr(thing, "_is_protocol", False) or getattr(thing, "model_config", {}).get("alias_generator"):
        return "", None
    return tuple(text and readable(text) for text in (given, back))


def readable(text: str) -> str:
    """Arguments or a type without what Python adds to them."""
    text = re.sub(r"TypeAliasForwardRef\('(\w+)'\)", r"\1", text)
    text = re.sub(r"~?(?:typing\.)?Annotated\[((?:[^\[\]]|\[[^\[\]]*\])*?)(?:, [~\w.]+\([^()]*\))+\]", r"\1", text)
    text = re.sub(r"<class '(?:\w+\.)*(\w+)'>", r"\1", text)
    return text.replace("<factory>", "...")


def cli() -> Iterator[str]:
    """Every verb of the application with its options."""
    from typer.main import get_command

    from anofield.cli import app

    root = get_command(app)
    yield from command(root, root.make_context("anofield", [], resilient_parsing=True))


def command(verb: Any, context: Any) -> Iterator[str]:
    """One verb, then the verbs below it."""
    yield from (f"## {context.command_path}", "", inspect.cleandoc(verb.help or ""), "")
    options = [option for option in verb.params if not getattr(option, "hidden", False)]
    if options:
        yield from ("| | value | default | |", "|---|---|---|---|")
        yield from (row(option, context) for option in options)
        yield ""
    for name, below in sorted(getattr(verb, "commands", {}).items()):
        yield from command(below, below.make_context(name, [], parent=context, resilient_parsing=True))


def row(option: Any, context: Any) -> str:
    """One option as a line of a table."""
    flag = getattr(option, "is_flag", False)
    names = [*option.opts, *option.secondary_opts] if option.opts[0].startswith("-") else [option.name.upper()]
    kind = "" if flag else ", ".join(f"`{part}`" for part in option.display_type(context).strip("<>").split("|"))
    default = "required" if option.required else shown(None if callable(option.default) else option.default, flag)
    return cells(", ".join(f"`{name}`" for name in names), kind, default, getattr(option, "help", "") or "")


def shown(value: Any, flag: bool = False) -> str:
    """A default; nothing for a flag that is off and for what has none."""
    value = getattr(value, "value", value)
    return "" if value in (None, "", ()) or (flag and value is False) else f"`{value}`"


def cells(*texts: str) -> str:
    """A line of a table."""
    return "| " + " | ".join(text.replace("|", "\\|").replace("\n", " ") for text in texts) + " |"


def specs() -> Iterator[str]:
    """Keys of `specs.json`, of the network and of the rates."""
    from anofield.field.experiment import ConstantRate, CosineRate, NetworkSpecs, Specs, StepRate, WarmupRate

    yield from ("## Top level", "", *keys(Specs))
    yield from ("## NetworkSpecs", "", (inspect.getdoc(NetworkSpecs) or ""), "", *keys(NetworkSpecs))
    yield from ("## LearningRateSchedule", "", "Two entries: of the network and of the codes. `Type` says which:", "")
    for rate in (StepRate, WarmupRate, ConstantRate, CosineRate):
        yield from (f"### {rate.__name__.removesuffix('Rate')}", "", inspect.getdoc(rate) or "", "", *keys(rate))


def keys(model: type[BaseModel]) -> Iterator[str]:
    """Fields of a pydantic model under the names that files use."""
    yield from ("| key | | type | default |", "|---|---|---|---|")
    for name, field in model.model_fields.items():
        key, kind = field.alias or name, f"`{annotation(field.annotation)}`"
        limits = ", ".join(limit(item) for item in field.metadata)
        yield cells(f"`{key}`", MEANINGS[key], f"{kind} {limits}", default_of(field))
    yield ""


def annotation(kind: Any) -> str:
    """A type without module names."""
    text = kind.__name__ if isinstance(kind, type) and not hasattr(kind, "__args__") else str(kind)
    text = re.sub(r"typing\.|anofield\.\w+\.", "", text)
    text = re.sub(r"Optional\[(.*)\]$", r"\1 | None", text)
    return re.sub(r"Annotated\[(.*?), FieldInfo\(.*?\)\]", r"\1", text)


def default_of(field: Any) -> str:
    """Its default in JSON."""
    if field.is_required():
        return "required"
    value = field.default if field.default is not PydanticUndefined else field.default_factory()
    if isinstance(value, BaseModel):
        return "below"
    return f"`{json.dumps(value)}`"


def limit(item: Any) -> str:
    """One constraint in signs."""
    signs = {"ge": "≥ ", "gt": "> ", "le": "≤ ", "lt": "< ", "min_length": "length ≥ "}
    return " ".join(f"{sign}{getattr(item, name)}" for name, sign in signs.items() if hasattr(item, name))


def options() -> Iterator[str]:
    """`DetectOptions` and its two parts, with what the docstring says of each."""
    from anofield.detect.fit import FitOptions
    from anofield.detect.method import RunOptions
    from anofield.detect.run import DetectOptions
    from anofield.detect.scores import ScoreOptions

    for model, told in ((DetectOptions, RunOptions), (FitOptions, FitOptions), (ScoreOptions, ScoreOptions)):
        about = attributes(inspect.getdoc(told) or "")
        yield from (f"## {model.__name__}", "", "| name | default | |", "|---|---|---|")
        for name, field in model.model_fields.items():
            yield cells(f"`{name}`", default_of(field), about.get(name, ""))
        yield ""


def attributes(doc: str) -> dict[str, str]:
    """The `Attributes:` of a Google docstring by name, or by names with commas between."""
    text = doc.partition("Attributes:\n")[2].partition("\n\n")[0]
    items = re.finditer(r"(?ms)^    (\w+(?:, \w+)*): (.*?)(?=^    \w|\Z)", text)
    return {item[1]: " ".join(item[2].split()) for item in items}


def errors() -> Iterator[str]:
    """Error classes with their exit codes."""
    from anofield import errors as module

    yield from ("| class | exit code | when |", "|---|---|---|")
    for name, kind in vars(module).items():
        if isinstance(kind, type) and issubclass(kind, BaseException):
            code = "128 + signal" if name == "Interrupted" else str(kind.exit_code)
            yield cells(f"`{name}`", code, (inspect.getdoc(kind) or "").splitlines()[0])


def presets() -> Iterator[str]:
    """The content of every preset."""
    from anofield.field.presets import PRESETS, preset

    for name in PRESETS:
        text = json.dumps(preset(name).dump(), indent=2)
        text = re.sub(r"\[([\d\s,]+)\]", lambda found: f"[{' '.join(found[1].split())}]", text)  # numbers in one line
        yield from (f"## `{name}`", "", "```json", text, "```", "")


def scores() -> Iterator[str]:
    """Scores with the first line of their docstrings."""
    from anofield.detect.scores import OWN_SCORES

    yield from ("| score | what it is |", "|---|---|")
    for name, score in OWN_SCORES.items():
        yield cells(f"`{name}`", (inspect.getdoc(score) or "").splitlines()[0])


PARTS: dict[str, Callable[[], Iterator[str]]] = {
    part.__name__: part for part in (cli, specs, options, errors, presets, scores)
}
