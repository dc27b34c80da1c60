"""One scan of a cohort; parts of a cohort and splits by subject."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from anofield.errors import UsageError


@dataclass(frozen=True)
class Case:
    """One scan of a cohort.

    Attributes:
        id: Unique in the cohort; also the name of the case's folder in a run.
        image: Scan file.
        label: Lesion truth on the scan's voxels, if there is one.
        mask: Brain mask on the scan's voxels, if there is one.
        subject: Whom it shows; splits never separate the scans of one subject. Empty means the id.
        group: What a manifest says it belongs to, for example `train` or `test`.
    """

    id: str
    image: Path
    label: Path | None = None
    mask: Path | None = None
    subject: str = ""
    group: str | None = None


def part_of(cases: Sequence[Case], part: str | None) -> tuple[list[Case], str]:
    """The K-th of N parts of a cohort (every N-th case), and what to add to the names of its own files.

    Args:
        cases: The cohort, in an order that every part finds alike.
        part: `K/N`, K from 1; None takes all.

    Raises:
        UsageError: It is not K/N with 1 ≤ K ≤ N.
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
    """Split cases at random into parts of about the given fractions (summing to at most 1), subjects kept whole."""
    subjects = sorted({case.subject or case.id for case in cases})
    order = [subjects[i] for i in generator.permutation(len(subjects))]
    ends = [round(len(order) * end) for end in np.cumsum([0.0, *fractions])]
    parts = [set(order[start:end]) for start, end in itertools.pairwise(ends)]
    return [[case for case in cases if (case.subject or case.id) in part] for part in parts]
