"""Baselines: what each knows, that training is repeatable and kept, that their runs are like the field's."""

from __future__ import annotations

import importlib.util
import json
import pickle
import resource
import shutil
import signal
import sys
from dataclasses import replace
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest
import torch
from torch.distributions import Normal, kl_divergence

from anofield._plugins import GROUPS
from anofield.baselines.base import Baseline, Scored, observed, tail_of
from anofield.baselines.dae import coarse_noise
from anofield.baselines.networks import Gaussian
from anofield.baselines.registry import BUILT_IN, find_baseline
from anofield.baselines.restoration import restore, total_variation
from anofield.baselines.run import (
    TrainedBaseline,
    baseline_options,
    identity,
    load_baseline,
    make_settings,
    train_baseline,
)
from anofield.baselines.slices import Slicing, training_slices
from anofield.baselines.statistics import ZScore
from anofield.baselines.untrained import Asymmetry, mirror
from anofield.curves import exact_curve
from anofield.data.cohort.case import Case
from anofield.data.prepare import prepare_case
from anofield.data.prepared import Prepared
from anofield.data.recipe import Recipe
from anofield.data.store import Store
from anofield.detect.calibrate import calibrate
from anofield.detect.calibration import read_calibrations
from anofield.detect.run import detect_case, detect_cases
from anofield.errors import ExperimentError, MachineError, UsageError
from anofield.evaluation.evaluate import evaluate
from helpers import CENTERS, World, found_in, install, make_prepared, make_store, small_world, threshold_of, with_lesion
from images import load_image

INSTALLED = {name for name in ("monai",) if importlib.util.find_spec(name)}
ON_SLICES = ["ae-dense", "ae-spatial", "vae-dense", "vae-spatial", "vae-restore", "gmvae", "dae"]
NETWORKS = [*ON_SLICES, "disyre"]
SIMPLE = [name for name in BUILT_IN if name not in NETWORKS]
RESTORING = ["asymmetry", "zscore", "pca", "patch-memory", *NETWORKS]
RECIPE = Recipe(resolution=12, centers=CENTERS)
TINY: dict[str, Any] = {"steps": 12, "batch": 8, "width": 4, "latent": 4}
QUICK: dict[str, dict[str, Any]] = {
    **{name: {**TINY, **({"iterations": 3} if name in ("vae-restore", "gmvae") else {})} for name in ON_SLICES},
    "disyre": {"steps": 12, "width": 4, "crop": 16},
    "patch-memory": {"patches": 16, "candidates": 40},
}


def every(names: list[str]) -> list[Any]:
    """The names as parameters; networks only where MONAI is."""
    skipped = pytest.mark.skipif("monai" not in INSTALLED, reason="MONAI is not installed")
    return [pytest.param(name, marks=skipped) if name in NETWORKS else name for name in names]


@pytest.fixture(scope="session")
def store(tmp_path_factory: pytest.TempPathFactory) -> Store:
    return make_store(tmp_path_factory.mktemp("baselines") / "train.zarr", people=5)


def trained(name: str, store: Store, folder: Path, **changes: Any) -> TrainedBaseline:
    settings = make_settings(name, {**QUICK.get(name, {}), **changes})
    return train_baseline(name, store, folder, settings, device="cpu")


def grainy(seed: int) -> Prepared:
    """The same anatomy for everybody, every voxel of the rind a class brighter now and then."""
    body = make_prepared(0)
    brighter = np.random.default_rng(seed).random(body.brain.shape) < 0.3
    return replace(body, classes=np.where(brighter & (body.classes == 1), 2, body.classes).astype(np.uint8))


def observed_of(body: Prepared) -> np.ndarray:
    return observed(body.classes, body.brain, body.recipe)


def volumes(store: Store) -> np.ndarray:
    return np.stack([observed(store.classes(i), store.brain(i) > 0, store.recipe) for i in range(len(store.ids))])


