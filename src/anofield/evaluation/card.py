"""The metric card: every figure of a run with its interval, computed from the results of the cases."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from anofield import bootstrap
from anofield.bootstrap import Samples
from anofield.evaluation.bands import curve_bands
from anofield.evaluation.evidence import Evidence
from anofield.evaluation.lesions import Match, size_bin, size_names
from anofield.evaluation.metrics import Sampled, figures, froc_samples, rests_on
from anofield.evaluation.options import Options
from anofield.evaluation.parts import (
    Band,
    BySize,
    Difference,
    Figure,
    FrocPoint,
    Healthy,
    HealthyCase,
    SizeRow,
    SurfaceCounts,
)
from anofield.evaluation.rules import Kind

HIGHER_IS_WORSE = ("fpr95", "hd95", "assd", "false_per_scan", "healthy_ml")


@dataclass(frozen=True, kw_only=True)
class Card:
    """The part of the results with intervals, lesions, surfaces and healthy scans."""

    card: dict[str, dict[str, Figure]]
    margins: dict[str, dict[str, Difference]]
    by_size: BySize
    froc: dict[str, list[FrocPoint]]
    bands: dict[str, dict[str, Band]]
    surface: dict[str, dict[Kind, SurfaceCounts]]
    healthy: Healthy


def make_card(evidence: Evidence, options: Options, quantile: float | None) -> Card:
    """The card of a run.

    Args:
        evidence: Evidence of the run.
        options: Options with the resamples and their seed.
        quantile: Share of the healthy brain that the calibration promised below the threshold.
    """
    weights = evidence.draw(options.resamples, options.seed)
    found = {name: figures(evidence, name, weights) for name in evidence.names}
    return Card(
        card={name: _with_intervals(sampled) for name, sampled in found.items()},
        margins=_margins(evidence, found),
        by_size=_by_size(evidence, evidence.score),
        froc={name: _froc_points(evidence, name) for name in evidence.froc},
        bands={name: curve_bands(evidence, name, weights) for name in evidence.names},
        surface={name: _surface(evidence, name) for name in evidence.names},
        healthy=_healthy(evidence, quantile),
    )


def differences(one: Sampled, other: Sampled, subjects: Mapping[str, int]) -> dict[str, Difference]:
    """Difference first − second of every metric that both have, over the same resamples.

    Args:
        one, other: Results of `figures`.
        subjects: Number of subjects behind every metric.
    """
    common = [key for key in one.values if key in other.values]
    return {
        key: _difference(key, one.values[key] - other.values[key], one.samples[key] - other.samples[key], subjects[key])
        for key in common
    }


def _difference(key: str, value: float, samples: Samples, subjects: int) -> Difference:
    p = bootstrap.sign_share(samples, subjects)
    ci, resamples = bootstrap.interval(samples), bootstrap.defined(samples)
    return Difference(value=value, ci=ci, resamples=resamples, p=p, higher_is_worse=key.startswith(HIGHER_IS_WORSE))


def _with_intervals(sampled: Sampled) -> dict[str, Figure]:
    return {
        key: Figure(
            value=value, ci=bootstrap.interval(sampled.samples[key]), resamples=bootstrap.defined(sampled.samples[key])
        )
        for key, value in sampled.values.items()
    }


def _margins(evidence: Evidence, found: Mapping[str, Sampled]) -> dict[str, dict[str, Difference]]:
    """The main score minus every baseline, paired by subject."""
    own = found[evidence.score]
    rivals = [name for name in evidence.baselines if name in found and name != evidence.score]
    subjects = {key: rests_on(evidence, evidence.score, key) for key in own.values}
    return {name: differences(own, found[name], subjects) for name in rivals}


def _by_size(evidence: Evidence, name: str) -> BySize:
    """Lesions by volume, at the first known threshold."""
    kinds = evidence.kinds(name)
    if not kinds:
        return BySize(threshold=None, rows=[])
    matches = [m.at[name][kinds[0]].lesions for m in evidence.own]
    known = [match for match in matches if match is not None]
    volumes, found, covered = (_joined(known, key) for key in ("volumes_ml", "found", "covered"))
    classes = size_bin(volumes)
    rows = [_size_row(size, found[classes == n], covered[classes == n]) for n, size in enumerate(size_names())]
    return BySize(threshold=kinds[0], rows=rows)


def _joined(matches: list[Match], key: str) -> NDArray[np.float64]:
    return np.concatenate([getattr(match, key) for match in matches] or [np.zeros(0)])


def _size_row(size: str, found: NDArray[np.float64], covered: NDArray[np.float64]) -> SizeRow:
    n = len(found)
    recall, share = (float(values.mean()) if n else float("nan") for values in (found, covered))
    return SizeRow(size=size, lesions=n, found=int(found.sum()), recall=recall, covered=share)


def _froc_points(evidence: Evidence, name: str) -> list[FrocPoint]:
    """Lesion recall against false findings per scan, one point per threshold."""
    recall, false = froc_samples(evidence, name, np.ones((1, len(evidence.scored))))
    return [
        FrocPoint(threshold=threshold, recall=float(r), false_per_scan=float(f))
        for threshold, r, f in zip(evidence.froc.get(name, []), recall[0], false[0], strict=True)
    ]


def _surface(evidence: Evidence, name: str) -> dict[Kind, SurfaceCounts]:
    """Scans whose surfaces could be compared, per threshold that was chosen without the test labels."""
    if not evidence.rules.surface:
        return {}
    columns = {kind: evidence.column(name, kind, "hd95") for kind in evidence.kinds(name) if kind != "oracle"}
    return {
        kind: SurfaceCounts(measured=int(np.isfinite(far).sum()), nothing_found=int(np.isinf(far).sum()))
        for kind, far in columns.items()
    }


def _healthy(evidence: Evidence, quantile: float | None) -> Healthy:
    """False positives of the main score on scans without lesion, compared with the promise of the calibration."""
    chosen = np.flatnonzero(evidence.healthy)
    if not chosen.size or "calibrated" not in evidence.thresholds[evidence.score]:
        return Healthy(scans=int(chosen.size))
    found = [evidence.measured[i].at[evidence.score]["calibrated"] for i in chosen]
    volumes = np.array([one.above_ml for one in found])
    sizes = np.array([evidence.scored[i].voxels_ml for i in chosen])
    promised = float("nan") if quantile is None else 1 - quantile
    ids = [evidence.scored[i].id for i in chosen]
    return Healthy(
        scans=int(chosen.size),
        above_ml_mean=float(volumes.mean()),
        above_ml_median=float(np.median(volumes)),
        above_ml_max=float(volumes.max()),
        above_share=float(volumes.sum() / sizes.sum()),
        promised_share=promised,
        promised_ml_mean=float(promised * sizes.mean()),
        scans_without_finding=sum(one.lesions is not None and one.lesions.findings == 0 for one in found),
        cases=[HealthyCase(id=name, above_ml=float(volume)) for name, volume in zip(ids, volumes, strict=True)],
    )
