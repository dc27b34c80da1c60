"""The store: what is written is read, what is done stays done, what is killed or changed is done again."""

from __future__ import annotations

import errno
import gzip
import hashlib
import json
import os
import pickle
import random
import shutil
import sys
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import numcodecs
import numpy as np
import pytest
import torch
import zarr
from torch.utils.data import DataLoader, Subset

from anofield._files import file_hash
from anofield.data.building import building
from anofield.data.cohort.case import Case
from anofield.data.lattice import Lattice
from anofield.data.layout import ARRAYS, StoreInfo
from anofield.data.parallel import Spread, failures_of
from anofield.data.prepare import Place, prepare_case
from anofield.data.prepared import Prepared
from anofield.data.published import lattice_side
from anofield.data.recipe import Recipe
from anofield.data.scan import read_scan
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
    cases: list[Case], prepared: list[Prepared], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    store = create(tmp_path / "s.zarr", cases)
    store.write(2, prepared[2], HASH)
    assert store.require_cases() == [2] == store.require_cases()
    assert capsys.readouterr().err.count("2 cases of 3 not complete, left out: case-0, case-1.") == 1
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


def tree(folder: Path) -> dict[str, bytes]:
    """Every file below a folder, hidden ones too."""
    return {str(path.relative_to(folder)): path.read_bytes() for path in sorted(folder.rglob("*")) if path.is_file()}


def everything(path: Path) -> dict[str, Any]:
    """All that a reader gets from a store."""
    store = Store(path)
    rows = [[getattr(store, name)(row).tobytes() for name in ("classes", "brain", "label")] for row in store.done]
    geometry = [[store._read(name, row).tobytes() for name in store._arrays] for row in store.done]
    return {"info": store.info, "contents": store.contents, "hash": store.content_hash(), "rows": rows, "all": geometry}


def files_of(path: Path) -> list[Path]:
    return sorted(file for file in path.rglob("*") if file.is_file())


