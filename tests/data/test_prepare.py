"""From scan to classes: the published steps to the letter, and a box that sees the person and not the file."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
from nibabel.affines import apply_affine
from nibabel.eulerangles import euler2mat
from nibabel.orientations import axcodes2ornt, inv_ornt_aff, io_orientation, ornt_transform
from pydantic import ValidationError
from scipy import ndimage

from anofield.data.brain import StrippedScan, as_stripped
from anofield.data.centers import fit_cohort_centers, read_centers
from anofield.data.classes import PAPER_CENTERS, mode_pool
from anofield.data.cohort.case import Case
from anofield.data.lattice import to_native
from anofield.data.prepare import prepare_case, prepare_scan
from anofield.data.prepared import Prepared
from anofield.data.published import GRIDS, NativeGrid, cube_affine, published_lattice
from anofield.data.recipe import Recipe, RecipeName, recipe_for
from anofield.data.scan import Scan
from anofield.errors import ScanError, UsageError
from anofield.phantom.person import Person
from images import load_image

SaveBrain = Callable[..., Path]
BOX = Recipe(resolution=24)

# The published arithmetic on arrays small enough to test: same axes, paddings and cuts of the same kind.
NATIVE: dict[RecipeName, tuple[int, int, int]] = {"ifl2021-hcp": (12, 31, 12), "ifl2021-brats": (20, 20, 11)}
SMALL: dict[RecipeName, NativeGrid] = {
    "ifl2021-hcp": replace(GRIDS["ifl2021-hcp"], shape=NATIVE["ifl2021-hcp"], pad=((4, 4), (0, 0), (4, 4))),
    "ifl2021-brats": replace(GRIDS["ifl2021-brats"], shape=NATIVE["ifl2021-brats"], pad=((4, 5), (0, 0), (0, 0))),
}
published = pytest.mark.parametrize("name", list(NATIVE))


@pytest.fixture
def small(monkeypatch: pytest.MonkeyPatch) -> None:
    for name, grid in SMALL.items():
        monkeypatch.setitem(GRIDS, name, grid)


def save_published(path: Path, name: RecipeName, data: np.ndarray | None = None) -> Path:
    """A scan of the small native shape whose brain is a block; big voxels, so that it has a brain's volume."""
    shape = NATIVE[name]
    block = np.zeros(shape)
    inner = tuple(slice(2, n - 2) for n in shape)
    block[inner] = np.random.default_rng(0).gamma(3.0, 40.0, shape)[inner] + 1 if data is None else data[inner]
    nib.Nifti1Image(block, np.diag([-9.0, 9.0, 9.0, 1.0])).to_filename(path)
    return path


def turn(name: RecipeName, volume: np.ndarray, pads: tuple[int, int, int] = (4, 4, 5)) -> np.ndarray:
    """The published geometry as its text says it; pads: HCP's, and BraTS's before and after."""
    turned = np.transpose(volume, (2, 1, 0))
    if name == "ifl2021-hcp":
        return np.pad(turned[:, ::-1], ((pads[0], pads[0]), (0, 0), (pads[0], pads[0])))[:, 5:-6]
    return np.pad(turned, ((pads[1], pads[2]), (0, 0), (0, 0)))


def oracle(name: RecipeName, volume: np.ndarray, resolution: int | None, window: int | None) -> np.ndarray:
    """The published preprocessing of the small shapes, step by step."""
    return slow_classes(turn(name, volume), resolution, window)


def slow_classes(image: np.ndarray, resolution: int | None, window: int | None) -> np.ndarray:
    """Clip, normalise, zoom, nearest centre, mode pool, of a whole cube."""
    brain = image != 0
    image[brain] = np.clip(image[brain], *np.percentile(image[brain], (2, 98)))
    low, high = image[brain].min(), image[brain].max()
    image[brain] = (image[brain] - low) / (high - low)
    if resolution is not None:
        image = ndimage.zoom(image, resolution / image.shape[1], order=1)
    classes = np.stack([np.abs(plane[..., None] - np.array(PAPER_CENTERS)).argmin(-1) for plane in image])
    return classes if window is None else slow_mode_pool(classes, window)


