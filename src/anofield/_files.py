"""Files that are whole or not there: atomic writes, JSON and its models, hashes, one process at a time in a folder."""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import platform
import secrets
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, TypeVar

from filelock import FileLock, Timeout
from pydantic import BaseModel, ValidationError

from anofield._progress import say
from anofield.errors import AnofieldError, MachineError, UsageError
from anofield.typing import Json, PathLike

LOCK_FILE, HOLDER_FILE = ".lock", ".lock-holder"
PARTIAL = ".partial-"  # what a file is called while it is written; every reader of a folder skips hidden names
Content = TypeVar("Content", bound=BaseModel)


@contextlib.contextmanager
def writing(path: PathLike) -> Iterator[None]:
    """Turn an `OSError` of the body into a `MachineError` that names `path`."""
    try:
        yield
    except OSError as error:
        in_the_way = isinstance(error, FileExistsError | NotADirectoryError)
        reason = "a file stands where a folder is needed" if in_the_way else error.strerror or error
        raise MachineError(
            f"cannot be written ({reason})",
            where=Path(path),
            why="nothing half-written was left behind",
            remedy="check the folder's permissions and the free space, or choose another output folder",
        ) from error


@contextlib.contextmanager
def replacing(path: PathLike) -> Iterator[Path]:
    """Give a temporary path in the same folder, which replaces `path` when the body has ended well.

    The folder is made. The temporary name is random, so that two writers on different hosts never share one.

    Raises:
        MachineError: The folder cannot be written or the disk is full; `path` is as it was before.
    """
    with replacing_together([path]) as (partial,):
        yield partial


@contextlib.contextmanager
def replacing_together(paths: Sequence[PathLike]) -> Iterator[list[Path]]:
    """As `replacing`, for several files: all are complete before the first is renamed, in the order given."""
    finals = [Path(path) for path in paths]
    partials = [path.with_name(f"{PARTIAL}{secrets.token_hex(4)}-{path.name}") for path in finals]
    with writing(finals[0]):
        try:
            for path in finals:
                path.parent.mkdir(parents=True, exist_ok=True)
            yield partials
            for partial, path in zip(partials, finals, strict=True):
                partial.replace(path)
        except BaseException:
            for partial in partials:
                with contextlib.suppress(OSError):
                    partial.unlink(missing_ok=True)
            raise


def write_text(path: PathLike, text: str) -> None:
    """Write a text file in UTF-8, whole or not at all."""
    with replacing(path) as partial:
        partial.write_text(text, encoding="utf-8", newline="\n")


def write_bytes(path: PathLike, content: bytes) -> None:
    """Write a file, whole or not at all."""
    with replacing(path) as partial:
        partial.write_bytes(content)


def write_json(path: PathLike, content: Json | Sequence[Json] | BaseModel) -> None:
    """Write JSON, whole or not at all; a model is written under the names of its aliases."""
    plain = content.model_dump(mode="json", by_alias=True) if isinstance(content, BaseModel) else content
    write_text(path, json.dumps(plain, indent=2, allow_nan=False) + "\n")


def read_json(
    path: PathLike, kind: type[Content], *, remedy: str, error: type[AnofieldError] = UsageError, why: str = ""
) -> Content:
    """Read a JSON file into its model.

    Args:
        path: The file.
        kind: Its model.
        remedy: What the user can do if it cannot be used.
        error: Class of the error.
        why: What the file is needed for.

    Raises:
        AnofieldError: Of the class `error`: the file is missing, no JSON, or does not hold what the model asks for.
    """
    try:
        content = json.loads(Path(path).read_text(encoding="utf-8"))
        return kind.model_validate(content)
    except FileNotFoundError as cause:
        raise error("no such file", where=path, why=why, remedy=remedy) from cause
    except ValidationError as cause:
        raise error(f"is damaged ({explain(cause)})", where=path, why=why, remedy=remedy) from cause
    except (OSError, ValueError, RecursionError) as cause:
        raise error(f"cannot be read as JSON ({cause})", where=path, why=why, remedy=remedy) from cause


def explain(error: ValidationError) -> str:
    """The first fault that a model found, with the key that it is in."""
    first = error.errors()[0]
    key = ".".join(str(part) for part in first["loc"])
    if first["type"] == "missing":
        return f"it lacks {key!r}"
    text = first["msg"].removeprefix("Value error, ")
    return f"{key!r}: {text[:1].lower()}{text[1:]}" if key else text


def file_hash(path: PathLike) -> str:
    """SHA-256 of a file's bytes, hexadecimal."""
    with Path(path).open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


@contextlib.contextmanager
def exclusive(folder: Path, doing: str) -> Iterator[None]:
    """Hold a folder for this process; the lock goes with the process, however it ends.

    Args:
        folder: The folder; its lock file stays, and means nothing while nobody holds it.
        doing: What is done there, for the error of the second process.

    Raises:
        UsageError: Another process holds it.
        MachineError: The folder cannot be written.
    """
    lock: Any = FileLock(folder / LOCK_FILE)
    try:
        lock.acquire(timeout=0)
    except Timeout as error:
        raise UsageError(
            f"another process ({_holder(folder)}) is {doing} here",
            where=folder,
            why="two would overwrite each other's files",
            remedy="wait for it or end it, or use another folder",
        ) from error
    except NotImplementedError:
        say(f"{folder}: this file system has no locks; make sure that no other process is {doing} here")
    except OSError:
        with writing(folder / LOCK_FILE):
            raise
    try:
        if lock.is_locked:
            write_text(folder / HOLDER_FILE, f"{platform.node()} pid {os.getpid()}")
        yield
    finally:
        lock.release()


def _holder(folder: Path) -> str:
    """Host and process that hold a folder, as they wrote it."""
    try:
        return (folder / HOLDER_FILE).read_text(encoding="utf-8").strip() or "unknown"
    except OSError:
        return "unknown"
