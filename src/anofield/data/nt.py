"""The data files of 2021: `.nt` (one prepared case) and `.cp` (class centres); folders of them ⇄ stores.

Both are pickles, and a pickle can run code: `_pickles` reads them by an allow-list and never calls anything.
"""

from __future__ import annotations

import itertools
import pickle
import shutil
from collections.abc import Sequence
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
    pickled_name,
    pickled_text,
    pickled_tuple,
    reading,
    write,
)
from anofield.data.classes import MAX_CLASSES
from anofield.data.cohort.case import Case
from anofield.data.lattice import Lattice
from anofield.data.prepare import Prepared, Recipe, published_lattice
from anofield.data.rows import ROWS_FILE, as_case_id, is_file_name, read_rows, write_rows
from anofield.data.scan import Scan
from anofield.data.store import Store, lattice_side
from anofield.errors import CohortError, ScanError, UsageError
from anofield.typing import Classes, PathLike


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
    """Read one `.nt` file: an `img_extended`, bare or alone in a list; a missing case id becomes the file's stem.

    Raises:
        ScanError: The file is missing, truncated or no pickle, asks for anything but arrays and `img_extended`, or
            its volumes are not 3-D, not whole numbers from 0 to 255, or of two shapes.
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
        UsageError: The file is missing, no pickle, asks for anything but arrays, or holds something else than 3 to
            `MAX_CLASSES` increasing numbers.
    """
    with reading(path, UsageError):
        content = load(path, UsageError)
        array = as_array(content) if isinstance(content, Call) else np.array([as_number(item) for item in content])
        centers = tuple(float(value) for value in array.ravel())
        if not 3 <= len(centers) <= MAX_CLASSES or not all(a < b for a, b in itertools.pairwise(centers)):
            raise ValueError(f"its {len(centers)} numbers are not 3 to {MAX_CLASSES} that increase")
        return centers


def write_centers_pickle(path: PathLike, centers: Sequence[float]) -> None:
    """Write class centres as a `.cp` file: a float64 array, (class,)."""
    write(path, pickled_array(np.asarray(centers, dtype=np.float64)))


def import_store(folder: PathLike, path: PathLike, recipe: Recipe, *, force: bool = False) -> Store:
    """Make a store from the `.nt` files of a folder, all or nothing; a killed import goes on where it stopped.

    Args:
        folder: Where the `.nt` files lie.
        path: Store to make, by convention `NAME.zarr`.
        recipe: How the files were made: `ifl2021-hcp` or `ifl2021-brats`, centres and mode pool. Its resolution is
            taken from the files.
        force: Replace a store that is there.

    Returns:
        The store. A `.nt` file keeps neither brain mask nor affine: the brain is where the class is above 0, and the
        native affine is exactly the identity, which says that the place in the world is unknown. The way from the
        lattice to the native voxels is the recipe's and right. Cases come in the order of the rows of `dict_cid.k`
        where that lies beside them, so that a training of 2021 goes on with its codes; else by case id.

    Raises:
        UsageError: The recipe is not a published one, or another store is there.
        CohortError: No `.nt` file, two with one case id, two resolutions, or a case of `dict_cid.k` without file.
        ScanError: A file cannot be used (see `read_nt`), is no cube, or has more classes than there are centres.
    """
    if recipe.name == "box":
        raise UsageError(
            "no file of 2021 was made by the recipe box", remedy="give --recipe ifl2021-hcp or ifl2021-brats"
        )
    found = _survey(folder, recipe)
    side, full = found[0].resolution, lattice_side(recipe.model_copy(update={"resolution": None}))
    recipe = recipe.model_copy(update={"resolution": None if side == full else side})
    cases = [Case(entry.id, entry.path, entry.path if entry.labelled else None) for entry in found]
    if force and (Path(path) / "zarr.json").is_file():
        shutil.rmtree(path)
    store = Store.create(path, cases, recipe, labels=any(entry.labelled for entry in found), side=side)
    lattice = published_lattice(recipe.name, side, np.eye(4))  # the world is unknown
    for row, entry in enumerate(track(found, "import", len(found))):
        digest = file_hash(entry.path)
        if not store.is_current(row, digest):
            store.write(row, _as_prepared(read_nt(entry.path), entry.path, recipe, lattice, digest))
    return store


