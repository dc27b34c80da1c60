"""Sampling: codes for a request, and the same field at any plane and resolution, in the right place of the world."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
import pytest
import torch
from PIL import Image

from anofield.data.lattice import field_coordinates
from anofield.data.recipe import Recipe
from anofield.detect.decode import Person, decode
from anofield.errors import MachineError, UsageError
from anofield.field import sample
from anofield.field.codes import CodePrior, Codes
from anofield.field.decoder import FrozenField
from anofield.field.experiment import Experiment
from anofield.field.model import TrainedField, build_field, open_field
from anofield.field.points import axis_coordinates, coordinates_of
from anofield.reports.planes import VIEWS
from anofield.reports.strip import Strip, draw_strip, write_strip
from helpers import CENTERS, CLASSES, make_prepared, make_store, small_world, tiny_specs
from helpers import World as Trained
from images import load_image

HCP = Recipe(name="ifl2021-hcp", resolution=16, normalise="clip-minmax", lattice="corner", centers=CENTERS)
BOX = Recipe(resolution=12, centers=CENTERS)
RECIPES = [BOX, HCP, HCP.model_copy(update={"name": "ifl2021-brats"}), HCP.model_copy(update={"resolution": None})]


@pytest.fixture(scope="session")
def world(tmp_path_factory: pytest.TempPathFactory) -> Trained:
    return small_world(tmp_path_factory.getbasetemp() / "world")


@pytest.fixture(scope="module")
def table() -> Codes:
    codes = torch.randn(9, 6, generator=torch.Generator().manual_seed(1)) * torch.tensor([3, 2, 1, 1, 0.5, 0.1])
    return Codes(ids=[f"p{n}" for n in range(9)], values=codes, bound=1.0)


def model_of(recipe: Recipe = BOX) -> TrainedField:
    torch.manual_seed(0)
    field = FrozenField(build_field(tiny_specs()))
    codes = Codes(ids=(), values=torch.randn(20, 6, generator=torch.Generator().manual_seed(2)), bound=None)
    return TrainedField(path=Path("none"), specs=tiny_specs(), field=field, codes=codes, recipe=recipe, hash="",
                        epoch=1, device=torch.device("cpu"))  # fmt: skip


CODE = torch.tensor([0.3, -0.2, 0.1, 0.4, 0.0, -0.5])


def test_a_volume_on_the_training_lattice_is_what_fit_decodes() -> None:
    model, prepared = model_of(), make_prepared(3)
    logs = decode(Person(model.field, CODE, model.device), prepared)  # given that the voxel is brain
    classes = sample.decode_volume(model, CODE, sample.canvas_of(BOX), "class")[prepared.brain]
    inside = classes > 0
    assert inside.any()
    np.testing.assert_array_equal(classes[inside], logs.argmax(dim=1).numpy()[inside])


@pytest.mark.parametrize("recipe", RECIPES[:3])
def test_intensity_is_the_expectation_over_classes(recipe: Recipe) -> None:
    model, side = model_of(recipe), recipe.resolution or 0
    flat = torch.arange(side**3)
    points = coordinates_of(flat, side, axis_coordinates(side, recipe.lattice))[None]
    with torch.no_grad():
        share = torch.softmax(model.field.logits(points, CODE[None])[0], dim=-1).numpy()
    expected = (share @ np.array(sample.shown_values(recipe), np.float32)).reshape((side,) * 3)
    volume = sample.decode_volume(model, CODE, sample.canvas_of(recipe))
    np.testing.assert_allclose(volume, sample.to_canvas(expected, recipe), atol=1e-6)


@pytest.mark.parametrize("recipe", RECIPES)
@pytest.mark.parametrize("resolution", [5, 16, 31])
def test_a_place_in_mm_has_the_same_field_coordinates_at_every_resolution(recipe: Recipe, resolution: int) -> None:
    coarse, fine = sample.canvas_of(recipe, resolution), sample.canvas_of(recipe, 3 * resolution)
    index = np.random.default_rng(0).integers(0, resolution, (20, 3)).astype(float)
    shared = 3 * index + 1  # the middle one of three fine voxels has the centre of the coarse one
    mm = index @ coarse.affine[:3, :3].T + coarse.affine[:3, 3]
    np.testing.assert_allclose(shared @ fine.affine[:3, :3].T + fine.affine[:3, 3], mm, atol=1e-9)
    torch.testing.assert_close(fine.points(shared), coarse.points(index), atol=1e-6, rtol=0)


def test_a_finer_picture_shows_the_same_person() -> None:
    model, coarse, fine = model_of(), sample.canvas_of(BOX, 9), sample.canvas_of(BOX, 27)
    for plane in sample.AXES:
        small = sample.decode_plane(model, CODE, coarse, plane, sample.plane_index(coarse, plane, "13.7mm"))
        large = sample.decode_plane(model, CODE, fine, plane, sample.plane_index(fine, plane, "13.7mm"))
        np.testing.assert_allclose(large[1::3, 1::3], small, atol=1e-5)


@pytest.mark.parametrize("recipe", RECIPES[:3])
@pytest.mark.parametrize("plane", list(sample.AXES))
def test_a_plane_is_a_cut_through_the_volume(recipe: Recipe, plane: str) -> None:
    model, canvas = model_of(recipe), sample.canvas_of(recipe, 10)
    volume = sample.decode_volume(model, CODE, canvas)
    for index in (0, 7):
        mm = sample.plane_mm(canvas, plane, index)
        found = sample.plane_index(canvas, plane, f"{mm}mm")
        assert found == pytest.approx(index)
        picture = sample.decode_plane(model, CODE, canvas, plane, found)
        np.testing.assert_allclose(picture, np.take(volume, index, axis=sample.AXES[plane]), atol=1e-5)


def test_planes_are_named_as_in_the_report() -> None:
    assert {name: axis for name, (axis, _) in VIEWS.items()} == sample.AXES


@pytest.mark.parametrize("recipe", RECIPES)
def test_the_canvas_runs_to_the_right_front_and_top(recipe: Recipe) -> None:
    affine = sample.canvas_of(recipe, 7).affine
    np.testing.assert_allclose(affine[:3, :3], np.diag(np.diag(affine)[:3]), atol=1e-9)
    assert (np.diag(affine) > 0).all()


def test_the_box_is_a_cube_around_the_origin() -> None:
    for resolution in (7, 12, 200):
        canvas = sample.canvas_of(BOX, resolution)
        assert all(canvas.faces_mm(axis) == pytest.approx((-100, 100)) for axis in range(3))


def test_the_training_lattice_of_a_published_recipe_keeps_its_points_and_place() -> None:
    native = np.diag([-0.7, 0.7, 0.7, 1])
    native[:3, 3] = (90, -126, -72)  # HCP S1200
    canvas = sample.canvas_of(HCP)
    corners = np.array([(0, 0, 0), (15, 15, 15), (3, 5, 15)], float)
    lattice = corners @ canvas.to_lattice[:3, :3].T + canvas.to_lattice[:3, 3]
    assert set(np.unique(lattice)) <= set(range(16))
    np.testing.assert_allclose(canvas.points(corners), field_coordinates(lattice, 16, "corner"), atol=1e-7)
    # the published cube is 300 voxels of 0.7 mm, its voxel centres are kept by the zoom
    assert np.diag(canvas.affine)[:3] == pytest.approx([299 / 15 * 0.7] * 3)
    assert canvas.affine[0, 3] == pytest.approx(90 - 0.7 * (259 + 20))


def test_planes_outside_the_box_and_odd_places_are_refused() -> None:
    canvas = sample.canvas_of(BOX)
    assert sample.plane_mm(canvas, "axial", sample.plane_index(canvas, "axial", "0.25")) == pytest.approx(-50)
    assert sample.plane_index(canvas, "axial", "−50 mm") == sample.plane_index(canvas, "axial", "0.25")
    for at in ("101mm", "1.5", "-0.1", "nan"):
        with pytest.raises(UsageError, match="from -100mm to 100mm"):
            sample.plane_index(canvas, "axial", at)
    with pytest.raises(UsageError, match="is not a position"):
        sample.plane_index(canvas, "axial", "top")


def test_an_unknown_person_is_told_the_nearest(table: Codes) -> None:
    with pytest.raises(UsageError, match=r"'p33' \(nearest: 'p3'\)"):
        sample.from_cases(table, ["p1", "p33"])
    with pytest.raises(UsageError, match="nearest: 'p2'"):
        sample.between(table, "p1", "P2", 3)


def test_the_ends_of_the_way_are_the_two_people(table: Codes) -> None:
    drawn, ends = sample.between(table, "p2", "p7", 5), sample.from_cases(table, ["p2", "p7"])
    torch.testing.assert_close(drawn.codes[[0, -1]], ends.codes)
    assert drawn.names == ["p2", "25 %", "50 %", "75 %", "p7"]
    with pytest.raises(UsageError, match="--count 2"):
        sample.between(table, "p2", "p7", 1)


@pytest.mark.parametrize("angle", [0.0, 1e-5, 1.0, np.pi / 2, np.pi])
def test_the_way_turns_evenly_and_never_leaves_the_norms_of_its_ends(angle: float) -> None:
    first = torch.tensor([1.0, 0.0, 0.0], dtype=torch.float64)
    last = 0.5 * torch.tensor([np.cos(angle), np.sin(angle), 0.0], dtype=torch.float64)
    way = sample.interpolate(first, last, torch.linspace(0, 1, 5, dtype=torch.float64))
    torch.testing.assert_close(way[[0, -1]], torch.stack((first, last)))
    if angle < np.pi:  # opposite codes have no one plane to turn in
        torch.testing.assert_close(way.norm(dim=1), torch.linspace(1, 0.5, 5, dtype=torch.float64), atol=1e-4, rtol=0)
        turned = torch.atan2(way[:, 1], way[:, 0])
        torch.testing.assert_close(turned, torch.linspace(0, angle, 5, dtype=torch.float64), atol=1e-4, rtol=0)


@pytest.mark.slow
def test_the_prior_has_the_mean_and_covariance_of_the_training_codes() -> None:
    generator = torch.Generator().manual_seed(3)
    codes = torch.randn(500, 4, generator=generator) @ torch.randn(4, 4, generator=generator) + 2
    prior = CodePrior.fit(codes)
    drawn = sample.from_prior(prior, 20_000, 0).codes
    covariance = torch.linalg.inv(prior.precision.double())
    scale = float(covariance.diagonal().max())
    torch.testing.assert_close(drawn.mean(dim=0), prior.mean, atol=0.04 * scale**0.5, rtol=0)
    torch.testing.assert_close(drawn.T.cov().double(), covariance, atol=0.04 * scale, rtol=0)
    assert float(prior.distance(drawn).mean()) == pytest.approx(1.0, abs=0.03)


def test_a_seed_gives_the_same_people_and_few_are_the_first_of_many() -> None:
    prior = CodePrior.fit(torch.randn(30, 20, generator=torch.Generator().manual_seed(4)))
    few, many, other = (sample.from_prior(prior, n, seed).codes for n, seed in ((3, 5), (8, 5), (3, 6)))
    assert torch.equal(few, many[:3]) and not torch.allclose(few, other)
    published = sample.from_published(20, 8, 5).codes
    assert torch.equal(sample.from_published(20, 3, 5).codes, published[:3])
    assert float(sample.from_published(50, 400, 0).codes.std()) == pytest.approx(0.1, rel=0.02)


def test_codes_keep_the_bound_of_the_training(table: Codes) -> None:
    prior = CodePrior.fit(table.seen() * 4)
    assert float(sample.from_prior(prior, 50, 0, 1.0).codes.norm(dim=1).max()) <= 1 + 1e-6
    codes = torch.tensor([[3.0, 4.0], [0.1, 0.0], [0.0, 0.0]])
    torch.testing.assert_close(sample.bounded(codes, 1.0), torch.tensor([[0.6, 0.8], [0.1, 0], [0, 0]]))
    assert sample.bounded(codes, None) is codes


def test_a_volume_is_written_where_the_box_is(tmp_path: Path) -> None:
    canvas = sample.canvas_of(BOX, 10)
    data = np.random.default_rng(0).random((10, 10, 10)).astype(np.float32)
    sample.write_volume(tmp_path / "new" / "v.nii.gz", data, canvas, "test")
    image = load_image(tmp_path / "new" / "v.nii.gz")
    np.testing.assert_allclose(image.affine, canvas.affine)
    assert image.header.get_xyzt_units()[0] == "mm" and nib.aff2axcodes(image.affine) == ("R", "A", "S")
    np.testing.assert_array_equal(image.get_fdata(dtype=np.float32), data)
    low, high = (nib.affines.apply_affine(image.affine, corner) for corner in ((-0.5,) * 3, (9.5,) * 3))
    assert low == pytest.approx([-100] * 3) and high == pytest.approx([100] * 3)


def test_a_place_that_cannot_be_written_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(MachineError, match="file"):
        sample.write_volume(tmp_path / "file" / "v.nii.gz", np.zeros((4, 4, 4), np.uint8), sample.canvas_of(BOX, 4), "")
    strip = Strip([np.zeros((8, 8), np.float32)], ["a"], "axial", 0.0, 1.0)
    with pytest.raises(MachineError, match="file"):
        write_strip(tmp_path / "file" / "p.png", strip)
    assert [path.name for path in tmp_path.iterdir()] == ["file"]


@pytest.mark.parametrize(("plane", "left", "top"), [("axial", 0, 1), ("coronal", 0, 2), ("sagittal", 1, 2)])
def test_pictures_are_turned_as_those_of_the_report(plane: str, left: int, top: int) -> None:
    """The left edge shows the patient's right (axial, coronal) or front (sagittal); the top edge front or crown."""
    field = np.zeros((200, 200, 200), np.float32)
    bright = [slice(40, 160)] * 3
    bright[left] = slice(150, 190)
    field[tuple(bright)] = 1
    bright[left], bright[top] = slice(40, 160), slice(150, 190)
    upper = np.zeros_like(field)
    upper[tuple(bright)] = 1
    sides = [np.take(volume, 100, axis=sample.AXES[plane]) for volume in (field, upper)]
    image = np.asarray(draw_strip(Strip(sides, ["a", "b"], plane, 0.0, 1.0)).convert("L"), float)
    panels = image[40:220, 14:214], image[40:220, 220:420]
    assert panels[0][:, :100].mean() > 4 * panels[0][:, 100:].mean()
    assert panels[1][:90].mean() > 4 * panels[1][90:].mean()


