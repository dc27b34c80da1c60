"""One scan of a cohort; parts of a cohort and splits by subject."""

from __future__ import annotations

import itertools
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from anofield.errors import CohortError, UsageError
from anofield.typing import PathLike

OWN_FILES = r"(run|results|failures.*)\.json"  # files of a run, next to the folders of its cases
LONGEST_ID = 200  # bytes; file systems allow 255 in a name, and temporary files add to it


@dataclass(frozen=True)
class Case:
    """One scan of a cohort.

    Attributes:
        id: Case id, unique in the cohort; also the name of the case's folder in a run.
        image: Scan file.
        label: File of the lesion truth on the scan's voxels, if there is one.
        mask: Brain mask on the scan's voxels, if there is one.
        subject: Subject of the scan; splits keep the scans of a subject together. If empty, the id is used.
        group: Group of the case in a manifest, for example `train` or `test`.
        more_labels: Further files of the lesion truth, united with `label`; only with `unite` of `find_cases`.
    """

    id: str
    image: Path
    label: Path | None = None
    mask: Path | None = None
    subject: str = ""
    group: str | None = None
    more_labels: tuple[Path, ...] = ()

    @property
    def labels(self) -> tuple[Path, ...]:
        """All files of the lesion truth; a voxel counts if one of them labels it."""
        return () if self.label is None else (self.label, *self.more_labels)


def cohort_of(cases: Iterable[Case], where: PathLike = "") -> list[Case]:
    """The cases as a list, checked: their ids name the folders of their results.

    Args:
        cases: The cohort.
        where: Where the cases come from, for the error.

    Raises:
        CohortError: Two cases have the same id, or an id cannot name a folder.
        UsageError: Something in the list is not a case.
    """
    if isinstance(cases, str | Path | Case) or not isinstance(cases, Iterable):
        raise _no_cases(cases)
    first: dict[str, Case] = {}
    for case in cases:
        if not isinstance(case, Case):
            raise _no_cases(case)
        check_id(case.id, where or case.image)
        if case.id in first:
            raise CohortError(
                f"two scans have the id {case.id!r}: {first[case.id].image} and {case.image}",
                where=where,
                why="one would overwrite the results of the other",
                remedy="rename one, or use the two folders separately",
            )
        first[case.id] = case
    return list(first.values())


def check_id(name: str, where: PathLike, at: str = "") -> None:
    """Check that an id can name a folder.

    Args:
        name: The id.
        where: File or source that has it, for the error.
        at: Place in the file, before the rest of the error.

    Raises:
        CohortError: It has slashes or a leading dot, is the name of a file of a run, or is too long or empty.
    """
    what, remedy = "cannot name a folder", ""
    if not name or re.search(r"[/\\\0]|^\.", name):
        remedy = "use no slashes and no leading dot"
    elif re.fullmatch(OWN_FILES, name, re.IGNORECASE):
        remedy = "choose another: a run has a file of that name"
    elif len(name.encode()) > LONGEST_ID:
        what, remedy = f"{what}: it has {len(name.encode())} bytes", f"use {LONGEST_ID} at most"
    if remedy:
        short = name if len(name) <= 40 else f"{name[:40]}..."
        raise CohortError(f"{at}the id {short!r} {what}", where=where, remedy=remedy)


def _no_cases(given: object) -> UsageError:
    what = f"{type(given).__name__} where cases are expected"
    return UsageError(what, remedy="give a list of cases, for example from `anofield.find_cases(folder)`")


def part_of(cases: Sequence[Case], part: str | None) -> tuple[list[Case], str]:
    """The K-th of N parts of a cohort (every N-th case), and the suffix for the names of its files.

    Args:
        cases: The cohort, in the same order for every part.
        part: `K/N`, K from 1; None takes all.

    Raises:
        UsageError: `part` is not K/N with 1 ≤ K ≤ N.
    """
    if part is None:
        return list(cases), ""
    first, _, count = part.partition("/")
    if not (first.isdigit() and count.isdigit() and 1 <= int(first) <= int(count)):
        raise UsageError(f"--part {part}", remedy="give K/N with K from 1 to N, for example 2/8")
    return list(cases[int(first) - 1 :: int(count)]), f"-{first}-of-{count}"


def split_by_subject(
    cases: Sequence[Case], fractions: Sequence[float], generator: np.random.Generator
) -> list[list[Case]]:
    """Split cases at random into parts of about the given fractions (sum at most 1); subjects are not divided."""
    subjects = sorted({case.subject or case.id for case in cases})
    order = [subjects[i] for i in generator.permutation(len(subjects))]
    ends = [round(len(order) * end) for end in np.cumsum([0.0, *fractions])]
    parts = [set(order[start:end]) for start, end in itertools.pairwise(ends)]
    return [[case for case in cases if (case.subject or case.id) in part] for part in parts]
