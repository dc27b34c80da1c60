"""Scan in, `Detection` out: prepare, fit, decode, score, filter, back to the scan's own voxels, threshold."""

from __future__ import annotations

import hashlib
import json
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path

import numpy as np
from pydantic import Field, field_validator
from torch import Tensor

from anofield import __version__
from anofield.baselines import BASELINES
from anofield.cluster import Outcome, map_cases
from anofield.cohort import Case
from anofield.errors import UsageError
from anofield.fit import Fit, FitOptions, decode, fit_code
from anofield.lattice import to_native
from anofield.model import Model
from anofield.prepare import Prepared, prepare_case
from anofield.scan import Scan, file_hash, write_json, write_like, writing
from anofield.score import SCORES, Lesion, find_lesions, masked_mean, smooth
from anofield.scorer import Analysis, RunOptions, Scorer
from anofield.typing import FloatVolume, Json, Mask, PathLike

CASE_FILE = "case.json"


class DetectOptions(RunOptions):
    """Everything that a detection by the field depends on besides scan and model.

    Attributes:
        score: The anomaly map and the detection are made from this score.
        also: Further scores and baselines, written as `score-<name>.nii.gz` through the same filters.
        fit: Of the code.
        filters: Of the score.
    """

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

    @property
    def settings(self) -> Json:
        """The options that a calibration depends on, as plain values."""
        return {"fit": self.fit.model_dump(mode="json"), **super().settings}


