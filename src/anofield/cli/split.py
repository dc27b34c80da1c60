"""`anofield split`: cohort → manifest with groups that share no subject."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from anofield._progress import say
from anofield._words import counted
from anofield.cli._options import Json, LabelledInput, Workers, print_result
from anofield.cli._parameters import expanded

if TYPE_CHECKING:
    from anofield.data.cohort.split import Split


@expanded
def command(
    *,
    scans: LabelledInput,
    output: Annotated[Path, typer.Option("--output", "-o", help="Manifest to write, NAME.tsv.")],
    groups: Annotated[
        list[str], typer.Option("--groups", help="Groups and their shares of the subjects: train=0.7,test=0.3.")
    ],
    seed: Annotated[int, typer.Option("--seed", min=0, help="Seed of the random choice.")] = 0,
    workers: Workers = 1,
    force: Annotated[bool, typer.Option("--force", help="Replace an existing manifest.")] = False,
    json_: Json = False,
) -> None:
    """Write a manifest that divides a cohort into groups at random; no subject and no scan is in two groups.

    Then `-i MANIFEST --group NAME` takes the scans of one group.
    """
    from anofield.data.cohort.split import parse_groups, split_cohort, write_manifest
    from anofield.data.parallel import Spread

    shares = parse_groups(groups)
    cases = scans.cases()
    made = split_cohort(cases, shares, seed, Spread(workers))
    path = write_manifest(made.cases, output, force=force)
    _tell(made, len(cases))
    scans_of = made.counts()
    told = (f"{name} {counted(scans_of[name], 'scan')} of {counted(n, 'subject')}" for name, n in made.subjects.items())
    result = {"manifest": str(path), "scans": scans_of, "subjects": made.subjects}
    print_result(result, f"{path}: {', '.join(told)}", as_json=json_)


def _tell(made: Split, count: int) -> None:
    """Say what a user might not expect of the groups."""
    for ids in made.twins:
        say(f"{', '.join(ids)}: the same scan under several subjects, kept in one group")
    if made.unread:
        say(f"{counted(len(made.unread), 'scan')} cannot be read, so only the subject counts: {', '.join(made.unread)}")
    if left := count - len(made.cases):
        say(f"{counted(left, 'scan')} in no group: the shares add up to less than 1")
