"""The store: what is written is read, what is done stays done, what is killed or changed is done again."""

from __future__ import annotations

import gzip
import hashlib
import json
import pickle
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import zarr
from torch.utils.data import DataLoader, Subset

from anofield._files import file_hash
from anofield.data.cohort.case import Case
from anofield.data.lattice import Lattice
from anofield.data.parallel import Spread
from anofield.data.prepare import prepare_case
from anofield.data.prepared import Prepared
from anofield.data.published import lattice_side
from anofield.data.recipe import Recipe
from anofield.data.store import Store, prepare_cohort, stored_recipe
from anofield.errors import CohortError, ExperimentError, MachineError, UsageError
from images import load_image

RECIPE = Recipe(resolution=12)
HASH = "5e" * 32  # of the source, where it does not matter
SaveBrain = Callable[..., Path]


@pytest.fixture
def cases(save_brain: SaveBrain, brain_data: np.ndarray, tmp_path: Path) -> list[Case]:
    """Three scans, each with a label and a brain mask."""
    found = []
    for seed in range(3):
        image = save_brain(tmp_path / f"scans/{seed}.nii.gz", seed=seed)
        label = save_brain(tmp_path / f"labels/{seed}.nii.gz", (brain_data > 215 + 5 * seed).astype(np.uint8))
        mask = save_brain(tmp_path / f"masks/{seed}.nii.gz", (brain_data > 0).astype(np.uint8))
        found.append(Case(f"case-{seed}", image, label, mask, f"subject-{seed // 2}"))
    return found


@pytest.fixture
def prepared(cases: list[Case]) -> list[Prepared]:
    return [prepare_case(case, RECIPE) for case in cases]


def written(outcomes: list) -> list[bool]:
    return [outcome.value for outcome in outcomes]


def create(path: Path, cases: list[Case], recipe: Recipe = RECIPE, labels: bool = True) -> Store:
    return Store.create(path, cases, recipe, labels=labels, side=12)


def assert_holds(store: Store, row: int, prepared: Prepared) -> None:
    np.testing.assert_array_equal(store.classes(row), prepared.classes)
    np.testing.assert_array_equal(store.brain(row), prepared.brain)
    np.testing.assert_array_equal(store.label(row), prepared.label)


def test_what_is_written_is_read(cases: list[Case], prepared: list[Prepared], tmp_path: Path) -> None:
    store = create(tmp_path / "s.zarr", cases)
    for row, person in enumerate(prepared):
        store.write(row, person, HASH)
    again = Store(tmp_path / "s.zarr")
    assert again.ids == ["case-0", "case-1", "case-2"] and again.done == [0, 1, 2]
    assert again.subjects == ["subject-0", "subject-0", "subject-1"]
    assert again.recipe == RECIPE and again.resolution == 12
    for row, person in enumerate(prepared):
        assert_holds(again, row, person)
        assert person.label is not None and person.label.any()


def test_any_zarr_reader_finds_geometry_and_named_axes(
    cases: list[Case], prepared: list[Prepared], tmp_path: Path
) -> None:
    create(tmp_path / "s.zarr", cases).write(1, prepared[1], HASH)
    group: Any = zarr.open_group(str(tmp_path / "s.zarr"), mode="r")
    np.testing.assert_array_equal(group["to_native"][1], prepared[1].lattice.to_native)
    np.testing.assert_array_equal(group["native_affine"][1], load_image(cases[1].image).affine)
    np.testing.assert_array_equal(group["native_shape"][1], load_image(cases[1].image).shape)
    assert group["classes"].metadata.dimension_names == ("case", "i", "j", "k")
    assert group["classes"].chunks == (1, 12, 12, 12) and group["classes"].dtype == np.uint8
    assert group["done"][:].tolist() == [0, 1, 0]


@pytest.mark.slow
@pytest.mark.parametrize("workers", [0, 2])
def test_a_loader_of_torch_takes_a_store(
    workers: int, cases: list[Case], prepared: list[Prepared], tmp_path: Path
) -> None:
    store = create(tmp_path / "s.zarr", cases)
    for row in (0, 2):
        store.write(row, prepared[row], HASH)
    assert len(store) == 3 and repr(store) == "Store(s.zarr: 2 of 3 cases, 12³, recipe box)"
    with pytest.raises(ExperimentError, match=r"case-1 is not complete\. Remedy"):
        store[1]
    (batch,) = DataLoader(Subset(store, store.done), batch_size=2, num_workers=workers)  # type: ignore[arg-type]
    classes, brain, ids = batch
    assert list(ids) == ["case-0", "case-2"] and classes.dtype == brain.dtype == torch.uint8
    np.testing.assert_array_equal(classes.numpy(), [prepared[row].classes for row in (0, 2)])
    np.testing.assert_array_equal(brain.numpy(), [prepared[row].brain for row in (0, 2)])
    store.write(1, prepared[1], HASH)
    whole: Any = store
    assert [ids for _, _, (ids,) in DataLoader(whole)] == store.ids == [name for _, _, name in whole]


