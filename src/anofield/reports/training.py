"""The page of a training: its curves, its subjects restored from their codes, and subjects drawn from the prior."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from statistics import median
from typing import Any

import numpy as np
from torch import Tensor

from anofield._version import __version__
from anofield._words import counted
from anofield.data.recipe import Recipe
from anofield.data.store import Store
from anofield.errors import AnofieldError
from anofield.field import sample
from anofield.field.model import TrainedField, open_field
from anofield.field.specs import Specs
from anofield.reports.charts import Chart, Series, draw_chart
from anofield.reports.figures import picture
from anofield.reports.history import History
from anofield.reports.numerals import DASH, decimal, duration, number
from anofield.reports.planes import VIEWS, turned
from anofield.reports.template import flat, templates
from anofield.typing import PathLike, Volume

PRIOR_SEED = 0  # seed of the generated subjects: the same training shows the same ones
DETAIL = (1.6, 82)  # pixels per mm, quality
DARK = 0.05  # share of the white end; darker pixels count as outside when pictures are cropped
MARGIN_MM = 5.0

Planes = dict[str, Volume]  # plane → (row, column)


@dataclass(frozen=True)
class View:
    """One picture of a subject: plane, marks of its edges, sizes of picture and frame in mm, data URI."""

    plane: str
    marks: tuple[str, str, str, str]
    size: tuple[float, float]
    frame: tuple[float, float]
    picture: str


@dataclass(frozen=True)
class Person:
    """One subject before drawing: name, short description, and (label, planes) from top to bottom."""

    name: str
    note: str
    rows: tuple[tuple[str, Planes], ...]


@dataclass(frozen=True)
class Figure:
    """One subject as drawn: name, short description, and (label, pictures) from top to bottom."""

    name: str
    note: str
    rows: list[tuple[str, list[View]]]


@dataclass(frozen=True)
class Pictures:
    """The content of the template for the rows of subjects.

    Attributes:
        strips: (title, words, subjects) of each row.
        top: Intensity drawn white; None without pictures.
        where: Positions of the planes, in words.
        frame: Assumption behind the world coordinates, in words.
    """

    strips: Sequence[Strip] = ()
    top: float | None = None
    where: str = ""
    frame: str = ""


@dataclass(frozen=True)
class Strip:
    """A row of subjects with its heading and description."""

    title: str
    words: str
    people: list[Figure]


def render_training(history: History, *, data: PathLike | None, title: str, people: int, device: str) -> str:
    """The page of a training as HTML text.

    Args:
        history: History from `read_history`.
        data: Store whose classes of the training subjects are shown, or None.
        title: Heading of the page.
        people: Number of training subjects, and of subjects drawn from the prior; 0 for no pictures.
        device: Device that decodes codes.

    Raises:
        CohortError: `data` is not a store.
    """
    store = None if data is None else Store(data)
    pictures, notes = _pictures(history, store, people, device)
    return (
        templates()
        .get_template("training.html.j2")
        .render(
            title=title,
            version=__version__,
            date=f"{datetime.now():%-d %B %Y, %H:%M}",
            state=_state(history),
            about=_about(history.specs),
            facts=_facts(history),
            charts=_charts(history),
            settings=_settings(history),
            notes=notes,
            **vars(pictures),
        )
    )


def _state(history: History) -> str:
    done, planned = history.epoch, history.specs.num_epochs
    if done >= planned:
        return f"finished: {counted(planned, 'epoch')}"
    return f"epoch {done} of {planned}: not finished" if done else "no epoch finished yet"


def _about(specs: Specs) -> str:
    described = specs.description
    return described if isinstance(described, str) else " ".join(described)


def _facts(history: History) -> list[tuple[str, str, str]]:
    """(name, value, unit) of the summary."""
    specs, checkpoint = history.specs, history.checkpoint
    network, seconds = specs.network_specs, [value for _, value in history.points("seconds")]
    speeds = [value for _, value in history.points("points_per_s")]
    size = None if checkpoint is None else sum(value.numel() for value in checkpoint.model.values())
    facts = [
        ("Epochs", f"{history.epoch}", f"of {specs.num_epochs}"),
        ("Subjects", DASH if checkpoint is None else f"{len(checkpoint.code_ids)}", ""),
        ("Training loss", number(history.last("loss_per_point")), "nats per point"),
        *_held_out(history),
        ("Time", duration(sum(seconds)) if seconds else DASH, ""),
        ("Time per epoch", duration(median(seconds)) if seconds else DASH, "median"),
        ("Speed", f"{median(speeds) / 1000:,.0f}k" if speeds else DASH, "points/s"),
        ("Precision", str(history.last("precision") or DASH), ""),
        ("Device", str(history.last("device") or DASH), ""),
        ("Layers", _layers(network.dims), f"L {specs.octaves or 'none'}"),
        ("Network", DASH if size is None else f"{size:,}".replace(",", " "), "parameters"),
        ("Code", f"{specs.code_length}", "numbers" + (f", norm ≤ {specs.code_bound:g}" if specs.code_bound else "")),
        ("Classes", f"{network.dim_out}", ""),
        (
            "Step",
            counted(specs.scenes_per_batch, "subject"),
            f"of {counted(specs.samples_per_scene, 'point')}",
        ),
    ]
    return [fact for fact in facts if fact[1] != DASH]


def _held_out(history: History) -> list[tuple[str, str, str]]:
    points = history.points("held_out_ce")
    if not points:
        return []
    epoch, best = min(points, key=lambda point: point[1])
    last = ("Held-out cross-entropy", number(points[-1][1]), f"at epoch {points[-1][0]:.0f}")
    return [last, ("Held out, lowest", number(best), f"at epoch {epoch:.0f}")]


def _layers(dims: Sequence[int]) -> str:
    return f"{len(dims)} × {dims[0]}" if len(set(dims)) == 1 else ", ".join(map(str, dims))


def _charts(history: History) -> list[Chart]:
    """Charts of the known values, in the order of the page."""
    bound = history.specs.code_bound
    norms, held_out = history.points("code_norm"), history.points("held_out_ce")
    limit = [(epoch, bound) for epoch, _ in norms] if bound else []
    charts = [
        draw_chart("Loss", "Nats per point", [
            Series("training", "main", history.points("loss_per_point"), _end(history.points("loss_per_point"))),
            Series("held-out subjects", "baseline-1", held_out, _end(held_out)),
        ]),
        draw_chart("Learning rates", "Rate", [
            Series("network", "main", history.points("network_rate")),
            Series("codes", "method-3", history.points("code_rate")),
        ]),
        draw_chart("Codes", "Norm", [
            Series("mean norm of the codes", "main", norms, _end(norms)),
            Series("CodeBound", "baseline baseline-3", limit),
        ]),
        draw_chart("Network", "Norm", [Series("norm of all parameters", "main", history.points("parameter_norm"))]),
        draw_chart("Speed", "Points per second", [Series("points per second", "main", history.points("points_per_s"))],
                   zero=True),
        draw_chart("Time", "Seconds", [Series("seconds per epoch", "main", history.points("seconds"))], zero=True),
    ]  # fmt: skip
    return [chart for chart in charts if chart is not None]


def _end(points: Sequence[tuple[float, float]]) -> str:
    return f"last {number(points[-1][1])}" if points else ""


def _settings(history: History) -> list[tuple[str, list[tuple[str, str]]]]:
    paths = [("directory", str(history.path))]
    return [("Experiment", paths), ("specs.json", list(flat(history.specs.dump())))]


def _pictures(history: History, store: Store | None, people: int, device: str) -> tuple[Pictures, list[str]]:
    """The content of the template for the rows of subjects, and notes on missing parts."""
    empty = Pictures()
    if history.checkpoint is None:
        return empty, ["No checkpoint was saved yet: there are no subjects to show."]
    if people == 0:
        return empty, []
    try:
        model = open_field(history.path, device=device)
    except AnofieldError as error:
        return empty, [f"No subjects are shown: {error}"]
    stored, notes = _stored(store, model)
    canvas = sample.canvas_of(model.recipe)
    index = canvas.resolution // 2
    rows = np.unique(np.linspace(0, len(model.codes) - 1, people).round().astype(int))
    trained = sample.Drawn([model.codes.names[row] for row in rows], model.codes.seen()[rows])
    drawn = sample.from_prior(model.prior, people, PRIOR_SEED, model.codes.bound)
    groups = [[_person(model, *one, canvas, stored) for one in zip(g.names, g.codes, strict=True)]
              for g in (trained, drawn)]  # fmt: skip
    shown = _shown(groups, canvas, sample.shown_values(model.recipe)[-1])
    words = _words(len(rows), len(model.codes), people, model.epoch)
    places = [f"{name} {'xyz'[axis]} = {decimal(sample.plane_mm(canvas, name, index), 0)} mm"
              for name, (axis, _) in VIEWS.items()]  # fmt: skip
    strips = [Strip(*heading, drawn_people) for heading, drawn_people in zip(words, shown, strict=True)]
    top = sample.shown_values(model.recipe)[-1]
    return Pictures(strips, top, "Planes: " + ", ".join(places), canvas.assumed), notes


def _words(shown: int, trained: int, drawn: int, epoch: int) -> list[tuple[str, str]]:
    at = f"decoded at epoch {epoch} on the training lattice"
    return [
        ("Subjects of the training", f"{shown} of {trained}, spread evenly over the code table, not chosen by result; "
         f"{at} from their codes. The expected intensity is shown. Distance: from the mean training code, squared "
         "Mahalanobis distance per code entry; about 1 is usual."),
        ("Subjects from the prior", f"{drawn} codes drawn from the Gaussian of the training codes (seed {PRIOR_SEED}), "
         f"{at}: subjects who do not exist. They should look as healthy, and differ as much, as those above."),
    ]  # fmt: skip


def _stored(store: Store | None, model: TrainedField) -> tuple[Store | None, list[str]]:
    """The store if its classes have the same meaning as the model's; else a note why it is not used."""
    if store is None or store.recipe == model.recipe:
        return store, []
    return None, [f"{store.path} was prepared with another recipe than this training; its classes are not shown."]


