"""A prepared cohort on disk: one Zarr 3 group, one chunk per case, safe for several writers, resumable.

`classes`, `brain` and `label` are (case, i, j, k) uint8; `to_native` and `native_affine` (case, 4, 4), `native_shape`
(case, 3), `source_hash` and `content_hash` (case, 32) and `done` (case,) have one chunk per case as well: a group's
attributes are one file, and two writers could overwrite each other's. Every chunk has a checksum, and a complete case
has all its chunks. Attributes, written once: see `StoreInfo`.
"""

from __future__ import annotations

import contextlib
import hashlib
from collections.abc import Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from anofield._files import PARTIAL, write_bytes, writing
from anofield._progress import say
from anofield._words import counted, named
from anofield.data.building import building, holds_files, remove
from anofield.data.chunks import METADATA
from anofield.data.cohort.case import Case, cohort_of
from anofield.data.layout import PosedBy, StoreInfo, hash_values, inside, read_info, write_empty
from anofield.data.origin import Origin
from anofield.data.parallel import HERE, Outcome, Spread, failures_of, map_cases
from anofield.data.prepare import Place, prepare_case
from anofield.data.prepared import Prepared
from anofield.data.published import lattice_side
from anofield.data.recipe import Recipe
from anofield.data.tissue_order import agreed, contrast_by_tissues
from anofield.data.volume import volume_hash
from anofield.errors import AnofieldError, CohortError, ExperimentError, UsageError
from anofield.typing import Classes, Json, PathLike

RESUME = "run `anofield prepare` again, which resumes where it stopped"
LEARNED_FROM = 5  # scans from which a contrast is learned
REPAIR = "run the command that made the store again, which makes exactly this case again"


