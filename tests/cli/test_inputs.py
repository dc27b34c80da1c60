"""Options of the inputs: lists count as a whole, and no value silently replaces another."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from anofield.cli import loaded
from anofield.cli._parameters import Verb

Run = Callable[..., Any]


def verbs(command: Any = None, name: str = "") -> Iterator[tuple[str, Any]]:
    """Every command that runs something, with its words."""
    below = getattr(command or loaded(), "commands", {})
    if command is not None and not below:
        yield name, command
    for part, one in below.items():
        yield from verbs(one, f"{name} {'zscore ' if name == 'baseline' else ''}{part}".strip())


ALL = dict(verbs())


@pytest.mark.parametrize("name", ALL)
def test_an_option_with_one_value_that_is_given_twice_is_refused(name: str, anofield: Run) -> None:
    assert isinstance(ALL[name], Verb)
    single = [one for one in ALL[name].params if one.param_type_name == "option" and not one.multiple]
    for option in single:
        word = option.opts[0]
        values = () if option.is_flag else ("1",) * option.nargs
        if word != "--help":
            ended = anofield(*name.split(), word, *values, word, *values)
            assert ended.code == 2 and f"{word}" in ended.err and "is given 2 times" in ended.err, (word, ended.err)


def test_names_of_one_option_are_one_option(anofield: Run) -> None:
    ended = anofield("prepare", "-i", "a", "-o", "b", "--target", "c")
    assert ended.code == 2 and "--output/-o/--target is given 2 times" in ended.err
    for words in (("--mode-pool", 2, "--mode_pool", 3), ("--centers", "paper", "--cluster_centers", "x.cp")):
        assert anofield("prepare", "-i", "a", "-o", "b", "--dataset", "hcp", *words).code in (2, 4)
    ended = anofield("prepare", "-i", "a", "-o", "b", "--dataset", "hcp", "--mode-pool", 2, "--mode_pool", 3)
    assert "two names of one option" in ended.err


@pytest.fixture
def scans(save_brain: Callable[..., Path], tmp_path: Path) -> Path:
    for number, name in enumerate(("x/p1_T2w", "x/p1_FLAIR", "y/p2_T2w", "y/p2_T2w_seg")):
        save_brain(tmp_path / f"{name}.nii.gz", seed=number)
    return tmp_path


def test_every_source_and_contrast_counts_and_the_rest_is_said(scans: Path, anofield: Run) -> None:
    words = ("check", "-i", scans / "x", "-i", scans / "y", "--json", "--modality")
    ended = anofield(*words, "T2w")
    found = json.loads(ended.out)
    assert [row["id"] for row in found["cases"]] == ["p1_T2w", "p2_T2w"]
    assert [Path(one["path"]).name for one in found["left_out"]] == ["p1_FLAIR.nii.gz", "p2_T2w_seg.nii.gz"]
    told = (
        "2 scans; left out 2 files: 1 of another contrast (FLAIR 1), 1 named like labels or masks (p2_T2w_seg.nii.gz)"
    )
    assert ended.err.startswith(f"{scans / 'x'}, {scans / 'y'}: {told}\n")
    ended = anofield(*words, "T2w", "--modality", "FLAIR")
    assert (
        json.loads(ended.out)["scans"] == 3 and "SEVERAL CONTRASTS TOGETHER, as asked for: T2w 2, FLAIR 1" in ended.err
    )


def test_several_contrasts_end_with_4_before_any_work(scans: Path, anofield: Run) -> None:
    ended = anofield("prepare", "-i", scans / "x", "-o", scans / "s.zarr", "--res", 16)
    assert ended.code == 4 and "FLAIR 1, T2w 1" in ended.err and not (scans / "s.zarr").exists()


def test_filters_add_up(scans: Path, anofield: Run, save_brain: Callable[..., Path]) -> None:
    for number, run in enumerate((1, 2, 3)):
        save_brain(scans / f"b/sub-1/anat/sub-1_acq-h_run-{run}_T2w.nii.gz", seed=number)
    words = ("check", "-i", scans / "b", "--json", "--filter", "acq=h", "--filter", "run=1", "--filter", "run=3")
    assert json.loads(anofield(*words).out)["scans"] == 2


@pytest.mark.slow
def test_results_do_not_go_into_the_folder_of_the_scans(scans: Path, anofield: Run) -> None:
    ended = anofield("detect", "-i", scans / "x", "-m", scans, "-o", scans / "x")
    assert ended.code == 2 and "folder of its own" in ended.err