@dataclass(frozen=True)
class Detection:
    """Result for one scan, everything in the scan's own voxels.

    Attributes:
        case: What was asked for.
        scan, brain: The scan and its brain voxels, (i, j, k).
        maps: Filtered score per name, (i, j, k) float32, 0 outside the brain.
        restoration: The fitted healthy person in the scan's intensity units, (i, j, k); None if the method has none.
        fit: The fitted code and its diagnostics; None if the method fits no code.
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


def detect_case(case: Case, model: Model | Scorer, options: RunOptions) -> Detection:
    """Detect anomalies in one scan.

    Raises:
        ScanError: The scan or its mask cannot be used.
    """
    start = time.perf_counter()
    prepared = prepare_case(Case(case.id, case.image, None, case.mask), model.recipe)
    ready = time.perf_counter()
    found = _analyse(model, prepared, case.id, options)
    analysed = time.perf_counter()
    maps = {name: _native_map(found.maps[name], prepared, options) for name in options.names}
    restoration = None if found.restoration is None else _restoration(found.restoration, prepared)
    stages = {"prepare": ready - start, **found.seconds}
    stages["score"] = found.seconds.get("score", 0.0) + time.perf_counter() - analysed
    return Detection(
        case, prepared.scan, prepared.native_brain, maps, restoration, found.fit, prepared.source_hash, stages
    )


def _analyse(model: Model | Scorer, prepared: Prepared, key: str, options: RunOptions) -> Analysis:
    """The field fits a code and compares; any other method scores by itself."""
    if isinstance(model, Model) and isinstance(options, DetectOptions):
        return analyse_with_field(model, prepared, key, options)
    if isinstance(model, Model):
        raise UsageError("the field needs `DetectOptions`", remedy="give options of the field's own class")
    return model.analyse(prepared, key, options)


def analyse_with_field(model: Model, prepared: Prepared, key: str, options: DetectOptions) -> Analysis:
    """Fit a code, decode it and score the scan against it, on the lattice."""
    start = time.perf_counter()
    fit = fit_code(model.field, model.prior, prepared, key, options.fit, model.device)
    fitted = time.perf_counter()
    log_p = decode(model.field, fit.code, prepared, model.device)
    maps = {name: _lattice_map(name, log_p, prepared, options) for name in options.names}
    restoration = _expected_intensity(log_p, prepared)
    return Analysis(maps, restoration, fit, {"fit": fitted - start, "score": time.perf_counter() - fitted})


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

    Args:
        cases: The cohort.
        model: From `load_model`, or another method from `load_baseline`.
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
    return list(map_cases(work, cases, workers=workers, scheduler=scheduler, label="detect"))


def threshold_of(model: Model | Scorer, options: RunOptions, score: str | None = None) -> float | None:
    """The calibrated threshold of a score (default: the main one); None if the model was never calibrated.

    Raises:
        UsageError: It was calibrated with other options, whose thresholds mean nothing here.
    """
    if not model.calibration:
        return None
    differing = _differences(model.calibration["options"], calibrated_settings(options))
    if model.calibration["model_hash"] != model.hash:
        differing.append("the checkpoint")
    if differing:
        raise UsageError(
            f"the model was calibrated otherwise: {', '.join(differing)}",
            where=model.path / "calibration.json",
            why="a threshold holds only for the scores it was measured on",
            remedy="run `anofield calibrate` with these options, or use the options it was calibrated with",
        )
    value = model.calibration["thresholds"].get(score or options.score)
    return None if value is None else float(value)


def _differences(before: Json, now: Json) -> list[str]:
    """Options that are not what they were at calibration, with both values."""
    pairs = [(part, name) for part in now for name in now[part]]
    values = [(name, before.get(part, {}).get(name), now[part][name]) for part, name in pairs]
    return [f"{name} was {old}, is {new}" for name, old, new in values if old != new]


def calibrated_settings(options: RunOptions) -> Json:
    """The options that a calibration depends on, as plain values."""
    return options.settings


def save(detection: Detection, folder: Path, options: RunOptions, threshold: float | None, key: str) -> Json:
    """Write the files of one detection, `case.json` last; returns its content.

    Raises:
        MachineError: The disk refuses.
    """
    start = time.perf_counter()
    with writing(folder):
        folder.mkdir(parents=True, exist_ok=True)
        names = (CASE_FILE, "mask.nii.gz", "lesions.tsv", "restoration.nii.gz")
        for old in (*(folder / name for name in names), *folder.glob("score-*.nii.gz")):
            old.unlink(missing_ok=True)
    anomaly = detection.maps[options.score]
    write_like(detection.scan, anomaly, folder / "anomaly.nii.gz", description=f"anofield {options.score}")
    for name in options.names[1:]:
        write_like(
            detection.scan, detection.maps[name], folder / f"score-{name}.nii.gz", description=f"anofield {name}"
        )
    if detection.restoration is not None:
        restored = folder / "restoration.nii.gz"
        write_like(detection.scan, detection.restoration, restored, description="anofield restoration")
    lesions: list[Lesion] = []
    if threshold is not None:
        above = (anomaly > threshold) & detection.brain
        mask, lesions = find_lesions(anomaly, above, detection.scan, options.filters.min_lesion_ml)
        write_like(detection.scan, mask.astype(np.uint8), folder / "mask.nii.gz", description="anofield detection")
        _write_lesions(lesions, folder / "lesions.tsv")
    seconds = {**detection.seconds, "write": time.perf_counter() - start}
    content = _case_json(detection, options, threshold, lesions, seconds, key)
    write_json(folder / CASE_FILE, content)
    return content


def write_run(
    out: PathLike,
    model: Model | Scorer,
    options: RunOptions,
    outcomes: Sequence[Outcome[Json]],
    seconds: float,
    command: str,
) -> Json:
    """Write `run.json`: what was run, with what, on which cases."""
    threshold = threshold_of(model, options)
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
        else {"value": threshold, "quantile": model.calibration["quantile"], "meaning": model.calibration["meaning"]},
        "thresholds": model.calibration.get("thresholds", {}),
        "device": str(model.device),
        "versions": versions(),
        "cases": sorted(outcome.case.id for outcome in outcomes if outcome.value is not None),
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
    key = _key(case, model, options, threshold)
    done = None if force else read_case(folder)
    if done is not None and done["key"] == key:
        return done
    return save(detect_case(case, model, options), folder, options, threshold, key)


def read_case(folder: Path) -> Json | None:
    """Content of a case's `case.json`; None if the case is not finished."""
    try:
        content: Json = json.loads((folder / CASE_FILE).read_text())
    except (OSError, ValueError):
        return None
    return content


