"""The synthetic cohort: what it promises about individuals, lesions and files."""

from __future__ import annotations

import json
from functools import cache
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
from scipy import ndimage

from anofield.errors import UsageError
from anofield.phantom.cohort import Cohort, plan_cohort, write_case, write_cohort
from anofield.phantom.contrast import MODALITIES
from anofield.phantom.layouts import LAYOUTS, Grid, case_name, case_paths, grid_of
from anofield.phantom.lesions.kinds import LESION_KINDS
from anofield.phantom.person import Look, Person, make_person
from images import load_image

SMALL = grid_of("hcp", 32)
MEDIUM = grid_of("hcp", 64)


@cache
def _ill(number: int, kind: str) -> Person:
    """A person with a lesion on T2w; made once for the tests that only look."""
    return make_person(2, number, MEDIUM, lesion=kind)


def _same(a: Person, b: Person) -> bool:
    return np.array_equal(a.image, b.image) and np.array_equal(a.label, b.label)


def _resampled(volume: np.ndarray, source: Grid, target: Grid) -> np.ndarray:
    """Linear resampling of a volume onto another grid by the affines."""
    step = np.linalg.inv(source.affine) @ target.affine
    return ndimage.affine_transform(
        volume.astype(np.float32), step[:3, :3], step[:3, 3], output_shape=target.shape, order=1
    )


def _dice(a: np.ndarray, b: np.ndarray) -> float:
    return 2 * float((a & b).sum()) / float(a.sum() + b.sum())


@pytest.mark.slow
@pytest.mark.parametrize("lesion", [None, *LESION_KINDS])
def test_a_case_is_a_function_of_seed_number_and_options(lesion: str | None) -> None:
    first = make_person(3, 1, SMALL, lesion=lesion)
    make_person(3, 0, SMALL)
    assert _same(first, make_person(3, 1, SMALL, lesion=lesion))


@pytest.mark.slow
def test_seeds_and_numbers_make_different_people() -> None:
    people = [make_person(seed, number, SMALL).brain for seed, number in ((0, 0), (0, 1), (1, 0))]
    overlaps = [_dice(people[i], people[j]) for i, j in ((0, 1), (0, 2), (1, 2))]
    assert max(overlaps) < 0.97


@pytest.mark.slow
@pytest.mark.parametrize("modality", MODALITIES)
@pytest.mark.parametrize("lesion", [None, "glioma", "dark"])
def test_outside_is_zero_and_inside_is_positive(modality: str, lesion: str | None) -> None:
    person = make_person(0, 2, SMALL, lesion=lesion, look=Look(modality=modality))
    assert person.image.dtype == np.float32 and person.label.dtype == np.uint8 and person.brain.dtype == bool
    assert not person.image[~person.brain].any()
    assert person.image[person.brain].min() > 0


@pytest.mark.slow
def test_all_modalities_share_anatomy_and_truth() -> None:
    people = [make_person(0, 4, SMALL, lesion="glioma", look=Look(modality=m)) for m in MODALITIES]
    assert all(np.array_equal(people[0].brain, p.brain) for p in people)
    assert all(np.array_equal(people[0].label, p.label) for p in people)


@pytest.mark.slow
@pytest.mark.parametrize("kind", LESION_KINDS)
def test_a_lesion_changes_nothing_far_away(kind: str) -> None:
    healthy, ill = make_person(0, 6, MEDIUM), make_person(0, 6, MEDIUM, lesion=kind)
    assert np.array_equal(healthy.brain, ill.brain)
    distance = ndimage.distance_transform_edt(ill.label == 0, sampling=MEDIUM.spacing)
    change = np.abs(healthy.image - ill.image) / np.median(healthy.image[healthy.brain])
    assert change[healthy.brain & (distance > 60)].max(initial=0) < 0.02
    assert change[ill.label > 0].mean() > (0.03 if kind == "infiltration" else 0.1)


@pytest.mark.slow
def test_a_lesion_without_contrast_leaves_only_its_mass_effect() -> None:
    healthy, hidden = make_person(0, 6, SMALL), make_person(0, 6, SMALL, lesion="small", look=Look(lesion_contrast=0))
    np.testing.assert_allclose(healthy.image, hidden.image, rtol=1e-4)
    assert hidden.label.any()


