"""Calibration on healthy scans: thresholds, which are quantiles of each score over brain voxels, and reference maps.

Each scan is measured on its own, and the measurements are combined in the order of the cases, so the result does not
depend on the number of workers.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial

import numpy as np
from numpy.typing import NDArray

from anofield import bootstrap
from anofield._files import sealed, write_json
from anofield._version import __version__
from anofield.curves import DROPPED_BITS, ScoreHistogram, ordered_keys
from anofield.data.brain import as_stripped
from anofield.data.cohort.case import Case, cohort_of
from anofield.data.labels import read_truth
from anofield.data.parallel import HERE, Outcome, Spread, failures_of, in_order, map_cases
from anofield.detect.calibration import Calibrated, CalibrationInfo, Kept, Settings, maps_path, settings_of
from anofield.detect.detection import Examined, examine
from anofield.detect.fit import Fit
from anofield.detect.method import Method
from anofield.detect.options import RunOptions
from anofield.detect.reference import Moments, Standard, Sums, write_reference
from anofield.detect.scores import load_scores
from anofield.detect.seen import refuse_known
from anofield.detect.tail import say_other_contrasts, settled, tail_of_contrast
from anofield.detect.trust import PERCENTILES
from anofield.errors import CohortError, ScanError, UsageError
from anofield.field.threads import threads_of

HIGHEST = 20.0  # share of each subject's voxels that is kept, in units of 1 − quantile: 2 % by default
NAMED = 3  # failures that are named in the error when all scans failed
QUANTILE = 0.999  # 1.3 ml of a brain of 1.3 litres; better Dice on the phantom than 0.998
Counts = tuple[NDArray[np.intp], NDArray[np.intp]]  # filled bins of a histogram, and how many voxels are in each


@dataclass(frozen=True)
class Highest:
    """The highest scores of one subject's brain, (n,), and its number of voxels: they give the share above a value."""

    values: NDArray[np.float32]
    voxels: int

    @classmethod
    def of(cls, values: NDArray[np.float32], share: float) -> Highest:
        """The highest `share` of some scores."""
        count = min(max(1, math.ceil(share * len(values))), len(values))
        return cls(np.partition(values, -count)[-count:], len(values))

    def above(self, threshold: float) -> float:
        """Share of the brain above a threshold; a lower bound if all kept scores are above it."""
        return float((self.values > threshold).sum()) / self.voxels


@dataclass(frozen=True, kw_only=True)
class Measured:
    """What one healthy scan contributes to a calibration.

    Attributes:
        content: Hash of the scan's content.
        brain_ml: Volume of the brain, ml.
        fit: Fit of the scan; None for a method that fits nothing.
        diagnostics: Diagnostics of the fit, as plain numbers.
        counts: Histogram of the final map per score; empty where the map needs reference maps first.
        highest: Highest values of the main score; None where `counts` is empty.
        sums: Contribution to the reference maps; None if there are none.
        spacing: Lattice spacing, mm.
    """

    content: str
    brain_ml: float
    fit: Fit | None
    diagnostics: Mapping[str, float]
    counts: Mapping[str, Counts] = field(default_factory=dict)
    highest: Highest | None = None
    sums: Sums | None = None
    spacing: float = 1.0


@dataclass(frozen=True, kw_only=True)
class Measure:
    """Measures healthy scans for a calibration.

    Attributes:
        method: The field or a baseline.
        options: Options of the run, with every score that gets a threshold.
        quantile: Share of healthy brain voxels at or below the thresholds.
    """

    method: Method
    options: RunOptions
    quantile: float

    def first(self, case: Case) -> Measured:
        """Fit a scan; count its scores, or give its contribution to the reference maps that they need first."""
        examined = self._examined(case)
        if not self.options.filters.standardise:
            return self._counted(examined, None)
        analysis, prepared = examined.analysis, examined.prepared
        return Measured(
            content=examined.native.scan.content_hash,
            brain_ml=examined.native.brain_ml,
            fit=analysis.fit,
            diagnostics=examined.diagnostics,
            sums=Moments.sums_of(self.options.names, analysis.maps, prepared, analysis.pose),
            spacing=float(prepared.lattice.spacing.mean()),
        )

    def second(self, case: Case, *, moments: Moments, fits: Mapping[str, Fit | None]) -> Measured:
        """Count the scores of a scan, standardised by the reference maps of all other subjects."""
        examined = self._examined(case, fits[case.id])
        analysis, prepared = examined.analysis, examined.prepared
        others = moments.without(Moments.sums_of(self.options.names, analysis.maps, prepared, analysis.pose))
        return self._counted(examined, others.standards(float(prepared.lattice.spacing.mean())))

    def _examined(self, case: Case, fit: Fit | None = None) -> Examined:
        native = as_stripped(case.image, case.mask, dtype=self.method.recipe.kind.dtype)
        if case.labels and (read_truth(case.labels, native.scan, native.brain) > 0).any():
            raise ScanError(
                "has a lesion label",
                where=" and ".join(map(str, case.labels)),
                why="a threshold must come from healthy subjects",
                remedy="calibrate on subjects without lesions",
            )
        return examine(native, self.method, self.options, fit)

    def _counted(self, examined: Examined, reference: Mapping[str, Standard] | None) -> Measured:
        """Histograms of the final maps."""
        brain, counts, highest = examined.native.brain, {}, None
        calibrated = None if reference is None else _only_maps(self.options.score, reference)
        for name in self.options.names:
            values = examined.native_map(name, calibrated)[brain]
            counts[name] = _counts(values)
            if name == self.options.score:
                highest = Highest.of(values, HIGHEST * (1 - self.quantile))
        return Measured(
            content=examined.native.scan.content_hash,
            brain_ml=examined.native.brain_ml,
            fit=examined.analysis.fit,
            diagnostics=examined.diagnostics,
            counts=counts,
            highest=highest,
        )


