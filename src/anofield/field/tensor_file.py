"""Files of tensors (`.pth`): written whole, and checked to the last byte before torch reads them.

Since 2020 torch saves a ZIP archive whose records are stored as they are, with a CRC-32 each. Its own reader ignores
these checksums. Older files are plain pickles without any checksum: only what breaks their structure is noticed there.
"""

from __future__ import annotations

import hashlib
import io
import os
import pickle
import struct
import zipfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from anofield._files import replacing
from anofield.errors import ExperimentError

ZIP_START = b"PK\x03\x04"  # torch, too, takes every other file for one of the older kind
REMEDY = "restore it from a backup, or train again"
KNOWN = {"File is not a zip file": "the end of its ZIP archive is missing"}
PART = 1 << 20  # bytes that are checked at a time
UNREADABLE = (  # whatever torch's and Python's readers raise on damaged bytes
    OSError, EOFError, MemoryError, RuntimeError, ValueError, LookupError, TypeError, AttributeError, AssertionError,
    ArithmeticError, ImportError, struct.error, pickle.UnpicklingError, zipfile.BadZipFile,
)  # fmt: skip


@dataclass(frozen=True)
class TensorFile:
    """A file of tensors that was read without a fault.

    Attributes:
        path: Path of the file.
        hash: SHA-256 of its bytes.
        content: Tensors and plain values by name.
    """

    path: Path
    hash: str
    content: dict[str, Any]


def write_tensors(path: Path, content: Mapping[str, object]) -> None:
    """Write a file; it appears complete or not at all.

    Raises:
        MachineError: The disk is full or cannot be written.
    """
    with replacing(path) as partial:
        write_partial(partial, content)


def write_partial(path: Path, content: Mapping[str, object]) -> None:
    """Write a file under a temporary name, down to the disk.

    Raises:
        OSError: The disk is full or cannot be written.
    """
    with path.open("wb") as stream:
        try:
            torch.save(content, stream)
        except RuntimeError as error:  # torch reports a full disk as RuntimeError
            raise OSError(str(error).splitlines()[0]) from error
        stream.flush()
        os.fsync(stream.fileno())


def read_tensors(path: Path, keys: tuple[str, ...] = ()) -> TensorFile:
    """Read a file of tensors and plain values; objects of other kinds are never unpickled.

    Args:
        path: Path of the file.
        keys: Names that the content must have.

    Raises:
        ExperimentError: The file is missing or damaged, holds other things than tensors and plain values, expands to
            more than its own size, or lacks one of the keys.
    """
    try:
        data = path.read_bytes()
        _check_records(data)
        content = torch.load(io.BytesIO(data), map_location="cpu", weights_only=True)
    except FileNotFoundError as error:
        raise ExperimentError("no such file", where=path, remedy=REMEDY) from error
    except UNREADABLE as error:
        raise _damaged(path, _reason(error)) from error
    if not isinstance(content, dict) or not set(keys) <= content.keys():
        raise _damaged(path, f"it does not hold {', '.join(keys)}" if keys else "it holds no values by name")
    return TensorFile(path, hashlib.sha256(data).hexdigest(), content)


def checked_tensors(found: object, path: Path) -> dict[str, Tensor]:
    """Trained tensors by name, all of them finite.

    Args:
        found: What a file holds in the place of tensors by name.
        path: Path of the file, for the error message.

    Raises:
        ExperimentError: It is not a table of plain tensors, a tensor is larger than what is stored of it, or one has a
            value that is not finite.
    """
    if not isinstance(found, Mapping):
        raise _damaged(path, "it holds no tensors by name")
    for name, value in found.items():
        if not isinstance(name, str) or not is_plain(value):
            raise _damaged(path, f"{name!r} is no tensor of numbers")
        check_finite(name, value, path)
    return dict(found)


def is_plain(value: object) -> bool:
    """Whether a value is a dense tensor whose numbers are all stored; a stride of 0 may claim any size."""
    if not isinstance(value, Tensor) or value.layout != torch.strided or value.is_quantized:
        return False
    return value.device.type == "cpu" and value.numel() * value.element_size() <= value.untyped_storage().nbytes()


def check_finite(name: str, values: Tensor, path: Path) -> None:
    """Refuse a trained tensor that holds NaN or infinity.

    Raises:
        ExperimentError: One of its values is not finite.
    """
    odd = values.numel() - int(torch.isfinite(values).sum())
    if odd:
        raise ExperimentError(
            f"{name} has {odd} of {values.numel()} values that are not finite",
            where=path,
            why="every map made with it would be wrong",
            remedy="use an earlier epoch, or restore the file from a backup",
        )


def _check_records(data: bytes) -> None:
    """Check every record of a ZIP archive against its CRC-32; other files are left to torch.

    Raises:
        ValueError: A record is compressed, or all together are larger than the file.
        BadZipFile: A record or the directory of the archive is damaged.
    """
    if not data.startswith(ZIP_START):
        return
    with zipfile.ZipFile(io.BytesIO(data)) as archive:
        records = archive.infolist()
        if any(record.compress_type != zipfile.ZIP_STORED for record in records):
            raise ValueError("it is compressed, which torch never does")
        if sum(record.file_size for record in records) > len(data):
            raise ValueError("its records are larger than the file")
        for record in records:
            with archive.open(record) as stream:
                while stream.read(PART):
                    pass


def _reason(error: BaseException) -> str:
    """What is wrong with a file, in a few words."""
    if isinstance(error, pickle.UnpicklingError):  # torch's message is advice to programmers
        return "it holds something else than tensors and plain values"
    first = str(error).partition("\n")[0].strip().rstrip(".")[:120]
    return KNOWN.get(first, first) or type(error).__name__


def _damaged(path: Path, reason: str) -> ExperimentError:
    return ExperimentError(
        f"cannot be read ({reason})", where=path, why="it is damaged, or it was not written by torch", remedy=REMEDY
    )