class Store:
    """Reader and writer of a prepared cohort; also a `Dataset` of torch, which loads (classes, brain, id) by index.

    Attributes:
        path: Folder of the store.
        info: Attributes of the store: recipe, case ids, subjects.
    """

    def __init__(self, path: PathLike, *, mode: str = "r") -> None:
        """Open a store, for reading or, with mode `r+`, for writing cases.

        Raises:
            CohortError: There is no store, it has another format version, it lacks arrays or keys of its recipe, or
                its metadata are damaged or not those that this package writes.
        """
        self.path = Path(path)
        self._made = self._modified()
        self.info = read_info(self.path)
        self._arrays = self.info.arrays
        self._writable = mode != "r"
        self._told = False  # which cases are left out

    def __repr__(self) -> str:
        count = f"{len(self.done)} of {counted(len(self), 'case')}"
        return f"Store({self.path.name}: {count}, {self.resolution}³, recipe {self.recipe.name})"

    def __len__(self) -> int:
        """Number of cases, complete or not."""
        return len(self.ids)

    def __getitem__(self, index: int) -> tuple[Classes, Classes, str]:
        """Classes (R, R, R) uint8, brain (R, R, R) uint8 and id of a case.

        `torch.utils.data.DataLoader(store)` needs a complete store. If the store is not complete, use
        `Subset(store, store.done)`.

        Raises:
            IndexError: There is no such case.
            ExperimentError: The case is not complete.
        """
        if not 0 <= index < len(self):
            raise IndexError(f"case {index} of {len(self)}")
        if not self._is_complete(index):
            raise ExperimentError(f"case {self.ids[index]} is not complete", where=self.path, remedy=RESUME)
        return self.classes(index), self.brain(index), self.ids[index]

    @property
    def ids(self) -> list[str]:
        """Case ids, in the order of the arrays."""
        return self.info.cases

    @property
    def subjects(self) -> list[str]:
        """Subject of each case."""
        return self.info.subjects

    @property
    def recipe(self) -> Recipe:
        """How the cases were prepared."""
        return self.info.recipe

    @property
    def pose(self) -> PosedBy | None:
        """What found the poses of the cases; None if they lie as in their scanner."""
        return self.info.pose

    @property
    def origin(self) -> Origin:
        """Where the complete cases come from; a contrast that no name says is learned from some of the scans."""
        done = self.done
        people = len({self.subjects[index] for index in done})
        found = self.info.origin.model_copy(update={"people": people})
        if found.contrast:
            return found
        contrast = agreed([self._learned_contrast(index) for index in done[:LEARNED_FROM]])
        return found.model_copy(update={"contrast": contrast, "learned": bool(contrast)})

    def _learned_contrast(self, index: int) -> str:
        """Contrast of a case by the order of its tissues."""
        values = np.take(np.array(self.recipe.centers), self.classes(index))
        spacing = np.linalg.norm((self._read("native_affine", index) @ self._read("to_native", index))[:3, :3], axis=0)
        return contrast_by_tissues(values, self.brain(index) > 0, float(spacing.mean()))

    @property
    def contents(self) -> list[str]:
        """Content hash of each case's scan (`Scan.content_hash`); empty if the case is not complete or has none.

        Cases that were imported from files of 2021 have none.
        """
        hashes = [bytes(self._read("content_hash", i)) if self._is_complete(i) else b"" for i in range(len(self))]
        return [content.hex() if any(content) else "" for content in hashes]

    @classmethod
    def create(cls, path: PathLike, cases: Sequence[Case], recipe: Recipe, *, labels: bool, side: int) -> Store:
        """Create the store of these cases, or open an existing one if it was made for the same cases and recipe.

        Args:
            path: Folder, by convention `NAME.zarr`.
            cases: The cohort; its order is the order of the arrays.
            recipe: Recipe of the cases.
            labels: Whether to keep lesion labels.
            side: R, lattice voxels per axis.

        Raises:
            UsageError: The folder already holds a store of other cases or another recipe.
            CohortError: The folder holds something that is not a store.
            MachineError: The folder cannot be written.
        """
        return cls.begin(path, StoreInfo.of(cases, recipe, labels=labels, side=side))

    @classmethod
    def begin(cls, path: PathLike, wanted: StoreInfo) -> Store:
        """Like `create`, with the attributes of the store."""
        with writing(path):
            occupied = holds_files(Path(path))
        if not occupied:
            write_empty(path, wanted)
        store = cls(path, mode="r+")
        if difference := store.info.differs(wanted):
            raise UsageError(
                f"a store {difference} is already there",
                where=path,
                why="half of its arrays would belong to the old one",
                remedy="choose another -o, or --force to replace it",
            )
        return store

    @property
    def done(self) -> list[int]:
        """Indices of the cases that are complete; a damaged mark of a case raises a `CohortError`."""
        return [index for index in range(len(self)) if self._is_complete(index)]

    def summary(self) -> Json:
        """Summary of the store as plain values."""
        pose = {} if self.pose is None else {"pose": self.pose.model_dump(mode="json")}
        recipe = self.recipe.model_dump(mode="json")
        counts = {"done": len(self.done), "resolution": self.resolution}
        return {"store": str(self.path), "cases": self.ids, **counts, "recipe": recipe, **pose}

    def content_hash(self) -> str:
        """SHA-256 over ids and source hashes of the complete cases, recipe and poses; paths do not count."""
        parts = [self.recipe.model_dump_json(), *([] if self.pose is None else [self.pose.identity])]
        parts += [f"{self.ids[i]} {bytes(self._read('source_hash', i)).hex()}" for i in self.done]
        return hashlib.sha256("\n".join(parts).encode()).hexdigest()

    @property
    def resolution(self) -> int:
        """R, lattice voxels per axis."""
        return self.info.side

    def is_current(self, index: int, source_hash: str) -> bool:
        """Whether case `index` is complete and undamaged, and was made from files with this SHA-256."""
        try:
            found = {name: self._read(name, index) for name in self._arrays}
        except AnofieldError:
            return False
        return bool(found["done"]) and bytes(found["source_hash"]).hex() == source_hash

    def forget(self, index: int) -> None:
        """Remove a case, because its files changed since it was stored, or it is damaged.

        Raises:
            MachineError: The files of the case cannot be removed.
        """
        if not self._writable:
            raise UsageError("the store was opened for reading", where=self.path, remedy="open it with mode='r+'")
        with writing(self.path):
            for name in reversed(self._arrays):  # `done` is the first
                self._place(name, index)
                remove(self.path / name / "c" / str(int(index)))  # with what a killed process left beside the chunk

    def write(self, index: int, prepared: Prepared, source_hash: str) -> None:
        """Write one case; its `done` mark is written last, so an interrupted write leaves the case undone.

        Raises:
            MachineError: The disk is full or cannot be written.
        """
        self.forget(index)
        for name, value in self._values(prepared, source_hash):
            write_bytes(self._place(name, index), self._arrays[name].encode(value))

    def _values(self, prepared: Prepared, source_hash: str) -> Iterator[tuple[str, Any]]:
        """Name and values of every array of a case, in the order in which they are written."""
        yield "classes", prepared.classes
        yield "brain", prepared.brain
        if self.info.labels:  # a case without a label has a volume of zeros, which is not the same as a lost one
            yield "label", np.zeros_like(prepared.classes) if prepared.label is None else prepared.label
        yield "to_native", prepared.lattice.to_native
        yield "native_affine", prepared.lattice.native_affine
        yield "native_shape", prepared.lattice.native_shape
        yield "source_hash", hash_values(source_hash)
        yield "content_hash", hash_values(prepared.content)
        yield "done", 1

    def classes(self, index: int) -> Classes:
        """Intensity classes of one case, (R, R, R) uint8.

        Raises:
            ExperimentError: The case is not complete.
            CohortError: The classes are damaged.
        """
        return self._read("classes", index)

    def brain(self, index: int) -> Classes:
        """Brain voxels of one case, (R, R, R) uint8, 0 or 1; raises as `classes` does."""
        return self._read("brain", index)

    def label(self, index: int) -> Classes | None:
        """Lesion labels of one case, (R, R, R) uint8, or None if the store keeps none; raises as `classes` does."""
        return self._read("label", index) if self.info.labels else None

    def require_cases(self, count: int = 1) -> list[int]:
        """Indices of the complete cases, at least `count` of them; the first call says which cases are left out.

        Raises:
            ExperimentError: Fewer cases are complete.
        """
        done = self.done
        if len(done) < count:
            raise ExperimentError(
                f"holds {counted(len(done), 'complete case')} of {len(self.ids)}; needed: {count}",
                where=self.path,
                remedy=RESUME,
            )
        complete = set(done)
        missing = [case_id for index, case_id in enumerate(self.ids) if index not in complete]
        if missing and not self._told:
            what = f"{counted(len(missing), 'case')} of {len(self)} not complete, left out: {named(missing)}"
            say(f"{self.path}: {what}. Remedy: {RESUME}")
        self._told = True
        return done

    def _read(self, name: str, index: int) -> NDArray[Any]:
        """The array of a case, as it was written."""
        path, case = self._place(name, index), f"the {name} of case {self.ids[index]}"
        if self._modified() != self._made:
            what, why = "was replaced while it was read", "cases of two stores would mix"
            raise ExperimentError(what, where=self.path, why=why, remedy="start again")
        try:
            return self._arrays[name].read(path)
        except FileNotFoundError:
            raise ExperimentError(f"lacks {case}", where=self.path, remedy=RESUME) from None
        except OSError as error:
            what = f"{case} cannot be read ({error.strerror or error})"
            raise CohortError(what, where=path, remedy="check the permissions and the disk") from error
        except (ValueError, RuntimeError) as error:  # zstd raises a RuntimeError
            raise CohortError(f"{case} is damaged ({error})", where=path, remedy=REPAIR) from error

    def _is_complete(self, index: int) -> bool:
        """Whether the mark of a case is set and the files of all its arrays are there."""
        chunks = (self.path / array.chunk(index) for array in self._arrays.values())
        return all(chunk.is_file() for chunk in chunks) and bool(self._read("done", index))

    def _place(self, name: str, index: int) -> Path:
        """The file of a case in an array, which must not lie outside of the store."""
        path = self.path / self._arrays[name].chunk(index)
        inside(self.path, path)
        return path

    def _modified(self) -> int:
        """When the store was made, ns; its attributes are never written again."""
        try:
            return (self.path / METADATA).stat().st_mtime_ns
        except OSError:
            return 0


