"""Templates aligned to ICBM152, computed once and kept in a cache folder; a damaged file there is made again."""

from __future__ import annotations

import hashlib
import io
import os
import zipfile
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np

from anofield._files import write_bytes, write_json
from anofield._locks import take
from anofield.data.volume import volume_hash
from anofield.errors import MachineError, ScanError
from anofield.phantom import colin
from anofield.phantom.align import align_affine, align_smooth, resampled
from anofield.phantom.sources import Source, read_head
from anofield.phantom.template import DERIVED, SHAPE, Template, icbm152
from anofield.phantom.warp import LATTICE
from anofield.typing import FloatVolume, Json

OVERRIDE = "ANOFIELD_CACHE"
FORMAT = 1  # raised when the way templates are made changes
SHARES = ("grey", "white", "brain")  # stored as 0 to 255
KEPT = 4  # templates in memory, about 100 MB each
LEAST_OVERLAP = 0.88  # Dice of the brain with ICBM152's after the affine map; 0.95 and more are usual
PATIENCE = 300.0  # seconds to wait for another process that makes the same template
DAMAGED = (OSError, ValueError, KeyError, EOFError, zipfile.BadZipFile)


def cache_folder() -> Path:
    """The folder of prepared templates: below `ANOFIELD_CACHE`, or below the user's cache folder."""
    if named := os.environ.get(OVERRIDE):
        return Path(named) / "templates"
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "anofield" / "templates"


def load_template(source: Source) -> Template:
    """The template of a source, from the cache where it holds it; aligning it first takes about half a minute.

    Raises:
        ScanError: The maps of the source cannot be used.
        MachineError: The cache folder cannot be written.
    """
    return icbm152() if source.kind == "icbm152" else _loaded(source)


@lru_cache(maxsize=64)
def load_velocity(source: Source) -> FloatVolume:
    """The velocity `(3, i, j, k)` in mm that leads from ICBM152 into the head of a source."""
    if source.kind == "icbm152":
        return np.zeros((3, *LATTICE), np.float32)
    path = _cached(source)
    if path.is_file():
        try:
            with np.load(path, allow_pickle=False) as content:
                return np.asarray(content["velocity"], dtype=np.float32)
        except DAMAGED:
            pass  # it is made again
    velocity = load_template(source).velocity
    assert velocity is not None  # noqa: S101 - only ICBM152 has none
    return velocity


@lru_cache(maxsize=KEPT)
def _loaded(source: Source) -> Template:
    """A template from the cache, made and written there before if it is not in it."""
    path = _cached(source)
    if (kept := _read(path, source.name)) is not None:
        return kept
    lock = take(path.with_suffix(".lock"), PATIENCE)  # one of several workers makes it, the others wait
    try:
        if (kept := _read(path, source.name)) is None:
            _write(path, _made(source), source)
            kept = _read(path, source.name)
    finally:
        lock.release()
    if kept is None:
        raise MachineError("cannot be read back", where=path, remedy="check the disk that holds the cache")
    return kept


def _made(source: Source) -> Template:
    """The head of a source, aligned to ICBM152."""
    fixed = icbm152()
    head = colin.colin27_head(source.files[0], fixed) if source.kind == "t1w" else read_head(source)
    maps = resampled(head, align_affine(head, fixed))
    inside, wanted = maps[2] > 0.5, fixed.brain > 0.5
    overlap = 2 * float((inside & wanted).sum()) / float(inside.sum() + wanted.sum())
    if overlap < LEAST_OVERLAP:
        raise ScanError(
            f"cannot be aligned to ICBM152 (the brains overlap by {overlap:.2f}, Dice)",
            where=source.files[0],
            why="the head lies otherwise than its header says, or parts of the brain are missing",
            remedy="check the orientation in a viewer, and that the map covers the whole brain",
        )
    return Template(source.name, *maps, velocity=align_smooth(maps, fixed))


def _cached(source: Source) -> Path:
    """The path of a prepared template; it depends on the content of its files."""
    told = hashlib.sha256(f"{FORMAT}".encode())
    for path in source.files:
        told.update(_content(path, source.stamp).encode())
    return cache_folder() / f"{told.hexdigest()[:24]}.npz"


@lru_cache(maxsize=512)
def _content(path: Path, stamp: tuple[tuple[int, int], ...]) -> str:
    """SHA-256 of a map; `stamp` changes when the file does."""
    return volume_hash(path)


def _write(path: Path, made: Template, source: Source) -> None:
    """Store a template, with a note beside it that says what it was made from."""
    assert made.velocity is not None  # noqa: S101 - only ICBM152 has none
    arrays: dict[str, Any] = {name: np.rint(255 * getattr(made, name)).astype(np.uint8) for name in SHARES}
    arrays |= {name: volume.astype(np.float16) for name, volume in made.derived.items()}
    content = io.BytesIO()
    np.savez_compressed(content, velocity=made.velocity.astype(np.float16), **arrays)
    note: Json = {"name": source.name, "made from": [str(file) for file in source.files], "aligned to": "ICBM152 2009a"}
    if source.kind == "t1w":
        note |= {"person": "Colin27", "paper": colin.PAPER, "package": "mricron-data", "licence": colin.LICENCE}
    else:
        note |= {"licence": "that of the maps it was made from"}
    write_json(path.with_suffix(".json"), note)
    write_bytes(path, content.getvalue())


def _read(path: Path, name: str) -> Template | None:
    """A template of the cache; None if it is missing or damaged."""
    try:
        with np.load(path, allow_pickle=False) as content:
            shares = [content[one].astype(np.float32) / np.float32(255) for one in SHARES]
            derived = {one: content[one].astype(np.float32) for one in DERIVED}
            velocity = content["velocity"].astype(np.float32)
    except DAMAGED:
        return None
    if any(volume.shape != SHAPE for volume in (*shares, derived["depth"])) or velocity.shape != (3, *LATTICE):
        return None
    return Template(name, shares[0], shares[1], shares[2], velocity=velocity, ready=derived)
