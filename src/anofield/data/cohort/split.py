"""Split a cohort into groups that share no subject and no scan, and write them as a manifest."""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from anofield._files import write_text
from anofield.data.cohort.bids import subject_folder
from anofield.data.cohort.case import Case, printable, split_by_subject
from anofield.data.cohort.loose import subject_of
from anofield.data.cohort.manifest import MANIFEST_COLUMNS
from anofield.data.parallel import HERE, Spread, map_cases
from anofield.data.scan import read_scan
from anofield.errors import CohortError, UsageError
from anofield.typing import PathLike


@dataclass(frozen=True)
class Split:
    """A cohort in groups.

    Attributes:
        cases: The cases with their groups, in the order of the cohort; those of no group are left out.
        twins: Ids of scans with the same content but different subjects, which were kept together.
        unread: Ids of scans that could not be read, whose content was not compared.
        subjects: Number of subjects in every group.
    """

    cases: list[Case]
    twins: list[tuple[str, ...]]
    unread: list[str]
    subjects: dict[str, int]

    def counts(self) -> dict[str, int]:
        """Number of scans in every group."""
        return {group: sum(case.group == group for case in self.cases) for group in self.subjects}


def parse_groups(texts: Sequence[str]) -> dict[str, float]:
    """Groups and their shares of the subjects, as written on the command line.

    >>> parse_groups(["train=0.6,calibration=0.2", "test=0.2"])
    {'train': 0.6, 'calibration': 0.2, 'test': 0.2}

    Raises:
        UsageError: A text is not a list of `name=share` pairs, a name is repeated, or the shares exceed 1.
    """
    groups: dict[str, float] = {}
    for pair in (pair.strip() for text in texts for pair in text.split(",") if pair.strip()):
        name, _, share = (part.strip() for part in pair.partition("="))
        if not name or name in groups or not name.isprintable() or name == "n/a":
            raise UsageError(
                f"--groups {pair}", remedy="write it like train=0.6,calibration=0.2,test=0.2, each name once"
            )
        groups[name] = _share(share, pair)
    if not groups or math.fsum(groups.values()) > 1 + 1e-9:
        raise UsageError(
            f"the shares of --groups add up to {math.fsum(groups.values()):g}",
            remedy="give shares with a sum of 1, or less to leave subjects out",
        )
    return groups


def split_cohort(cases: Sequence[Case], groups: Mapping[str, float], seed: int = 0, spread: Spread = HERE) -> Split:
    """Split a cohort at random into groups; all scans of a subject, and scans of the same content, stay together.

    The subject is that of the case, else the `sub-*` folder of its BIDS tree, else the one that the id states, else the
    id. Every scan is read once.

    Args:
        cases: The cohort.
        groups: Names of the groups and their shares of the subjects.
        seed: Seed of the random choice.
        spread: Where the scans are read.

    Raises:
        CohortError: A group would be empty.
    """
    cases = [replace(case, subject=_subject(case)) for case in cases]
    contents = {outcome.case.id: outcome.value for outcome in map_cases(_content, cases, spread=spread, label="split")}
    person, twins = _people(cases, contents)
    tied = [replace(case, subject=person[case.subject]) for case in cases]
    parts = split_by_subject(tied, list(groups.values()), np.random.default_rng(seed))
    group = {case.id: name for name, part in zip(groups, parts, strict=True) for case in part}
    if empty := [name for name in groups if name not in group.values()]:
        raise CohortError(
            f"the group {empty[0]!r} would be empty",
            why=f"{len(set(person.values()))} subjects are too few for these shares",
            remedy="give fewer groups or larger shares, or more subjects",
        )
    chosen = [replace(case, group=group[case.id]) for case in cases if case.id in group]
    subjects = {name: len({person[case.subject] for case in chosen if case.group == name}) for name in groups}
    return Split(chosen, twins, sorted(one for one, content in contents.items() if content is None), subjects)


def write_manifest(cases: Sequence[Case], path: PathLike, *, force: bool = False) -> Path:
    """Write cases as a manifest that `read_manifest` reads back: paths below its folder are relative, others absolute.

    Args:
        cases: The cases.
        path: File to write, `NAME.tsv`.
        force: Replace an existing file.

    Raises:
        UsageError: The file exists, or its name does not end in `.tsv`.
        CohortError: A file does not exist, or a path cannot be a cell of a table.
        MachineError: The file cannot be written.
    """
    path = Path(path)
    if path.suffix != ".tsv":
        raise UsageError("the name of a manifest ends in .tsv", where=path, remedy="choose such a name")
    if path.exists() and not force:
        raise UsageError("exists", where=path, remedy="choose another name, or replace it with --force")
    rows = [MANIFEST_COLUMNS, *(_row(case, path.parent.absolute()) for case in cases)]
    write_text(path, "".join("\t".join(row) + "\n" for row in rows))
    return path


def _subject(case: Case) -> str:
    folder = subject_folder(case.image)
    return case.subject or (folder.name if folder else "") or subject_of(case.id) or case.id


def _share(text: str, pair: str) -> float:
    try:
        share = float(text)
    except ValueError:
        share = math.nan
    if not 0 < share <= 1:
        raise UsageError(f"--groups {pair}", remedy="give a share of the subjects above 0 and up to 1, like test=0.2")
    return share


def _content(case: Case) -> str:
    """Hash of a scan's content."""
    return read_scan(case.image).content_hash


def _people(cases: Sequence[Case], contents: Mapping[str, str | None]) -> tuple[dict[str, str], list[tuple[str, ...]]]:
    """The first subject among all that share a scan with one, for every subject; and the ids of the shared scans."""
    alike: defaultdict[str, list[Case]] = defaultdict(list)
    for case in cases:
        if content := contents.get(case.id):
            alike[content].append(case)
    first = {case.subject: case.subject for case in cases}
    twins = []
    for same in alike.values():
        names = sorted({first[case.subject] for case in same})
        if len({case.subject for case in same}) > 1:
            twins.append(tuple(case.id for case in same))
        first = {subject: names[0] if one in names else one for subject, one in first.items()}
    return first, twins


def _row(case: Case, folder: Path) -> list[str]:
    """The cells of a case, in the order of the columns.

    Raises:
        CohortError: A file does not exist, the case has several labels, or a cell would not be read back.
    """
    if case.more_labels:
        raise CohortError(
            f"has {len(case.labels)} labels, and a manifest holds one",
            where=printable(case.id),
            remedy="unite them in one file, or choose one by a pattern with --label",
        )
    files = (case.image, case.label, case.mask)
    for path in files:
        if path is not None and not path.is_file():
            raise CohortError("does not exist", where=printable(str(path)), remedy="fetch it, or leave the scan out")
    image, label, mask = ("n/a" if path is None else _place(path, folder) for path in files)
    cells = {"id": case.id, "image": image, "label": label, "mask": mask}
    cells |= {"group": case.group or "n/a", "subject": case.subject or "n/a"}
    for name, cell in cells.items():
        if cell != cell.strip() or set(cell) & set("\t\r\n"):
            raise CohortError(
                f"its {name} {printable(cell)!r} cannot be a cell of a manifest",
                where=printable(case.id),
                why="a cell has no tabs, line ends, or spaces at its ends",
                remedy="rename the file or folder",
            )
    return [cells[name] for name in MANIFEST_COLUMNS]


def _place(path: Path, folder: Path) -> str:
    """A path as a manifest in a folder has it."""
    path = path.absolute()
    return str(path.relative_to(folder)) if path.is_relative_to(folder) else str(path)
