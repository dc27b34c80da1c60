"""`anofield prepare`: scans → store."""

from __future__ import annotations

from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from anofield._words import counted
from anofield.cli._options import (
    Dataset,
    DatasetOption,
    Filter,
    Force,
    Json,
    Label,
    Mask,
    ModalityOption,
    Scheduler,
    Workers,
    finish,
)  # fmt: skip
from anofield.errors import UsageError

if TYPE_CHECKING:
    from collections.abc import Sequence

    from anofield.data.cohort.case import Case
    from anofield.data.prepare import Recipe


class RecipeName(StrEnum):
    """Geometry and intensity steps."""

    box = "box"
    ifl2021_hcp = "ifl2021-hcp"
    ifl2021_brats = "ifl2021-brats"


class Normalise(StrEnum):
    """How intensities of scans are made comparable."""

    robust = "robust"
    clip_minmax = "clip-minmax"


class LabelResampling(StrEnum):
    """How label maps come on the lattice."""

    nearest = "nearest"
    published = "published"


def command(
    source: Annotated[str, typer.Option("--input", "-i", "--source", help="Scan, folder, glob or manifest (.tsv).")],
    output: Annotated[Path, typer.Option("--output", "-o", "--target", help="Store to write, NAME.zarr.")],
    dataset: DatasetOption = Dataset.auto,
    modality: ModalityOption = "T2w",
    filter_: Filter = "",
    label: Label = None,
    mask: Mask = None,
    recipe: Annotated[RecipeName | None, typer.Option("--recipe", help="Default: box; with --cluster_centers or "
        "--mode_pool the published one of the data set.")] = None,
    res: Annotated[str, typer.Option("--res", help="Lattice voxels per axis; full (published recipes).")] = "96",
    centers: Annotated[str, typer.Option("--centers", help="Class centres: fit, fit:K, paper, a file, or "
        "a store, whose centres are taken.")] = "fit",
    cluster_centers: Annotated[Path | None, typer.Option("--cluster_centers", hidden=True)] = None,
    normalise: Annotated[Normalise | None, typer.Option("--normalise", help="Default: robust for box, clip-minmax "
        "(2 to 98 %) for the published recipes, which know no other.")] = None,
    mode_pool: Annotated[int | None, typer.Option("--mode-pool", help="Window of the mode pool, 2 or 3.")] = None,
    published_mode_pool: Annotated[int | None, typer.Option("--mode_pool", hidden=True)] = None,
    label_resampling: Annotated[LabelResampling, typer.Option("--label-resampling", help="published: order 1, as in "
        "2021 (published recipes).")] = LabelResampling.nearest,
    labels: Annotated[bool, typer.Option("--labels", help="Keep lesion labels in the store.")] = False,
    seed: Annotated[int, typer.Option("--seed", min=0, help="Of the fit of class centres.")] = 0,
    workers: Workers = 1,
    scheduler: Scheduler = None,
    force: Force = False,
    json_: Json = False,
) -> None:  # fmt: skip
    """Bring scans on the lattice of the field as intensity classes, and store them (resumes by itself).

    The option names of the scripts of 2021 work too: --dataset HCP --source DIR --target STORE --res 160
    --cluster_centers FILE --mode_pool 2 prepares as published.
    """
    from anofield.data.cohort.bids import parse_entities
    from anofield.data.cohort.find import find_cases
    from anofield.data.parallel import failures_of
    from anofield.data.prepare import recipe_for
    from anofield.data.store import prepare_cohort, stored_recipe

    if res != "full" and not res.isdecimal():
        raise UsageError(f"--res {res}", remedy="give a number of voxels per axis, or full")
    as_published = cluster_centers is not None or published_mode_pool is not None
    name = recipe or _default_recipe(dataset, as_published)
    entities = parse_entities(filter_)
    cases = find_cases(source, dataset=dataset.value, modality=modality, entities=entities, label=label, mask=mask)
    width = published_mode_pool if mode_pool is None else mode_pool
    wanted = recipe_for(name.value, None if res == "full" else int(res), width, label_resampling.value)
    if normalise is not None:
        wanted = _with_normalisation(wanted, normalise)
    given = str(cluster_centers) if cluster_centers else "paper" if as_published and centers == "fit" else centers
    wanted = _with_centers(wanted, given, cases, seed, None if force else stored_recipe(output))
    store, outcomes = prepare_cohort(
        cases, wanted, output, labels=labels, workers=workers, scheduler=scheduler, force=force
    )
    failures = failures_of(outcomes)
    result = {**store.summary(), "failures": [vars(failure) for failure in failures]}
    counts = f"{len(store.done)} of {counted(len(store.ids), 'case')}"
    text = f"{output}: {counts} at {store.resolution}³, {len(store.recipe.centers)} classes"
    finish(result, failures, len(store.done), as_json=json_, text=text)


def _default_recipe(dataset: Dataset, as_published: bool) -> RecipeName:
    """`box`, or the published recipe of the data set where the options are those of 2021."""
    if not as_published:
        return RecipeName.box
    published = {Dataset.hcp: RecipeName.ifl2021_hcp, Dataset.brats: RecipeName.ifl2021_brats}
    if dataset not in published:
        raise UsageError(
            "--cluster_centers and --mode_pool are options of the scripts of 2021, which know HCP and BraTS",
            remedy="add --dataset HCP or --dataset BraTS; or use --centers and --mode-pool with a --recipe",
        )
    return published[dataset]


def _with_normalisation(recipe: Recipe, normalise: Normalise) -> Recipe:
    if recipe.name != "box" and normalise is not Normalise.clip_minmax:
        raise UsageError(
            f"--normalise {normalise.value} with the recipe {recipe.name}",
            why="the published preprocessing is clip-minmax",
            remedy="leave it out, or use --recipe box",
        )
    return recipe.model_copy(update={"normalise": normalise.value})


def _with_centers(recipe: Recipe, source: str, cases: Sequence[Case], seed: int, before: Recipe | None) -> Recipe:
    """The recipe with the class centres named on the command line; `.cp` is the pickle of 2021, a folder a store."""
    from anofield.data.prepare import read_centers
    from anofield.data.store import Store

    if Path(source).is_dir():
        return recipe.model_copy(update={"centers": Store(source).recipe.centers})
    if source.endswith(".cp"):
        from anofield.data.nt import read_centers_pickle

        return recipe.model_copy(update={"centers": read_centers_pickle(source)})
    return read_centers(source, cases, recipe, seed, before=before)