def test_a_store_without_labels_has_none(cases: list[Case], prepared: list[Prepared], tmp_path: Path) -> None:
    store = create(tmp_path / "s.zarr", cases, labels=False)
    store.write(0, prepared[0], HASH)
    assert store.label(0) is None


@pytest.mark.slow
def test_several_writers_of_different_cases_do_not_disturb_each_other(prepared: list[Prepared], tmp_path: Path) -> None:
    many = [Case(str(row), Path("x")) for row in range(24)]
    create(tmp_path / "s.zarr", many)

    def write(row: int) -> None:
        Store(tmp_path / "s.zarr", mode="r+").write(row, prepared[row % 3], HASH)

    with ThreadPoolExecutor(6) as pool:
        list(pool.map(write, range(24)))
    store = Store(tmp_path / "s.zarr")
    assert store.done == list(range(24))
    for row in range(24):
        assert_holds(store, row, prepared[row % 3])


class Killed(Exception):
    """Stands for the end of a process between two writes."""


class HalfPrepared(Prepared):
    """A case whose writer dies after the classes are on disk."""

    @property
    def lattice(self) -> Lattice:
        raise Killed

    @lattice.setter
    def lattice(self, value: Lattice) -> None: ...


@pytest.mark.kill
@pytest.mark.parametrize("done_before", [False, True])
def test_a_killed_writer_leaves_its_case_undone_and_the_next_run_does_it(
    done_before: bool, cases: list[Case], prepared: list[Prepared], tmp_path: Path
) -> None:
    path = tmp_path / "s.zarr"
    if done_before:
        prepare_cohort(cases, RECIPE, path, labels=True)
    store = create(path, cases)
    half = object.__new__(HalfPrepared)
    vars(half).update({**vars(prepared[1]), "classes": prepared[1].classes + 1})
    with pytest.raises(Killed):
        store.write(1, half, HASH)
    assert 1 not in Store(path).done
    store, outcomes = prepare_cohort(cases, RECIPE, path, labels=True)
    assert written(outcomes) == [not done_before, True, not done_before]
    for row, person in enumerate(prepared):
        assert_holds(store, row, person)


def test_a_second_run_does_nothing(cases: list[Case], tmp_path: Path) -> None:
    _, first = prepare_cohort(cases, RECIPE, tmp_path / "s.zarr")
    _, second = prepare_cohort(cases, RECIPE, tmp_path / "s.zarr")
    assert written(first) == [True] * 3 and written(second) == [False] * 3


@pytest.mark.slow
@pytest.mark.parametrize("part", ["image", "mask", "label", "second label"])
def test_a_changed_source_is_done_again(part: str, cases: list[Case], save_brain: SaveBrain, tmp_path: Path) -> None:
    path = tmp_path / "s.zarr"
    if part == "second label":
        assert cases[2].label is not None
        second = Path(shutil.copy(cases[2].label, tmp_path / "second.nii.gz"))
        cases[2] = replace(cases[2], more_labels=(second,))
    prepare_cohort(cases, RECIPE, path, labels=True)
    changed = cases[2].more_labels[0] if part == "second label" else getattr(cases[2], part)
    data = np.asarray(load_image(changed).dataobj).copy()
    data[:, :, :10] = 0
    save_brain(changed, data)
    store, outcomes = prepare_cohort(cases, RECIPE, path, labels=True)
    assert written(outcomes) == [False, False, True]
    assert_holds(store, 2, prepare_case(cases[2], RECIPE))


