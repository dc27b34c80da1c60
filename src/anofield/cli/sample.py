"""`anofield sample`: experiment → pictures or volumes of the anatomy that its field has learned."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

from anofield.cli._options import Device, Epoch, Experiment, Json, Threads, print_result
from anofield.cli._parameters import expanded
from anofield.errors import UsageError

if TYPE_CHECKING:
    from anofield.field.model import TrainedField
    from anofield.field.sample import Canvas, Drawn

COUNTS = {"prior": 6, "between": 5}


@dataclass(frozen=True)
class Asked:
    """The subjects or samples whose anatomy is shown."""

    case: Annotated[list[str] | None, typer.Option("--case", help="A training subject; may be repeated.")] = None
    prior: Annotated[bool, typer.Option("--prior", help="Samples of the Gaussian of the training codes.")] = False
    published: Annotated[bool, typer.Option("--published", help="Samples of N(0, I)/10, as published in 2021.")] = False
    between: Annotated[
        tuple[str, str] | None,
        typer.Option("--between", metavar="A B", help="Steps from one training subject to another."),
    ] = None
    count: Annotated[
        int | None, typer.Option("--count", min=1, max=256, help="Number of samples (default 6) or steps (default 5).")
    ] = None
    seed: Annotated[int, typer.Option("--seed", min=0, help="Seed of --prior and --published.")] = 0

    def kind(self) -> str:
        """The source of codes that was requested; `--prior --published` means the published one.

        Raises:
            UsageError: No source or several sources were requested.
        """
        prior = self.prior and not self.published
        asked = {"case": self.case, "between": self.between, "prior": prior, "published": self.published}
        chosen = [name for name, wanted in asked.items() if wanted]
        if len(chosen) != 1:
            what = f"--{' and --'.join(chosen)} together" if chosen else "no subject or sample was requested"
            raise UsageError(what, remedy="give one of --case ID, --prior, --published or --between A B")
        return chosen[0]

    def draw(self, model: TrainedField) -> Drawn:
        """The codes that were requested."""
        from anofield.field import sample

        codes, kind = model.codes, self.kind()
        many = self.count or COUNTS.get(kind, COUNTS["prior"])
        if kind == "case":
            return sample.from_cases(codes, self.case or [])
        if kind == "between":
            return sample.between(codes, *(self.between or ("", "")), many)
        if kind == "published":
            return sample.from_published(model.field.code_length, many, self.seed)
        return sample.from_prior(model.prior, many, self.seed, codes.bound)


@dataclass(frozen=True)
class View:
    """The plane, resolution and quantity that are shown."""

    plane: Annotated[Literal["axial", "coronal", "sagittal"], typer.Option("--plane", help="Plane of a picture.")] = (
        "axial"
    )
    at: Annotated[str, typer.Option("--at", help="Place of the plane: fraction of the box (0.5), or mm (12mm).")] = (
        "0.5"
    )
    resolution: Annotated[int | None, typer.Option("--res", help="Voxels per axis; default: as in the training.")] = (
        None
    )
    show: Annotated[
        Literal["intensity", "class"], typer.Option("--show", help="Expected intensity, or most probable class.")
    ] = "intensity"

    def write(self, model: TrainedField, drawn: Drawn, output: Path) -> dict[str, Any]:
        """Write a picture or volumes, by the suffix of the file name; returns a description of the result."""
        written: dict[str, Any] = _writer(output)(model, drawn, output, self)
        return written


@expanded
def command(
    *,
    model: Experiment,
    output: Annotated[Path, typer.Option("--output", "-o", help="Pictures FILE.png, or volumes FILE.nii.gz.")],
    asked: Asked,
    view: View,
    epoch: Epoch = "latest",
    device: Device = "auto",
    threads: Threads = "auto",
    json_: Json = False,
) -> None:
    """Show anatomy that the field has learned: training subjects, samples of its prior, or steps between two."""
    from anofield.field.model import open_field
    from anofield.field.threads import use_threads

    kind = asked.kind()
    _writer(output)
    use_threads(threads, device=device)
    loaded = open_field(model, epoch=epoch, device=device)
    drawn = asked.draw(loaded)
    result = {"experiment": str(model), "output": str(output), "people": drawn.names, "from": kind}
    result |= view.write(loaded, drawn, output)
    print_result(result, _text(result), as_json=json_)


def _writer(output: Path) -> Any:
    if output.name.endswith((".nii.gz", ".nii")):
        return _write_volumes
    if output.suffix == ".png":
        return _write_picture
    raise UsageError("is neither .png nor .nii.gz", where=output, remedy="give a file name with one of these suffixes")


def _write_picture(model: TrainedField, drawn: Drawn, output: Path, view: View) -> dict[str, Any]:
    from anofield._progress import track
    from anofield.field import sample
    from anofield.reports.strip import Strip, write_strip

    canvas = _canvas(model, view.resolution, sample.PLANE_RESOLUTIONS)
    index = sample.plane_index(canvas, view.plane, view.at)
    planes = [
        sample.decode_plane(model, code, canvas, view.plane, index, view.show)
        for code in track(drawn.codes, "decode", len(drawn.codes))
    ]
    levels = sample.shown_values(model.recipe)
    top, classes = (levels[-1], None) if view.show == "intensity" else (len(levels) - 1, len(levels))
    place = sample.plane_mm(canvas, view.plane, index)
    strip = Strip(planes, drawn.names, view.plane, place, top, classes)
    return {"size": write_strip(output, strip), "show": view.show, "caption": strip.caption, **_place(canvas)}


def _write_volumes(model: TrainedField, drawn: Drawn, output: Path, view: View) -> dict[str, Any]:
    import numpy as np

    from anofield._progress import Progress
    from anofield.field import sample

    canvas = _canvas(model, view.resolution, sample.VOLUME_RESOLUTIONS)
    with Progress("decode", len(drawn.codes) * sample.volume_steps(canvas)) as progress:
        volumes = [sample.decode_volume(model, code, canvas, view.show, progress.advance) for code in drawn.codes]
    data = volumes[0] if len(volumes) == 1 else np.stack(volumes, axis=-1)
    sample.write_volume(output, data, canvas, f"anofield sample, {view.show}")
    return {"size": data.shape, "show": view.show, "caption": "", **_place(canvas)}


def _canvas(model: TrainedField, resolution: int | None, limits: tuple[int, int]) -> Canvas:
    from anofield._progress import say
    from anofield.field import sample

    count = None if resolution is None else sample.check_resolution(resolution, limits)
    canvas = sample.canvas_of(model.recipe, count)
    if warning := sample.unlearned_octaves(model, canvas):
        say(warning)
    return canvas


def _place(canvas: Canvas) -> dict[str, Any]:
    return {
        "resolution": canvas.resolution,
        "spacing_mm": [float(abs(canvas.affine[axis, axis])) for axis in range(3)],
        "frame": canvas.assumed,
    }


def _text(result: dict[str, Any]) -> str:
    size = " × ".join(str(n) for n in result["size"])
    unit = "voxels" if len(result["size"]) > 2 else "pixels"
    spacing = result["spacing_mm"][0]
    lines = [f"{result['output']}: {size} {unit}, {spacing:.3g} mm, {result['show']}", ", ".join(result["people"])]
    return "\n".join([*lines, *filter(None, [result["caption"]]), f"world: {result['frame']}"])
