"""Kinds of files that the program reads, ways to damage them, and the loop that reads one damaged file after another.

A damaged file must be refused, or read as if it were whole. A text that no hash protects may also give another valid value: a changed digit is
a digit. Nothing may fail in any other way, take more than two gigabytes, or a minute.
"""

from __future__ import annotations

import gzip
import io
import json
import random
import re
import resource
import signal
import struct
import time
import zipfile
import zlib
from collections import Counter
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import Any, Literal

from hostile.world import World

MOST_MEGABYTES, HARD_LIMIT = 2048, 6 << 30  # what reading may take, and where the system ends it
TIMEOUT = 60  # seconds
Way = Literal["flip", "fuzz"]
Protection = Literal["hash", "checksum", "none"]


@dataclass(frozen=True)
class Kind:
    """A kind of file.

    Attributes:
        file: Path in the arena, perhaps a pattern: then the first match in the order of the names.
        reader: Function of `readers.py` that reads it.
        states: States that hold it.
        protected: What shows damage: a `hash` in another file, a `checksum` in the file itself, which a hostile writer can make right, or `none`.
        quick: Whether reading takes a few milliseconds, so that the default suite has a share of it.
    """

    file: str
    reader: str
    states: tuple[str, ...]
    protected: Protection = "checksum"
    quick: bool = True


TRAINED, RUN, ATLAS = ("trained",), ("run", "results"), ("calibrated-atlas",)
KINDS = {
    "scan .nii.gz": Kind("scans/g0.nii.gz", "scan", ()),
    "scan .mgz": Kind("scans/g0.mgz", "mgz", ("other-scans",)),
    "scan .nii": Kind("scans/g0.nii", "nii", ("other-scans",), protected="none"),
    "label .nii.gz": Kind("scans/g0_seg.nii.gz", "label", ()),
    "store: classes": Kind("train.zarr/classes/c/0/**/*", "whole_store", ("store",)),
    "store: brain": Kind("train.zarr/brain/c/0/**/*", "whole_store", ("store",)),
    "store: affine": Kind("train.zarr/to_native/c/0/**/*", "whole_store", ("store",)),
    "store: source hash": Kind("train.zarr/source_hash/c/0/**/*", "whole_store", ("store",)),
    "store: done": Kind("train.zarr/done/c/*", "whole_store", ("store",)),
    "store: zarr.json": Kind("train.zarr/zarr.json", "whole_store", ("store",)),
    "store: classes/zarr.json": Kind("train.zarr/classes/zarr.json", "whole_store", ("store",)),
    "checkpoint: weights": Kind("exp/ModelParameters/latest.pth", "checkpoint", TRAINED, "hash"),
    "checkpoint: codes": Kind("exp/LatentCodes/latest.pth", "checkpoint", TRAINED, "hash"),
    "checkpoint: optimiser": Kind("exp/OptimizerParameters/latest.pth", "checkpoint", TRAINED, "hash"),
    "checkpoint: Logs.pth": Kind("exp/Logs.pth", "checkpoint", TRAINED),
    "specs.json": Kind("exp/specs.json", "model", TRAINED, protected="none"),
    "recipe.json": Kind("exp/recipe.json", "model", TRAINED, protected="none"),
    "provenance.json": Kind("exp/provenance.json", "provenance", TRAINED, protected="none"),
    "metrics.jsonl": Kind("exp/metrics.jsonl", "training_report", TRAINED, protected="none", quick=False),
    "calibration .json": Kind("exp/calibrations/*.json", "calibration", ("calibrated",)),
    "calibration .npz": Kind("exp/calibrations/*.npz", "calibration_with_maps", ("with-maps",), "hash"),
    "baseline: state.pth": Kind("atlas/state.pth", "baseline", ATLAS, "hash"),
    "baseline: baseline.json": Kind("atlas/baseline.json", "baseline", ATLAS),
    "run.json": Kind("run/run.json", "run_info", RUN, protected="none"),
    "case.json": Kind("run/g0/case.json", "cases", RUN, protected="none"),
    "run: anomaly.nii.gz": Kind("run/g0/anomaly.nii.gz", "score_map", RUN),
    "run: failures.json": Kind("run/failures.json", "run_report", RUN, protected="none", quick=False),
    "results.json": Kind("results/results.json", "results", RUN, protected="none"),
    "comparison.json": Kind("compared/comparison.json", "comparison_report", ("comparison",), protected="none", quick=False),
    "manifest .tsv": Kind("glioma.tsv", "manifest", (), protected="none"),
    "class centres .txt": Kind("centers.txt", "centers", ("centers",), protected="none"),
    "2021: weights": Kind("published/ModelParameters/1.pth", "published_model", ("published",), protected="none"),
    "2021: dict_cid.k": Kind("published/dict_cid.k", "published_model", ("published",), protected="none"),
    "2021: .nt": Kind("nt/t0.nt", "nt_store", ("nt",), protected="none", quick=False),
    # by whole verbs, which also use what they read
    "run.json, evaluated": Kind("atlas-run/run.json", "atlas_evaluation", ("atlas-run",), protected="none", quick=False),
    "case.json, evaluated": Kind("atlas-run/g0/case.json", "atlas_evaluation", ("atlas-run",), protected="none", quick=False),
    "case.json, reported": Kind("atlas-run/g0/case.json", "atlas_report", ("atlas-run",), protected="none", quick=False),
    "mask.nii.gz, reported": Kind("atlas-run/g0/mask.nii.gz", "atlas_report", ("atlas-run",), protected="none", quick=False),
    "specs.json, trained": Kind("exp/specs.json", "trained_again", (*TRAINED, "store"), protected="none", quick=False),
    "store: classes, trained": Kind("train.zarr/classes/c/0/**/*", "trained_again", (*TRAINED, "store"), quick=False),
}


