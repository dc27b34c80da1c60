"""Baselines on posed stores: the pose is found by a field, recorded, and found again for every new scan."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
from nibabel.eulerangles import euler2mat

from anofield.baselines.run import (
    TrainedBaseline,
    baseline_options,
    load_baseline,
    make_settings,
    train_baseline,
)
from anofield.data.brain import as_stripped
from anofield.data.cohort.case import Case
from anofield.data.store import Store, prepare_cohort
from anofield.detect.calibrate import calibrate
from anofield.detect.detection import examine
from anofield.detect.identity import identity_of
from anofield.detect.options import FitOptions
from anofield.detect.placer import posing
from anofield.errors import ExperimentError, UsageError
from anofield.field.experiment import Experiment
from anofield.field.train import train
from conftest import Ended
from helpers import World, facts_of, found_in, small_world
from images import load_image

OPTIONS = baseline_options("zscore")
FIT = FitOptions(pose="affine", iterations=40, points=1024)


@pytest.fixture(scope="session")
def world(tmp_path_factory: pytest.TempPathFactory) -> World:
    return small_world(tmp_path_factory.getbasetemp() / "world")


@pytest.fixture(scope="module")
def field(world: World, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A copy of the experiment, so that poses are not kept in the shared one."""
    return shutil.copytree(world.experiment, tmp_path_factory.mktemp("posed") / "field")


@pytest.fixture(scope="module")
def posed(world: World, field: Path) -> Store:
    recipe = world.model.recipe
    return prepare_cohort(
        world.training, recipe, field.parent / "posed.zarr", place=posing(field, device="cpu", fit=FIT)
    )[0]


@pytest.fixture(scope="module")
def atlas(posed: Store, field: Path) -> TrainedBaseline:
    return train_baseline("zscore", posed, field.parent / "atlas", make_settings("zscore", {}), device="cpu")


def turned(case: Case, folder: Path, angle: float = 0.15) -> Case:
    """The same head, turned in its header alone."""
    image, turn = load_image(case.image), np.eye(4)
    turn[:3, :3] = euler2mat(0.0, angle, 0.0)
    path = folder / f"{case.id}-turned.nii.gz"
    nib.Nifti1Image(image.get_fdata(dtype=np.float32), turn @ image.affine).to_filename(path)
    return Case(f"{case.id}-turned", path)


def test_store_and_baseline_say_what_posed_them(posed: Store, atlas: TrainedBaseline, field: Path) -> None:
    assert posed.pose is not None and posed.pose.experiment == str(field)
    assert posed.summary()["pose"]["hash"] == posed.pose.hash == facts_of(atlas.path / "baseline.json")["pose"]["hash"]
    assert len(list((field / "poses").glob("*.json"))) >= len(posed)


def test_posed_stores_lie_closer_together_than_unposed(world: World, posed: Store, tmp_path: Path) -> None:
    plain = prepare_cohort(world.training, posed.recipe, tmp_path / "plain.zarr")[0]
    brains = [np.stack([one.brain(i) > 0 for i in one.done]).mean(axis=0) for one in (posed, plain)]
    unsure = [float((share * (1 - share)).sum()) for share in brains]
    assert unsure[0] < unsure[1]


def test_a_turned_scan_is_posed_before_it_is_scored(world: World, atlas: TrainedBaseline, tmp_path: Path) -> None:
    straight = world.healthy[0]
    both = [examine(as_stripped(case.image), atlas, OPTIONS) for case in (straight, turned(straight, tmp_path))]
    plain = [one.prepared.brain for one in both]
    overlap = 2 * (plain[0] & plain[1]).sum() / (plain[0].sum() + plain[1].sum())
    assert overlap > 0.96
    lean = both[1].prepared.lattice.affine[:3, :3] / both[1].prepared.lattice.spacing
    assert abs(lean[0, 2]) > 0.05  # the lattice is oblique in the world, as the head is


def test_a_restoration_comes_back_to_the_scans_own_voxels(world: World, atlas: TrainedBaseline, tmp_path: Path) -> None:
    case = turned(world.healthy[0], tmp_path)
    found = found_in(case, atlas, OPTIONS)
    assert found.restoration is not None and found.restoration.data.shape == found.scan.data.shape
    pair = found.scan.data[found.brain], found.restoration.data[found.brain]
    assert np.corrcoef(*pair)[0, 1] > 0.6


