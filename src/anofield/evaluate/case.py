"""What one case contributes: its voxels' scores first, then its detections once the thresholds are known."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal

import numpy as np

from anofield.curves import exact_curve
from anofield.data.cohort.case import Case
from anofield.data.scan import Scan, brain_mask, read_labels, read_map, read_scan
from anofield.detect.run_folder import read_case
from anofield.errors import ScanError
from anofield.evaluate.lesions import OVERLAP, Components, Match, components, match
from anofield.evaluate.pooled import CaseCounts, PooledScores, count_case
from anofield.evaluate.surface import surface_distances
from anofield.typing import FloatVolume, Json, Mask

Space = Literal["brain", "all"]
Kind = Literal["calibrated", "validation", "oracle"]  # where a threshold comes from
KINDS: tuple[Kind, ...] = ("calibrated", "validation", "oracle")
TOP_SHARE = (
    0.01  # of a scan's voxels; their mean score is the scan's: one noisy voxel cannot decide, as a maximum would
)


@dataclass(frozen=True)
class Rules:
    """What counts.

    Attributes:
        space: Voxels inside the brain, or all voxels of the scan's grid.
        min_lesion_ml: Smaller components are neither lesions nor findings.
        overlap: Share of a lesion that must be covered for it to be found.
        surface: Whether surface distances are measured.
    """

    space: Space = "brain"
    min_lesion_ml: float = 0.1
    overlap: float = OVERLAP
    surface: bool = True


@dataclass(frozen=True)
class Voxels:
    """A case as read from its files: what is inside the space, and which of it is labelled.

    Attributes:
        about: Content of `case.json`.
        scan: Its geometry.
        inside: Voxels that count, (i, j, k).
        truth: Labelled ones among them, (i, j, k).
        outside_ml: Volume labelled outside the space, which no metric sees.
    """

    about: Json
    scan: Scan
    inside: Mask
    truth: Mask
    outside_ml: float


@dataclass(frozen=True)
class Scored:
    """What the first pass keeps of one case, per score where it is a dict.

    Attributes:
        id, subject: The case.
        lesion_ml, outside_ml, voxels_ml: Volume labelled inside the space, labelled outside it, and of the space.
        detected_ml: Volume of the detection that the run wrote; NaN without a threshold.
        ap, auroc: Of the case's own voxels, exact; NaN for a person without lesion.
        top: Mean score of the highest `TOP_SHARE` of the voxels.
        case_score: What the run itself calls the scan's score; NaN if it does not.
        counts: Coarse counts for the bootstrap.
        healthy_run: Whether it comes from the run of healthy people given beside.
    """

    id: str
    subject: str
    lesion_ml: float
    outside_ml: float
    voxels_ml: float
    detected_ml: float
    ap: dict[str, float]
    auroc: dict[str, float]
    top: dict[str, float]
    case_score: float
    counts: dict[str, CaseCounts]
    healthy_run: bool = False


@dataclass(frozen=True)
class Detected:
    """One case, one score, one threshold.

    Attributes:
        dice: NaN for a person without lesion.
        hit, above, labelled: Voxels above the threshold and labelled, above, labelled.
        above_ml: Volume above the threshold, small components included.
        lesions: None where lesions are not counted.
        hd95, assd: Of the findings, mm; NaN if not measured or both masks are empty, infinite if one is.
    """

    dice: float
    hit: int
    above: int
    labelled: int
    above_ml: float
    lesions: Match | None
    hd95: float
    assd: float


Thresholds = dict[str, dict[Kind, float]]  # per score, only known ones


@dataclass(frozen=True)
class Measured:
    """What the second pass keeps of one case.

    Attributes:
        at: Per score and kind of threshold.
        froc: Per score, lesions found and false findings at each of the FROC's thresholds.
        n_lesions: Number of lesions.
    """

    at: dict[str, dict[Kind, Detected]]
    froc: dict[str, list[tuple[int, int]]]
    n_lesions: int


def dice(a: Mask, b: Mask) -> float:
    """2 |a ∩ b| / (|a| + |b|); NaN if both are empty.

    >>> dice(np.array([True, True, False]), np.array([True, False, False]))
    0.6666666666666666
    """
    total = int(a.sum()) + int(b.sum())
    return 2.0 * int((a & b).sum()) / total if total else float("nan")


def read_voxels(case: Case, space: Space) -> Voxels:
    """Read scan, brain and label of a case whose `image` is its folder in a run; without a label nobody is ill.

    Raises:
        ScanError: The case is not finished, or a file cannot be used or lies on other voxels.
    """
    about = read_case(case.image)
    if about is None:
        raise ScanError("is not finished", where=case.image, remedy="run `anofield detect` again")
    scan = read_scan(about["image"])
    inside = np.ones(scan.data.shape, bool) if space == "all" else brain_mask(scan, about["mask"])
    label = np.zeros(scan.data.shape, bool) if case.label is None else read_labels(case.label, scan) > 0
    outside_ml = float(np.count_nonzero(label & ~inside)) * scan.voxel_ml
    return Voxels(about, scan, inside, label & inside, outside_ml)


def read_score(case: Case, voxels: Voxels, name: str) -> FloatVolume:
    """One filtered score of a case in the scan's voxels, (i, j, k).

    Raises:
        ScanError: The file is missing, unreadable, holds NaN or has another shape.
    """
    main = name == voxels.about["score"]
    path = case.image / ("anomaly.nii.gz" if main else f"score-{name}.nii.gz")
    return read_map(path, voxels.scan)


def score_case(
    case: Case, *, space: Space, pooled: Mapping[str, PooledScores], healthy_run: frozenset[str] = frozenset()
) -> Scored:
    """First pass; the case is added to `pooled` only once all of its files could be read.

    Args:
        case: `image` is its folder in the run.
        space: Which voxels count.
        pooled: Per score; not touched by cases of the run of healthy people.
        healthy_run: Folders of that run's cases.
    """
    voxels = read_voxels(case, space)
    truth, apart = voxels.truth[voxels.inside], str(case.image) in healthy_run
    maps = {name: read_score(case, voxels, name)[voxels.inside] for name in pooled}
    curves = {name: exact_curve(scores, truth) for name, scores in maps.items()}
    if not apart:
        for name, scores in maps.items():
            pooled[name].add(scores, truth)
    ml = voxels.scan.voxel_ml
    score = voxels.about.get("case_score")
    return Scored(
        id=case.id,
        subject=voxels.about["subject"].removeprefix("sub-"),
        lesion_ml=float(truth.sum()) * ml,
        outside_ml=voxels.outside_ml,
        voxels_ml=float(len(truth)) * ml,
        detected_ml=voxels.about["volume_ml"] if voxels.about["threshold"] is not None else float("nan"),
        ap={name: curve.average_precision() for name, curve in curves.items()},
        auroc={name: curve.roc_auc() for name, curve in curves.items()},
        top={name: top_mean(scores) for name, scores in maps.items()},
        case_score=float(score) if isinstance(score, int | float) else float("nan"),
        counts={name: count_case(scores, truth) for name, scores in maps.items()},
        healthy_run=apart,
    )


def top_mean(scores: FloatVolume) -> float:
    """Mean of the highest `TOP_SHARE` of the scores (n,).

    >>> top_mean(np.arange(200, dtype=np.float32))
    198.5
    """
    count = max(1, round(TOP_SHARE * len(scores)))
    return float(np.partition(scores, len(scores) - count)[-count:].mean(dtype=np.float64))


def measure_case(
    case: Case, *, rules: Rules, thresholds: Thresholds, froc: Mapping[str, list[float]], lesions: bool = True
) -> Measured:
    """Second pass: the case's detections at every threshold.

    Args:
        case: `image` is its folder in the run.
        rules: What counts.
        thresholds: Per score and kind.
        froc: Per score, thresholds of the FROC.
        lesions: Whether lesions and surfaces are measured, or only voxels.
    """
    voxels = read_voxels(case, rules.space)
    box = _box(voxels.inside)
    truth, inside = voxels.truth[box], voxels.inside[box]
    ml = voxels.scan.voxel_ml
    known = components(truth, ml, rules.min_lesion_ml) if lesions else None
    at: dict[str, dict[Kind, Detected]] = {}
    curves: dict[str, list[tuple[int, int]]] = {}
    for name, values in thresholds.items():
        scores = read_score(case, voxels, name)[box]
        at[name] = {
            kind: _detect((scores > value) & inside, truth, known, voxels.scan, _without_surface(rules, kind))
            for kind, value in values.items()
        }
        matches = [
            match(truth, known, components((scores > value) & inside, ml, rules.min_lesion_ml), rules.overlap)
            for value in froc.get(name, [])
            if known is not None
        ]
        curves[name] = [(int(found.found.sum()), found.false) for found in matches]
    return Measured(at, curves, 0 if known is None else len(known.volumes_ml))


def _without_surface(rules: Rules, kind: Kind) -> Rules:
    """Surfaces take longest, and at the oracle threshold nobody should look at them."""
    return replace(rules, surface=False) if kind == "oracle" else rules


def _detect(above: Mask, truth: Mask, known: Components | None, scan: Scan, rules: Rules) -> Detected:
    hit, n_above, labelled = (int(np.count_nonzero(mask)) for mask in (above & truth, above, truth))
    outcome, far = None, (float("nan"), float("nan"))
    if known is not None:
        findings = components(above, scan.voxel_ml, rules.min_lesion_ml)
        outcome = match(truth, known, findings, rules.overlap)
        if rules.surface and labelled:
            far = surface_distances(findings.labels > 0, truth, scan.spacing)
    score = 2.0 * hit / (n_above + labelled) if labelled else float("nan")
    return Detected(score, hit, n_above, labelled, n_above * scan.voxel_ml, outcome, *far)


def _box(mask: Mask) -> tuple[slice, ...]:
    """Smallest box around the voxels that count, for the components' sake."""
    filled = (np.flatnonzero(mask.any(axis=tuple(a for a in range(3) if a != axis))) for axis in range(3))
    return tuple(slice(int(at[0]), int(at[-1]) + 1) for at in filled)


def case_of(run: Path, case_id: str, label: Path | None) -> Case:
    """A case of a run, as the passes want it."""
    return Case(case_id, run / case_id, label=label)