@pytest.mark.slow
def test_a_failing_case_is_recorded_the_others_are_done_and_mending_it_completes_the_store(
    cases: list[Case], save_brain: SaveBrain, tmp_path: Path
) -> None:
    good = cases[1].image.read_bytes()
    cases[1].image.write_bytes(good[: len(good) // 2])
    store, outcomes = prepare_cohort(cases, RECIPE, tmp_path / "s.zarr")
    assert store.done == [0, 2] and written(outcomes) == [True, None, True]
    failure = outcomes[1].failure
    assert failure is not None and failure.id == "case-1" and not failure.trace
    assert str(cases[1].image) in failure.error and "Remedy: " in failure.error
    cases[1].image.write_bytes(good)
    store, outcomes = prepare_cohort(cases, RECIPE, tmp_path / "s.zarr")
    assert store.done == [0, 1, 2] and written(outcomes) == [False, True, False]


def test_a_missing_file_is_a_failure_of_its_case_alone(cases: list[Case], tmp_path: Path) -> None:
    assert cases[0].mask is not None
    cases[0].mask.unlink()
    cases[1].image.unlink()
    store, outcomes = prepare_cohort(cases, RECIPE, tmp_path / "s.zarr")
    assert store.done == [2]
    failed = [outcome.failure.error for outcome in outcomes if outcome.failure is not None]
    assert str(cases[0].mask) in failed[0] and str(cases[1].image) in failed[1]


@pytest.mark.slow
def test_two_processes_make_the_same_store_as_one(cases: list[Case], prepared: list[Prepared], tmp_path: Path) -> None:
    store, outcomes = prepare_cohort(cases, RECIPE, tmp_path / "s.zarr", labels=True, spread=Spread(2))
    assert sorted(outcome.case.id for outcome in outcomes if outcome.value) == store.ids
    for row, person in enumerate(prepared):
        assert_holds(store, row, person)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("change", "word"),
    [
        ({"recipe": RECIPE.model_copy(update={"box_mm": 190.0})}, "another recipe"),
        ({"cases": slice(0, 2)}, "other cases"),
        ({"labels": True}, "without labels"),
    ],
)
def test_a_store_of_something_else_is_refused_and_kept(
    change: dict[str, Any], word: str, cases: list[Case], tmp_path: Path
) -> None:
    path = tmp_path / "s.zarr"
    prepare_cohort(cases, RECIPE, path)
    some = cases[change.pop("cases", slice(None))]
    arguments: dict[str, Any] = {"recipe": RECIPE, "labels": False, **change}
    with pytest.raises(UsageError, match=rf"{word}.*Remedy.*--force") as caught:
        prepare_cohort(some, path=path, **arguments)
    assert str(path) in str(caught.value)
    assert Store(path).done == [0, 1, 2]
    store, _ = prepare_cohort(some, path=path, force=True, **arguments)
    assert store.ids == [case.id for case in some] and store.recipe == arguments["recipe"]


def test_force_never_removes_a_folder_that_is_no_store(cases: list[Case], tmp_path: Path) -> None:
    with pytest.raises(CohortError, match="Remedy"):
        prepare_cohort(cases, RECIPE, tmp_path / "scans", force=True)
    assert all(case.image.is_file() for case in cases)


def test_what_is_no_store_is_named(cases: list[Case], tmp_path: Path) -> None:
    (tmp_path / "file").write_text("x")
    for path in (tmp_path / "missing", tmp_path / "scans", tmp_path / "file", tmp_path / "file" / "below"):
        with pytest.raises(CohortError, match="Remedy") as caught:
            Store(path)
        assert str(path) in str(caught.value)
        assert stored_recipe(path) is None


@pytest.mark.parametrize("damage", ["not json", "{}", "recipe", "format"])
def test_a_damaged_store_is_named(damage: str, cases: list[Case], tmp_path: Path) -> None:
    create(tmp_path / "s.zarr", cases)
    metadata = tmp_path / "s.zarr" / "zarr.json"
    content = json.loads(metadata.read_text())
    content["attributes"].update({"recipe": {"name": "x"}} if damage == "recipe" else {"format": 99})
    metadata.write_text(json.dumps(content) if damage in ("recipe", "format") else damage)
    with pytest.raises(CohortError, match="Remedy") as caught:
        Store(tmp_path / "s.zarr")
    assert str(tmp_path / "s.zarr") in str(caught.value)


@pytest.mark.parametrize("key", list(Recipe.model_fields))
def test_a_missing_key_of_the_recipe_is_named_and_never_replaced_by_its_default(
    key: str, cases: list[Case], tmp_path: Path
) -> None:
    create(tmp_path / "s.zarr", cases)
    metadata = tmp_path / "s.zarr" / "zarr.json"
    content = json.loads(metadata.read_text())
    del content["attributes"]["recipe"][key]
    metadata.write_text(json.dumps(content))
    with pytest.raises(CohortError, match=rf"lacks recipe\.{key}\."):
        Store(tmp_path / "s.zarr")


@pytest.mark.parametrize("place", ["file", "file/s.zarr"])
def test_a_place_that_cannot_be_written_is_a_machine_error(place: str, cases: list[Case], tmp_path: Path) -> None:
    (tmp_path / "file").write_text("x")
    with pytest.raises(MachineError, match="Remedy") as caught:
        create(tmp_path / place, cases)
    assert str(tmp_path / place) in str(caught.value)


def test_too_few_complete_cases_are_an_experiment_error(
    cases: list[Case], prepared: list[Prepared], tmp_path: Path
) -> None:
    store = create(tmp_path / "s.zarr", cases)
    store.write(2, prepared[2], HASH)
    assert store.require_cases() == [2]
    with pytest.raises(ExperimentError, match=r"1 complete case of 3.*Remedy"):
        store.require_cases(2)


def test_the_current_source_is_the_one_hashed(cases: list[Case], prepared: list[Prepared], tmp_path: Path) -> None:
    store = create(tmp_path / "s.zarr", cases)
    store.write(0, prepared[0], "ab" * 32)
    assert store.is_current(0, "ab" * 32)
    assert not store.is_current(0, "cd" * 32) and not store.is_current(0, "") and not store.is_current(1, "00" * 32)


def test_the_source_of_a_case_is_hashed_from_its_files(cases: list[Case], tmp_path: Path) -> None:
    alone = Case("alone", cases[0].image)
    for case, parts in ((alone, ("image",)), (cases[0], ("image", "mask", "label"))):
        store, _ = prepare_cohort([case], RECIPE, tmp_path / f"{case.id}.zarr")
        text = "\n".join(f"{part} {file_hash(getattr(case, part))}" for part in parts)
        assert store.is_current(0, hashlib.sha256(text.encode()).hexdigest())


def test_full_resolution_is_the_published_one() -> None:
    sides = {name: lattice_side(Recipe(name=name, resolution=None)) for name in ("ifl2021-hcp", "ifl2021-brats")}
    assert sides == {"ifl2021-hcp": 300, "ifl2021-brats": 240}
    assert lattice_side(Recipe(resolution=48)) == 48


def test_a_gzipped_scan_of_other_bytes_but_equal_voxels_gives_the_same_classes(
    cases: list[Case], prepared: list[Prepared], tmp_path: Path
) -> None:
    cases[0].image.write_bytes(gzip.compress(gzip.decompress(cases[0].image.read_bytes()), 9))
    assert_holds(prepare_cohort(cases, RECIPE, tmp_path / "s.zarr", labels=True)[0], 0, prepared[0])


@pytest.mark.slow
def test_a_case_whose_chunk_is_lost_is_undone_and_done_again(
    cases: list[Case], prepared: list[Prepared], tmp_path: Path
) -> None:
    path = tmp_path / "s.zarr"
    prepare_cohort(cases, RECIPE, path)
    shutil.rmtree(path / "classes" / "c" / "1")
    assert 1 not in Store(path).done
    store, outcomes = prepare_cohort(cases, RECIPE, path)
    assert [outcome.value for outcome in outcomes].count(True) == 1
    assert np.array_equal(store.classes(1), prepared[1].classes) and 1 in store.done


@pytest.mark.slow
def test_a_store_without_one_of_its_arrays_is_named_damaged(cases: list[Case], tmp_path: Path) -> None:
    prepare_cohort(cases, RECIPE, tmp_path / "s.zarr")
    shutil.rmtree(tmp_path / "s.zarr" / "brain")
    with pytest.raises(CohortError, match=r"brain.*--force"):
        Store(tmp_path / "s.zarr")


@pytest.mark.slow
def test_the_store_does_not_depend_on_the_number_of_workers(cases: list[Case], tmp_path: Path) -> None:
    one, _ = prepare_cohort(cases, RECIPE, tmp_path / "one.zarr")
    two, outcomes = prepare_cohort(cases, RECIPE, tmp_path / "two.zarr", spread=Spread(2))
    assert all(outcome.failure is None for outcome in outcomes)
    for row in one.done:
        assert np.array_equal(one.classes(row), two.classes(row)) and np.array_equal(one.brain(row), two.brain(row))
    assert one.done == two.done and one.recipe == two.recipe


KILLED_RUN = """
import os, pickle, signal, sys
from anofield.data import store

def write(self, index, prepared, source_hash, whole=store.Store.write):
    if index == 1:  # the kill comes in the middle of the second case
        self._group["classes"][index] = prepared.classes
        os.kill(os.getpid(), signal.SIGKILL)
    whole(self, index, prepared, source_hash)

store.Store.write = write
store.prepare_cohort(*pickle.load(sys.stdin.buffer))
"""


@pytest.mark.kill
def test_a_run_that_is_killed_goes_on_where_it_was(cases: list[Case], tmp_path: Path) -> None:
    path = tmp_path / "s.zarr"
    job = pickle.dumps((cases, RECIPE, str(path)))
    ended = subprocess.run([sys.executable, "-c", KILLED_RUN], input=job, check=False)
    assert ended.returncode == -signal.SIGKILL and Store(path).done == [0]
    store, outcomes = prepare_cohort(cases, RECIPE, path)
    assert [outcome.value for outcome in outcomes] == [False, True, True]
    fresh, _ = prepare_cohort(cases, RECIPE, tmp_path / "fresh.zarr")
    for row in fresh.done:
        assert np.array_equal(store.classes(row), fresh.classes(row))
