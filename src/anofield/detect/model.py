"""The public `Model`: a trained field with calibration and detection."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import torch

from anofield._words import counted
from anofield.data.brain import StrippedScan, as_stripped
from anofield.data.cohort.case import Case
from anofield.data.origin import Origin
from anofield.data.parallel import Spread
from anofield.data.prepared import Prepared
from anofield.data.recipe import Recipe, read_recipe
from anofield.data.scan import stem
from anofield.detect.calibrate import QUANTILE, calibrate
from anofield.detect.calibration import Calibrations, look_up, read_calibrations
from anofield.detect.detection import Detection, detect_scan
from anofield.detect.fit import Fit
from anofield.detect.method import Analysis
from anofield.detect.options import PRESETS, FieldOptions, RunOptions
from anofield.detect.procedure import PROCEDURES
from anofield.detect.run import Run, detect_cases
from anofield.detect.scores import usable_scores
from anofield.detect.tail import origin_of_field, say_other_contrasts, settled
from anofield.errors import UsageError, for_python
from anofield.field.device import Precision
from anofield.field.model import TrainedField, open_field
from anofield.field.parts import LATEST
from anofield.typing import Affine, PathLike


@dataclass(frozen=True, repr=False)
class Model:
    """A trained field, ready for detection; its calibrations are read from disk when they are needed.

    Attributes:
        trained: The opened experiment.
    """

    trained: TrainedField

    @property
    def name(self) -> str:
        """Name of the method."""
        return "anofield"

    @property
    def path(self) -> Path:
        """Experiment directory."""
        return self.trained.path

    @property
    def recipe(self) -> Recipe:
        """Recipe that scans are prepared with."""
        return self.trained.recipe

    @property
    def own_recipe(self) -> str:
        """Name of the recipe that the field was trained with."""
        return read_recipe(self.path).name

    @property
    def hash(self) -> str:
        """Hash of weights and codes."""
        return self.trained.hash

    @property
    def device(self) -> torch.device:
        """Device of the field."""
        return self.trained.device

    @property
    def precision(self) -> str:
        """Precision of the matrix products, `float32` or `bfloat16`."""
        return self.trained.precision

    @property
    def training_ids(self) -> Sequence[str]:
        """Ids of the training cases."""
        return self.trained.codes.ids

    @property
    def training_contents(self) -> Sequence[str]:
        """Content hash of the scan of each training case; empty where the checkpoint does not hold them."""
        return self.trained.codes.contents

    @cached_property
    def origin(self) -> Origin:
        """Where the training scans come from; its contrast decides about the tail `auto`."""
        return origin_of_field(self.trained)

    @property
    def epoch(self) -> int | None:
        """Epoch in use."""
        return self.trained.epoch

    @property
    def scores(self) -> Sequence[str]:
        """Names of all scores that the field can compute; installed scores that fail are named on stderr."""
        return usable_scores()

    @property
    def calibrations(self) -> Calibrations:
        """Calibrations of the model that are on disk now."""
        return read_calibrations(self.path)

    def __repr__(self) -> str:
        names = [one.info.settings for one in self.calibrations.found if one.info.model_hash == self.hash]
        calibrated = f"calibrated: {', '.join(names)}" if names else "not calibrated"
        side = self.recipe.resolution or "full"
        subjects = counted(len(self.trained.codes), "subject")
        return f"Model({self.path}: {self.recipe.name} {side}³, {subjects}; {calibrated})"

    def place(self, native: StrippedScan, prepared: Prepared) -> Affine | None:
        """None: the field fits the pose itself, together with the code."""
        return None

    def analyse(self, prepared: Prepared, key: str, options: RunOptions, fit: Fit | None = None) -> Analysis:
        """Score one scan on its lattice; see `anofield.detect.method.Method`."""
        return PROCEDURES[options.procedure].analyse(self.trained, prepared, key, settled(options, self), fit)

    @for_python
    def detect(
        self, source: Any, *, brain: Any = None, options: FieldOptions | str = "default", id: str | None = None
    ) -> Detection:
        """Detect anomalies in one scan.

        Args:
            source: A path, a `Scan`, a nibabel image, or an array with its affine `(array, affine)`.
            brain: Brain mask in the same forms, or a boolean array on the scan's voxels; None takes the voxels that
                are not 0, which is right for a skull-stripped scan.
            options: A preset (`default`, `small-lesions`, `ifl2021`) or options.
            id: Case id of the result; None takes the file name.

        Raises:
            ScanError: The scan or the mask cannot be used.
            UsageError: The model was calibrated only with other options.

        Example:
            >>> found = model.detect("sub-01_T2w.nii.gz", brain="mask.nii.gz")  # doctest: +SKIP
        """
        chosen = chosen_options(options)
        native = as_stripped(source, brain, dtype=self.recipe.kind.dtype)
        mask = Path(brain) if isinstance(brain, str | Path) else None
        case = Case(id or stem(native.scan.path), native.scan.path, None, mask)
        say_other_contrasts([case], self)
        return detect_scan(case, native, self, chosen, look_up(self, chosen))

    @for_python
    def detect_many(
        self,
        cases: Sequence[Case],
        out: PathLike,
        *,
        options: FieldOptions | str = "default",
        force: bool = False,
        workers: int = 1,
        scheduler: str | None = None,
    ) -> Run:
        """Detect in a cohort and write a run folder; finished cases are skipped, failing ones recorded.

        Args:
            cases: Cases from `anofield.find_cases`.
            out: Folder of the run.
            options: A preset (`default`, `small-lesions`, `ifl2021`) or options.
            force: Detect again in finished cases.
            workers: Local processes.
            scheduler: Address of a running Dask scheduler to use instead of local processes.

        Raises:
            UsageError: The model was calibrated only with other options.
            MachineError: The folder cannot be written.
        """
        chosen = chosen_options(options)
        return detect_cases(cases, self, chosen, out, force=force, spread=Spread(workers, scheduler))

    @for_python
    def calibrate(
        self,
        cases: Sequence[Case],
        *,
        options: FieldOptions | str = "default",
        quantile: float = QUANTILE,
        workers: int = 1,
        scheduler: str | None = None,
    ) -> Model:
        """Measure thresholds on healthy scans and store them with the experiment; returns the calibrated model.

        Args:
            cases: Healthy subjects that the model was not trained on.
            options: A preset (`default`, `small-lesions`, `ifl2021`) or options that the thresholds are
                measured for.
            quantile: Share of healthy brain voxels at or below the thresholds.
            workers: Local processes.
            scheduler: Address of a running Dask scheduler to use instead of local processes.

        Raises:
            UsageError: A case is a training case, or the quantile is not between 0 and 1.
            CohortError: No case could be used.
        """
        calibrate(cases, self, chosen_options(options), quantile=quantile, spread=Spread(workers, scheduler))
        return self


def load_model(
    path: PathLike,
    *,
    epoch: str = LATEST,
    device: str | torch.device = "auto",
    precision: Precision = "auto",
    recipe: str | None = None,
) -> Model:
    """Open an experiment for detection.

    Args:
        path: Experiment directory.
        epoch: `latest` or the number of an epoch.
        device: `auto`, `cpu`, `cuda[:N]` or `mps`.
        precision: Precision of the matrix products: `float32`, `bfloat16`, or `auto` for bfloat16 if the device
            supports it in hardware.
        recipe: Name or file of a recipe to prepare scans with instead of the experiment's own.

    Raises:
        ExperimentError: The experiment, its checkpoint or its recipe is missing, or weights or codes belong to another
            network.
        UsageError: The given recipe does not fit the field.
        MachineError: The device is not available.
    """
    return Model(open_field(path, epoch=epoch, device=device, precision=precision, recipe=recipe))


def chosen_options(options: FieldOptions | str) -> FieldOptions:
    """The given options, or those of a preset.

    Raises:
        UsageError: There is no such preset, or the argument is neither.
    """
    if isinstance(options, FieldOptions):
        return options
    if not isinstance(options, str):
        what = f"{type(options).__name__} where options are expected"
        raise UsageError(what, remedy=f"give DetectOptions, PublishedOptions or a preset: {', '.join(PRESETS)}")
    if options not in PRESETS:
        raise UsageError(f"unknown preset {options!r}", remedy=f"choose one of {', '.join(PRESETS)}")
    return PRESETS[options]
