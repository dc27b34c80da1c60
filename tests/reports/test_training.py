"""The report of a training: one offline file, whatever the experiment holds, with charts that say what was logged."""

from __future__ import annotations

import json
import re
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from anofield.errors import CohortError, ExperimentError, MachineError, UsageError
from anofield.field.experiment import Experiment
from anofield.field.train import TrainOptions, train
from anofield.reports import charts, training
from anofield.reports.history import read_history
from anofield.reports.report import write_training_report
from helpers import make_store, tiny_specs


@pytest.fixture(scope="session")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with `store.zarr` and an `experiment` of four epochs."""
    root = tmp_path_factory.mktemp("trained")
    store = make_store(root / "store.zarr")
    train(
        Experiment.create(root / "experiment", tiny_specs(Description="tiny <b>&")), store, TrainOptions(device="cpu")
    )
    return root


@pytest.fixture
def experiment(trained: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(trained / "experiment", tmp_path / "experiment"))


def text(experiment: Path, **options: Any) -> str:
    path = write_training_report(experiment, experiment.parent / "t.html", device="cpu", people=2, **options)
    return path.read_text(encoding="utf-8")


def rewrite(experiment: Path, change: Callable[[dict[str, Any]], dict[str, Any]]) -> None:
    path = experiment / "metrics.jsonl"
    lines = [change(json.loads(line)) for line in path.read_text().splitlines()]
    path.write_text("".join(json.dumps(line) + "\n" for line in lines))


def drawn_numbers(html: str) -> list[str]:
    """Everything that is drawn: paths, places and sizes of the SVG."""
    return re.findall(r'\b(?:d|x|y|x1|x2|y1|y2|width|height|viewBox|transform)="([^"]*)"', html)


def assert_sound(html: str) -> None:
    targets = re.findall(r"""(?:src|href)\s*=\s*["']([^"']*)""", html)
    assert all(target.startswith(("data:image/", "#")) for target in targets)
    assert not re.search(r"<link|<script|<iframe|@import|url\(|https?://", html)
    drawn = drawn_numbers(html)
    assert drawn and not [number for number in drawn if re.search(r"nan|inf|None", number, re.I)]
    assert not re.search(r"\bnan\b|None|Undefined", re.sub(r"data:image[^\"]*", "", html))


@pytest.mark.slow
def test_the_page_is_one_file_that_fetches_nothing(experiment: Path, trained: Path) -> None:
    html = text(experiment, data=trained / "store.zarr", title="A <script>title")
    assert_sound(html)
    assert "A &lt;script&gt;title" in html and "tiny &lt;b&gt;&amp;" in html
    assert "finished: 4 epochs" in html and "research use only" in html
    assert [path.name for path in experiment.parent.glob("*html*")] == ["t.html"]


@pytest.mark.slow
def test_everyone_is_shown_in_three_planes_beside_the_stored_classes(experiment: Path, trained: Path) -> None:
    bare, beside = text(experiment), text(experiment, data=trained / "store.zarr")
    assert bare.count("data:image/") == (2 + 2) * 3 and "Stored classes" not in bare
    assert beside.count("data:image/") == (2 + 2 + 2) * 3 and beside.count(">Stored classes<") == 2
    assert "<strong>p0</strong>" in bare and "<strong>p4</strong>" in bare and "<strong>prior 2</strong>" in bare
    assert "patient's right is on the left" in bare


@pytest.mark.slow
def test_another_recipes_store_is_not_shown_and_no_store_is_an_error(experiment: Path, tmp_path: Path) -> None:
    make_store(tmp_path / "other.zarr", resolution=8)
    html = text(experiment, data=tmp_path / "other.zarr")
    assert "prepared with another recipe" in html and "Stored classes" not in html
    with pytest.raises(CohortError, match="is not a store"):
        text(experiment, data=tmp_path / "nothing.zarr")


@pytest.mark.slow
def test_logs_alone_say_what_metrics_say(experiment: Path) -> None:
    told = read_history(experiment)
    (experiment / "metrics.jsonl").unlink()
    logged = read_history(experiment)
    for key, error in (("loss_per_point", 1e-6), ("code_norm", 1e-6), ("points_per_s", 0.2)):  # seconds are rounded
        assert logged.points(key) == [pytest.approx(point, rel=error) for point in told.points(key)]
    assert logged.points("code_rate") == told.points("code_rate")
    assert len(logged.points("parameter_norm")) == logged.epoch == 4
    assert_sound(text(experiment))


@pytest.mark.slow
def test_an_experiment_of_2021_is_read(experiment: Path) -> None:
    """No metrics, no manifest, no case ids, a bare table of codes, the names of several GPUs, tensors in the logs."""
    for name in ("metrics.jsonl", "checkpoints.json"):
        (experiment / name).unlink()
    path = experiment / "LatentCodes" / "latest.pth"
    codes = torch.load(path)
    torch.save({"epoch": 4, "latent_codes": codes["latent_codes"]["weight"]}, path)
    logs = torch.load(experiment / "Logs.pth")
    logs["latent_magnitude"] = [torch.tensor(value) for value in logs["latent_magnitude"]]
    logs["param_magnitude"] = {f"module.{name}": series for name, series in logs["param_magnitude"].items()}
    torch.save(logs, experiment / "Logs.pth")
    html = text(experiment)
    assert_sound(html)
    assert "<strong>0</strong>" in html and "norm of all parameters" in html


@pytest.mark.slow
def test_held_out_people_are_drawn_when_they_were_measured(experiment: Path) -> None:
    assert "held-out subjects" not in text(experiment)
    extra = {"device": "cuda (Some GPU)", "precision": "bfloat16", "points_per_s": 2.5e6}
    rewrite(experiment, lambda r: {**r, **extra, **({"held_out_ce": 2.0 - r["epoch"] / 8} if r["epoch"] % 2 else {})})
    html = text(experiment)
    assert_sound(html)
    assert "held-out subjects" in html and "last 1.62" in html and "at epoch 3" in html
    assert "cuda (Some GPU)" in html and "bfloat16" in html and "2,500k" in html


@pytest.mark.slow
def test_a_running_training_shows_the_epochs_after_its_checkpoint(experiment: Path) -> None:
    specs = json.loads((experiment / "specs.json").read_text())
    (experiment / "specs.json").write_text(json.dumps({**specs, "NumEpochs": 50}))
    with (experiment / "metrics.jsonl").open("a") as stream:
        stream.write('{"epoch": 5, "loss_per_point": 0.5, "seconds": 1.0}\n{"epoch": 6, "loss_p')
    html = text(experiment)
    assert_sound(html)
    assert "epoch 5 of 50: not finished" in html and "decoded at epoch 4" in html and "last 0.500" in html


@pytest.mark.parametrize("epochs", [0, 1])
def test_one_epoch_or_none_and_no_checkpoint_make_a_page(experiment: Path, epochs: int) -> None:
    lines = (experiment / "metrics.jsonl").read_text().splitlines(keepends=True)
    (experiment / "metrics.jsonl").write_text("".join(lines[:epochs]))
    for part in ("ModelParameters", "LatentCodes", "OptimizerParameters"):
        shutil.rmtree(experiment / part)
    html = text(experiment)
    assert "No checkpoint was saved yet" in html and "Subjects of the training" not in html
    assert ("<h2>Curves" in html) == bool(epochs)
    if epochs:
        assert_sound(html)
    else:
        assert "no epoch finished yet" in html


def test_one_epoch_is_a_dot(experiment: Path) -> None:
    lines = (experiment / "metrics.jsonl").read_text().splitlines(keepends=True)
    (experiment / "metrics.jsonl").write_text(lines[0])
    shutil.rmtree(experiment / "ModelParameters")
    assert re.search(r'class="line dots main" d="M50\.00 50\.00h0"', text(experiment))


@pytest.mark.slow
def test_what_is_not_finite_is_not_drawn(experiment: Path) -> None:
    rewrite(experiment, lambda r: {**r, "loss_per_point": float("nan") if r["epoch"] == 2 else r["loss_per_point"]})
    rewrite(experiment, lambda r: {**r, "code_norm": None, "seconds": 0.0, "learning_rate": [float("inf")]})
    assert_sound(text(experiment))
    assert [epoch for epoch, _ in read_history(experiment).points("loss_per_point")] == [1, 3, 4]


def test_without_a_recipe_the_curves_are_there_and_the_reason_is_said(experiment: Path) -> None:
    (experiment / "recipe.json").unlink()
    html = text(experiment)
    assert "<h2>Curves" in html and "No subjects are shown" in html and "recipe.json" in html
    assert "data:image" not in html


def test_no_experiment_a_negative_count_and_a_blocked_place_are_errors(experiment: Path, tmp_path: Path) -> None:
    with pytest.raises(ExperimentError, match="no such experiment"):
        write_training_report(tmp_path / "none", tmp_path / "t.html")
    with pytest.raises(UsageError, match="people"):
        write_training_report(experiment, tmp_path / "t.html", people=-1)
    (tmp_path / "file").write_text("")
    with pytest.raises(MachineError, match="file"):
        write_training_report(experiment, tmp_path / "file" / "t.html", people=0)


@pytest.mark.slow
def test_the_command_takes_a_run_or_a_training(experiment: Path, tmp_path: Path, anofield: Callable[..., Any]) -> None:
    ended = anofield("report", "--training", "-e", experiment, "-o", tmp_path, "--people", 0)
    assert ended.code == 0 and Path(ended.out.strip()) == tmp_path / "training.html"
    for words in ((), ("--training",), ("-e", experiment, "-p", tmp_path), ("-p", tmp_path, "--training")):
        ended = anofield("report", "-o", tmp_path / "x.html", *words)
        assert ended.code == 2 and "-p RUN, or --training -e EXPERIMENT" in ended.err


@pytest.mark.parametrize(
    ("values", "log"),
    [((0.1, 2.3), True), ((1.0, 2.3), False), ((0.0, 5.0), False), ((3.0, 3.0), False), ((1e-6, 1e-3), True),
     ((-2.0, 9.0), False), ((12e3, 80e3), False), ((0.0, 0.0), False), ((1.00001, 1.00002), False)],
)  # fmt: skip
def test_an_axis_holds_its_values_and_has_a_few_round_ticks(values: tuple[float, float], log: bool) -> None:
    axis = charts.Axis.around(values)
    places = axis.places(np.array(values))
    assert axis.log == log and (places >= 0).all() and (places <= 1).all() and np.isfinite(places).all()
    ticks = axis.ticks()
    labels = [label for _, label in ticks]
    assert 2 <= len(ticks) <= 9 and len(set(labels)) == len(labels) and max(map(len, labels)) <= 7
    assert all(0 <= place <= 100 for place, _ in ticks)


@pytest.mark.parametrize(("first", "last"), [(1, 1), (1, 2), (1, 7), (3, 2001)])
def test_epochs_are_whole_numbers(first: int, last: int) -> None:
    labels = [label for _, label in charts.Axis.of_epochs([first, last]).ticks(whole=True)]
    assert labels and len(labels) <= 8 and all(label.isdigit() for label in labels)


def test_labels_of_ticks_are_short() -> None:
    values = (0, 0.002, 5e-5, 1e-4, 0.1 + 0.2, 20_000, 1.5e6, -3, 2001, 9999)
    labels = ["0", "0.002", "5·10⁻⁵", "10⁻⁴", "0.3", "20k", "1.5M", "−3", "2001", "9999"]
    assert [charts.tick_label(value) for value in values] == labels


def test_pictures_are_cropped_to_what_anyone_shows() -> None:
    planes = [np.zeros((20, 30)), np.zeros((20, 30))]
    planes[0][5, 10] = planes[1][9, 22] = 1
    assert training._box(planes, 0.5, 2) == (slice(3, 12), slice(8, 25))
    assert training._box(planes, 2.0, 2) == (slice(0, 20), slice(0, 30))
