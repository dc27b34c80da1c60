"""One scan of a cohort, and the check of ids; parts of a cohort and splits by subject."""

from __future__ import annotations

import itertools
import re
import unicodedata
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from anofield.errors import CohortError, UsageError
from anofield.typing import PathLike

OWN_FILES = r"(run|results|failures.*)\.json|cases\.tsv"  # files of a run, next to the folders of its cases
LONGEST_ID = 200  # bytes; file systems allow 255 in a name, and temporary files add to it
OF_WINDOWS = r"(con|prn|aux|nul|com\d|lpt\d)(\..*)?"  # names of devices, which no folder can have there


@dataclass(frozen=True)
class Case:
    """One scan of a cohort.

    Attributes:
        id: Case id, unique in the cohort; also the name of the case's folder in a run.
        image: Scan file.
        label: Lesion truth on the scan's voxels, if there is one.
        mask: Brain mask on the scan's voxels, if there is one.
        subject: Subject of the scan; splits keep the scans of a subject together. If empty, the id is used.
        group: Group of the case in a manifest, for example `train` or `test`.
        contrast: Contrast of the scan, `T2w` or `FLAIR`, as its name, layout or `--modality` says; empty if unknown.
        more_labels: Further files of the lesion truth, united with `label`; only with `unite` of `find_cases`.
    """

    id: str
    image: Path
    label: Path | None = None
    mask: Path | None = None
    subject: str = ""
    group: str | None = None
    contrast: str = field(default="", compare=False)
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
        CohortError: Two cases have the same id, also one that differs only in capitals; or ids cannot name a folder, or
            paths cannot be written down, all of which are named.
        UsageError: Something in the list is not a case.
    """
    if isinstance(cases, str | Path | Case) or not isinstance(cases, Iterable):
        raise _no_cases(cases)
    cases, first = list(cases), dict[str, Case]()
    for case in cases:
        if not isinstance(case, Case):
            raise _no_cases(case)
    _check_ids(cases, where)
    for case in cases:
        other = first.setdefault(one_name(case.id), case)
        if other is not case:
            ids = f"the id {case.id!r}"
            if other.id != case.id:
                ids = f"the ids {other.id!r} and {case.id!r}, which some disks take for one"
            raise CohortError(
                f"two scans have {ids}: {printable(str(other.image))} and {printable(str(case.image))}",
                where=where,
                why="one would overwrite the results of the other",
                remedy="rename one, use the two folders separately, or list the scans in a manifest",
            )
    return cases


def one_name(name: str) -> str:
    """What is the same for all names that some file systems take for one: capitals and accents do not count apart."""
    return unicodedata.normalize("NFC", unicodedata.normalize("NFC", name).casefold())


def check_id(name: str, where: PathLike, at: str = "") -> None:
    """Check that an id can name a folder on every usual file system.

    Args:
        name: The id.
        where: File or source that has it, for the error.
        at: Place in the file, before the rest of the error.

    Raises:
        CohortError: It has slashes, a leading dot, control characters or spaces at an end, is no Unicode text, is the
            name of a file of a run or of a device, or is too long or empty.
    """
    if wrong := _fault(name):
        what, remedy = wrong
        raise CohortError(f"{at}the id {_short(name)!r} cannot name a folder{what}", where=where, remedy=remedy)


def printable(text: str) -> str:
    """A text on one line of a terminal: characters that cannot be shown are escaped.

    >>> printable("a b\\nc é")
    'a b\\\\nc é'
    """
    return "".join(one if one.isprintable() else repr(one)[1:-1] for one in text)


def _check_ids(cases: Sequence[Case], where: PathLike) -> None:
    """Check the ids and paths of all cases; the error names every bad one."""
    wrong = [(case, fault) for case in cases if (fault := _fault(case.id) or _unwritable(case))]
    if len(wrong) == 1:
        ((case, (what, remedy)),) = wrong
        raise CohortError(
            f"the id {_short(case.id)!r} cannot name a folder{what}", where=printable(str(case.image)), remedy=remedy
        )
    if wrong:
        names = ", ".join(f"{_short(case.id)!r}{what}" for case, (what, _) in wrong)
        raise CohortError(
            f"{len(wrong)} of {len(cases)} scans have an id that cannot name a folder: {names}",
            where=where or wrong[0][0].image.parent,
            remedy="rename these files, or list the scans with other ids in a manifest",
        )


def _fault(name: str) -> tuple[str, str] | None:
    """What is wrong with an id, after «cannot name a folder», and the remedy; None for a good one."""
    again = "rename the file, or give the scan another id in a manifest"
    if not name or re.search(r"[/\\\0]|^\.", name):
        return "", "use no slashes and no leading dot"
    if any(unicodedata.category(one) == "Cs" for one in name):
        return ": it is no Unicode text", "rename the file in UTF-8"
    if not name.isprintable():
        return ": it has control characters", "rename the file"
    if name != name.strip() or name.endswith("."):
        return ": it begins or ends with a space, or ends with a dot", again
    if re.fullmatch(OWN_FILES, name, re.IGNORECASE):
        return "", f"choose another: a run has a file of that name; {again}"
    if re.fullmatch(OF_WINDOWS, name, re.IGNORECASE):
        return ": Windows has a device of that name", again
    if len(name.encode()) > LONGEST_ID:
        return f": it has {len(name.encode())} bytes", f"use {LONGEST_ID} at most; {again}"
    return None


def _unwritable(case: Case) -> tuple[str, str] | None:
    """The fault of a case whose paths are no Unicode text, so that no table can hold them."""
    paths = [path for path in (case.image, case.label, case.mask) if path is not None]
    bad = next((path for path in paths if any(unicodedata.category(one) == "Cs" for one in str(path))), None)
    return (f": the path {printable(str(bad))} is no Unicode text", "rename it in UTF-8") if bad else None


def _short(name: str) -> str:
    return name if len(name) <= 40 else f"{name[:40]}..."


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
