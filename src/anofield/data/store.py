"""A prepared cohort on disk: one Zarr 3 group, one chunk per case, safe for several writers, resumable.

`classes`, `brain` and `label` are (case, i, j, k) uint8; `to_native` and `native_affine` (case, 4, 4), `native_shape`
(case, 3), `source_hash` (case, 32) and `done` (case,) have one chunk per case as well: a group's attributes are one
file, and two writers could overwrite each other's. Attributes, written once: recipe, case ids, subjects, version.
"""

from __future__ import annotations

import hashlib
import shutil
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import zarr
from pydantic import BaseModel, ConfigDict

from anofield._files import file_hash, writing
from anofield._words import counted
from anofield.data.cohort.case import Case, cohort_of
from anofield.data.parallel import HERE, Outcome, Spread, map_cases
from anofield.data.prepare import prepare_case
from anofield.data.prepared import Prepared
from anofield.data.published import lattice_side
from anofield.data.recipe import Recipe, missing_keys
from anofield.errors import CohortError, ExperimentError, UsageError
from anofield.typing import Classes, Json, PathLike

FORMAT = 1
RESUME = "run `anofield prepare` again, which resumes where it stopped"
ARRAYS = ("classes", "brain", "to_native", "native_affine", "native_shape", "source_hash", "done")


class StoreInfo(BaseModel):
    """Attributes of a store, written once.

    Attributes:
        format: Version of the store's layout.
        recipe: Recipe of the cases.
        cases: Case ids, in the order of the arrays.
        subjects: Subject of each case.
    """

    model_config = ConfigDict(frozen=True)

    format: int = FORMAT
    recipe: Recipe
    cases: list[str]
    subjects: list[str]


class Store:
    """Reader and writer of a prepared cohort; also a `Dataset` of torch, which loads (classes, brain, id) by index.

    Attributes:
        path: Folder of the store.
        info: Attributes of the store: recipe, case ids, subjects.
    """

    def __init__(self, path: PathLike, *, mode: str = "r") -> None:
        """Open a store.

        Raises:
            CohortError: There is no store, it has another format version, or it lacks arrays or keys of its recipe.
        """
        self.path = Path(path)
        try:
            self._group: Any = zarr.open_group(str(path), mode="r" if mode == "r" else "r+")
            self.info = _read_info(self._group, self.path)
        except (FileNotFoundError, ValueError) as error:  # damaged JSON and what the model refuses are ValueErrors
            raise CohortError(
                "is not a store of prepared scans", where=path, remedy="make one with `anofield prepare`"
            ) from error
        missing = [name for name in ARRAYS if name not in self._group]
        missing += [f"recipe.{key}" for key in missing_keys(self.recipe.model_fields_set)]
        if missing:
            raise CohortError(f"lacks {', '.join(missing)}", where=path, remedy="prepare the cohort again with --force")

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
        if not (self._group["done"][index] and self._has_chunks(index)):
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
            MachineError: The folder cannot be written.
        """
        with writing(path):
            occupied = Path(path).exists() and any(Path(path).iterdir())
        if occupied:
            return cls._reopen(path, cases, recipe, labels)
        with writing(path):
            group = zarr.create_group(str(path))
            _create_arrays(group, len(cases), side, labels)
            subjects = [case.subject or case.id for case in cases]
            info = StoreInfo(recipe=recipe, cases=[case.id for case in cases], subjects=subjects)
            group.attrs.update(info.model_dump(mode="json"))
        return cls(path, mode="r+")

    @classmethod
    def _reopen(cls, path: PathLike, cases: Sequence[Case], recipe: Recipe, labels: bool) -> Store:
        store = cls(path, mode="r+")
        differs = {
            "with another recipe": store.recipe != recipe,
            "with other cases": store.ids != [case.id for case in cases],
            "without labels": labels and "label" not in store._group,
        }
        if any(differs.values()):
            raise UsageError(
                f"a store {next(what for what, differ in differs.items() if differ)} is already there",
                where=path,
                why="half of its arrays would belong to the old one",
                remedy="choose another -o, or --force to replace it",
            )
        return store

    @property
    def done(self) -> list[int]:
        """Indices of the cases that are complete."""
        return [int(i) for i in np.flatnonzero(self._group["done"][:]) if self._has_chunks(int(i))]

    def summary(self) -> Json:
        """Summary of the store as plain values."""
        return {
            "store": str(self.path),
            "cases": self.ids,
            "done": len(self.done),
            "resolution": self.resolution,
            "recipe": self.recipe.model_dump(mode="json"),
        }

    def content_hash(self) -> str:
        """SHA-256 over ids and source hashes of the complete cases, and the recipe; paths do not count."""
        sources = self._group["source_hash"][:]
        cases = [f"{self.ids[i]} {bytes(sources[i]).hex()}" for i in self.done]
        return hashlib.sha256("\n".join([self.recipe.model_dump_json(), *cases]).encode()).hexdigest()

    @property
    def resolution(self) -> int:
        """R, lattice voxels per axis."""
        return int(self._group["classes"].shape[1])

    def is_current(self, index: int, source_hash: str) -> bool:
        """Whether case `index` is complete and was made from files with this SHA-256."""
        same = bytes(self._group["source_hash"][index]).hex() == source_hash
        return bool(self._group["done"][index]) and same and self._has_chunks(index)

    def _has_chunks(self, index: int) -> bool:
        """Whether the files of a case are there; Zarr reads a lost chunk as zeros without an error."""
        return all((self.path / name / "c" / str(index)).exists() for name in ("classes", "brain"))

    def forget(self, index: int) -> None:
        """Mark a case as not done, because its files changed since it was stored."""
        with writing(self.path):
            self._group["done"][index] = 0

    def write(self, index: int, prepared: Prepared, source_hash: str) -> None:
        """Write one case; its `done` flag is written last, so an interrupted write leaves the case undone.

        Raises:
            MachineError: The disk is full or cannot be written.
        """
        group = self._group
        with writing(self.path):
            group["done"][index] = 0
            group["classes"][index] = prepared.classes
            group["brain"][index] = prepared.brain.astype(np.uint8)
            if "label" in group and prepared.label is not None:
                group["label"][index] = prepared.label
            group["to_native"][index] = prepared.lattice.to_native
            group["native_affine"][index] = prepared.lattice.native_affine
            group["native_shape"][index] = np.asarray(prepared.lattice.native_shape)
            group["source_hash"][index] = np.frombuffer(bytes.fromhex(source_hash), dtype=np.uint8)
            group["done"][index] = 1

    def classes(self, index: int) -> Classes:
        """Intensity classes of one case, (R, R, R) uint8."""
        return np.asarray(self._group["classes"][index], dtype=np.uint8)

    def brain(self, index: int) -> Classes:
        """Brain voxels of one case, (R, R, R) uint8, 0 or 1."""
        return np.asarray(self._group["brain"][index], dtype=np.uint8)

    def label(self, index: int) -> Classes | None:
        """Lesion labels of one case, (R, R, R) uint8, or None if the store keeps none."""
        return np.asarray(self._group["label"][index], dtype=np.uint8) if "label" in self._group else None

    def require_cases(self, count: int = 1) -> list[int]:
        """Indices of the complete cases, at least `count` of them.

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
        return done


