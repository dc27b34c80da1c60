"""What a user meets after a mistake: an exit code, one line that says what, where and what to do, no traceback."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from anofield.data.store import Store

Run = Callable[..., Any]
SPECS = {
    "DataSource": "store.zarr",
    "CodeLength": 8,
    "NumEpochs": 1,
    "SamplesPerScene": 10,
    "ScenesPerBatch": 1,
    "LearningRateSchedule": [{"Type": "Constant", "Value": 1e-3}] * 2,
}
FAST = ("--res", "8", "--centers", "fit:4")


@pytest.fixture
def scans(save_brain: Callable[..., Path], tmp_path: Path) -> Path:
    """A folder of three usable scans."""
    for seed in range(3):
        save_brain(tmp_path / f"scans/{seed}.nii.gz", seed=seed)
    return tmp_path / "scans"


def truncate(path: Path) -> Path:
    path.write_bytes(path.read_bytes()[:3000])
    return path


def experiment(folder: Path, **changes: object) -> Path:
    folder.mkdir()
    (folder / "specs.json").write_text(json.dumps({**SPECS, **changes}))
    return folder


def assert_told(ended, code: int, *words: object) -> None:
    """The exit code, the words on stderr, a remedy, and no sign of Python."""
    assert ended.code == code, ended.err
    for word in (*words, "Remedy: "):
        assert str(word) in ended.err
    assert "Traceback" not in ended.err and "defect" not in ended.err
    assert ended.out == ""


@pytest.mark.parametrize("verb", ["prepare", "detect"])
def test_no_input_is_4_and_an_unknown_experiment_5(verb: str, anofield: Run, tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    model = ("-m", tmp_path / "missing") if verb == "detect" else ()
    code, place = (5, "missing") if verb == "detect" else (4, "empty")
    ended = anofield(verb, "-i", tmp_path / "empty", "-o", tmp_path / "out", *model)
    assert_told(ended, code, tmp_path / place)
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("source", ["missing", "missing.nii.gz", "scans/*.mgz", "scans/none"])
def test_an_input_that_is_not_there_is_4(source: str, anofield: Run, scans: Path, tmp_path: Path) -> None:
    assert_told(anofield("prepare", "-i", tmp_path / source, "-o", tmp_path / "s.zarr"), 4, tmp_path / source)


@pytest.mark.slow
def test_one_bad_scan_is_3_the_others_are_done_and_mending_it_makes_0(
    anofield: Run, scans: Path, tmp_path: Path
) -> None:
    good = (scans / "1.nii.gz").read_bytes()
    truncate(scans / "1.nii.gz")
    command = ("prepare", "-i", scans, "-o", tmp_path / "s.zarr", *FAST)
    ended = anofield(*command)
    assert ended.code == 3 and "Traceback" not in ended.err
    line = next(line for line in ended.err.splitlines() if line.startswith("failed 1:"))
    assert str(scans / "1.nii.gz") in line and "Remedy: " in line
    assert "2 cases done, 1 failed" in ended.err
    assert "2 of 3 cases" in ended.out
    before = Store(tmp_path / "s.zarr")
    assert before.done == [0, 2]
    (scans / "1.nii.gz").write_bytes(good)
    ended = anofield(*command)
    assert ended.code == 0 and "3 of 3 cases" in ended.out
    assert Store(tmp_path / "s.zarr").recipe == before.recipe


@pytest.mark.slow
def test_failures_are_in_the_json_result(anofield: Run, scans: Path, tmp_path: Path) -> None:
    truncate(scans / "1.nii.gz")
    ended = anofield("prepare", "-i", scans, "-o", tmp_path / "s.zarr", *FAST, "--json")
    result = json.loads(ended.out)
    assert ended.code == 3 and result["done"] == 2
    assert [failure["id"] for failure in result["failures"]] == ["1"]


@pytest.mark.parametrize("centers", ["fit", "paper"])
def test_only_bad_scans_is_4_and_the_reason_is_given(centers: str, anofield: Run, scans: Path, tmp_path: Path) -> None:
    for path in scans.iterdir():
        truncate(path)
    ended = anofield("prepare", "-i", scans, "-o", tmp_path / "s.zarr", "--res", 8, "--centers", centers)
    assert_told(ended, 4, scans / "0.nii.gz", "cannot be read")


@pytest.mark.parametrize(
    ("fault", "words"),
    [("NaN", "NaN"), ("constant", "every voxel is 5"), ("4-D", "3-D"), ("head", "skull-stripped")],
)
def test_a_bad_scan_alone_is_4_and_says_why(
    fault: str, words: str, anofield: Run, save_brain: Callable[..., Path], brain_data: np.ndarray, tmp_path: Path
) -> None:
    data = {
        "NaN": np.where(brain_data > 200, np.nan, brain_data),
        "constant": np.full((20, 20, 20), 5.0),
        "4-D": np.stack([brain_data] * 2, axis=-1),
        "head": brain_data + np.random.default_rng(0).uniform(1, 50, brain_data.shape),
    }[fault]
    path = save_brain(tmp_path / "scan.nii.gz", data)
    assert_told(anofield("prepare", "-i", path, "-o", tmp_path / "s.zarr", "--res", 8), 4, path, words)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"CodeLenght": 8}, ("'CodeLenght'", "'CodeLength'")),
        ({"NetworkSpecs": {"dim": [8]}}, ("'NetworkSpecs.dim'", "'dims'")),
        ({"CodeLength": "eight"}, ("'CodeLength'", "'eight'")),
        ({"NumEpochs": 0}, ("'NumEpochs'", "got 0")),
        ({"LearningRateSchedule": [{"Type": "Stairs"}] * 2}, ("LearningRateSchedule",)),
        ({"NumEpochs": None}, ("'NumEpochs'",)),
    ],
    ids=["unknown", "unknown inside", "type", "range", "kind", "null"],
)
@pytest.mark.parametrize("verb", ["train", "detect"])
def test_specs_that_cannot_be_used_are_2_and_the_key_is_named(
    verb: str, changes: dict[str, object], words: tuple[str, ...], anofield: Run, scans: Path, tmp_path: Path
) -> None:
    folder = experiment(tmp_path / "e", **changes)
    rest = ("-e", folder) if verb == "train" else ("-m", folder, "-i", scans, "-o", tmp_path / "out")
    assert_told(anofield(verb, *rest), 2, folder / "specs.json", *words)


def test_specs_that_are_no_json_are_2(anofield: Run, tmp_path: Path) -> None:
    folder = experiment(tmp_path / "e")
    (folder / "specs.json").write_text('{"CodeLength": 8,}')
    assert_told(anofield("train", "-e", folder), 2, folder / "specs.json", "JSON")


@pytest.mark.slow
@pytest.mark.parametrize("verb", ["detect", "calibrate"])
@pytest.mark.parametrize("state", ["missing", "empty", "file", "untrained"])
def test_an_experiment_that_is_not_there_or_not_trained_is_5(
    state: str, verb: str, anofield: Run, scans: Path, tmp_path: Path
) -> None:
    folder = tmp_path / "e"
    if state == "untrained":
        experiment(folder)
    elif state == "empty":
        folder.mkdir()
    elif state == "file":
        folder.write_text("x")
    rest = ("-o", tmp_path / "out") if verb == "detect" else ()
    assert_told(anofield(verb, "-i", scans, "-m", folder, *rest), 5, folder)


def test_training_without_a_store_is_named(anofield: Run, tmp_path: Path) -> None:
    folder = experiment(tmp_path / "e")
    assert_told(anofield("train", "-e", folder), 4, folder / "store.zarr", "anofield prepare")


@pytest.mark.slow
@pytest.mark.parametrize(
    ("verb", "below"),
    [("prepare", ""), ("prepare", "x"), ("prepare", "x/y"), ("phantom", "x"), ("demo", ""), ("demo", "x")],
)
def test_an_output_that_cannot_be_written_is_6(
    verb: str, below: str, anofield: Run, scans: Path, tmp_path: Path
) -> None:
    (tmp_path / "file").write_text("x")  # root may write anywhere but below a file
    out = tmp_path / "file" / below
    rest = {"prepare": ("-i", scans, *FAST), "phantom": ("--healthy", 1, "--size", 8), "demo": ("--quick",)}[verb]
    assert_told(anofield(verb, "-o", out, *rest), 6, out)
    assert (tmp_path / "file").read_text() == "x"


@pytest.mark.parametrize("verb", ["evaluate", "report"])
def test_a_run_that_is_none_is_4(verb: str, anofield: Run, scans: Path, tmp_path: Path) -> None:
    assert_told(anofield(verb, "-p", scans, "-o", tmp_path / "out"), 4, scans)


@pytest.mark.parametrize(
    "options",
    [
        ("--res", "4"),
        ("--res", "1000"),
        ("--res", "fine"),
        ("--res", "²"),
        ("--res", "full"),
        ("--mode-pool", "5"),
        ("--centers", "missing.txt"),
        ("--centers", "fit:two"),
        ("--centers", "fit:99"),
    ],
    ids=" ".join,
)
def test_a_value_that_makes_no_sense_is_2(options: tuple[str, str], anofield: Run, scans: Path, tmp_path: Path) -> None:
    ended = anofield("prepare", "-i", scans, "-o", tmp_path / "s.zarr", *options)
    assert_told(ended, 2)
    assert not (tmp_path / "s.zarr").exists()


@pytest.mark.slow
def test_held_out_people_of_other_centres_are_2_and_the_remedy_helps(
    anofield: Run, scans: Path, save_brain: Callable[..., Path], tmp_path: Path
) -> None:
    own, other = tmp_path / "own.zarr", tmp_path / "other.zarr"
    for seed in (7, 8):
        save_brain(tmp_path / f"held_out/{seed}.nii.gz", seed=seed)
    assert anofield("prepare", "-i", scans, "--res", "8", "-o", own, "--centers", "fit:4").code == 0
    prepare = ("prepare", "-i", tmp_path / "held_out", "--res", "8", "-o")
    assert anofield(*prepare, other, "--centers", "fit:5").code == 0
    folder = experiment(
        tmp_path / "e", NetworkSpecs={"dims": [16, 16], "dim_out": 4, "latent_in": [], "norm_layers": []}
    )
    train = ("train", "-e", folder, "--data", own, "--held-out", other, "-d", "cpu")
    assert_told(anofield(*train), 2, "held-out subjects", "centers differ", f"--centers {own}")
    assert anofield(*prepare, other, "--force", "--centers", own).code == 0
    assert Store(other).recipe == Store(own).recipe
    assert anofield(*train).code == 0


def test_centres_from_a_folder_that_is_no_store_are_refused(anofield: Run, scans: Path, tmp_path: Path) -> None:
    ended = anofield("prepare", "-i", scans, "-o", tmp_path / "a.zarr", "--res", "8", "--centers", scans)
    assert_told(ended, 4, scans, "not a store")


@pytest.mark.slow
def test_a_store_of_another_recipe_is_2_and_force_replaces_it(anofield: Run, scans: Path, tmp_path: Path) -> None:
    command = ("prepare", "-i", scans, "-o", tmp_path / "s.zarr", "--centers", "paper")
    assert anofield(*command, "--res", 8).code == 0
    assert_told(anofield(*command, "--res", 9), 2, tmp_path / "s.zarr", "another recipe", "--force")
    assert Store(tmp_path / "s.zarr").resolution == 8
    assert anofield(*command, "--res", 9, "--force").code == 0
    assert Store(tmp_path / "s.zarr").resolution == 9


def test_two_scans_with_one_id_are_4_and_both_are_named(
    anofield: Run, save_brain: Callable[..., Path], tmp_path: Path
) -> None:
    paths = [save_brain(tmp_path / f"scans/{folder}/a.nii.gz") for folder in "xy"]
    assert_told(anofield("prepare", "-i", tmp_path / "scans", "-o", tmp_path / "s.zarr"), 4, *paths)


@pytest.mark.slow
def test_a_shell_sees_the_exit_code_and_one_line(tmp_path: Path) -> None:
    ended = subprocess.run(
        [sys.executable, "-m", "anofield", "prepare", "-i", tmp_path / "missing", "-o", tmp_path / "s.zarr"],
        capture_output=True,
        text=True,
        env={**os.environ, "ANOFIELD_DEBUG": ""},
        check=False,
    )
    assert ended.returncode == 4 and ended.stdout == ""
    assert len(ended.stderr.splitlines()) == 1
    assert ended.stderr.startswith(f"anofield: {tmp_path / 'missing'}: ") and "Remedy: " in ended.stderr


def test_debug_shows_the_traceback(anofield: Run, tmp_path: Path) -> None:
    ended = anofield("--debug", "prepare", "-i", tmp_path / "missing", "-o", tmp_path / "s.zarr")
    assert ended.code == 4 and "Traceback" in ended.err and "Remedy: " in ended.err


ABSURD: dict[str, dict[str, Any]] = {
    "wide": {"NetworkSpecs": {"dims": [10**9] * 3, "dim_out": 4}},
    "negative": {"NetworkSpecs": {"dims": [-5], "dim_out": 4}},
    "text": {"CodeLength": "wide"},
    "huge": {"CodeLength": 10**30},
}


@pytest.mark.parametrize("absurd", [*ABSURD, "deep", "twice"])
def test_an_absurd_specs_file_is_2_for_every_verb(absurd: str, anofield: Run, scans: Path, tmp_path: Path) -> None:
    model = experiment(tmp_path / "e", **ABSURD.get(absurd, {}))
    if absurd not in ABSURD:
        text = {"deep": "[" * 100_000, "twice": '{"Seed": 1, "Seed": 2}'}[absurd]
        (model / "specs.json").write_text(text)
    for verb in (
        ("info", model),
        ("train", "-e", model, "--data", tmp_path),
        ("detect", "-i", scans, "-m", model, "-o", tmp_path / "run"),
        ("calibrate", "-i", scans, "-m", model),
        ("export", "-i", model, "-o", tmp_path / "x", "--format", "ifl2021"),
    ):
        assert_told(anofield(*verb), 2, "specs.json")
