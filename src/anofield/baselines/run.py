"""A baseline's folder: `baseline.json`, `state.pth` and its calibrations; trained once, opened for every run."""

from __future__ import annotations

import hashlib
import json
import pickle
import shutil
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from pydantic import ValidationError

from anofield import __version__
from anofield._files import file_hash, write_json, writing
from anofield._progress import say
from anofield.baselines.base import Baseline, Settings, State
from anofield.baselines.registry import find_baseline
from anofield.data.prepare import Prepared, Recipe
from anofield.data.recipe import missing_keys
from anofield.data.store import Store
from anofield.detect.calibration import CALIBRATIONS, Calibrations, read_calibrations
from anofield.detect.method import Analysis, RunOptions
from anofield.detect.scores import ScoreOptions
from anofield.errors import ExperimentError, UsageError
from anofield.field.experiment import save_file
from anofield.field.model import pick_device
from anofield.typing import Json, PathLike

FORMAT = 1
ABOUT_FILE, STATE_FILE = "baseline.json", "state.pth"


@dataclass(frozen=True)
class TrainedBaseline:
    """A baseline opened for detection; it is a `Scorer`.

    Attributes:
        name: In the registry.
        method: With the state that training left.
        path: Its folder.
        training_ids: Cases that it was trained on.
        calibrations: Thresholds per settings, empty if it is not calibrated.
        hash: Of name, settings, recipe and state.
        losses: Of the training, in about twenty equal parts.
        training_seconds: How long it took.
    """

    name: str
    method: Baseline
    path: Path
    training_ids: Sequence[str]
    calibrations: Calibrations
    hash: str
    losses: Sequence[float]
    training_seconds: float

    @property
    def recipe(self) -> Recipe:
        """How scans are prepared for it: as its training cases were."""
        return self.method.recipe

    @property
    def device(self) -> torch.device:
        """Where it computes."""
        return self.method.device

    def analyse(self, prepared: Prepared, key: str, options: RunOptions) -> Analysis:
        """Score one scan; a baseline has one score, which bears its name."""
        start = time.perf_counter()
        scored = self.method.score(prepared, key, options.filters.tail)
        seconds = {"score": time.perf_counter() - start}
        return Analysis({self.name: scored.anomaly}, scored.restoration, seconds)


def baseline_options(name: str, filters: ScoreOptions | None = None) -> RunOptions:
    """Options of a baseline's run: its one score, through the same filters as the field's."""
    return RunOptions(score=name, filters=filters or ScoreOptions())


def make_settings(name: str, changes: Json) -> Settings:
    """Settings of a baseline.

    Raises:
        UsageError: There is no such baseline or setting, or a value cannot be used.
    """
    kind = find_baseline(name).settings_type
    try:
        return kind.model_validate(changes)
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(str(part) for part in first["loc"])
        known = ", ".join(f"{key} ({field.default})" for key, field in kind.model_fields.items())
        raise UsageError(
            f"{name}: {where}: {first['msg'].lower()}", remedy=f"settings and defaults: {known}"
        ) from error


def train_baseline(
    name: str, store: Store, folder: PathLike, settings: Settings, *, device: str = "auto", force: bool = False
) -> TrainedBaseline:
    """Train a baseline into a folder, or open it if the same training was done there before.

    Args:
        name: In the registry.
        store: Prepared healthy people.
        folder: Of the baseline.
        settings: From `make_settings`.
        device: Where to train; `auto`, `cpu`, `cuda[:N]` or `mps`.
        force: Train again.

    Raises:
        UsageError: The folder holds another training or something else.
        ExperimentError: Too few cases, or the training diverged.
        MachineError: MONAI is not installed, there is no such device, or the disk refuses.
    """
    folder, where = Path(folder), pick_device(device)
    cases = [store.ids[index] for index in store.require_cases()]
    wanted = {
        "name": name,
        "settings": settings.model_dump(mode="json"),
        "recipe": _plain(store.recipe),
        "cases": cases,
    }
    if not force and _is_trained(folder, wanted):
        say(f"{name}: already trained in {folder}")
        return load_baseline(folder, device=device)
    start = time.monotonic()
    method = find_baseline(name)(store.recipe, settings, where)
    method.train(store)
    seconds = time.monotonic() - start
    with writing(folder):
        folder.mkdir(parents=True, exist_ok=True)
        (folder / ABOUT_FILE).unlink(missing_ok=True)
        shutil.rmtree(folder / CALIBRATIONS, ignore_errors=True)  # what is left holds for no other state
    save_file(folder / STATE_FILE, dict(method.state()))
    about = {
        "format": FORMAT,
        **wanted,
        "title": method.title,
        "paper": method.paper,
        "losses": method.losses,
        "seconds": round(seconds, 2),
        "device": str(where),
        "anofield": __version__,
        "torch": torch.__version__,
    }
    write_json(folder / ABOUT_FILE, about)  # last: a baseline without it was not trained to the end
    return load_baseline(folder, device=device)


