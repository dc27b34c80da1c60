"""Class centres of a cohort: fitted on its scans, published, or read from a file."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from anofield._words import counted
from anofield.data.classes import PAPER_CENTERS, fit_centers
from anofield.data.cohort.case import Case
from anofield.data.prepare import prepare_case
from anofield.data.recipe import Recipe
from anofield.errors import CohortError, ScanError, UsageError

CENTER_CASES, CENTER_VOXELS = 40, 20_000  # largest number of scans, and of voxels per scan, in the fit


def fit_cohort_centers(cases: Sequence[Case], recipe: Recipe, count: int, seed: int = 0) -> tuple[float, ...]:
    """Fit class centres to normalised brain intensities of up to `CENTER_CASES` scans, spread over the cohort.

    Raises:
        CohortError: There is no scan.
        ScanError: None of the scans can be prepared.
    """
    if not cases:
        raise CohortError("no scans to fit class centres to", remedy="give at least one case")
    picked = [cases[i] for i in np.unique(np.linspace(0, len(cases) - 1, CENTER_CASES).astype(int))]
    refused: list[ScanError] = []
    samples = list(_sampled_intensities(picked, recipe, seed, refused))
    if not samples:
        first = refused[0]
        what = f"{first.what} (the first of {counted(len(refused), 'scan')}; none of them can be prepared)"
        raise ScanError(what, where=first.where, why=first.why, remedy=first.remedy)
    return fit_centers(np.concatenate(samples), count, seed)


def read_centers(
    source: str, cases: Sequence[Case], recipe: Recipe, seed: int = 0, *, before: Recipe | None = None
) -> Recipe:
    """The recipe with class centres from `fit`, `fit:K`, `paper` or a text file of numbers.

    Args:
        source: Source of the centres: `fit`, `fit:K`, `paper` or a file.
        cases: The scans that `fit` uses.
        recipe: Recipe that gets the centres.
        seed: Seed of the fit.
        before: Recipe of the store that is resumed, if there is one. `fit` keeps its centres: a scan that was repaired
            in the meantime would change them, and the finished cases would belong to another recipe.

    Raises:
        UsageError: The file is missing or does not hold increasing numbers.
    """
    if source == "paper":
        return _with(recipe, PAPER_CENTERS)
    if source == "fit" or source.startswith("fit:"):
        return _with(recipe, _fitted(source, cases, recipe, seed, before))
    try:
        numbers = [float(word) for word in Path(source).read_text().replace(",", " ").split()]
        return Recipe.model_validate({**recipe.model_dump(), "centers": numbers})
    except (OSError, ValueError) as error:
        raise UsageError(
            f"class centres cannot be read ({str(error).splitlines()[0]})",
            where=source,
            remedy="give fit, fit:K, paper, a store, or a text file of increasing numbers between 0 and 1",
        ) from error


def _with(recipe: Recipe, centers: tuple[float, ...]) -> Recipe:
    return recipe.model_copy(update={"centers": centers})


def _fitted(source: str, cases: Sequence[Case], recipe: Recipe, seed: int, before: Recipe | None) -> tuple[float, ...]:
    """Centres of `fit` or `fit:K`; a resumed store keeps its own if they were fitted and their number is the same."""
    count = source.partition(":")[2] or str(len(PAPER_CENTERS))
    if not count.isdecimal():
        raise UsageError(f"--centers {source}", remedy="give fit, fit:K with a number K, paper or a file")
    if before is not None and before.centers != PAPER_CENTERS and len(before.centers) == int(count):
        return before.centers
    return fit_cohort_centers(cases, recipe, int(count), seed)


def _sampled_intensities(
    cases: Iterable[Case], recipe: Recipe, seed: int, refused: list[ScanError]
) -> Iterable[NDArray[np.float32]]:
    """Intensities of every case that can be prepared; the errors of the others go into `refused`."""
    for number, case in enumerate(cases):
        try:
            prepared = prepare_case(case, recipe)
        except ScanError as error:
            refused.append(error)  # the pass that writes the store reports them all
            continue
        values = prepared.intensity[prepared.brain]
        generator = np.random.default_rng((seed, number))
        yield generator.choice(values, min(CENTER_VOXELS, values.size), replace=False)
