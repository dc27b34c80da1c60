"""Folder of a trained baseline: `baseline.json`, `state.pth` and its calibrations."""

from __future__ import annotations

import hashlib
import json
import shutil
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import zip_longest
from pathlib import Path
from typing import Any

import torch
from pydantic import Field, ValidationError

from anofield._files import PARTIAL, explain, file_hash, read_json, sealed, write_json, writing
from anofield._plugins import Plugin
from anofield._progress import say
from anofield._version import __version__
from anofield.baselines import trial
from anofield.baselines.base import Baseline, Settings, State
from anofield.baselines.registry import find_baseline, plugin_of
from anofield.data.brain import StrippedScan
from anofield.data.layout import PosedBy, pose_identity
from anofield.data.origin import Origin
from anofield.data.prepared import Prepared
from anofield.data.recipe import Recipe, missing_keys
from anofield.data.store import Store
from anofield.detect.calibration import FOLDER
from anofield.detect.fit import Fit
from anofield.detect.method import Analysis
from anofield.detect.options import BaselineOptions, RunOptions, ScoreOptions
from anofield.detect.placer import Placer, open_placer
from anofield.detect.run_folder import Record
from anofield.detect.tail import settled
from anofield.errors import ExperimentError, UsageError
from anofield.field.device import pick_device
from anofield.field.tensor_file import TensorFile, checked_tensors, read_tensors, write_tensors
from anofield.field.threads import threads_of
from anofield.typing import Affine, PathLike

ABOUT_FILE, STATE_FILE = "baseline.json", "state.pth"
AGAIN = "train the baseline again with --force"


class BaselineInfo(Record):
    """Content of `baseline.json`, which is written last: a baseline without it was not trained to the end."""

    name: str
    """Name in the registry."""
    settings: dict[str, Any]
    """Settings of the training."""
    recipe: dict[str, Any]
    """Recipe that scans are prepared with."""
    cases: list[str]
    """Ids of the training cases."""
    contents: list[str] = Field(default_factory=list)
    """Content hash of the scan of each training case; empty in files of older versions."""
    origin: Origin | None = None
    """Where the training scans come from; None in files of older versions."""
    state: str | None = None
    """SHA-256 of `state.pth`; None in files of older versions."""
    pose: PosedBy | None = None
    """What found the poses of the training scans; None if they lie as in their scanner."""
    title: str
    """Name of the method in a few words."""
    paper: str
    """Publication of the method."""
    losses: list[float]
    """Mean loss of about twenty equal parts of the training."""
    seconds: float
    """Duration of the training, s."""
    device: str
    """Device that it was trained on."""
    threads: int | None = None
    """CPU threads of torch in the training; None in files of older versions."""
    anofield: str
    """Version of this package."""
    torch: str
    """Version of torch."""


@dataclass(frozen=True)
class TrainedBaseline:
    """A trained baseline, opened for detection; implements `anofield.detect.method.Method`.

    Attributes:
        method: The baseline with its trained state.
        path: Folder of the baseline.
        info: Content of `baseline.json`.
        hash: Hash of name, settings, recipe and state.
        plugin: Plug-in that the baseline is; None for a baseline of this package.
        placer: Finds the pose of a scan; None for a baseline that was trained on scans as they lie.
    """

    method: Baseline
    path: Path
    info: BaselineInfo
    hash: str
    plugin: Plugin | None = None
    placer: Placer | None = None

    @property
    def name(self) -> str:
        """Name in the registry."""
        return self.info.name

    @property
    def recipe(self) -> Recipe:
        """Recipe of the training cases, which scans are prepared with."""
        return self.method.recipe

    @property
    def own_recipe(self) -> str:
        """Name of the recipe that it was trained with."""
        return self.recipe.name

    @property
    def device(self) -> torch.device:
        """Device of the computation."""
        return self.method.device

    @property
    def precision(self) -> str:
        """Precision of the matrix products."""
        return "float32"

    @property
    def training_ids(self) -> Sequence[str]:
        """Ids of the cases that it was trained on."""
        return self.info.cases

    @property
    def training_contents(self) -> Sequence[str]:
        """Content hash of the scan of each training case; empty where `baseline.json` does not hold them."""
        return self.info.contents

    @property
    def origin(self) -> Origin:
        """Where the training scans come from; its contrast decides about the tail `auto`."""
        return self.info.origin or Origin(people=len(self.info.cases))

    @property
    def epoch(self) -> int | None:
        """None: a baseline keeps only the end of its training."""
        return None

    @property
    def scores(self) -> Sequence[str]:
        """Names of its scores: only one, which is the name of the baseline."""
        return [self.name]

    def __repr__(self) -> str:
        return f"TrainedBaseline({self.path}: {self.name}, {len(self.info.cases)} subjects, {self.device})"

    def place(self, native: StrippedScan, prepared: Prepared) -> Affine | None:
        """Pose of a scan, found by the field that posed the training scans; None if they were not posed."""
        return None if self.placer is None else self.placer(native, prepared)

    def analyse(self, prepared: Prepared, key: str, options: RunOptions, fit: Fit | None = None) -> Analysis:
        """Score one scan on its lattice, see `anofield.detect.method.Method`."""
        start = time.perf_counter()
        scored = trial.score(self.method, self.plugin, prepared, key, settled(options, self).tail)
        seconds = {"score": time.perf_counter() - start}
        return Analysis(
            maps={self.name: scored.anomaly}, restoration=scored.restoration, corrected=prepared, seconds=seconds
        )


