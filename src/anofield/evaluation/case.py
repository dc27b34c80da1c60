"""The evaluation of one case: first the scores of its voxels, then its detections at the known thresholds."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from anofield._files import is_file
from anofield.curves import top_mean
from anofield.data.brain import brain_mask, brain_voxels
from anofield.data.labels import read_truth
from anofield.data.lattice import bounding_box
from anofield.data.scan import Scan, read_map, read_scan
from anofield.data.volume import volume_hash
from anofield.detect.run_folder import AGAIN, CaseInfo, RunCase, read_case
from anofield.errors import ScanError
from anofield.evaluation.lesions import Components, Match, components, match
from anofield.evaluation.pooled import CaseCounts, VoxelKeys, count_case
from anofield.evaluation.rules import Kind, Rules, Space, Thresholds
from anofield.evaluation.surface import surface_distances
from anofield.typing import FloatVolume, Mask

TOP_SHARE = (
    0.01  # of a scan's voxels; their mean is the scan's score: unlike a maximum, it does not depend on one noisy voxel
)


@dataclass(frozen=True)
class Voxels:
    """The voxels of a case: those inside the evaluated space, and those of them that are labelled.

    Attributes:
        info: Content of `case.json`.
        scan: Geometry of the scan.
        inside: Voxels that count, (i, j, k).
        truth: Labelled voxels among them, (i, j, k).
        outside_ml: Volume labelled outside the space, which no metric sees.
        inputs: Hash of the case's key, scan, mask and label.
    """

    info: CaseInfo
    scan: Scan
    inside: Mask
    truth: Mask
    outside_ml: float
    inputs: str


@dataclass(frozen=True, kw_only=True)
class Scored:
    """Result of the first pass for one case; dicts hold one value per score.

    Attributes:
        id, subject: Case id, and subject of the scan.
        lesion_ml, outside_ml, voxels_ml: Labelled volume inside the space and outside it, and volume of the space.
        detected_ml: Volume of the findings that the run wrote; NaN without a threshold.
        ap, auroc: Exact metrics of the case's own voxels; NaN without lesion.
        top: Mean score of the highest `TOP_SHARE` of the voxels.
        case_score: Case score that the run wrote.
        counts: Coarse counts for the bootstrap.
        inputs: Hash of what the case was read from, which must be the same in the second pass.
        healthy_run: Whether the case belongs to the separate run of healthy subjects.
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
    inputs: str
    healthy_run: bool = False


@dataclass(frozen=True)
class FirstPass:
    """Result of the first pass for one case, with the scores of its voxels.

    Attributes:
        scored: Part of the result that is kept.
        keys: Keys of all voxels per score, pooled and then dropped; empty for the run of healthy subjects.
    """

    scored: Scored
    keys: dict[str, VoxelKeys]


@dataclass(frozen=True)
class Detected:
    """Detection of one case with one score at one threshold.

    Attributes:
        dice: Dice; NaN for a scan without lesion.
        hit, above, labelled: Number of voxels that are above the threshold and labelled, above it, and labelled.
        above_ml: Volume above the threshold, small components included.
        lesions: Lesions and findings; None where lesions are not counted.
        hd95, assd: Surface distances of the findings, mm; NaN if not measured or both masks are empty, infinite if
            one is.
    """

    dice: float
    hit: int
    above: int
    labelled: int
    above_ml: float
    lesions: Match | None
    hd95: float
    assd: float