def prepare_cohort(
    cases: Sequence[Case],
    recipe: Recipe,
    path: PathLike,
    *,
    labels: bool = False,
    spread: Spread = HERE,
    force: bool = False,
) -> tuple[Store, list[Outcome[bool]]]:
    """Prepare every case and write it to a store; unchanged finished cases are skipped, failing ones recorded.

    Args:
        cases: The cohort.
        recipe: Recipe of the store.
        path: Store to make or to resume.
        labels: Whether to keep lesion labels.
        spread: Where the work runs; all workers must be able to read the scans and to write to `path`.
        force: Whether to replace an existing store.

    Returns:
        The store, and the outcome of every case.

    Raises:
        CohortError: Two cases have the same id.
        UsageError: An existing store has other cases, another recipe, or no labels although labels are wanted.
    """
    cases = cohort_of(cases)
    if force and (Path(path) / "zarr.json").is_file():
        shutil.rmtree(path)
    Store.create(path, cases, recipe, labels=labels, side=lattice_side(recipe))
    rows = {case.id: row for row, case in enumerate(cases)}
    work = partial(_prepare_into, path=str(Path(path).absolute()), recipe=recipe, rows=rows)
    outcomes = list(map_cases(work, cases, spread=spread, label="prepare"))
    return Store(path), outcomes


def _prepare_into(case: Case, *, path: str, recipe: Recipe, rows: dict[str, int]) -> bool:
    """Write one case unless it is current; returns whether it was written."""
    store, row, digest = Store(path, mode="r+"), rows[case.id], _digest(case)
    if store.is_current(row, digest):
        return False
    store.forget(row)
    store.write(row, prepare_case(case, recipe), digest)
    return True


def _digest(case: Case) -> str:
    """SHA-256 over the scan and, if it has them, its mask and labels; empty if one of the files is missing."""
    files = [("image", case.image), ("mask", case.mask), *(("label", path) for path in case.labels)]
    given = [(name, path) for name, path in files if path is not None]
    if not all(path.is_file() for _, path in given):
        return ""
    return hashlib.sha256("\n".join(f"{name} {file_hash(path)}" for name, path in given).encode()).hexdigest()


def stored_recipe(path: PathLike) -> Recipe | None:
    """The recipe of an existing store, which can be resumed; None if there is no store."""
    try:
        return Store(path).recipe
    except CohortError:
        return None


def _read_info(group: Any, path: Path) -> StoreInfo:
    """Attributes of a store of this format."""
    attributes = dict(group.attrs)
    found = attributes.get("format", FORMAT)
    if found != FORMAT:
        what = f"has store format {found}, this version reads {FORMAT}"
        raise CohortError(what, where=path, remedy="prepare the cohort again")
    return StoreInfo.model_validate(attributes)


def _create_arrays(group: Any, cases: int, side: int, labels: bool) -> None:
    volumes = ("classes", "brain", "label") if labels else ("classes", "brain")
    for name in volumes:
        _array(group, name, (cases, side, side, side), "u1", ("case", "i", "j", "k"))
    _array(group, "to_native", (cases, 4, 4), "f8", ("case", "row", "column"))
    _array(group, "native_affine", (cases, 4, 4), "f8", ("case", "row", "column"))
    _array(group, "native_shape", (cases, 3), "i8", ("case", "axis"))
    _array(group, "source_hash", (cases, 32), "u1", ("case", "byte"))
    _array(group, "done", (cases,), "u1", ("case",))


def _array(group: Any, name: str, shape: tuple[int, ...], dtype: str, axes: tuple[str, ...]) -> None:
    group.create_array(name, shape=shape, chunks=(1, *shape[1:]), dtype=dtype, fill_value=0, dimension_names=axes)
