"""What a finder returns: the cases, and the files that it left out with the reason for each."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from anofield._words import counted, named
from anofield.data.cohort.case import Case, printable
from anofield.data.cohort.contrast import counts_of

OTHER_GROUP = "of other groups"  # why a scan of a manifest is left out


@dataclass(frozen=True)
class LeftOut:
    """A file that is not among the cases, a folder that was not searched, or a column that was not read.

    Attributes:
        path: Path of the file or folder; of a column its manifest, with the name of the column.
        reason: Why it was left out, as it follows a number of files: «3 named like labels or masks».
        kind: What it is instead, where the reason has kinds: `FLAIR`, `test`; empty for none.
        what: `file`, `folder` or `column`.
    """

    path: Path
    reason: str
    kind: str = ""
    what: Literal["file", "folder", "column"] = "file"


class Cohort(list[Case]):
    """The cases of a cohort, as `find_cases` returns them: a list, with what was left out.

    Attributes:
        left_out: Files that were not taken, folders that were not searched and columns that were not read.
    """

    def __init__(self, cases: Iterable[Case] = (), left_out: Iterable[LeftOut] = ()) -> None:
        super().__init__(cases)
        self.left_out = list(left_out)

    def __repr__(self) -> str:
        return f"Cohort({'; '.join([counted(len(self), 'scan'), *self.remarks()])})"

    def remarks(self) -> list[str]:
        """What a user should know about the choice of the cases, a clause each; empty if there is nothing to say."""
        files = [one for one in self.left_out if one.what == "file"]
        folders = [f"{printable(one.path.name)} ({one.reason})" for one in self.left_out if one.what == "folder"]
        columns = [printable(one.path.name) for one in self.left_out if one.what == "column"]
        told = [f"left out {counted(len(files), 'file')}: {told_of(files)}"] if files else []
        told += [f"not searched: {named(dict.fromkeys(folders))}"] if folders else []
        told += [f"columns that are not read: {named(columns)}"] if columns else []
        contrasts = [case.contrast for case in self if case.contrast]
        if len(set(contrasts)) > 1:
            told.append(f"SEVERAL CONTRASTS TOGETHER, as asked for: {counts_of(contrasts)}")
        if silent := [printable(case.id) for case in self if contrasts and not case.contrast]:
            told.append(f"{len(silent)} name no contrast ({named(silent)}), taken with {counts_of(contrasts)}")
        groups = [case.group for case in self if case.group]
        if len(set(groups)) > 1 and not any(one.reason == OTHER_GROUP for one in self.left_out):
            told.append(f"all groups are taken ({counts_of(groups)})")
        return told


def told_of(files: Iterable[LeftOut]) -> str:
    """The reasons with the number of files of each, and their kinds or some of their names.

    >>> told_of([LeftOut(Path("a_seg.nii"), "named like labels"), LeftOut(Path("b.nii"), "of others", "FLAIR")])
    '1 named like labels (a_seg.nii), 1 of others (FLAIR 1)'
    """
    by_reason: defaultdict[str, list[LeftOut]] = defaultdict(list)
    for one in files:
        by_reason[one.reason].append(one)
    return ", ".join(f"{len(some)} {reason} ({_detail(some)})" for reason, some in by_reason.items())


def _detail(files: list[LeftOut]) -> str:
    if all(one.kind for one in files):
        return counts_of(one.kind for one in files)
    return named(dict.fromkeys(printable(one.path.name) for one in files))
