"""The published detection: its filters, its grid, its fit, its options, against plain statements of them."""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from pydantic import ValidationError
from torch.nn import functional

from anofield.detect import published as ifl2021
from anofield.detect.model import load_model
from anofield.detect.options import FitOptions, PublishedOptions
from anofield.detect.published import Phase
from anofield.detect.run import detect_case
from anofield.field.decoder import FrozenField
from anofield.field.model import build_field
from helpers import World, make_prepared, small_world, tiny_specs

CPU = torch.device("cpu")


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> World:
    return small_world(tmp_path_factory.getbasetemp() / "world")


def field() -> FrozenField:
    torch.manual_seed(0)
    return FrozenField(build_field(tiny_specs()))


@pytest.mark.parametrize("side", [16, 23])
def test_filters_are_the_pooling_layers_of_the_notebook(side: int) -> None:
    values = np.random.default_rng(0).exponential(size=(side,) * 3).astype(np.float32)
    x = torch.from_numpy(values)[None, None]
    low = -functional.max_pool3d(-x, 3, stride=1, padding=1)
    expected = functional.avg_pool3d(low, 15, stride=1, padding=7)[0, 0]
    np.testing.assert_allclose(ifl2021.smooth(values), expected, rtol=1e-4, atol=1e-5)


def test_every_voxel_is_scored_on_the_grid_from_corner_to_corner() -> None:
    prepared, frozen, code = make_prepared(1), field(), torch.randn(6)
    inside, everywhere = ifl2021.decode(frozen, code, prepared, CPU)
    grid = torch.stack(torch.meshgrid(*[torch.linspace(-1, 1, 12)] * 3, indexing="ij"), -1).reshape(1, -1, 3)
    log_p = frozen.logits(grid, code[None])[0].log_softmax(-1)
    observed = torch.from_numpy(prepared.classes.reshape(-1)).long()
    np.testing.assert_allclose(everywhere.reshape(-1), -log_p[torch.arange(12**3), observed], rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(inside, log_p[torch.from_numpy(prepared.brain.reshape(-1))], rtol=1e-4, atol=1e-5)


@pytest.mark.slow
def test_the_fit_lowers_cross_entropy_and_follows_its_key() -> None:
    prepared, frozen = make_prepared(1), field()
    short = (Phase(60, 200), Phase(20, 400))
    codes = [ifl2021.fit_code(frozen, prepared, key, 0, CPU, short) for key in ("a", "a", "b")]
    assert torch.equal(codes[0][0], codes[1][0])
    assert not torch.equal(codes[0][0], codes[2][0])
    _, at_start = ifl2021.fit_code(frozen, prepared, "a", 0, CPU, (Phase(1, 4000),))
    assert codes[0][1] < at_start


def test_the_schedule_is_the_published_one() -> None:
    assert ifl2021.SCHEDULE == ((501, 10_000), (101, 50_000))
    assert sum(phase.iterations * phase.points for phase in ifl2021.SCHEDULE) == 10_060_000


@pytest.fixture
def short(monkeypatch: pytest.MonkeyPatch) -> None:
    """A fit of a few steps."""
    monkeypatch.setattr(ifl2021.fit_code, "__defaults__", ((Phase(20, 300),),))


@pytest.mark.usefixtures("short")
def test_a_published_detection_scores_the_background_too(world: World) -> None:
    found = detect_case(world.glioma[0], world.model, PublishedOptions(), None)
    assert list(found.maps) == ["cross-entropy"]
    anomaly = found.maps["cross-entropy"]
    assert anomaly.shape == found.scan.data.shape and anomaly.dtype == np.float32
    assert (anomaly[~found.brain] > 0).any()


@pytest.mark.usefixtures("short")
def test_what_the_published_fit_does_not_measure_is_not_judged(world: World, tmp_path: Path) -> None:
    model = load_model(shutil.copytree(world.experiment, tmp_path / "model"), precision="float32")
    found = model.calibrate(world.healthy, options="ifl2021").detect(world.healthy[0].image, options="ifl2021")
    assert found.fit is not None and found.threshold is not None
    assert found.fit.contrast is None and found.fit.outside is None and found.fit.turned is None
    assert found.trusted is None
    info = found.save(tmp_path / "saved").fit
    assert info is not None and (info.contrast, info.outside, info.trusted) == (None, None, None)


def test_the_procedure_cannot_be_half_set() -> None:
    for wrong in (
        {"fit": {"iterations": 3}},
        {"filters": {"gaussian_mm": 3}},
        {"score": "crps"},
        {"procedure": "anofield"},
    ):
        with pytest.raises(ValidationError):
            PublishedOptions.model_validate(wrong)
    with pytest.raises(ValidationError):
        FitOptions.model_validate({"procedure": "ifl2021"})


def test_the_preset_refuses_switches_beside_it(tmp_path: Path, world: World, anofield: object) -> None:
    words = ("detect", "-m", world.experiment, "-i", world.glioma[0].image, "-o", tmp_path, "--preset", "ifl2021")
    ended = anofield(*words, "--gaussian-mm", 3)  # type: ignore[operator]
    assert ended.code == 2
    assert "--gaussian-mm" in ended.err
    assert "leave out one" in ended.err