def calibrate(
    cases: Sequence[Case],
    method: Method,
    options: RunOptions,
    *,
    quantile: float = QUANTILE,
    spread: Spread = HERE,
) -> tuple[CalibrationInfo, list[Outcome[str]]]:
    """Measure every score on healthy scans and store their quantiles with the method.

    An existing calibration with the same options is replaced; others are kept, see `anofield.detect.calibration`.

    Args:
        cases: Healthy subjects that the method was not trained on.
        method: The field or a baseline.
        options: Options that the thresholds are measured for.
        quantile: Share of healthy brain voxels at or below the thresholds.
        spread: Local processes or scheduler that process the cases.

    Returns:
        Content of the file, and the outcome of every case.

    Raises:
        UsageError: The quantile is not between 0 and 1, an installed score of the options is broken, a case is a
            training case or has the content of a training scan, or two cases have the same content.
        CohortError: No case could be used.
    """
    if not 0 < quantile < 1:
        raise UsageError(f"quantile {quantile}", remedy="give a number between 0 and 1, for example 0.995")
    options, cases = settled(options, method), cohort_of(cases)
    load_scores(options)
    say_other_contrasts(cases, method)
    refuse_known(cases, method, spread)
    every = options.model_copy(update={"also": tuple(name for name in method.scores if name != options.score)})
    measure = Measure(method=method, options=every, quantile=quantile)
    run = partial(map_cases, spread=spread, label="calibrate")
    total = Total(names=every.names)
    outcomes = [total.add(outcome) for outcome in in_order(run(measure.first, cases), cases)]
    used = [outcome.case for outcome in outcomes if outcome.failure is None]
    if not used:
        failed = "; ".join(f"{one.id}: {one.error}" for one in failures_of(outcomes)[:NAMED])
        raise CohortError(
            f"none of {len(cases)} healthy scans could be used",
            why=failed,
            remedy="fix them; `anofield check -i SCANS` checks all of them",
        )
    if total.moments is not None:
        second = partial(measure.second, moments=total.moments, fits=total.fits)
        _refuse_changed([total.add_counts(outcome) for outcome in in_order(run(second, used), used)])
    settings = settings_of(method, options)
    info = total.info(settings, method, options.score, quantile, [case.id for case in used])
    info = info.model_copy(update={"threads": threads_of(spread)})
    write_json(settings.path(method.path), sealed(info))
    return info, outcomes