@pytest.mark.parametrize(("people", "resolution", "columns"), [(1, 8, 1), (5, 200, 5), (11, 30, 8)])
def test_a_strip_has_a_panel_for_everyone_and_the_announced_size(
    tmp_path: Path, people: int, resolution: int, columns: int
) -> None:
    planes = [np.full((resolution, resolution), 0.5, np.float32)] * people
    strip = Strip(planes, ["a long name " * 9] * people, "axial", 3.0, 1.0)
    size = write_strip(tmp_path / "p.png", strip)
    with Image.open(tmp_path / "p.png") as image:
        assert image.format == "PNG" and image.size == size
        grey = np.asarray(image.convert("L"))
    side = resolution * -(-192 // resolution)
    assert size[0] == columns * (side + 6) - 6 + 28
    assert (grey == 128).sum() > 0.9 * people * side**2
    assert "patient's right is on the left" in strip.caption and "z = 3.0 mm" in strip.caption


@pytest.mark.slow
def test_the_table_is_read_as_the_field_sees_it(tmp_path: Path) -> None:
    from anofield.field.train import TrainOptions, train

    experiment = Experiment.create(tmp_path / "e", tiny_specs(NumEpochs=1))
    train(experiment, make_store(tmp_path / "s.zarr"), TrainOptions(device="cpu"))
    opened = open_field(experiment.path, device="cpu")
    assert opened.codes.names == [f"p{n}" for n in range(5)] and opened.epoch == 1
    assert float(opened.codes.seen().norm(dim=1).max()) <= 1 + 1e-6
    assert experiment.specs.network_specs.dim_out == CLASSES


def test_the_command_writes_what_it_says(world: Trained, tmp_path: Path, anofield: Callable[..., Any]) -> None:
    first, second = (case.id for case in world.training[:2])
    ended = anofield("sample", "-m", world.experiment, "--between", first, second, "--count", 3, "--plane", "coronal",
                     "--at", "-10mm", "--json", "-o", tmp_path / "p.png")  # fmt: skip
    told = json.loads(ended.out)
    assert ended.code == 0 and told["people"] == [first, "50 %", second] and "y = −10.0 mm" in told["caption"]
    with Image.open(tmp_path / "p.png") as picture:
        assert list(picture.size) == told["size"]

    ended = anofield("sample", "-m", world.experiment, "--prior", "--count", 2, "--res", 9, "--show", "class",
                     "-o", tmp_path / "v.nii.gz")  # fmt: skip
    image = load_image(tmp_path / "v.nii.gz")
    assert ended.code == 0 and image.shape == (9, 9, 9, 2) and image.get_data_dtype() == np.uint8
    assert "9 × 9 × 9 × 2 voxels" in ended.out and "centre of mass" in ended.out


def test_a_training_code_is_decoded_to_that_person(
    world: Trained, tmp_path: Path, anofield: Callable[..., Any]
) -> None:
    case = world.training[3].id
    assert anofield("sample", "-m", world.experiment, "--case", case, "-o", tmp_path / "v.nii.gz").code == 0
    model = open_field(world.experiment, device="cpu")
    code = model.codes.seen()[model.codes.names.index(case)]
    expected = sample.decode_volume(model, code, sample.canvas_of(model.recipe))
    found = load_image(tmp_path / "v.nii.gz")
    np.testing.assert_array_equal(found.get_fdata(dtype=np.float32), expected)


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ((), "no subject or sample was requested"),
        (("--prior", "--case", "x"), "--case and --prior together"),
        (("--case", "BraTS"), "nearest: "),
        (("--prior", "--res", 1), "--res 1"),
        (("--prior", "--at", "200mm"), "outside the box"),
    ],
)
def test_requests_that_cannot_be_met_are_usage_errors(
    world: Trained, tmp_path: Path, anofield: Callable[..., Any], words: tuple[Any, ...], message: str
) -> None:
    ended = anofield("sample", "-m", world.experiment, "-o", tmp_path / "p.png", *words)
    assert ended.code == 2 and message in ended.err and "Remedy" in ended.err
    assert not list(tmp_path.iterdir())


def test_other_files_are_refused_before_any_work(tmp_path: Path, anofield: Callable[..., Any]) -> None:
    ended = anofield("sample", "-m", tmp_path / "none", "-o", tmp_path / "p.jpg", "--prior")
    assert ended.code == 2 and "neither .png nor .nii.gz" in ended.err


def test_octaves_beyond_the_training_lattice_are_told() -> None:
    model = model_of(BOX)  # L = 2 at R = 12: the finest wavelength is 6 voxels
    assert sample.unlearned_octaves(model, sample.canvas_of(BOX, 64)) == ""
    fine = replace(model, field=FrozenField(build_field(tiny_specs(L=5))))  # 12/2⁴ voxels
    assert "2 of 5 octaves" in sample.unlearned_octaves(fine, sample.canvas_of(BOX, 64))
    assert sample.unlearned_octaves(fine, sample.canvas_of(BOX)) == ""
