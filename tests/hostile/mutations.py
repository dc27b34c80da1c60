"""Ways to damage a file: one flipped bit, or what a fuzzer does to it."""

from __future__ import annotations

import gzip
import io
import json
import random
import re
import struct
import zipfile
import zlib
from typing import Any, Literal

Way = Literal["flip", "fuzz"]
NUMBERS = (
    b"1e999", b"-1", b"0", b"9" * 40, b"1e308", b"NaN", b"-Infinity", b"4294967296", b"9" * 5000, b"1e-320", b"true",
    b"null",
)  # fmt: skip
WORDS = (
    b'""', b'"../../x"', b'"\\u0000"', b'"' + b"x" * 300 + b'"', b'"\xff\xfe"', b"[]", b"{}", b'"/dev/zero"',
    b'"\\ud800"', b'"."',
)  # fmt: skip
VALUES: tuple[Any, ...] = (
    None, True, 0, -1, 2**63, 10**30, 1e308, 5e-324, "", "x" * 300, "../x", [], {}, [[]], [1], {"a": 1}, "\0", "\ud800",
    "/dev/zero",
)  # fmt: skip


def damaged(whole: bytes, name: str, way: Way, chance: random.Random) -> tuple[bytes, bool]:
    """The content with one bit flipped, or damaged by one to three of the ways that fit the file.

    Returns:
        The damaged content, and whether its checksum may have been made right or removed.
    """
    if way == "flip":
        return flip(whole, chance), False
    ways = [flip, overwrite, truncate, duplicate, insert, splice, run_of_zeros]
    if name.endswith((".json", ".jsonl", ".tsv", ".txt")):
        ways += [number, deep, word] * 3
    if name.endswith((".json", ".jsonl")):
        ways += [value_of_json] * 6
    if name.endswith((".gz", ".mgz", ".nt")):
        ways += [inside_gzip, bomb] * 2
    if name.endswith(".nii"):
        ways += [nifti_field] * 6
    if whole[:2] == b"PK":
        ways += [zip_field, zip_member] * 3
    chosen = chance.choices(ways, k=chance.choice((1, 1, 2, 3)))
    if bomb in chosen:
        chosen = [one for one in chosen if one not in (bomb, inside_gzip)] + [bomb]  # it is never unpacked here
    for one in chosen:
        whole = one(whole, chance) if whole else b"\0"
    return whole, not FORGERIES.isdisjoint(chosen)


