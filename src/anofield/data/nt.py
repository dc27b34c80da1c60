"""The data files of 2021: `.nt` (a prepared case), `.cp` (class centres), `dict_cid.k` (code rows); folders ⇄ stores.

They are pickles, and a pickle can run code: `_pickles` reads them by an allow-list and never calls anything.
"""

from __future__ import annotations

import itertools
import pickle
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np

from anofield._files import file_hash
from anofield._progress import track
from anofield._words import counted
from anofield.data._pickles import (
    Call,
    Record,
    as_array,
    as_number,
    load,
    pickled_array,
    pickled_integer,
    pickled_name,
    pickled_text,
    pickled_tuple,
    reading,
    shown,
    write,
)
from anofield.data.classes import MAX_CLASSES
from anofield.data.cohort.case import Case
from anofield.data.lattice import Lattice
from anofield.data.layout import StoreInfo
from anofield.data.prepared import Prepared
from anofield.data.published import lattice_side, published_lattice
from anofield.data.recipe import Recipe
from anofield.data.store import Store, making
from anofield.errors import CohortError, ScanError, UsageError
from anofield.typing import Classes, PathLike

ROWS_FILE = "dict_cid.k"  # published name


class LegacyCase(NamedTuple):
    """One prepared case, the published `img_extended`.

    Attributes:
        img: Intensity classes, (i, j, k) uint8.
        seg: Lesion labels, (i, j, k) uint8, or None (HCP has none).
        cid: Case id.
    """

    img: Classes
    seg: Classes | None
    cid: str


def read_nt(path: PathLike) -> LegacyCase:
    """Read one `.nt` file: an `img_extended`, bare or alone in a list; the file's stem replaces a missing case id.

    Raises:
        ScanError: The file is missing, truncated or not a pickle, it asks for anything but arrays and `img_extended`,
            or its volumes are not 3-D, differ in shape or hold other values than whole numbers from 0 to 255.
    """
    with reading(path, ScanError):
        content = load(path, ScanError)
        record = content[0] if isinstance(content, list) and len(content) == 1 else content
        if not isinstance(record, Record) or len(record.args) != 3:
            raise ValueError("it holds no img_extended(img, seg, cid)")
        img, seg, cid = record.args
        volume, label = _volume(img, "img"), None if seg is None else _volume(seg, "seg")
        if label is not None and label.shape != volume.shape:
            raise ValueError(f"img has shape {volume.shape}, seg {label.shape}")
        return LegacyCase(volume, label, as_case_id(Path(path).stem if cid in (None, "") else cid))


def write_nt(path: PathLike, case: LegacyCase) -> None:
    """Write one `.nt` file, `[preprocessing.img_extended(img, seg, cid)]`, that plain `pickle.load` reads.

    Raises:
        MachineError: The folder cannot be written or the disk is full.
    """
    seg = pickle.NONE if case.seg is None else pickled_array(case.seg)
    arguments = pickled_tuple(pickled_array(case.img), seg, pickled_text(case.cid))
    record = pickled_name("preprocessing", "img_extended") + arguments + pickle.NEWOBJ
    write(path, pickle.EMPTY_LIST + record + pickle.APPEND)


def read_centers_pickle(path: PathLike) -> tuple[float, ...]:
    """Read the class centres of a `.cp` file; classes are numbered in its order, so it must increase.

    Raises:
        UsageError: The file is missing or not a pickle, it asks for anything but arrays, or it does not hold 3 to
            `MAX_CLASSES` increasing numbers.
    """
    with reading(path, UsageError):
        content = load(path, UsageError)
        array = as_array(content) if isinstance(content, Call) else np.array([as_number(item) for item in content])
        centers = tuple(float(value) for value in array.ravel())
        if not 3 <= len(centers) <= MAX_CLASSES or not all(a < b for a, b in itertools.pairwise(centers)):
            raise ValueError(f"expected 3 to {MAX_CLASSES} increasing numbers, found {len(centers)}")
        return centers


def write_centers_pickle(path: PathLike, centers: Sequence[float]) -> None:
    """Write class centres as a `.cp` file: a float64 array, (class,)."""
    write(path, pickled_array(np.asarray(centers, dtype=np.float64)))


