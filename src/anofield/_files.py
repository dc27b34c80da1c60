"""Atomic writes, JSON files with pydantic models, file hashes."""

from __future__ import annotations

import contextlib
import hashlib
import json
import math
import os
import secrets
import stat
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, TypeVar

from pydantic import BaseModel, ValidationError

from anofield.errors import BAD_PATH, AnofieldError, MachineError, UsageError, shortened
from anofield.typing import Json, PathLike

LARGEST_JSON = 200_000_000  # bytes; a run of ten thousand cases has less than a tenth
CHECKSUM = "checksum"  # key of a sealed JSON file
PARTIAL = ".partial-"  # prefix of a file that is being written; every reader of a folder skips hidden names
Content = TypeVar("Content", bound=BaseModel)


@contextlib.contextmanager
def writing(path: PathLike) -> Iterator[None]:
    """Turn an `OSError` of the body into an error that names `path`.

    Raises:
        UsageError: The path is too long, or it leads through a loop of links.
        MachineError: The file cannot be written for another reason.
    """
    try:
        yield
    except OSError as error:
        in_the_way = isinstance(error, FileExistsError | NotADirectoryError)
        kind = UsageError if error.errno in BAD_PATH and not in_the_way else MachineError
        reason = "a file exists where a folder is needed" if in_the_way else error.strerror or error
        raise kind(
            f"cannot be written ({reason})",
            where=shortened(str(path)),
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
    """Write a text file in UTF-8 atomically; what UTF-8 cannot hold (parts of a damaged file name) is escaped."""
    with replacing(path) as partial:
        partial.write_text(text, encoding="utf-8", errors="backslashreplace", newline="\n")


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
        content = parse_json(_text_of(Path(path)))
        if isinstance(content, dict) and CHECKSUM in content and content[CHECKSUM] != _checksum(content):
            raise error("is damaged (its content is not what was written)", where=path, why=why, remedy=remedy)
        return kind.model_validate(content)
    except FileNotFoundError as cause:
        raise error("no such file", where=path, why=why, remedy=remedy) from cause
    except ValidationError as cause:
        raise error(f"is damaged ({explain(cause)})", where=path, why=why, remedy=remedy) from cause
    except RecursionError as cause:
        raise error("cannot be read as JSON (nested too deeply)", where=path, why=why, remedy=remedy) from cause
    except UnicodeDecodeError as cause:
        raise error("cannot be read as JSON (not UTF-8 text)", where=path, why=why, remedy=remedy) from cause
    except (OSError, ValueError) as cause:
        told = cause.strerror if isinstance(cause, OSError) else cause
        raise error(f"cannot be read as JSON ({told})", where=path, why=why, remedy=remedy) from cause


def parse_json(text: str) -> Any:
    """The content of a JSON text; what JSON leaves open is refused: NaN, too large numbers, a key that occurs twice.

    Raises:
        ValueError, RecursionError: It is not such a text, or too deep.
    """
    return json.loads(text, object_pairs_hook=_once, parse_constant=_no_number, parse_float=_finite)


def _text_of(path: Path) -> str:
    """Text of a regular file; a pipe or a device, which might never end, is not opened.

    Raises:
        ValueError: The path is no regular file, or the file is far too large.
    """
    about = path.stat()
    if not stat.S_ISREG(about.st_mode):
        raise ValueError("it is no regular file")
    if about.st_size > LARGEST_JSON:
        raise ValueError(f"it has {about.st_size / 1e6:.0f} MB, the limit is {LARGEST_JSON / 1e6:.0f} MB")
    return path.read_text(encoding="utf-8-sig")


def _once(pairs: list[tuple[str, Any]]) -> Json:
    """A JSON object, whose keys must differ: a reader would silently take the last of two."""
    found = dict(pairs)
    if len(found) < len(pairs):
        twice = next(key for number, (key, _) in enumerate(pairs) if key in dict(pairs[:number]))
        raise ValueError(f"the key {shortened(twice, 60)!r} occurs twice")
    return found


def _no_number(text: str) -> float:
    raise ValueError(f"{text} is no JSON number")


def _finite(text: str) -> float:
    if not math.isfinite(value := float(text)):
        raise ValueError(f"the number {shortened(text, 60)} is too large")
    return value


def explain(error: ValidationError) -> str:
    """Text of the first validation error, with the key that it concerns."""
    first = error.errors()[0]
    key = ".".join(str(part) for part in first["loc"])
    if first["type"] == "missing":
        return f"it lacks {key!r}"
    text = first["msg"].removeprefix("Value error, ")
    return f"{key!r}: {text[:1].lower()}{text[1:]}" if key else text


def is_file(path: PathLike) -> bool:
    """Whether there is a regular file; False for a name that no file can have, for which `Path.is_file` raises."""
    return os.path.isfile(path)  # noqa: PTH113 - see above


def file_hash(path: PathLike) -> str:
    """SHA-256 of a file's bytes, hexadecimal."""
    with Path(path).open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()
