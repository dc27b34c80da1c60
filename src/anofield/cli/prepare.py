"""`anofield prepare`: scans → store."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal, TypeAlias

import typer

from anofield._words import counted
from anofield.cli._options import SCANS, Dataset, Device, Force, Json, LabelledInput, Work, finish, resolution_of
from anofield.cli._parameters import expanded
from anofield.errors import UsageError

if TYPE_CHECKING:
    from anofield.data.cohort.case import Case
    from anofield.data.recipe import Recipe
    from anofield.data.store import Store
    from anofield.detect.placer import Placer

RecipeName: TypeAlias = Literal["box", "ifl2021-hcp", "ifl2021-brats"]
PUBLISHED: dict[Dataset, RecipeName] = {"hcp": "ifl2021-hcp", "brats": "ifl2021-brats"}  # the data sets of 2021


@dataclass(frozen=True)
class PreparedInput(LabelledInput):
    """Scans to prepare; `--source` is the name of `--input` in the scripts of 2021."""

    source: Annotated[list[str], typer.Option("--input", "-i", "--source", help=SCANS)]


@dataclass(frozen=True)
class Wanted:
    """The recipe as the command line describes it."""

    recipe: Annotated[
        RecipeName | None,
        typer.Option(
            "--recipe", help="Default: box; with --cluster_centers or --mode_pool the published recipe of the data set."
        ),
    ] = None
    res: Annotated[str, typer.Option("--res", help="Lattice voxels per axis, or full (published recipes).")] = "96"
    centers: Annotated[
        str, typer.Option("--centers", help="Class centres: fit, fit:K, paper, a file, or a store to take them from.")
    ] = "fit"
    cluster_centers: Annotated[Path | None, typer.Option("--cluster_centers", hidden=True)] = None
    normalise: Annotated[
        Literal["robust", "tissue", "clip-minmax"] | None,
        typer.Option(
            "--normalise",
            help="robust: median and interquartile range; tissue: levels of grey and white matter. Default: robust for "
            "box; clip-minmax (2 to 98 %) for the published recipes, which allow no other.",
        ),
    ] = None
    mode_pool: Annotated[
        int | None, typer.Option("--mode-pool", help="Window of the mode pool: 2 or 3 voxels; default: none.")
    ] = None
    published_mode_pool: Annotated[int | None, typer.Option("--mode_pool", hidden=True)] = None
    label_resampling: Annotated[
        Literal["nearest", "published"],
        typer.Option("--label-resampling", help="published: linear and rounded, as in 2021 (published recipes)."),
    ] = "nearest"
    seed: Annotated[int, typer.Option("--seed", min=0, help="Seed of the fit of class centres.")] = 0

    @property
    def as_published(self) -> bool:
        """Whether an option of the scripts of 2021 was given."""
        return self.cluster_centers is not None or self.published_mode_pool is not None

    def name(self, dataset: Dataset) -> RecipeName:
        """The recipe that was named; else `box`, or, with options of 2021, the published recipe of the data set.

        Raises:
            UsageError: Options of 2021 are used with a data set that is not one of 2021.
        """
        if self.recipe is not None or not self.as_published:
            return self.recipe or "box"
        if dataset not in PUBLISHED:
            raise UsageError(
                "--cluster_centers and --mode_pool are options of the scripts of 2021, which support HCP and BraTS",
                remedy="add --dataset HCP or --dataset BraTS; or use --centers and --mode-pool with a --recipe",
            )
        return PUBLISHED[dataset]

    def without_centers(self, dataset: Dataset) -> Recipe:
        """The recipe before its class centres are known.

        Raises:
            UsageError: An option does not fit the recipe.
        """
        from anofield.data.recipe import recipe_for

        _once("--mode-pool", self.mode_pool, "--mode_pool", self.published_mode_pool)
        width = self.published_mode_pool if self.mode_pool is None else self.mode_pool
        name = self.name(dataset)
        recipe = recipe_for(name, resolution_of(self.res), width, self.label_resampling)
        if self.normalise is None:
            return recipe
        if self.normalise not in recipe.kind.normalisations:
            raise UsageError(
                f"--normalise {self.normalise} with the recipe {name}",
                why="the published preprocessing is clip-minmax",
                remedy="leave it out, or use --recipe box",
            )
        return recipe.model_copy(update={"normalise": self.normalise})

    def with_centers(self, recipe: Recipe, cases: Sequence[Case], before: Recipe | None) -> Recipe:
        """The recipe with the class centres that the options name.

        A file `.cp` is the pickle of 2021, a folder is a store; `before` is the recipe of the store that is resumed.
        """
        from anofield.data.centers import read_centers
        from anofield.data.nt import read_centers_pickle
        from anofield.data.store import Store

        if self.centers != "fit":
            _once("--centers", self.centers, "--cluster_centers", self.cluster_centers)
        default = "paper" if self.as_published and self.centers == "fit" else self.centers
        source = str(self.cluster_centers or default)
        if Path(source).is_dir():
            return recipe.model_copy(update={"centers": Store(source).recipe.centers})
        if source.endswith(".cp"):
            return recipe.model_copy(update={"centers": read_centers_pickle(source)})
        return read_centers(source, cases, recipe, self.seed, before=before)


@expanded
def command(
    *,
    scans: PreparedInput,
    output: Annotated[Path, typer.Option("--output", "-o", "--target", help="Store to write, NAME.zarr.")],
    wanted: Wanted,
    labels: Annotated[bool, typer.Option("--labels", help="Keep lesion labels in the store.")] = False,
    pose: Annotated[
        Path | None,
        typer.Option("--pose", help="Experiment whose field finds the pose of every scan; all heads lie alike in it."),
    ] = None,
    device: Device = "auto",
    work: Work,
    force: Force = False,
    json_: Json = False,
) -> None:
    """Resample scans to the lattice as intensity classes, and store them; an existing store is resumed.

    The option names of the scripts of 2021 work too: --source, --target, --cluster_centers and --mode_pool.
    """
    from anofield.data.cohort.attach import say_unlabelled
    from anofield.data.parallel import failures_of
    from anofield.data.store import prepare_cohort, stored_recipe

    recipe = wanted.without_centers(scans.dataset)
    place = None if pose is None else _placer(pose, recipe, device)
    cases = scans.cases()
    if labels and scans.label is None:
        say_unlabelled([case.id for case in cases if not case.labels], len(cases))
    recipe = wanted.with_centers(recipe, cases, None if force else stored_recipe(output))
    spread = work.spread()
    store, outcomes = prepare_cohort(cases, recipe, output, labels=labels, spread=spread, force=force, place=place)
    failures = failures_of(outcomes)
    result = {**store.summary(), "failures": [vars(failure) for failure in failures]}
    finish(result, failures, len(store.done), as_json=json_, text=_text(store, output))


def _placer(experiment: Path, recipe: Recipe, device: str) -> Placer:
    """What finds the pose of every scan.

    Raises:
        UsageError: The recipe takes no pose.
    """
    from anofield.data.prepare import check_posable
    from anofield.detect.placer import posing

    check_posable(recipe)
    return posing(experiment, device=device)


def _once(one: str, value: object, other: str, published: object) -> None:
    """Check that an option and its name of 2021 are not both given.

    Raises:
        UsageError: Both are given.
    """
    if value is not None and published is not None:
        raise UsageError(f"{one} and {other} are given", why="they are two names of one option", remedy="give one")


def _text(store: Store, output: Path) -> str:
    counts = f"{len(store.done)} of {counted(len(store.ids), 'case')}"
    return f"{output}: {counts} at {store.resolution}³, {len(store.recipe.centers)} classes"
