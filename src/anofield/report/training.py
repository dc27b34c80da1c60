"""The page of a training: how it went, its people restored from their codes, and people drawn from the prior."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from statistics import median
from typing import Any

import numpy as np
from torch import Tensor

from anofield import __version__
from anofield._words import counted
from anofield.data.prepare import Recipe
from anofield.data.store import Store
from anofield.errors import AnofieldError
from anofield.field import sample
from anofield.field.experiment import Specs
from anofield.field.model import Model, load_model
from anofield.report.charts import Chart, Series, draw_chart
from anofield.report.figures import picture
from anofield.report.history import History
from anofield.report.numerals import DASH, decimal, duration, number
from anofield.report.page import flat, templates
from anofield.report.planes import VIEWS, turned
from anofield.typing import Json, PathLike, Volume

PRIOR_SEED = 0  # of the generated people: the same training shows the same people
DETAIL = (1.6, 82)  # pixels per mm, quality
DARK = 0.05  # of the white end: what is below counts as outside when pictures are cropped
MARGIN_MM = 5.0

Planes = dict[str, Volume]  # plane → (row, column)


@dataclass(frozen=True)
class View:
    """One picture of a person: plane, marks of its edges, its size and the frame's in mm, data URI."""

    plane: str
    marks: tuple[str, str, str, str]
    size: tuple[float, float]
    frame: tuple[float, float]
    picture: str


@dataclass(frozen=True)
class Person:
    """One person before drawing: name, a few words, and (label, planes) from top to bottom."""

    name: str
    note: str
    rows: tuple[tuple[str, Planes], ...]


def render_training(history: History, *, data: PathLike | None, title: str, people: int, device: str) -> str:
    """The page of a training as HTML text.

    Args:
        history: What `read_history` read.
        data: Store that the training people's classes are shown from, or None.
        title: Heading.
        people: Of the training, and as many from the prior; 0 for no pictures.
        device: Where they are decoded.

    Raises:
        CohortError: `data` is no store.
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
            **pictures,
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
        ("People", DASH if checkpoint is None else f"{len(checkpoint.code_ids)}", ""),
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
            counted(specs.scenes_per_batch, "person", "people"),
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
    """Charts of what is known, in the order of the page."""
    bound = history.specs.code_bound
    norms = history.points("code_norm")
    limit = [(epoch, bound) for epoch, _ in norms] if bound else []
    charts = [
        draw_chart("Loss", "Nats per point", [
            Series("training", "main", history.points("loss_per_point"), _end(history.points("loss_per_point"))),
            Series("held-out people", "baseline-1", history.points("held_out_ce"), _end(history.points("held_out_ce"))),
        ]),
        draw_chart("Learning rates", "Rate", [
            Series("network", "main", history.points("learning_rate", 0)),
            Series("codes", "method-3", history.points("learning_rate", 1)),
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


def _pictures(history: History, store: Store | None, people: int, device: str) -> tuple[Json, list[str]]:
    """What the template needs for the strips, and what is missing, in words."""
    empty: Json = {"strips": [], "top": None, "where": "", "frame": ""}
    if history.checkpoint is None:
        return empty, ["No checkpoint was saved yet: there are no people to show."]
    if people == 0:
        return empty, []
    try:
        model = load_model(history.path, device=device)
    except AnofieldError as error:
        return empty, [f"No people are shown: {error}"]
    table = sample.read_table(history.path)
    stored, notes = _stored(store, model)
    canvas = sample.canvas_of(model.recipe)
    index = canvas.resolution // 2
    rows = np.unique(np.linspace(0, len(table.ids) - 1, people).round().astype(int))
    trained = sample.Drawn([table.ids[row] for row in rows], table.codes[rows])
    drawn = sample.from_prior(model.prior, people, PRIOR_SEED, table.bound)
    groups = [[_person(model, *one, canvas, stored) for one in zip(g.names, g.codes, strict=True)]
              for g in (trained, drawn)]  # fmt: skip
    shown = _shown(groups, canvas, sample.shown_values(model.recipe)[-1])
    words = _words(len(rows), len(table.ids), people, table.epoch)
    places = [f"{name} {'xyz'[axis]} = {decimal(sample.plane_mm(canvas, name, index), 0)} mm"
              for name, (axis, _) in VIEWS.items()]  # fmt: skip
    strips = [{"title": t, "words": w, "people": p} for (t, w), p in zip(words, shown, strict=True)]
    top = sample.shown_values(model.recipe)[-1]
    return {"strips": strips, "top": top, "where": "Planes: " + ", ".join(places), "frame": canvas.assumed}, notes


def _words(shown: int, trained: int, drawn: int, epoch: int) -> list[tuple[str, str]]:
    at = f"decoded at epoch {epoch} on the training lattice"
    return [
        ("People of the training", f"{shown} of {trained}, spread evenly over the code table, not chosen by result; "
         f"{at} from their codes. Shown is the expected intensity. Distance: from the mean training code, squared "
         "Mahalanobis distance per code entry; about 1 is usual."),
        ("People from the prior", f"{drawn} codes drawn from the Gaussian of the training codes (seed {PRIOR_SEED}), "
         f"{at}: people who do not exist. They should look as healthy, and differ as much, as those above."),
    ]  # fmt: skip


def _stored(store: Store | None, model: Model) -> tuple[Store | None, list[str]]:
    """The store, if its classes mean what the model's do; else why it is not used."""
    if store is None or store.recipe == model.recipe:
        return store, []
    return None, [f"{store.path} was prepared with another recipe than this training; its classes are not shown."]


def _person(model: Model, name: str, code: Tensor, canvas: sample.Canvas, store: Store | None) -> Person:
    """A person's three planes, under those of the stored classes if there are any."""
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


def _shown(groups: list[list[Person]], canvas: sample.Canvas, top: float) -> list[list[Json]]:
    """Everyone's pictures, all cropped alike."""
    everyone = [planes for people in groups for person in people for _, planes in person.rows]
    step = float(canvas.affine[0, 0])
    boxes = {name: _box([planes[name] for planes in everyone], DARK * top, round(MARGIN_MM / step)) for name in VIEWS}
    sizes = {name: tuple(step * (cut.stop - cut.start) for cut in reversed(box)) for name, box in boxes.items()}
    frame = (max(size[0] for size in sizes.values()), max(size[1] for size in sizes.values()))

    def views(planes: Planes) -> list[View]:
        return [
            View(name, marks, sizes[name], frame, picture(planes[name][boxes[name]], sizes[name], (0.0, top), DETAIL))
            for name, (_, marks) in VIEWS.items()
        ]

    return [[{"name": p.name, "note": p.note, "rows": [(label, views(planes)) for label, planes in p.rows]}
             for p in people] for people in groups]  # fmt: skip


def _box(planes: Sequence[Volume], dark: float, margin: int) -> Any:
    """Rows and columns in which any plane is brighter than `dark`, and a margin."""
    bright = np.any([plane > dark for plane in planes], axis=0)
    lines = [np.flatnonzero(bright.any(axis=axis)) for axis in (1, 0)]
    return tuple(
        slice(max(0, line[0] - margin), min(count, line[-1] + 1 + margin)) if len(line) else slice(0, count)
        for line, count in zip(lines, bright.shape, strict=True)
    )