@dataclass
class Outcomes:
    """What reading the damaged files gave.

    Attributes:
        counts: Number of files per outcome: `refused`, `equal`, `said` (another checkpoint, and a message says so), `another value`, `wrong`.
        failures: Descriptions of the wrong ones.
        megabytes: Highest memory of a reading.
        slowest: Longest time of a reading, s.
    """

    counts: Counter[str] = field(default_factory=Counter)
    failures: list[str] = field(default_factory=list)
    megabytes: int = 0
    slowest: float = 0.0


def damage(world: World, name: str, way: Way, count: int) -> Outcomes:
    """Damage the file of a kind `count` times, each time anew, and read it."""
    kind, found, done = KINDS[name], Outcomes(), 0
    while done < count:
        world.lay(*kind.states)
        record = world.folder / "outcomes.jsonl"
        record.unlink(missing_ok=True)
        ended = world.call("hostile.damage:read_damaged", name, way, done, count, str(record))
        lines = [json.loads(line) for line in record.read_text().splitlines()] if record.exists() else []
        assert ended.code == 0 or lines or ended.signal, ended.said
        for what, text, megabytes, seconds in lines:
            _add(found, what, text)
            found.megabytes, found.slowest = max(found.megabytes, megabytes), max(found.slowest, seconds)
        done += len(lines)
        if done < count:  # the child was ended while it read the next file
            why = "took more than a minute" if ended.signal == signal.SIGALRM else f"ended by signal {ended.signal}"
            _add(found, "wrong", f"{way} {done}: {why}: {ended.said[-200:]}")
            done += 1
    return found


def _add(found: Outcomes, what: str, text: str) -> None:
    found.counts[what] += 1
    if what == "wrong":
        found.failures.append(text)


def read_damaged(name: str, way: Way, first: int, count: int, record: str) -> None:
    """Read damaged files number `first` to `count`, in a child of the server; one line per file in `record`."""
    from hostile.readers import read

    kind = KINDS[name]
    path = next(one for one in sorted(Path().glob(kind.file)) if one.is_file())
    whole = path.read_bytes()
    right = read(kind.reader)
    assert "facts" in right, right
    used = int(re.findall(r"VmSize:\s+(\d+)", Path("/proc/self/status").read_text())[0]) * 1024
    resource.setrlimit(resource.RLIMIT_AS, (used + HARD_LIMIT, used + HARD_LIMIT))
    for number in range(first, count):
        content, forged = damaged(whole, path.name, way, random.Random(f"{name} {way} {number}"))
        path.write_bytes(content)
        Path("/proc/self/clear_refs").write_text("5")  # starts the peak of the memory anew
        signal.alarm(TIMEOUT)
        began = time.monotonic()
        found = read(kind.reader)
        seconds = time.monotonic() - began
        signal.alarm(0)
        megabytes = int(re.findall(r"VmHWM:\s+(\d+)", Path("/proc/self/status").read_text())[0]) // 1024
        free = kind.protected == "none" or (kind.protected == "checksum" and forged)
        what, text = judged(found, right, free)
        if megabytes > MOST_MEGABYTES:
            what, text = "wrong", f"took {megabytes} MB"
        with open(record, "a") as stream:
            stream.write(json.dumps([what, f"{way} {number}: {text}", megabytes, round(seconds, 2)]) + "\n")
    path.write_bytes(whole)


