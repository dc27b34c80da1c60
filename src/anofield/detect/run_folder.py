"""A run folder: types of `run.json` and `case.json`, the files of a case, and the readers of single files.

`anofield.detect.open_run` reads a whole run.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, FiniteFloat, RootModel, field_validator

from anofield._files import read_json
from anofield.data.parallel import Failure
from anofield.data.recipe import Recipe
from anofield.errors import CohortError
from anofield.typing import PathLike

RUN_FILE, CASE_FILE, FAILURES = "run.json", "case.json", "failures*.json"
RUN_FOLDER = Path("sourcedata") / "anofield"  # folder of the run in a BIDS derivative dataset
# Files of a case, besides `score-<name>.nii.gz`.
OUTPUTS = ("anomaly.nii.gz", "mask.nii.gz", "lesions.tsv", "restoration.nii.gz")
AGAIN = "run `anofield detect` again: finished cases are kept"


class Record(BaseModel):
    """Base class of the JSON files: frozen; unknown keys, which a newer version may add, are ignored."""

    model_config = ConfigDict(frozen=True, extra="ignore", use_attribute_docstrings=True, protected_namespaces=())

    format: Literal[1] = 1
    """Version of the file's format."""


class Threshold(BaseModel):
    """A threshold and the meaning of it."""

    model_config = ConfigDict(frozen=True, use_attribute_docstrings=True)

    value: FiniteFloat
    """Value of the threshold; voxels above it belong to findings."""
    quantile: float
    """Share of healthy brain voxels at or below the threshold."""
    meaning: str
    """One sentence that says what the threshold promises."""


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
    """Diagnostics of a fit; None for those that were not measured."""

    model_config = ConfigDict(frozen=True, use_attribute_docstrings=True)

    loss: float
    """Mean cross-entropy, nats per point."""
    code_distance: float
    """Squared Mahalanobis distance per code entry from the training codes."""
    contrast: float | None
    """Correlation of observed and expected class over the brain."""
    outside: float | None
    """Mean probability that a brain voxel lies outside the brain."""
    usual_loss: float | None = None
    """Median over 27 blocks of the brain of the mean cross-entropy, nats per voxel."""
    brighter: float | None = None
    """Median over the blocks of the share of voxels that are improbably bright."""
    darker: float | None = None
    """Median over the blocks of the share of voxels that are improbably dark."""
    pattern: float | None = None
    """Median over the blocks of the correlation of observed and expected class."""
    pose: dict[str, Any] | None
    """Rotation (degrees), shift (half boxes) and size of the head relative to the training's."""
    gain: float | None
    """Factor on the scan's intensities; None if no intensity map was fitted."""
    trusted: bool | None
    """Whether the fit is similar to those of the calibration's healthy subjects; None if that was not judged."""
    reasons: list[str]
    """Reasons against trusting the fit."""


class Seen(BaseModel):
    """Earlier use of a scan with the same content: figures on such a case are better than those on new scans."""

    model_config = ConfigDict(frozen=True, use_attribute_docstrings=True)

    role: Literal["training", "calibration"]
    """What the scan was used for."""
    id: str
    """Id that the scan had there."""

    def __str__(self) -> str:
        return f"the {self.role} scan {self.id}"


class CaseInfo(Record):
    """Content of `case.json`, which is written last: a case without it is not finished."""

    id: str
    """Case id, also the name of its folder."""
    subject: str
    """Subject of the scan."""
    image: str
    """Absolute path of the scan; empty for a scan that was passed in memory."""
    mask: str | None
    """Absolute path of the brain mask; None without one."""
    label: str | None
    """Absolute path of the lesion label that was found with the scan; None without one."""
    more_labels: list[str] = []
    """Absolute paths of further labels that are united with it."""
    score: str
    """Score of the anomaly map."""
    threshold: FiniteFloat | None
    """Calibrated threshold; None without a calibration."""
    shape: tuple[int, int, int]
    """Voxels of the scan per axis."""
    brain_ml: float
    """Volume of the brain, ml."""
    case_score: float
    """How anomalous the whole scan is: mean of the most anomalous ml of its brain."""
    lesions: int
    """Number of findings."""
    volume_ml: float
    """Volume of all findings, ml."""
    findings: list[Finding]
    """The largest findings, at most 20."""
    fit: FitInfo | None
    """Diagnostics of the fit; None for a method that fits nothing."""
    seconds: dict[str, float]
    """Time per stage, s."""
    source_hash: str
    """SHA-256 of the scan's file, or of its content if it was passed in memory."""
    mask_hash: str = ""
    """SHA-256 of the brain mask's file; empty without one."""
    doubts: list[str] = []
    """Signs that a part of the brain is missing; a result with one is not trusted."""
    notes: list[str] = []
    """What is to be known about the brain mask, for example that it was resampled."""
    seen: Seen | None = None
    """The training or calibration scan with the same content; None if there is none, or if it is not known."""
    identity: str = ""
    """Identity of the run, as in `run.json`: a case with another one belongs to an earlier run."""
    key: str
    """Hash of everything that the result depends on: the identity and the files of the scan."""
    files: list[str]
    """Names of the files of the case, except `case.json`."""

    @property
    def labels(self) -> tuple[Path, ...]:
        """All files of the lesion label that were found with the scan."""
        return tuple(map(Path, filter(None, [self.label, *self.more_labels])))

    @property
    def trusted(self) -> bool | None:
        """Whether the result can be trusted; None if that was not judged."""
        return False if self.doubts else None if self.fit is None else self.fit.trusted

    @property
    def reasons(self) -> list[str]:
        """Reasons against trusting the result."""
        return self.doubts if self.fit is None else self.fit.reasons