class TestZScore:
    def test_knows_mean_and_deviation_where_enough_people_have_brain(self, store: Store) -> None:
        method = ZScore(store.recipe)
        method.train(store)
        values = np.where(brains := np.stack([store.brain(i) > 0 for i in range(5)]), volumes(store), np.nan)
        known = brains.sum(0) >= 3
        np.testing.assert_allclose(method.mean[known], np.nanmean(values[:, known], 0), atol=1e-6)
        np.testing.assert_allclose(method.sd[known], np.nanstd(values[:, known], 0, ddof=1), atol=1e-5)
        elsewhere = method.mean[~known]
        np.testing.assert_allclose(elsewhere, np.nanmean(values), atol=1e-6)

    @pytest.mark.slow
    def test_finds_a_planted_lesion(self, tmp_path: Path) -> None:
        crowd = Store.create(
            tmp_path / "s.zarr", [Case(str(i), Path("x")) for i in range(12)], RECIPE, labels=False, side=12
        )
        people = [grainy(seed) for seed in range(13)]
        for row, person in enumerate(people[:12]):
            crowd.write(row, person, f"{row:064x}")
        method = ZScore(RECIPE)
        method.train(Store(crowd.path))
        healthy = people[12]
        ill = with_lesion(healthy)
        lesion = ill.classes != healthy.classes
        found = method.score(ill, "x", "bright").anomaly
        assert exact_curve(found[ill.brain], lesion[ill.brain]).average_precision() > 0.9
        assert method.score(ill, "x", "dark").anomaly[lesion].max() == 0


class TestPca:
    def test_leaves_nothing_of_the_people_it_spans(self, store: Store, tmp_path: Path) -> None:
        method = trained("pca", store, tmp_path).method
        for number in range(5):
            found = method.score(make_prepared(number), "x", "both")
            np.testing.assert_allclose(found.anomaly, 0, atol=2e-6)

    def test_leaves_a_lesion(self, store: Store, tmp_path: Path) -> None:
        method = trained("pca", store, tmp_path, components=2).method
        ill = with_lesion(make_prepared(0))
        lesion = ill.classes != make_prepared(0).classes
        found = method.score(ill, "x", "bright").anomaly
        assert found[lesion].mean() > 3 * found[ill.brain & ~lesion].mean()


class TestAsymmetry:
    @pytest.mark.parametrize("shift", [0, 1, -1])
    def test_is_zero_for_a_brain_that_is_its_own_mirror_image(self, shift: int) -> None:
        body = make_prepared(1)
        both = mirror(mirror(body.classes.astype(np.float32), 0, 0), 0, shift)  # room for the shift
        classes = np.maximum(both, mirror(both, 0, shift)).astype(np.uint8)
        whole = replace(body, classes=classes, brain=classes > 0)
        assert not Asymmetry(body.recipe).score(whole, "x", "both").anomaly.any()

    def test_finds_what_one_side_alone_has(self) -> None:
        body = make_prepared(1)
        classes = np.where(body.brain & body.brain[::-1], 1, 0).astype(np.uint8)
        symmetric = replace(body, classes=classes, brain=classes > 0)
        ill = with_lesion(symmetric)
        lesion = ill.classes != classes
        found = Asymmetry(body.recipe).score(ill, "x", "bright").anomaly
        np.testing.assert_array_equal(found > 0, lesion & mirror(ill.brain.astype(np.float32), 0, 0).astype(bool))

    def test_published_lattices_have_left_and_right_elsewhere(self) -> None:
        body = make_prepared(1)
        recipe = Recipe(name="ifl2021-hcp", resolution=12, centers=CENTERS, normalise="clip-minmax")
        turned = replace(body, classes=body.classes.T, brain=body.brain.T)
        one = Asymmetry(body.recipe).score(body, "x", "both").anomaly
        np.testing.assert_array_equal(Asymmetry(recipe).score(turned, "x", "both").anomaly, one.T)


def test_random_scores_are_worth_the_prevalence() -> None:
    body = make_prepared(0, 32)
    noise = find_baseline("random")(body.recipe)
    first = noise.score(body, "a", "bright").anomaly
    truth = np.zeros(body.brain.shape, dtype=bool)
    truth[10:20, 10:20, 10:20] = True
    share = truth[body.brain].mean()
    found = exact_curve(first[body.brain], truth[body.brain])
    assert found.average_precision() == pytest.approx(share, rel=0.15)
    assert found.roc_auc() == pytest.approx(0.5, abs=0.03)
    np.testing.assert_array_equal(first, noise.score(body, "a", "bright").anomaly)
    assert (first != noise.score(body, "b", "bright").anomaly).mean() > 0.99


