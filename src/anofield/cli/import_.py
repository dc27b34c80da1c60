"""`anofield import`: the `.nt` files of 2021 → store; a recipe for an experiment of 2021."""

from __future__ import annotations

from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from anofield._progress import say
from anofield._words import counted
from anofield.cli._options import Force, Json, finish
from anofield.errors import UsageError

if TYPE_CHECKING:
    from anofield.data.prepare import Recipe, RecipeName


class PublishedRecipe(StrEnum):
    """Which published preprocessing made the files."""

    ifl2021_hcp = "ifl2021-hcp"
    ifl2021_brats = "ifl2021-brats"


def command(
    source: Annotated[Path | None, typer.Option("--input", "-i", help="Folder of .nt files.")] = None,
    output: Annotated[Path | None, typer.Option("--output", "-o", help="Store to write, NAME.zarr.")] = None,
    model: Annotated[
        Path | None, typer.Option("--model", "-m", help="Published experiment that gets the recipe, to detect with it.")
    ] = None,
    recipe: Annotated[
        PublishedRecipe, typer.Option("--recipe", help="What made the files.")
    ] = PublishedRecipe.ifl2021_hcp,
    res: Annotated[str, typer.Option("--res", help="With -m: lattice voxels per axis, or full.")] = "160",
    centers: Annotated[str, typer.Option("--centers", help="Class centres: paper, FILE.cp or a text file.")] = "paper",
    mode_pool: Annotated[int | None, typer.Option("--mode-pool", help="Mode pool of the files, 2 or 3.")] = None,
    force: Force = False,
    json_: Json = False,
) -> None:
    """Turn the .nt files of the published code into a store (-i, -o), or give its experiment a recipe (-m).

    Nothing in the files is run; a store that is there is gone on with.
    """
    if (source is None) != (output is None) or (source is None and model is None):
        raise UsageError("nothing to import", remedy="give -i FOLDER and -o STORE, or -m EXPERIMENT, or all three")
    wanted = _recipe(recipe.value, None if res == "full" else _whole(res), centers, mode_pool)
    if source is not None and output is not None:
        from anofield.data.nt import import_store

        store = import_store(source, output, wanted.model_copy(update={"resolution": None}), force=force)
        wanted = store.recipe
        say("the .nt files keep no affine: the store knows its cases' native voxels, not their place in the world")
        text = (
            f"{output}: {counted(len(store.done), 'case')} at {store.resolution}³, {len(store.recipe.centers)} classes"
        )
        finish(store.summary(), [], len(store.done), as_json=json_, text=text)
    if model is not None:
        from anofield.field.experiment import Experiment
        from anofield.field.model import write_recipe

        write_recipe(Experiment(model).path, wanted)
        say(f"{model}: has its recipe.json; go on with `anofield calibrate` and `anofield detect`")


def _recipe(name: RecipeName, resolution: int | None, centers: str, mode_pool: int | None) -> Recipe:
    from anofield.data.nt import read_centers_pickle
    from anofield.data.prepare import read_centers, recipe_for

    if centers.partition(":")[0] == "fit":
        raise UsageError(
            "--centers fit", why=".nt files hold no intensities", remedy="give paper, FILE.cp or a text file"
        )
    wanted = recipe_for(name, resolution, mode_pool)
    if centers.endswith(".cp"):
        return wanted.model_copy(update={"centers": read_centers_pickle(centers)})
    return read_centers(centers, [], wanted)


def _whole(text: str) -> int:
    if not text.isdigit():
        raise UsageError(f"--res {text}", remedy="give a whole number of voxels, or full")
    return int(text)
