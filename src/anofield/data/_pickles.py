"""Read and write pickles of plain values and arrays without ever making the calls that a pickle asks for.

Reading uses an allow-list. Each of the few names that the files of 2021 need stands for an inert record of a call; no
call is made, and every other name is refused. The records are turned into arrays after their type, shape and size have
been checked. Writing builds the opcodes directly, so that the names are those of numpy 1 under any version of numpy
and the bytes depend on the content alone.
"""

from __future__ import annotations

import contextlib
import io
import math
import pickle
import pickletools
import re
import struct
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray

from anofield._files import write_bytes
from anofield.errors import AnofieldError
from anofield.typing import PathLike

NUMBERS = re.compile(r"[|<>=]?(b1|[iu][1248]|f[248])")  # dtypes of plain numbers
REMEDY = "get the file again from a source you trust, or prepare the scans again with `anofield prepare`"
UNREADABLE = (  # errors that damaged pickles and the checks of this module raise
    pickle.UnpicklingError, EOFError, ValueError, TypeError, AttributeError, LookupError, OverflowError, OSError,
)  # fmt: skip


class Call:
    """A call that a pickle asks for: recorded, never made.

    `__setstate__` also prevents a pickle from setting attributes on these classes. The opcode BUILD, which would set
    them, finds this method on the class and fails because an argument is missing.
    """

    __slots__ = ("args", "state")
    args: tuple[Any, ...]
    state: Any

    def __new__(cls, *args: object) -> Self:
        call = super().__new__(cls)
        call.args, call.state = args, None
        return call

    def __setstate__(self, state: object) -> None:
        self.state = state


class Record(Call):
    """Record of `img_extended(img, seg, cid)`: a prepared case."""

    __slots__ = ()


class _Rebuilt(Call):
    """Record of `_reconstruct` with the state (1, shape, dtype, fortran, bytes): an array, protocol 2 to 4."""

    __slots__ = ()


class _Buffered(Call):
    """Record of `_frombuffer(bytes, dtype, shape, order[, axes])`: an array, protocol 5."""

    __slots__ = ()


class _Scalar(Call):
    """Record of `scalar(dtype, bytes)`: a number of numpy."""

    __slots__ = ()


class _Dtype(Call):
    """Record of `dtype(code, False, True)` with the state (3, byte order, …)."""

    __slots__ = ()


class _Encoded(Call):
    """Record of `encode(text, "latin1")`: bytes, protocol 2."""

    __slots__ = ()


class _NdArray(Call):
    """Stands for the name `ndarray`, which a pickle names but does not call."""

    __slots__ = ()


_ALLOWED: dict[tuple[str, str], type[Call]] = {
    ("__main__", "img_extended"): Record,
    ("preprocessing", "img_extended"): Record,
    ("numpy", "ndarray"): _NdArray,
    ("numpy", "dtype"): _Dtype,
    ("_codecs", "encode"): _Encoded,
    **{(f"numpy.{core}.multiarray", "_reconstruct"): _Rebuilt for core in ("core", "_core")},  # numpy 1, numpy 2
    **{(f"numpy.{core}.multiarray", "scalar"): _Scalar for core in ("core", "_core")},
    **{(f"numpy.{core}.numeric", "_frombuffer"): _Buffered for core in ("core", "_core")},
}


class _Unpickler(pickle.Unpickler):
    """Gives plain values and `Call` records; refuses every name that is not in `_ALLOWED`."""

    def __init__(self, data: bytes, path: PathLike, kind: type[AnofieldError]) -> None:
        super().__init__(io.BytesIO(data), encoding="latin1")  # strings of Python 2
        self._path, self._kind = path, kind

    def find_class(self, module: str, name: str) -> type[Call]:
        """The record that stands for a name of the pickle, never the function itself."""
        if (module, name) not in _ALLOWED:
            raise _refusal(f"{module}.{name}", self._path, self._kind)
        return _ALLOWED[module, name]

    def persistent_load(self, pid: object) -> object:
        """Refuse an object that lies outside the file."""
        raise _refusal("an object outside the file (persistent id)", self._path, self._kind)


def _refusal(what: str, path: PathLike, kind: type[AnofieldError]) -> AnofieldError:
    shown = what[:80] if what.isprintable() else ascii(what[:80])
    return kind(
        f"refused: the pickle asks for {shown}",
        where=path,
        why="a pickle can run any code; the files of 2021 hold arrays of numbers, text and img_extended, nothing else",
        remedy=f"do not open it with pickle either; {REMEDY}",
    )


def load(path: PathLike, kind: type[AnofieldError]) -> Any:
    """Read the plain values and `Call` records of a pickle."""
    data = Path(path).read_bytes()
    argument: Any
    for opcode, argument, _ in pickletools.genops(data):
        if opcode.name.startswith("EXT"):  # a cached extension would bypass find_class
            raise _refusal(f"the registered extension {argument}", path, kind)
        if opcode.name in ("PUT", "BINPUT", "LONG_BINPUT") and argument > len(data):
            raise ValueError("its memo is larger than the file")  # the memo is allocated up to the number given
    return _Unpickler(data, path, kind).load()


@contextlib.contextmanager
def reading(path: PathLike, kind: type[AnofieldError]) -> Iterator[None]:
    """Turn the errors that damaged content raises into one that names the file."""
    try:
        yield
    except FileNotFoundError as error:
        raise kind("no such file", where=path, remedy="check the path") from error
    except UNREADABLE as error:
        text = next(iter(str(error).splitlines()), "") or type(error).__name__
        raise kind(
            f"cannot be read as a file of 2021 ({text})",
            where=path,
            why="it is damaged, or another kind of file",
            remedy=REMEDY,
        ) from error


