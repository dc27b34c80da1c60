"""`anofield sample`: experiment → pictures or volumes of people."""

from __future__ import annotations

import json
import sys
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from anofield.cli._options import Device, Experiment, Json
from anofield.errors import UsageError

if TYPE_CHECKING:
    from anofield.field.model import Model
    from anofield.field.sample import Canvas, Drawn

COUNTS = {"prior": 6, "between": 5}


class PlaneName(StrEnum):
    """Planes through the box."""

    axial = "axial"
    coronal = "coronal"
    sagittal = "sagittal"


class Show(StrEnum):
    """What a voxel holds."""

    intensity = "intensity"
    class_ = "class"


def command(
    model: Experiment,
    output: Annotated[Path, typer.Option("--output", "-o", help="Strip FILE.png, or volume FILE.nii.gz.")],
    case: Annotated[list[str] | None, typer.Option("--case", help="A training person; may be repeated.")] = None,
    prior: Annotated[bool, typer.Option("--prior", help="From the Gaussian of the training codes.")] = False,
    published: Annotated[bool, typer.Option("--published", help="From N(0, I)/10, as published in 2021.")] = False,
    between: Annotated[
        tuple[str, str] | None, typer.Option("--between", metavar="A B", help="From one training person to another.")
    ] = None,
    count: Annotated[
        int | None, typer.Option("--count", min=1, max=256, help="People; default 6, 5 between two.")
    ] = None,
    seed: Annotated[int, typer.Option("--seed", min=0, help="Of --prior and --published.")] = 0,
    plane: Annotated[PlaneName, typer.Option("--plane", help="Of a picture.")] = PlaneName.axial,
    at: Annotated[str, typer.Option("--at", help="Place of the plane: fraction of the box (0.5) or 12mm.")] = "0.5",
    resolution: Annotated[int | None, typer.Option("--res", help="Voxels per axis; default as trained.")] = None,
    show: Annotated[Show, typer.Option("--show", help="Expected intensity, or most probable class.")] = Show.intensity,
    epoch: Annotated[str, typer.Option("--epoch", help="Checkpoint: latest or a number.")] = "latest",
    device: Device = "auto",
    json_: Json = False,
) -> None:
    """Show people that the field holds: of the training, from its prior, or between two of them."""
    from anofield.field.model import load_model

    wanted = _request(case, prior, published, between)
    write = _writer(output)
    loaded = load_model(model, epoch=epoch, device=device)
    drawn = _draw(wanted, loaded, epoch, case or [], between or ("", ""), count, seed)
    result = {"experiment": str(model), "output": str(output), "people": drawn.names, "from": wanted}
    result |= write(loaded, drawn, output, resolution, show.value, plane.value, at)
    sys.stdout.write((json.dumps(result, indent=2) if json_ else _text(result)) + "\n")


def _request(case: list[str] | None, prior: bool, published: bool, between: tuple[str, str] | None) -> str:
    """The one source of codes that was asked for; `--prior --published` is the published one."""
    asked = {"case": bool(case), "between": bool(between), "prior": prior and not published, "published": published}
    chosen = [name for name, wanted in asked.items() if wanted]
    if len(chosen) != 1:
        what = f"--{' and --'.join(chosen)} together" if chosen else "no people asked for"
        raise UsageError(what, remedy="give one of --case ID, --prior, --published or --between A B")
    return chosen[0]


def _writer(output: Path) -> Any:
    if output.name.endswith((".nii.gz", ".nii")):
        return _write_volumes
    if output.suffix == ".png":
        return _write_picture
    raise UsageError("is neither .png nor .nii.gz", where=output, remedy="name the file accordingly")


def _draw(
    wanted: str, model: Model, epoch: str, cases: list[str], ends: tuple[str, str], count: int | None, seed: int
) -> Drawn:
    from anofield.field import sample

    table = sample.read_table(model.path, epoch)
    many = count or COUNTS.get(wanted, COUNTS["prior"])
    if wanted == "case":
        return sample.from_cases(table, cases)
    if wanted == "between":
        return sample.between(table, *ends, many)
    if wanted == "published":
        return sample.from_published(model.field.code_length, many, seed)
    return sample.from_prior(model.prior, many, seed, table.bound)


def _write_picture(
    model: Model, drawn: Drawn, output: Path, resolution: int | None, show: Any, plane: str, at: str
) -> dict[str, Any]:
    from anofield._progress import track
    from anofield.field import sample
    from anofield.report.strip import Strip, write_strip

    canvas = _canvas(model, resolution, sample.PLANE_RESOLUTIONS)
    index = sample.plane_index(canvas, plane, at)
    planes = [
        sample.decode_plane(model, code, canvas, plane, index, show)
        for code in track(drawn.codes, "decode", len(drawn.codes))
    ]
    levels = sample.shown_values(model.recipe)
    top, classes = (levels[-1], None) if show == "intensity" else (len(levels) - 1, len(levels))
    strip = Strip(planes, drawn.names, plane, sample.plane_mm(canvas, plane, index), top, classes)
    size = write_strip(output, strip)
    return {"size": size, "show": show, "caption": strip.caption, **_place(canvas)}


def _write_volumes(
    model: Model, drawn: Drawn, output: Path, resolution: int | None, show: Any, plane: str, at: str
) -> dict[str, Any]:
    import numpy as np

    from anofield._progress import Progress
    from anofield.field import sample

    canvas = _canvas(model, resolution, sample.VOLUME_RESOLUTIONS)
    with Progress("decode", len(drawn.codes) * sample.volume_steps(canvas)) as progress:
        volumes = [sample.decode_volume(model, code, canvas, show, progress.advance) for code in drawn.codes]
    data = volumes[0] if len(volumes) == 1 else np.stack(volumes, axis=-1)
    sample.write_volume(output, data, canvas, f"anofield sample, {show}")
    return {"size": data.shape, "show": show, "caption": "", **_place(canvas)}


def _canvas(model: Model, resolution: int | None, limits: tuple[int, int]) -> Canvas:
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