def baseline_options(name: str, filters: ScoreOptions | None = None) -> BaselineOptions:
    """Options for the run of a baseline: its only score, with the same filters as the field."""
    return BaselineOptions(score=name, filters=filters or ScoreOptions())


def make_settings(name: str, changes: Mapping[str, Any]) -> Settings:
    """Make the settings of a baseline.

    Args:
        name: Name in the registry.
        changes: Values that differ from the defaults, by name.

    Raises:
        UsageError: There is no such baseline or setting, or a value is invalid.
    """
    kind = find_baseline(name).settings_type
    try:
        return kind.model_validate(changes)
    except ValidationError as error:
        known = ", ".join(f"{key} ({field.default})" for key, field in kind.model_fields.items())
        raise UsageError(f"{name}: {explain(error)}", remedy=f"settings and defaults: {known}") from error


def train_baseline(
    name: str, store: Store, folder: PathLike, settings: Settings, *, device: str = "auto", force: bool = False
) -> TrainedBaseline:
    """Train a baseline and save it in a folder; if the folder holds the same training, open it.

    Args:
        name: Name in the registry.
        store: Prepared healthy subjects.
        folder: Folder of the baseline.
        settings: Settings from `make_settings`.
        device: Device for training: `auto`, `cpu`, `cuda[:N]` or `mps`.
        force: Train again.

    Raises:
        UsageError: The folder holds another training or other files, or an installed baseline is broken.
        ExperimentError: There are too few cases, or the training diverged.
        MachineError: MONAI is not installed, there is no such device, or the folder cannot be written.
    """
    folder, where = Path(folder), pick_device(device)
    cases, contents = store.require_cases(), store.contents
    wanted: dict[str, Any] = {
        "name": name,
        "settings": settings.model_dump(mode="json"),
        "recipe": store.recipe.model_dump(mode="json"),
        "cases": [store.ids[index] for index in cases],
        "contents": [contents[index] for index in cases],
        "pose": store.pose,
    }
    if not force and _is_trained(folder, wanted):
        say(f"{name}: already trained in {folder}")
        return load_baseline(folder, device=device)
    start = time.monotonic()
    plugin = plugin_of(name)
    with trial.blamed(plugin, "cannot be trained"):
        method = find_baseline(name)(store.recipe, settings, where)
        method.train(store)
    trial.try_out(method, plugin)
    state = trial.state_of(method, plugin)
    seconds = time.monotonic() - start
    with writing(folder):
        folder.mkdir(parents=True, exist_ok=True)
        (folder / ABOUT_FILE).unlink(missing_ok=True)
        shutil.rmtree(folder / FOLDER, ignore_errors=True)  # the calibrations are valid only for the old state
    write_tensors(folder / STATE_FILE, state)
    info = BaselineInfo(
        **wanted,
        origin=store.origin,
        state=file_hash(folder / STATE_FILE),
        title=method.title,
        paper=method.paper,
        losses=method.losses,
        seconds=round(seconds, 2),
        device=str(where),
        threads=threads_of(),
        anofield=__version__,
        torch=str(torch.__version__),
    )
    write_json(folder / ABOUT_FILE, sealed(info))
    return load_baseline(folder, device=device)


def load_baseline(folder: PathLike, *, device: str = "auto") -> TrainedBaseline:
    """Open a trained baseline.

    Raises:
        ExperimentError: The baseline is missing or damaged, its state belongs to another method, or the experiment
            that posed its training scans is missing or was trained again.
        UsageError: No installed baseline has its name, or an installed one is broken.
        MachineError: There is no such device, or MONAI is not installed.
    """
    folder = Path(folder)
    info = _read_info(folder)
    stored = _read_state(folder, info)
    settings, where, plugin = make_settings(info.name, info.settings), pick_device(device), plugin_of(info.name)
    with trial.blamed(plugin, "cannot be opened"):
        method = find_baseline(info.name)(_recipe(folder, info), settings, where)
        _restore(method, checked_tensors(stored.content, stored.path), folder)
    trial.try_out(method, plugin)
    placer = None if info.pose is None else open_placer(info.pose, folder, device=device)
    return TrainedBaseline(method, folder, info, _hash(info, stored.hash), plugin, placer)


