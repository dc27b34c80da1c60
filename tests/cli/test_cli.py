"""The command line: help without torch, machine-readable answers, the exit codes of its own making."""

from __future__ import annotations

import inspect
import json
import os
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from anofield._version import __version__
from anofield.cli import loaded, prepare
from anofield.cli._verbs import VERBS, load
from anofield.data.classes import PAPER_CENTERS
from anofield.data.nt import write_centers_pickle
from anofield.data.store import Store
from anofield.errors import Interrupted
from anofield.phantom.cohort import Cohort, write_case

Run = Callable[..., Any]


@pytest.mark.slow
@pytest.mark.parametrize("verb", VERBS)
@pytest.mark.parametrize("option", ["--help", "-h"])
def test_every_verb_explains_itself(verb: str, option: str, anofield: Run) -> None:
    ended = anofield(verb, option)
    assert ended.code == 0 and ended.err == ""
    assert f"anofield {verb}" in ended.out


def test_help_lists_every_verb_and_the_exit_codes(anofield: Run) -> None:
    ended = anofield("--help")
    assert ended.code == 0
    assert all(verb in ended.out for verb in VERBS)
    assert "Exit codes" in ended.out and "130/143" in ended.out


def test_the_help_of_the_program_has_the_first_line_of_every_verb() -> None:
    verbs = loaded().commands
    assert {name: inspect.cleandoc(verb.help).splitlines()[0] for name, verb in verbs.items()} == VERBS
    assert all(verb.name == name for name, verb in verbs.items())


@pytest.mark.parametrize("verb", ["prepare", "calibrate", "detect", "evaluate"])
def test_cases_can_be_shared_among_processes(verb: str) -> None:
    options = {option.name: option for option in load(verb).params}
    assert (options["workers"].default, options["scheduler"].default) == (1, None)


NO_VERB = """
import sys
from anofield.cli import main
sys.argv = ["anofield", "--help"]
try:
    main()
except SystemExit as stop:
    assert not stop.code
heavy = {"torch", "numpy", "pydantic", *(f"anofield.cli.{verb}" for verb in %r)} & set(sys.modules)
assert not heavy, heavy
"""


@pytest.mark.slow
def test_the_help_of_the_program_imports_no_verb() -> None:
    code = NO_VERB % sorted(VERBS)
    ended = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert ended.returncode == 0, ended.stderr


def test_a_verb_with_a_typing_error_is_suggested(anofield: Run) -> None:
    ended = anofield("prapare")
    assert ended.code == 2 and "Did you mean 'prepare'?" in ended.err


LIGHT = """
import sys
from anofield.cli import main
for words in (["--help"], ["--version"], *([verb, "--help"] for verb in {verbs!r})):
    sys.argv = ["anofield", *words]
    try:
        main()
    except SystemExit as stop:
        assert not stop.code, words
    assert "torch" not in sys.modules, words
import anofield.errors
from anofield.data import classes, cohort, lattice, prepare, scan
assert "torch" not in sys.modules
"""


@pytest.mark.slow
def test_help_and_the_modules_before_the_field_do_not_import_torch() -> None:
    ended = subprocess.run(
        [sys.executable, "-c", LIGHT.format(verbs=list(VERBS))], capture_output=True, text=True, check=False
    )
    assert ended.returncode == 0, ended.stderr


def test_version(anofield: Run) -> None:
    ended = anofield("--version")
    assert (ended.code, ended.out) == (0, f"anofield {__version__}\n")