def read_rows(path: PathLike) -> dict[str, int]:
    """Read `dict_cid.k`: case id → row of the code table.

    Raises:
        UsageError: The file is missing or not a pickle, it asks for anything but plain values, or it is not a
            dictionary from case ids to different rows.
    """
    with reading(path, UsageError):
        content = load(path, UsageError)
        if not isinstance(content, dict):
            raise ValueError("it holds no dictionary")
        rows = {as_case_id(cid): as_number(row) for cid, row in content.items()}
        if not all(isinstance(row, int) and row >= 0 for row in rows.values()):
            raise ValueError("its rows are not whole numbers of 0 or more")
        if len(set(rows.values())) < len(content):
            raise ValueError("two of its case ids have the same row")
        return {cid: int(row) for cid, row in rows.items()}


def write_rows(path: PathLike, rows: Mapping[str, int]) -> None:
    """Write `dict_cid.k`: case id → row of the code table."""
    items = (pickled_text(cid) + pickled_integer(row) for cid, row in rows.items())
    write(path, pickle.EMPTY_DICT + pickle.MARK + b"".join(items) + pickle.SETITEMS)


def as_case_id(cid: object) -> str:
    """A case id, which must be a plain file name; a number becomes text."""
    text = str(cid) if isinstance(cid, str | int) else ""
    if not is_file_name(text):
        raise ValueError(f"the case id {shown(cid)} is not a file name")
    return text


def is_file_name(text: str) -> bool:
    """Whether a text is the name of a file in a folder, not a path to somewhere else."""
    return text not in ("", ".", "..") and text.isprintable() and not set(text) & set("/\\")


def import_store(folder: PathLike, path: PathLike, recipe: Recipe, *, force: bool = False) -> Store:
    """Make a store from all `.nt` files of a folder; an interrupted import is resumed where it stopped.

    Args:
        folder: Folder of the `.nt` files.
        path: Store to make, by convention `NAME.zarr`.
        recipe: Recipe that made the files: `ifl2021-hcp` or `ifl2021-brats`, centres and mode pool. The resolution is
            taken from the files.
        force: Replace an existing store, which stays until the new one is made.

    Returns:
        The store. A `.nt` file keeps neither brain mask nor affine: the brain is where the class is above 0, and the
        native affine is exactly the identity, which means that the position in the world is unknown. The map from the
        lattice to the native voxels is that of the recipe and correct. Cases have the order of the rows of
        `dict_cid.k` if the folder has one, so that a training of 2021 continues with its codes; else they are sorted
        by case id.

    Raises:
        UsageError: The recipe is not a published one; the path holds another store; or another process is making it.
        CohortError: The path holds something that is not a store; the folder has no `.nt` file, two files have the same
            case id, resolutions differ, or a case of `dict_cid.k` has no file.
        ScanError: A file cannot be used (see `read_nt`), is not a cube, or has more classes than there are centres.
    """
    if not recipe.kind.published:
        what = f"the recipe {recipe.name} is not one of 2021"
        raise UsageError(what, remedy="give --recipe ifl2021-hcp or ifl2021-brats")
    found = _survey(folder, recipe)
    side, full = found[0].resolution, lattice_side(recipe.model_copy(update={"resolution": None}))
    recipe = recipe.model_copy(update={"resolution": None if side == full else side})
    cases = [Case(entry.id, entry.path, entry.path if entry.labelled else None) for entry in found]
    wanted = StoreInfo.of(cases, recipe, labels=any(entry.labelled for entry in found), side=side)
    lattice = published_lattice(recipe.name, side, np.eye(4))  # the world is unknown
    with making(path, wanted, force=force) as store:
        for row, entry in enumerate(track(found, "import", len(found))):
            digest = file_hash(entry.path)
            if not store.is_current(row, digest):
                store.write(row, _as_prepared(read_nt(entry.path), recipe, lattice), digest)
    return Store(path)