def _key(case: Case, model: Model | Scorer, options: RunOptions, threshold: float | None) -> str:
    """Hash of all that a case's result depends on."""
    parts = [file_hash(path) if path and path.is_file() else "" for path in (case.image, case.mask)]
    parts += [model.hash, model.recipe.model_dump_json(), options.model_dump_json(), repr(threshold), __version__]
    return hashlib.sha256("\n".join(parts).encode()).hexdigest()


def _lattice_map(name: str, log_p: Tensor, prepared: Prepared, options: DetectOptions) -> FloatVolume:
    """One score of the field, or a baseline that needs no training, (R, R, R)."""
    tail = options.filters.tail
    if name in BASELINES:
        return BASELINES[name](prepared, tail)
    import torch

    observed = torch.from_numpy(prepared.classes[prepared.brain]).long()
    return _on_lattice(SCORES[name](log_p, observed, tail), prepared)


def _native_map(values: FloatVolume, prepared: Prepared, options: RunOptions) -> FloatVolume:
    """A score of the lattice, filtered, in the scan's own voxels, 0 outside the brain."""
    return _to_brain(smooth(values, prepared.brain, prepared.lattice, options.filters), prepared)


def _expected_intensity(log_p: Tensor, prepared: Prepared) -> FloatVolume:
    """Expected normalised intensity under the fitted field, (R, R, R)."""
    import torch

    return _on_lattice(log_p.exp() @ torch.tensor(prepared.recipe.centers, dtype=log_p.dtype), prepared)


def _restoration(normalised: FloatVolume, prepared: Prepared) -> FloatVolume:
    """A lattice volume of normalised intensities in the scan's own voxels and units."""
    shift, scale = prepared.scale
    native = _to_brain(normalised, prepared) * scale + shift
    return np.where(prepared.native_brain, native, 0.0).astype(np.float32)


def _on_lattice(values: Tensor, prepared: Prepared) -> FloatVolume:
    volume = np.zeros(prepared.lattice.shape, dtype=np.float32)
    volume[prepared.brain] = values.numpy()
    return volume


def _to_brain(volume: FloatVolume, prepared: Prepared) -> FloatVolume:
    """Lattice → native voxels; the brain's rim is continued one voxel outwards first, so that it does not fade."""
    rim = masked_mean(volume, prepared.brain, 3)
    native = to_native(np.where(prepared.brain, volume, rim), prepared.lattice)
    return np.where(prepared.native_brain, native, 0.0).astype(np.float32)


def _write_lesions(lesions: Sequence[Lesion], path: Path) -> None:
    rows = ["lesion\tvolume_ml\tpeak\tmean\tx_mm\ty_mm\tz_mm"]
    for number, lesion in enumerate(lesions, start=1):
        x, y, z = lesion.center_mm
        rows.append(
            f"{number}\t{lesion.volume_ml:.3f}\t{lesion.peak:.4f}\t{lesion.mean:.4f}\t{x:.1f}\t{y:.1f}\t{z:.1f}"
        )
    with writing(path):
        path.write_text("\n".join(rows) + "\n")


def _case_json(
    detection: Detection,
    options: RunOptions,
    threshold: float | None,
    lesions: Sequence[Lesion],
    seconds: dict[str, float],
    key: str,
) -> Json:
    case, scan, fit = detection.case, detection.scan, detection.fit
    return {
        "id": case.id,
        "image": str(case.image.resolve()),
        "mask": None if case.mask is None else str(case.mask.resolve()),
        "label": None if case.label is None else str(case.label.resolve()),
        "score": options.score,
        "threshold": threshold,
        "shape": list(scan.data.shape),
        "brain_ml": round(float(detection.brain.sum()) * scan.voxel_ml, 2),
        "lesions": len(lesions),
        "volume_ml": round(sum(lesion.volume_ml for lesion in lesions), 3),
        "findings": [asdict(lesion) for lesion in lesions[:20]],
        "fit": {} if fit is None else {"loss": fit.loss, "code_distance": fit.code_distance},
        "seconds": {stage: round(value, 3) for stage, value in seconds.items()},
        "source_hash": detection.source_hash,
        "key": key,
    }
