"""`anofield phantom`: write a synthetic cohort."""

from __future__ import annotations

import sys
from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer

from anofield.errors import UsageError


class Modality(StrEnum):
    """Contrast of the scans."""

    T2w = "T2w"
    T1w = "T1w"
    FLAIR = "FLAIR"


class Layout(StrEnum):
    """Folder tree and native grid."""

    hcp = "hcp"
    brats = "brats"
    bids = "bids"


def command(
    output: Annotated[Path, typer.Option("--output", "-o", help="Folder of the cohort.")],
    layout: Annotated[Layout, typer.Option("--layout", help="Tree, file names and native grid.")] = Layout.bids,
    healthy: Annotated[int, typer.Option("--healthy", min=0, help="Number of healthy people.")] = 10,
    lesion: Annotated[int, typer.Option("--lesion", min=0, help="Number of people with lesions.")] = 0,
    modality: Annotated[Modality, typer.Option("--modality", help="Contrast of the scans.")] = Modality.T2w,
    size: Annotated[str, typer.Option("--size", help="native, or R for R³ voxels.")] = "native",
    seed: Annotated[int, typer.Option("--seed", min=0, help="Of the cohort.")] = 0,
    kinds: Annotated[str, typer.Option("--kinds", help="Lesion kinds, in turn: glioma, small, dark.")] = "glioma,small",
    first: Annotated[int, typer.Option("--first", min=0, help="Number of the first case.")] = 0,
) -> None:
    """Write a synthetic cohort made from the ICBM152 template, with lesion truth.

    For development, teaching and benchmarks; docs/explanation/phantom.md says what it cannot show.
    """
    from anofield._files import writing
    from anofield._progress import Progress
    from anofield.phantom.cohort import write_cohort

    if healthy + lesion == 0:
        raise UsageError("no case asked for", remedy="give --healthy or --lesion")
    wanted = tuple(kind.strip() for kind in kinds.split(","))
    with writing(output), Progress("phantom", healthy + lesion) as progress:
        paths = write_cohort(
            output,
            layout.value,
            healthy=healthy,
            lesion=lesion,
            modality=modality.value,
            size=size,
            seed=seed,
            kinds=wanted,
            first=first,
            report=lambda done, total: progress.advance(),
        )
    sys.stdout.write("\n".join(str(path) for path in paths) + "\n")
