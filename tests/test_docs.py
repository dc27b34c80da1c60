"""What the documentation says is true: the program understands every command, and those in blocks are run.

Sizes are cut down by `SMALLER` and the fixture `small`; `INSTEAD` says what stands for what a test has not (a GPU, a
cluster). Only what `CHECKED` names is looked at and not run.
"""

from __future__ import annotations

import json
import os
import re
import shlex
import shutil
import subprocess
import sys
import tomllib
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from nibabel.affines import from_matvec

from anofield.cli import loaded
from anofield.data import prepare
from anofield.data import published as published_recipes
from anofield.data.classes import PAPER_CENTERS
from anofield.data.nt import export_nt, import_store, write_centers_pickle
from anofield.data.published import NativeGrid
from anofield.data.recipe import RecipeName, recipe_for
from anofield.data.store import Store, prepare_cohort
from anofield.detect import published as ifl2021
from anofield.detect.options import PRESETS, DetectOptions, FitOptions
from anofield.field import presets
from anofield.field.experiment import Experiment
from anofield.field.export import export_experiment
from anofield.field.specs import Specs
from anofield.field.train import TrainOptions, train
from anofield.phantom import layouts
from anofield.phantom.cohort import Cohort, plan_cohort, write_cohort
from anofield.study import Plan
from helpers import World, small_world, tiny_specs

pytestmark = pytest.mark.slow

ROOT = Path(__file__).parents[1]
PAGES = sorted([ROOT / "README.md", *ROOT.glob("docs/[!_]*/**/*.md"), *ROOT.glob("docs/*.md")])
BLOCK = re.compile(r"^( *)```(?:sh|bash)\n(.*?)^\1```", re.MULTILINE | re.DOTALL)
INLINE = re.compile(r"(?<!`)`(anofield [^`\n]+)`(?!`)")
SCRIPT = re.compile(r"`([\w.]+)`:\n\n```(?:sh|bash)\n(#!.*?)```", re.DOTALL)  # a job script under its name
SHELL = {"cp", "rm", "printf"}  # run as they stand
SMALLER = {"--size": "32", "--res": "24", "--healthy": "2", "--lesion": "1", "--bootstrap": "20", "--workers": "1",
           "--count": "2", "--nproc-per-node": "2"}  # fmt: skip
INSTEAD = {  # what a page has → what a test has
    r"cuda(:\d)?$": "cpu",
    r"^/shared/": "shared/",
    r"^tcp://10\.0\.0\.5:41235$": "$SCHEDULER",
}
TINY = Plan(n_train=3, n_calibration=1, n_test=1, scan_size=32, resolution=16, epochs=3, points=64, people=3, width=64,
            depth=3, octaves=3, code_length=8, classes=5)  # fmt: skip
ALL = slice(None)
# The published grids and their steps with voxels six and five times as wide, about the same centres
GRIDS: dict[RecipeName, NativeGrid] = {
    "ifl2021-hcp": NativeGrid(
        scans="HCP S1200",
        shape=(44, 52, 44),
        affine=from_matvec(np.diag((-4.2, 4.2, 4.2)), (89.65, -124.6, -71.65)),
        flip=(False, True, False),
        pad=((3, 3), (0, 0), (3, 3)),
        cut=(ALL, slice(1, -1), ALL),
    ),
    "ifl2021-brats": NativeGrid(
        scans="BraTS'18",
        shape=(48, 48, 31),
        affine=from_matvec(np.diag((-5.0, -5.0, 5.0)), (-2.0, 237.0, 2.0)),
        pad=((8, 9), (0, 0), (0, 0)),
    ),
}


def lines_of(page: Path, scripts: bool = True) -> list[str]:
    """Commands of a page's blocks, those of job scripts among them or not."""
    blocks = [found[2] for found in BLOCK.finditer(page.read_text())]
    kept = [block.replace("\\\n", " ") for block in blocks if scripts or not block.startswith("#!")]
    return [line.strip() for block in kept for line in block.splitlines() if line.strip() and line.strip()[0] != "#"]


def words_of(line: str) -> list[str]:
    """Of a command of ours, without `anofield`, comments and redirection; empty for other commands."""
    words = shlex.split(line, comments=True)
    start = words.index("anofield") + 1 if "anofield" in words[:6] and words[0] in ("anofield", "torchrun") else 0
    stop = words.index(">") if ">" in words else len(words)
    return words[start:stop] if start else []


