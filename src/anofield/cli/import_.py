"""`anofield import`: the `.nt` files of 2021 → store."""

from __future__ import annotations

from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer

from anofield._progress import say
from anofield.cli._options import Force, Json, finish
from anofield.errors import UsageError


class PublishedRecipe(StrEnum):
    """Which published preprocessing made the files."""

    ifl2021_hcp = "ifl2021-hcp"
    ifl2021_brats = "ifl2021-brats"


def command(
    source: Annotated[Path, typer.Option("--input", "-i", help="Folder of .nt files.")],
    output: Annotated[Path, typer.Option("--output", "-o", help="Store to write, NAME.zarr.")],
    recipe: Annotated[
        PublishedRecipe, typer.Option("--recipe", help="What made the files.")
    ] = PublishedRecipe.ifl2021_hcp,
    centers: Annotated[str, typer.Option("--centers", help="Class centres: paper, FILE.cp or a text file.")] = "paper",
    mode_pool: Annotated[int | None, typer.Option("--mode-pool", help="Mode pool of the files, 2 or 3.")] = None,
    force: Force = False,
    json_: Json = False,
) -> None:
    """Turn the .nt files of the published code into a store; nothing in them is run (resumes by itself)."""
    from anofield.legacy import import_store, read_centers_pickle
    from anofield.prepare import read_centers, recipe_for

    if centers.partition(":")[0] == "fit":
        raise UsageError(
            "--centers fit", why=".nt files hold no intensities", remedy="give paper, FILE.cp or a text file"
        )
    wanted = recipe_for(recipe.value, None, mode_pool)
    if centers.endswith(".cp"):
        wanted = wanted.model_copy(update={"centers": read_centers_pickle(centers)})
    else:
        wanted = read_centers(centers, [], wanted)
    store = import_store(source, output, wanted, force=force)
    say("the .nt files keep no affine: the store knows its cases' native voxels, not their place in the world")
    text = f"{output}: {len(store.done)} cases at {store.resolution}³, {len(store.recipe.centers)} classes"
    finish(store.summary(), [], len(store.done), as_json=json_, text=text)
