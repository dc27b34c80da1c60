"""`dict_cid.k` of 2021: case id → row of the code table; a pickle, read by the allow-list of `_pickles`."""

from __future__ import annotations

import pickle
from collections.abc import Mapping

from anofield.data._pickles import as_number, load, pickled_integer, pickled_text, reading, shown, write
from anofield.errors import UsageError
from anofield.typing import PathLike

ROWS_FILE = "dict_cid.k"  # published name


def read_rows(path: PathLike) -> dict[str, int]:
    """Read `dict_cid.k`: case id → row of the code table.

    Raises:
        UsageError: The file is missing, no pickle, asks for anything but plain values, or is no dictionary of case ids
            and different rows.
    """
    with reading(path, UsageError):
        content = load(path, UsageError)
        if not isinstance(content, dict):
            raise ValueError("it holds no dictionary")
        rows = {as_case_id(cid): as_number(row) for cid, row in content.items()}
        if not all(isinstance(row, int) and row >= 0 for row in rows.values()):
            raise ValueError("its rows are no whole numbers from 0")
        if len(set(rows.values())) < len(content):
            raise ValueError("two of its case ids have one row")
        return {cid: int(row) for cid, row in rows.items()}


def write_rows(path: PathLike, rows: Mapping[str, int]) -> None:
    """Write `dict_cid.k`: case id → row of the code table."""
    items = (pickled_text(cid) + pickled_integer(row) for cid, row in rows.items())
    write(path, pickle.EMPTY_DICT + pickle.MARK + b"".join(items) + pickle.SETITEMS)


def as_case_id(cid: object) -> str:
    """A case id that is a file name and nothing but; a number becomes text."""
    text = str(cid) if isinstance(cid, str | int) else ""
    if not is_file_name(text):
        raise ValueError(f"the case id {shown(cid)} is no file name")
    return text


def is_file_name(text: str) -> bool:
    """Whether a text can be the name of a file in a folder, and leads nowhere else."""
    return text not in ("", ".", "..") and text.isprintable() and not set(text) & set("/\\")