def verb_of(words: list[str]) -> tuple[Any, list[str]]:
    """The command that the words name, and the words that are left for it."""
    verb: Any = loaded()
    while words and (below := getattr(verb, "commands", {})):
        skip = 1 if verb.name == "baseline" and len(words) > 1 else 0  # the baseline's name stands before its verb
        if words[skip] not in below:
            break
        verb, words = below[words[skip]], words[skip + 1 :]
    return verb, words


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_every_command_in_a_block_is_one_of_the_program(page: Path) -> None:
    for line in lines_of(page):
        if words := words_of(line):
            verb, rest = verb_of(words)
            verb.make_context(" ".join(words[: len(words) - len(rest)]), list(rest))


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_every_option_in_the_text_is_one_of_its_verb(page: Path) -> None:
    for found in INLINE.finditer(page.read_text()):
        verb, rest = verb_of(found[1].split()[1:])
        known = {name for option in verb.params for name in (*option.opts, *option.secondary_opts)} | {"--help"}
        assert {word for word in rest if re.fullmatch(r"--?[a-z][\w-]*", word)} <= known, found[0]


@pytest.fixture(scope="session")
def world(tmp_path_factory: pytest.TempPathFactory) -> World:
    return small_world(tmp_path_factory.getbasetemp() / "world")


