"""Options of a detection: how a scan is fitted, how its scores are filtered, which scores are computed.

This module imports neither torch nor numpy, so that the command line can be made from it.
"""

from __future__ import annotations

from typing import Annotated, Literal, TypeAlias

from pydantic import BaseModel, ConfigDict, Field, field_validator

from anofield.typing import Json

WIDEST_MM = 200.0  # a filter wider than a head is a typing error
COARSE_FROM = 128  # voxels per axis from which every second one is decoded

Tail: TypeAlias = Literal["bright", "dark", "both"]
PoseKind: TypeAlias = Literal["none", "similarity"]
IntensityKind: TypeAlias = Literal["none", "smooth"]
ProcedureName: TypeAlias = Literal["anofield", "ifl2021"]
Millimetres: TypeAlias = Annotated[float, Field(ge=0, le=WIDEST_MM)]
Seed: TypeAlias = Annotated[int, Field(ge=0)]


class Options(BaseModel):
    """Base of all options: unknown names are refused, and nothing changes after validation."""

    model_config = ConfigDict(extra="forbid", frozen=True, use_attribute_docstrings=True)


class FitOptions(Options):
    """How a scan is fitted."""

    iterations: int = Field(default=60, ge=1)
    """Adam steps."""
    points: int = Field(default=4096, ge=1)
    """Random points of the brain per step."""
    learning_rate: float = Field(default=0.03, gt=0)
    """Learning rate of the first step; it falls to 0 along half a cosine."""
    margin: int = Field(default=2, ge=0)
    """Voxels around the brain from which points are drawn as well: they hold the outline."""
    pose: PoseKind = "similarity"
    """What is fitted of the head's place: rotation, shift and size, or nothing."""
    intensity: IntensityKind = "none"
    """`smooth` also fits gain, gamma and a bias field of second order (box recipe); `none` trusts the recipe's
    normalisation."""
    elastic_mm: Millimetres = 0.0
    """Width (FWHM, mm) of the Gaussian that keeps an elastic displacement smooth, which aligns the fitted anatomy with
    the scan before it is scored; 0 for none."""
    seed: Seed = 0
    """Seed of the fit's random points, together with the scan's content."""
    stride: Literal["auto", 1, 2] = "auto"
    """Lattice voxels between decoded ones, per axis; the logits between them are interpolated. 1 decodes every voxel,
    `auto` takes 2 from 128 voxels per axis on, where neighbours are about 1.5 mm apart."""

    def step(self, resolution: int) -> int:
        """Stride on a lattice of R³ voxels."""
        return (2 if resolution >= COARSE_FROM else 1) if self.stride == "auto" else self.stride


class ScoreOptions(Options):
    """Filters of the anomaly map, and what counts as a finding."""

    tail: Tail = "bright"
    """Departures that count: brighter than predicted (lesions in T2w and FLAIR), darker, or both."""
    rim_mm: Millimetres = 0.0
    """Depth below the brain's surface that does not count, because mask and restoration are never exact there (Baur et
    al. 2021 erode the mask); 0 for none."""
    minimum_mm: Millimetres = 9.0
    """Width of the minimum filter, which removes misplaced sulci and edges; below 2 lattice voxels it does nothing."""
    gaussian_mm: Millimetres = 7.0
    """Full width at half maximum of the Gaussian filter; 0 for none."""
    edge_mm: Millimetres = 15.0
    """Window of the guided filter (He et al. 2013), which comes last: the blurred map takes the edges of the scan, so
    that a finding ends where the intensity changes; 0 for none."""
    native_edge_mm: Millimetres = 10.0
    """Window of a second guided filter on the scan's own voxels, for edges finer than the lattice; 0 for none."""
    standardise: bool = False
    """Subtract the voxel-wise healthy mean of the score and divide by its standard deviation before filtering; needs a
    calibration made with it."""
    min_lesion_ml: float = Field(default=0.1, ge=0, allow_inf_nan=False)
    """Volume (ml) below which a connected component is no finding."""