def flip(data: bytes, chance: random.Random) -> bytes:
    """One bit."""
    place = chance.randrange(len(data) * 8)
    changed = bytearray(data)
    changed[place // 8] ^= 1 << place % 8
    return bytes(changed)


def overwrite(data: bytes, chance: random.Random) -> bytes:
    """A run of random bytes."""
    start, length = chance.randrange(len(data)), chance.randrange(1, 64)
    return data[:start] + chance.randbytes(length) + data[start + length :]


def run_of_zeros(data: bytes, chance: random.Random) -> bytes:
    """A run of NUL or 0xFF, as a crash of a machine leaves it."""
    start, length = chance.randrange(len(data)), chance.choice((1, 16, 512, 4096))
    return data[:start] + chance.choice((b"\0", b"\xff")) * min(length, len(data) - start) + data[start + length :]


def truncate(data: bytes, chance: random.Random) -> bytes:
    """The beginning of the file."""
    return data[: chance.randrange(len(data))]


def duplicate(data: bytes, chance: random.Random) -> bytes:
    """A part twice."""
    start = chance.randrange(len(data))
    end = chance.randrange(start, len(data)) + 1
    return data[:end] + data[start:end] + data[end:]


def insert(data: bytes, chance: random.Random) -> bytes:
    """Bytes between others."""
    place = chance.randrange(len(data))
    return data[:place] + chance.randbytes(chance.randrange(1, 32)) + data[place:]


def splice(data: bytes, chance: random.Random) -> bytes:
    """The beginning of the file and the end of another, here of itself with every byte turned."""
    place, other = chance.randrange(len(data)), chance.randrange(len(data))
    return data[:place] + bytes(byte ^ 0x20 for byte in data[other:])


def number(data: bytes, chance: random.Random) -> bytes:
    """An extreme number in place of one of a text."""
    return _replaced(rb"-?\d+(\.\d+)?(e-?\d+)?", data, chance, chance.choice(NUMBERS))


def word(data: bytes, chance: random.Random) -> bytes:
    """Another text in place of a quoted one or a cell."""
    return _replaced(rb'"[^"]*"|\t[^\t\n]*', data, chance, chance.choice(WORDS))


def deep(data: bytes, chance: random.Random) -> bytes:
    """Brackets in brackets in place of a number."""
    depth = chance.choice((100, 2000, 100_000))
    return _replaced(rb"-?\d+(\.\d+)?", data, chance, b"[" * depth + b"]" * depth)


def _replaced(pattern: bytes, data: bytes, chance: random.Random, by: bytes) -> bytes:
    found = list(re.finditer(pattern, data))
    if not found:
        return flip(data, chance)
    one = chance.choice(found)
    return data[: one.start()] + by + data[one.end() :]


def value_of_json(data: bytes, chance: random.Random) -> bytes:
    """Another value at a place of a JSON file, a key less, or a key more; it stays JSON."""
    try:
        content = json.loads(data)
    except (ValueError, RecursionError):
        return flip(data, chance)
    places = _places(content)
    if not places:
        return json.dumps(chance.choice(VALUES)).encode()
    holder, key = chance.choice(places)
    change = chance.randrange(8)
    if change == 0:
        del holder[key]
    elif change == 1 and isinstance(holder, dict):
        holder["unknown"] = chance.choice(VALUES)
    elif isinstance(holder[key], int | float) and change < 5:
        holder[key] = chance.choice((-holder[key], holder[key] * 10**6, holder[key] + 1, 0.5, 0))
    else:
        holder[key] = chance.choice(VALUES)
    return json.dumps(content).encode()


def _places(content: Any) -> list[tuple[Any, Any]]:
    """Every place of a value: what holds it, and its key."""
    keys = (
        list(content) if isinstance(content, dict) else list(range(len(content))) if isinstance(content, list) else []
    )
    return [pair for key in keys for pair in [(content, key), *_places(content[key])]]


def inside_gzip(data: bytes, chance: random.Random) -> bytes:
    """Damage of the compressed content, with a right checksum."""
    try:
        inside = gzip.decompress(data)
    except (OSError, EOFError, zlib.error):
        return flip(data, chance)
    if not inside:
        return data
    return gzip.compress(nifti_field(inside, chance) if len(inside) > 348 else flip(inside, chance), mtime=0)


def bomb(data: bytes, chance: random.Random) -> bytes:
    """Much more content than the header says, or a header that says so much."""
    try:
        inside = bytearray(gzip.decompress(data))
    except (OSError, EOFError, zlib.error):
        return flip(data, chance)
    if chance.random() < 0.5 and len(inside) > 348:
        struct.pack_into("<4h", inside, 40, 3, *(chance.choice((1000, 3000, 32767)) for _ in range(3)))
        return gzip.compress(bytes(inside), mtime=0)
    return zeros_after(bytes(inside), chance.choice((4, 4, 4, 200)))


def zeros_after(inside: bytes, blocks: int) -> bytes:
    """A gzip file of some content and then blocks of 16 MB of zeros; its checksum is wrong, but far away."""
    pack = zlib.compressobj(1, zlib.DEFLATED, -15)
    start = pack.compress(inside) + pack.flush(zlib.Z_FULL_FLUSH)
    block = pack.compress(bytes(1 << 24)) + pack.flush(zlib.Z_FULL_FLUSH)  # refers to nothing before it
    return b"\x1f\x8b\x08" + bytes(6) + b"\xff" + start + block * blocks + pack.flush() + bytes(8)


def nifti_field(data: bytes, chance: random.Random) -> bytes:
    """An extreme value in one field of a NIfTI header: sizes, type, spacing, offset, scale, codes or axes."""
    if len(data) < 348:
        return flip(data, chance)
    changed = bytearray(data)
    shorts = (*range(40, 56, 2), 70, 72, 252, 254)
    floats = (*range(76, 108, 4), 108, 112, 116, *range(256, 328, 4))
    if chance.random() < 0.5:
        value = chance.choice((-1, 0, 1, 7, 64, 128, 256, 1024, 1792, 32767, -32768))
        struct.pack_into("<h", changed, chance.choice(shorts), value)
    else:
        extreme = (0.0, -1.0, float("nan"), float("inf"), 1e38, 1e-38, 352.5, -1e38, 1e9)
        struct.pack_into("<f", changed, chance.choice(floats), chance.choice(extreme))
    return bytes(changed)


def zip_field(data: bytes, chance: random.Random) -> bytes:
    """An extreme value in a record of a ZIP archive."""
    if len(data) < 4:
        return flip(data, chance)
    places = [one.start() for one in re.finditer(rb"PK(\x01\x02|\x03\x04|\x05\x06|\x06\x06|\x06\x07)", data)]
    changed, start = bytearray(data), chance.choice(places) if places else 0
    place = min(start + chance.randrange(4, 46), max(0, len(data) - 4))
    struct.pack_into("<I", changed, place, chance.choice((0, 1, 0xFFFFFFFF, 0x7FFFFFFF, 0x10000, len(data))))
    return bytes(changed)


def zip_member(data: bytes, chance: random.Random) -> bytes:
    """Damage of one stored member of a ZIP archive, with a right checksum, as a hostile file has it."""
    try:
        with zipfile.ZipFile(io.BytesIO(data)) as archive:
            members = {info: archive.read(info) for info in archive.infolist()}
    except Exception:  # noqa: BLE001 - an archive that is damaged already
        return flip(data, chance)
    if not members:
        return data
    chosen, stream = chance.choice(list(members)), io.BytesIO()
    with zipfile.ZipFile(stream, "w") as archive:
        for info, content in members.items():
            archive.writestr(info, flip(content, chance) if info is chosen and content else content)
    return stream.getvalue()


FORGERIES = {inside_gzip, bomb, zip_member, value_of_json, word}  # they can make a checksum right, or remove it