def export_nt(store: Store, folder: PathLike) -> list[Path]:
    """Write the complete cases of a store as `CASE.nt`, and `dict_cid.k` with their rows in the order of the store.

    A store with labels gives every case a `seg`, all 0 where it had none; a store without gives None.

    Raises:
        ExperimentError: No case is complete.
        CohortError: A case id is no file name.
        MachineError: The folder cannot be written or the disk is full.
    """
    done = store.require_cases()
    ids = [store.ids[index] for index in done]
    if odd := next((cid for cid in ids if not is_file_name(cid)), None):
        raise CohortError(f"the case id {odd!r} is no file name", where=store.path, remedy="prepare the cohort again")
    paths = [Path(folder) / f"{cid}.nt" for cid in ids]
    for index, cid, path in track(zip(done, ids, paths, strict=True), "export", len(done)):
        write_nt(path, LegacyCase(store.classes(index), store.label(index), cid))
    write_rows(Path(folder) / ROWS_FILE, {cid: row for row, cid in enumerate(ids)})
    return paths


class _Entry(NamedTuple):
    """What the store must know of a file before it is made."""

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
    """Files in the order of the code rows, so that a training of 2021 can go on; those without a row come after."""
    rows = read_rows(path) if path.is_file() else {}
    lost = sorted(set(rows) - {entry.id for entry in found})
    if lost:
        raise CohortError(
            f"gives rows to {counted(len(lost), 'case')} without a .nt file here (first: {', '.join(lost[:3])})",
            where=path,
            why="the cases after them would get the codes of others",
            remedy="bring the files back, or move it away if no training of 2021 is to go on with them",
        )
    return sorted(found, key=lambda entry: (entry.id not in rows, rows.get(entry.id, 0), entry.id))


def _entry(path: Path, recipe: Recipe) -> _Entry:
    case = read_nt(path)
    if len(set(case.img.shape)) != 1 or not 8 <= case.img.shape[0] <= 512:
        raise ScanError(
            f"has shape {case.img.shape}, a cube of 8 to 512 voxels a side is needed",
            where=path,
            remedy="prepare the scans again with `anofield prepare`",
        )
    top, count = int(case.img.max()), len(recipe.centers)
    if top >= count:
        raise ScanError(
            f"has class {top}, but there are {count} centres (classes 0 to {count - 1})",
            where=path,
            why="the class stands for no intensity",
            remedy="give the centres that the file was made with: --centers FILE.cp",
        )
    return _Entry(case.cid, path, case.img.shape[0], case.seg is not None)


def _as_prepared(case: LegacyCase, path: Path, recipe: Recipe, lattice: Lattice, digest: str) -> Prepared:
    """A case as the store takes it; of the scan itself, which the store does not keep, nothing is left."""
    nothing = np.broadcast_to(np.float32(0), lattice.native_shape)
    return Prepared(
        classes=case.img,
        brain=case.img > 0,
        intensity=np.take(np.asarray(recipe.centers, dtype=np.float32), case.img) * (case.img > 0),
        label=case.seg,
        lattice=lattice,
        recipe=recipe,
        scan=Scan(nothing, lattice.native_affine, None, path),
        native_brain=nothing > 0,
        scale=(0.0, 1.0),
        source_hash=digest,
    )


def _volume(value: object, what: str) -> Classes:
    """(i, j, k) uint8."""
    array = as_array(value)
    if array.ndim != 3 or array.size == 0:
        raise ValueError(f"{what} has shape {array.shape}, a 3-D volume is needed")
    if not (array.min() >= 0 and array.max() <= 255 and (array.dtype.kind in "bu" or (array % 1 == 0).all())):
        raise ValueError(f"{what} holds other values than whole numbers from 0 to 255")
    return np.array(array, dtype=np.uint8, order="C")
