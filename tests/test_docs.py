"""What the documentation says is true: every command is understood by the program, and the pages in `RUN` are run.

Pages that are only parsed need what a test has not: a second GPU, a cluster, several ranks, experiments of 2021.
"""

from __future__ import annotations

import re
import shlex
import shutil
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from typer.main import get_command

from anofield import ifl2021, prepare, presets
from anofield.classes import PAPER_CENTERS
from anofield.cli import app
from anofield.demo import Plan
from anofield.detect import DetectOptions
from anofield.experiment import Specs
from anofield.fit import FitOptions
from anofield.legacy import write_centers_pickle
from anofield.phantom import layouts, write_cohort
from helpers import World, small_world

ROOT = Path(__file__).parents[1]
PAGES = sorted([ROOT / "README.md", *ROOT.glob("docs/[!_]*/**/*.md"), *ROOT.glob("docs/*.md")])
BLOCK = re.compile(r"^( *)```(?:sh|bash)\n(.*?)^\1```", re.MULTILINE | re.DOTALL)
INLINE = re.compile(r"(?<!`)`(anofield [^`\n]+)`(?!`)")
SHELL = {"cp", "rm", "printf"}  # run as they stand; pip, make, jupyter and torchrun are not
SMALLER = {"--size": "32", "--res": "24", "--healthy": "2", "--lesion": "1", "--bootstrap": "20", "--workers": "1"}
TINY = Plan(n_train=3, n_calibration=1, n_test=1, scan_size=32, resolution=16, epochs=3, points=64, people=3, width=64,
            depth=3, octaves=3, code_length=8, classes=5)  # fmt: skip
NATIVE = {  # the native grids with voxels six and five times as wide, about the same centres
    "hcp": ((44, 52, 44), (-4.2, 4.2, 4.2), (89.65, -124.6, -71.65)),
    "brats": ((48, 48, 31), (-5.0, -5.0, 5.0), (-2.0, 237.0, 2.0)),
}
ALL = slice(None)
PUBLISHED = {  # the published steps on these grids
    "ifl2021-hcp": prepare._Published(
        NATIVE["hcp"][0], (False, True, False), ((3, 3), (0, 0), (3, 3)), (ALL, slice(1, -1), ALL)
    ),
    "ifl2021-brats": prepare._Published(NATIVE["brats"][0], (False,) * 3, ((8, 9), (0, 0), (0, 0)), (ALL,) * 3),
}


def lines_of(page: Path) -> list[str]:
    blocks = [found[2] for found in BLOCK.finditer(page.read_text())]
    return [line.strip() for block in blocks for line in block.replace("\\\n", " ").splitlines() if line.strip()]


def words_of(line: str) -> list[str]:
    """Of a command of ours, without `anofield`, comments and redirection; empty for other commands."""
    words = shlex.split(line, comments=True)
    start = words.index("anofield") + 1 if "anofield" in words[:6] and words[0] in ("anofield", "torchrun") else 0
    stop = words.index(">") if ">" in words else len(words)
    return words[start:stop] if start else []


def verb_of(words: list[str]) -> tuple[Any, list[str]]:
    """The command that the words name, and the words that are left for it."""
    verb: Any = get_command(app)
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
    monkeypatch.setattr(ifl2021.fit, "__defaults__", ((ifl2021.Phase(3, 64), ifl2021.Phase(2, 64)),))
    monkeypatch.setattr("anofield.demo.QUICK", TINY)
    monkeypatch.setattr(layouts, "_NATIVE", {**layouts._NATIVE, **NATIVE})
    monkeypatch.setattr(prepare, "_PUBLISHED", PUBLISHED)
    with pytest.MonkeyPatch.context() as patch:
        for name, value in (("iterations", 4), ("points", 256)):
            patch.setattr(FitOptions.model_fields[name], "default", value)
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
    write_cohort("MORE_HEALTHY", "brats", healthy=1, lesion=0, size=32, first=40)


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
    """The pickle of centres, healthy people of HCP, and BraTS."""
    write_centers_pickle("pix_cluster_centers_brain.cp", PAPER_CENTERS)
    Path("HELD_OUT_HEALTHY").symlink_to(world.root / "healthy")
    write_cohort("BRATS", "brats", healthy=0, lesion=1, size="native", first=50)


def store_and_groups(world: World) -> None:
    """A store, held-out people and patients."""
    pytest.importorskip("monai")
    shutil.copytree(world.root / "train.zarr", "train.zarr")
    Path("healthy").symlink_to(world.root / "healthy")
    Path("patients").symlink_to(world.root / "glioma")


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
}
AS_IT_STANDS = ("docs/how-to/bids.md", "docs/how-to/cohorts.md")


def shrunk(words: list[str]) -> Iterator[str]:
    """The command with smaller numbers; the phantom makes fewer people, at native size where none is given."""
    for before, word in zip(["", *words], words, strict=False):
        small = min(SMALLER[before], word, key=int) if before in SMALLER and word.isdecimal() else word
        yield re.sub(r"^steps=\d+$", "steps=2", small)


@pytest.mark.parametrize("page", RUN)
@pytest.mark.usefixtures("small")
def test_the_commands_of_a_page_run_in_order(
    page: str, world: World, anofield: Callable[..., Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    RUN[page](world)
    for line in lines_of(ROOT / page):
        if words := words_of(line):
            ended = anofield(*(words if page in AS_IT_STANDS else shrunk(words)))
            assert ended.code == 0, f"{line}\n{ended.err}"
        elif line.split()[0] in SHELL:
            subprocess.run(line, shell=True, check=True)


def test_the_score_of_the_how_to_is_one() -> None:
    (code,) = re.findall(r"```python\n(def surprise.*?)```", (ROOT / "docs/how-to/extending.md").read_text(), re.DOTALL)
    defined: dict[str, Any] = {}
    exec(code, defined)
    log_p = torch.log_softmax(torch.tensor([[0.0, 0.0, 0.0], [9.0, 0.0, 0.0]]), dim=1)
    low, high = defined["surprise"](log_p, torch.tensor([1, 1]), "bright").tolist()
    assert low == pytest.approx(1.0)
    assert high > 10