def slow_mode_pool(classes: np.ndarray, window: int) -> np.ndarray:
    """Votes of every window, one shifted copy after the other; the first of the most frequent classes."""
    padded = np.pad(classes.astype(np.uint8), [(1, window % 2)] * 3)
    votes = np.zeros((10, *classes.shape), np.uint8)
    for index in range(10):
        same = (padded == index).view(np.uint8)
        for i, j, k in np.ndindex(window, window, window):
            votes[index] += same[i:, j:, k:][tuple(slice(0, n) for n in classes.shape)]
    return votes.argmax(0)


def save_steps(path: Path, name: RecipeName) -> Path:
    """Ten levels of 0 … 9 in blocks, of which the percentiles are 1 and 9: windows with ties in number."""
    levels = np.random.default_rng(1).integers(0, 10, [n // 2 + 1 for n in NATIVE[name]])
    doubled = np.kron(levels, np.ones((2, 2, 2)))[tuple(slice(0, n) for n in NATIVE[name])]
    return save_published(path, name, doubled)


def count_ties(classes: np.ndarray, window: int) -> int:
    """Windows in which two classes are the most frequent."""
    padded = np.pad(classes, [(1, window % 2)] * 3)
    windows = np.lib.stride_tricks.sliding_window_view(padded, (window,) * 3).reshape(*classes.shape, -1)
    votes = np.sort((windows[..., None] == np.arange(10)).sum(-2), axis=-1)
    return int((votes[..., -1] == votes[..., -2]).sum())


@published
@pytest.mark.parametrize("window", [2, 3])
@pytest.mark.parametrize("resolution", [None, 13, 27])
@pytest.mark.usefixtures("small")
def test_ties_of_the_mode_pool_go_where_the_published_ones_go(
    name: RecipeName, resolution: int | None, window: int, tmp_path: Path
) -> None:
    path = save_steps(tmp_path / "scan.nii.gz", name)
    prepared = prepare_case(Case("a", path), recipe_for(name, resolution, window))
    data = load_image(path).get_fdata()
    assert count_ties(oracle(name, data, resolution, None), window) > 10
    np.testing.assert_array_equal(prepared.classes, oracle(name, data, resolution, window))


@pytest.mark.slow
def test_a_native_brats_scan_gives_the_published_classes() -> None:
    shape, generator = (240, 240, 155), np.random.default_rng(0)
    axes = np.ix_(*[np.linspace(-1.6, 1.6, n) for n in shape])
    smooth = ndimage.zoom(generator.normal(300, 90, (12, 12, 8)), np.divide(shape, (12, 12, 8)), order=1)
    data = np.where(sum(x**2 for x in axes) < 1, np.rint(smooth).clip(1), 0)
    scan = Scan(data, np.diag([-1.0, -1.0, 1.0, 1.0]), None, Path("scan.nii.gz"))
    label = np.where(data > 400, 4, 0).astype(np.int32)
    recipe = recipe_for("ifl2021-brats", 160, 3, "published")
    prepared = prepare_scan(StrippedScan(scan, data != 0), label, recipe)
    pads = (20, 42, 43)
    image = turn("ifl2021-brats", data, pads)
    np.testing.assert_array_equal(prepared.classes, slow_classes(image, 160, 3))
    truth = ndimage.zoom(turn("ifl2021-brats", label.astype(np.uint8), pads), 160 / 240, order=1)
    np.testing.assert_array_equal(prepared.label, truth)
    assert set(np.unique(truth)) == {0, 1, 2, 3, 4} and len(np.unique(prepared.classes)) == 10


@published
@pytest.mark.parametrize("resolution", [None, 11, 20, 27])
@pytest.mark.usefixtures("small")
def test_published_labels_are_mixed_and_rounded(name: RecipeName, resolution: int | None, tmp_path: Path) -> None:
    path = save_published(tmp_path / "scan.nii.gz", name)
    label = np.random.default_rng(0).integers(-6, 5, NATIVE[name]).clip(0).astype(np.uint8)
    nib.Nifti1Image(label, np.diag([-9.0, 9.0, 9.0, 1.0])).to_filename(tmp_path / "seg.nii.gz")
    case = Case("a", path, tmp_path / "seg.nii.gz")
    expected = turn(name, label)
    if resolution is not None:
        expected = ndimage.zoom(expected, resolution / 20, order=1)
    prepared = prepare_case(case, recipe_for(name, resolution, label_resampling="published"))
    np.testing.assert_array_equal(prepared.label, expected)
    assert prepared.label is not None and prepared.label.dtype == np.uint8


def test_the_box_recipe_does_not_mix_labels() -> None:
    with pytest.raises(ValidationError, match="only the ifl2021 recipes"):
        Recipe(label_resampling="published")
    with pytest.raises(UsageError, match=r"only the ifl2021 recipes.*\n?.*nearest"):
        recipe_for("box", 32, label_resampling="published")


@published
def test_the_published_lattice_lies_where_the_zoom_puts_it(name: RecipeName) -> None:
    affine = np.diag([-0.7, 0.7, 0.7, 1.0])
    full, scaled = published_lattice(name, None, affine), published_lattice(name, 160, affine)
    assert full.resolution == {"ifl2021-hcp": 300, "ifl2021-brats": 240}[name] and scaled.resolution == 160
    np.testing.assert_allclose(
        apply_affine(full.affine, [[0] * 3, [full.resolution - 1] * 3]),
        apply_affine(scaled.affine, [[0] * 3, [159] * 3]),
    )


@published
@pytest.mark.parametrize("window", [None, 2, 3])
@pytest.mark.parametrize("resolution", [None, 11, 20, 16])
@pytest.mark.usefixtures("small")
def test_the_published_steps_to_the_letter(
    name: RecipeName, resolution: int | None, window: int | None, tmp_path: Path
) -> None:
    path = save_published(tmp_path / "scan.nii.gz", name)
    prepared = prepare_case(Case("a", path), recipe_for(name, resolution, window))
    expected = oracle(name, load_image(path).get_fdata(), resolution, window)
    np.testing.assert_array_equal(prepared.classes, expected)
    assert prepared.recipe.lattice == "corner"
    assert len(np.unique(expected)) >= (10 if window is None and resolution in (None, 20) else 4)


@published
@pytest.mark.parametrize("resolution", [None, 11, 16, 27])
@pytest.mark.parametrize("axis", [0, 1, 2])
@pytest.mark.usefixtures("small")
def test_the_published_zoom_crop_flip_and_transpose_are_one_affine(
    axis: int, resolution: int | None, name: RecipeName, tmp_path: Path
) -> None:
    ramp = np.indices(NATIVE[name])[axis] + 1.0
    path = save_published(tmp_path / "scan.nii.gz", name, ramp)
    prepared = prepare_case(Case("a", path), recipe_for(name, resolution))
    native = apply_affine(prepared.lattice.to_native, np.moveaxis(np.indices(prepared.lattice.shape), 0, -1))
    deep = ((native >= 2) & (native <= np.array(NATIVE[name]) - 3)).all(-1)  # between voxels of the block
    shift, scale = prepared.scale
    seen = prepared.intensity[deep] * scale + shift
    inside = (seen > shift + 0.5) & (seen < shift + scale - 0.5)  # clipped at the ends
    assert inside.sum() > 50
    np.testing.assert_allclose(seen[inside], native[deep][inside][:, axis] + 1.0, atol=1e-3)


@pytest.mark.slow
@pytest.mark.parametrize("name", list(NATIVE))
def test_the_published_constants_give_the_published_cubes(name: RecipeName) -> None:
    steps, side = GRIDS[name], {"ifl2021-hcp": 300, "ifl2021-brats": 240}[name]
    generator = np.random.default_rng(0)
    spots = np.stack([generator.integers(40, n - 40, 20) for n in steps.shape], axis=1)
    volume = np.zeros(steps.shape, np.uint8)
    volume[tuple(spots.T)] = np.arange(1, 21)
    seen = turn(name, volume, (20, 42, 43))
    assert seen.shape == (side,) * 3 and steps.side == side
    after = [n - before - size for n, (before, _), size in zip(
        seen.shape, steps.pad, steps.turned(volume).shape, strict=True)]  # fmt: skip
    padding = [(before, rest) for (before, _), rest in zip(steps.pad, after, strict=True)]
    np.testing.assert_array_equal(np.pad(steps.turned(volume), padding), seen)
    places = np.argwhere(seen)
    native = apply_affine(cube_affine(steps, side, side), places)
    np.testing.assert_array_equal(volume[tuple(native.astype(int).T)], seen[tuple(places.T)])
    ends = apply_affine(cube_affine(steps, side, 160), [[0, 0, 0], [159, 159, 159]])
    np.testing.assert_allclose(
        ends, apply_affine(cube_affine(steps, side, side), [[0, 0, 0], [side - 1] * 3]), atol=1e-9
    )


@published
@pytest.mark.usefixtures("small")
def test_published_labels_lie_where_the_affine_says_and_keep_their_values(name: RecipeName, tmp_path: Path) -> None:
    path = save_published(tmp_path / "scan.nii.gz", name)
    label = np.zeros(NATIVE[name], np.uint8)
    label[3:6, 12:17, 4:8] = 4
    nib.Nifti1Image(label, np.diag([-9.0, 9.0, 9.0, 1.0])).to_filename(tmp_path / "seg.nii.gz")
    prepared = prepare_case(Case("a", path, tmp_path / "seg.nii.gz"), recipe_for(name, 16))
    assert prepared.label is not None and set(np.unique(prepared.label)) == {0, 4}
    native = apply_affine(prepared.lattice.to_native, np.argwhere(prepared.label))
    low, high = np.array([3, 12, 4]) - 0.51, np.array([5, 16, 7]) + 0.51
    assert ((native >= low) & (native <= high)).all()


@published
def test_a_published_recipe_names_the_shape_that_it_is_made_for(
    name: RecipeName, save_brain: SaveBrain, tmp_path: Path
) -> None:
    path = save_brain(tmp_path / "scan.nii.gz")
    with pytest.raises(ScanError) as caught:
        prepare_case(Case("a", path), recipe_for(name, 160))
    assert str(path) in str(caught.value) and name in str(caught.value) and "Remedy: " in str(caught.value)


def save_person(path: Path, person: Person, codes: str = "LAS", factor: float = 1.0, pad: int = 0) -> Path:
    """The person stored in another order of axes, in other units, in another field of view."""
    data, affine = np.pad(person.image * np.float32(factor), pad), person.grid.affine.copy()
    affine[:3, 3] -= affine[:3, :3] @ np.full(3, pad)
    change = ornt_transform(io_orientation(affine), axcodes2ornt(codes))
    turned = nib.orientations.apply_orientation(data, change)
    nib.Nifti1Image(turned, affine @ inv_ornt_aff(change, data.shape)).to_filename(path)
    return path


def share_that_differs(a: Prepared, b: Prepared) -> float:
    """Of the brain's voxels on the lattice."""
    return float((a.classes != b.classes).sum() / a.brain.sum())


@pytest.mark.slow
@pytest.mark.parametrize("codes", ["RAS", "PIR", "LPI", "SAR", "ILA"])
@pytest.mark.parametrize("resolution", [24, 40])
def test_the_box_does_not_see_the_order_of_storage(
    resolution: int, codes: str, people: list[Person], tmp_path: Path
) -> None:
    recipe = Recipe(resolution=resolution)
    first = prepare_case(Case("a", save_person(tmp_path / "las.nii", people[0])), recipe)
    other = prepare_case(Case("b", save_person(tmp_path / "other.nii", people[0], codes)), recipe)
    np.testing.assert_allclose(first.lattice.affine, other.lattice.affine, atol=1e-3)
    assert share_that_differs(first, other) < 1e-3


@pytest.mark.slow
def test_a_brain_of_one_value_is_refused(people: list[Person], tmp_path: Path) -> None:
    path = save_person(tmp_path / "a.nii", replace(people[0], image=(people[0].image != 0) * np.float32(7)))
    with pytest.raises(ScanError, match=r"every brain voxel has the same intensity .*Remedy") as caught:
        prepare_case(Case("a", path), BOX)
    assert caught.value.where == str(path)


@pytest.mark.parametrize("factor", [1e-9, 1e-3, 0.37, 5000.0])
def test_the_box_does_not_see_the_unit_of_intensity(factor: float, people: list[Person], tmp_path: Path) -> None:
    first = prepare_case(Case("a", save_person(tmp_path / "a.nii", people[0])), BOX)
    other = prepare_case(Case("b", save_person(tmp_path / "b.nii", people[0], factor=factor)), BOX)
    assert share_that_differs(first, other) < 1e-3


def test_the_box_does_not_see_the_field_of_view(people: list[Person], tmp_path: Path) -> None:
    first = prepare_case(Case("a", save_person(tmp_path / "a.nii", people[0])), BOX)
    other = prepare_case(Case("b", save_person(tmp_path / "b.nii", people[0], pad=5)), BOX)
    assert share_that_differs(first, other) < 1e-3


@pytest.mark.parametrize("kind", [nib.Nifti1Image, nib.Nifti2Image, nib.MGHImage])
def test_the_box_does_not_see_the_file_format(kind: type, people: list[Person], tmp_path: Path) -> None:
    first = prepare_case(Case("a", save_person(tmp_path / "a.nii", people[0])), BOX)
    suffix = "mgz" if kind is nib.MGHImage else "nii.gz"
    header = nib.Nifti1Header(endianness=">") if kind is nib.Nifti1Image else None
    kind(people[0].image, people[0].grid.affine, header).to_filename(tmp_path / f"b.{suffix}")
    other = prepare_case(Case("b", tmp_path / f"b.{suffix}"), BOX)
    np.testing.assert_array_equal(first.classes, other.classes)


def test_the_box_shows_the_person_where_the_affine_says(people: list[Person], tmp_path: Path) -> None:
    person = people[0]
    prepared = prepare_case(Case("a", save_person(tmp_path / "a.nii", person)), Recipe(resolution=40))
    places = apply_affine(prepared.lattice.affine, np.argwhere(prepared.brain))
    voxels = np.rint(apply_affine(np.linalg.inv(person.grid.affine), places)).astype(int)
    assert person.brain[tuple(voxels.T)].mean() > 0.99
    assert prepared.brain.sum() * prepared.lattice.spacing.prod() == pytest.approx(
        person.brain.sum() * np.prod(person.grid.spacing), rel=0.02
    )
    np.testing.assert_array_equal(prepared.classes > 0, prepared.brain)
    shift, scale = prepared.scale
    normalised = (person.image[person.brain] - shift) / scale
    assert np.median(normalised) == pytest.approx(0.4, abs=1e-4)
    assert np.subtract(*np.percentile(normalised, (75, 25))) == pytest.approx(0.12, abs=1e-4)


@pytest.mark.parametrize("window", [2, 3])
def test_the_mode_pool_keeps_class_zero_outside_the_box_brain(
    window: int, people: list[Person], tmp_path: Path
) -> None:
    case = Case("a", save_person(tmp_path / "a.nii", people[0]))
    plain, pooled = prepare_case(case, BOX), prepare_case(case, recipe_for("box", 24, window))
    np.testing.assert_array_equal(pooled.classes > 0, pooled.brain)
    np.testing.assert_array_equal(pooled.brain, plain.brain)
    deep = ndimage.binary_erosion(plain.brain, iterations=2)
    np.testing.assert_array_equal(pooled.classes[deep], mode_pool(plain.classes, window, 10)[deep])
    assert (pooled.classes != plain.classes).any()


def test_a_mask_decides_what_brain_is(people: list[Person], tmp_path: Path) -> None:
    person = people[0]
    whole = nib.Nifti1Image(np.where(person.brain, person.image, 50), person.grid.affine)
    whole.to_filename(tmp_path / "head.nii")
    nib.Nifti1Image(person.brain.astype(np.uint8), person.grid.affine).to_filename(tmp_path / "mask.nii")
    masked = prepare_case(Case("a", tmp_path / "head.nii", mask=tmp_path / "mask.nii"), BOX)
    stripped = prepare_case(Case("a", save_person(tmp_path / "a.nii", person)), BOX)
    assert share_that_differs(masked, stripped) < 1e-3


RECIPES = [
    Recipe(),
    recipe_for("box", 32, 3),
    recipe_for("ifl2021-hcp", None),
    recipe_for("ifl2021-brats", 160, 2),
    Recipe(centers=(0.0, 1 / 3, 0.7), box_mm=180.5, normalise="clip-minmax"),
]


@pytest.mark.parametrize("recipe", RECIPES, ids=range(len(RECIPES)))
def test_a_recipe_survives_json(recipe: Recipe) -> None:
    assert Recipe.model_validate_json(recipe.model_dump_json()) == recipe


@pytest.mark.parametrize(
    "change",
    [
        {"boxmm": 200},
        {"resolution": 7},
        {"resolution": 513},
        {"box_mm": 0},
        {"mode_pool": 4},
        {"name": "ifl2021"},
        {"lattice": "edge"},
        {"centers": [0, 0.5]},
        {"centers": [0, 0.5, 0.5]},
        {"centers": [0, 0.7, 0.5]},
        {"centers": [0, float("nan"), 0.5]},
    ],
    ids=str,
)
def test_a_recipe_refuses_what_it_does_not_know(change: dict[str, object]) -> None:
    with pytest.raises(ValidationError, match=next(iter(change))):
        Recipe.model_validate(change)


@pytest.mark.parametrize(("name", "resolution", "window"), [("box", None, None), ("box", 4, None), ("box", 32, 5)])
def test_settings_that_make_no_recipe_are_named(name: RecipeName, resolution: int | None, window: int | None) -> None:
    with pytest.raises(UsageError, match="Remedy"):
        recipe_for(name, resolution, window)


@pytest.fixture(scope="module")
def cohort(people: list[Person], tmp_path_factory: pytest.TempPathFactory) -> list[Case]:
    folder = tmp_path_factory.mktemp("cohort")
    return [Case(str(n), save_person(folder / f"{n}.nii.gz", person)) for n, person in enumerate(people)]


def test_centres_are_fitted_on_the_scans_that_can_be_read(cohort: list[Case], tmp_path: Path) -> None:
    (tmp_path / "bad.nii.gz").write_text("no scan")
    centers = fit_cohort_centers([*cohort, Case("bad", tmp_path / "bad.nii.gz")], BOX, 6)
    assert len(centers) == 6 and centers[0] == 0 and (np.diff(centers) > 0).all()
    assert centers == fit_cohort_centers([*cohort, Case("bad", tmp_path / "bad.nii.gz")], BOX, 6)
    with pytest.raises(ScanError) as caught:
        fit_cohort_centers([Case("bad", tmp_path / "bad.nii.gz")], BOX, 6)
    assert str(tmp_path / "bad.nii.gz") in str(caught.value) and "Remedy: " in str(caught.value)


def test_centres_from_every_source(cohort: list[Case], tmp_path: Path) -> None:
    (tmp_path / "centers.txt").write_text("0, 0.25\n0.5 0.75")
    assert read_centers("paper", cohort, BOX).centers == PAPER_CENTERS
    assert read_centers(str(tmp_path / "centers.txt"), cohort, BOX).centers == (0.0, 0.25, 0.5, 0.75)
    fitted = read_centers("fit:5", cohort, BOX)
    assert fitted.centers == fit_cohort_centers(cohort, BOX, 5)
    assert fitted.model_copy(update={"centers": BOX.centers}) == BOX


def test_a_resumed_fit_keeps_the_centres_that_it_began_with(cohort: list[Case]) -> None:
    before = Recipe(resolution=24, centers=(0.0, 0.2, 0.4, 0.6))
    assert read_centers("fit:4", cohort, BOX, before=before).centers == before.centers
    for source in ("fit:5", "paper"):
        assert read_centers(source, cohort, BOX, before=before) == read_centers(source, cohort, BOX)


@pytest.mark.parametrize("content", [None, "0 a 1", "0 0.5", "0 0.6 0.5", "", "0 nan 1"])
def test_centres_that_cannot_be_read_are_named(content: str | None, tmp_path: Path) -> None:
    path = tmp_path / "centers.txt"
    if content is not None:
        path.write_text(content)
    with pytest.raises(UsageError, match="Remedy") as caught:
        read_centers(str(path), [], BOX)
    assert str(path) in str(caught.value)


@pytest.mark.parametrize("source", ["fit:", "fit:ten", "fit:²", "fit:-3", "fit:2", "fit:65"])
def test_a_number_of_centres_that_makes_no_sense_is_named(source: str, cohort: list[Case]) -> None:
    if source == "fit:":
        assert len(read_centers(source, cohort, BOX).centers) == len(PAPER_CENTERS)
        return
    with pytest.raises(UsageError, match="Remedy"):
        read_centers(source, cohort, BOX)


class TestPosed:
    """A scan on the lattice of the training's frame."""

    @staticmethod
    def moved(native: StrippedScan, linear: np.ndarray) -> tuple[StrippedScan, np.ndarray]:
        """The same head, displaced in world space around its centre of mass, and the pose that undoes it."""
        affine = native.scan.affine
        centre = apply_affine(affine, ndimage.center_of_mass(native.brain))
        world = np.eye(4)
        world[:3, :3], world[:3, 3] = linear, centre - linear @ centre
        pose = np.eye(4)
        pose[:3, :3] = np.linalg.inv(linear)
        scan = native.scan
        return StrippedScan(Scan(scan.data, world @ affine, scan.header, scan.path), native.brain), pose

    @pytest.fixture
    def native(self, brain_data: np.ndarray) -> StrippedScan:
        affine = np.diag([7.0, 7.0, 7.0, 1.0])
        return StrippedScan(Scan(brain_data, affine, nib.Nifti1Header(), Path("a.nii")), brain_data > 0)

    @pytest.mark.parametrize(
        "linear",
        [euler2mat(0.3, -0.2, 0.4), np.diag([1.1, 0.9, 1.05]), np.eye(3) + 0.1 * np.triu(np.ones((3, 3)), 1)],
        ids=["rotation", "sizes", "shears"],
    )
    def test_a_displaced_head_is_prepared_as_if_it_lay_straight(self, native: StrippedScan, linear: np.ndarray) -> None:
        moved, pose = self.moved(native, linear)
        straight, posed = prepare_scan(native, None, BOX), prepare_scan(moved, None, BOX, pose)
        as_it_lies = prepare_scan(moved, None, BOX)
        np.testing.assert_allclose(posed.lattice.to_native, straight.lattice.to_native, atol=1e-6)
        assert (posed.classes == straight.classes).mean() > 0.999
        assert (as_it_lies.classes == straight.classes).mean() < 0.99
        assert posed.scale == straight.scale

    def test_label_and_scan_lie_alike_and_come_back(self, native: StrippedScan) -> None:
        label = np.zeros(native.brain.shape, np.uint8)
        label[8:13, 10:16, 8:13] = 3
        pose = np.eye(4)
        pose[:3, :3] = euler2mat(0.2, 0.1, -0.3) * 1.05
        posed = prepare_scan(native, label, Recipe(resolution=48), pose)
        assert posed.label is not None and set(np.unique(posed.label)) == {0, 3}
        back = to_native((posed.label > 0).astype(np.float32), posed.lattice) > 0.5
        assert 2 * (back & (label > 0)).sum() / (back.sum() + (label > 0).sum()) > 0.9

    @published
    @pytest.mark.usefixtures("small")
    def test_a_published_recipe_takes_none(self, tmp_path: Path, name: RecipeName) -> None:
        native = as_stripped(save_published(tmp_path / "a.nii", name), dtype=np.float64)
        with pytest.raises(UsageError, match="takes no pose"):
            prepare_scan(native, None, recipe_for(name, 16), np.eye(4))

    @pytest.mark.parametrize("pose", [np.eye(3), np.diag([-1.0, 1, 1, 1]), np.full((4, 4), np.nan)])
    def test_what_is_no_pose_is_refused(self, native: StrippedScan, pose: np.ndarray) -> None:
        with pytest.raises(UsageError, match="no affine map"):
            prepare_scan(native, None, BOX, pose)
