"""Walk through folders: hidden names are left out, every folder is visited once, unreadable ones raise an error."""

from __future__ import annotations

import os
from collections import deque
from collections.abc import Iterator
from pathlib import Path

from anofield.errors import CohortError


def files_below(root: Path) -> Iterator[Path]:
    """Files below a folder without hidden files and folders; every folder is visited once, links last."""
    waiting, seen = deque([root]), set()
    while waiting:
        folder = waiting.popleft()
        place = folder.stat()
        if (place.st_dev, place.st_ino) in seen:
            continue
        seen.add((place.st_dev, place.st_ino))
        for entry in entries_of(str(folder)):
            if not entry.is_dir():
                yield Path(entry.path)
            elif entry.is_symlink():
                waiting.append(Path(entry.path))
            else:
                waiting.appendleft(Path(entry.path))


def entries_of(folder: str) -> list[os.DirEntry[str]]:
    """Entries of a folder without hidden names; empty if there is no such folder."""
    try:
        with os.scandir(folder) as entries:
            return [entry for entry in entries if not entry.name.startswith(".")]
    except FileNotFoundError:
        return []
    except OSError as error:
        what = f"the folder cannot be read ({error.strerror})"
        raise CohortError(what, where=folder, remedy="check its permissions") from error
