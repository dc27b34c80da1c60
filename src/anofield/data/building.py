"""Where a store is made: locked, beside an old one, and swapped in at the end.

Everything unfinished lies in the hidden folder `.partial-NAME` beside the store, with the lock. A process that was
killed leaves it behind; the next one on the same store takes over or removes what lies there.
"""

from __future__ import annotations

import contextlib
import os
import re
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path

from anofield._files import PARTIAL, writing
from anofield._locks import LOCK_FILE, exclusive
from anofield.data.chunks import METADATA
from anofield.data.layout import ARRAYS, NO_STORE
from anofield.errors import CohortError, UsageError
from anofield.typing import PathLike

NEW, OLD, REMOVED = "new", "old", "removed"  # in the hidden folder: the store in the making, the one that it replaces
MARK = b'"anofield":'  # key of the version, in the attributes of every store
PART = rf"({'|'.join(ARRAYS)})(/zarr\.json|/c(/\d+)*(/{re.escape(PARTIAL)}[^/]+)?)?"
OURS = re.compile(rf"zarr\.json|{PART}")  # relative paths of the files and folders of a store


@contextlib.contextmanager
def building(path: PathLike, *, force: bool, resumable: Callable[[Path], bool]) -> Iterator[Path]:
    """Lock a store, yield the folder in which to make it, and swap that folder in when the body ends without an error.

    Args:
        path: The store.
        force: Replace an existing store: the folder lies beside it, and the store stays as it is until the swap.
            Otherwise the folder is the store itself.
        resumable: Function that says whether a store that was left half made in the folder can be completed.

    Raises:
        UsageError: Another process is making this store.
        CohortError: The store to replace holds files that this package did not make.
        MachineError: The folder beside it cannot be written.
    """
    final = Path(os.path.realpath(path))
    work = final.with_name(f"{PARTIAL}{final.name}")
    with writing(path):
        work.mkdir(parents=True, exist_ok=True)
    with exclusive(work, f"preparing {final.name}"), contextlib.ExitStack() as at_end:
        if not (work / LOCK_FILE).exists():  # it was removed by a process that ended between our opening and locking it
            raise UsageError("another process has just ended here", where=path, remedy="repeat the command")
        at_end.callback(_leave, final, work)
        with writing(path):
            _recover(final, work)
            beside = force and holds_files(final)
            if beside:
                check_ours(final, path)
            if (work / NEW).exists() and not (beside and resumable(work / NEW)):
                shutil.rmtree(work / NEW)
        yield work / NEW if beside else Path(path)
        if beside:
            with writing(path):
                check_ours(final, path)
                final.rename(work / OLD)
                (work / NEW).rename(final)


def holds_files(path: Path) -> bool:
    """Whether a path is a folder that is not empty.

    Raises:
        NotADirectoryError: It is a file.
    """
    return path.exists() and any(path.iterdir())


def check_ours(folder: Path, path: PathLike) -> None:
    """Check that a folder is a store and holds nothing that this package did not make.

    Args:
        folder: The folder.
        path: The folder as the user named it, for the error.

    Raises:
        CohortError: It holds something else.
    """
    metadata = folder / METADATA
    what = NO_STORE
    if metadata.is_file() and MARK in metadata.read_bytes():
        foreign = next((name for name in _entries(folder) if not OURS.fullmatch(name)), None)
        if foreign is None:
            return
        what = f"holds {foreign!r}, which is no part of a store"
    raise CohortError(
        what, where=path, why="only what this package made is replaced", remedy="choose another -o, or move it away"
    )


def remove(path: Path) -> None:
    """Remove a file, a link or a folder, if it is there."""
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)


def _entries(folder: Path) -> Iterator[str]:
    """Relative paths of everything in a folder; links are not followed."""
    for place, folders, files in os.walk(folder):
        for name in (*folders, *files):
            yield (Path(place) / name).relative_to(folder).as_posix()


def _recover(final: Path, work: Path) -> None:
    """Complete or undo a swap that was cut off, and remove what killed processes left."""
    _settle(final, work)
    unfinished = re.compile(rf"{re.escape(PARTIAL)}[0-9a-f]{{8}}-{re.escape(final.name)}")
    for entry in final.parent.iterdir():
        if unfinished.fullmatch(entry.name) and entry.is_dir():
            shutil.rmtree(entry)


def _settle(final: Path, work: Path) -> None:
    """Put the old store back if none took its place, else remove it; half removed, it is never put back."""
    if (work / OLD).exists():
        if final.exists():
            (work / OLD).rename(work / REMOVED)
        else:
            (work / OLD).rename(final)
    if (work / REMOVED).exists():
        shutil.rmtree(work / REMOVED)


def _leave(final: Path, work: Path) -> None:
    """Remove the hidden folder, unless it holds a store that can be resumed."""
    with contextlib.suppress(OSError):
        _settle(final, work)
        if not (work / NEW).exists():
            shutil.rmtree(work)
