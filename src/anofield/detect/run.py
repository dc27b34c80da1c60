"""Scan in, `Detection` out: prepare, fit, decode, score, filter, back to the scan's own voxels, threshold."""

from __future__ import annotations

import hashlib
import json
import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from pydantic import Field, field_validator

from anofield import __version__
from anofield._files import file_hash, write_json, write_text, writing
from anofield.data.cohort.case import Case
from anofield.data.parallel import Outcome, map_cases
from anofield.data.scan import Scan, write_like
from anofield.detect.detection import examine_with, native_map, restored
from anofield.detect.fit import Fit, FitOptions
from anofield.detect.intensity import BASELINES
from anofield.detect.method import RunOptions, Scorer
from anofield.detect.run_folder import CASE_FILE, finished_cases, outputs, read_case, whole
from anofield.detect.scores import SCORES, Lesion, ScoreOptions, find_lesions
from anofield.detect.thresholds import calibrated_values, reference_of, threshold_of
from anofield.detect.trust import diagnostics, verdict
from anofield.detect.view import view
from anofield.field.model import Model
from anofield.typing import FloatVolume, Json, Mask, PathLike

SMALL_LESIONS: dict[str, Json] = {  # no filter that a lesion of 5 mm would not survive: docs/explanation/detection.md
    "fit": {"elastic_mm": 7.0},
    "filters": {
        "rim_mm": 3.0,
        "minimum_mm": 0.0,
        "gaussian_mm": 3.0,
        "edge_mm": 0.0,
        "native_edge_mm": 0.0,
        "standardise": True,
        "min_lesion_ml": 0.02,
    },
}
CASE_ML = 1.0  # of brain that make a case's score: below the smallest glioma, above single voxels


class DetectOptions(RunOptions):
    """Everything that a detection by the field depends on besides scan and model; see `RunOptions`."""

    score: str = "deviation"
    also: tuple[str, ...] = ("intensity",)
    fit: FitOptions = Field(default_factory=FitOptions)

    @field_validator("score", "also")
    @classmethod
    def _known(cls, value: str | tuple[str, ...]) -> str | tuple[str, ...]:
        for name in [value] if isinstance(value, str) else value:
            if name not in SCORES and name not in BASELINES:
                raise ValueError(f"unknown score {name!r}; known: {', '.join([*SCORES, *BASELINES])}")
        return value

    @classmethod
    def small_lesions(cls) -> DetectOptions:
        """For lesions of 5 to 12 mm: elastic alignment, standardised score, hardly any filter."""
        return cls.model_validate(SMALL_LESIONS)

    @classmethod
    def published(cls, *, also: tuple[str, ...] = (), seed: int = 0) -> DetectOptions:
        """The detection of Naval Marimont & Tarroni 2021, to the letter."""
        fit = FitOptions(procedure="ifl2021", pose="none", seed=seed, stride=1)
        return cls(score="cross-entropy", also=also, fit=fit, filters=ScoreOptions(procedure="ifl2021"))


@dataclass(frozen=True)
class Detection:
    """Result for one scan, everything in the scan's own voxels.

    Attributes:
        case: What was asked for.
        scan, brain: The scan and its brain voxels, (i, j, k).
        maps: Filtered score per name, (i, j, k) float32, 0 outside the brain.
        restoration: The healthy version of the scan in its intensity units, (i, j, k); None if the method has none.
        fit: The fitted code and its diagnostics; None if the method fits none.
        source_hash: SHA-256 of the scan file.
        seconds: Per stage.
    """

    case: Case
    scan: Scan
    brain: Mask
    maps: dict[str, FloatVolume]
    restoration: FloatVolume | None
    fit: Fit | None
    source_hash: str
    seconds: dict[str, float]

    @property
    def brain_ml(self) -> float:
        """Volume of the brain."""
        return float(self.brain.sum()) * self.scan.voxel_ml

    def view(self, score: str | None = None, threshold: float | None = None) -> Any:
        """Open the scan under a map, by default the main one, in a notebook; see `anofield.detect.view.view`."""
        return view(self.scan, self.brain, self.maps, score, threshold)


def detect_case(case: Case, model: Model | Scorer, options: RunOptions) -> Detection:
    """Detect anomalies in one scan.

    Raises:
        ScanError: The scan or its mask cannot be used.
        UsageError: The options ask for reference maps, and the model was not calibrated with them.
        ExperimentError: The maps cannot be read.
    """
    reference = reference_of(model, options) if options.filters.standardise else {}
    examined = examine_with(model, case, options)
    start = time.perf_counter()
    maps = {name: native_map(examined, name, options.filters, reference) for name in options.names}
    seconds = {**examined.seconds, "score": examined.seconds["score"] + time.perf_counter() - start}
    prepared = examined.prepared
    restoration = None if examined.restoration is None else restored(examined.restoration, prepared)
    return Detection(
        case,
        prepared.scan,
        prepared.native_brain,
        maps,
        restoration,
        examined.fit,
        prepared.source_hash,
        seconds,
    )


