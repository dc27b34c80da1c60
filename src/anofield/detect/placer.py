"""The placer: finds with a trained field how a head lies, once per scan, so that every method can be given the pose."""

from __future__ import annotations

import contextlib
import hashlib
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from pydantic import BaseModel, ConfigDict, ValidationError

from anofield._files import explain, read_json, sealed, write_json
from anofield._progress import say_once
from anofield.data.brain import StrippedScan
from anofield.data.lattice import index_to_field
from anofield.data.layout import PosedBy
from anofield.data.prepare import prepare_scan
from anofield.data.prepared import Prepared
from anofield.data.published import lattice_side
from anofield.data.recipe import Recipe
from anofield.detect.fit import fit_code
from anofield.detect.model import Model, load_model
from anofield.detect.options import FitOptions
from anofield.errors import AnofieldError, ExperimentError, MachineError, UsageError
from anofield.typing import Affine, PathLike

FOLDER = "poses"  # in the experiment: one file per scan
FIT = FitOptions(pose="affine")


class KeptPose(BaseModel):
    """Content of a file of the cache: a pose."""

    model_config = ConfigDict(frozen=True)

    matrix: list[list[float]]
    """Field coordinates of the scan → field coordinates in the training's frame, four rows of four."""


@dataclass(frozen=True)
class Placer:
    """Finds the affine pose of a scan by fitting a field to it, and keeps it by the scan's content.

    Attributes:
        model: The trained field; its frame is the one in which all heads come to lie.
        cache: Folder of the poses that were found, shared by all processes; None keeps none.
        fit: Options of the fit; its kind of pose must not be `none`.
    """

    model: Model
    cache: Path | None = None
    fit: FitOptions = FIT

    def __post_init__(self) -> None:
        if self.fit.pose == "none":
            raise UsageError("the placer's fit has no pose", remedy="give it options with a pose, such as affine")
        if self.model.recipe.kind.published:
            raise UsageError(
                f"a field of the recipe {self.model.recipe.name} finds no poses",
                where=self.model.path,
                why="its voxels are fixed crops of the scanner's own, as published",
                remedy="use an experiment of the box recipe",
            )

    @property
    def source(self) -> PosedBy:
        """What finds the poses; stores and baselines record it."""
        experiment, epoch = str(self.model.path.resolve()), self.model.epoch or 0
        return PosedBy(experiment=experiment, epoch=epoch, hash=self.model.hash, fit=self.fit.model_dump(mode="json"))

    def __call__(self, native: StrippedScan, prepared: Prepared) -> Affine:
        """The pose of a scan, (4, 4): its field coordinates → field coordinates in the training's frame.

        Args:
            native: The scan in its own voxels.
            prepared: The scan as it lies, prepared with any box recipe. The pose is in its field coordinates.

        Raises:
            ScanError: The scan cannot be prepared with the recipe of the field.
        """
        pose = self._kept(native, prepared)
        own, wanted = _field_to_mm(self.model.recipe), _field_to_mm(prepared.recipe)
        if np.array_equal(own, wanted):
            return pose
        change = np.linalg.inv(wanted) @ own
        return np.asarray(change @ pose @ np.linalg.inv(change))

    def _kept(self, native: StrippedScan, prepared: Prepared) -> Affine:
        """The pose in the coordinates of the field, from the cache if it is there."""
        path = None if self.cache is None else self.cache / f"{self._key(native)}.json"
        found = None if path is None else _read(path)
        if found is not None:
            return found
        pose = self._fitted(native, prepared)
        if path is not None and np.isfinite(pose).all():
            _write(path, pose)
        return pose

    def _fitted(self, native: StrippedScan, prepared: Prepared) -> Affine:
        trained, recipe = self.model.trained, self.model.recipe
        own = prepared if prepared.recipe == recipe else prepare_scan(native, None, recipe)
        fit = fit_code(trained.field, trained.prior, own, native.scan.content_hash, self.fit, trained.device)
        return np.eye(4) if fit.pose is None else fit.pose.matrix

    def _key(self, native: StrippedScan) -> str:
        """Hash of everything that the pose depends on."""
        brain = hashlib.sha256(np.packbits(native.brain).tobytes()).hexdigest()
        device = f"{self.model.device.type} {self.model.precision}"
        parts = [native.scan.content_hash, brain, self.source.identity, self.model.recipe.model_dump_json(), device]
        return hashlib.sha256("\n".join(parts).encode()).hexdigest()