def load_baseline(folder: PathLike, *, device: str = "auto") -> TrainedBaseline:
    """Open a trained baseline.

    Raises:
        ExperimentError: It is missing, damaged, or its state is of another method.
        UsageError: Its name is not known here.
        MachineError: No such device, or MONAI is not installed.
    """
    folder = Path(folder)
    about = _read_about(folder)
    name = about["name"]
    where = pick_device(device)
    recipe = Recipe.model_validate(about["recipe"])
    method = find_baseline(name)(recipe, make_settings(name, about["settings"]), where)
    _restore(method, _read_state(folder / STATE_FILE), folder)
    return TrainedBaseline(
        name=name,
        method=method,
        path=folder,
        training_ids=about["cases"],
        calibrations=read_calibrations(folder),
        hash=_hash(about, folder / STATE_FILE),
        losses=about["losses"],
        training_seconds=about["seconds"],
    )


def identity(folder: Path) -> tuple[str, str]:
    """Name of the recipe and hash of a trained baseline, without opening it.

    Raises:
        ExperimentError: There is none, or it is damaged.
    """
    about = _read_about(folder)
    return about["recipe"]["name"], _hash(about, folder / STATE_FILE)


def _is_trained(folder: Path, wanted: Json) -> bool:
    """Whether a folder holds this very training.

    Raises:
        UsageError: It holds another one, or files of something else.
    """
    if not folder.is_dir() or not any(folder.iterdir()):
        return False
    if not (folder / ABOUT_FILE).is_file():
        names = {path.name for path in folder.iterdir() if not path.name.startswith(".partial-")}
        if names <= {STATE_FILE}:
            return False  # a training that was stopped while it was written
        raise UsageError("the folder holds no baseline", where=folder, remedy="choose another -o")
    about = _read_about(folder)
    differing = [key for key, value in wanted.items() if about[key] != value]
    if differing:
        raise UsageError(
            f"a baseline with another {', '.join(differing)} is already there",
            where=folder,
            remedy="choose another -o, or --force to replace it",
        )
    return True


def _read_about(folder: Path) -> Json:
    try:
        about: Json = json.loads((folder / ABOUT_FILE).read_text())
        recipe, keys = about["recipe"], ("name", "settings", "cases", "losses", "seconds", "format")
        missing = [key for key in keys if key not in about]
        Recipe.model_validate(recipe)
        missing += [f"recipe.{key}" for key in missing_keys(recipe)]
    except FileNotFoundError as error:
        raise ExperimentError(
            "holds no trained baseline", where=folder, remedy="train one with `anofield baseline NAME train`"
        ) from error
    except (OSError, ValueError, KeyError, TypeError) as error:
        missing = [str(error).splitlines()[0]]
    if missing or about["format"] != FORMAT:
        raise ExperimentError(
            f"its {ABOUT_FILE} is damaged or of another version ({', '.join(missing) or 'format'})",
            where=folder,
            remedy="train the baseline again with --force",
        )
    return about


def _restore(method: Baseline, state: State, folder: Path) -> None:
    try:
        method.restore(state)
    except (KeyError, RuntimeError, AttributeError) as error:
        raise ExperimentError(
            f"its {STATE_FILE} is not the state of this baseline",
            where=folder,
            why=str(error).splitlines()[-1].strip(),
            remedy="train the baseline again with --force",
        ) from error


def _read_state(path: Path) -> State:
    """Tensors by name; nothing else is read from the file, which may come from anywhere."""
    try:
        state: State = torch.load(path, map_location="cpu", weights_only=True)
    except (OSError, EOFError, RuntimeError, ValueError, KeyError, pickle.UnpicklingError) as error:
        raise ExperimentError(
            "the state cannot be read", where=path, why=type(error).__name__, remedy="train the baseline again"
        ) from error
    return state


def _hash(about: Json, state: Path) -> str:
    parts = [json.dumps([about["name"], about["settings"], about["recipe"]], sort_keys=True), file_hash(state)]
    return hashlib.sha256("\n".join(parts).encode()).hexdigest()


def _plain(recipe: Recipe) -> Json:
    return recipe.model_dump(mode="json")