def top_mean(values: NDArray[np.float32], voxel_ml: float) -> float:
    """How sick a whole scan looks: mean of the most anomalous `CASE_ML` of its brain voxels (n,)."""
    count = min(max(1, round(CASE_ML / voxel_ml)), len(values))
    return float(np.partition(values, -count)[-count:].mean())


def detect_cases(
    cases: Sequence[Case],
    model: Model | Scorer,
    options: RunOptions,
    out: PathLike,
    *,
    force: bool = False,
    workers: int = 1,
    scheduler: str | None = None,
) -> list[Outcome[Json]]:
    """Detect in every case and write `out/<case id>/`; finished cases are skipped, failing ones recorded.

    A failing case that an earlier start had finished loses its `case.json`, so that nothing takes it for done.

    Args:
        cases: The cohort.
        model: From `load_model`.
        options: See `DetectOptions`.
        out: Folder of the run; `run.json` and, if any, `failures.json` are written by the caller with `write_run`.
        force: Do finished cases again.
        workers: Local processes.
        scheduler: Address of a running Dask scheduler instead; `out` and the scans must be visible to its workers.

    Returns:
        Per case the content of its `case.json`, or its failure.
    """
    threshold = threshold_of(model, options)
    with writing(out):
        Path(out).mkdir(parents=True, exist_ok=True)
    work = partial(_one, model=model, options=options, threshold=threshold, out=Path(out), force=force)
    outcomes = []
    for outcome in map_cases(work, cases, workers=workers, scheduler=scheduler, label="detect"):
        outcomes.append(outcome)
        if outcome.failure is not None:  # what an earlier start found is not of this scan, or not by these options
            with writing(out):
                (Path(out) / outcome.case.id / CASE_FILE).unlink(missing_ok=True)
    return outcomes


def save(
    detection: Detection,
    folder: Path,
    options: RunOptions,
    threshold: float | None,
    key: str,
    healthy: Mapping[str, Json] | None = None,
) -> Json:
    """Write the files of one detection, `case.json` last; returns its content.

    Args:
        detection: What was found.
        folder: Of the case.
        options: That it was found with.
        threshold: Calibrated; None for an anomaly map only.
        key: Hash of all that it depends on.
        healthy: Percentiles of the fit's diagnostics over healthy scans (`fit` of the calibration).

    Raises:
        MachineError: The disk refuses.
    """
    start = time.perf_counter()
    with writing(folder):
        folder.mkdir(parents=True, exist_ok=True)
        for old in (CASE_FILE, *outputs(folder)):
            (folder / old).unlink(missing_ok=True)
    anomaly = detection.maps[options.score]
    write_like(detection.scan, anomaly, folder / "anomaly.nii.gz", description=f"anofield {options.score}")
    for name in options.names[1:]:
        write_like(
            detection.scan, detection.maps[name], folder / f"score-{name}.nii.gz", description=f"anofield {name}"
        )
    if detection.restoration is not None:
        healed = folder / "restoration.nii.gz"
        write_like(detection.scan, detection.restoration, healed, description="anofield restoration")
    lesions: list[Lesion] = []
    if threshold is not None:
        above = (anomaly > threshold) & detection.brain
        mask, lesions = find_lesions(anomaly, above, detection.scan, options.filters.min_lesion_ml)
        write_like(detection.scan, mask.astype(np.uint8), folder / "mask.nii.gz", description="anofield detection")
        _write_lesions(lesions, folder / "lesions.tsv")
    seconds = {**detection.seconds, "write": time.perf_counter() - start}
    content = _case_json(detection, options, threshold, lesions, seconds, key, healthy or {})
    content["files"] = outputs(folder)
    write_json(folder / CASE_FILE, content)
    return content