def open_placer(source: PosedBy, where: PathLike, *, device: str = "auto") -> Placer:
    """The placer that a store or a baseline names; its cache lies in the experiment.

    Args:
        source: What the store or the baseline records.
        where: The store or the baseline, for the error.
        device: `auto`, `cpu`, `cuda[:N]` or `mps`.

    Raises:
        ExperimentError: The experiment is missing or damaged, or its checkpoint is another one now.
        MachineError: The device is not available.
    """
    why = "its scans were posed by this field, and every new scan must be posed by the same one"
    again = "bring it back to its place; or prepare the store again with --pose, and train again on it"
    try:
        placer = posing(source.experiment, device=device, fit=_options(source, where))
    except MachineError:
        raise
    except AnofieldError as error:
        what = f"needs the experiment {source.experiment}, which cannot be opened ({error.what})"
        raise ExperimentError(what, where=where, why=why, remedy=again) from error
    if placer.model.hash == source.hash:
        return placer
    with contextlib.suppress(ExperimentError):  # trained on since, but the checkpoint was kept
        snapshot = posing(source.experiment, epoch=str(source.epoch), device=device, fit=placer.fit)
        if snapshot.model.hash == source.hash:
            return snapshot
    what = f"needs epoch {source.epoch} of the experiment {source.experiment}, which was trained again since"
    raise ExperimentError(what, where=where, why=why, remedy=again)


def posing(experiment: PathLike, *, epoch: str = "latest", device: str = "auto", fit: FitOptions = FIT) -> Placer:
    """A placer that keeps its poses in the experiment; the other arguments are those of `load_model` and `Placer`."""
    return Placer(load_model(experiment, epoch=epoch, device=device), Path(experiment).resolve() / FOLDER, fit)


def _options(source: PosedBy, where: PathLike) -> FitOptions:
    """The options of the fit that a store or a baseline records."""
    try:
        return FitOptions.model_validate(source.fit)
    except ValidationError as error:
        what = f"was posed with options that this version does not know ({explain(error)})"
        raise ExperimentError(what, where=where, remedy="prepare the store again, and train again on it") from error


def _field_to_mm(recipe: Recipe) -> Affine:
    """Field coordinates of a box → mm from the brain's centre of mass, (4, 4)."""
    side = lattice_side(recipe)
    step = recipe.box_mm / side
    index_to_mm = np.diag([step, step, step, 1.0])
    index_to_mm[:3, 3] = -step * (side - 1) / 2
    return np.asarray(index_to_mm @ np.linalg.inv(index_to_field(side, recipe.lattice)))


def _read(path: Path) -> Affine | None:
    """A pose of the cache; None if there is none, or its file is damaged and must be made again."""
    with contextlib.suppress(AnofieldError):
        matrix = np.array(read_json(path, KeptPose, remedy="it is made again").matrix, dtype=np.float64)
        if matrix.shape == (4, 4) and np.isfinite(matrix).all() and np.linalg.det(matrix[:3, :3]) > 0:
            return matrix
    return None


def _write(path: Path, pose: Affine) -> None:
    """Keep a pose; a folder that cannot be written only costs time."""
    try:
        write_json(path, sealed(KeptPose(matrix=pose.tolist())))
    except MachineError as error:
        say_once(f"{path.parent}: poses are not kept, so that each method finds them again ({error.what})")
