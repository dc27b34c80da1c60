"""`anofield phantom`: write a synthetic cohort."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from anofield.cli._options import finish, listed
from anofield.errors import UsageError

if TYPE_CHECKING:
    from anofield.phantom.variety import Variety

Site = Annotated[
    Literal["A", "B", "C", "random"] | None,
    typer.Option("--site", help="Scanner with its sequences and faults; random: another one for every person."),
]
Kinds = Annotated[
    str,
    typer.Option(
        "--kinds",
        help="Lesion kinds, in turn, with --onto each of them: glioma, small, dark, infarct, bleeding, "
        "infiltration, ms, dysplasia.",
    ),
]
Onto = Annotated[
    list[str] | None,
    typer.Option(
        "--onto",
        help="Real scan, stripped, or folder of them: implant lesions. Goes with --kinds, --seed, --modality.",
    ),
]
Template = Annotated[
    str,
    typer.Option(
        "--template", help="icbm152, colin27, mixed (between the two), or a folder with tissue maps of people."
    ),
]
VarietyName = Annotated[
    Literal["none", "full"],
    typer.Option("--variety", help="full: folds, asymmetry and ages from 20 to 85 years vary between people."),
]
Unusual = Annotated[
    str,
    typer.Option(
        "--unusual",
        help="Each person has one of these and is healthy all the same: ventricles, cavum, cisterns, cortex.",
    ),
]
NOT_ONTO = ("layout", "healthy", "lesion", "size", "site", "first", "template", "variety", "age", "unusual")


def command(
    context: typer.Context,
    output: Annotated[Path, typer.Option("--output", "-o", help="Folder of the cohort.")],
    layout: Annotated[
        Literal["hcp", "brats", "bids"], typer.Option("--layout", help="Folder tree, file names and native grid.")
    ] = "bids",
    healthy: Annotated[int, typer.Option("--healthy", min=0, help="Number of healthy persons.")] = 10,
    lesion: Annotated[int, typer.Option("--lesion", min=0, help="Number of persons with lesions.")] = 0,
    modality: Annotated[
        Literal["T2w", "T1w", "FLAIR"] | None,
        typer.Option("--modality", help="Contrast of the scans. Default: T2w; with --onto what their names say."),
    ] = None,
    size: Annotated[str, typer.Option("--size", help="native, or R for R³ voxels.")] = "native",
    seed: Annotated[int, typer.Option("--seed", min=0, help="Seed of the cohort.")] = 0,
    site: Site = None,
    kinds: Kinds = "glioma,small",
    first: Annotated[int, typer.Option("--first", min=0, help="Number of the first case.")] = 0,
    onto: Onto = None,
    template: Template = "icbm152",
    variety: VarietyName = "none",
    age: Annotated[
        str | None, typer.Option("--age", help="Ages in years, LOW-HIGH: atrophy of sulci, cortex and ventricles.")
    ] = None,
    unusual: Unusual = "",
) -> None:
    """Write a synthetic cohort, with lesion labels.

    For development, teaching and benchmarks; docs/explanation/phantom.md says what it cannot show.
    """
    from anofield._files import writing
    from anofield._progress import Progress
    from anofield.phantom.cohort import Cohort, plan_cohort, write_cohort

    if onto:
        _check_onto(context)
        _implant(onto, output, listed(kinds), seed, modality)
        return
    if healthy + lesion == 0:
        raise UsageError("no cases were requested", remedy="give --healthy or --lesion")
    if lesion == 0 and _given(context, "kinds"):
        raise UsageError("--kinds without people who have lesions", remedy="say how many with --lesion")
    people = _variety(template, variety, age, listed(unusual))
    with writing(output), Progress("phantom", healthy + lesion) as progress:
        paths = write_cohort(
            output,
            Cohort(layout, size=size, seed=seed, modality=modality or "T2w", site=site, variety=people),
            plan_cohort(healthy, lesion, listed(kinds), first),
            report=lambda done, total: progress.advance(),
        )
    sys.stdout.write("\n".join(str(path) for path in paths) + "\n")


def _given(context: typer.Context, name: str) -> bool:
    """Whether the command line names an option."""
    source = context.get_parameter_source(name)
    return source is not None and source.name == "COMMANDLINE"


def _check_onto(context: typer.Context) -> None:
    """Refuse options that describe synthetic people beside `--onto`."""
    if unused := [f"--{name}" for name in NOT_ONTO if _given(context, name)]:
        raise UsageError(
            f"--onto with {', '.join(unused)}",
            why="lesions are implanted into the scans as they are, one of each kind; nobody is simulated",
            remedy=f"leave out {'it' if len(unused) == 1 else 'them'} or --onto",
        )


def _implant(sources: list[str], output: Path, kinds: tuple[str, ...], seed: int, modality: str | None) -> None:
    """Implant lesions into real scans; ends with 3 if some scans cannot be used."""
    from functools import partial

    from anofield._files import writing
    from anofield.data.cohort.find import find_cases
    from anofield.data.parallel import failures_of, map_cases
    from anofield.phantom.implants import NAME, Implants, describe_implants, subjects_of, write_implants
    from anofield.phantom.tree import check_tree

    implants = Implants(kinds, seed, modality)
    cases = find_cases(sources, modality=modality)
    subjects = subjects_of(cases)
    if any(Path(source).is_dir() and output.exists() and output.samefile(source) for source in sources):
        raise UsageError("-o is the folder of the scans", where=output, remedy="name a folder of its own with -o")
    check_tree(output, NAME)
    with writing(output):
        work = partial(write_implants, out=output, subjects=subjects, implants=implants)
        outcomes = list(map_cases(work, cases, label="implant"))
        if done := {one.case.id: subjects[one.case.id] for one in outcomes if one.value}:
            describe_implants(output, done)
    paths = [str(path) for one in outcomes for path in one.value or ()]
    finish(paths, failures_of(outcomes), len(paths), as_json=False, text="\n".join(paths))


def _variety(template: str, variety: str, age: str | None, unusual: tuple[str, ...]) -> Variety:
    """The variety that the options describe; single options replace parts of `--variety`."""
    from dataclasses import replace

    from anofield.phantom.variety import FULL_VARIETY, SIMPLE, parse_ages

    base = FULL_VARIETY if variety == "full" else SIMPLE
    ages = base.age if age is None else parse_ages(age)
    return replace(base, template=template, age=ages, unusual=unusual)
