"""`anofield phantom`: write a synthetic cohort."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated, Literal

import typer

from anofield.cli._options import listed
from anofield.errors import UsageError


def command(
    output: Annotated[Path, typer.Option("--output", "-o", help="Folder of the cohort.")],
    layout: Annotated[
        Literal["hcp", "brats", "bids"], typer.Option("--layout", help="Folder tree, file names and native grid.")
    ] = "bids",
    healthy: Annotated[int, typer.Option("--healthy", min=0, help="Number of healthy persons.")] = 10,
    lesion: Annotated[int, typer.Option("--lesion", min=0, help="Number of persons with lesions.")] = 0,
    modality: Annotated[Literal["T2w", "T1w", "FLAIR"], typer.Option("--modality", help="Contrast of the scans.")] = (
        "T2w"
    ),
    size: Annotated[str, typer.Option("--size", help="native, or R for R³ voxels.")] = "native",
    seed: Annotated[int, typer.Option("--seed", min=0, help="Seed of the cohort.")] = 0,
    kinds: Annotated[str, typer.Option("--kinds", help="Lesion kinds, in turn: glioma, small, dark.")] = "glioma,small",
    site: Annotated[
        Literal["A", "B", "C", "random"] | None,
        typer.Option("--site", help="Scanner with its sequences and faults; random: another one for every person."),
    ] = None,
    first: Annotated[int, typer.Option("--first", min=0, help="Number of the first case.")] = 0,
) -> None:
    """Write a synthetic cohort made from the ICBM152 template, with lesion labels.

    For development, teaching and benchmarks; docs/explanation/phantom.md says what it cannot show.
    """
    from anofield._files import writing
    from anofield._progress import Progress
    from anofield.phantom.cohort import Cohort, plan_cohort, write_cohort

    if healthy + lesion == 0:
        raise UsageError("no cases were requested", remedy="give --healthy or --lesion")
    with writing(output), Progress("phantom", healthy + lesion) as progress:
        paths = write_cohort(
            output,
            Cohort(layout, size=size, seed=seed, modality=modality, site=site),
            plan_cohort(healthy, lesion, listed(kinds), first),
            report=lambda done, total: progress.advance(),
        )
    sys.stdout.write("\n".join(str(path) for path in paths) + "\n")
