"""A prepared cohort on disk: one Zarr 3 group, one chunk per case, safe for several writers, resumable.

`classes`, `brain` and `label` are (case, i, j, k) uint8; `to_native` and `native_affine` (case, 4, 4), `native_shape`
(case, 3), `source_hash` (case, 32) and `done` (case,) have one chunk per case as well, because a group's attributes are
one file that two writers would race for. Attributes, written once: recipe, case ids, subjects, format version.
"""

from __future__ import annotations

import hashlib
import json
import shutil
from collections.abc import Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import zarr

from anofield._files import file_hash, writing
from anofield._words import counted
from anofield.data.cohort.case import Case
from anofield.data.parallel import Outcome, map_cases
from anofield.data.prepare import Prepared, Recipe, prepare_case
from anofield.data.recipe import missing_keys
from anofield.errors import CohortError, ExperimentError, UsageError
from anofield.typing import Classes, Json, PathLike

FORMAT = 1
ARRAYS = ("classes", "brain", "to_native", "native_affine", "native_shape", "source_hash", "done")


class Store:
    """Reader and writer of a prepared cohort.

    Attributes:
        path: Folder of the store.
        ids: Case ids, in the order of the arrays.
        recipe: How the cases were prepared.
    """

    def __init__(self, path: PathLike, *, mode: str = "r") -> None:
        """Open a store.

        Raises:
            CohortError: There is no store, it was written by another format version, or it lacks arrays or keys of its
                recipe.
        """
        self.path = Path(path)
        try:
            self._group: Any = zarr.open_group(str(path), mode="r" if mode == "r" else "r+")
            attributes: Json = dict(self._group.attrs)
            self.ids: list[str] = list(attributes["cases"])
            self.recipe = Recipe.model_validate(attributes["recipe"])
            missing = [name for name in ARRAYS if name not in self._group]
            missing += [f"recipe.{key}" for key in missing_keys(attributes["recipe"])]
        except (FileNotFoundError, KeyError, ValueError, json.JSONDecodeError) as error:
            raise CohortError(
                "is not a store of prepared scans", where=path, remedy="make one with `anofield prepare`"
            ) from error
        if attributes["format"] != FORMAT:
            raise CohortError(
                f"has store format {attributes['format']}, this version reads {FORMAT}",
                where=path,
                remedy="prepare the cohort again",
            )
        if missing:
            raise CohortError(f"lacks {', '.join(missing)}", where=path, remedy="prepare the cohort again with --force")
        self.subjects: list[str] = list(attributes["subjects"])

    @classmethod
    def create(cls, path: PathLike, cases: Sequence[Case], recipe: Recipe, *, labels: bool, side: int) -> Store:
        """Create the store of these cases, or open the one that is there if it was made for the same cases and recipe.

        Args:
            path: Folder, by convention `NAME.zarr`.
            cases: The cohort; its order is the order of the arrays.
            recipe: Stored with it.
            labels: Whether to keep lesion labels.
            side: R, lattice voxels per axis.

        Raises:
            UsageError: A store of other cases or another recipe is already there.
            MachineError: The folder cannot be written.
        """
        with writing(path):
            occupied = Path(path).exists() and any(Path(path).iterdir())
        if occupied:
            return cls._reopen(path, cases, recipe, labels)
        with writing(path):
            group = zarr.create_group(str(path))
            _create_arrays(group, len(cases), side, labels)
            group.attrs.update(
                {
                    "format": FORMAT,
                    "recipe": recipe.model_dump(mode="json"),
                    "cases": [case.id for case in cases],
                    "subjects": [case.subject or case.id for case in cases],
                }
            )
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
        """What it holds, as plain values."""
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
        """Whether the files of a case are there; Zarr would read a lost chunk as zeros without a word."""
        return all((self.path / name / "c" / str(index)).exists() for name in ("classes", "brain"))

    def forget(self, index: int) -> None:
        """Mark a case undone: its files changed, and what is stored is no longer theirs."""
        with writing(self.path):
            self._group["done"][index] = 0

    def write(self, index: int, prepared: Prepared) -> None:
        """Write one case; its done flag comes last, so a killed writer leaves the case undone.

        Raises:
            MachineError: The disk refuses.
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
            group["source_hash"][index] = np.frombuffer(bytes.fromhex(prepared.source_hash), dtype=np.uint8)
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
            ExperimentError: There are fewer.
        """
        done = self.done
        if len(done) < count:
            raise ExperimentError(
                f"holds {counted(len(done), 'complete case')} of {len(self.ids)}; needed: {count}",
                where=self.path,
                remedy="run `anofield prepare` again; it goes on where it stopped",
            )
        return done


def prepare_cohort(
    cases: Sequence[Case],
    recipe: Recipe,
    path: PathLike,
    *,
    labels: bool = False,
    workers: int = 1,
    scheduler: str | None = None,
    force: bool = False,
) -> tuple[Store, list[Outcome[bool]]]:
    """Prepare every case into a store; cases that are done and unchanged are skipped, failing ones recorded.

    Args:
        cases: The cohort.
        recipe: How.
        path: Store to make or to go on with.
        labels: Keep lesion labels.
        workers: Local processes.
        scheduler: Address of a running Dask scheduler instead; `path` and the scans must be visible to its workers.
        force: Replace a store that is there.

    Returns:
        The store, and the outcome of every case.

    Raises:
        UsageError: A store of other cases or another recipe is there, or one without the labels asked for.
    """
    if force and (Path(path) / "zarr.json").is_file():
        shutil.rmtree(path)
    Store.create(path, cases, recipe, labels=labels, side=lattice_side(recipe))
    rows = {case.id: row for row, case in enumerate(cases)}
    work = partial(_prepare_into, path=str(path), recipe=recipe, rows=rows)
    outcomes = list(map_cases(work, cases, workers=workers, scheduler=scheduler, label="prepare"))
    return Store(path), outcomes


def lattice_side(recipe: Recipe) -> int:
    """Lattice voxels per axis: the resolution asked for, or the published full one."""
    published = {"ifl2021-hcp": 300, "ifl2021-brats": 240}  # Naval Marimont & Tarroni 2021
    return recipe.resolution or published[recipe.name]


def _prepare_into(case: Case, *, path: str, recipe: Recipe, rows: dict[str, int]) -> bool:
    """Write one case unless it is current; whether it was written."""
    store, row, digest = Store(path, mode="r+"), rows[case.id], _digest(case)
    if store.is_current(row, digest):
        return False
    store.forget(row)
    store.write(row, replace(prepare_case(case, recipe), source_hash=digest))
    return True


def _digest(case: Case) -> str:
    """SHA-256 over the scan and, if it has them, its mask and label; empty if one of the files is missing."""
    files = {"image": case.image, "mask": case.mask, "label": case.label}
    given = {name: path for name, path in files.items() if path is not None}
    if not all(path.is_file() for path in given.values()):
        return ""
    return hashlib.sha256("\n".join(f"{name} {file_hash(path)}" for name, path in given.items()).encode()).hexdigest()


def stored_recipe(path: PathLike) -> Recipe | None:
    """The recipe of the store that a run would go on with; None if there is no store."""
    try:
        return Store(path).recipe
    except CohortError:
        return None


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
