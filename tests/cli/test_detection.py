"""Detection options on the command line: scores of any package, and a preset that refuses what it would not heed."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from anofield.cli import _options
from anofield.cli._detection import SWITCHES, Preset, options_from
from anofield.cli._options import Tail
from anofield.detect.intensity import BASELINES
from anofield.detect.run import DetectOptions
from anofield.detect.scores import OWN_SCORES
from anofield.errors import UsageError
from helpers import World, install, small_world

Run = Callable[..., Any]
SCORES_MODULE = """
def surprise(log_p, observed, tail):
    return -log_p.gather(1, observed[:, None])[:, 0]
"""
VALUES = {name: "none" if name in ("pose", "intensity") else 1 for name in SWITCHES} | {"tail": Tail.bright}


@pytest.fixture(scope="session")
def world(tmp_path_factory: pytest.TempPathFactory) -> World:
    return small_world(tmp_path_factory.getbasetemp() / "world")


def test_the_names_known_without_torch_are_the_scores_of_the_package() -> None:
    assert (*OWN_SCORES, *BASELINES) == _options.OWN_SCORES


class TestAnInstalledScore:
    @pytest.fixture
    def site(self, tmp_path: Path) -> Path:
        lines = {"surprise": "some_scores:surprise"}
        return install(tmp_path / "site", "some_scores", SCORES_MODULE, {"anofield.scores": lines})

    def test_is_in_the_help(self, site: Path) -> None:
        code = "import sys; sys.path.insert(0, sys.argv.pop(1)); from anofield.cli import main; main()"
        command = [sys.executable, "-c", code, str(site), "detect", "--help"]
        ended = subprocess.run(command, capture_output=True, text=True, check=True)
        assert "surprise" in ended.stdout

    def test_is_calibrated_and_makes_the_anomaly_map(
        self, site: Path, world: World, anofield: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.syspath_prepend(site)
        experiment = tmp_path / "experiment"
        shutil.copytree(world.experiment, experiment)
        ended = anofield("calibrate", "-m", experiment, "-i", world.root / "healthy")
        assert ended.code == 0 and "surprise" in ended.out, ended.err
        words = ("-m", experiment, "-i", world.glioma[0].image, "-o", tmp_path / "run")
        assert anofield("detect", *words, "--score", "surprise", "--also", "none").code == 0
        written = [json.loads(path.read_text()) for path in experiment.glob("calibrations/*.json")]
        (thresholds,) = (one["thresholds"] for one in written if one["settings"] == "default")
        found = json.loads(next((tmp_path / "run").glob("*/case.json")).read_text())
        assert (found["score"], found["threshold"]) == ("surprise", thresholds["surprise"])
        assert thresholds["surprise"] != thresholds["deviation"]

    def test_that_cannot_be_imported_stops_the_run(
        self, world: World, anofield: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        site = install(tmp_path / "site", "gone", "", {"anofield.scores": {"surprise": "gone:surprise"}})
        monkeypatch.syspath_prepend(site)
        words = ("-i", world.glioma[0].image, "-m", world.experiment)
        detect = ("detect", *words, "-o", tmp_path / "run", "--score", "surprise")
        for ended in (anofield(*detect), anofield("calibrate", *words)):
            assert ended.code == 2 and "'surprise' cannot be imported" in ended.err
        assert not (tmp_path / "run").exists()


def test_an_unknown_score_is_refused_with_the_known_ones(anofield: Run, tmp_path: Path) -> None:
    ended = anofield("detect", "-i", "a", "-m", tmp_path, "-o", tmp_path / "b", "--score", "entropy")
    assert ended.code == 2 and "score: unknown score 'entropy'; known: " in ended.err
    assert all(name in ended.err for name in _options.OWN_SCORES)


class TestThePublishedProcedure:
    @pytest.mark.parametrize("name", [name for name in SWITCHES if name != "seed"])
    def test_refuses_every_switch_that_it_does_not_heed(self, name: str) -> None:
        flag = {"intensity": "intensity-map"}.get(name, name.replace("_", "-"))
        with pytest.raises(UsageError, match=f"--preset ifl2021 with --{flag}"):
            options_from(Preset.ifl2021, None, "none", **{name: VALUES[name]})

    def test_refuses_another_score(self) -> None:
        with pytest.raises(UsageError, match="--preset ifl2021 with --score crps"):
            options_from(Preset.ifl2021, "crps", "none")

    def test_takes_its_own_score_further_ones_and_the_seed(self) -> None:
        options = options_from(Preset.ifl2021, "cross-entropy", "crps, intensity", seed=3, tail=None)
        assert options == DetectOptions.published(also=("crps", "intensity"), seed=3)

    @pytest.mark.parametrize(("verb", "words"), [
        ("detect", ("--score", "deviation")), ("detect", ("--tail", "bright")), ("calibrate", ("--tail", "bright")),
    ])  # fmt: skip
    def test_is_so_on_the_command_line(self, verb: str, words: tuple[str, ...], anofield: Run, tmp_path: Path) -> None:
        out = ("-o", tmp_path / "run") if verb == "detect" else ()
        ended = anofield(verb, "-i", "a", "-m", tmp_path, *out, "--preset", "ifl2021", *words)
        assert ended.code == 2 and f"--preset ifl2021 with {words[0]}" in ended.err


def test_no_score_and_no_tail_are_the_defaults() -> None:
    assert options_from(Preset.default, None, "intensity", tail=None, seed=0) == DetectOptions()
    assert options_from(Preset.default, "crps", "none", tail=Tail.both).filters.tail == "both"