class PublishedFilters(Options):
    """The filters of 2021 are fixed; only the smallest finding may be chosen."""

    tail: Literal["bright"] = "bright"
    """The published score has no direction; baselines beside it count bright departures."""
    standardise: Literal[False] = False
    """The published score is not standardised."""
    min_lesion_ml: float = Field(default=0.1, ge=0, allow_inf_nan=False)
    """Volume (ml) below which a connected component is no finding."""


class RunOptions(Options):
    """What a run depends on besides scans and method."""

    procedure: ProcedureName = "anofield"
    """Whole procedure: this package's own, or that of Naval Marimont & Tarroni 2021."""
    score: str
    """Score of the anomaly map and of the findings."""
    also: tuple[str, ...] = ()
    """Further scores, filtered in the same way and written as `score-<name>.nii.gz`."""
    filters: ScoreOptions | PublishedFilters = Field(default_factory=ScoreOptions)
    """Filters of the scores."""

    @property
    def names(self) -> list[str]:
        """All scores, the main one first, each once."""
        return list(dict.fromkeys([self.score, *self.also]))

    @property
    def settings(self) -> Json:
        """The options that a calibration depends on, as plain values: everything but the choice of scores."""
        return self.model_dump(mode="json", exclude={"score", "also"})


class DetectOptions(RunOptions):
    """Options of a detection by the field, in this package's own procedure."""

    procedure: Literal["anofield"] = "anofield"
    """This package's own procedure."""
    score: str = "deviation"
    """Score of the anomaly map and of the findings."""
    also: tuple[str, ...] = ("intensity",)
    """Further scores, filtered in the same way and written as `score-<name>.nii.gz`."""
    fit: FitOptions = Field(default_factory=FitOptions)
    """How a scan is fitted."""
    filters: ScoreOptions = Field(default_factory=ScoreOptions)
    """Filters of the scores."""

    @field_validator("score", "also")
    @classmethod
    def _known(cls, value: str | tuple[str, ...]) -> str | tuple[str, ...]:
        return known_scores(value)


class PublishedOptions(RunOptions):
    """Options of the published procedure: everything else about it is fixed, so it cannot be half set."""

    procedure: Literal["ifl2021"] = "ifl2021"
    """The procedure of Naval Marimont & Tarroni 2021."""
    score: Literal["cross-entropy"] = "cross-entropy"
    """The published score."""
    also: tuple[str, ...] = ()
    """Further scores, filtered in the same way and written as `score-<name>.nii.gz`."""
    seed: Seed = 0
    """Seed of start and random points, together with the scan's content."""
    filters: PublishedFilters = Field(default_factory=PublishedFilters)
    """The fixed filters of 2021, and the smallest finding."""

    @field_validator("also")
    @classmethod
    def _known(cls, value: tuple[str, ...]) -> str | tuple[str, ...]:
        return known_scores(value)


SMALL_LESIONS = DetectOptions.model_construct(  # no filter that a lesion of 5 mm would not survive: see detection.md
    procedure="anofield",
    score="deviation",
    also=("intensity",),
    fit=FitOptions(elastic_mm=7.0),
    filters=ScoreOptions(
        rim_mm=3.0,
        minimum_mm=0.0,
        gaussian_mm=3.0,
        edge_mm=0.0,
        native_edge_mm=0.0,
        standardise=True,
        min_lesion_ml=0.02,
    ),
)
FieldOptions: TypeAlias = DetectOptions | PublishedOptions
PRESETS: dict[str, FieldOptions] = {
    "default": DetectOptions.model_construct(),
    "small-lesions": SMALL_LESIONS,
    "ifl2021": PublishedOptions.model_construct(),
}


def known_scores(value: str | tuple[str, ...]) -> str | tuple[str, ...]:
    """The names, if there is a score of each.

    Raises:
        ValueError: There is none of a name.
    """
    from anofield.detect.scores import SCORES

    for name in [value] if isinstance(value, str) else value:
        if name not in SCORES:
            raise ValueError(f"unknown score {name!r}; known: {', '.join(SCORES)}")
    return value
