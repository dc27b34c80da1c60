"""Healthy reference of a model: thresholds as quantiles of each score over the brain voxels of healthy scans."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from anofield import __version__, bootstrap
from anofield._files import write_json
from anofield.curves import ScoreHistogram
from anofield.data.cohort.case import Case
from anofield.data.parallel import Outcome, failures_of, map_cases
from anofield.data.scan import read_labels
from anofield.detect.calibration import calibration_path, changes, maps_path
from anofield.detect.detection import Examined, examine_with, native_map
from anofield.detect.fit import Fit
from anofield.detect.intensity import BASELINES
from anofield.detect.method import RunOptions, Scorer
from anofield.detect.reference import Moments, Standard, write_reference
from anofield.detect.run import DetectOptions
from anofield.detect.scores import SCORES
from anofield.detect.thresholds import calibrated_settings
from anofield.detect.trust import PERCENTILES, diagnostics
from anofield.errors import CohortError, ScanError, UsageError
from anofield.field.experiment import Experiment
from anofield.field.model import Model, read_recipe
from anofield.typing import Json

HIGHEST = 20.0  # times the promised share: so many voxels of each person are kept, a fiftieth of a brain by default
NAMED = 3  # failures in the message where every scan failed
QUANTILE = 0.999  # 1.3 ml of a brain of 1.3 litres; better Dice on the phantom than 0.998


def calibrate(
    cases: Sequence[Case], model: Model | Scorer, options: RunOptions, *, quantile: float = QUANTILE
) -> tuple[Json, list[Outcome[Any]]]:
    """Measure every score on healthy scans and store their quantiles with the experiment.

    A calibration with the same settings is replaced, others stay: see `anofield.detect.calibration`.

    Args:
        cases: Healthy people that the model was not trained on.
        model: From `load_model`.
        options: Fit and filter options that the thresholds will hold for.
        quantile: Share of healthy brain voxels at or below the threshold.

    Returns:
        Content of the file, and the outcome of every case.

    Raises:
        UsageError: The quantile is not between 0 and 1, or a case is a training case.
        CohortError: No case could be used.
    """
    if not 0 < quantile < 1:
        raise UsageError(f"quantile {quantile}", remedy="give a number between 0 and 1, for example 0.995")
    _refuse_training_cases(cases, model)
    every = {"also": (*SCORES, *BASELINES)} if isinstance(model, Model) else {}  # they cost next to nothing
    healthy = _Healthy(model, options.model_copy(update=every), quantile)
    outcomes = list(map_cases(healthy.first, cases, label="calibrate"))
    used = [outcome.case for outcome in outcomes if outcome.failure is None]
    if not used:
        failed = "; ".join(f"{one.id}: {one.error}" for one in failures_of(outcomes)[:NAMED])
        raise CohortError(
            f"none of {len(cases)} healthy scans could be used",
            why=failed,
            remedy="mend them; `anofield check -i SCANS` looks at all of them",
        )
    thresholds = healthy.thresholds(used)
    settings = calibrated_settings(options, model)
    path = calibration_path(model.path, settings)
    content = {
        "settings": described(settings, _own_recipe(model)),
        "anofield": __version__,
        "quantile": quantile,
        "thresholds": thresholds,
        "meaning": meaning(quantile, healthy.brain_ml / len(used)),
        "kept": {"score": options.score, **kept(healthy.highest, thresholds[options.score])},
        "cases": [case.id for case in used],
        "fit": _percentiles(list(healthy.diagnostics.values())),
        "options": settings,
        "model_hash": model.hash,
        **healthy.write_reference(maps_path(path)),
    }
    write_json(path, content)
    return content, outcomes


@dataclass(frozen=True)
class Highest:
    """The highest scores of one person's brain, (n,), and its voxels: enough for the share above a value."""

    values: NDArray[np.float32]
    voxels: int

    @classmethod
    def of(cls, values: NDArray[np.float32], share: float) -> Highest:
        """The highest `share` of some scores."""
        count = min(max(1, math.ceil(share * len(values))), len(values))
        return cls(np.partition(values, -count)[-count:], len(values))

    def above(self, threshold: float) -> float:
        """Share of the brain above a threshold; a lower bound where all that was kept lies above it."""
        return float((self.values > threshold).sum()) / self.voxels


def kept(people: Sequence[Highest], threshold: float) -> Json:
    """How far the promise can be trusted with this many people.

    The quantile of all voxels together is right on average over calibrations, but a few people hold most of what lies
    above it: with 16 people, nine in ten calibrations of the phantom kept, on ten others, 0.4 to 1.9 times the promise.

    Args:
        people: Of the calibration.
        threshold: Of their score.

    Returns:
        `share_above` of every person, their `mean`, and the 95 % interval of the mean over new people (`interval`;
        bootstrap over people, None for one person alone).
    """
    shares = np.array([person.above(threshold) for person in people])
    weights = bootstrap.draw([str(i) for i in range(len(shares))], bootstrap.RESAMPLES, np.random.default_rng(0))
    likely = bootstrap.interval(bootstrap.mean(shares, weights)) if len(shares) > 1 else None
    return {"share_above": shares.tolist(), "mean": float(shares.mean()), "interval": likely}