@dataclass(kw_only=True)
class Total:
    """Sum of the measurements so far; the volumes of only one scan are in memory at a time.

    Attributes:
        names: Names of the scores.
        histograms: Histogram of the final maps of all subjects, per score.
        highest: Highest values of the main score, per subject.
        contents: Hash of the scan's content, per subject.
        brain_ml: Volume of the brain, per subject.
        diagnostics: Diagnostics of the fit, per subject.
        fits: Fit per case id.
        moments: Sums of the reference maps; None where there are none.
        spacing: Lattice spacing, mm.
    """

    names: Sequence[str]
    histograms: dict[str, ScoreHistogram] = field(init=False)
    highest: list[Highest] = field(default_factory=list)
    contents: list[str] = field(default_factory=list)
    brain_ml: list[float] = field(default_factory=list)
    diagnostics: list[Mapping[str, float]] = field(default_factory=list)
    fits: dict[str, Fit | None] = field(default_factory=dict)
    moments: Moments | None = None
    spacing: float = 1.0

    def __post_init__(self) -> None:
        self.histograms = {name: ScoreHistogram() for name in self.names}

    def add(self, outcome: Outcome[Measured]) -> Outcome[str]:
        """Add a scan of the first pass; returns its outcome without the measurement."""
        measured = outcome.value
        if measured is None:
            return Outcome(outcome.case, failure=outcome.failure)
        self.contents.append(measured.content)
        self.brain_ml.append(measured.brain_ml)
        self.diagnostics.append(measured.diagnostics)
        self.fits[outcome.case.id] = measured.fit
        if measured.sums is not None:
            moments = self.moments or Moments.none(self.names, measured.sums)
            self.moments, self.spacing = moments.plus(measured.sums), measured.spacing
        return self.add_counts(outcome)

    def add_counts(self, outcome: Outcome[Measured]) -> Outcome[str]:
        """Add the histograms of a scan; returns its outcome without the measurement."""
        if outcome.value is not None:
            for name, (bins, counts) in outcome.value.counts.items():
                self.histograms[name].counts[0][bins] += counts
            if outcome.value.highest is not None:
                self.highest.append(outcome.value.highest)
        return Outcome(outcome.case, outcome.case.id, outcome.failure)

    def info(
        self, settings: Settings, method: Method, score: str, quantile: float, cases: list[str]
    ) -> CalibrationInfo:
        """Write the reference maps, if there are any, and return the content of the calibration file."""
        thresholds = {name: histogram.quantile(quantile) for name, histogram in self.histograms.items()}
        maps = None
        if self.moments is not None:
            path = maps_path(settings.path(method.path))
            maps = write_reference(path, self.moments.standards(self.spacing))
        return CalibrationInfo(
            settings=settings.described(method.own_recipe, tail_of_contrast(method.origin.contrast)),
            anofield=__version__,
            quantile=quantile,
            thresholds=thresholds,
            meaning=meaning(quantile, sum(self.brain_ml) / len(self.brain_ml)),
            kept=kept(score, self.highest, thresholds[score]),
            cases=cases,
            contents=self.contents,
            fit=_percentiles(self.diagnostics),
            options=settings.plain,
            model_hash=method.hash,
            reference=maps,
        )


def kept(score: str, subjects: Sequence[Highest], threshold: float) -> Kept:
    """Measure how reliable a threshold is with this number of subjects.

    The quantile of all voxels together is right on average over many calibrations, but a few subjects hold most of the
    voxels above it. In nine of ten calibrations on 16 phantom subjects, the share above the threshold in ten other
    subjects was 0.4 to 1.9 times the promised share.

    Args:
        score: Name of the score.
        subjects: Highest values of the score, per subject.
        threshold: Threshold of the score.
    """
    shares = np.array([subject.above(threshold) for subject in subjects])
    weights = bootstrap.draw([str(i) for i in range(len(shares))], bootstrap.RESAMPLES, np.random.default_rng(0))
    likely = bootstrap.interval(bootstrap.mean(shares, weights)) if len(shares) > 1 else None
    interval = None if likely is None else (likely[0], likely[1])
    return Kept(score=score, share_above=shares.tolist(), mean=float(shares.mean()), interval=interval)


def meaning(quantile: float, brain_ml: float) -> str:
    """One sentence that says what the threshold promises.

    >>> meaning(0.995, 1200.0)
    'on healthy scans like these, 0.5 % of the brain (6.0 ml of 1200 ml) lies above the threshold'
    """
    share = 1 - quantile
    return (
        f"on healthy scans like these, {100 * share:.3g} % of the brain "
        f"({share * brain_ml:.1f} ml of {brain_ml:.0f} ml) lies above the threshold"
    )


def _only_maps(score: str, reference: Mapping[str, Standard]) -> Calibrated:
    """Reference maps without thresholds."""
    return Calibrated(score=score, thresholds={}, quantile=1.0, meaning="", healthy_fit={}, reference=reference)


def _counts(values: NDArray[np.float32]) -> Counts:
    """Filled bins of the histogram of scores, and their counts."""
    counts = np.bincount(ordered_keys(values) >> np.uint32(DROPPED_BITS))
    filled = np.flatnonzero(counts)
    return filled, counts[filled]


def _percentiles(subjects: Sequence[Mapping[str, float]]) -> dict[str, tuple[float, float, float]]:
    """5th, 50th and 95th percentile of every diagnostic over healthy subjects; empty without fits."""
    names = subjects[0] if subjects else ()
    found = {name: np.percentile([subject[name] for subject in subjects], PERCENTILES) for name in names}
    return {name: (float(low), float(middle), float(high)) for name, (low, middle, high) in found.items()}


def _refuse_changed(outcomes: Sequence[Outcome[str]]) -> None:
    """Raise an error for a scan that could be measured in the first pass but not in the second."""
    for failure in failures_of(outcomes)[:1]:
        raise CohortError(
            f"{failure.id} changed during the calibration: {failure.error}",
            where=failure.image,
            remedy="calibrate again when no other program writes to the scans",
        )