def export_nt(store: Store, folder: PathLike) -> list[Path]:
    """Write the complete cases of a store as `CASE.nt` files, and `dict_cid.k` with their rows, in store order.

    With labels in the store, every case gets a `seg`, which is 0 everywhere if the case has no label; without labels,
    `seg` is None.

    Raises:
        ExperimentError: No case is complete.
        CohortError: A case id is not a file name.
        MachineError: The folder cannot be written or the disk is full.
    """
    done = store.require_cases()
    ids = [store.ids[index] for index in done]
    if odd := next((cid for cid in ids if not is_file_name(cid)), None):
        raise CohortError(
            f"the case id {odd!r} is not a file name", where=store.path, remedy="prepare the cohort again"
        )
    paths = [Path(folder) / f"{cid}.nt" for cid in ids]
    for index, cid, path in track(zip(done, ids, paths, strict=True), "export", len(done)):
        write_nt(path, LegacyCase(store.classes(index), store.label(index), cid))
    write_rows(Path(folder) / ROWS_FILE, {cid: row for row, cid in enumerate(ids)})
    return paths


class _Entry(NamedTuple):
    """The facts of a `.nt` file that are needed to create the store."""

    id: str
    path: Path
    resolution: int
    labelled: bool


def _survey(folder: PathLike, recipe: Recipe) -> list[_Entry]:
    """Every `.nt` file of a folder, checked, in the order of the store."""
    paths = sorted(path for path in Path(folder).glob("*.nt") if not path.name.startswith("."))
    if not paths:
        raise CohortError("no .nt files found", where=folder, remedy="give the folder that holds them")
    found = sorted(_entry(path, recipe) for path in track(paths, "check", len(paths)))
    for one, two in itertools.pairwise(found):
        if one.id == two.id:
            raise CohortError(
                f"two files have the case id {one.id!r}: {one.path.name} and {two.path.name}",
                where=folder,
                why="one would overwrite the other",
                remedy="move one of them away",
            )
    odd = next((entry for entry in found if entry.resolution != found[0].resolution), None)
    if odd:
        raise CohortError(
            f"{found[0].path.name} has resolution {found[0].resolution}, {odd.path.name} {odd.resolution}",
            where=folder,
            why="a store has one resolution",
            remedy="import them from two folders into two stores",
        )
    return _by_row(found, Path(folder) / ROWS_FILE)


def _by_row(found: list[_Entry], path: Path) -> list[_Entry]:
    """Files in the order of the code rows, so that a training of 2021 can continue; those without a row come last."""
    rows = read_rows(path) if path.is_file() else {}
    lost = sorted(set(rows) - {entry.id for entry in found})
    if lost:
        raise CohortError(
            f"has rows for {counted(len(lost), 'case')} without a .nt file here (first: {', '.join(lost[:3])})",
            where=path,
            why="the cases after them would get the codes of other cases",
            remedy=f"restore the files; or, if you do not continue a training of 2021, move {ROWS_FILE} away",
        )
    return sorted(found, key=lambda entry: (entry.id not in rows, rows.get(entry.id, 0), entry.id))


def _entry(path: Path, recipe: Recipe) -> _Entry:
    case = read_nt(path)
    if len(set(case.img.shape)) != 1 or not 8 <= case.img.shape[0] <= 512:
        raise ScanError(
            f"has shape {case.img.shape}; expected a cube of 8 to 512 voxels per side",
            where=path,
            remedy="prepare the scans again with `anofield prepare`",
        )
    top, count = int(case.img.max()), len(recipe.centers)
    if top >= count:
        raise ScanError(
            f"has class {top}, but there are {count} centres (classes 0 to {count - 1})",
            where=path,
            why="a class without a centre has no intensity",
            remedy="give the centres that the file was made with: --centers FILE.cp",
        )
    return _Entry(case.cid, path, case.img.shape[0], case.seg is not None)


def _as_prepared(case: LegacyCase, recipe: Recipe, lattice: Lattice) -> Prepared:
    """Convert a case to the form that the store writes."""
    return Prepared(
        classes=case.img,
        brain=case.img > 0,
        intensity=np.take(np.asarray(recipe.centers, dtype=np.float32), case.img) * (case.img > 0),
        label=case.seg,
        lattice=lattice,
        recipe=recipe,
        scale=(0.0, 1.0),
    )


def _volume(value: object, what: str) -> Classes:
    """(i, j, k) uint8."""
    array = as_array(value)
    if array.ndim != 3 or array.size == 0:
        raise ValueError(f"{what} has shape {array.shape}; expected a 3-D volume")
    if not (array.min() >= 0 and array.max() <= 255 and (array.dtype.kind in "bu" or (array % 1 == 0).all())):
        raise ValueError(f"{what} holds values other than whole numbers from 0 to 255")
    return np.array(array, dtype=np.uint8, order="C")
