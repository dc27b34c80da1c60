"""Atomic writes, JSON files with pydantic models, file hashes, and a lock that admits one process to a folder."""

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
CHECKSUM = "checksum"  # key of a sealed JSON file
PARTIAL = ".partial-"  # prefix of a file that is being written; every reader of a folder skips hidden names
Content = TypeVar("Content", bound=BaseModel)


@contextlib.contextmanager
def writing(path: PathLike) -> Iterator[None]:
    """Turn an `OSError` of the body into a `MachineError` that names `path`."""
    try:
        yield
    except OSError as error:
        in_the_way = isinstance(error, FileExistsError | NotADirectoryError)
        reason = "a file exists where a folder is needed" if in_the_way else error.strerror or error
        raise MachineError(
            f"cannot be written ({reason})",
            where=Path(path),
            why="no partial file was left behind",
            remedy="check the folder's permissions and the free space, or choose another output folder",
        ) from error


@contextlib.contextmanager
def replacing(path: PathLike) -> Iterator[Path]:
    """Yield a temporary path in the same folder; the file replaces `path` when the body ends without an error.

    The folder is created if needed. The temporary name is random, so two writers on different hosts never share it.

    Raises:
        MachineError: The folder cannot be written or the disk is full; `path` is unchanged.
    """
    with replacing_together([path]) as (partial,):
        yield partial


@contextlib.contextmanager
def replacing_together(paths: Sequence[PathLike]) -> Iterator[list[Path]]:
    """Like `replacing`, for several files: once all are complete, they are renamed in the given order."""
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
    """Write a text file in UTF-8 atomically."""
    with replacing(path) as partial:
        partial.write_text(text, encoding="utf-8", newline="\n")


def write_bytes(path: PathLike, content: bytes) -> None:
    """Write a file atomically."""
    with replacing(path) as partial:
        partial.write_bytes(content)


def write_json(path: PathLike, content: Json | Sequence[Json] | BaseModel) -> None:
    """Write JSON atomically; the keys of a model are its field aliases."""
    plain = content.model_dump(mode="json", by_alias=True) if isinstance(content, BaseModel) else content
    write_text(path, json.dumps(plain, indent=2, allow_nan=False) + "\n")


def sealed(content: Json | BaseModel) -> Json:
    """Content for `write_json` with its own SHA-256, which `read_json` checks; not for files that users edit."""
    plain = content.model_dump(mode="json", by_alias=True) if isinstance(content, BaseModel) else content
    return {**plain, CHECKSUM: _checksum(plain)}


def _checksum(content: Json) -> str:
    plain = {key: value for key, value in content.items() if key != CHECKSUM}
    return hashlib.sha256(json.dumps(plain, sort_keys=True).encode()).hexdigest()


def read_json(
    path: PathLike, kind: type[Content], *, remedy: str, error: type[AnofieldError] = UsageError, why: str = ""
) -> Content:
    """Read a JSON file into its model.

    Args:
        path: Path of the file.
        kind: Pydantic model of the content.
        remedy: What the user can do if the file cannot be used.
        error: Class of the error to raise.
        why: Reason why the file is needed.

    Raises:
        AnofieldError: The file is missing, is not JSON, does not match the model, or was `sealed` and has changed; the
            class is `error`.
    """
    try:
        content = json.loads(Path(path).read_text(encoding="utf-8"))
        if isinstance(content, dict) and CHECKSUM in content and content[CHECKSUM] != _checksum(content):
            raise error("is damaged (its content is not what was written)", where=path, why=why, remedy=remedy)
        return kind.model_validate(content)
    except FileNotFoundError as cause:
        raise error("no such file", where=path, why=why, remedy=remedy) from cause
    except ValidationError as cause:
        raise error(f"is damaged ({explain(cause)})", where=path, why=why, remedy=remedy) from cause
    except (OSError, ValueError, RecursionError) as cause:
        raise error(f"cannot be read as JSON ({cause})", where=path, why=why, remedy=remedy) from cause


def explain(error: ValidationError) -> str:
    """Text of the first validation error, with the key that it concerns."""
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
    """Lock a folder for this process; the lock is released when the process ends, even if it crashes.

    Args:
        folder: Folder to lock; the lock file remains afterwards and then blocks nobody.
        doing: What this process does there, for the error message of a second process.

    Raises:
        UsageError: Another process holds the lock.
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
    """Host and process id of the lock's holder, read from the holder file."""
    try:
        return (folder / HOLDER_FILE).read_text(encoding="utf-8").strip() or "unknown"
    except OSError:
        return "unknown"