@contextlib.contextmanager
def making(path: PathLike, wanted: StoreInfo, *, force: bool = False) -> Iterator[Store]:
    """Yield a store to write cases into; its path is `path`, or, while an old store is replaced, a folder beside it.

    Args:
        path: The store, new or half made.
        wanted: Its attributes.
        force: Replace an existing store once the body has ended without an error.

    Raises:
        UsageError: Another process is making this store, or it has other cases, another recipe, or no labels although
            labels are wanted.
        CohortError: The folder holds something that is not a store, or files that this package did not make.
        MachineError: The store cannot be written.
    """
    with building(path, force=force, resumable=wanted.is_begun_in) as folder:
        store = Store.begin(folder, wanted)
        with writing(path):
            for unfinished in (store.path / "done" / "c").glob(f"{PARTIAL}*"):
                unfinished.unlink()
        yield store


def prepare_cohort(
    cases: Sequence[Case],
    recipe: Recipe,
    path: PathLike,
    *,
    labels: bool = False,
    spread: Spread = HERE,
    force: bool = False,
    place: Place | None = None,
) -> tuple[Store, list[Outcome[bool]]]:
    """Prepare every case and write it to a store; unchanged finished cases are skipped, failing ones recorded.

    Args:
        cases: The cohort.
        recipe: Recipe of the store.
        path: Store to make or to resume.
        labels: Whether to keep lesion labels.
        spread: Where the work runs; all workers must be able to read the scans and to write to `path` and beside it.
        force: Whether to replace an existing store. It stays until the new one is made, unless no case can be prepared.
        place: Finds the pose of every scan (`anofield.detect.placer.Placer`), so that all heads lie alike in the store.

    Returns:
        The store, and the outcome of every case.

    Raises:
        CohortError: Two cases have the same id; or the folder holds something else than a store; or no case could be
            prepared, and the store that was to be replaced was kept.
        UsageError: An existing store has other cases, another recipe, or no labels although labels are wanted; or
            another process is preparing it.
        MachineError: The store cannot be written.
    """
    cases = cohort_of(cases)
    rows = {case.id: row for row, case in enumerate(cases)}
    pose, side = None if place is None else place.source, lattice_side(recipe)
    wanted = StoreInfo.of(cases, recipe, labels=labels, side=side, pose=pose)
    with making(path, wanted, force=force) as store:
        work = partial(_prepare_into, path=str(store.path.absolute()), recipe=recipe, rows=rows, place=place)
        outcomes = list(map_cases(work, cases, spread=spread, label="prepare"))
        failures = failures_of(outcomes)
        if store.path != Path(path) and len(failures) == len(cases):
            raise CohortError(
                f"none of {counted(len(cases), 'case')} could be prepared, the first: {failures[0].error}",
                where=path,
                why="the existing store was kept",
                remedy="fix the scans, and repeat the command",
            )
    made = Store(path)
    _name_copies(made)
    return made, outcomes


