"""Detection in one scan: prepare, analyse, filter, resample to the scan's own voxels, apply the threshold."""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from anofield._files import sealed, write_json, write_text, writing
from anofield._words import counted
from anofield.curves import top_mean
from anofield.data.brain import StrippedScan
from anofield.data.cohort.case import Case
from anofield.data.cohort.own import maker_of
from anofield.data.prepare import prepare_scan
from anofield.data.prepared import Prepared
from anofield.data.scan import Scan, write_like
from anofield.detect.calibration import Calibrated
from anofield.detect.findings import find_findings, findings_table
from anofield.detect.fit import Fit
from anofield.detect.identity import Sources, identity_of
from anofield.detect.method import Analysis, Method
from anofield.detect.options import RunOptions
from anofield.detect.procedure import PROCEDURES, to_brain
from anofield.detect.run_folder import CASE_FILE, CaseInfo, Finding, FitInfo, Seen, outputs
from anofield.detect.seen import seen_as
from anofield.detect.tail import other_contrast, settled
from anofield.detect.trust import Known, Verdict, diagnostics, judge
from anofield.detect.view import view
from anofield.errors import ScanError, UsageError
from anofield.typing import FloatVolume, Mask, PathLike

CASE_ML = 1.0  # volume that `top_mean` averages: smaller than the smallest glioma, larger than single voxels
MOST_FINDINGS = 20  # findings in `case.json`; `lesions.tsv` has all


@dataclass(frozen=True, kw_only=True)
class Examined:
    """A scan and its analysis by a method, before filters and threshold.

    Attributes:
        native: The scan in its own voxels.
        prepared: The scan on the lattice.
        analysis: Scores, restoration and fit of the method.
        options: Options of the run.
        seconds: Time per stage, s.
    """

    native: StrippedScan
    prepared: Prepared
    analysis: Analysis
    options: RunOptions
    seconds: dict[str, float]

    def native_map(self, name: str, calibrated: Calibrated | None) -> FloatVolume:
        """The filtered score in the scan's own voxels, (i, j, k).

        Args:
            name: Name of the score.
            calibrated: Calibration with the reference maps of a standardised score; None without one.

        Raises:
            ScanError: The map is not finite.
        """
        filters = self.options.filters
        standard = calibrated.reference[name] if calibrated and filters.standardise else None
        procedure = PROCEDURES[self.options.procedure]
        values = procedure.native_map(self.native, self.analysis, name, filters, standard)
        _refuse_not_finite({name: values}, self.native.scan)
        return values

    def native_restoration(self) -> FloatVolume | None:
        """The healthy version of the scan in its own voxels and units, (i, j, k); None if the method has none."""
        if self.analysis.restoration is None:
            return None
        values = to_brain(self.analysis.restoration, self.prepared, self.native)
        shift, scale = self.prepared.scale
        return np.where(self.native.brain, values * scale + shift, 0.0).astype(np.float32)

    @property
    def diagnostics(self) -> dict[str, float]:
        """Diagnostics of the fit, as plain numbers; empty for a method that fits nothing."""
        fit = self.analysis.fit
        return {} if fit is None else diagnostics(fit, self.native.brain_ml)


def examine(native: StrippedScan, method: Method, options: RunOptions, fit: Fit | None = None) -> Examined:
    """Prepare and analyse one scan.

    Args:
        native: The scan and its brain.
        method: The field or a baseline.
        options: Options of the run.
        fit: Fit of this scan if it is already known; None to fit it.

    Raises:
        ScanError: The scan does not have the shape that the recipe requires, or a score is not finite.
    """
    start, options = time.perf_counter(), settled(options, method)
    prepared = prepare_scan(native, None, method.recipe)
    pose = method.place(native, prepared)
    if pose is not None:
        prepared = prepare_scan(native, None, method.recipe, pose)
    ready = time.perf_counter()
    analysis = method.analyse(prepared, native.scan.content_hash, options, fit)
    _refuse_not_finite(analysis.maps, native.scan)
    if analysis.restoration is not None:
        _refuse_not_finite({"restoration": analysis.restoration}, native.scan)
    seconds = {"prepare": ready - start, **analysis.seconds}
    return Examined(native=native, prepared=prepared, analysis=analysis, options=options, seconds=seconds)