class TestDamage:
    @pytest.fixture
    def path(self, cases: list[Case], tmp_path: Path) -> Path:
        prepare_cohort(cases, RECIPE, tmp_path / "s.zarr", labels=True)
        return tmp_path / "s.zarr"

    def test_every_chunk_has_the_checksum_that_zarr_knows(self, path: Path, prepared: list[Prepared]) -> None:
        group: Any = zarr.open_group(str(path), mode="r", zarr_format=3)
        assert sorted(name for name, _ in group.arrays()) == sorted(ARRAYS)
        for name, array in group.arrays():
            assert type(array.metadata.codecs[-1]).__name__ == "Crc32cCodec", name
            for row in range(3):
                np.testing.assert_array_equal(array[row], Store(path)._read(name, row))
        assert group["content_hash"][1].tobytes().hex() == prepared[1].content

    @pytest.mark.slow
    def test_a_flipped_bit_is_refused_or_changes_nothing(self, path: Path) -> None:
        truth, chance = everything(path), random.Random(1)
        refused = 0
        for _ in range(300):
            file = chance.choice(files_of(path))
            whole = file.read_bytes()
            damaged = bytearray(whole)
            damaged[chance.randrange(len(whole))] ^= 1 << chance.randrange(8)
            file.write_bytes(damaged)
            try:
                assert everything(path) == truth, file
            except (CohortError, ExperimentError) as error:
                assert str(path) in str(error) and "Remedy: " in str(error)
                refused += 1
            file.write_bytes(whole)
            os.utime(path / "zarr.json")
        assert refused > 250

    @pytest.mark.parametrize("damage", ["deleted", "flipped", "empty", "folder"])
    @pytest.mark.parametrize("name", ARRAYS)
    def test_a_case_without_one_of_its_chunks_is_never_read_and_is_the_one_that_is_made_again(
        self, damage: str, name: str, path: Path, cases: list[Case]
    ) -> None:
        before = tree(path)
        file = path / StoreInfo.of(cases, RECIPE, labels=True, side=12).arrays[name].chunk(1)
        content = file.read_bytes()
        file.unlink()
        if damage == "folder":
            file.mkdir()
        elif damage != "deleted":
            file.write_bytes(b"" if damage == "empty" else bytes([content[0] ^ 1]) + content[1:])
        with pytest.raises((CohortError, ExperimentError), match=r"case-1|not complete"):
            Store(path)._read(name, 1)
        if damage in ("deleted", "folder"):
            assert Store(path).done == [0, 2] and Store(path).contents[1] == ""
            with pytest.raises(ExperimentError, match="case-1 is not complete"):
                Store(path)[1]
        _, outcomes = prepare_cohort(cases, RECIPE, path, labels=True)
        assert written(outcomes) == [False, True, False] and tree(path) == before

    def test_a_chunk_that_cannot_be_read_is_named(self, path: Path) -> None:
        shutil.rmtree(path / "brain" / "c" / "1")
        (path / "brain" / "c" / "1").write_text("a file where a folder is expected")
        with pytest.raises(CohortError, match=r"the brain of case case-1 cannot be read.*Remedy"):
            Store(path).brain(1)

    def test_a_store_that_was_opened_for_reading_is_not_written(self, path: Path) -> None:
        with pytest.raises(UsageError, match="opened for reading"):
            Store(path).forget(1)

    def test_a_volume_of_zeros_is_not_a_lost_one(self, cases: list[Case], prepared: list[Prepared], path: Path) -> None:
        store = create(path, cases)
        store.write(0, replace(prepared[0], label=None, classes=np.zeros_like(prepared[0].classes)), HASH)
        assert 0 in store.done and not store.classes(0).any()
        label = store.label(0)
        assert label is not None and not label.any()
        (path / store._arrays["label"].chunk(0)).unlink()
        with pytest.raises(ExperimentError, match="lacks the label of case case-0"):
            store.label(0)

    def test_what_is_replaced_while_it_is_read_is_not_mixed(self, path: Path, cases: list[Case]) -> None:
        store = Store(path)
        store.classes(0)
        prepare_cohort(cases, RECIPE, path, labels=True, force=True)
        with pytest.raises(ExperimentError, match="was replaced while it was read"):
            store.classes(1)

    def test_a_chunk_that_unpacks_to_more_than_a_case_is_damaged(self, path: Path) -> None:
        bomb = Store(path)._arrays["classes"]
        larger = replace(bomb, shape=(512, 512, 128))
        chunk = larger.encode(np.zeros(larger.shape, np.uint8))
        assert len(chunk) < 4096
        (path / bomb.chunk(0)).write_bytes(chunk)
        with pytest.raises(CohortError, match="classes of case case-0 is damaged"):
            Store(path).classes(0)


class Payload:
    """Runs when it is unpickled."""

    def __init__(self, proof: Path) -> None:
        self.proof = proof

    def __reduce__(self) -> tuple[Any, ...]:
        return Path.touch, (self.proof,)