def write_run(
    out: PathLike,
    model: Model | Scorer,
    options: RunOptions,
    outcomes: Sequence[Outcome[Json]],
    seconds: float,
    command: str,
    *,
    others: Sequence[Case] = (),
) -> Json:
    """Write `run.json`: what was run, with what, on which cases.

    Args:
        out: Folder of the run.
        model: From `load_model`, or a baseline.
        options: Of the run.
        outcomes: Of its cases.
        seconds: Wall time.
        command: As typed.
        others: Cases that other parts of the same run do; those that are finished by the same procedure count.
    """
    threshold, calibrated = threshold_of(model, options), calibrated_values(model, options)
    finished = {outcome.case.id for outcome in outcomes if outcome.value is not None}
    mine = {outcome.case.id for outcome in outcomes}
    key_of = partial(_key, model=model, options=options, threshold=threshold, calibrated=calibrated)
    finished |= finished_cases(Path(out), [case for case in others if case.id not in mine], key_of)
    content: Json = {
        "anofield": __version__,
        "created": time.strftime("%Y-%m-%dT%H:%M:%S%z"),
        "command": command,
        "experiment": str(model.path),
        "model_hash": model.hash,
        "score": options.score,
        "scores": options.names,
        "baselines": [name for name in options.names if name in BASELINES],
        "options": options.model_dump(mode="json"),
        "recipe": model.recipe.model_dump(mode="json"),
        "threshold": None
        if threshold is None
        else {"value": threshold, "quantile": calibrated["quantile"], "meaning": calibrated["meaning"]},
        "thresholds": calibrated.get("thresholds", {}),
        "device": str(model.device),
        "precision": _precision(model),
        "versions": versions(),
        "cases": sorted(finished),
        "seconds": round(seconds, 2),
    }
    write_json(Path(out) / "run.json", content)
    return content


def versions() -> dict[str, str]:
    """Versions of what results depend on."""
    from importlib.metadata import version

    return {name: version(name) for name in ("numpy", "scipy", "nibabel", "torch", "zarr")}


def _one(
    case: Case, *, model: Model | Scorer, options: RunOptions, threshold: float | None, out: Path, force: bool
) -> Json:
    folder = out / case.id
    calibrated = calibrated_values(model, options)
    key = _key(case, model, options, threshold, calibrated)
    done = None if force else read_case(folder)
    if done is not None and done["key"] == key and whole(folder, done):
        return done
    healthy = calibrated.get("fit", {}) if threshold is not None else {}
    return save(detect_case(case, model, options), folder, options, threshold, key, healthy)


def _precision(model: Model | Scorer) -> str:
    """How matrices are multiplied."""
    return "bfloat16" if isinstance(model, Model) and model.field.bfloat16 else "float32"


def _key(case: Case, model: Model | Scorer, options: RunOptions, threshold: float | None, calibrated: Json) -> str:
    """Hash of all that a case's result depends on; of calibrations, the one in use alone."""
    parts = [file_hash(path) if path and path.is_file() else "" for path in (case.image, case.mask)]
    parts += [json.dumps({name: calibrated.get(name) for name in ("fit", "reference")})]
    parts += [model.hash, model.recipe.model_dump_json(), options.model_dump_json(), repr(threshold), __version__]
    parts += [_precision(model)]
    return hashlib.sha256("\n".join(parts).encode()).hexdigest()


def _fit_json(detection: Detection, healthy: Mapping[str, Json]) -> Json:
    """Diagnostics of the fit, and whether it is to be trusted."""
    fit = detection.fit
    if fit is None:
        return {}
    trusted, reasons = verdict(fit, detection.brain_ml, healthy)
    values = diagnostics(fit, detection.brain_ml)
    values.pop("brain_ml")
    gain = None if fit.intensity is None else round(fit.intensity.gain, 4)
    return {**values, "pose": fit.pose and fit.pose.describe(), "gain": gain, "trusted": trusted, "reasons": reasons}


def _write_lesions(lesions: Sequence[Lesion], path: Path) -> None:
    rows = ["lesion\tvolume_ml\tpeak\tmean\tx_mm\ty_mm\tz_mm"]
    for number, lesion in enumerate(lesions, start=1):
        x, y, z = lesion.center_mm
        rows.append(
            f"{number}\t{lesion.volume_ml:.3f}\t{lesion.peak:.4f}\t{lesion.mean:.4f}\t{x:.1f}\t{y:.1f}\t{z:.1f}"
        )
    write_text(path, "\n".join(rows) + "\n")


def _case_json(
    detection: Detection,
    options: RunOptions,
    threshold: float | None,
    lesions: Sequence[Lesion],
    seconds: dict[str, float],
    key: str,
    healthy: Mapping[str, Json],
) -> Json:
    case, scan = detection.case, detection.scan
    return {
        "id": case.id,
        "subject": case.subject or case.id,
        "image": str(case.image.resolve()),
        "mask": None if case.mask is None else str(case.mask.resolve()),
        "label": None if case.label is None else str(case.label.resolve()),
        "score": options.score,
        "threshold": threshold,
        "shape": list(scan.data.shape),
        "brain_ml": round(detection.brain_ml, 2),
        "case_score": top_mean(detection.maps[options.score][detection.brain], scan.voxel_ml),
        "lesions": len(lesions),
        "volume_ml": round(sum(lesion.volume_ml for lesion in lesions), 3),
        "findings": [asdict(lesion) for lesion in lesions[:20]],
        "fit": _fit_json(detection, healthy),
        "seconds": {stage: round(value, 3) for stage, value in seconds.items()},
        "source_hash": detection.source_hash,
        "key": key,
    }