@pytest.fixture
def small(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Presets, fit and the published schedule, cut down to seconds."""
    real = presets.preset

    def tiny(name: str) -> Specs:
        specs = real(name)
        network = specs.network_specs.model_copy(update={"dims": (80,) * len(specs.network_specs.dims)})
        fewer = {"num_epochs": 2, "samples_per_scene": 64, "code_length": 8, "network_specs": network}
        return specs.model_copy(update=fewer)

    monkeypatch.setattr(presets, "preset", tiny)
    monkeypatch.setattr(ifl2021.fit_code, "__defaults__", ((ifl2021.Phase(3, 64), ifl2021.Phase(2, 64)),))
    monkeypatch.setattr("anofield.study.QUICK", TINY)
    layout_of: dict[RecipeName, str] = {"ifl2021-hcp": "hcp", "ifl2021-brats": "brats"}
    for name, grid in GRIDS.items():
        monkeypatch.setitem(published_recipes.GRIDS, name, grid)
        monkeypatch.setitem(layouts._NATIVE, layout_of[name], layouts.Grid(grid.shape, grid.affine))
    fewer = {"iterations": 4, "points": 256}
    for preset in ("default", "small-lesions"):
        options = PRESETS[preset]
        assert isinstance(options, DetectOptions)
        fit = options.fit.model_copy(update=fewer)
        monkeypatch.setitem(PRESETS, preset, options.model_copy(update={"fit": fit}))
    with pytest.MonkeyPatch.context() as patch:
        for field, value in fewer.items():
            patch.setattr(FitOptions.model_fields[field], "default", value)
        rebuild()
        yield
    rebuild()


def rebuild() -> None:
    """Let pydantic see changed defaults."""
    FitOptions.model_rebuild(force=True)
    DetectOptions.model_rebuild(force=True)


def nothing(world: World) -> None:
    """The page makes what it needs."""


def scans(world: World) -> None:
    """Four groups of people."""
    for name, part in (("HEALTHY", "train"), ("HELD_OUT_HEALTHY", "healthy"), ("SCANS", "glioma")):
        Path(name).symlink_to(world.root / part)
    write_cohort("MORE_HEALTHY", Cohort("brats", size=32), plan_cohort(1, 0, first=40))


def scans_and_model(world: World) -> None:
    """And a store and a trained model."""
    scans(world)
    shutil.copytree(world.root / "train.zarr", "healthy.zarr")
    shutil.copytree(world.experiment, "experiment")


def scans_and_labels(world: World) -> None:
    """Labels in a tree of their own."""
    scans(world)
    Path("LABELS").symlink_to(world.root / "glioma")


def published(world: World) -> None:
    """The pickle of centres, and BraTS."""
    write_centers_pickle("pix_cluster_centers_brain.cp", PAPER_CENTERS)
    write_cohort("BRATS", Cohort("brats"), plan_cohort(0, 1, first=50))


def store_and_groups(world: World) -> None:
    """A store, held-out people and patients."""
    pytest.importorskip("monai")
    shutil.copytree(world.root / "train.zarr", "train.zarr")
    Path("healthy").symlink_to(world.root / "healthy")
    Path("patients").symlink_to(world.root / "glioma")


def store_and_scans(world: World) -> None:
    """A store to train on, and scans to detect in."""
    scans(world)
    shutil.copytree(world.root / "train.zarr", "healthy.zarr")


def shared(world: World) -> None:
    """Two groups on a file system that every job sees."""
    Path("shared").mkdir()
    Path("HEALTHY").symlink_to(world.root / "healthy")
    Path("shared/HEALTHY").symlink_to(world.root / "healthy")
    Path("shared/SCANS").symlink_to(world.root / "glioma")


def stores_and_files_of_2021(world: World) -> None:
    """A store, held-out people of its recipe, `.nt` files, and an experiment in the published layout on them."""
    shutil.copytree(world.root / "train.zarr", "healthy.zarr")
    prepare_cohort(world.healthy, Store("healthy.zarr").recipe, "held_out.zarr")
    export_nt(Store("healthy.zarr"), "NT_FILES")
    store = import_store("NT_FILES", "old.zarr", recipe_for("ifl2021-hcp", None))
    network = tiny_specs().network_specs.model_copy(update={"dim_out": len(PAPER_CENTERS)})
    specs = tiny_specs(NumEpochs=1).model_copy(update={"network_specs": network})
    train(Experiment.create("old", specs), store, TrainOptions(device="cpu"))
    export_experiment(Experiment("old"), "OLD_EXPERIMENT")


RUN: dict[str, Callable[[World], None]] = {
    "README.md": scans_and_labels,
    "docs/explanation/preparation.md": published,
    "docs/how-to/baselines.md": store_and_groups,
    "docs/tutorials/first-detection.md": nothing,
    "docs/tutorials/your-own-cohort.md": nothing,
    "docs/tutorials/reproduce-2021.md": published,
    "docs/how-to/bids.md": nothing,
    "docs/how-to/calibration.md": scans_and_model,
    "docs/how-to/cohorts.md": nothing,
    "docs/how-to/gpus.md": store_and_scans,
    "docs/how-to/slurm.md": shared,
    "docs/how-to/training.md": stores_and_files_of_2021,
    "docs/notebooks.md": nothing,
}
AS_IT_STANDS = ("docs/how-to/bids.md", "docs/how-to/cohorts.md")


NEEDS = {"docs/how-to/slurm.md": "scheduler"}  # fixtures of single pages


def shrunk(words: list[str]) -> Iterator[str]:
    """The command with smaller numbers, and with what a test has; the phantom makes fewer people."""
    for before, word in zip(["", *words], words, strict=False):
        small = min(SMALLER[before], word, key=int) if before in SMALLER and word.isdecimal() else word
        small = re.sub(r"^steps=\d+$", "steps=2", small)
        for pattern, other in INSTEAD.items():
            small = re.sub(pattern, other, small)
        yield os.path.expandvars(small)


@pytest.fixture
def scheduler(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """A Dask scheduler with two workers, all of them threads of this process."""
    distributed = pytest.importorskip("distributed")
    how = {"n_workers": 2, "threads_per_worker": 1, "processes": False, "dashboard_address": None}
    with distributed.LocalCluster(protocol="tcp", **how) as cluster:
        monkeypatch.setenv("SCHEDULER", cluster.scheduler_address)
        yield


@dataclass
class Shell:
    """Runs the lines of a page: commands of ours in this process, the others where `shell` says."""

    page: Path
    anofield: Callable[..., Any]

    def run(self, line: str) -> None:
        program = shlex.split(line, comments=True)[0]
        if program == "anofield":
            self.ours(words_of(line), line)
        elif program in SHELL:
            subprocess.run(line, shell=True, check=True)
        else:
            {"torchrun": self.torchrun, "sbatch": self.sbatch, **CHECKED}[program](line)

    def ours(self, words: list[str], line: str) -> None:
        as_it_stands = str(self.page.relative_to(ROOT)) in AS_IT_STANDS
        ended = self.anofield(*(words if as_it_stands else shrunk(words)))
        assert ended.code == 0, f"{line}\n{ended.err}"

    def torchrun(self, line: str) -> None:
        """Two Gloo ranks on this CPU, for one more epoch than the experiment has."""
        words = list(shrunk(shlex.split(line)))
        specs = Path(words[words.index("-e") + 1], "specs.json")
        content = json.loads(specs.read_text())
        specs.write_text(json.dumps({**content, "NumEpochs": content["NumEpochs"] + 1}))
        start = [sys.executable, "-m", "torch.distributed.run", "--standalone", *words[1:], "--device", "cpu"]
        environment = {**os.environ, "OMP_NUM_THREADS": "1"}
        done = subprocess.run(start, capture_output=True, text=True, timeout=240, env=environment)
        assert done.returncode == 0, done.stderr
        assert Experiment(specs.parent).load().epoch == content["NumEpochs"] + 1

    def sbatch(self, line: str) -> None:
        """Every task runs the page's script in bash, where `anofield` writes down its arguments; then they are run."""
        *options, name = shlex.split(line)[1:]
        script = dict(SCRIPT.findall(self.page.read_text()))[name]
        Path("bin").mkdir(exist_ok=True)
        Path("bin/anofield").write_text('#!/bin/sh\nprintf "%s\\0" "$@" > called\n')
        Path("bin/anofield").chmod(0o755)
        tasks = ("1", "2") if any(option.startswith("--array") for option in options) else ("",)
        for task in tasks:
            array = {"SLURM_ARRAY_TASK_ID": task, "SLURM_ARRAY_TASK_COUNT": "2"} if task else {}
            path = f"{Path('bin').resolve()}:{os.environ['PATH']}"
            subprocess.run(["bash", "-euc", script], check=True, env={**os.environ, **array, "PATH": path})
            self.ours(Path("called").read_text().split("\0")[:-1], script)


def is_target(line: str) -> None:
    """A `make` of the page is a target of the Makefile; CI runs these."""
    assert re.search(rf"^{line.split()[1]}:", (ROOT / "Makefile").read_text(), re.MULTILINE), line


def is_extra(line: str) -> None:
    """What `pip` installs of ours is an extra."""
    extras = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["optional-dependencies"]
    assert set(re.findall(r"anofield\[(\w+)\]", line)) <= set(extras), line


def is_notebook(line: str) -> None:
    """What `jupyter lab` opens is there; `test_notebooks` runs it."""
    assert (ROOT / line.split()[2]).is_file(), line


CHECKED: dict[str, Callable[[str], None]] = {"make": is_target, "pip": is_extra, "jupyter": is_notebook}


def test_every_page_with_commands_is_run() -> None:
    assert {str(page.relative_to(ROOT)) for page in PAGES if lines_of(page)} == set(RUN)


@pytest.mark.parametrize("page", RUN)
@pytest.mark.usefixtures("small")
def test_the_commands_of_a_page_run_in_order(
    page: str, world: World, anofield: Callable[..., Any], tmp_path: Path, request: pytest.FixtureRequest
) -> None:
    request.getfixturevalue("monkeypatch").chdir(tmp_path)
    if page in NEEDS:
        request.getfixturevalue(NEEDS[page])
    RUN[page](world)
    shell = Shell(ROOT / page, anofield)
    for line in lines_of(ROOT / page, scripts=False):
        shell.run(line)


def test_the_score_of_the_how_to_is_one() -> None:
    defined = python_of("docs/how-to/extending.md", "import torch\n\n\ndef surprise")
    log_p = torch.log_softmax(torch.tensor([[0.0, 0.0, 0.0], [9.0, 0.0, 0.0]]), dim=1)
    low, high = defined["surprise"](log_p, torch.tensor([1, 1]), "bright").tolist()
    assert low == pytest.approx(1.0)
    assert high > 10


def test_the_baseline_of_the_how_to_is_one(world: World) -> None:
    """It trains, comes back from its state as it was, and scores a scan."""
    kind = python_of("docs/how-to/baselines.md", "import numpy")["Median"]
    store = Store(world.root / "train.zarr")
    trained, opened = kind(store.recipe), kind(store.recipe)
    trained.train(store)
    opened.restore(trained.state())
    patient = prepare.prepare_case(world.glioma[0], store.recipe)
    found = opened.score(patient, "p", "bright")
    assert np.array_equal(found.anomaly, trained.score(patient, "p", "bright").anomaly)
    assert found.anomaly[patient.brain].max() > 0
    assert found.anomaly.min() == 0


def python_of(page: str, start: str) -> dict[str, Any]:
    """What the block of a page that begins so defines."""
    (code,) = re.findall(rf"```python\n({start}.*?)```", (ROOT / page).read_text(), re.DOTALL)
    defined: dict[str, Any] = {}
    exec(code, defined)
    return defined