@dataclass(frozen=True)
class Measured:
    """Result of the second pass for one case.

    Attributes:
        at: Detection per score and kind of threshold.
        froc: Lesions found and false findings at each of the FROC's thresholds, per score.
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


def read_voxels(case: RunCase, space: Space) -> Voxels:
    """Read scan, brain and label of a case; without a label no voxel is anomalous.

    Raises:
        ScanError: The case is not finished or belongs to another run now, its scan or mask is not the one that was
            examined, or a file cannot be used or lies on other voxels.
    """
    info = read_case(case.folder)
    if info is None:
        raise ScanError("is not finished", where=case.folder, remedy=AGAIN)
    if case.identity and info.identity != case.identity:
        raise ScanError("was replaced by another detection meanwhile", where=case.folder, remedy=AGAIN)
    inputs = check_sources(info, case.labels)
    scan = read_scan(info.image)
    mask = None if info.mask is None else Path(info.mask)
    brain = brain_voxels(scan, mask) if space == "all" else brain_mask(scan, mask)
    inside = np.ones(scan.data.shape, bool) if space == "all" else brain
    label = read_truth(case.labels, scan, brain) > 0 if case.labels else np.zeros(scan.data.shape, bool)
    outside_ml = float(np.count_nonzero(label & ~inside)) * scan.voxel_ml
    return Voxels(info, scan, inside, label & inside, outside_ml, inputs)


def check_sources(info: CaseInfo, labels: Sequence[Path]) -> str:
    """Check that scan and mask are those that the detection examined; returns a hash of them, the labels and the key.

    Raises:
        ScanError: The scan or its mask is missing or has changed since the detection.
    """
    hashes = [
        _same(info.image, info.source_hash, "scan"),
        _same(info.mask, info.mask_hash, "brain mask") if info.mask else "",
        *(volume_hash(label) if label.is_file() else "" for label in labels),
        info.key,
    ]
    return hashlib.sha256("\n".join(hashes).encode()).hexdigest()


def _same(path: str, known: str, what: str) -> str:
    """Hash of a file, which must be the known one; an empty known hash is not compared."""
    why = f"the metrics are computed in the voxels of the {what} that was examined"
    if not is_file(path):
        remedy = "put the file back, or detect again where the scans are now"
        raise ScanError(f"the {what} is not there any more", where=path or "(from memory)", why=why, remedy=remedy)
    found = volume_hash(path)
    if known and found != known:
        remedy = "run `anofield detect` again, which examines the changed scan, or put the old file back"
        raise ScanError(f"the {what} has changed since the detection", where=path, why=why, remedy=remedy)
    return found


def read_score(case: RunCase, voxels: Voxels, name: str) -> FloatVolume:
    """One filtered score of a case in the scan's voxels, (i, j, k).

    Raises:
        ScanError: The file is missing, unreadable, holds NaN or has another shape.
    """
    main = name == voxels.info.score
    return read_map(case.image if main else case.folder / f"score-{name}.nii.gz", voxels.scan)


def score_case(
    case: RunCase, *, names: Sequence[str], space: Space, healthy_run: frozenset[str] = frozenset()
) -> FirstPass:
    """First pass: the scores of a case's voxels, and the figures that follow from them alone.

    Args:
        case: The case.
        names: Scores that are read.
        space: Voxels that count.
        healthy_run: Ids of the cases of the run of healthy subjects, whose voxels are not pooled.
    """
    voxels = read_voxels(case, space)
    truth, apart = voxels.truth[voxels.inside], case.id in healthy_run
    maps = {name: read_score(case, voxels, name)[voxels.inside] for name in names}
    keys = {name: VoxelKeys.of(scores, truth) for name, scores in maps.items()}
    curves = {name: voxel_keys.curve() for name, voxel_keys in keys.items()}
    ml, info = voxels.scan.voxel_ml, voxels.info
    scored = Scored(
        id=case.id,
        subject=info.subject.removeprefix("sub-"),
        lesion_ml=float(truth.sum()) * ml,
        outside_ml=voxels.outside_ml,
        voxels_ml=float(len(truth)) * ml,
        detected_ml=float("nan") if info.threshold is None else info.volume_ml,
        ap={name: curve.average_precision() for name, curve in curves.items()},
        auroc={name: curve.roc_auc() for name, curve in curves.items()},
        top={name: top_mean(scores, round(TOP_SHARE * len(scores))) for name, scores in maps.items()},
        case_score=info.case_score,
        counts={name: count_case(scores, truth) for name, scores in maps.items()},
        inputs=voxels.inputs,
        healthy_run=apart,
    )
    return FirstPass(scored, {} if apart else keys)


def measure_case(
    case: RunCase,
    *,
    rules: Rules,
    thresholds: Thresholds,
    froc: Mapping[str, list[float]],
    inputs: Mapping[str, str],
    lesions: bool = True,
) -> Measured:
    """Second pass: the case's detections at every threshold.

    Args:
        case: The case.
        rules: Rules of the evaluation.
        thresholds: Thresholds per score and kind.
        froc: Thresholds of the FROC per score.
        inputs: `Scored.inputs` of every case, by id.
        lesions: Whether lesions and surfaces are measured, or only voxels.

    Raises:
        ScanError: The case, its scan or its label changed since the first pass.
    """
    voxels = read_voxels(case, rules.space)
    if voxels.inputs != inputs[case.id]:
        raise ScanError("the case or its label changed since the first pass", where=case.folder)
    truth = Truth.of(voxels.scan, voxels.inside, voxels.truth, rules, lesions=lesions)
    at: dict[str, dict[Kind, Detected]] = {}
    curves: dict[str, list[tuple[int, int]]] = {}
    for name, values in thresholds.items():
        at[name], curves[name] = truth.measure(read_score(case, voxels, name), values, froc.get(name, []))
    return Measured(at, curves, 0 if truth.lesions is None else len(truth.lesions.volumes_ml))


@dataclass(frozen=True)
class Truth:
    """The truth of one case, cut to the box of the voxels that count; volumes (i, j, k).

    Attributes:
        scan: Geometry of the scan.
        rules: Rules of the evaluation.
        box: Slices of the box.
        inside: Voxels that count.
        labelled: Labelled voxels among them.
        lesions: The lesions; None if lesions and surfaces are not measured.
    """

    scan: Scan
    rules: Rules
    box: tuple[slice, ...]
    inside: Mask
    labelled: Mask
    lesions: Components | None

    @classmethod
    def of(cls, scan: Scan, inside: Mask, labelled: Mask, rules: Rules, *, lesions: bool = True) -> Truth:
        """The truth of a case whose voxels `inside` count and of which some are `labelled`, both (i, j, k)."""
        box = bounding_box(inside) or ()  # components are searched only inside it
        cut = labelled[box]
        known = components(cut, scan.voxel_ml, rules.min_lesion_ml) if lesions else None
        return cls(scan, rules, box, inside[box], cut, known)

    def measure(
        self, scores: FloatVolume, thresholds: Mapping[Kind, float], froc: Sequence[float]
    ) -> tuple[dict[Kind, Detected], list[tuple[int, int]]]:
        """Detections at some thresholds, and (lesions found, false findings) at those of the FROC.

        Args:
            scores: One score in the voxels of the whole scan, (i, j, k).
            thresholds: Threshold of every kind.
            froc: Thresholds of the FROC; without effect if lesions are not measured.
        """
        cut, known, ml = scores[self.box], self.lesions, self.scan.voxel_ml
        at = {
            kind: _detect((cut > value) & self.inside, self.labelled, known, self.scan, self._rules_at(kind))
            for kind, value in thresholds.items()
        }
        masks = ((cut > value) & self.inside for value in froc)
        matches = [_match(mask, self.labelled, known, ml, self.rules) for mask in masks] if known is not None else []
        return at, [(int(found.found.sum()), found.false) for found in matches]

    def _rules_at(self, kind: Kind) -> Rules:
        """Rules without surface distances at the oracle threshold: they take longest and are not reported there."""
        return replace(self.rules, surface=False) if kind == "oracle" else self.rules


def _match(above: Mask, truth: Mask, known: Components, voxel_ml: float, rules: Rules) -> Match:
    return match(truth, known, components(above, voxel_ml, rules.min_lesion_ml), rules.overlap)


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
