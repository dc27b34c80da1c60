"""Walk through folders: hidden names and what this package wrote are left out, unreadable folders raise an error."""

from __future__ import annotations

import os
from collections import deque
from collections.abc import Collection, Iterable, Iterator
from pathlib import Path

from anofield.data.cohort.cohort import LeftOut
from anofield.data.cohort.own import MARKS, own_folder
from anofield.errors import CohortError

JUNK = frozenset(  # folders that operating systems and servers add, in lower case
    {"__macosx", "@eadir", "$recycle.bin", "system volume information", "lost+found"}
)
_SIGNS = frozenset({*MARKS, "dataset_description.json"})


def files_below(root: Path, left: list[LeftOut], apart: Collection[str] = ()) -> Iterator[Path]:
    """Files below a folder without hidden files and folders; every folder is visited once, links last.

    Args:
        root: Folder to search, even if this package wrote it.
        left: Gets the folders that are not searched: results of this package, those named in `apart`, broken links.
        apart: Names of folders that are not searched, in lower case.
    """
    waiting, seen = deque([root]), set()
    while waiting:
        folder = waiting.popleft()
        place = folder.stat()
        if (place.st_dev, place.st_ino) in seen:
            continue
        seen.add((place.st_dev, place.st_ino))
        entries = entries_of(str(folder))
        if folder is not root and (why := _not_searched(folder, entries, apart)):
            left.append(LeftOut(folder, why, what="folder"))
            continue
        left += broken_folders(entries)
        for entry in entries:
            if not entry.is_dir():
                yield Path(entry.path)
            elif entry.is_symlink():
                waiting.append(Path(entry.path))
            else:
                waiting.appendleft(Path(entry.path))


def entries_of(folder: str) -> list[os.DirEntry[str]]:
    """Entries of a folder, sorted by name, without hidden ones and `JUNK`; empty if there is no such folder."""
    try:
        with os.scandir(folder) as entries:
            there = [one for one in entries if not one.name.startswith(".") and one.name.lower() not in JUNK]
    except FileNotFoundError:
        return []
    except OSError as error:
        what = f"the folder cannot be read ({error.strerror})"
        raise CohortError(what, where=folder, remedy="check its permissions") from error
    return sorted(there, key=lambda entry: entry.name)


def broken_folders(entries: Iterable[os.DirEntry[str]]) -> list[LeftOut]:
    """Links to nothing that may have been folders of subjects: their names have no suffix."""
    links = (one for one in entries if one.is_symlink() and "." not in one.name and not Path(one.path).exists())
    return [LeftOut(Path(one.path), "a link to nothing", what="folder") for one in links]


def _not_searched(folder: Path, entries: Collection[os.DirEntry[str]], apart: Collection[str]) -> str:
    """Why a folder is not searched; empty if it is."""
    if any(entry.name in _SIGNS for entry in entries) and (what := own_folder(folder)):
        return what
    return "a folder of derived or source data" if folder.name.lower() in apart else ""
