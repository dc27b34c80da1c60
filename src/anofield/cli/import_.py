"""`anofield import`: the `.nt` files of 2021 → store; a recipe for an experiment of 2021."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from anofield._progress import say
from anofield._words import counted
from anofield.cli._options import Force, Json, finish, resolution_of
from anofield.errors import UsageError

if TYPE_CHECKING:
    from anofield.data.recipe import Recipe, RecipeName


def command(
    source: Annotated[Path | None, typer.Option("--input", "-i", help="Folder of .nt files.")] = None,
    output: Annotated[Path | None, typer.Option("--output", "-o", help="Store to write, NAME.zarr.")] = None,
    model: Annotated[
        Path | None, typer.Option("--model", "-m", help="Published experiment to add the recipe to, for detection.")
    ] = None,
    recipe: Annotated[
        Literal["ifl2021-hcp", "ifl2021-brats"],
        typer.Option("--recipe", help="Published preprocessing that made the files."),
    ] = "ifl2021-hcp",
    res: Annotated[str, typer.Option("--res", help="With -m: lattice voxels per axis, or full.")] = "160",
    centers: Annotated[str, typer.Option("--centers", help="Class centres: paper, FILE.cp or a text file.")] = "paper",
    mode_pool: Annotated[
        int | None, typer.Option("--mode-pool", help="Window of the files' mode pool: 2 or 3 voxels.")
    ] = None,
    force: Force = False,
    json_: Json = False,
) -> None:
    """Turn the .nt files of the published code into a store (-i, -o), or add a recipe to its experiment (-m).

    Nothing in the files is executed; an existing store is resumed.
    """
    if (source is None) != (output is None) or (source is None and model is None):
        raise UsageError("nothing to import", remedy="give -i FOLDER and -o STORE, or -m EXPERIMENT, or all three")
    wanted = _recipe(recipe, resolution_of(res), centers, mode_pool)
    if source is not None and output is not None:
        wanted = _import_store(source, output, wanted, force=force, as_json=json_)
    if model is not None:
        from anofield.data.recipe import write_recipe
        from anofield.field.experiment import Experiment

        write_recipe(Experiment(model).path, wanted)
        say(f"{model}: recipe.json written; continue with `anofield calibrate` and `anofield detect`")


def _import_store(source: Path, output: Path, wanted: Recipe, *, force: bool, as_json: bool) -> Recipe:
    """Write the store, print a summary, and return its recipe."""
    from anofield.data.nt import import_store

    store = import_store(source, output, wanted.model_copy(update={"resolution": None}), force=force)
    say("the .nt files have no affine: the store holds the native voxels of its cases, not their place in the world")
    classes = f"{len(store.recipe.centers)} classes"
    text = f"{output}: {counted(len(store.done), 'case')} at {store.resolution}³, {classes}"
    finish(store.summary(), [], len(store.done), as_json=as_json, text=text)
    return store.recipe


def _recipe(name: RecipeName, resolution: int | None, centers: str, mode_pool: int | None) -> Recipe:
    from anofield.data.centers import read_centers
    from anofield.data.nt import read_centers_pickle
    from anofield.data.recipe import recipe_for

    if centers.partition(":")[0] == "fit":
        raise UsageError(
            "--centers fit", why=".nt files hold no intensities", remedy="give paper, FILE.cp or a text file"
        )
    wanted = recipe_for(name, resolution, mode_pool)
    if centers.endswith(".cp"):
        return wanted.model_copy(update={"centers": read_centers_pickle(centers)})
    return read_centers(centers, [], wanted)
