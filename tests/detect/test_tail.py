"""The tail follows the contrast of the training scans, once per model, and says so."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from anofield._progress import say_once
from anofield.data.cohort.case import Case
from anofield.data.origin import Origin, maker_of, origin_of
from anofield.data.prepare import prepare_scan
from anofield.data.recipe import recipe_for
from anofield.data.tissue_order import contrast_by_tissues
from anofield.detect.calibrate import calibrate
from anofield.detect.calibration import look_up, settings_of
from anofield.detect.identity import identity_of
from anofield.detect.model import load_model
from anofield.detect.options import PRESETS, BaselineOptions, ScoreOptions
from anofield.detect.run import detect_cases
from anofield.detect.run_folder import read_run
from anofield.detect.tail import other_contrast, settled
from anofield.errors import UsageError
from anofield.phantom.layouts import grid_of
from anofield.phantom.person import Look, make_person
from helpers import World, small_world
from stub import OPTIONS, Stub, cohort

Save = Callable[..., Path]


def stub(folder: Path, contrast: str, **changes: Any) -> Stub:
    return Stub(path=folder, origin=Origin(people=12, contrast=contrast), **changes)


@pytest.fixture(autouse=True)
def _nothing_was_said() -> None:
    say_once.cache_clear()


@pytest.mark.parametrize(
    ("contrast", "tail", "why"),
    [
        ("T1w", "dark", "lesions are darker than healthy tissue in T1w, the contrast of the training scans"),
        ("T2w", "bright", "brighter than healthy tissue in T2w"),
        ("FLAIR", "bright", "brighter than healthy tissue in FLAIR"),
        ("PDw", "bright", "brighter than healthy tissue in PDw"),
        ("T1w+T2w", "both", "brighter or darker than healthy tissue in T1w+T2w"),
        ("", "both", "the contrast of the training scans is not known"),
    ],
)
def test_auto_follows_the_contrast_and_says_so_once(
    contrast: str, tail: str, why: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    method = stub(tmp_path, contrast)
    chosen = [settled(OPTIONS, method) for _ in range(2)]
    assert [one.filters.tail for one in chosen] == [tail, tail] and chosen[0].tail == tail
    told = capsys.readouterr().err.splitlines()
    assert len(told) == 1 and told[0].startswith(f"tail {tail}: ") and why in told[0]
    assert told[0].endswith("; --tail changes it")


def test_a_tail_that_was_asked_for_stays_without_a_word(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    asked = BaselineOptions(score="bright", filters=ScoreOptions(tail="both"))
    assert settled(asked, stub(tmp_path, "T1w")) is asked
    assert settled(PRESETS["ifl2021"], stub(tmp_path, "T1w")).tail == "bright"
    assert capsys.readouterr().err == ""


def test_a_tail_that_nobody_settled_is_no_tail() -> None:
    with pytest.raises(UsageError, match="settled"):
        _ = OPTIONS.tail


def test_a_calibration_of_older_versions_still_matches(tmp_path: Path) -> None:
    """It keeps the tail as a plain value."""
    bright = OPTIONS.model_copy(update={"filters": OPTIONS.filters.model_copy(update={"tail": "bright"})})
    old, now = stub(tmp_path, "T2w"), stub(tmp_path, "T1w")
    assert settings_of(old, OPTIONS) == settings_of(old, bright)
    assert settings_of(now, OPTIONS) != settings_of(now, bright)
    assert identity_of(old, settled(OPTIONS, old), None) == identity_of(old, bright, None)


def test_the_run_and_its_calibration_keep_the_plain_tail(
    tmp_path: Path, save_brain: Save, capsys: pytest.CaptureFixture[str]
) -> None:
    method = stub(tmp_path / "model", "T1w")
    healthy = [replace(case, label=None) for case in cohort(tmp_path, save_brain, 2, first=4)]
    info, _ = calibrate(healthy, method, OPTIONS)
    assert info.options["filters"]["tail"] == "dark" and info.settings.endswith("native_edge_mm 0.0")
    assert look_up(method, OPTIONS) is not None
    detect_cases(cohort(tmp_path, save_brain, 1), method, OPTIONS, tmp_path / "run")
    assert read_run(tmp_path / "run").options["filters"]["tail"] == "dark"
    with pytest.raises(UsageError, match="tail was dark, is bright"):
        look_up(stub(tmp_path / "model", "T2w"), OPTIONS)


@pytest.mark.parametrize(
    ("name", "told"),
    [
        ("p1_T2w", "p1_T2w: T2w"),
        ("p1_T1ce", "p1_T1ce: T1c"),
        ("p1_T1w_postcontrast", "T1c"),
        ("p1_gadolinium_T1", "T1c"),
        ("p1_T1w", ""),
        ("p1", ""),
    ],
)
def test_a_scan_named_as_of_another_contrast_is_told(
    name: str, told: str, tmp_path: Path, save_brain: Save, capsys: pytest.CaptureFixture[str]
) -> None:
    case = Case(name, save_brain(tmp_path / f"{name}.nii.gz"))
    detect_cases([case], stub(tmp_path / "model", "T1w"), OPTIONS, tmp_path / "run")
    found = "named as of another contrast than T1w" in (text := capsys.readouterr().err)
    assert found == bool(told) and told in text
    assert not other_contrast(case, Origin()) and not other_contrast(case, Origin(contrast="T1c+T1w+T2w"))


class TestOrigin:
    def test_is_read_from_names_and_headers(self, tmp_path: Path, save_brain: Save) -> None:
        cases = [Case(str(n), save_brain(tmp_path / f"p{n}_T1w.nii.gz"), subject=f"p{n // 2}") for n in range(4)]
        assert origin_of(cases) == Origin(people=2, contrast="T1w")
        mixed = [*cases, Case("x", save_brain(tmp_path / "p1_FLAIR.nii.gz"))]
        assert origin_of(mixed).contrast == "FLAIR+T1w"
        assert origin_of([*cases, Case("gone", tmp_path / "gone.nii.gz")]).contrast == ""

    @pytest.mark.slow
    def test_of_a_trained_phantom_is_kept_by_the_experiment(self, world: World) -> None:
        assert world.model.origin == Origin(people=8, contrast="T2w", maker="anofield phantom")
        assert str(world.model.origin) == "8 synthetic people (anofield phantom), T2w"
        assert {maker_of(case.image) for case in world.healthy} == {"anofield phantom"}

    @pytest.mark.slow
    def test_of_an_older_experiment_is_learned_from_its_field(self, world: World) -> None:
        """24 voxels and few steps are too coarse for an answer, but not for a wrong one."""
        old = replace(load_model(world.model.path, device="cpu"), trained=replace(world.model.trained, origin=None))
        assert old.origin.people == 8 and not old.origin.synthetic
        assert old.origin.contrast in ("T2w", "")


@pytest.fixture(scope="session")
def world(tmp_path_factory: pytest.TempPathFactory) -> World:
    return small_world(tmp_path_factory.getbasetemp() / "world")


@pytest.mark.slow
@pytest.mark.parametrize("contrast", ["T1w", "T2w", "FLAIR"])
def test_a_contrast_is_learned_from_the_order_of_tissues(contrast: str) -> None:
    from anofield.data.brain import as_stripped

    grid = grid_of("brats", 64)
    image = make_person(5, 0, grid, look=Look(modality=contrast)).image
    prepared = prepare_scan(as_stripped((image, grid.affine)), None, recipe_for("box", 64))
    found = contrast_by_tissues(prepared.intensity, prepared.brain, 200 / 64)
    assert found == contrast
    inverted = np.where(prepared.brain, 1.1 - prepared.intensity, 0)
    assert contrast_by_tissues(inverted, prepared.brain, 200 / 64) != contrast


def test_nothing_is_learned_from_a_brain_without_tissues() -> None:
    brain = np.ones((20, 20, 20), bool)
    assert contrast_by_tissues(np.ones((20, 20, 20)), brain, 5.0) == ""
    assert contrast_by_tissues(np.ones((20, 20, 20)), ~brain, 5.0) == ""