class TestHostile:
    def test_a_store_of_zarr_2_is_refused_and_its_pickles_are_not_run(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(numcodecs.pickles, "ALLOW_UNSAFE_PICKLE_DECODE", True)
        path, proof = tmp_path / "s.zarr", tmp_path / "proof"
        group: Any = zarr.create_group(str(path), zarr_format=2, attributes={"format": 2})
        for name in ARRAYS:
            group.create_array(name, shape=(1, 4), chunks=(1, 4), dtype="u1", compressors=None)
            metadata = json.loads((path / name / ".zarray").read_text())
            hostile = {
                "dtype": "|O",
                "fill_value": "",
                "filters": [{"id": "vlen-utf8"}],
                "compressor": {"id": "pickle"},
            }
            (path / name / ".zarray").write_text(json.dumps({**metadata, **hostile}))
            (path / name / "0.0").write_bytes(pickle.dumps(Payload(proof)))
        with pytest.raises(CohortError, match=r"Zarr 2.*Remedy"):
            Store(path)
        assert not proof.exists()
        general: Any = zarr.open_group(str(path), mode="r")
        with pytest.raises(TypeError):  # what the payload returns is no array
            general["done"][:]
        assert proof.exists()

    @pytest.mark.parametrize(
        "change",
        [
            {"shape": [10**6, 10**5, 10**5, 10**5]},
            {"chunk_grid": {"name": "regular", "configuration": {"chunk_shape": [1, 10**5, 10**5, 10**5]}}},
            {"codecs": [{"name": "numcodecs.pickle", "configuration": {}}]},
            {"data_type": "object"},
            {"fill_value": 1},
            {"storage_transformers": [{"name": "x"}]},
        ],
    )
    def test_other_metadata_of_an_array_are_refused(
        self, change: dict[str, Any], cases: list[Case], tmp_path: Path
    ) -> None:
        create(tmp_path / "s.zarr", cases)
        metadata = tmp_path / "s.zarr" / "classes" / "zarr.json"
        metadata.write_text(json.dumps({**json.loads(metadata.read_text()), **change}))
        with pytest.raises(CohortError, match=r"other metadata than this package writes.*Remedy"):
            Store(tmp_path / "s.zarr")

    @pytest.mark.parametrize("change", [{"side": 10**9}, {"side": -1}, {"subjects": []}, {"cases": {}}])
    def test_absurd_attributes_are_refused_even_with_their_checksum(
        self, change: dict[str, Any], cases: list[Case], tmp_path: Path
    ) -> None:
        create(tmp_path / "s.zarr", cases)
        metadata = tmp_path / "s.zarr" / "zarr.json"
        content = json.loads(metadata.read_text())
        del content["attributes"]["checksum"]
        content["attributes"].update(change)
        text = json.dumps(content["attributes"], sort_keys=True, separators=(",", ":"))
        content["attributes"]["checksum"] = hashlib.sha256(text.encode()).hexdigest()
        metadata.write_text(json.dumps(content))
        with pytest.raises(CohortError, match="Remedy"):
            Store(tmp_path / "s.zarr")

    @pytest.mark.parametrize("name", ["zarr.json", "brain/zarr.json"])
    @pytest.mark.parametrize(
        "text", ["[" * 100_000, '{"a":' * 100_000, "", "\0", "[]", "null", '"x"', "NaN", "\ud800", " " * (17 * 2**20)]
    )
    def test_malformed_metadata_are_a_named_error(
        self, name: str, text: str, cases: list[Case], tmp_path: Path
    ) -> None:
        create(tmp_path / "s.zarr", cases)
        (tmp_path / "s.zarr" / name).write_bytes(text.encode(errors="surrogatepass"))
        with pytest.raises(CohortError, match="Remedy") as caught:
            Store(tmp_path / "s.zarr")
        assert str(tmp_path / "s.zarr") in str(caught.value)

    def test_nothing_is_fetched_from_elsewhere(self) -> None:
        for place in ("http://localhost:1/s.zarr", "s3://bucket/s.zarr", "memory://s.zarr"):
            with pytest.raises(CohortError, match="Remedy"):
                Store(place)


class TestLinks:
    @pytest.fixture
    def path(self, cases: list[Case], tmp_path: Path) -> Path:
        prepare_cohort(cases, RECIPE, tmp_path / "disk" / "s.zarr", labels=True)
        return tmp_path / "disk" / "s.zarr"

    def test_a_store_behind_a_link_is_read_resumed_and_replaced(
        self, path: Path, cases: list[Case], tmp_path: Path
    ) -> None:
        link = tmp_path / "link.zarr"
        link.symlink_to(path)
        assert everything(link) == everything(path)
        shutil.rmtree(path / "classes" / "c" / "1")
        assert written(prepare_cohort(cases, RECIPE, link, labels=True)[1]) == [False, True, False]
        prepare_cohort(cases[:2], RECIPE, link, force=True)
        assert link.is_symlink() and Store(path).ids == ["case-0", "case-1"]

    def test_a_link_to_nothing_is_said_and_can_be_filled(self, path: Path, cases: list[Case], tmp_path: Path) -> None:
        link = tmp_path / "link.zarr"
        link.symlink_to(tmp_path / "new" / "s.zarr")
        with pytest.raises(CohortError, match=r"a link to .*s\.zarr, which is missing"):
            Store(link)
        prepare_cohort(cases, RECIPE, link, labels=True)
        assert link.is_symlink() and tree(tmp_path / "new" / "s.zarr") == tree(path)

    def test_links_inside_are_followed_and_links_out_of_it_are_refused(self, path: Path, tmp_path: Path) -> None:
        truth = everything(path)
        (path / "brain" / "c").rename(path / "brain" / "elsewhere")
        (path / "brain" / "c").symlink_to("elsewhere")
        path = path.rename(tmp_path / "moved.zarr")
        assert everything(path) == truth
        for name in ("classes", "label/c", "done/c/1"):
            outside = (path / name).rename(tmp_path / "outside")
            (path / name).symlink_to(outside)
            with pytest.raises(CohortError, match=rf"leads out of the store, to {outside}.*Remedy"):
                everything(path)
            (path / name).unlink()
            outside.rename(path / name)

    def test_nothing_is_written_through_a_link_out_of_the_store(
        self, path: Path, cases: list[Case], tmp_path: Path
    ) -> None:
        victim = tmp_path / "victim"
        (victim / "1").mkdir(parents=True)
        (victim / "1" / "precious").write_text("x")
        shutil.rmtree(path / "brain" / "c")
        (path / "brain" / "c").symlink_to(victim)
        _, outcomes = prepare_cohort(cases, RECIPE, path, labels=True)
        assert all(outcome.failure and "leads out of the store" in outcome.failure.error for outcome in outcomes)
        assert (victim / "1" / "precious").read_text() == "x" and len(list(victim.iterdir())) == 1


class TestForce:
    def test_the_old_store_is_there_until_the_new_one_is_complete(
        self, cases: list[Case], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        path = tmp_path / "s.zarr"
        prepare_cohort(cases, RECIPE, path, labels=True)
        before, seen = everything(path), []

        def watched(case: Case, recipe: Recipe, place: Place | None) -> Prepared:
            seen.append(everything(path) == before)
            return prepare_case(case, recipe, place)

        monkeypatch.setattr("anofield.data.store.prepare_case", watched)
        other = RECIPE.model_copy(update={"box_mm": 190.0})
        store, _ = prepare_cohort(cases, other, path, force=True)
        assert seen == [True] * 3 and store.recipe == other and store.done == [0, 1, 2]
        assert sorted(entry.name for entry in tmp_path.iterdir()) == ["labels", "masks", "s.zarr", "scans"]

    @pytest.mark.parametrize("foreign", ["group", "notes.txt", "classes/c/mine", "data/c/0", "file"])
    def test_what_this_package_did_not_make_is_refused_by_name(
        self, foreign: str, cases: list[Case], tmp_path: Path
    ) -> None:
        path = tmp_path / "s.zarr"
        if foreign == "group":
            zarr.create_group(str(path), attributes={"format": 2, "recipe": {}, "cases": []})
        elif foreign == "file":
            path.write_text("x")
        else:
            create(path, cases)
            (path / foreign).parent.mkdir(parents=True, exist_ok=True)
            (path / foreign).write_text("x")
        before = tree(tmp_path)
        with pytest.raises((CohortError, MachineError), match="Remedy") as caught:
            prepare_cohort(cases, RECIPE, path, force=True)
        name = foreign if "/c/" in foreign or foreign == "notes.txt" else ""
        assert str(path) in str(caught.value) and name.split("/c/0")[0] in str(caught.value)
        assert tree(tmp_path) == before

    def test_a_damaged_store_can_be_replaced(self, cases: list[Case], tmp_path: Path) -> None:
        path = tmp_path / "s.zarr"
        prepare_cohort(cases, RECIPE, path)
        before = tree(path)
        (path / "zarr.json").write_text((path / "zarr.json").read_text()[:-20])
        (path / "brain" / "zarr.json").unlink()
        with pytest.raises(CohortError, match="Remedy"):
            prepare_cohort(cases, RECIPE, path)
        prepare_cohort(cases, RECIPE, path, force=True)
        assert tree(path) == before

    def test_the_old_store_is_kept_if_no_case_can_be_prepared(self, cases: list[Case], tmp_path: Path) -> None:
        path = tmp_path / "s.zarr"
        prepare_cohort(cases, RECIPE, path)
        before = tree(path)
        scans = [case.image.read_bytes() for case in cases]
        for case in cases:
            case.image.write_bytes(b"nothing")
        with pytest.raises(CohortError, match=r"none of 3 cases.*he existing store was kept\. Remedy"):
            prepare_cohort(cases, RECIPE, path, labels=True, force=True)
        assert tree(path) == before
        for case, scan in zip(cases, scans, strict=True):
            case.image.write_bytes(scan)
        store, _ = prepare_cohort(cases, RECIPE, path, labels=True, force=True)
        assert store.done == [0, 1, 2] and store.info.labels


class TestLeftovers:
    """What killed processes leave beside a store and in it."""

    @pytest.fixture
    def path(self, cases: list[Case], tmp_path: Path) -> Path:
        prepare_cohort(cases, RECIPE, tmp_path / "out" / "s.zarr", labels=True)
        return tmp_path / "out" / "s.zarr"

    def test_a_store_that_was_moved_away_for_another_comes_back(self, path: Path, cases: list[Case]) -> None:
        before = tree(path.parent)
        work = path.with_name(".partial-s.zarr")
        work.mkdir()
        path.rename(work / "old")
        (work / "removed" / "classes").mkdir(parents=True)
        create(work / "new", cases[:1])
        _, outcomes = prepare_cohort(cases, RECIPE, path, labels=True)
        assert written(outcomes) == [False] * 3 and tree(path.parent) == before

    @pytest.mark.parametrize("more", [0, 1])
    def test_a_replacement_is_resumed_if_it_is_the_same_and_else_begun_again(
        self, more: int, path: Path, cases: list[Case], prepared: list[Prepared]
    ) -> None:
        half = create(path.with_name(".partial-s.zarr") / "new", cases[: 1 + more], labels=False)
        digests = [bytes(Store(path)._read("source_hash", row)).hex() for row in range(2)]
        half.write(0, prepared[0], digests[0])
        store, outcomes = prepare_cohort(cases[:2], RECIPE, path, force=True)
        assert written(outcomes) == [not more, True] and store.ids == ["case-0", "case-1"]
        assert [entry.name for entry in path.parent.iterdir()] == ["s.zarr"]

    def test_unfinished_files_and_folders_are_removed(self, path: Path, cases: list[Case]) -> None:
        before = tree(path.parent)
        for name in ("done/c/.partial-0123abcd-1", "classes/c/1/0/0/.partial-0123abcd-0"):
            (path / name).write_text("x")
        (path / "done" / "c" / "1").unlink()
        (path.with_name(".partial-0123abcd-s.zarr") / "classes").mkdir(parents=True)
        (path.with_name(".partial-0123abcd-t.zarr") / "classes").mkdir(parents=True)  # of another store
        prepare_cohort(cases, RECIPE, path, labels=True)
        assert tree(path.parent) == before
        assert sorted(entry.name for entry in path.parent.iterdir()) == [".partial-0123abcd-t.zarr", "s.zarr"]


def test_a_second_prepare_is_refused_before_and_after_the_store_exists(
    cases: list[Case], tmp_path: Path, anofield: Callable[..., Any]
) -> None:
    path = tmp_path / "s.zarr"
    words = ("prepare", "-i", tmp_path / "scans", "--dataset", "folder", "-o", path, "--res", 12, "--centers", "paper")
    assert anofield(*words, "--json").code == 0
    for there in (True, False):
        if not there:
            shutil.rmtree(path)
        with building(path, force=False, resumable=lambda folder: False):
            for more in ((), ("--force",)):
                ended = anofield(*words, *more)
                assert ended.code == 2 and "is preparing s.zarr here" in ended.err and "Remedy" in ended.err
        assert path.exists() == there
    assert anofield(*words).code == 0


def test_a_scan_under_two_ids_is_named(cases: list[Case], tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    copy = Path(shutil.copy(cases[0].image, tmp_path / "copy.nii.gz"))
    store, _ = prepare_cohort([*cases, Case("copy", copy)], RECIPE, tmp_path / "s.zarr")
    assert "the same scan under several ids" in (said := capsys.readouterr().err) and "case-0 = copy" in said
    assert store.contents[0] == store.contents[3] == read_scan(copy).content_hash
    assert len(set(store.contents)) == 3
    prepare_cohort(cases, RECIPE, tmp_path / "t.zarr")
    assert "several ids" not in capsys.readouterr().err


@pytest.mark.parametrize("free", [0, 1, 7, 20])
def test_a_full_disk_ends_with_6_and_the_same_command_completes_the_store(
    free: int, cases: list[Case], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, anofield: Callable[..., Any]
) -> None:
    words = ("prepare", "-i", tmp_path / "scans", "--dataset", "folder", "--res", 12, "--centers", "paper", "-o")
    assert anofield(*words, tmp_path / "whole.zarr").code == 0
    whole, left = Path.write_bytes, free

    def full(path: Path, content: Any) -> int:
        nonlocal left
        left -= 1
        if left < 0:
            whole(path, content[:1])
            raise OSError(errno.ENOSPC, "No space left on device")
        return whole(path, content)

    with monkeypatch.context() as patch:
        patch.setattr(Path, "write_bytes", full)
        ended = anofield(*words, tmp_path / "s.zarr")
    assert ended.code == 6 and "No space left" in ended.err and "Remedy" in ended.err
    assert anofield(*words, tmp_path / "s.zarr").code == 0
    assert tree(tmp_path / "s.zarr") == tree(tmp_path / "whole.zarr")


@pytest.mark.parametrize("bad", [1, 3])
def test_a_run_in_which_cases_fail_can_be_resumed(bad: int, cases: list[Case], tmp_path: Path) -> None:
    path = tmp_path / "s.zarr"
    prepare_cohort(cases, RECIPE, tmp_path / "whole.zarr")
    scans = {case.image: case.image.read_bytes() for case in cases[:bad]}
    for image in scans:
        image.write_bytes(b"nothing")
    store, outcomes = prepare_cohort(cases, RECIPE, path)
    assert len(store.done) == 3 - bad and len(failures_of(outcomes)) == bad
    for image, content in scans.items():
        image.write_bytes(content)
    prepare_cohort(cases, RECIPE, path)
    assert tree(path) == tree(tmp_path / "whole.zarr")


WRITES = {"os.mkdir", "os.rename", "os.remove", "os.rmdir", "os.link", "os.symlink", "os.truncate"}


def killed(number: int, work: Callable[[], object]) -> bool:
    """Whether a process that does the work gets as far as its n-th write, just before which it is killed."""
    child = os.fork()
    if not child:
        left = number

        def hook(event: str, arguments: tuple[Any, ...]) -> None:
            nonlocal left
            if event in WRITES or (event == "open" and isinstance(arguments[2], int) and arguments[2] & 3):
                left -= 1
                if not left:
                    os._exit(137)

        sys.addaudithook(hook)
        try:
            work()
        finally:
            os._exit(0)
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 137


KILLS = range(1, 1000, 37)  # numbers of events; `make hostile` kills at all of them


@pytest.mark.parametrize("force", [False, True])
def test_a_prepare_that_is_killed_at_any_write_ends_as_if_it_had_not_been(
    force: bool, cases: list[Case], tmp_path: Path
) -> None:
    path, fresh = tmp_path / "out" / "s.zarr", tmp_path / "fresh"
    some = [Case(case.id, case.image) for case in cases[:2]]
    prepare_cohort(some, RECIPE, fresh / "s.zarr")
    old = tmp_path / "old.zarr"
    prepare_cohort(some, RECIPE.model_copy(update={"box_mm": 190.0}), old)
    for number in KILLS:
        shutil.rmtree(path.parent, ignore_errors=True)
        if force:
            shutil.copytree(old, path)
        done = not killed(number, partial(prepare_cohort, some, RECIPE, path, force=force))
        if force and path.exists():  # between two renames it is not
            assert everything_but_labels(path) in (everything_but_labels(old), everything_but_labels(fresh / "s.zarr"))
        prepare_cohort(some, RECIPE, path, force=force)
        assert tree(path.parent) == tree(fresh), number
        if done:
            return
    pytest.fail("it was killed at every write")


def everything_but_labels(path: Path) -> list[Any]:
    store = Store(path)
    return [store.info, store.contents, [store.classes(row).tobytes() for row in range(len(store))]]
