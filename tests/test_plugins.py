"""Plug-ins: those of the documentation work in every verb, and a broken one is named while the others go on."""

from __future__ import annotations

import json
import re
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch

from anofield._plugins import GROUPS, installed
from anofield.baselines.registry import find_baseline, known_baselines
from anofield.cli import _options
from anofield.detect import trial
from anofield.detect.options import DetectOptions
from anofield.detect.run import detect_cases
from anofield.detect.scores import OWN_SCORES, SCORES, score_names, usable_scores
from anofield.errors import UsageError
from helpers import World, install, small_world, tiny_specs, uncalibrated

Run = Callable[..., Any]
PAGES = [Path(__file__).parents[1] / "docs/how-to" / name for name in ("extending.md", "baselines.md")]
PAIR = re.compile(
    r"```python\n((?:(?!```).)*)```\n\n```toml\n\[project.entry-points.\"([\w.]+)\"\]\n(.*?)```", re.DOTALL
)


def documented() -> list[tuple[str, str, str, str]]:
    """Group, name, place (`module:object`) and code of every plug-in of the pages."""
    found = [match.groups() for page in PAGES for match in PAIR.finditer(page.read_text())]
    lines = [(code, group, *line.split(" = ")) for code, group, lines in found for line in lines.split("\n") if line]
    return [(group, name, place.strip('"'), code) for code, group, name, place in lines]