def _person(model: TrainedField, name: str, code: Tensor, canvas: sample.Canvas, store: Store | None) -> Person:
    """A subject with its three planes, below those of the stored classes if there are any."""
    index = canvas.resolution // 2
    decoded = {plane: turned(sample.decode_plane(model, code, canvas, plane, index)) for plane in VIEWS}
    note = f"code norm {number(code.norm(), 2)}, distance {number(model.prior.distance(code[None])[0], 2)}"
    classes = _classes(store, name, model.recipe, index)
    if classes is None:
        return Person(name, note, (("", decoded),))
    return Person(name, note, (("Stored classes", classes), ("Restoration", decoded)))


def _classes(store: Store | None, name: str, recipe: Recipe, index: int) -> Planes | None:
    """Planes of a case's stored classes as intensities of their centres; None if the store has no such case."""
    if store is None or name not in store.ids or store.ids.index(name) not in store.done:
        return None
    classes = sample.to_canvas(store.classes(store.ids.index(name)), recipe)
    levels = np.array(sample.shown_values(recipe), dtype=np.float32)
    return {plane: turned(np.take(levels[classes], index, axis=axis)) for plane, (axis, _) in VIEWS.items()}


def _shown(groups: list[list[Person]], canvas: sample.Canvas, top: float) -> list[list[Figure]]:
    """Pictures of all subjects, all cropped to the same box."""
    everyone = [planes for people in groups for person in people for _, planes in person.rows]
    step = float(canvas.affine[0, 0])
    boxes = {name: _box([planes[name] for planes in everyone], DARK * top, round(MARGIN_MM / step)) for name in VIEWS}
    sizes = {name: tuple(step * (cut.stop - cut.start) for cut in reversed(box)) for name, box in boxes.items()}
    frame = (max(size[0] for size in sizes.values()), max(size[1] for size in sizes.values()))

    def views(planes: Planes) -> list[View]:
        """The planes of one row as pictures."""
        return [
            View(name, marks, sizes[name], frame, picture(planes[name][boxes[name]], sizes[name], (0.0, top), DETAIL))
            for name, (_, marks) in VIEWS.items()
        ]

    return [
        [Figure(p.name, p.note, [(label, views(planes)) for label, planes in p.rows]) for p in people]
        for people in groups
    ]


def _box(planes: Sequence[Volume], dark: float, margin: int) -> Any:
    """Rows and columns in which any plane is brighter than `dark`, with a margin."""
    bright = np.any([plane > dark for plane in planes], axis=0)
    lines = [np.flatnonzero(bright.any(axis=axis)) for axis in (1, 0)]
    return tuple(
        slice(max(0, line[0] - margin), min(count, line[-1] + 1 + margin)) if len(line) else slice(0, count)
        for line, count in zip(lines, bright.shape, strict=True)
    )