def _prepare_into(case: Case, *, path: str, recipe: Recipe, rows: dict[str, int], place: Place | None) -> bool:
    """Write one case unless it is current; returns whether it was written."""
    store, row, digest = Store(path, mode="r+"), rows[case.id], _digest(case)
    if store.is_current(row, digest):
        return False
    store.forget(row)
    store.write(row, prepare_case(case, recipe, place), digest)
    return True


def _digest(case: Case) -> str:
    """SHA-256 over the scan and, if it has them, its mask and labels; empty if one of the files is missing."""
    files = [("image", case.image), ("mask", case.mask), *(("label", path) for path in case.labels)]
    given = [(name, path) for name, path in files if path is not None]
    if not all(path.is_file() for _, path in given):
        return ""
    return hashlib.sha256("\n".join(f"{name} {volume_hash(path)}" for name, path in given).encode()).hexdigest()


def _name_copies(store: Store) -> None:
    """Name the cases whose scans have the same content: one person would count several times in training."""
    same: dict[str, list[str]] = {}
    for case_id, content in zip(store.ids, store.contents, strict=True):
        same.setdefault(content, []).append(case_id)
    copies = [" = ".join(ids) for content, ids in same.items() if content and len(ids) > 1]
    if copies:
        say(f"{store.path}: the same scan under several ids, which counts it several times: {'; '.join(copies)}")


def stored_recipe(path: PathLike) -> Recipe | None:
    """The recipe of an existing store, which can be resumed; None if there is no store."""
    try:
        return Store(path).recipe
    except CohortError:
        return None
