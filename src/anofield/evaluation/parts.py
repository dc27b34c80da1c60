"""Parts of `results.json` and `comparison.json` as types; an unknown number is NaN here and null on disk."""

from __future__ import annotations

import math
from typing import Annotated, Any

from pydantic import (
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    PlainSerializer,
    SerializerFunctionWrapHandler,
    model_serializer,
)

from anofield.evaluation.rules import Kind, Space

NAN = float("nan")


def null(value: float | None) -> float | None:
    """The number for JSON, which has neither NaN nor infinity: they become null."""
    return value if value is not None and math.isfinite(value) else None


def _nan(value: object) -> object:
    return NAN if value is None else value


Number = Annotated[float, BeforeValidator(_nan), PlainSerializer(null, when_used="json")]  # NaN in Python, null in JSON
Optional = Annotated[float | None, BeforeValidator(_nan), PlainSerializer(null, when_used="json")]  # None if left out
PerScore = dict[str, Number]


class Part(BaseModel):
    """Base class of the parts: frozen; a field whose default is None is not written while it is None."""

    model_config = ConfigDict(frozen=True, extra="ignore", use_attribute_docstrings=True, populate_by_name=True)

    @model_serializer(mode="wrap")
    def _without_absent(self, write: SerializerFunctionWrapHandler) -> dict[str, Any]:
        absent = {key for key in self._optional() if getattr(self, key) is None}
        return {key: value for key, value in write(self).items() if key not in absent}

    def content(self) -> dict[str, Any]:
        """The content that is written to disk."""
        return self.model_dump(mode="json", by_alias=True)

    @classmethod
    def _optional(cls) -> list[str]:
        return [key for key, field in cls.model_fields.items() if field.default is None]


class Figure(Part):
    """A metric and its interval."""

    value: Number
    """The metric, NaN where it is undefined."""
    ci: tuple[float, float] | None
    """95 % interval; None if there is none."""
    resamples: int = 0
    """Resamples in which the metric is defined."""

    @property
    def interval(self) -> tuple[float, float] | None:
        """The 95 % interval; None if there is none."""
        return self.ci

    @property
    def known(self) -> bool:
        """Whether the metric is defined."""
        return not math.isnan(self.value)

    def __str__(self) -> str:
        ends = "" if self.ci is None else f" [{self.ci[0]:.3f}, {self.ci[1]:.3f}]"
        return f"{self.value:.3f}{ends}"


class Difference(Figure):
    """A metric of one side minus the same metric of the other, over the same resamples."""

    p: Number
    """Twice the share of resamples on the rarer side of 0."""
    higher_is_worse: bool
    """Whether a larger value of the metric is worse."""


class ScoreFigures(Part):
    """Figures of one score without intervals."""

    ap: Number
    """Average precision of the pooled voxels."""
    auroc: Number
    """Area under the ROC of the pooled voxels."""
    fpr95: Number
    """False-positive rate at 95 % sensitivity."""
    dice_oracle: Number
    """Best Dice of the pooled voxels over all thresholds."""
    threshold_oracle: Number
    """Threshold of the best Dice of the pooled voxels."""
    dice_oracle_mean: Number
    """Best mean Dice over scans over all thresholds, with one threshold for all scans (with a preset: at
    `threshold_oracle`)."""
    dice_oracle_sd: Number
    """Standard deviation over scans."""
    threshold_oracle_mean: Optional = None
    """Threshold of the best mean Dice over scans, the oracle's everywhere but in `dice_oracle`."""
    exact: bool
    """Whether no score was rounded."""
    ap_bounds: tuple[Number, Number]
    """Limits within which the unrounded `ap` lies."""
    auroc_bounds: tuple[Number, Number]
    """Limits within which the unrounded `auroc` lies."""
    dice_calibrated_mean: Optional = None
    """Mean Dice over scans at the calibrated threshold."""
    dice_calibrated_sd: Optional = None
    """Standard deviation over scans."""
    dice_validation_mean: Optional = None
    """Mean Dice over scans at the threshold of the validation cohort."""
    dice_validation_sd: Optional = None
    """Standard deviation over scans."""
    dice_calibrated_pooled: Optional = None
    """Dice of the pooled voxels at the calibrated threshold."""
    threshold: Optional = None
    """Calibrated threshold."""
    threshold_validation: Optional = None
    """Threshold of the validation cohort."""

    def get(self, key: str) -> float:
        """A figure by its key; NaN if the score does not have it."""
        value = getattr(self, key, None)
        return NAN if value is None else float(value)