def identity(folder: Path) -> str:
    """Hash of a trained baseline, without opening it.

    Raises:
        ExperimentError: The baseline is missing or damaged.
    """
    info = _read_info(folder)
    return _hash(info, _read_state(folder, info).hash)


def origin_of_baseline(folder: Path) -> Origin | None:
    """Where the training scans of a baseline come from; None if its files do not say it.

    Raises:
        ExperimentError: The baseline is missing or damaged.
    """
    return _read_info(folder).origin


def _is_trained(folder: Path, wanted: Mapping[str, Any]) -> bool:
    """Whether a folder holds exactly this training.

    Raises:
        UsageError: The folder holds another training or other files.
    """
    if not folder.is_dir() or not any(folder.iterdir()):
        return False
    if not (folder / ABOUT_FILE).is_file():
        names = {path.name for path in folder.iterdir() if not path.name.startswith(PARTIAL)}
        if names <= {STATE_FILE}:
            return False  # a training that was stopped while it was written
        raise UsageError("the folder holds no baseline", where=folder, remedy="choose another -o")
    info = _read_info(folder)
    found = {key: getattr(info, key) for key in wanted}
    if pose_identity(info.pose) == pose_identity(wanted["pose"]):
        found["pose"] = wanted["pose"]  # the experiment may have been moved
    if info.cases == wanted["cases"]:
        found["contents"] = _where_known(info.contents, wanted["contents"])
    differing = [key for key, value in wanted.items() if found[key] != value]
    if differing:
        raise UsageError(
            f"a baseline with another {', '.join(differing)} is already there",
            where=folder,
            remedy="choose another -o, or --force to replace it",
        )
    return True


def _where_known(found: Sequence[str], wanted: Sequence[str]) -> list[str]:
    """The contents found; where one side does not know one, as files of older versions do not, it is taken as equal."""
    return [one if one and other else other for one, other in zip_longest(found, wanted, fillvalue="")]


def _read_info(folder: Path) -> BaselineInfo:
    if not (folder / ABOUT_FILE).is_file():
        raise ExperimentError(
            "holds no trained baseline", where=folder, remedy="train one with `anofield baseline NAME train`"
        )
    info = read_json(folder / ABOUT_FILE, BaselineInfo, remedy=AGAIN, error=ExperimentError)
    if lacking := missing_keys(info.recipe):
        what = f"is damaged (its recipe lacks {', '.join(lacking)})"
        raise ExperimentError(what, where=folder / ABOUT_FILE, remedy=AGAIN)
    return info


def _recipe(folder: Path, info: BaselineInfo) -> Recipe:
    try:
        return Recipe.model_validate(info.recipe)
    except ValidationError as error:
        what = f"is damaged (its recipe: {explain(error)})"
        raise ExperimentError(what, where=folder / ABOUT_FILE, remedy=AGAIN) from error


def _restore(method: Baseline, state: State, folder: Path) -> None:
    try:
        method.restore(state)
    except (KeyError, RuntimeError, AttributeError, TypeError, ValueError) as error:
        raise ExperimentError(
            f"its {STATE_FILE} is not the state of this baseline",
            where=folder,
            why=(str(error).splitlines() or [type(error).__name__])[-1].strip(),
            remedy=AGAIN,
        ) from error


def _read_state(folder: Path, info: BaselineInfo) -> TensorFile:
    """The file of the state; other content than tensors is refused, because the file may not be trustworthy.

    Raises:
        ExperimentError: It is missing or damaged, or not the one that `baseline.json` was written for.
    """
    state = read_tensors(folder / STATE_FILE)
    if info.state not in (None, state.hash):
        raise ExperimentError(
            f"is not the file that {ABOUT_FILE} names", where=state.path, why="it is of another training", remedy=AGAIN
        )
    return state


def _hash(info: BaselineInfo, state: str) -> str:
    """Hash of a baseline, from its description, the SHA-256 of its state, and what poses its scans."""
    parts = [json.dumps([info.name, info.settings, info.recipe], sort_keys=True), state]
    parts += [] if info.pose is None else [info.pose.identity]
    return hashlib.sha256("\n".join(parts).encode()).hexdigest()