class RunInfo(Record):
    """Content of `run.json`."""

    anofield: str
    """Version of this package."""
    created: str
    """Time at which the file was written, ISO 8601."""
    command: str
    """The command line as typed; in Python, the name of the program and its arguments."""
    identity: str
    """Hash of everything that results depend on besides the scans: method, version, options, recipe, calibration."""
    experiment: str
    """Folder of the method."""
    model_hash: str
    """Hash of the method's weights."""
    epoch: int | None = None
    """Epoch of the checkpoint; None for a method without epochs."""
    score: str
    """Score of the anomaly maps."""
    scores: list[str]
    """All scores, the main one first."""
    baselines: list[str]
    """Scores that use only the scan and not the field."""
    options: dict[str, Any]
    """Options of the run."""
    recipe: Recipe
    """Recipe that scans were prepared with."""
    threshold: Threshold | None
    """Threshold of the main score; None without a calibration."""
    thresholds: dict[str, FiniteFloat]
    """Threshold of every score."""
    device: str
    """Device of the computation."""
    precision: str
    """Precision of the matrix products."""
    threads: int | None = None
    """CPU threads of torch in every process that worked; None in files of older versions."""
    versions: dict[str, str]
    """Versions of the libraries that results depend on."""
    cases: list[str]
    """Ids of the cases that were finished when the file was written; readers look at the folders of the cases."""
    seconds: float
    """Wall time of the last call that ended, s; 0 before the first one ends."""

    @field_validator("options")
    @classmethod
    def _has_filters(cls, options: dict[str, Any]) -> dict[str, Any]:
        """Refuse options without the volume that `min_lesion_ml` reads."""
        filters = options.get("filters")
        least = filters.get("min_lesion_ml") if isinstance(filters, dict) else None
        if not isinstance(least, int | float) or isinstance(least, bool):
            raise ValueError("it lacks the number filters.min_lesion_ml")
        return options

    @property
    def min_lesion_ml(self) -> float:
        """Volume below which a component was not a finding, ml."""
        return float(self.options["filters"]["min_lesion_ml"])


@dataclass(frozen=True)
class RunCase:
    """One case of a run as later stages see it.

    Attributes:
        id: Case id.
        folder: Folder of the case in the run.
        labels: Files of the lesion label, which are united; empty if there is none.
        identity: Identity of the run when it was opened; empty if it is not known.
    """

    id: str
    folder: Path
    labels: tuple[Path, ...] = ()
    identity: str = ""

    @property
    def image(self) -> Path:
        """Path of the anomaly map."""
        return self.folder / "anomaly.nii.gz"


class Failures(RootModel[list[Failure]]):
    """Content of `failures.json`."""


def run_folder(run: PathLike) -> Path:
    """The folder of a run: the given one, or the one in the BIDS derivative dataset that `--naming bids` wrote."""
    folder = Path(run)
    inner = folder / RUN_FOLDER
    return inner if (inner / RUN_FILE).is_file() and not (folder / RUN_FILE).is_file() else folder


def read_run(run: PathLike) -> RunInfo:
    """Read `run.json`.

    Raises:
        CohortError: There is no such folder, it holds no run, or the file is damaged.
    """
    folder = run_folder(run)
    if not folder.is_dir():
        raise CohortError("no such run folder", where=folder, remedy="give the output folder of `anofield detect`")
    if not (folder / RUN_FILE).is_file():
        raise CohortError("is not a finished run", where=folder, why=f"it has no {RUN_FILE}", remedy=AGAIN)
    return read_json(folder / RUN_FILE, RunInfo, remedy=AGAIN, error=CohortError)


def read_failures(run: Path, strict: bool = True) -> list[Failure]:
    """The failures of the last calls, of all parts of the cohort, by id.

    Args:
        run: Folder of the run.
        strict: Whether a damaged file is an error; otherwise it is left out.

    Raises:
        CohortError: A file is damaged.
    """
    found: dict[str, Failure] = {}
    for path in sorted(run.glob(FAILURES)):
        try:
            failures = read_json(path, Failures, remedy=AGAIN, error=CohortError).root
        except CohortError:
            if strict:
                raise
            continue
        found |= {failure.id: failure for failure in failures}
    return [found[case_id] for case_id in sorted(found)]


def require_case(folder: Path) -> CaseInfo:
    """Content of a case's `case.json`.

    Raises:
        CohortError: The case is not finished, or the file is damaged.
    """
    return read_json(folder / CASE_FILE, CaseInfo, remedy=AGAIN, error=CohortError)


def read_case(folder: Path) -> CaseInfo | None:
    """Content of a case's `case.json`; None if the case is not finished or the file is damaged."""
    try:
        return require_case(folder)
    except CohortError:
        return None


def outputs(folder: Path) -> list[str]:
    """Names of the files of a detection in its folder, except `case.json`."""
    scores = sorted(path.name for path in folder.glob("score-*.nii.gz"))
    return [name for name in OUTPUTS if (folder / name).exists()] + scores


def whole(folder: Path, info: CaseInfo) -> bool:
    """Whether all files that a case was written with exist and are not empty; their content is not read."""
    least = OUTPUTS[:1] if info.threshold is None else OUTPUTS[:3]
    paths = [folder / name for name in (*least, *info.files)]
    return all(path.is_file() and path.stat().st_size > 0 for path in paths)
