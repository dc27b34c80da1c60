"""What a run leaves on disk, as types: `run.json`, `case.json` and the files of a case."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, FiniteFloat

from anofield._files import read_json
from anofield.data.recipe import Recipe
from anofield.errors import CohortError
from anofield.typing import PathLike

RUN_FILE, CASE_FILE = "run.json", "case.json"
AGAIN = "run `anofield detect` again: finished cases are kept"


class Record(BaseModel):
    """Base of the records: frozen; keys that a newer version may add are ignored."""

    model_config = ConfigDict(frozen=True, extra="ignore", use_attribute_docstrings=True, protected_namespaces=())

    format: Literal[1] = 1
    """Version of the file's format."""


class Threshold(BaseModel):
    """A threshold and what it promises."""

    model_config = ConfigDict(frozen=True, use_attribute_docstrings=True)

    value: FiniteFloat
    """Scores above it are findings."""
    quantile: float
    """Share of the healthy brain at or below it."""
    meaning: str
    """The promise in a sentence."""


class Finding(BaseModel):
    """One connected component above the threshold."""

    model_config = ConfigDict(frozen=True, use_attribute_docstrings=True)

    volume_ml: float
    """Volume in ml."""
    peak: float
    """Largest value of the anomaly map inside it."""
    mean: float
    """Mean value of the anomaly map inside it."""
    center_mm: tuple[float, float, float]
    """Centre of mass, world RAS+ mm."""


class FitInfo(BaseModel):
    """How well a scan was fitted; None for what was not measured."""

    model_config = ConfigDict(frozen=True, use_attribute_docstrings=True)

    loss: float
    """Mean cross-entropy, nats per point."""
    code_distance: float
    """Squared Mahalanobis distance per code entry from the training codes."""
    contrast: float | None
    """Correlation of observed and expected class over the brain."""
    outside: float | None
    """Mean probability that a brain voxel lies outside the brain."""
    pose: dict[str, Any] | None
    """Rotation (degrees), shift (half boxes) and size of the head against the training's."""
    gain: float | None
    """Factor on the scan's intensities, if an intensity map was fitted."""
    trusted: bool | None
    """Whether the fit is like those of the calibration's healthy subjects; None if that was not judged."""
    reasons: list[str]
    """What speaks against it."""


class CaseInfo(Record):
    """Content of `case.json`, which is written last: a case without it is not finished."""

    id: str
    """Case id, also the name of its folder."""
    subject: str
    """Whom the scan shows."""
    image: str
    """Path of the scan when it was read; empty for a scan that was given in memory."""
    mask: str | None
    """Path of the brain mask."""
    label: str | None
    """Path of the lesion truth that lay beside the scan."""
    score: str
    """Score of the anomaly map."""
    threshold: FiniteFloat | None
    """Calibrated threshold; None for a map alone."""
    shape: tuple[int, int, int]
    """Voxels of the scan."""
    brain_ml: float
    """Volume of the brain."""
    case_score: float
    """How anomalous the whole scan is: mean of the most anomalous ml of its brain."""
    lesions: int
    """Number of findings."""
    volume_ml: float
    """Volume of all findings."""
    findings: list[Finding]
    """The largest findings, at most 20."""
    fit: FitInfo | None
    """Diagnostics of the fit; None for a method that fits nothing."""
    seconds: dict[str, float]
    """Time per stage."""
    source_hash: str
    """SHA-256 of the scan's file, or of its content if it was given in memory."""
    key: str
    """Hash of everything that the result depends on."""
    files: list[str]
    """Names of the files of the case, `case.json` aside."""


class RunInfo(Record):
    """Content of `run.json`."""

    anofield: str
    """Version of this package."""
    created: str
    """When it was written, ISO 8601."""
    command: str
    """The command as typed, or the Python call."""
    experiment: str
    """Folder of the method."""
    model_hash: str
    """Hash of the method's weights."""
    score: str
    """Score of the anomaly maps."""
    scores: list[str]
    """All scores, the main one first."""
    baselines: list[str]
    """Those of the scores that look at the scan alone."""
    options: dict[str, Any]
    """Options of the run."""
    recipe: Recipe
    """How scans were prepared."""
    threshold: Threshold | None
    """Threshold of the main score; None without a calibration."""
    thresholds: dict[str, FiniteFloat]
    """Threshold of every score."""
    device: str
    """Where it was computed."""
    precision: str
    """Precision of the matrix products."""
    versions: dict[str, str]
    """Versions of the libraries that results depend on."""
    cases: list[str]
    """Ids of the finished cases."""
    seconds: float
    """Wall time of the last start."""

    @property
    def min_lesion_ml(self) -> float:
        """Volume below which a component was no finding."""
        return float(self.options["filters"]["min_lesion_ml"])


@dataclass(frozen=True)
class RunCase:
    """One case of a run as later stages see it.

    Attributes:
        id: Case id.
        folder: Folder of the case in the run.
        label: Lesion truth; None if there is none.
    """

    id: str
    folder: Path
    label: Path | None = None

    @property
    def image(self) -> Path:
        """The anomaly map."""
        return self.folder / "anomaly.nii.gz"


def read_run(run: PathLike) -> RunInfo:
    """Read `run.json`.

    Raises:
        CohortError: There is no such folder, the run has not ended, or the file is damaged.
    """
    folder = Path(run)
    if not folder.is_dir():
        raise CohortError("no such run folder", where=folder, remedy="give the output folder of `anofield detect`")
    if not (folder / RUN_FILE).is_file():
        raise CohortError("is not a finished run", where=folder, why=f"it has no {RUN_FILE}", remedy=AGAIN)
    return read_json(folder / RUN_FILE, RunInfo, remedy=AGAIN, error=CohortError)


def read_case(folder: Path) -> CaseInfo | None:
    """Content of a case's `case.json`; None if the case is not finished or the file is damaged."""
    try:
        return read_json(folder / CASE_FILE, CaseInfo, remedy=AGAIN, error=CohortError)
    except CohortError:
        return None


def finished_cases(run: PathLike, order: Iterable[str] = ()) -> list[tuple[RunCase, CaseInfo]]:
    """The finished cases of a run folder, those named in `order` first and in that order, then by id.

    Raises:
        CohortError: A `case.json` is damaged.
    """
    place = {case_id: number for number, case_id in enumerate(order)}
    folders = (file.parent for file in Path(run).glob(f"*/{CASE_FILE}") if not file.parent.name.startswith("."))
    found = [(folder, read_json(folder / CASE_FILE, CaseInfo, remedy=AGAIN, error=CohortError)) for folder in folders]
    found.sort(key=lambda pair: (place.get(pair[1].id, len(place)), pair[1].id))
    return [(RunCase(info.id, folder, Path(info.label) if info.label else None), info) for folder, info in found]
