"""Cases of a manifest: a tab-separated table `id image [label] [mask] [group] [subject]`."""

from __future__ import annotations

import csv
import difflib
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path

from anofield._files import is_file
from anofield._words import counted
from anofield.data.cohort.case import Case, check_id
from anofield.data.cohort.cohort import LeftOut
from anofield.data.cohort.contrast import channels_of, contrasts_of
from anofield.errors import CohortError
from anofield.typing import PathLike

MANIFEST_COLUMNS = ("id", "image", "label", "mask", "group", "subject")


def read_manifest(path: PathLike, left: list[LeftOut] | None = None) -> list[Case]:
    """Cases of a tab-separated table with the columns `id image [label] [mask] [group] [subject]`.

    Args:
        path: The table; its relative paths start at its folder, and an empty cell or `n/a` means none. Columns with
            other names, such as `age`, are not read.
        left: Gets the columns that are not read.

    Raises:
        CohortError: A column is misspelt, missing or repeated, a cell is missing, an id is repeated or cannot name a
            folder, or a file does not exist.
    """
    path = Path(path)
    try:
        with path.open(encoding="utf-8-sig", newline="") as stream:
            rows = enumerate(csv.reader(stream, delimiter="\t", quoting=csv.QUOTE_NONE), 1)
            lines = [(line, row) for line, row in rows if any(map(str.strip, row))]
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise CohortError(f"cannot be read as a table ({error})", where=path, remedy="save it as UTF-8 text") from error
    columns = [name.strip() for name in lines[0][1]] if lines else []
    _check_columns(columns, path)
    if left is not None:
        left += [LeftOut(path / name, "not read", what="column") for name in columns if name not in MANIFEST_COLUMNS]
    cases: dict[str, Case] = {}
    at: dict[str, int] = {}
    for line, row in lines[1:]:
        case = _manifest_case(columns, row, path, line)
        if case.id in cases:
            what = f"lines {at[case.id]} and {line} have the id {case.id!r}"
            raise CohortError(what, where=path, remedy="rename one; results are stored by id")
        cases[case.id], at[case.id] = case, line
    _check_files(cases, at, path)
    return list(cases.values())


def manifest_cases(path: PathLike, wanted: Sequence[str], left: list[LeftOut]) -> list[Case]:
    """Cases of a manifest with the contrasts that the names of their files state.

    Args:
        path: The table.
        wanted: Further words that count as contrasts.
        left: Gets the columns that are not read.

    Raises:
        CohortError: See `read_manifest`.
    """
    cases = read_manifest(path, left)
    images = [case.image for case in cases]
    contrasts = contrasts_of(images, None, wanted, channels_of(images))
    return [replace(case, contrast=contrasts[case.image]) for case in cases]


def _check_columns(columns: list[str], path: Path) -> None:
    """Check the names of the columns; a further one must not look like a known one that is misspelt."""
    for name in columns:
        near = difflib.get_close_matches(name.lower(), MANIFEST_COLUMNS, n=1, cutoff=0.8)
        if name not in MANIFEST_COLUMNS and (near or not name or len(columns) == 1):
            best = (near or difflib.get_close_matches(name, MANIFEST_COLUMNS, n=1, cutoff=0.0))[0]
            raise CohortError(
                f"line 1: unknown column {name!r}",
                where=path,
                remedy=f"did you mean {best!r}? Tab-separated columns are {' '.join(MANIFEST_COLUMNS)}",
            )
    missing = [f"{name!r} is missing" for name in ("id", "image") if name not in columns]
    wrong = missing or [f"{name!r} is repeated" for name in MANIFEST_COLUMNS if columns.count(name) > 1]
    if wrong:
        remedy = "the first line names the columns, separated by tabs"
        raise CohortError(f"line 1: the column {wrong[0]}", where=path, remedy=remedy)


def _manifest_case(columns: list[str], row: list[str], path: Path, line: int) -> Case:
    if len(row) > len(columns):
        what = f"line {line}: {counted(len(row), 'cell')} in {counted(len(columns), 'column')}"
        raise CohortError(what, where=path, remedy="remove the extra tabs")
    cells = {name: "" if cell.strip() == "n/a" else cell.strip() for name, cell in zip(columns, row, strict=False)}
    empty = [name for name in ("id", "image") if not cells.get(name)]
    if empty:
        raise CohortError(f"line {line}: no {empty[0]}", where=path, remedy="fill the cell in, or remove the line")
    check_id(cells["id"], path, f"line {line}: ")
    label, mask = (path.parent / cells[key] if cells.get(key) else None for key in ("label", "mask"))
    subject, group = cells.get("subject", ""), cells.get("group") or None
    return Case(cells["id"], path.parent / cells["image"], label, mask, subject, group)


def _check_files(cases: Mapping[str, Case], at: Mapping[str, int], path: Path) -> None:
    for what in ("image", "label", "mask"):
        files = [(at[case.id], file) for case in cases.values() if (file := getattr(case, what)) is not None]
        missing = [f"line {line}: {file}" for line, file in files if not is_file(file)]
        if missing:
            more = f" and {len(missing) - 3} more" if len(missing) > 3 else ""
            raise CohortError(
                f"{len(missing)} of {counted(len(files), f'{what} file')} missing ({'; '.join(missing[:3])}{more})",
                where=path,
                remedy=f"paths start at {path.parent}; write n/a where there is no file",
            )
