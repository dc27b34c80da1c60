"""Options of an evaluation."""

from __future__ import annotations

from dataclasses import dataclass, fields
from typing import Literal

from anofield.bootstrap import RESAMPLES
from anofield.errors import UsageError
from anofield.evaluation.rules import Space
from anofield.typing import PathLike

Preset = Literal["ifl2021"]


@dataclass(frozen=True, kw_only=True)
class Options:
    """How a run is evaluated.

    Attributes:
        dataset: Layout whose names the labels have, if they are not beside the scans; `auto` takes any that fit.
        unite_labels: Whether a case may have several labels, which are then united.
        space: Voxels that count, inside the brain or all of the grid; None for those of the preset, else the brain.
        preset: Published set of metrics, `ifl2021`: those of the 2021 notebook and no others, in space `all`. No other
            option can be given with it, except those of the labels.
        threshold_from: Results folder of a validation cohort, whose best threshold is applied.
        healthy: Run of healthy subjects, for false positives and the AUROC of scans.
        min_lesion_ml: Volume below which components do not count; None takes the minimum of the run.
        resamples: Number of resamples of the bootstrap.
        seed: Seed of the bootstrap.
    """

    dataset: str = "auto"
    unite_labels: bool = False
    space: Space | None = None
    preset: Preset | None = None
    threshold_from: PathLike | None = None
    healthy: PathLike | None = None
    min_lesion_ml: float | None = None
    resamples: int = RESAMPLES
    seed: int = 0

    def __post_init__(self) -> None:
        if self.resamples < 1:
            raise UsageError(f"{self.resamples} bootstrap resamples", remedy="give 1 or more, 1000 for intervals")
        if self.min_lesion_ml is not None and self.min_lesion_ml < 0:
            raise UsageError(f"a minimum lesion of {self.min_lesion_ml} ml", remedy="give 0 or more")
        if self.preset:
            self._refuse_others()

    def _refuse_others(self) -> None:
        """Refuse options that the notebook of 2021 does not have, such as lesions, healthy runs and intervals."""
        given = [field.name for field in fields(self) if getattr(self, field.name) != field.default]
        allowed = {"dataset", "unite_labels", "preset", "space" if self.space == "all" else ""}
        changed = [name for name in given if name not in allowed]
        if changed:
            flag = {"resamples": "bootstrap"}.get(changed[0], changed[0].replace("_", "-"))
            raise UsageError(f"--preset {self.preset} with --{flag}", remedy="leave out one of them")