def test_equalised_intensity_is_the_rank_whatever_the_contrast() -> None:
    body = make_prepared(0)
    method = find_baseline("equalised")(body.recipe)
    found = method.score(body, "x", "bright").anomaly
    bent = replace(body, intensity=body.intensity**3)
    np.testing.assert_allclose(method.score(bent, "x", "bright").anomaly, found, atol=1e-7)
    np.testing.assert_allclose(method.score(body, "x", "dark").anomaly[body.brain], 1 - found[body.brain], atol=1e-6)
    assert 0 < found[body.brain].min() < found.max() <= 1


@pytest.mark.parametrize(("tail", "kept"), [("bright", [0, 2]), ("dark", [1, 0]), ("both", [1, 2])])
def test_tails(tail: Any, kept: list[float]) -> None:
    assert tail_of(np.array([-1, 2], np.float32), tail).tolist() == kept


@pytest.mark.slow
@pytest.mark.parametrize(("resolution", "side"), [(12, 16), (32, 32), (48, 48), (129, 128), (160, 128)])
def test_slices_come_back_where_they_were(resolution: int, side: int) -> None:
    ramp = np.broadcast_to(np.linspace(0, 1, resolution, dtype=np.float32)[None, :, None], (resolution,) * 3)
    for axis in (0, 2):
        slicing = Slicing(axis, resolution)
        slices = slicing.cut(ramp.copy())
        assert slices.shape == (resolution, 1, side, side)
        np.testing.assert_allclose(slicing.paste(slices), ramp, atol=0 if resolution <= 128 else 0.01)


class TestEvery:
    @pytest.mark.slow
    @pytest.mark.parametrize("name", every(list(BUILT_IN)))
    def test_scores_alike_after_a_round_trip_and_after_a_second_training(
        self, store: Store, tmp_path: Path, name: str
    ) -> None:
        first, again = (trained(name, store, tmp_path / part) for part in "ab")
        loaded = load_baseline(tmp_path / "a", device="cpu")
        body = with_lesion(make_prepared(9))
        state = torch.get_rng_state()
        sent = pickle.loads(pickle.dumps(loaded))  # as to a worker process
        found = [made.method.score(body, "case", "both") for made in (first, again, loaded, sent)]
        assert torch.equal(state, torch.get_rng_state())
        assert first.hash == again.hash == loaded.hash
        for other in found[1:]:
            np.testing.assert_array_equal(found[0].anomaly, other.anomaly)
        assert found[0].anomaly.shape == (12, 12, 12)
        assert found[0].anomaly.dtype == np.float32
        assert np.isfinite(found[0].anomaly).all()
        assert (found[0].restoration is not None) == (name in RESTORING)
        assert loaded.training_ids == store.ids

    @pytest.mark.slow
    @pytest.mark.parametrize("name", every(NETWORKS))
    def test_learns_a_small_set(self, store: Store, tmp_path: Path, name: str) -> None:
        made = trained(name, store, tmp_path, steps=60, width=8, learning_rate=5e-3)
        assert len(made.info.losses) == 20
        assert np.mean(made.info.losses[-3:]) < 0.7 * np.mean(made.info.losses[:2])

    @pytest.mark.slow
    @pytest.mark.parametrize("name", every(["zscore", "vae-dense"]))
    def test_another_seed_is_another_model_only_where_chance_plays(
        self, store: Store, tmp_path: Path, name: str
    ) -> None:
        states = [trained(name, store, tmp_path / str(seed), seed=seed).method.state() for seed in (0, 1)]
        same = all(torch.equal(value, states[1][key]) for key, value in states[0].items())
        assert same == (name == "zscore")