@dataclass(frozen=True, kw_only=True)
class Detection:
    """Result for one scan; all volumes are in the scan's own voxels.

    Attributes:
        case: Case of the scan, which gives the id.
        scan: The scan.
        brain: Brain voxels, (i, j, k).
        maps: Filtered score per name, (i, j, k) float32, 0 outside the brain.
        healed: The healthy version of the scan in its intensity units, (i, j, k); None if the method has none.
        above: Voxels of the findings, (i, j, k); None without a calibration.
        findings: Connected components above the threshold, the largest first; empty without a calibration.
        fit: Fit of the scan; None for a method that fits nothing.
        verdict: Whether the fit can be trusted.
        options: Options of the detection.
        calibrated: The calibration that was used; None without one.
        sources: Hashes of the files of the scan.
        seen: The training or calibration scan with the same content; None if none is known.
        identity: Hash of everything that the result depends on besides the scan.
        seconds: Time per stage, s.
        doubts: Signs that a part of the brain is missing, one sentence each.
        notes: What is to be known about the brain mask, one sentence each.
    """

    case: Case
    scan: Scan
    brain: Mask
    maps: Mapping[str, FloatVolume]
    healed: FloatVolume | None
    above: Mask | None
    findings: tuple[Finding, ...]
    fit: Fit | None
    verdict: Verdict
    options: RunOptions
    calibrated: Calibrated | None
    sources: Sources
    seen: Seen | None
    identity: str
    seconds: Mapping[str, float]
    doubts: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()

    @property
    def id(self) -> str:
        """Case id."""
        return self.case.id

    @property
    def threshold(self) -> float | None:
        """Calibrated threshold of the anomaly map; None without a calibration."""
        return None if self.calibrated is None else self.calibrated.threshold

    @property
    def anomaly(self) -> Scan:
        """Anomaly map: larger is further from healthy anatomy."""
        return self.scan.like(self.maps[self.options.score])

    @property
    def mask(self) -> Scan:
        """Voxels of the findings, 0 or 1.

        Raises:
            UsageError: The detection has no threshold.
        """
        if self.above is None:
            raise UsageError(
                "there is no mask: the model is not calibrated for these options",
                where=self.id,
                remedy="calibrate it first (`model.calibrate`, `anofield calibrate`), or threshold `anomaly` yourself",
            )
        return self.scan.like(self.above.astype(np.uint8))

    @property
    def restoration(self) -> Scan | None:
        """The healthy version of the scan in its intensity units; None if the method has none."""
        return None if self.healed is None else self.scan.like(self.healed)

    @property
    def trusted(self) -> bool | None:
        """Whether the fit can be trusted; None if that could not be judged."""
        return self.verdict.trusted

    @property
    def reasons(self) -> tuple[str, ...]:
        """Reasons against trusting the fit."""
        return self.verdict.reasons

    @property
    def volume_ml(self) -> float:
        """Volume of all findings, ml."""
        return sum(finding.volume_ml for finding in self.findings)

    @property
    def brain_ml(self) -> float:
        """Volume of the brain, ml."""
        return float(self.brain.sum()) * self.scan.voxel_ml

    @property
    def case_score(self) -> float:
        """How anomalous the whole scan is: mean of the most anomalous `CASE_ML` of its brain."""
        return top_mean(self.maps[self.options.score][self.brain], round(CASE_ML / self.scan.voxel_ml))

    def __repr__(self) -> str:
        if self.threshold is None:
            return f"Detection({self.id}: anomaly map only, not calibrated)"
        trust = {True: "fit trusted", False: "fit NOT trusted", None: "fit not judged"}[self.trusted]
        found = f"{counted(len(self.findings), 'finding')}, {self.volume_ml:.1f} ml above {self.threshold:.3g}"
        seen = "" if self.seen is None else f"; is {self.seen}"
        return f"Detection({self.id}: {found}; {trust}{seen})"

    def view(self, score: str | None = None) -> Any:
        """Show the scan with a map over it in a notebook (extra `notebook`).

        Args:
            score: Score whose map is shown; None for the anomaly map.

        Raises:
            UsageError: ipyniivue is not installed, or there is no such map.
        """
        return view(self.scan, self.brain, self.maps, score or self.options.score, self.threshold)

    def save(self, folder: PathLike) -> CaseInfo:
        """Write the same files as `anofield detect` into a folder, `case.json` last; returns its content.

        Raises:
            MachineError: The folder cannot be written.
        """
        start, folder = time.perf_counter(), Path(folder)
        with writing(folder):
            folder.mkdir(parents=True, exist_ok=True)
            for old in (CASE_FILE, *outputs(folder)):
                (folder / old).unlink(missing_ok=True)
        for name, values in self._volumes().items():
            write_like(self.scan, values, folder / f"{name}.nii.gz", description=f"anofield {name}")
        if self.above is not None:
            write_text(folder / "lesions.tsv", findings_table(self.findings))
        info = self._info(outputs(folder), time.perf_counter() - start)
        write_json(folder / CASE_FILE, sealed(info))
        return info

    def _volumes(self) -> dict[str, NDArray[Any]]:
        """Volumes by the name of their file."""
        found: dict[str, NDArray[Any]] = {"anomaly": self.maps[self.options.score]}
        found |= {f"score-{name}": self.maps[name] for name in self.options.names[1:]}
        if self.healed is not None:
            found["restoration"] = self.healed
        if self.above is not None:
            found["mask"] = self.above.astype(np.uint8)
        return found

    def _info(self, files: list[str], write_seconds: float) -> CaseInfo:
        case, seconds = self.case, {**self.seconds, "write": write_seconds}
        return CaseInfo(
            id=case.id,
            subject=case.subject or case.id,
            image=_resolved(case.image) or "",
            mask=_resolved(case.mask),
            label=_resolved(case.label),
            more_labels=[str(path.resolve()) for path in case.more_labels],
            score=self.options.score,
            threshold=self.threshold,
            shape=(int(self.brain.shape[0]), int(self.brain.shape[1]), int(self.brain.shape[2])),
            brain_ml=round(self.brain_ml, 2),
            case_score=self.case_score,
            lesions=len(self.findings),
            volume_ml=round(self.volume_ml, 3),
            findings=list(self.findings[:MOST_FINDINGS]),
            fit=self._fit_info(),
            seconds={stage: round(value, 3) for stage, value in seconds.items()},
            source_hash=self.sources.scan,
            mask_hash=self.sources.mask,
            doubts=list(self.doubts),
            notes=list(self.notes),
            seen=self.seen,
            identity=self.identity,
            key=self.sources.key(self.identity),
            files=files,
        )

    def _fit_info(self) -> FitInfo | None:
        if (fit := self.fit) is None:
            return None
        return FitInfo(
            loss=fit.loss,
            code_distance=fit.code_distance,
            contrast=fit.contrast,
            outside=fit.outside,
            **({} if fit.agreement is None else vars(fit.agreement)),
            pose=None if fit.pose is None else fit.pose.describe(),
            gain=None if fit.intensity is None else round(fit.intensity.gain, 4),
            trusted=self.trusted,
            reasons=list(self.reasons),
        )


