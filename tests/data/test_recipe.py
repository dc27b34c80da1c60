"""A field of one published data set on scans of the other: what may change, what must not, what thresholds hold for."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from nibabel.affines import from_matvec

from anofield.data import published
from anofield.data.classes import PAPER_CENTERS
from anofield.data.published import NativeGrid
from anofield.data.recipe import (
    FIELD_VALUES,
    RECIPE_FILE,
    Recipe,
    read_recipe,
    recipe_for,
    recipe_in_place,
    write_recipe,
)
from anofield.errors import ExperimentError, UsageError
from anofield.field.experiment import Experiment
from anofield.field.step import start_run
from anofield.field.train import checkpoint_of
from anofield.phantom import layouts
from anofield.phantom.cohort import Cohort, plan_cohort, write_cohort
from helpers import tiny_specs
from images import load_image

Run = Callable[..., Any]
OWN = recipe_for("ifl2021-hcp", 24, 2)
OTHER = OWN.model_copy(update={"name": "ifl2021-brats"})
BOX = recipe_for("box", 24)
SHAPE = (48, 48, 31)  # the grid of BraTS with voxels five times as wide


@pytest.fixture(autouse=True)
def coarse(monkeypatch: pytest.MonkeyPatch) -> None:
    """The published steps of BraTS on that grid."""
    affine = from_matvec(np.diag((-5.0, -5.0, 5.0)), (-2.0, 237.0, 2.0))
    grid = NativeGrid(scans="BraTS'18", shape=SHAPE, affine=affine, pad=((8, 9), (0, 0), (0, 0)))
    monkeypatch.setitem(published.GRIDS, "ifl2021-brats", grid)
    monkeypatch.setitem(layouts._NATIVE, "brats", layouts.Grid(SHAPE, affine))


@pytest.fixture
def world(tmp_path: Path) -> Path:
    """A field of random weights that says it is of HCP; two healthy people and a patient in the grid of BraTS."""
    write_cohort(tmp_path / "healthy", Cohort("brats"), plan_cohort(2, 0))
    write_cohort(tmp_path / "glioma", Cohort("brats"), plan_cohort(0, 1, first=5))
    network = tiny_specs().network_specs.model_copy(update={"dim_out": len(PAPER_CENTERS)})
    specs = tiny_specs(NetworkSpecs=network.model_dump())
    experiment = Experiment.create(tmp_path / "experiment", specs)
    experiment.save(checkpoint_of(start_run(specs, ["a", "b", "c"], torch.device("cpu"))), ["latest"])
    write_recipe(experiment.path, OWN)
    return tmp_path


def changed(name: str) -> Any:
    other = {"resolution": 32, "box_mm": 180.0, "normalise": "robust", "mode_pool": 3, "lattice": "center"}
    return {**other, "centers": PAPER_CENTERS[1:]}[name]


class TestWhatMayChange:
    def test_a_name_keeps_every_other_value(self) -> None:
        assert recipe_in_place(OWN, "ifl2021-brats") == OTHER
        assert recipe_in_place(OWN, OWN.name) == OWN and recipe_in_place(BOX, "box") == BOX

    def test_a_file_may_name_another_data_set(self, tmp_path: Path) -> None:
        path = tmp_path / "recipe.json"
        path.write_text(OTHER.model_copy(update={"label_resampling": "published"}).model_dump_json())
        assert recipe_in_place(OWN, str(path)).name == "ifl2021-brats"

    @pytest.mark.parametrize("name", FIELD_VALUES)
    def test_what_the_field_has_learned_by_must_not(self, name: str, tmp_path: Path) -> None:
        path = tmp_path / "recipe.json"
        path.write_text(OTHER.model_copy(update={name: changed(name)}).model_dump_json())
        with pytest.raises(UsageError, match=f"does not fit the field: {name} is .*, in training ") as caught:
            recipe_in_place(OWN, str(path))
        assert caught.value.remedy

    def test_every_value_of_a_recipe_is_fixed_or_known_to_be_free(self) -> None:
        assert {*FIELD_VALUES, "name", "label_resampling"} == set(Recipe.model_fields)

    @pytest.mark.parametrize(("own", "given"), [(OWN, "box"), (BOX, "ifl2021-brats")])
    def test_the_box_and_a_published_recipe_differ_in_class_0(self, own: Recipe, given: str) -> None:
        with pytest.raises(UsageError, match="class 0"):
            recipe_in_place(own, given)

    @pytest.mark.parametrize(("content", "words"), [
        (None, "neither the name of a recipe nor a recipe file"), ("{", "cannot be read as JSON"),
        ('{"name": "boxes"}', "'name': "),
        ('{"name": "ifl2021-brats"}',
         "lacks resolution, box_mm, normalise, centers, mode_pool, lattice, label_resampling"),
    ])  # fmt: skip
    def test_what_is_no_recipe_is_named(self, content: str | None, words: str, tmp_path: Path) -> None:
        path = tmp_path / "recipe.json"
        if content is not None:
            path.write_text(content)
        with pytest.raises(UsageError, match=words) as caught:
            recipe_in_place(OWN, str(path))
        assert "ifl2021-brats" in caught.value.remedy and caught.value.where == str(path)


class TestStored:
    """The recipe of an experiment: whole, or refused."""

    @pytest.mark.parametrize("key", list(Recipe.model_fields))
    def test_a_missing_key_is_named_and_never_replaced_by_its_default(self, key: str, tmp_path: Path) -> None:
        (tmp_path / RECIPE_FILE).write_text(BOX.model_dump_json(exclude={key}))
        with pytest.raises(ExperimentError, match=f"{RECIPE_FILE}: lacks {key}\\.") as caught:
            read_recipe(tmp_path)
        assert caught.value.exit_code == 5 and caught.value.remedy

    def test_an_empty_one_lacks_all(self, tmp_path: Path) -> None:
        (tmp_path / RECIPE_FILE).write_text("{}")
        with pytest.raises(ExperimentError, match=r"lacks name, resolution, .*lattice, label_resampling"):
            read_recipe(tmp_path)


class TestDetection:
    def words(self, world: Path, experiment: Path, run: str) -> tuple[object, ...]:
        return ("detect", "-i", world / "glioma", "-m", experiment, "-o", world / run, "-d", "cpu", "--also", "none")

    def test_is_that_of_an_experiment_with_the_other_recipe(self, world: Path, anofield: Run) -> None:
        own, copy = world / "experiment", world / "copy"
        assert anofield(*self.words(world, own, "refused")).code == 4  # the padding of HCP does not fit
        shutil.copytree(own, copy)
        (copy / RECIPE_FILE).write_text(OTHER.model_dump_json())
        assert anofield(*self.words(world, copy, "before")).code == 0
        assert anofield(*self.words(world, own, "now"), "--recipe", "ifl2021-brats").code == 0
        before, now = (load_image(next((world / run).glob("*/anomaly.nii.gz"))) for run in ("before", "now"))
        assert np.array_equal(np.asanyarray(before.dataobj), np.asanyarray(now.dataobj))
        assert json.loads((world / "now/run.json").read_text())["recipe"]["name"] == "ifl2021-brats"
        assert json.loads((own / RECIPE_FILE).read_text())["name"] == "ifl2021-hcp"

    def test_takes_thresholds_of_the_same_recipe_only(self, world: Path, anofield: Run) -> None:
        own = world / "experiment"
        calibrate = ("calibrate", "-i", world / "healthy", "-m", own, "-d", "cpu", "--recipe", "ifl2021-brats")
        assert anofield(*calibrate).code == 0
        ended = anofield(*self.words(world, own, "run"))
        assert ended.code == 2 and "recipe was ifl2021-brats, is ifl2021-hcp" in ended.err
        assert anofield(*self.words(world, own, "run"), "--recipe", "ifl2021-brats").code == 0
        assert json.loads(next((world / "run").glob("*/case.json")).read_text())["threshold"] is not None