@pytest.mark.skipif("monai" not in INSTALLED, reason="MONAI is not installed")
class TestAugmentation:
    def test_without_it_the_slices_are_those_of_the_store(self, store: Store) -> None:
        method: Any = find_baseline("dae")(store.recipe, make_settings("dae", {"augment": False}))
        drawn = method.images_of(store)(torch.Generator().manual_seed(7))
        slices = training_slices(store, Slicing.of(store.recipe))
        chosen = torch.randint(len(slices), (16,), generator=torch.Generator().manual_seed(7))
        assert torch.equal(drawn, slices[chosen].float())

    def test_it_is_the_default_and_moves_the_heads(self, store: Store) -> None:
        method: Any = find_baseline("dae")(store.recipe, make_settings("dae", {}))
        drawn = method.images_of(store)(torch.Generator().manual_seed(7))
        known = training_slices(store, Slicing.of(store.recipe)).float()
        same = (drawn[:, None] == known[None]).flatten(2).all(2).any(1)
        assert drawn.shape == (16, 1, 16, 16)
        assert same.sum() < 12  # some are not moved

    def test_every_network_trained_in_steps_has_it_and_no_other_method(self) -> None:
        fields = {name: find_baseline(name).settings_type.model_fields for name in BUILT_IN}
        assert [name for name in BUILT_IN if "augment" in fields[name]] == NETWORKS
        assert [name for name in BUILT_IN if "steps" in fields[name]] == NETWORKS


def without(folder: Path, key: str) -> None:
    """Take a key out of `baseline.json`, as older versions wrote it: they wrote no checksum either."""
    about = json.loads((folder / "baseline.json").read_text())
    del about[key], about["checksum"]
    (folder / "baseline.json").write_text(json.dumps(about))


class TestFolder:
    def test_of_the_same_training_is_opened(self, store: Store, tmp_path: Path) -> None:
        trained("zscore", store, tmp_path)
        before = (tmp_path / "state.pth").stat().st_mtime_ns
        trained("zscore", store, tmp_path)
        assert (tmp_path / "state.pth").stat().st_mtime_ns == before

    def test_of_another_training_or_thing_is_refused(self, store: Store, tmp_path: Path) -> None:
        trained("zscore", store, tmp_path / "a")
        with pytest.raises(UsageError, match="another name"):
            trained("pca", store, tmp_path / "a")
        with pytest.raises(UsageError, match="another settings"):
            trained("zscore", store, tmp_path / "a", seed=4)
        (tmp_path / "b").mkdir()
        (tmp_path / "b" / "thesis.txt").write_text("mine")
        with pytest.raises(UsageError, match="holds no baseline"):
            trained("zscore", store, tmp_path / "b")

    def test_that_was_being_written_when_it_was_stopped_is_trained(self, store: Store, tmp_path: Path) -> None:
        for name in ("state.pth", ".partial-state.pth", ".partial-1-baseline.json"):
            (tmp_path / name).write_bytes(b"half")
        assert trained("zscore", store, tmp_path).name == "zscore"

    @pytest.mark.slow
    def test_damage_is_named(self, store: Store, tmp_path: Path) -> None:
        with pytest.raises(ExperimentError, match="anofield baseline NAME train"):
            load_baseline(tmp_path)
        trained("zscore", store, tmp_path / "a")
        trained("pca", store, tmp_path / "b")
        shutil.copy(tmp_path / "b" / "state.pth", tmp_path / "a" / "state.pth")
        without(tmp_path / "a", "state")
        with pytest.raises(ExperimentError, match="not the state of this baseline"):
            load_baseline(tmp_path / "a")
        (tmp_path / "a" / "state.pth").write_bytes(b"\x80\x04")
        with pytest.raises(ExperimentError, match=r"state\.pth.*cannot be read"):
            load_baseline(tmp_path / "a")
        (tmp_path / "a" / "baseline.json").write_text("{}")
        with pytest.raises(ExperimentError, match="damaged"):
            load_baseline(tmp_path / "a")

    def test_a_full_disk_is_named_and_leaves_nothing_half_written(self, store: Store, tmp_path: Path) -> None:
        """The process may write files of 2 kB at most: every state is larger."""
        limits = resource.getrlimit(resource.RLIMIT_FSIZE)
        ignored = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
        try:
            resource.setrlimit(resource.RLIMIT_FSIZE, (2_000, limits[1]))
            with pytest.raises(MachineError, match=r"state\.pth.*cannot be written") as caught:
                trained("zscore", store, tmp_path)
        finally:
            resource.setrlimit(resource.RLIMIT_FSIZE, limits)
            signal.signal(signal.SIGXFSZ, ignored)
        assert caught.value.exit_code == 6 and not list(tmp_path.iterdir())
        assert trained("zscore", store, tmp_path).name == "zscore"

    def test_a_recipe_without_a_key_is_refused(self, store: Store, tmp_path: Path) -> None:
        trained("zscore", store, tmp_path)
        about = json.loads((tmp_path / "baseline.json").read_text())
        del about["recipe"]["centers"], about["checksum"]  # older versions wrote no checksum
        (tmp_path / "baseline.json").write_text(json.dumps(about))
        with pytest.raises(ExperimentError, match=r"recipe lacks centers\b") as caught:
            load_baseline(tmp_path)
        assert caught.value.exit_code == 5 and caught.value.remedy

    def test_state_that_would_run_code_is_refused(self, store: Store, tmp_path: Path) -> None:
        trained("zscore", store, tmp_path)
        torch.save({"mean": Path("x")}, tmp_path / "state.pth")
        with pytest.raises(ExperimentError, match="cannot be read"):
            load_baseline(tmp_path)


