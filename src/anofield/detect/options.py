"""Options of a detection: how a scan is fitted, how its scores are filtered, which scores are computed.

This module imports neither torch nor numpy, so the command line, whose options are made from it, starts fast.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Literal, Self, TypeAlias

from pydantic import BaseModel, ConfigDict, Field, field_validator

from anofield.errors import UsageError

if TYPE_CHECKING:
    from anofield.typing import Json

WIDEST_MM = 200.0  # a filter wider than a head is a mistake
COARSE_FROM = 128  # voxels per axis from which every second one is decoded

Tail: TypeAlias = Literal["bright", "dark", "both"]
WantedTail: TypeAlias = Literal["auto", "bright", "dark", "both"]
PoseKind: TypeAlias = Literal["none", "similarity", "affine"]
IntensityKind: TypeAlias = Literal["none", "smooth"]
ProcedureName: TypeAlias = Literal["anofield", "ifl2021"]
Millimetres: TypeAlias = Annotated[float, Field(ge=0, le=WIDEST_MM)]
Seed: TypeAlias = Annotated[int, Field(ge=0)]


class Options(BaseModel):
    """Base class of all options: unknown names are refused, and instances are immutable."""

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
    """Voxels around the brain from which points are also drawn, so that the outline counts."""
    pose: PoseKind = "similarity"
    """Pose of the head to fit: `similarity` (rotation, shift and size), `affine` (also a size for each axis and
    shears) or `none`."""
    intensity: IntensityKind = "none"
    """`smooth` also fits gain, gamma and a bias field of second order (box recipe); `none` trusts the recipe's
    normalisation."""
    elastic_mm: Millimetres = 0.0
    """Smoothness (FWHM of a Gaussian, mm) of the elastic displacement that aligns the fitted anatomy with the scan
    before scoring; 0 for no displacement."""
    seed: Seed = 0
    """Seed of the fit's random points, together with the scan's content."""
    stride: Literal["auto", 1, 2] = "auto"
    """Lattice voxels between decoded ones, per axis; the logits between them are interpolated. 1 decodes every voxel,
    `auto` takes 2 from 128 voxels per axis on, where neighbours are about 1.5 mm apart."""

    def step(self, resolution: int) -> int:
        """Stride on a lattice of R³ voxels."""
        return (2 if resolution >= COARSE_FROM else 1) if self.stride == "auto" else self.stride


class Filters(Options):
    """Options on the way from a score to findings that every procedure has."""

    tail: WantedTail = "auto"
    """Departures that count: `bright` (brighter than predicted), `dark` or `both`; `auto` follows the contrast of the
    training scans: dark in T1w, bright in T2w, FLAIR and PDw, both where it is not known."""
    standardise: bool = False
    """Subtract the voxel-wise healthy mean of the score and divide by its standard deviation before filtering; needs a
    calibration made with it."""
    min_lesion_ml: float = Field(default=0.1, ge=0, allow_inf_nan=False)
    """Volume (ml) below which a connected component is not a finding."""


class ScoreOptions(Filters):
    """Filters of the anomaly map, and the smallest size of a finding."""

    rim_mm: Millimetres = 0.0
    """Depth (mm) below the brain's surface that is ignored, because mask and restoration are never exact there
    (Baur et al. 2021 erode the mask); 0 for none."""
    minimum_mm: Millimetres = 9.0
    """Width (mm) of the minimum filter, which removes misplaced sulci and edges; below 2 lattice voxels it does
    nothing."""
    gaussian_mm: Millimetres = 7.0
    """Full width at half maximum (mm) of the Gaussian filter; 0 for none."""
    edge_mm: Millimetres = 15.0
    """Window (mm) of the guided filter (He et al. 2013), the last filter on the lattice. It gives the blurred map
    the edges of the scan, so that a finding ends where the intensity changes; 0 for none."""
    native_edge_mm: Millimetres = 10.0
    """Window (mm) of a second guided filter on the scan's own voxels, for edges finer than the lattice; 0 for none."""


class PublishedFilters(Filters):
    """Filters of the published procedure: they are fixed, and only the smallest finding can be chosen."""

    tail: Literal["bright"] = "bright"
    """The published score has no direction; baselines beside it count bright departures."""
    standardise: Literal[False] = False
    """The published score is not standardised."""


class RunOptions(Options):
    """Options of a run: everything that its result depends on besides scans and method."""

    procedure: ProcedureName = "anofield"
    """Whole procedure: this package's own, or that of Naval Marimont & Tarroni 2021."""
    score: str
    """Score of the anomaly map and of the findings."""
    also: tuple[str, ...] = ()
    """Further scores, filtered in the same way and written as `score-<name>.nii.gz`."""
    filters: Filters = Field(default_factory=Filters)
    """Filters of the scores."""

    @property
    def tail(self) -> Tail:
        """Departures that count.

        Raises:
            UsageError: It is still `auto`, see `anofield.detect.tail.settled`.
        """
        if self.filters.tail == "auto":
            what = "the tail `auto` was not replaced by that of the method"
            raise UsageError(what, remedy="call `settled(options, method)` of `anofield.detect.tail` first")
        return self.filters.tail

    def with_tail(self, tail: Tail) -> Self:
        """The options with this tail if theirs is `auto`; otherwise themselves."""
        if self.filters.tail != "auto":
            return self
        return self.model_copy(update={"filters": self.filters.model_copy(update={"tail": tail})})

    @property
    def names(self) -> list[str]:
        """All scores without duplicates, the main one first."""
        return list(dict.fromkeys([self.score, *self.also]))

    @property
    def settings(self) -> Json:
        """The options that a calibration depends on, as plain values: everything but the choice of scores."""
        parts = self.model_dump(mode="json", exclude={"score", "also"})
        return {name: parts[name] for name in sorted(parts, key="filters".__eq__)}  # `filters` comes last


class BaselineOptions(RunOptions):
    """Options for the run of a baseline: its only score, with the same filters as the field."""

    procedure: Literal["anofield"] = "anofield"
    """This package's own filters."""
    filters: ScoreOptions = Field(default_factory=ScoreOptions)
    """Filters of the score."""


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
    """Options of the published procedure, in which everything else is fixed."""

    procedure: Literal["ifl2021"] = "ifl2021"
    """The procedure of Naval Marimont & Tarroni 2021."""
    score: Literal["cross-entropy"] = "cross-entropy"
    """The published score."""
    also: tuple[str, ...] = ()
    """Further scores, filtered in the same way and written as `score-<name>.nii.gz`."""
    seed: Seed = 0
    """Seed of the first code and the random points, together with the scan's content."""
    filters: PublishedFilters = Field(default_factory=PublishedFilters)
    """The fixed filters of 2021, and the smallest finding."""

    @field_validator("also")
    @classmethod
    def _known(cls, value: tuple[str, ...]) -> str | tuple[str, ...]:
        return known_scores(value)


SMALL_LESIONS = DetectOptions.model_construct(  # only filters that keep a lesion of 5 mm: see detection.md
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
    """Check that a score of each name exists; returns the names unchanged.

    Raises:
        ValueError: There is no score of a name.
    """
    from anofield.detect.scores import score_names

    known = score_names()
    for name in [value] if isinstance(value, str) else value:
        if name not in known:
            raise ValueError(f"unknown score {name!r}; known: {', '.join(known)}")
    return value