def judged(found: dict[str, Any], right: dict[str, Any], free: bool) -> tuple[str, str]:
    """Outcome of a reading, and what is wrong with it; `free` says whether it may give another value."""
    if "defect" in found:
        return "wrong", found["defect"]
    if "refused" in found:
        return "refused", ""
    if found["facts"] == right["facts"]:
        return "equal", ""
    if free:
        return "another value", ""
    if found["said"] and found["said"] != right["said"]:
        return "said", ""
    changed = [key for key in {**right["facts"], **found["facts"]} if found["facts"].get(key) != right["facts"].get(key)]
    return "wrong", f"read as another value without a word: {', '.join(changed[:3])}"


def damaged(whole: bytes, name: str, way: Way, chance: random.Random) -> tuple[bytes, bool]:
    """The content with one bit flipped, or damaged by one to three of the ways that fit the file; and whether a checksum may be right."""
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
    extreme = (b"1e999", b"-1", b"0", b"9" * 40, b"1e308", b"NaN", b"-Infinity", b"4294967296", b"9" * 5000, b"1e-320", b"true", b"null")
    return _replaced(rb"-?\d+(\.\d+)?(e-?\d+)?", data, chance, chance.choice(extreme))


def word(data: bytes, chance: random.Random) -> bytes:
    """Another text in place of a quoted one or a cell."""
    strange = (b'""', b'"../../x"', b'"\\u0000"', b'"' + b"x" * 300 + b'"', b'"\xff\xfe"', b"[]", b"{}", b'"/dev/zero"', b'"\\ud800"', b'"."')
    return _replaced(rb'"[^"]*"|\t[^\t\n]*', data, chance, chance.choice(strange))


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
    strange = (None, True, 0, -1, 2**63, 10**30, 1e308, 5e-324, "", "x" * 300, "../x", [], {}, [[]], [1], {"a": 1}, "\0", "\ud800", "/dev/zero")
    places = _places(content)
    if not places:
        return json.dumps(chance.choice(strange)).encode()
    holder, key = chance.choice(places)
    change = chance.randrange(8)
    if change == 0:
        del holder[key]
    elif change == 1 and isinstance(holder, dict):
        holder["unknown"] = chance.choice(strange)
    elif isinstance(holder[key], int | float) and change < 5:
        holder[key] = chance.choice((-holder[key], holder[key] * 10**6, holder[key] + 1, 0.5, 0))
    else:
        holder[key] = chance.choice(strange)
    return json.dumps(content).encode()


def _places(content: Any) -> list[tuple[Any, Any]]:
    """Every place of a value: what holds it, and its key."""
    keys = list(content) if isinstance(content, dict) else list(range(len(content))) if isinstance(content, list) else []
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


@cache
def zeros_after(inside: bytes, blocks: int) -> bytes:
    """A gzip file of some content and then blocks of 16 MB of zeros."""
    pack = zlib.compressobj(1, zlib.DEFLATED, 31)
    zeros = b"\0" * (1 << 24)
    return b"".join([pack.compress(inside), *(pack.compress(zeros) for _ in range(blocks)), pack.flush()])


def nifti_field(data: bytes, chance: random.Random) -> bytes:
    """An extreme value in one field of a NIfTI header: sizes, type, spacing, offset, scale, codes or axes."""
    changed = bytearray(data)
    shorts = (*range(40, 56, 2), 70, 72, 252, 254)
    floats = (*range(76, 108, 4), 108, 112, 116, *range(256, 328, 4))
    if chance.random() < 0.5:
        struct.pack_into("<h", changed, chance.choice(shorts), chance.choice((-1, 0, 1, 7, 64, 128, 256, 1024, 1792, 32767, -32768)))
    else:
        extreme = (0.0, -1.0, float("nan"), float("inf"), 1e38, 1e-38, 352.5, -1e38, 1e9)
        struct.pack_into("<f", changed, chance.choice(floats), chance.choice(extreme))
    return bytes(changed)


def zip_field(data: bytes, chance: random.Random) -> bytes:
    """An extreme value in a record of a ZIP archive."""
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
