"""A world: people to train on, their stores, and all methods trained on them; made once and shared by suites."""

from __future__ import annotations

import contextlib
import math
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, cast

from anofield import study
from anofield._locks import take
from anofield._progress import say
from anofield.baselines.registry import find_baseline
from anofield.baselines.run import make_settings, train_baseline
from anofield.benchmark.people import People
from anofield.benchmark.rows import MethodRow
from anofield.benchmark.sizes import Sizes
from anofield.data.cohort.case import Case
from anofield.data.parallel import failures_of
from anofield.data.store import Store, prepare_cohort
from anofield.detect.method import Method
from anofield.detect.model import Model, load_model
from anofield.detect.placer import posing
from anofield.field.experiment import Experiment

FOREVER = 7 * 24 * 3600.0  # seconds


@dataclass(frozen=True)
class Trained:
    """A trained method and the duration of its training, s."""

    method: Method
    seconds: float


@dataclass(frozen=True)
class Apart:
    """A method whose calibrations lie in a folder of their own, so that it can have several with the same options.

    Attributes:
        method: The method.
        path: Folder of the calibrations.
    """

    method: Method
    path: Path

    def __getattr__(self, name: str) -> Any:
        return getattr(self.method, name)

    @classmethod
    def of(cls, method: Method, path: Path) -> Method:
        """The method with this folder."""
        return cast(Method, cls(method, path))


@dataclass(frozen=True, kw_only=True, eq=False)
class World:
    """People to train on, and everything that is made of them, in one folder. Each part is made at its first use.

    Several processes may use a world at the same time: one makes a part and the others wait for it.

    Attributes:
        name: Name of the world.
        out: Folder of the benchmark; the world is in `worlds/NAME`.
        train: People to train on.
        sizes: Sizes of training.
        seed: Seed of people and of every training.
        device: Device of training and scoring.
    """

    name: str
    out: Path
    train: People
    sizes: Sizes
    seed: int
    device: str

    @property
    def folder(self) -> Path:
        """Folder of the world."""
        return self.out / "worlds" / self.name

    def cases(self, people: People) -> list[Case]:
        """The scans of a group of people."""
        with waiting(self.out / "people" / f".{people.name}.lock"):
            return people.cases(self.out / "people", self.seed)

    @cached_property
    def store(self) -> Store:
        """Store of the training people, each as the scan lies."""
        with waiting(self.folder / ".store.lock"):
            return study.make_store(self.cases(self.train), self.folder / "train.zarr", self.sizes.plan, self.seed)

    @cached_property
    def experiment(self) -> Path:
        """Experiment of the trained field."""
        store = self.store
        with waiting(self.folder / ".field.lock"):
            return study.make_experiment(self.folder / "experiment", store, self.sizes.plan, self.seed, self.device)

    @cached_property
    def posed_store(self) -> Store:
        """Store of the training people on the lattice that the field's pose lays in each scan."""
        place = posing(self.experiment, device=self.device)
        with waiting(self.folder / ".posed-store.lock"):
            cases, path = self.cases(self.train), self.folder / "train-posed.zarr"
            store, outcomes = prepare_cohort(cases, self.store.recipe, path, place=place)
        study.refuse_failures(failures_of(outcomes))
        return store

    @cached_property
    def field(self) -> Model:
        """The trained field."""
        return load_model(self.experiment, device=self.device, precision="float32")

    def trained(self, row: MethodRow) -> Trained:
        """The method of a row."""
        if row.is_field:
            timing = [seconds for seconds in Experiment(self.experiment).load().logs.timing if math.isfinite(seconds)]
            return Trained(self.field, round(sum(timing), 1))
        store = self.posed_store if row.posed else self.store
        folder = self.folder / "methods" / row.name
        with waiting(folder / ".training.lock"):
            settings = make_settings(row.method, self._settings(row))
            found = train_baseline(row.method, store, folder / "model", settings, device=self.device)
        return Trained(found, found.info.seconds)

    def _settings(self, row: MethodRow) -> dict[str, Any]:
        """Settings of a baseline that differ from its defaults: seed, and steps and augmentation where it has them."""
        known = find_baseline(row.method).settings_type.model_fields
        wanted = {"seed": self.seed, "steps": self.sizes.steps, "augment": not row.posed}
        return {name: value for name, value in wanted.items() if name in known}

    def calibrated_on(self, row: MethodRow, method: Method, people: People) -> Method:
        """A method whose calibrations are kept apart for these people."""
        return Apart.of(method, self.folder / "calibrated" / row.name / people.name)


@contextlib.contextmanager
def waiting(path: Path) -> Iterator[None]:
    """Hold a lock file during the body, as soon as no other process does."""
    lock = take(path)
    if lock.state == "busy":
        lock.release()
        say(f"benchmark: another process is at {path.name.strip('.').removesuffix('.lock')}; waiting for it")
        lock = take(path, FOREVER)
    try:
        yield
    finally:
        lock.release()