class _Healthy:
    """Passes over healthy scans; fits are kept, volumes are made anew in every pass, so that memory stays that of one.

    Without reference maps one pass is enough; with them a second measures every person by the maps of the others.
    """

    def __init__(self, model: Model | Scorer, options: RunOptions, quantile: float) -> None:
        self.model, self.options, self.quantile = model, options, quantile
        self.fits: dict[str, Fit] = {}
        self.diagnostics: dict[str, dict[str, float]] = {}
        self.brain_ml = 0.0
        self.histograms = {name: ScoreHistogram() for name in options.names}
        self.highest: list[Highest] = []
        self.moments: Moments | None = None
        self.spacing = 1.0

    def first(self, case: Case) -> str:
        """Fit, and count the scores or add them to the moments."""
        examined = self._examine(case)
        prepared = examined.prepared
        if case.label is not None and (read_labels(case.label, prepared.scan) > 0).any():
            raise ScanError(
                "has a lesion label",
                where=case.label,
                why="a threshold must come from healthy people",
                remedy="calibrate on people without lesions",
            )
        brain_ml = float(prepared.native_brain.sum()) * prepared.scan.voxel_ml
        if examined.fit is not None:
            self.fits[case.id], self.diagnostics[case.id] = examined.fit, diagnostics(examined.fit, brain_ml)
        self.brain_ml += brain_ml
        if not self.options.filters.standardise:
            self._count(examined, {})
            return case.id
        self.spacing = float(prepared.lattice.spacing.mean())
        self.moments = self.moments or Moments(self.options.names, prepared.lattice.resolution)
        self.moments.add(examined.values, prepared, examined.pose)
        return case.id

    def thresholds(self, cases: Sequence[Case]) -> dict[str, float]:
        """Quantile of every score's final map."""
        if self.options.filters.standardise:
            for examined, others in self._again(cases):
                self._count(examined, others)
        return {name: histogram.quantile(self.quantile) for name, histogram in self.histograms.items()}

    def write_reference(self, path: Path) -> Json:
        """Write the maps of all people; what the calibration says of them."""
        if self.moments is None:
            return {}
        return {"reference": write_reference(path, self.moments.standards(self.spacing))}

    def _examine(self, case: Case) -> Examined:
        return examine_with(self.model, case, self.options, self.fits.get(case.id))

    def _again(self, cases: Sequence[Case]) -> Iterator[tuple[Examined, dict[str, Standard]]]:
        """Every scan with its fit, and the reference maps of the others."""
        for case in cases:
            examined = self._examine(case)
            moments = self.moments or Moments(self.options.names, examined.prepared.lattice.resolution)
            yield examined, moments.without(examined.values, examined.prepared, examined.pose)

    def _count(self, examined: Examined, reference: Mapping[str, Standard]) -> None:
        """Count every score's final map of one person."""
        for name, histogram in self.histograms.items():
            final = native_map(examined, name, self.options.filters, reference)
            values = final[examined.prepared.native_brain]
            histogram.add(values)
            if name == self.options.score:
                self.highest.append(Highest.of(values, HIGHEST * (1 - self.quantile)))


def meaning(quantile: float, brain_ml: float) -> str:
    """What the threshold promises, in a sentence.

    >>> meaning(0.995, 1200.0)
    'on healthy scans like these, 0.5 % of the brain (6.0 ml of 1200 ml) lies above the threshold'
    """
    share = 1 - quantile
    return (
        f"on healthy scans like these, {100 * share:.3g} % of the brain "
        f"({share * brain_ml:.1f} ml of {brain_ml:.0f} ml) lies above the threshold"
    )


def described(settings: Json, recipe: str) -> str:
    """The nearest preset of `anofield detect`, and in what these calibrated settings differ from it.

    Args:
        settings: From `calibrated_settings`.
        recipe: Name of the model's own one, which goes without saying.

    >>> options = DetectOptions.model_validate({"filters": {"tail": "both"}})
    >>> described({**options.settings, "recipe": {"recipe": "box"}}, "box")
    'default, tail both'
    """
    kinds = {
        "default": DetectOptions(),
        "small-lesions": DetectOptions.small_lesions(),
        "ifl2021": DetectOptions.published(),
    }
    differing = {
        name: changes({**kind.settings, "recipe": {"recipe": recipe}}, settings) for name, kind in kinds.items()
    }
    nearest = min(differing, key=lambda name: len(differing[name]))
    return ", ".join([nearest, *(f"{name} {value}" for name, _, value in differing[nearest])])


def _own_recipe(model: Model | Scorer) -> str:
    """Name of the recipe that the model was trained with, which `--recipe` may have put another in place of."""
    return read_recipe(model.path).name if isinstance(model, Model) else model.recipe.name


def _percentiles(fits: Sequence[Mapping[str, float]]) -> Json:
    """5th, 50th and 95th percentile of every diagnostic of the fit over healthy scans; empty without fits."""
    names = fits[0] if fits else ()
    return {name: np.percentile([fit[name] for fit in fits], PERCENTILES).tolist() for name in names}


def _refuse_training_cases(cases: Sequence[Case], model: Model | Scorer) -> None:
    known = set(Experiment(model.path).load().code_ids if isinstance(model, Model) else model.training_ids)
    shared = sorted(known & {case.id for case in cases})
    if shared:
        raise UsageError(
            f"{len(shared)} of the healthy scans were trained on ({', '.join(shared[:3])})",
            why="the model knows them by heart, so the threshold would be too low",
            remedy="calibrate on healthy people that were held out",
        )