class RulesInfo(Part):
    """Rules of an evaluation."""

    space: Space
    """Voxels that count."""
    min_lesion_ml: float
    """Volume below which a component is neither a lesion nor a finding."""
    overlap: float
    """Share of a lesion that must be covered for it to be found."""
    surface: bool
    """Whether surface distances were measured."""
    connectivity: int
    """Neighbours of a voxel in a component."""
    false_finding: str
    """Definition of a false finding."""
    scan_score: str
    """Definition of a scan's score."""
    interval: str
    """Definition of the intervals."""
    subjects: int
    """Number of subjects."""
    resamples: int
    """Number of resamples."""
    seed: int
    """Seed of the resamples."""
    threshold_from: str | None
    """Results of the validation cohort."""
    healthy_run: str | None
    """Run of healthy subjects."""


class SizeRow(Part):
    """Lesions of one size class."""

    size: str
    """The class in words."""
    lesions: int
    """Number of lesions."""
    found: int
    """Number of lesions that were found."""
    recall: Number
    """Share that was found."""
    covered: Number
    """Mean share of a lesion's volume that findings cover."""


class BySize(Part):
    """Lesions by volume, at one threshold."""

    threshold: Kind | None
    """Kind of the threshold."""
    rows: list[SizeRow]
    """A row per size class."""


class FrocPoint(Part):
    """One threshold of the FROC."""

    threshold: float
    """The threshold."""
    recall: Number
    """Share of the lesions that are found."""
    false_per_scan: Number
    """False findings per scan."""


class Band(Part):
    """Pointwise 95 % interval of a curve."""

    x: list[float]
    """Places."""
    low: list[float]
    """Lower end at each place."""
    high: list[float]
    """Upper end at each place."""


class SurfaceCounts(Part):
    """Scans with a lesion whose surfaces could be compared, and those in which nothing was found."""

    measured: int
    """Scans whose distance is finite."""
    nothing_found: int
    """Scans without a finding."""


class HealthyCase(Part):
    """A scan without lesion."""

    id: str
    """Case id."""
    above_ml: float
    """Volume above the calibrated threshold."""


class Healthy(Part):
    """False positives in scans without lesion; without a calibrated threshold only the number of scans."""

    scans: int
    """Number of scans."""
    above_ml_mean: Optional = None
    """Mean volume above the threshold."""
    above_ml_median: Optional = None
    """Median volume above the threshold."""
    above_ml_max: Optional = None
    """Largest volume above the threshold."""
    above_share: Optional = None
    """Share of the voxels above the threshold."""
    promised_share: Optional = None
    """Share that the calibration promised."""
    promised_ml_mean: Optional = None
    """Mean volume that the calibration promised."""
    scans_without_finding: int | None = None
    """Scans without a finding."""
    cases: list[HealthyCase] | None = None
    """Each scan."""


class LesionCounts(Part):
    """Lesions and findings of one scan at one threshold."""

    threshold: Kind
    """Kind of the threshold."""
    true: int
    """Lesions."""
    found: int
    """Lesions that were found."""
    findings: int
    """Findings."""
    false: int
    """Findings that touch no labelled voxel."""
    voxel_precision: Number = NAN
    """Share of the voxels above the threshold that are labelled."""
    hd95_mm: Number
    """95th percentile of the surface distance."""
    assd_mm: Number
    """Mean surface distance."""


class CaseRow(Part):
    """Figures of one case; dicts hold one value per score."""

    id: str
    """Case id."""
    subject: str
    """Subject of the scan."""
    lesion_ml: float
    """Labelled volume inside the space."""
    label_outside_ml: float
    """Labelled volume outside the space, which no metric uses."""
    detected_ml: Number
    """Volume of the run's own findings."""
    dice: PerScore
    """Dice at the calibrated threshold."""
    dice_oracle: PerScore
    """Dice at the oracle threshold, which is one for all scans: another threshold can be better for a single scan."""
    voxel_precision: PerScore = Field(default_factory=dict)
    """Share of the voxels above the calibrated threshold that are labelled."""
    ap: PerScore
    """Average precision of the case's own voxels."""
    auroc: PerScore
    """Area under the ROC of the case's own voxels."""
    scan_score: PerScore
    """Score of the scan as a whole."""
    lesions: LesionCounts | None = None
    """Lesions and findings; None where they are not counted."""


class CurvePoints(Part):
    """About 300 points of the pooled curves of a score."""

    recall: list[float]
    """Recall of the precision–recall curve."""
    precision: list[float]
    """Precision at each recall."""
    fpr: list[float]
    """False-positive rate of the ROC."""
    tpr: list[float]
    """Sensitivity at each false-positive rate."""


class Side(Part):
    """One run of a comparison."""

    run: str
    """Folder of the run."""
    score: str
    """Main score of the run."""
    thresholds: dict[Kind, float]
    """Threshold of every kind."""
    values: PerScore
    """Value of every metric."""
