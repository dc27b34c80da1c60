"""Detection options on the command line: those of the models and presets, and scores of any package."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any, get_args

import pytest
from pydantic import ValidationError

from anofield.cli import _options
from anofield.cli._detection import Preset, options_from
from anofield.cli._outcome import run_text
from anofield.cli._parameters import FLAGS, flag_of, refusal
from anofield.cli._verbs import load
from anofield.detect.options import (
    PRESETS,
    SMALL_LESIONS,
    DetectOptions,
    FitOptions,
    PublishedOptions,
    ScoreOptions,
)
from anofield.detect.run_folder import CaseInfo
from anofield.detect.scores import OWN_SCORES, SCAN_SCORES
from anofield.errors import UsageError
from helpers import World, install, small_world

Run = Callable[..., Any]
SCORES_MODULE = """
def surprise(log_p, observed, tail):
    return -log_p.gather(1, observed[:, None])[:, 0]
"""
VALUES = {name: "none" if name in ("pose", "intensity") else 1 for name in FLAGS} | {"tail": "bright"}
PLACE = {name: "fit" if name in FitOptions.model_fields else "filters" for name in FLAGS}


@pytest.fixture(scope="session")
def world(tmp_path_factory: pytest.TempPathFactory) -> World:
    return small_world(tmp_path_factory.getbasetemp() / "world")


def test_the_names_known_without_torch_are_the_scores_of_the_package() -> None:
    assert (*OWN_SCORES, *SCAN_SCORES) == _options.OWN_SCORES


class TestAnInstalledScore:
    @pytest.fixture
    def site(self, tmp_path: Path) -> Path:
        lines = {"surprise": "some_scores:surprise"}
        return install(tmp_path / "site", "some_scores", SCORES_MODULE, {"anofield.scores": lines})

    @pytest.mark.slow
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
        ended = anofield(*detect)
        assert ended.code == 2 and "'surprise' of the package gone 1.0 cannot be imported" in ended.err
        assert not (tmp_path / "run").exists()


def test_an_unknown_score_is_refused_with_the_known_ones(anofield: Run, tmp_path: Path) -> None:
    ended = anofield("detect", "-i", "a", "-m", tmp_path, "-o", tmp_path / "b", "--score", "entropy")
    assert ended.code == 2 and "score: unknown score 'entropy'; known: " in ended.err
    assert all(name in ended.err for name in _options.OWN_SCORES)


class TestThePublishedProcedure:
    @pytest.mark.parametrize("name", [name for name in FLAGS if name != "seed"])
    def test_refuses_every_option_that_it_fixes(self, name: str) -> None:
        given: Any = {PLACE[name]: {name: VALUES[name]}}
        with pytest.raises(UsageError, match=rf"--preset ifl2021 with {flag_of(name)}\. Remedy"):
            options_from("ifl2021", **given)

    def test_refuses_another_score(self) -> None:
        with pytest.raises(UsageError, match="--preset ifl2021 with --score crps"):
            options_from("ifl2021", score="crps")

    def test_takes_its_own_score_further_ones_and_the_seed(self) -> None:
        options = options_from("ifl2021", score="cross-entropy", also=("crps", "intensity"), fit={"seed": 3})
        assert options == PublishedOptions(also=("crps", "intensity"), seed=3)

    @pytest.mark.parametrize(("verb", "words"), [
        ("detect", ("--score", "deviation")), ("detect", ("--tail", "bright")), ("calibrate", ("--tail", "bright")),
    ])  # fmt: skip
    def test_is_so_on_the_command_line(self, verb: str, words: tuple[str, ...], anofield: Run, tmp_path: Path) -> None:
        out = ("-o", tmp_path / "run") if verb == "detect" else ()
        ended = anofield(verb, "-i", "a", "-m", tmp_path, *out, "--preset", "ifl2021", *words)
        assert ended.code == 2 and f"--preset ifl2021 with {words[0]}" in ended.err


def test_what_is_not_given_is_that_of_the_preset() -> None:
    assert options_from("default", also=("intensity",)) == DetectOptions()
    assert options_from("default", score="crps", filters={"tail": "both"}).filters.tail == "both"
    changed = options_from("small-lesions", fit={"pose": "none"}, filters={"gaussian_mm": 4.0})
    fit = SMALL_LESIONS.fit.model_copy(update={"pose": "none"})
    filters = SMALL_LESIONS.filters.model_copy(update={"gaussian_mm": 4.0})
    assert changed == DetectOptions(also=(), fit=fit, filters=filters)


def test_the_presets_of_the_command_line_are_those_of_the_package() -> None:
    assert get_args(Preset) == tuple(PRESETS)


@pytest.mark.parametrize(("values", "told"), [
    ({"rim_mm": -1}, "--rim-mm: must be at least 0, got -1"),
    ({"gaussian_mm": 300}, "--gaussian-mm: must be at most 200, got 300"),
    ({"edge_mm": float("nan")}, "--edge-mm: must be at most 200, got nan"),
    ({"tail": "left"}, "--tail: must be 'auto', 'bright', 'dark' or 'both', got left"),
])  # fmt: skip
def test_a_value_that_a_model_refuses_is_told_by_the_name_of_its_option(values: dict[str, Any], told: str) -> None:
    with pytest.raises(UsageError) as caught:
        options_from("default", filters=values)
    assert told in str(caught.value)


def test_a_fault_deep_in_a_model_has_the_name_of_its_option() -> None:
    with pytest.raises(ValidationError) as caught:
        DetectOptions.model_validate({"fit": {"intensity": "steep"}})
    assert str(refusal(caught.value)).startswith("--intensity-map: must be 'none' or 'smooth', got steep")


class TestTheOptionsOfAVerb:
    """They are those of the models: names, choices, limits, help and defaults."""

    @pytest.fixture(params=["detect", "calibrate"])
    def options(self, request: pytest.FixtureRequest) -> dict[str, Any]:
        return {option.name: option for option in load(request.param).params}

    @pytest.mark.parametrize("name", FLAGS)
    def test_have_help_and_default_of_their_field(self, name: str, options: dict[str, Any]) -> None:
        field = {**FitOptions.model_fields, **ScoreOptions.model_fields}[name]
        option = options[name]
        assert option.opts == [flag_of(name)] and option.default is None
        assert option.help == " ".join(str(field.description).split())
        default = "raw" if name == "standardise" else field.default
        assert option.show_default == (f"{default:g}" if isinstance(default, float) else str(default))

    @pytest.mark.slow
    @pytest.mark.parametrize("words", [
        ("--tail", "left"), ("--pose", "rigid"), ("--rim-mm", "-1"), ("--rim-mm", "201"), ("--seed", "-1"),
    ], ids=" ".join)  # fmt: skip
    @pytest.mark.parametrize("verb", ["detect", "calibrate"])
    def test_refuse_what_their_field_refuses(
        self, verb: str, words: tuple[str, str], anofield: Run, tmp_path: Path
    ) -> None:
        out = ("-o", tmp_path / "run") if verb == "detect" else ()
        ended = anofield(verb, "-i", "a", "-m", tmp_path, *out, *words)
        assert ended.code == 2 and f"'{words[0]}'" in ended.err

    def test_are_no_others(self, options: dict[str, Any]) -> None:
        assert not {"iterations", "points", "learning_rate", "margin", "stride"} & set(options)


def test_a_table_keeps_its_columns() -> None:
    empty: dict[str, Any] = dict.fromkeys(CaseInfo.model_fields)
    rows = [
        CaseInfo.model_construct(**{**empty, "id": f"c{n}", "threshold": 1.0, "lesions": n, "volume_ml": 2.5})
        for n in (0, 1, 12)
    ]
    assert run_text(rows, Path("run")).splitlines() == [
        "c0    0  findings  2.50 ml",
        "c1    1  finding   2.50 ml",
        "c12  12  findings  2.50 ml",
        "written to run",
    ]
