"""Which of several calibrations is taken; a field is not needed for that."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from anofield._files import sealed, write_json
from anofield.detect.calibration import CalibrationInfo, Kept, Settings, read_calibrations
from anofield.detect.options import SMALL_LESIONS, DetectOptions, FieldOptions, PublishedOptions, ScoreOptions
from anofield.errors import ExperimentError, UsageError


def settings(recipe: str = "box", **filters: Any) -> Settings:
    return Settings(DetectOptions(filters=ScoreOptions(**filters)), recipe)


def content(settings: Settings, model: str = "m", **changes: Any) -> dict[str, Any]:
    """What a calibration file holds."""
    kept = Kept(score="deviation", share_above=[0.1], mean=0.1, interval=None)
    info = CalibrationInfo(
        settings="default", anofield="0", quantile=0.9, thresholds={}, meaning="", kept=kept, cases=[], fit={},
        options=settings.plain, model_hash=model,
    )  # fmt: skip
    return {**info.model_dump(mode="json"), **changes}


def write(folder: Path, options: Settings, model: str = "m") -> Path:
    write_json(options.path(folder), content(options, model))
    return options.path(folder)


def test_the_one_of_the_same_settings_and_model_is_taken(tmp_path: Path) -> None:
    every = [settings(), settings(tail="both"), settings(tail="both", gaussian_mm=5), settings("ifl2021-hcp")]
    paths = [write(tmp_path, one) for one in every]
    assert len(set(paths)) == 4
    found = read_calibrations(tmp_path)
    for path, one in zip(paths, every, strict=True):
        taken = found.pick(one, "m")
        assert taken is not None and taken.path == path


def test_where_none_fits_the_nearest_says_what_differs(tmp_path: Path) -> None:
    write(tmp_path, settings())
    near = write(tmp_path, settings(tail="both", gaussian_mm=5.0))
    with pytest.raises(UsageError, match=r"gaussian_mm was 5\.0, is 6\.0\. .*nearest of 2 .*Remedy") as caught:
        read_calibrations(tmp_path).pick(settings(tail="both", gaussian_mm=6.0), "m")
    assert caught.value.where == str(near) and "tail" not in caught.value.what
    with pytest.raises(UsageError, match=r"with other options: the checkpoint\."):
        read_calibrations(tmp_path).pick(settings(), "another")
    assert read_calibrations(tmp_path / "none").pick(settings(), "m") is None


def test_a_checkpoint_counts_as_one_difference(tmp_path: Path) -> None:
    write(tmp_path, settings(tail="both"), "old")
    write(tmp_path, settings(gaussian_mm=5.0, edge_mm=9.0), "m")
    with pytest.raises(UsageError, match=r"with other options: the checkpoint\."):
        read_calibrations(tmp_path).pick(settings(tail="both"), "m")


DAMAGE = ["", "[]", "{}", '{"quantile": 0.9}', json.dumps(content(settings(), options=3))]


@pytest.mark.parametrize("content", DAMAGE)
class TestADamagedFile:
    def test_is_named_where_it_would_be_taken_and_the_others_are_used(self, content: str, tmp_path: Path) -> None:
        damaged, whole = settings().path(tmp_path), write(tmp_path, settings(tail="both"))
        damaged.write_text(content)
        found = read_calibrations(tmp_path)
        taken = found.pick(settings(tail="both"), "m")
        assert taken is not None and taken.path == whole
        assert [error.where for error in found.damaged] == [str(damaged)]
        with pytest.raises(ExperimentError, match=r"Remedy: delete the file") as caught:
            found.pick(settings(), "m")
        assert caught.value.where == str(damaged)
        with pytest.raises(UsageError, match="tail was both, is dark"):
            found.pick(settings(tail="dark"), "m")

    def test_alone_is_not_taken_for_no_calibration(self, content: str, tmp_path: Path) -> None:
        path = tmp_path / "calibrations" / "mine.json"
        path.parent.mkdir(exist_ok=True)
        path.write_text(content)
        with pytest.raises(ExperimentError, match=path.name):
            read_calibrations(tmp_path).pick(settings(), "m")


def test_what_a_killed_run_left_is_nothing(tmp_path: Path) -> None:
    path = write(tmp_path, settings())
    path.with_name(f".partial-12-{path.name}").write_text("{")
    path.with_name(".partial-0123456789ab.npz").write_bytes(b"PK")
    settings(tail="both").path(tmp_path).with_suffix(".npz").write_bytes(b"PK")
    found = read_calibrations(tmp_path)
    assert [one.path for one in found.found] == [path] and not found.damaged


def test_the_place_depends_on_the_settings_alone(tmp_path: Path) -> None:
    assert settings().path(tmp_path) == settings().path(tmp_path)
    places = {settings(), settings(tail="both"), settings("ifl2021-hcp")}
    assert len({one.path(tmp_path) for one in places}) == 3


@pytest.mark.parametrize(
    ("options", "told"),
    [
        (DetectOptions(), "default"),
        (SMALL_LESIONS, "small-lesions"),
        (PublishedOptions(seed=3), "ifl2021, seed 3"),
        (DetectOptions(filters=ScoreOptions(tail="both", gaussian_mm=5)), "default, tail both, gaussian_mm 5.0"),
    ],
)
def test_settings_are_told_by_the_nearest_preset(options: FieldOptions, told: str) -> None:
    assert Settings(options, "box").described("box") == told
    assert Settings(options, "x").described("box") == f"{told}, recipe x"


@pytest.mark.parametrize("value", [float("nan"), "x", None])
def test_a_threshold_that_is_no_number_is_damage(tmp_path: Path, value: object) -> None:
    path = settings().path(tmp_path)
    path.parent.mkdir(parents=True)
    path.write_text(json.dumps(content(settings(), thresholds={"crps": value})))
    with pytest.raises(ExperimentError, match=r"thresholds\.crps|NaN is no JSON number"):
        read_calibrations(tmp_path).pick(settings(), "m")


def test_a_flipped_bit_is_refused_or_changes_nothing(tmp_path: Path) -> None:
    """A digit of a threshold that became another one is still JSON."""
    path, generator = settings().path(tmp_path), np.random.default_rng(0)
    write_json(path, sealed(content(settings(), thresholds={"crps": 0.21302030405})))
    data, before = path.read_bytes(), read_calibrations(tmp_path).found[0].info
    for _ in range(300):
        place = int(generator.integers(len(data)))
        path.write_bytes(data[:place] + bytes([data[place] ^ (1 << int(generator.integers(8)))]) + data[place + 1 :])
        found = read_calibrations(tmp_path)
        assert [one.info for one in found.found] == ([] if found.damaged else [before])
    path.write_bytes(data.replace(b"0.213", b"0.313"))
    with pytest.raises(ExperimentError, match="its content is not what was written"):
        read_calibrations(tmp_path).pick(settings(), "m")


def test_a_file_without_a_checksum_is_read(tmp_path: Path) -> None:
    write(tmp_path, settings())
    assert read_calibrations(tmp_path).found