def test_info_is_json_when_asked(anofield: Run) -> None:
    ended = anofield("info", "--json")
    content = json.loads(ended.out)
    assert ended.code == 0
    assert content["anofield"] == __version__ and content["verbs"] == list(VERBS)
    assert content["devices"][0].startswith("cpu") and content["packages"]["torch"]
    assert __version__ in anofield("info").out


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (("prepare", "--bogus"), "--bogus"),
        (("prapare",), "prapare"),
        (("prepare",), "--input"),
        (("prepare", "-i", "a", "-o", "b", "--recipe", "bax"), "bax"),
        (("prepare", "-i", "a", "-o", "b", "--workers", "0"), "--workers"),
        (("detect", "-i", "a", "-o", "b", "-m", "c", "--score", "entropy"), "entropy"),
        (("train", "-e", "e", "--precision", "half"), "half"),
        (("phantom", "-o", "p", "--healthy", "-1"), "--healthy"),
        (("phantom", "-o", "p", "--healthy", "0"), "no case"),
        (("phantom", "-o", "p", "--size", "4"), "'4'"),
        (("phantom", "-o", "p", "--lesion", "1", "--kinds", "tumour"), "tumour"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, tuple) else "",
)
def test_a_wrong_option_is_2_and_is_named(
    words: tuple[str, ...], told: str, anofield: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    ended = anofield(*words)
    assert ended.code == 2 and told in ended.err and "Traceback" not in ended.err
    assert ended.out == "" and not list(tmp_path.iterdir())


def test_no_verb_shows_the_help(anofield: Run) -> None:
    ended = anofield()
    assert ended.code == 2 and all(verb in ended.out + ended.err for verb in VERBS)


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_ends_with_its_own_code_and_says_how_to_go_on(
    number: signal.Signals, anofield: Run, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr("anofield.data.cohort.find.find_cases", lambda *a, **k: os.kill(os.getpid(), number))
    ended = anofield("prepare", "-i", tmp_path, "-o", tmp_path / "s.zarr")
    assert ended.code == 128 + number == Interrupted(number).exit_code
    assert "resumes where it stopped" in ended.err and "Traceback" not in ended.err


def test_a_defect_is_1_and_shows_where(anofield: Run, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr("anofield.data.cohort.find.find_cases", lambda *a, **k: 1 / 0)
    ended = anofield("prepare", "-i", tmp_path, "-o", tmp_path / "s.zarr")
    assert ended.code == 1 and "Traceback" in ended.err and "please report it: ZeroDivisionError" in ended.err


def test_too_little_memory_is_6(anofield: Run, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    def fill(*_: object, **__: object) -> None:
        raise MemoryError("12 GiB")

    monkeypatch.setattr("anofield.data.cohort.find.find_cases", fill)
    ended = anofield("prepare", "-i", tmp_path, "-o", tmp_path / "s.zarr")
    assert ended.code == 6 and "12 GiB" in ended.err and "Remedy" in ended.err and "Traceback" not in ended.err


@pytest.mark.slow
def test_phantom_then_prepare_is_a_store_with_labels(anofield: Run, tmp_path: Path) -> None:
    ended = anofield("phantom", "-o", tmp_path / "p", "--healthy", 1, "--lesion", 1, "--size", 32, "--layout", "brats")
    assert ended.code == 0
    scans = [Path(line) for line in ended.out.splitlines()]
    assert len(scans) == 2 and all(path.is_file() for path in scans)
    command = ("prepare", "-i", tmp_path / "p", "-o", tmp_path / "s.zarr", "--res", 16, "--labels", "--json")
    ended = anofield(*command)
    result = json.loads(ended.out)
    assert ended.code == 0 and result["done"] == 2 and result["resolution"] == 16 and result["failures"] == []
    store = Store(tmp_path / "s.zarr")
    labels = [store.label(row) for row in (0, 1)]
    assert [label is not None and bool(label.any()) for label in labels] == [False, True]
    assert json.loads(anofield(*command).out) == result


def test_the_names_of_recipes_are_those_of_the_library() -> None:
    from typing import get_args

    from anofield.data.recipe import RecipeName

    assert get_args(prepare.RecipeName) == get_args(RecipeName)


@pytest.mark.slow
def test_the_option_names_of_2021_prepare_as_published(anofield: Run, tmp_path: Path) -> None:
    write_case(tmp_path / "brats", Cohort("brats", seed=3), 0, "glioma")
    write_centers_pickle(tmp_path / "pix.cp", PAPER_CENTERS)
    words = [
        "--dataset",
        "BraTS",
        "--source",
        tmp_path / "brats",
        "--res",
        40,
        "--cluster_centers",
        tmp_path / "pix.cp",
    ]
    ended = anofield("prepare", *words, "--target", tmp_path / "old.zarr", "--mode_pool", 2, "--json")
    assert ended.code == 0, ended.err
    recipe = json.loads(ended.out)["recipe"]
    assert (recipe["name"], recipe["mode_pool"], recipe["normalise"]) == ("ifl2021-brats", 2, "clip-minmax")
    again = ["--recipe", "ifl2021-brats", "--centers", "paper", "--mode-pool", 2, "--res", 40]
    assert anofield("prepare", "-i", tmp_path / "brats", "-o", tmp_path / "new.zarr", *again).code == 0
    old, new = Store(tmp_path / "old.zarr"), Store(tmp_path / "new.zarr")
    assert np.array_equal(old.classes(0), new.classes(0))


def test_the_options_of_2021_need_a_data_set_of_2021(anofield: Run, tmp_path: Path) -> None:
    ended = anofield("prepare", "-i", tmp_path, "-o", tmp_path / "s.zarr", "--mode_pool", 2)
    assert ended.code == 2 and "--dataset" in ended.err


def test_errors_name_the_option_to_a_user_of_the_command_line(tmp_path: Path, anofield: Callable[..., Any]) -> None:
    ended = anofield("detect", "-i", tmp_path, "-m", tmp_path / "none", "-o", tmp_path / "run")
    assert ended.code == 5 and "check -e or -m" in ended.err