def detect_scan(
    case: Case, native: StrippedScan, method: Method, options: RunOptions, calibrated: Calibrated | None
) -> Detection:
    """Detect anomalies in a scan that is in memory.

    Args:
        case: Case of the scan, which gives the id.
        native: The scan and its brain.
        method: The field or a baseline.
        options: Options of the run.
        calibrated: Calibration from `anofield.detect.calibration.look_up`; None for only an anomaly map.

    Raises:
        ScanError: The scan does not have the shape that the recipe requires, or a score is not finite.
    """
    options = settled(options, method)
    examined = examine(native, method, options)
    start = time.perf_counter()
    maps = {name: examined.native_map(name, calibrated) for name in options.names}
    above, findings = _thresholded(maps[options.score], native, options, calibrated)
    fit = examined.analysis.fit
    return Detection(
        case=case,
        scan=native.scan,
        brain=native.brain,
        maps=maps,
        healed=examined.native_restoration(),
        above=above,
        findings=findings,
        fit=fit,
        verdict=verdict_of(fit, case, native, method, calibrated),
        doubts=native.doubts,
        notes=native.notes,
        options=options,
        calibrated=calibrated,
        sources=Sources.of(case, native.scan),
        seen=seen_as(native.scan.content_hash, method, calibrated),
        identity=identity_of(method, options, calibrated),
        seconds={**examined.seconds, "score": examined.seconds["score"] + time.perf_counter() - start},
    )


def verdict_of(
    fit: Fit | None, case: Case, native: StrippedScan, method: Method, calibrated: Calibrated | None
) -> Verdict:
    """Whether the fit can be trusted, by the calibration, the training of the method and the name of the scan."""
    if fit is None:
        return Verdict(False, native.doubts) if native.doubts else Verdict(None)
    known = Known(
        origin=method.origin,
        synthetic=bool(maker_of(native.scan.path)),
        other_contrast=other_contrast(case, method.origin),
    )
    healthy, people = (calibrated.healthy_fit, calibrated.people) if calibrated else ({}, 1)
    found = judge(fit, native.brain_ml, healthy, people, known)
    return Verdict(False, (*native.doubts, *found.reasons)) if native.doubts else found


def _refuse_not_finite(maps: Mapping[str, NDArray[np.floating[Any]]], scan: Scan) -> None:
    """Refuse maps with NaN or infinite values, which would look like scores or like healthy voxels.

    Raises:
        ScanError: A map is not finite.
    """
    for name, values in maps.items():
        if wrong := int(values.size - np.count_nonzero(np.isfinite(values))):
            raise ScanError(
                f"{name} is not finite in {wrong} of {values.size} voxels",
                where=scan.path,
                why="no anomaly can be told from such values",
                remedy="if every scan fails, the model or the score is at fault; else look at the voxels of this scan",
            )


def _thresholded(
    anomaly: FloatVolume, native: StrippedScan, options: RunOptions, calibrated: Calibrated | None
) -> tuple[Mask | None, tuple[Finding, ...]]:
    """Voxels of the findings, and the findings; None and no findings without a threshold."""
    if calibrated is None or calibrated.threshold is None:
        return None, ()
    above = (anomaly > calibrated.threshold) & native.brain
    mask, findings = find_findings(anomaly, above, native.scan, options.filters.min_lesion_ml)
    return mask, tuple(findings)


def _resolved(path: Path | None) -> str | None:
    """Absolute path of a file; None if there is none."""
    return str(path.resolve()) if path is not None and path.is_file() else None