def test_poses_count_in_the_identity(world: World, posed: Store, atlas: TrainedBaseline, tmp_path: Path) -> None:
    plain_store = prepare_cohort(world.training, posed.recipe, tmp_path / "plain.zarr")[0]
    plain = train_baseline("zscore", plain_store, tmp_path / "plain", make_settings("zscore", {}), device="cpu")
    assert plain.placer is None and plain.hash != atlas.hash
    assert plain_store.content_hash() != posed.content_hash()
    assert identity_of(plain, OPTIONS, None) != identity_of(atlas, OPTIONS, None)
    with pytest.raises(UsageError, match="another pose is already there"):
        train_baseline("zscore", plain_store, atlas.path, make_settings("zscore", {}), device="cpu")
    with pytest.raises(UsageError, match="with other poses is already there"):
        prepare_cohort(world.training, posed.recipe, posed.path)


def test_resumed_with_the_same_poses_nothing_is_made_again(world: World, posed: Store, field: Path) -> None:
    _, outcomes = prepare_cohort(world.training, posed.recipe, posed.path, place=posing(field, device="cpu", fit=FIT))
    assert [outcome.value for outcome in outcomes] == [False] * len(posed)


def test_training_scans_are_recognised_whatever_their_pose(world: World, atlas: TrainedBaseline) -> None:
    copies = [Case("somebody", world.training[0].image)]
    with pytest.raises(UsageError, match="training scans under other names"):
        calibrate(copies, atlas, OPTIONS)


def test_no_field_is_trained_on_posed_scans(posed: Store, field: Path, tmp_path: Path) -> None:
    experiment = Experiment.create(tmp_path / "e", Experiment(field).specs)
    with pytest.raises(UsageError, match="posed scans, on which no field is trained"):
        train(experiment, posed)


class TestExperiment:
    """The experiment that a baseline needs."""

    @pytest.fixture
    def moved(self, atlas: TrainedBaseline, field: Path) -> object:
        """The experiment is elsewhere during the test."""
        away = field.rename(field.with_name("away"))
        yield away
        if field.exists():
            shutil.rmtree(field)
        away.rename(field)

    def test_missing_is_named_with_a_remedy(self, atlas: TrainedBaseline, moved: Path) -> None:
        with pytest.raises(ExperimentError, match="prepare the store again with --pose"):
            load_baseline(atlas.path, device="cpu")

    def test_trained_again_is_refused(self, atlas: TrainedBaseline, moved: Path, field: Path, world: World) -> None:
        specs = Experiment(moved).specs.model_copy(update={"seed": 99})
        train(Experiment.create(field, specs), Store(world.root / "train.zarr"))
        with pytest.raises(ExperimentError, match="trained again since"):
            load_baseline(atlas.path, device="cpu")


def test_the_command_line_does_all_of_it(
    world: World, field: Path, anofield: Callable[..., Ended], tmp_path: Path
) -> None:
    data, model = tmp_path / "posed.zarr", tmp_path / "atlas"
    scans = [word for case in world.training[:3] for word in ("-i", case.image)]
    made = anofield("prepare", *scans, "--res", 24, "--centers", "paper", "--normalise", "tissue", "-o", data,
                    "--pose", field)  # fmt: skip
    assert made.code == 0, made.err
    assert Store(data).recipe.normalise == "tissue" and Store(data).pose is not None
    assert anofield("baseline", "zscore", "train", "--data", data, "-o", model).code == 0
    assert anofield("baseline", "zscore", "calibrate", "-m", model, "-i", world.healthy[0].image).code == 0
    found = anofield("baseline", "zscore", "detect", "-m", model, "-i", world.glioma[0].image, "-o", tmp_path / "run")
    assert found.code == 0, found.err
    refused = anofield("prepare", *scans, "--recipe", "ifl2021-brats", "-o", tmp_path / "p.zarr", "--pose", field)
    assert refused.code == 2 and "takes no pose" in refused.err