@pytest.fixture(scope="class")
def of_the_pages(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """The package `yourpackage`, as the pages describe it, is installed."""
    site = tmp_path_factory.mktemp("site")
    points: dict[str, dict[str, str]] = {}
    for group, name, place, code in documented():
        module = site / (place.partition(":")[0].replace(".", "/") + ".py")
        module.parent.mkdir(exist_ok=True)
        module.write_text(code)
        points.setdefault(group, {})[name] = place
    install(site, "of_the_pages", "", points)
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(site)
        yield


@pytest.fixture(scope="session")
def world(tmp_path_factory: pytest.TempPathFactory) -> World:
    return small_world(tmp_path_factory.getbasetemp() / "world")


def run(anofield: Run, *words: object) -> Any:
    ended = anofield(*words)
    assert ended.code == 0, ended.err
    return ended


def test_the_pages_have_a_plugin_of_every_kind() -> None:
    assert sorted(group for group, *_ in documented()) == sorted(GROUPS.values())


@pytest.mark.usefixtures("of_the_pages")
class TestDocumentedPlugins:
    def test_a_score_is_calibrated_and_detected_with(self, world: World, anofield: Run, tmp_path: Path) -> None:
        name = next(name for group, name, *_ in documented() if group == GROUPS["score"])
        model = uncalibrated(world, tmp_path / "experiment").path
        info = json.loads(run(anofield, "calibrate", "-m", model, "-i", world.root / "healthy", "--json").out)
        assert info["thresholds"][name] > 0 and set(info["thresholds"]) == {*OWN_SCORES, "intensity", name}
        words = ("detect", "-m", model, "-i", world.glioma[0].image, "--json")
        found = json.loads(run(anofield, *words, "-o", tmp_path / "main", "--score", name).out)
        assert found["threshold"]["value"] == info["thresholds"][name]
        run(anofield, *words, "-o", tmp_path / "also", "--also", name)
        assert len(list((tmp_path / "also").glob(f"*/score-{name}.nii.gz"))) == 1
        assert name in _options.score_names()

    def test_a_baseline_is_trained_calibrated_and_detected_with(
        self, world: World, anofield: Run, tmp_path: Path
    ) -> None:
        name = next(name for group, name, *_ in documented() if group == GROUPS["baseline"])
        assert name in run(anofield, "baseline", "list").out
        model, word = tmp_path / "model", ("baseline", name)
        run(anofield, *word, "train", "--data", world.root / "train.zarr", "-o", model, "-d", "cpu")
        run(anofield, *word, "calibrate", "-m", model, "-i", world.root / "healthy")
        words = (*word, "detect", "-m", model, "-i", world.glioma[0].image, "-o", tmp_path / "run", "--json")
        assert json.loads(run(anofield, *words).out)["score"] == name

    def test_a_field_is_trained_calibrated_and_detected_with(self, world: World, anofield: Run, tmp_path: Path) -> None:
        name = next(name for group, name, *_ in documented() if group == GROUPS["field"])
        model, network = tmp_path / "experiment", {"dims": [32, 32], "dim_out": 6}
        specs = tiny_specs(NetworkArch=name, NetworkSpecs=network, NumEpochs=2, BrainFraction=0.8)
        model.mkdir()
        (model / "specs.json").write_text(json.dumps(specs.dump()))
        run(anofield, "train", "-e", model, "--data", world.root / "train.zarr", "-d", "cpu")
        run(anofield, "calibrate", "-m", model, "-i", world.root / "healthy", "-d", "cpu")
        words = ("detect", "-m", model, "-i", world.glioma[0].image, "-o", tmp_path / "run", "-d", "cpu", "--json")
        assert json.loads(run(anofield, *words).out)["threshold"]["value"] > 0


BROKEN = """
import random
import torch
from anofield.baselines.base import Baseline, Scored

def plain(log_p, observed, tail):
    return -log_p.gather(1, observed[:, None])[:, 0]

def infinite(log_p, observed, tail):
    return (log_p.exp() * log_p).sum(dim=1)

def certain(log_p, observed, tail):
    return plain(log_p, observed, tail) / torch.special.entr(log_p.exp()).sum(dim=1)

def raising(log_p, observed, tail):
    return {}[tail]

def one_tail(log_p, observed, tail):
    if tail == "dark":
        raise NotImplementedError
    return plain(log_p, observed, tail)

def square(log_p, observed, tail):
    return log_p.clamp_min(-1)

def listed(log_p, observed, tail):
    return plain(log_p, observed, tail).tolist()

def flags(log_p, observed, tail):
    return plain(log_p, observed, tail) > 1

def careless(log_p, observed, tail):
    return plain(log_p.clamp_(min=-5), observed, tail)

def dice(log_p, observed, tail):
    return plain(log_p, observed, tail) + random.random()

NUMBER = 3

class Whole(Baseline):
    title, paper = "returns nothing", "none"
    def score(self, prepared, key, tail):
        return Scored(prepared.intensity * float("nan"))

class Flat(Whole):
    def score(self, prepared, key, tail):
        return Scored(prepared.intensity[0])

class Raising(Whole):
    def train(self, store):
        raise KeyError("nothing")

class Half(Baseline):
    title, paper = "no score", "none"

class Untitled(Baseline):
    def score(self, prepared, key, tail):
        return Scored(prepared.intensity)
"""
FUNCTIONS = ("plain", "infinite", "certain", "raising", "one_tail", "square", "listed", "flags", "careless", "dice")
SCORE_PLACES = {name: f"broken_plugins:{name}" for name in FUNCTIONS}
WRONG = {
    "infinite": "is not finite: nan",
    "certain": "is not finite",
    "raising": "KeyError",
    "one_tail": "tail 'dark'.*NotImplementedError",
    "square": "the shape",
    "listed": "list, not a torch tensor",
    "flags": "torch.bool",
    "careless": "changes its arguments",
    "dice": "other values",
    "number": "is not a function",
    "gone": "cannot be imported.*ModuleNotFoundError",
    "missing": "cannot be imported.*AttributeError",
    "leaving": "cannot be imported.*SystemExit",
    "a/b": "cannot be part of a file name",
}


@pytest.fixture(scope="class")
def broken(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """A package of broken plug-ins and a good one."""
    site = tmp_path_factory.mktemp("site")
    (site / "leaving_plugin.py").write_text("raise SystemExit(3)")
    scores = SCORE_PLACES | {"number": "broken_plugins:NUMBER", "gone": "no_such_package:score", "crps": "x:y",
                             "missing": "broken_plugins:nothing", "leaving": "leaving_plugin:score",
                             "a/b": "broken_plugins:plain"}  # fmt: skip
    baselines = {name.lower(): f"broken_plugins:{name}" for name in ("Whole", "Flat", "Raising", "Half", "Untitled")}
    baselines |= {"text": "broken_plugins:NUMBER", "gone": "no_such_package:Thing", "zscore": "x:y"}
    install(site, "broken_plugins", BROKEN, {GROUPS["score"]: scores, GROUPS["baseline"]: baselines})
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(site)
        yield


@pytest.mark.usefixtures("broken")
class TestBrokenScores:
    @pytest.mark.parametrize("name", WRONG)
    def test_is_named_with_its_package_when_it_is_asked_for(self, name: str) -> None:
        with pytest.raises(UsageError, match=rf"score '{name}' of the package broken_plugins 1.0.*{WRONG[name]}"):
            SCORES[name]

    def test_is_left_out_and_named_once_where_all_are_meant(self, capsys: pytest.CaptureFixture[str]) -> None:
        assert usable_scores() == [*OWN_SCORES, "plain", "intensity"]
        told = capsys.readouterr().err
        assert [name for name in WRONG if f": the score '{name}' of the package" not in told] == []
        assert [line[:10] for line in told.splitlines()] == ["left out: "] * len(WRONG)
        usable_scores()
        assert capsys.readouterr().err == ""

    def test_names_are_listed_without_an_import(self, anofield: Run) -> None:
        assert list(SCORES) == [*OWN_SCORES, *SCORE_PLACES, *(name for name in WRONG if name not in SCORE_PLACES)]
        assert score_names().count("crps") == _options.score_names().count("crps") == 1
        assert "infinite" in _options.score_names()
        assert all(anofield(*words).code == 0 for words in (["detect", "--help"], ["baseline", "--help"], ["info"]))

    def test_the_others_are_calibrated(self, world: World, anofield: Run, tmp_path: Path) -> None:
        model = uncalibrated(world, tmp_path / "experiment").path
        ended = run(anofield, "calibrate", "-m", model, "-i", world.root / "healthy", "--json")
        assert set(json.loads(ended.out)["thresholds"]) == {*OWN_SCORES, "intensity", "plain"}
        for how in (("--score", "infinite"), ("--also", "infinite")):
            ended = anofield("detect", "-m", model, "-i", world.glioma[0].image, "-o", tmp_path / "run", *how)
            assert ended.code == 2 and not (tmp_path / "run").exists()
            assert "'infinite' of the package broken_plugins 1.0 is not finite" in ended.err

    def test_that_is_not_there_is_a_missing_key(self) -> None:
        assert "entropy" not in SCORES and SCORES["crps"] is OWN_SCORES["crps"] and len(SCORES) == len(list(SCORES))
        assert DetectOptions(score="plain", also=("plain",)).names == ["plain"]
        with pytest.raises(KeyError):
            SCORES["entropy"]

    def test_is_refused_from_python_before_the_first_scan(self, world: World, tmp_path: Path) -> None:
        with pytest.raises(UsageError, match="'raising' of the package broken_plugins"):
            detect_cases(world.glioma, world.model, DetectOptions(score="raising"), tmp_path / "run")
        assert not (tmp_path / "run").exists()

    def test_results_on_real_scans_are_checked_too(self) -> None:
        log_p = torch.log_softmax(torch.randn(5, 4), dim=1)
        log_p[3, 2] = torch.nan
        with pytest.raises(UsageError, match=r"'plain' of the package broken_plugins 1.0 is not finite"):
            SCORES["plain"](log_p, torch.full((5,), 2), "bright")


class TestTrial:
    @pytest.mark.parametrize("name", OWN_SCORES)
    @pytest.mark.parametrize("classes", trial.CLASSES)
    def test_our_own_scores_would_pass(self, name: str, classes: int) -> None:
        for tail in ("bright", "dark", "both"):
            assert torch.isfinite(OWN_SCORES[name](*trial.voxels(classes), tail)).all()

    def test_has_the_extremes(self) -> None:
        log_p, observed = trial.voxels(6)
        p, seen = log_p.exp(), log_p.gather(1, observed[:, None])
        assert torch.isfinite(seen).all() and bool((seen.exp() == 0).any()) and bool((seen == 0).any())
        assert bool((log_p == -torch.inf).any()) and bool((p == 1).any()) and bool((p[:, 0] == p[:, -1]).any())
        assert set(observed.tolist()) == set(range(6)) and log_p.dtype == torch.float32


@pytest.mark.usefixtures("broken")
class TestBrokenBaselines:
    def test_are_named_and_the_others_are_listed(self, anofield: Run) -> None:
        ended = run(anofield, "baseline", "list")
        assert known_baselines().count("zscore") == 1
        for name, told in {"half": "does not define score", "untitled": "no text 'title'", "text": "not a subclass",
                           "gone": "cannot be imported"}.items():  # fmt: skip
            line = next(line for line in ended.out.splitlines() if line.startswith(f"{name} "))
            assert "of the package broken_plugins 1.0" in line and told in line
            with pytest.raises(UsageError, match=told):
                find_baseline(name)
        assert "zscore" in ended.out and anofield("baseline", "half", "train", "--help").code == 0

    @pytest.mark.parametrize(("name", "told"), [("whole", "not finite"), ("flat", "shape"), ("raising", "KeyError")])
    def test_are_refused_before_anything_is_written(
        self, name: str, told: str, world: World, anofield: Run, tmp_path: Path
    ) -> None:
        ended = anofield("baseline", name, "train", "--data", world.root / "train.zarr", "-o", tmp_path / "b")
        assert ended.code == 2 and f"'{name}' of the package broken_plugins 1.0" in ended.err and told in ended.err
        assert not (tmp_path / "b").exists()

    def test_that_break_later_are_refused_when_they_are_opened(
        self, world: World, anofield: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        import broken_plugins  # type: ignore[import-not-found]

        good = broken_plugins.Untitled.score
        with monkeypatch.context() as patch:
            patch.setattr(broken_plugins.Whole, "score", good)
            run(anofield, "baseline", "whole", "train", "--data", world.root / "train.zarr", "-o", tmp_path / "b")
        ended = anofield("baseline", "whole", "detect", "-m", tmp_path / "b", "-i", world.root / "healthy", "-o",
                         tmp_path / "run")  # fmt: skip
        assert ended.code == 2 and "not finite" in ended.err and not (tmp_path / "run").exists()


def test_two_packages_with_one_name_are_an_error_that_names_both(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for package in ("first_pack", "second_pack"):
        point = {GROUPS["score"]: {"twice": f"{package}:score"}}
        monkeypatch.syspath_prepend(install(tmp_path / package, package, "score = print", point))
    with pytest.raises(UsageError, match=r"'twice' of the package \w+_pack 1.0 has the name of one of the package"):
        installed("score")["twice"].load()
    shutil.copytree(tmp_path / "first_pack", tmp_path / "again")  # the same package twice is one
    monkeypatch.syspath_prepend(tmp_path / "again")
    assert len(installed("score")) == 1


def test_a_package_with_damaged_metadata_is_skipped(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "damaged-1.0.dist-info").mkdir()
    (tmp_path / "damaged-1.0.dist-info/entry_points.txt").write_text("[anofield.scores]\nnothing\n= =\n")
    monkeypatch.syspath_prepend(tmp_path)
    assert installed("score") == {} and installed("baseline", own=["zscore"]) == {}
