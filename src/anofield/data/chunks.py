"""Arrays of Zarr 3 with one chunk per case, each chunk with its checksum; any reader of Zarr 3 opens them.

Only the one layout that this package writes is read. A general reader would take a lost chunk for zeros, and would
run any codec that the metadata name, among them one that unpickles objects.
Specification: https://zarr-specs.readthedocs.io/en/latest/v3/core/ and its codecs bytes, zstd and crc32c.
"""

from __future__ import annotations

import json
import math
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import google_crc32c
import numpy as np
from numcodecs import zstd
from numpy.typing import NDArray

from anofield.typing import Json

METADATA = "zarr.json"
MAX_METADATA = 16 * 2**20  # bytes; a store of 100 000 cases has about 10 MB
CHECKSUM = 4  # bytes at the end of a chunk: CRC-32C, little-endian
SLACK = 1024  # bytes by which a volume that cannot be compressed may grow


@dataclass(frozen=True)
class CaseArray:
    """An array (case, ...) with one chunk per case.

    Attributes:
        name: Name of the array and of its folder.
        dtype: Zarr's name of the type.
        axes: Names of the axes after `case`.
        shape: Shape of one case.
        packed: Whether chunks are compressed with zstd.
    """

    name: str
    dtype: str
    axes: tuple[str, ...]
    shape: tuple[int, ...]
    packed: bool = False

    @property
    def nbytes(self) -> int:
        """Bytes of one case in memory."""
        return math.prod(self.shape) * np.dtype(self.dtype).itemsize

    def metadata(self, cases: int) -> Json:
        """The content of the array's `zarr.json`."""
        order = {} if self.dtype == "uint8" else {"configuration": {"endian": "little"}}
        zstandard = [{"name": "zstd", "configuration": {"level": 0, "checksum": False}}] if self.packed else []
        return {
            "zarr_format": 3,
            "node_type": "array",
            "shape": [cases, *self.shape],
            "data_type": self.dtype,
            "chunk_grid": {"name": "regular", "configuration": {"chunk_shape": [1, *self.shape]}},
            "chunk_key_encoding": {"name": "default", "configuration": {"separator": "/"}},
            "fill_value": 0,
            "codecs": [{"name": "bytes", **order}, *zstandard, {"name": "crc32c"}],
            "dimension_names": ["case", *self.axes],
            "attributes": {},
        }

    def chunk(self, index: int) -> Path:
        """Path of a case's chunk in the store."""
        return Path(self.name, "c", str(int(index)), *("0" for _ in self.shape))

    def encode(self, values: Any) -> bytes:
        """The chunk of one case.

        Args:
            values: Array of the case, or what numpy makes one of.
        """
        array = np.asarray(values, dtype=self._stored)
        if array.shape != self.shape:
            raise ValueError(f"{self.name} of shape {array.shape}; expected {self.shape}")
        body = zstd.compress(array.tobytes(), 0) if self.packed else array.tobytes()
        return bytes(body) + _checksum(body)

    def decode(self, chunk: bytes) -> NDArray[Any]:
        """The array of one case.

        Raises:
            ValueError: The chunk is damaged.
        """
        body = chunk[:-CHECKSUM]
        if len(chunk) < CHECKSUM or _checksum(body) != chunk[-CHECKSUM:]:
            raise ValueError("its checksum is wrong")
        plain = bytearray(self.nbytes)  # as large as it must be, whatever size the chunk states
        if self.packed:
            zstd.decompress(body, plain)
        elif len(body) == len(plain):
            plain[:] = body
        else:
            raise ValueError(f"it holds {len(body)} bytes, not {len(plain)}")
        return np.frombuffer(plain, dtype=self._stored).reshape(self.shape)

    def read(self, path: Path) -> NDArray[Any]:
        """The array of one case from the file of its chunk.

        Raises:
            FileNotFoundError: There is no such file.
            ValueError: The chunk is damaged.
            OSError: The file cannot be read.
        """
        return self.decode(_read_file(path, self.nbytes + self.nbytes // 128 + SLACK))

    @property
    def _stored(self) -> np.dtype[Any]:
        return np.dtype(self.dtype).newbyteorder("<")


def read_metadata(path: Path) -> Json:
    """The content of a `zarr.json`.

    Raises:
        FileNotFoundError: There is no such file.
        ValueError: It is too large, is not JSON, or is no dictionary.
        OSError: The file cannot be read.
    """
    try:
        content = json.loads(_read_file(path, MAX_METADATA))
    except RecursionError:
        raise ValueError(f"{METADATA} is nested too deeply") from None
    if not isinstance(content, dict):
        raise ValueError(f"{METADATA} holds no dictionary")
    return content


def _read_file(path: Path, limit: int) -> bytes:
    """The content of a file, if it is a file and not too large."""
    size = path.stat().st_size
    if not path.is_file():
        raise ValueError("it is no file")
    if size > limit:
        raise ValueError(f"it has {size} bytes; the largest possible has {limit}")
    return path.read_bytes()


def _checksum(body: bytes) -> bytes:
    return int(google_crc32c.value(body)).to_bytes(CHECKSUM, "little")