def shown(value: object) -> str:
    """Text of a plain value, or the type of any other: the text of nested tuples can be endless."""
    return ascii(value)[:80] if isinstance(value, str | int | None) else type(value).__name__.lstrip("_")


def as_array(value: object) -> NDArray[Any]:
    """The array that a record stands for, read-only."""
    axes: Any = None
    if isinstance(value, _Rebuilt) and value.args[:1] == (_NdArray,):
        _, shape, dtype, fortran, raw = value.state
        order = "F" if fortran else "C"
    elif isinstance(value, _Buffered):
        raw, dtype, shape, order, axes = (*value.args, None)[:5]
    else:
        raise ValueError(f"expected an array, found {shown(value)}")
    kind = _dtype(dtype)
    data = _bytes(raw)
    if not (isinstance(shape, tuple) and all(type(n) is int and n >= 0 for n in shape)):
        raise ValueError(f"an array has the shape {shown(shape)}")
    if math.prod(shape) * kind.itemsize != len(data):
        raise ValueError(f"an array of shape {shape} and type {kind} has {len(data)} bytes")
    array = np.frombuffer(data, kind)
    if order == "K":  # the axes lie in memory in another order
        return array.reshape(shape).transpose(axes)
    if order not in ("C", "F"):
        raise ValueError(f"an array has the order {shown(order)}")
    return array.reshape(shape, order="F" if order == "F" else "C")


def _dtype(value: object) -> np.dtype[Any]:
    """A type of plain numbers."""
    code = value.args[0] if isinstance(value, _Dtype) and value.args else None
    if not (isinstance(value, _Dtype) and isinstance(code, str) and NUMBERS.fullmatch(code)):
        raise ValueError(f"an array of type {shown(code)}; only plain numbers are read")
    if value.state is None:
        return np.dtype(code)
    order = value.state[1]
    if order not in ("<", ">", "|", "="):
        raise ValueError(f"an array has the byte order {shown(order)}")
    return np.dtype(code).newbyteorder(order)


def _bytes(value: object) -> bytes:
    if isinstance(value, _Encoded):
        text, *codec = value.args
        if not isinstance(text, str) or codec != ["latin1"]:
            raise ValueError("text is not encoded as latin1")
        return text.encode("latin1")
    if isinstance(value, str):  # Python 2
        return value.encode("latin1")
    if not isinstance(value, bytes | bytearray):
        raise ValueError(f"expected bytes, found {shown(value)}")
    return bytes(value)


def as_number(value: object) -> float:
    """A number of a pickle, plain or a scalar of numpy.

    Raises:
        ValueError: The value is not a number.
    """
    if isinstance(value, _Scalar):
        dtype, raw = value.args
        value = np.frombuffer(_bytes(raw), _dtype(dtype), count=1)[0].item()
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise ValueError(f"expected a number, found {shown(value)}")
    return value


def write(path: PathLike, body: bytes) -> None:
    """Write a pickle of protocol 3, which every Python 3 reads, to a temporary name, then rename it."""
    write_bytes(path, pickle.PROTO + b"\x03" + body + pickle.STOP)


def pickled_array(array: NDArray[Any]) -> bytes:
    """Opcodes of an array under the names of numpy 1, which numpy 2 knows as well."""
    array = np.ascontiguousarray(array, dtype=array.dtype.newbyteorder("<"))
    order, code = array.dtype.str[0], array.dtype.str[1:]
    numbers = [pickled_integer(n) for n in (3, -1, -1, 0)]
    dtype = _pickled_call("numpy", "dtype", pickled_text(code), pickle.NEWFALSE, pickle.NEWTRUE)
    dtype += pickled_tuple(numbers[0], pickled_text(order), pickle.NONE * 3, *numbers[1:]) + pickle.BUILD
    shape = pickled_tuple(*map(pickled_integer, array.shape))
    empty = (pickled_name("numpy", "ndarray"), pickled_tuple(pickled_integer(0)), _pickled_bytes(b"b"))
    state = pickled_tuple(pickled_integer(1), shape, dtype, pickle.NEWFALSE, _pickled_bytes(array.tobytes()))
    return _pickled_call("numpy.core.multiarray", "_reconstruct", *empty) + state + pickle.BUILD


def _pickled_call(module: str, name: str, *arguments: bytes) -> bytes:
    return pickled_name(module, name) + pickled_tuple(*arguments) + pickle.REDUCE


def pickled_name(module: str, name: str) -> bytes:
    """Opcodes of a global name."""
    return pickle.GLOBAL + f"{module}\n{name}\n".encode()


def pickled_tuple(*items: bytes) -> bytes:
    """Opcodes of a tuple whose items are given as opcodes."""
    return pickle.MARK + b"".join(items) + pickle.TUPLE


def pickled_text(text: str) -> bytes:
    """Opcodes of a string."""
    data = text.encode()
    return pickle.BINUNICODE + struct.pack("<I", len(data)) + data


def pickled_integer(number: int) -> bytes:
    """Opcodes of an integer of 32 bits."""
    return pickle.BININT + struct.pack("<i", number)


def _pickled_bytes(data: bytes) -> bytes:
    return pickle.BINBYTES + struct.pack("<I", len(data)) + data