class TestDamage:
    @pytest.mark.parametrize("file", ["state.pth", "baseline.json"])
    def test_a_flipped_bit_is_refused_or_changes_nothing(self, store: Store, tmp_path: Path, file: str) -> None:
        before, path = trained("pca", store, tmp_path), tmp_path / file
        data, generator = path.read_bytes(), np.random.default_rng(0)
        for _ in range(300):
            place = int(generator.integers(len(data)))
            path.write_bytes(
                data[:place] + bytes([data[place] ^ (1 << int(generator.integers(8)))]) + data[place + 1 :]
            )
            try:
                found = load_baseline(tmp_path, device="cpu")
            except (ExperimentError, UsageError):
                continue
            assert file == "baseline.json" and found.info == before.info  # the hash of the state is in it
            assert_alike(found.method.state(), before.method.state())

    def test_numbers_that_are_not_finite_are_refused_by_name(self, store: Store, tmp_path: Path) -> None:
        state = dict(trained("pca", store, tmp_path).method.state())
        state["mean"][3] = float("nan")
        torch.save(state, tmp_path / "state.pth")
        without(tmp_path, "state")
        with pytest.raises(ExperimentError, match=r"state\.pth: mean has 1 of \d+ values that are not finite"):
            load_baseline(tmp_path)

    def test_the_state_of_another_training_is_refused(self, store: Store, tmp_path: Path) -> None:
        trained("pca", store, tmp_path / "a")
        trained("pca", store, tmp_path / "b", components=2)
        shutil.copy(tmp_path / "b" / "state.pth", tmp_path / "a" / "state.pth")
        for use in (load_baseline, identity):
            with pytest.raises(ExperimentError, match=r"is not the file that baseline\.json names"):
                use(tmp_path / "a")

    @pytest.mark.parametrize(
        ("key", "value"),
        [("settings", {"width": 10**9}), ("settings", {"latent": 10**30}), ("recipe", {"resolution": 10**9}),
         ("recipe", {"centers": "wide"}), ("recipe", {"box_mm": -1})],
    )  # fmt: skip
    def test_absurd_values_are_refused_before_memory_is_taken(
        self, store: Store, tmp_path: Path, key: str, value: dict[str, Any]
    ) -> None:
        trained("pca", store, tmp_path)
        about = json.loads((tmp_path / "baseline.json").read_text())
        del about["checksum"]
        about["name"] = "ae-dense" if key == "settings" else "pca"
        about[key] = {**about[key], **value} if key == "recipe" else value
        (tmp_path / "baseline.json").write_text(json.dumps(about))
        with pytest.raises((ExperimentError, UsageError), match=next(iter(value))):
            load_baseline(tmp_path)

    def test_scans_that_changed_are_another_training(
        self, store: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """The ids are the same; a baseline of an older version does not know its scans, and is opened."""
        contents = ["a", "b", "c", "d", "e"]
        monkeypatch.setattr(Store, "contents", property(lambda self: contents))
        made = trained("zscore", store, tmp_path)
        assert (made.training_contents, made.epoch) == (contents, None)
        contents[2] = "z"
        with pytest.raises(UsageError, match="another contents"):
            trained("zscore", store, tmp_path)
        without(tmp_path, "contents")
        assert trained("zscore", store, tmp_path).training_contents == []


def assert_alike(one: dict[str, torch.Tensor], other: dict[str, torch.Tensor]) -> None:
    assert one.keys() == other.keys() and all(torch.equal(one[name], other[name]) for name in one)


class Brightness(Baseline):
    title = "brightness"
    paper = "none"

    def score(self, prepared: Prepared, key: str, tail: Any) -> Scored:
        return Scored(prepared.intensity)


class TestRegistry:
    def test_takes_baselines_from_entry_points(
        self, monkeypatch: pytest.MonkeyPatch, store: Store, tmp_path: Path
    ) -> None:
        places = {"brightness": "bright:Brightness", "zscore": "bright:Brightness"}
        monkeypatch.syspath_prepend(install(tmp_path / "site", "bright", "", {GROUPS["baseline"]: places}))
        module: Any = ModuleType("bright")
        module.Brightness = Brightness
        monkeypatch.setitem(sys.modules, "bright", module)
        assert find_baseline("brightness") is Brightness
        assert find_baseline("zscore") is ZScore
        assert trained("brightness", store, tmp_path / "model").name == "brightness"

    def test_errors_help(self) -> None:
        with pytest.raises(UsageError, match="did you mean vae-dense"):
            find_baseline("vae-dens")
        with pytest.raises(UsageError, match=r"depth.*components \(16\)"):
            make_settings("pca", {"depth": 3})

    def test_without_monai_the_remedy_is_named(
        self, monkeypatch: pytest.MonkeyPatch, store: Store, tmp_path: Path
    ) -> None:
        monkeypatch.setitem(__import__("sys").modules, "monai.networks.nets", None)
        with pytest.raises(MachineError, match=r"pip install 'anofield\[baselines\]'"):
            trained("dae", store, tmp_path)


@pytest.fixture(scope="session")
def world(tmp_path_factory: pytest.TempPathFactory) -> World:
    return small_world(tmp_path_factory.getbasetemp() / "world")


@pytest.fixture(scope="session")
def zscore(world: World) -> TrainedBaseline:
    """Trained and calibrated on the people of the field."""
    folder = world.root / "zscore"
    if not (folder / "calibrations").is_dir():
        made = trained("zscore", Store(world.root / "train.zarr"), folder)
        calibrate(world.healthy, made, baseline_options("zscore"))
    return load_baseline(folder)


CODES = {"ae-dense": 32, "ae-spatial": 4, "vae-dense": 32, "gmvae": 32, "dae": 1}  # `vae-spatial` would take long


@pytest.fixture(scope="session")
def learnt(world: World) -> dict[str, Any]:
    """Networks after a few seconds of training on phantom slices."""
    store, settings = Store(world.root / "train.zarr"), {"steps": 150, "batch": 16, "width": 8, "learning_rate": 5e-3}
    return {name: trained(name, store, world.root / name, **settings, latent=latent).method
            for name, latent in CODES.items()}  # fmt: skip


@pytest.mark.skipif("monai" not in INSTALLED, reason="MONAI is not installed")
class TestLearnt:
    def test_none_redraws_healthy_slices_worse_than_the_plain_autoencoder(
        self, world: World, learnt: dict[str, Any]
    ) -> None:
        errors = dict.fromkeys(CODES, 0.0)
        for case in world.healthy:
            body = prepare_case(case, learnt["dae"].recipe)
            slicing, values = Slicing.of(body.recipe), observed_of(body)
            for name, method in learnt.items():
                difference = slicing.paste(method.net.reconstruct(slicing.cut(values))) - values
                errors[name] += float(np.abs(difference[body.brain]).mean())
        assert max(errors.values()) < 1.15 * errors["ae-dense"], errors

    def test_what_nobody_has_is_redrawn_worse_than_the_rest(self, world: World, learnt: dict[str, Any]) -> None:
        body = prepare_case(world.healthy[0], learnt["dae"].recipe)
        lesion = np.zeros_like(body.brain)
        lesion[8:12, 10:14, 10:14] = True
        lesion &= body.brain
        ill = replace(body, classes=np.where(lesion, len(body.recipe.centers) - 1, body.classes).astype(np.uint8))
        for name, method in learnt.items():
            found = method.score(ill, "x", "bright").anomaly
            assert found[lesion].mean() > 1.5 * found[body.brain & ~lesion].mean(), name


class TestRun:
    def test_is_like_the_fields(self, world: World, zscore: TrainedBaseline, tmp_path: Path) -> None:
        options = baseline_options("zscore")
        bad = Case("bad", tmp_path / "no.nii.gz")
        run = detect_cases([*world.glioma, bad], zscore, options, tmp_path)
        assert [failure.id for failure in run.failures] == ["bad"]
        case = world.glioma[0]
        files = {"anomaly.nii.gz", "restoration.nii.gz", "mask.nii.gz", "lesions.tsv", "case.json"}
        assert {path.name for path in (tmp_path / case.id).iterdir()} == files
        source, image = load_image(case.image), load_image(tmp_path / case.id / "anomaly.nii.gz")
        np.testing.assert_array_equal(image.affine, source.affine)
        assert not np.asarray(image.dataobj)[np.asarray(source.dataobj) == 0].any()
        about = json.loads((tmp_path / "run.json").read_text())
        assert about["thresholds"]["zscore"] == threshold_of(zscore, options) == about["threshold"]["value"]
        results = evaluate(tmp_path, None, tmp_path / "results")
        assert results.scores["zscore"].ap > 0.3

    def test_goes_on_where_it_stopped(self, world: World, zscore: TrainedBaseline, tmp_path: Path) -> None:
        options = baseline_options("zscore")
        stamps = []
        for _ in range(2):
            detect_cases(world.glioma, zscore, options, tmp_path)
            stamps.append([path.stat().st_mtime_ns for path in sorted(tmp_path.glob("*/*"))])
        assert stamps[0] == stamps[1] and len(stamps[0]) == 10

    def test_has_no_restoration_where_the_method_has_none(self, world: World, tmp_path: Path) -> None:
        made = trained("equalised", Store(world.root / "train.zarr"), tmp_path / "model")
        found = found_in(world.glioma[0], made, baseline_options("equalised"))
        assert found.restoration is None
        detect_cases(world.glioma[:1], made, baseline_options("equalised"), tmp_path / "run")
        names = {path.name for path in (tmp_path / "run" / world.glioma[0].id).iterdir()}
        assert names == {"anomaly.nii.gz", "case.json"}

    def test_can_be_measured_against_reference_maps(self, world: World, tmp_path: Path) -> None:
        made = trained("pca", Store(world.root / "train.zarr"), tmp_path, components=3)
        standard = baseline_options("pca").filters.model_copy(update={"standardise": True})
        options = baseline_options("pca", standard)
        with pytest.raises(UsageError, match="reference maps"):
            found_in(world.glioma[0], made, options)
        calibrate(world.healthy, made, options)
        opened = load_baseline(tmp_path)
        plain = detect_case(world.glioma[0], made, baseline_options("pca"), None).maps["pca"]
        found = found_in(world.glioma[0], opened, options).maps["pca"]
        assert found.any()
        assert not np.array_equal(found, plain)

    def test_a_training_made_again_leaves_no_calibration(self, world: World, tmp_path: Path) -> None:
        store = Store(world.root / "train.zarr")
        calibrate(world.healthy, trained("equalised", store, tmp_path), baseline_options("equalised"))
        assert read_calibrations(tmp_path).found
        train_baseline("equalised", store, tmp_path, make_settings("equalised", {}), force=True)
        assert {path.name for path in tmp_path.iterdir()} == {"baseline.json", "state.pth"}

    def test_info_lists_its_calibrations(self, zscore: TrainedBaseline, anofield: Any) -> None:
        (found,) = json.loads(anofield("info", zscore.path, "--json").out)["calibrations"]
        assert (found["settings"], found["people"], found["holds"]) == ("default", 2, True)

    def test_refuses_training_cases_and_other_filters(self, world: World, zscore: TrainedBaseline) -> None:
        options = baseline_options("zscore")
        with pytest.raises(UsageError, match="used for training"):
            calibrate(world.training[:1], zscore, options)
        wider = options.model_copy(update={"filters": options.filters.model_copy(update={"minimum_mm": 1.0})})
        with pytest.raises(UsageError, match=r"minimum_mm was 9\.0, is 1\.0"):
            threshold_of(zscore, wider)


def test_command_line(anofield: Any, world: World, tmp_path: Path) -> None:
    model, run = tmp_path / "model", tmp_path / "run"
    assert all(name in anofield("baseline", "list").out for name in SIMPLE)
    assert "components=16" in anofield("baseline", "pca").out
    made = anofield("baseline", "pca", "train", "--data", world.root / "train.zarr", "-o", model,
                    "--set", "components=3", "--json")  # fmt: skip
    assert json.loads(made.out)["cases"] == 8
    scans = ("--dataset", "brats")
    assert anofield("baseline", "pca", "calibrate", "-m", model, "-i", world.root / "healthy", *scans).code == 0
    assert anofield("baseline", "pca", "detect", "-m", model, "-i", world.root / "glioma", *scans, "-o", run).code == 0
    assert json.loads((run / "run.json").read_text())["score"] == "pca"
    assert json.loads((run / "failures.json").read_text()) == []
    wrong = anofield("baseline", "zscore", "detect", "-m", model, "-i", world.root / "glioma", "-o", tmp_path / "other")
    assert wrong.code == 2
    assert "holds the baseline pca" in wrong.err
    assert anofield("baseline", "pca", "train", "--data", model, "-o", run, "--set", "x").code in (2, 4)


@pytest.mark.skipif("monai" not in INSTALLED, reason="MONAI is not installed")
class TestNetworks:
    @pytest.mark.slow
    def test_divergence_and_density_are_torchs(self) -> None:
        generator = torch.Generator().manual_seed(0)
        parts = torch.randn((4, 5), generator=generator)
        one, other = Gaussian(parts[0], parts[1]), Gaussian(parts[2], parts[3])
        normal, second = (Normal(g.mean, (g.log_variance / 2).exp()) for g in (one, other))
        torch.testing.assert_close(one.divergence(other), kl_divergence(normal, second))
        torch.testing.assert_close(one.divergence(), kl_divergence(normal, Normal(0.0, 1.0)))
        torch.testing.assert_close(one.log_density(parts[3]), normal.log_prob(parts[3]))

    @pytest.mark.slow
    @pytest.mark.parametrize("name", ["vae-restore", "gmvae"])
    def test_restoration_goes_uphill_and_leaves_the_background(self, store: Store, tmp_path: Path, name: str) -> None:
        method: Any = trained(name, store, tmp_path).method
        net = method.net
        images = Slicing.of(store.recipe).cut(observed_of(with_lesion(make_prepared(9))))[4:8]
        restored = restore(net, images, 10, 0.1, 0.0)
        before, after = (sum(net.free_energy(part, None)) for part in (images, restored))
        assert (after < before).all()
        assert not restored[images == 0].any()
        smoother = restore(net, images, 10, 0.1, 0.05)
        assert (total_variation(smoother - images) < total_variation(restored - images)).all()

    def test_coarse_noise_has_the_published_spread_and_grain(self) -> None:
        noise = coarse_noise(torch.zeros(200, 1, 64, 64), 16, 0.2, torch.Generator().manual_seed(0))
        assert abs(float(noise.mean())) < 0.01
        assert 0.1 < float(noise.std()) < 0.2  # interpolation between independent values narrows it
        pairs = {step: torch.corrcoef(torch.stack([noise[..., step:].ravel(), noise[..., :-step].ravel()]))[0, 1]
                 for step in (1, 16)}  # fmt: skip
        assert pairs[1] > 0.8
        assert abs(pairs[16]) < 0.1