@pytest.mark.slow
def test_gliomas_displace_their_surroundings() -> None:
    healthy = make_person(0, 6, MEDIUM, look=Look(noise=0))
    hidden = make_person(0, 6, MEDIUM, lesion="glioma", look=Look(lesion_contrast=0, noise=0))
    change = np.abs(healthy.image - hidden.image)[healthy.brain]
    assert change.max() > 0.1 * np.median(healthy.image[healthy.brain])


@pytest.mark.slow
@pytest.mark.parametrize("layout", ["hcp", "brats"])
def test_anatomy_in_mm_does_not_depend_on_the_grid(layout: str) -> None:
    coarse, fine = grid_of(layout, 64), grid_of(layout, 96)
    low, high = (make_person(5, 1, grid, lesion="glioma") for grid in (coarse, fine))
    assert _dice(_resampled(low.brain, coarse, fine) > 0.5, high.brain) > 0.97
    assert _dice(_resampled(low.label > 0, coarse, fine) > 0.5, high.label > 0) > 0.85


@pytest.mark.slow
@pytest.mark.parametrize("layout", LAYOUTS)
def test_heads_fit_the_native_field_of_view(layout: str) -> None:
    native = grid_of(layout, "native")
    every = np.diag([4.0, 4.0, 2.0, 1.0])  # same field of view, fewer voxels
    shape = (native.shape[0] // 4, native.shape[1] // 4, (native.shape[2] + 1) // 2)
    for number in range(2):
        brain = make_person(9, number, Grid(shape, native.affine @ every)).brain
        inner = brain[1:-1, 1:-1, 1:-1]
        assert inner.sum() == brain.sum() > 0


@pytest.mark.slow
@pytest.mark.parametrize(
    ("kind", "labels", "least", "most"),
    [("glioma", {1, 2, 4}, 5, 120), ("small", {2}, 0.05, 12), ("dark", {1}, 1, 45)],
)
def test_lesions_lie_in_the_brain_with_declared_labels_and_sizes(
    kind: str, labels: set[int], least: float, most: float
) -> None:
    volumes = []
    for number in range(4):
        person = _ill(number, kind)
        assert set(np.unique(person.label)) - {0} <= labels
        assert person.brain[person.label > 0].all()
        volumes.append((person.label > 0).sum() * np.prod(MEDIUM.spacing) / 1000)
    assert least < min(volumes) and max(volumes) < most
    assert max(volumes) > 1.2 * min(volumes)


@pytest.mark.slow
@pytest.mark.parametrize(("kind", "sign"), [("glioma", 1), ("small", 1), ("dark", -1)])
def test_contrast_on_t2w_against_the_surroundings(kind: str, sign: int) -> None:
    for number in range(2):
        person = _ill(number, kind)
        ill = person.label > 0
        around = ndimage.binary_dilation(ill, iterations=4) & ~ndimage.binary_dilation(ill) & person.brain
        difference = np.median(person.image[ill]) - np.median(person.image[around])
        assert sign * difference > 0.1 * np.median(person.image[around])


@pytest.mark.slow
def test_fluid_stays_brighter_than_oedema_on_t2w() -> None:
    for number in range(2):
        person = _ill(number, "glioma")
        healthy = person.image[person.brain & (person.label == 0)]
        assert np.quantile(healthy, 0.99) > np.median(person.image[person.label == 2])


@pytest.mark.slow
@pytest.mark.parametrize("kind", LESION_KINDS)
def test_a_lesion_is_never_lost_on_a_coarse_grid(kind: str) -> None:
    assert make_person(0, 1, grid_of("hcp", 16), lesion=kind).label.any()


@pytest.mark.parametrize(
    ("layout", "shape", "spacing", "codes"),
    [
        ("hcp", (260, 311, 260), 0.7, ("L", "A", "S")),
        ("brats", (240, 240, 155), 1.0, ("L", "P", "S")),
        ("bids", (192, 232, 192), 1.0, ("R", "A", "S")),
    ],
)
def test_native_grids(layout: str, shape: tuple[int, ...], spacing: float, codes: tuple[str, ...]) -> None:
    grid = grid_of(layout, "native")
    assert grid.shape == shape
    np.testing.assert_allclose(grid.spacing, spacing)
    assert nib.aff2axcodes(grid.affine) == codes
    cube = grid_of(layout, "64")
    assert cube.shape == (64, 64, 64) and nib.aff2axcodes(cube.affine) == codes
    np.testing.assert_allclose(cube.centre, grid.centre)


def test_published_affines() -> None:
    hcp = [[-0.7, 0, 0, 90], [0, 0.7, 0, -126], [0, 0, 0.7, -72], [0, 0, 0, 1]]
    np.testing.assert_array_equal(grid_of("hcp", "native").affine, hcp)
    brats = [[-1, 0, 0, 0], [0, -1, 0, 239], [0, 0, 1, 0], [0, 0, 0, 1]]
    np.testing.assert_array_equal(grid_of("brats", "native").affine, brats)


def test_names_are_unique_and_do_not_tell_the_group() -> None:
    for layout in LAYOUTS:
        names = {case_name(layout, number) for number in range(2000)}
        assert len(names) == 2000
        assert case_name(layout, 5, "glioma") == case_name(layout, 5)
    hcp = case_paths("hcp", "100101", "T1w", None).image
    assert hcp == Path("100101/T1w/T1w_acpc_dc_restore_brain.nii.gz")
    assert case_paths("brats", "B", "FLAIR", None).image == Path("B/B_flair.nii.gz")


@pytest.mark.slow
def test_brats_native_case(tmp_path: Path) -> None:
    path = write_case(tmp_path, Cohort("brats"), 3, "glioma")
    assert path == tmp_path / "Brats18_ANO_3_1" / "Brats18_ANO_3_1_t2.nii.gz"
    image, seg = load_image(path), load_image(path.with_name("Brats18_ANO_3_1_seg.nii.gz"))
    assert image.shape == seg.shape == (240, 240, 155)
    assert image.get_data_dtype() == np.int16 and seg.get_data_dtype() == np.uint8
    assert image.header["sform_code"] == image.header["qform_code"] == 1
    assert image.header.get_xyzt_units()[0] == "mm"
    np.testing.assert_array_equal(image.get_sform(), image.get_qform())
    data, label = np.asarray(image.dataobj), np.asarray(seg.dataobj)
    assert set(np.unique(label)) == {0, 1, 2, 4} and (data[label > 0] > 0).all()


@pytest.mark.slow
def test_brats_healthy_case_has_an_empty_label(tmp_path: Path) -> None:
    path = write_case(tmp_path, Cohort("brats", size=32, modality="T1w"), 0)
    seg = np.asarray(load_image(path.with_name("Brats18_ANO_0_1_seg.nii.gz")).dataobj)
    assert path.name == "Brats18_ANO_0_1_t1.nii.gz" and not seg.any()


@pytest.mark.slow
def test_hcp_tree_has_a_label_for_lesion_cases_only(tmp_path: Path) -> None:
    healthy, ill = write_cohort(tmp_path, Cohort("hcp", size=32), plan_cohort(1, 1))
    assert healthy == tmp_path / "100101" / "T1w" / "T2w_acpc_dc_restore_brain.nii.gz"
    assert load_image(healthy).get_data_dtype() == np.float32
    assert [p.name for p in healthy.parent.iterdir()] == [healthy.name]
    assert (ill.parent / "lesion_mask.nii.gz").exists()


@pytest.mark.slow
def test_bids_tree(tmp_path: Path) -> None:
    seen: list[tuple[int, int]] = []
    write_cohort(tmp_path, Cohort("bids", size=32), plan_cohort(1, 1), report=lambda a, b: seen.append((a, b)))
    write_cohort(tmp_path, Cohort("bids", size=32), plan_cohort(1, 0, first=2))
    assert seen == [(1, 2), (2, 2)]
    files = {p.relative_to(tmp_path).as_posix() for p in tmp_path.rglob("*") if p.is_file()}
    truth = "derivatives/phantom"
    assert files == {
        "README",
        "dataset_description.json",
        "participants.tsv",
        "participants.json",
        f"{truth}/dataset_description.json",
        f"{truth}/sub-ano0001/anat/sub-ano0001_label-lesion_mask.nii.gz",
        *(f"sub-ano000{i}/anat/sub-ano000{i}_T2w.nii.gz" for i in range(3)),
        *(f"{truth}/sub-ano000{i}/anat/sub-ano000{i}_desc-brain_mask.nii.gz" for i in range(3)),
    }
    rows = (tmp_path / "participants.tsv").read_text().splitlines()
    assert rows == [
        "participant_id\tgroup",
        "sub-ano0000\thealthy",
        "sub-ano0001\tglioma",
        "sub-ano0002\thealthy",
    ]
    described = json.loads((tmp_path / truth / "dataset_description.json").read_text())
    assert described["DatasetType"] == "derivative" and described["GeneratedBy"]


@pytest.mark.slow
def test_the_readme_of_a_tree_names_every_source(tmp_path: Path) -> None:
    write_cohort(tmp_path, Cohort("bids", size=32), plan_cohort(1, 0))
    readme = (tmp_path / "README").read_text()
    assert readme.count("- ") == 1 and "ICBM152" in readme
    (tmp_path / "README").write_text(readme.replace("ICBM152 2009a tissue maps", "maps of somebody"))
    write_cohort(tmp_path, Cohort("bids", size=32), plan_cohort(1, 0, first=1))
    assert (tmp_path / "README").read_text().count("- ") == 2


def test_the_tree_of_another_dataset_is_left_alone(tmp_path: Path) -> None:
    (tmp_path / "dataset_description.json").write_text('{"Name": "study of somebody"}')
    with pytest.raises(UsageError, match="is another dataset"):
        write_case(tmp_path, Cohort("bids", size=32), 0)
    assert [path.name for path in tmp_path.iterdir()] == ["dataset_description.json"]


@pytest.mark.slow
def test_files_are_the_same_whatever_the_order(tmp_path: Path) -> None:
    plan = plan_cohort(1, 1, first=7)
    write = {out: tmp_path / out for out in ("forward", "backward")}
    for number, kind in plan:
        write_case(write["forward"], Cohort("hcp", size=32, seed=1), number, kind)
    for number, kind in reversed(plan):
        write_case(write["backward"], Cohort("hcp", size=32, seed=1), number, kind)
    for path in write["forward"].rglob("*.nii.gz"):
        twin = write["backward"] / path.relative_to(write["forward"])
        assert path.read_bytes() == twin.read_bytes()


def test_cohort_plan() -> None:
    assert plan_cohort(2, 3, first=10) == [
        (10, None),
        (11, None),
        (12, "glioma"),
        (13, "small"),
        (14, "glioma"),
    ]
    assert plan_cohort(0, 1, kinds=("dark",)) == [(0, "dark")]


@pytest.mark.parametrize(
    ("call", "remedy"),
    [
        (lambda: grid_of("ixi", 64), "hcp, brats, bids"),
        (lambda: grid_of("hcp", "big"), "'native'"),
        (lambda: grid_of("hcp", 2), "8 to 512"),
        (lambda: make_person(0, 0, SMALL, lesion="stroke"), "glioma, small, dark"),
        (lambda: Look(modality="PD"), "T2w, T1w, FLAIR"),
        (lambda: make_person(0, -1, SMALL), "from 0"),
        (lambda: Look(noise=-1), "0 or more"),
        (lambda: make_person(0, 0, Grid((9, 9, 9), np.eye(4)[[1, 0, 2, 3]])), "grid_of"),
        (lambda: case_name("hcp", 10**6), "below"),
        (lambda: case_name("bids", -1), "from 0"),
        (lambda: plan_cohort(-1, 0), "0 or more"),
        (lambda: plan_cohort(0, 1, kinds=()), "glioma"),
        (lambda: plan_cohort(0, 1, kinds=("cyst",)), "glioma"),
        (lambda: Cohort("hcp", size=32, modality="PD"), "T2w"),
    ],
)
def test_bad_arguments_name_the_remedy(call: object, remedy: str) -> None:
    with pytest.raises(UsageError, match=r"Remedy: ") as caught:
        call()  # type: ignore[operator]
    assert remedy in caught.value.remedy
