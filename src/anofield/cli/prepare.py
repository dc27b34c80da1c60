"""`anofield prepare`: scans → store."""

from __future__ import annotations

from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer

from anofield.cli._options import Dataset, DatasetOption, Force, Json, Modality, ModalityOption, Workers, finish
from anofield.errors import UsageError


class RecipeName(StrEnum):
    """Geometry and intensity steps."""

    box = "box"
    ifl2021_hcp = "ifl2021-hcp"
    ifl2021_brats = "ifl2021-brats"


def command(
    source: Annotated[str, typer.Option("--input", "-i", help="Scan, folder or quoted glob.")],
    output: Annotated[Path, typer.Option("--output", "-o", help="Store to write, NAME.zarr.")],
    dataset: DatasetOption = Dataset.auto,
    modality: ModalityOption = Modality.T2w,
    recipe: Annotated[RecipeName, typer.Option("--recipe", help="box, or the published one.")] = RecipeName.box,
    res: Annotated[str, typer.Option("--res", help="Lattice voxels per axis; full (published recipes).")] = "96",
    centers: Annotated[str, typer.Option("--centers", help="Class centres: fit, fit:K, paper or a file.")] = "fit",
    mode_pool: Annotated[int | None, typer.Option("--mode-pool", help="Window of the mode pool, 2 or 3.")] = None,
    labels: Annotated[bool, typer.Option("--labels", help="Keep lesion labels in the store.")] = False,
    seed: Annotated[int, typer.Option("--seed", help="Of the fit of class centres.")] = 0,
    workers: Workers = 1,
    force: Force = False,
    json_: Json = False,
) -> None:
    """Bring scans on the lattice of the field as intensity classes, and store them (resumes by itself)."""
    from anofield.cluster import failures_of
    from anofield.cohort import find_cases
    from anofield.prepare import read_centers, recipe_for
    from anofield.store import prepare_cohort, stored_recipe

    if res != "full" and not res.isdecimal():
        raise UsageError(f"--res {res}", remedy="give a number of voxels per axis, or full")
    if mode_pool not in (None, 2, 3):
        raise UsageError(f"--mode-pool {mode_pool}", remedy="give 2 or 3, or leave it out")
    cases = find_cases(source, dataset=dataset.value, modality=modality.value)
    wanted = recipe_for(recipe.value, None if res == "full" else int(res), mode_pool)
    wanted = read_centers(centers, cases, wanted, seed, before=None if force else stored_recipe(output))
    store, outcomes = prepare_cohort(cases, wanted, output, labels=labels, workers=workers, force=force)
    failures = failures_of(outcomes)
    result = {
        "store": str(output),
        "cases": store.ids,
        "done": len(store.done),
        "resolution": store.resolution,
        "recipe": store.recipe.model_dump(mode="json"),
        "failures": [vars(failure) for failure in failures],
    }
    counts = f"{len(store.done)} of {len(store.ids)} cases"
    text = f"{output}: {counts} at {store.resolution}³, {len(store.recipe.centers)} classes"
    finish(result, failures, len(store.done), as_json=json_, text=text)
