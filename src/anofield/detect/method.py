"""Interface of a method, which the field and all baselines implement: it scores a prepared scan."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Protocol

import torch

from anofield.data.brain import StrippedScan
from anofield.data.origin import Origin
from anofield.data.prepared import Prepared
from anofield.data.recipe import Recipe
from anofield.detect.fit import Fit
from anofield.detect.options import RunOptions
from anofield.detect.pose import Pose
from anofield.typing import Affine, FloatVolume


@dataclass(frozen=True, kw_only=True)
class Analysis:
    """Result of a method for one scan, on the lattice and before any filter.

    Attributes:
        maps: Score per name, (R, R, R) float32, 0 outside the brain.
        restoration: Healthy version of the scan in normalised intensity, (R, R, R); None if the method has none.
        corrected: The scan that was scored: after the fitted intensity map, if there is one.
        fit: Fit of the scan; None if the method fits nothing.
        seconds: Time per stage, s.
    """

    maps: dict[str, FloatVolume]
    restoration: FloatVolume | None
    corrected: Prepared
    fit: Fit | None = None
    seconds: dict[str, float] = field(default_factory=dict)

    @property
    def pose(self) -> Pose | None:
        """Pose of the head in the field; None if it was not fitted."""
        return None if self.fit is None else self.fit.pose


class Method(Protocol):
    """A trained method: the field (`anofield.detect.model.Model`) or a baseline (`anofield.baselines.run`)."""

    @property
    def name(self) -> str:
        """Name of the method."""

    @property
    def path(self) -> Path:
        """Folder of the method, which holds its calibrations."""

    @property
    def recipe(self) -> Recipe:
        """Recipe that scans are prepared with."""

    @property
    def own_recipe(self) -> str:
        """Name of the recipe that the method was trained with."""

    @property
    def hash(self) -> str:
        """Hash of the trained state."""

    @property
    def device(self) -> torch.device:
        """Device of the computation."""

    @property
    def precision(self) -> str:
        """Precision of the matrix products, `float32` or `bfloat16`."""

    @property
    def training_ids(self) -> Sequence[str]:
        """Ids of the training cases."""

    @property
    def training_contents(self) -> Sequence[str]:
        """Content hash of the scan of each training case, hexadecimal, an empty text where it is not known.

        The whole sequence is empty for methods that were trained before these hashes were kept.
        """

    @property
    def origin(self) -> Origin:
        """Where the training scans come from; its contrast decides about the tail `auto`."""

    @property
    def epoch(self) -> int | None:
        """Epoch of the training in use; None for a method without epochs."""

    @property
    def scores(self) -> Sequence[str]:
        """Names of all scores that the method can compute."""

    def place(self, native: StrippedScan, prepared: Prepared) -> Affine | None:
        """The pose on whose lattice a scan must be prepared; None if the method takes scans as they lie.

        Args:
            native: The scan in its own voxels.
            prepared: The scan as it lies, on the lattice of the recipe.

        Returns:
            Field coordinates of the scan → field coordinates in the training's frame, (4, 4).
        """

    def analyse(self, prepared: Prepared, key: str, options: RunOptions, fit: Fit | None = None) -> Analysis:
        """Score one scan.

        Args:
            prepared: The scan on the lattice of the recipe.
            key: Hash of the scan's content, which seeds all random numbers.
            options: Options of the run, which name the scores to compute.
            fit: Fit of this scan if it is already known; a method that fits nothing ignores it.
        """
