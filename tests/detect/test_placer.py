"""The placer: a pose is found once per scan, kept, and found again when what was kept cannot be read."""

from __future__ import annotations

import json
import os
from dataclasses import replace
from multiprocessing.pool import ThreadPool
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch

from anofield.data.brain import StrippedScan
from anofield.data.prepare import prepare_scan
from anofield.data.recipe import Recipe
from anofield.detect import placer as module
from anofield.detect.options import FitOptions
from anofield.detect.placer import Placer
from anofield.detect.pose import Pose
from anofield.errors import UsageError
from helpers import World, make_native, make_prepared, small_world

RECIPE = Recipe(resolution=12, centers=(0.0, 0.3, 0.5, 0.7))
POSE = Pose(torch.tensor([0.1, 0.0, 0.2]), torch.tensor([0.04, 0.0, 0.0]), torch.tensor([0.1, 0.0, 0.0]),
            torch.tensor([0.0, 0.05, 0.0]))  # fmt: skip
NATIVE = make_native(make_prepared(0))


@pytest.fixture(scope="session")
def world(tmp_path_factory: pytest.TempPathFactory) -> World:
    return small_world(tmp_path_factory.getbasetemp() / "world")


@pytest.fixture
def fits(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Keys of the scans that were fitted; every fit finds `POSE`."""
    keys: list[str] = []

    def fit_code(field: Any, prior: Any, prepared: Any, key: str, options: FitOptions, device: Any) -> Any:
        assert options.pose == "affine" and prepared.recipe == RECIPE
        keys.append(key)
        return SimpleNamespace(pose=POSE)

    monkeypatch.setattr(module, "fit_code", fit_code)
    return keys


def model(**changes: Any) -> Any:
    trained = SimpleNamespace(field=None, prior=None, device=torch.device("cpu"))
    values = {"recipe": RECIPE, "path": Path("experiment"), "hash": "abc", "epoch": 3, "trained": trained,
              "device": torch.device("cpu"), "precision": "float32"}  # fmt: skip
    return SimpleNamespace(**{**values, **changes})


def prepared(native: StrippedScan = NATIVE, recipe: Recipe = RECIPE) -> Any:
    return prepare_scan(native, None, recipe)


def test_a_pose_is_found_once_and_then_read(tmp_path: Path, fits: list[str]) -> None:
    placer = Placer(model(), tmp_path / "poses")
    first, second = placer(NATIVE, prepared()), Placer(model(), tmp_path / "poses")(NATIVE, prepared())
    np.testing.assert_array_equal(first, second)
    np.testing.assert_array_equal(first, POSE.matrix)
    assert fits == [NATIVE.scan.content_hash]


def test_another_scan_mask_experiment_or_fit_is_fitted_again(tmp_path: Path, fits: list[str]) -> None:
    Placer(model(), tmp_path)(NATIVE, prepared())
    smaller = replace(NATIVE, brain=NATIVE.brain & (np.arange(12) > 3))
    other = make_native(make_prepared(1))
    for native, which in ((smaller, model()), (other, model()), (NATIVE, model(hash="def"))):
        Placer(which, tmp_path)(native, prepared(native))
    Placer(model(), tmp_path, FitOptions(pose="affine", iterations=7))(NATIVE, prepared())
    assert len(fits) == 5 and len(list(tmp_path.iterdir())) == 5
    Placer(model(path=Path("moved")), tmp_path)(NATIVE, prepared())
    assert len(fits) == 5


@pytest.mark.parametrize(
    "damage",
    [b"", b"{", b"[1, 2]", b'{"matrix": [[1, 0], [0, 1]]}', b'{"matrix": [[0,0,0,0],[0,0,0,0],[0,0,0,0],[0,0,0,1]]}',
     b"\xff\xfe"],
)  # fmt: skip
def test_a_damaged_file_is_made_again(tmp_path: Path, fits: list[str], damage: bytes) -> None:
    placer = Placer(model(), tmp_path)
    found = placer(NATIVE, prepared())
    (path,) = tmp_path.iterdir()
    whole = path.read_bytes()
    path.write_bytes(damage)
    np.testing.assert_array_equal(placer(NATIVE, prepared()), found)
    assert len(fits) == 2 and path.read_bytes() == whole


def test_a_changed_pose_is_not_believed(tmp_path: Path, fits: list[str]) -> None:
    placer = Placer(model(), tmp_path)
    found = placer(NATIVE, prepared())
    (path,) = tmp_path.iterdir()
    content = json.loads(path.read_text())
    content["matrix"][0][3] += 0.5
    path.write_text(json.dumps(content))
    np.testing.assert_array_equal(placer(NATIVE, prepared()), found)
    assert len(fits) == 2


@pytest.mark.skipif(os.geteuid() == 0, reason="root writes everywhere")
def test_a_folder_that_cannot_be_written_costs_only_time(tmp_path: Path, fits: list[str]) -> None:
    tmp_path.chmod(0o500)
    placer = Placer(model(), tmp_path / "poses")
    for _ in range(2):
        np.testing.assert_array_equal(placer(NATIVE, prepared()), POSE.matrix)
    assert len(fits) == 2


def test_a_file_where_the_folder_should_be_costs_only_time(tmp_path: Path, fits: list[str]) -> None:
    (tmp_path / "poses").write_text("")
    np.testing.assert_array_equal(Placer(model(), tmp_path / "poses")(NATIVE, prepared()), POSE.matrix)


def _writer(folder: str) -> list[list[float]]:
    """Keep and read the pose many times."""
    path = Path(folder) / "a.json"
    found = []
    for _ in range(50):
        module._write(path, POSE.matrix)
        found.append(module._read(path))
    assert all(one is not None for one in found)
    assert found[-1] is not None
    return [[float(value) for value in row] for row in found[-1]]


def test_two_writers_never_read_half_a_file(tmp_path: Path) -> None:
    with ThreadPool(2) as pool:
        one, other = pool.map(_writer, [str(tmp_path)] * 2)
    assert one == other == POSE.matrix.tolist()
    assert [path.name for path in tmp_path.iterdir()] == ["a.json"]


@pytest.mark.usefixtures("fits")
def test_the_pose_of_a_larger_box_moves_the_head_as_far_in_mm() -> None:
    wide = RECIPE.model_copy(update={"box_mm": 250.0, "resolution": 10, "lattice": "corner"})
    pose, other = (Placer(model())(NATIVE, prepared(recipe=recipe)) for recipe in (RECIPE, wide))
    one, two = (prepare_scan(NATIVE, None, r, p).lattice for r, p in ((RECIPE, pose), (wide, other)))
    centres = [lattice.affine @ [*[(lattice.resolution - 1) / 2] * 3, 1] for lattice in (one, two)]
    np.testing.assert_allclose(centres[0], centres[1], atol=1e-9)
    np.testing.assert_allclose(one.affine[:3, :3] / (200 / 12), two.affine[:3, :3] / 25.0, atol=1e-9)


def test_a_published_field_and_a_fit_without_pose_are_refused(fits: list[str]) -> None:
    published = Recipe(name="ifl2021-hcp", normalise="clip-minmax", lattice="corner")
    with pytest.raises(UsageError, match="finds no poses"):
        Placer(model(recipe=published))
    with pytest.raises(UsageError, match="no pose"):
        Placer(model(), None, FitOptions(pose="none"))


@pytest.mark.slow
def test_a_real_field_finds_a_turned_head(world: World, tmp_path: Path) -> None:
    """The posed lattices of a person and of the same person turned by 10 degrees hold the same classes."""
    from nibabel.eulerangles import euler2mat
    from scipy import ndimage

    from anofield.data.brain import as_stripped
    from anofield.data.scan import Scan

    native = as_stripped(world.healthy[0].image)
    turn, affine = euler2mat(0.17, 0.0, 0.0), native.scan.affine
    centre = affine[:3, :3] @ ndimage.center_of_mass(native.brain) + affine[:3, 3]
    by = np.eye(4)
    by[:3, :3], by[:3, 3] = turn, centre - turn @ centre
    turned = StrippedScan(Scan(native.scan.data, by @ affine, native.scan.header, native.scan.path), native.brain)
    placer, recipe = Placer(world.model, tmp_path, FitOptions(pose="affine", iterations=100)), world.model.recipe
    both = [(one, prepare_scan(one, None, recipe)) for one in (native, turned)]
    straight, moved = (prepare_scan(one, None, recipe, placer(one, plain)) for one, plain in both)
    before = (both[0][1].classes == both[1][1].classes).mean()
    assert (straight.classes == moved.classes).mean() > before + 0.5 * (1 - before)
