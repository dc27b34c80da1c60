"""Cases of a report: the facts of each case, its pictures, and the volumes of its interactive view."""

from __future__ import annotations

from dataclasses import dataclass
from statistics import median

from anofield.detect.run_folder import Finding
from anofield.evaluation.parts import CaseRow
from anofield.reports.figures import Row, Scale, draw
from anofield.reports.folder import ReportCase, Run
from anofield.reports.numerals import DASH, decimal, finite, ml, number
from anofield.reports.planes import CaseView, view_case
from anofield.reports.viewer import Viewer

PICTURES = 540_000  # largest number of characters of a case's pictures
FINDING_ROWS = 8
OUTLIER = 3.5  # modified z-score, Iglewicz & Hoaglin 1993
FEWEST_FITS = 5  # fewest fits for a comparison with an unusual one
FINDING_COLUMNS = ("Finding", "Volume, ml", "Peak", "Mean", "x, mm", "y, mm", "z, mm")
FIT_WORDS = {"loss": "Fit loss", "code_distance": "Code distance", "contrast": "Contrast", "outside": "Share outside"}


@dataclass(frozen=True, kw_only=True)
class CaseFacts:
    """Facts about a case that do not need its images; None where a fact is unknown.

    Attributes:
        id: Case id.
        place: Position of the case in the report, from 0.
        truth_ml, detected_ml: Volume of the truth and of the findings.
        dice, ap: Metrics of the main score.
        rivals: Dice of every baseline.
        findings: Number of findings; None without a threshold.
        lesions_found: Lesions that were found, as `2 of 3`; empty if not counted.
        false: Findings that touch no labelled voxel.
        voxel_precision: Share of the voxels above the threshold that are labelled.
        seconds: Time that the case took.
        fit: Diagnostics of the fit, as (words, value).
        trusted, reasons: Whether the fit is trusted, and the reasons against it.
        case_score: Score of the whole scan.
        unusual: Whether the fit loss is far above that of the other cases.
        brain_ml: Volume of the brain.
        shape: Voxels of the scan.
        file: Name of the scan's file.
        link: Address of the case's card; None without one.
    """

    id: str
    place: int
    truth_ml: float | None
    detected_ml: float | None
    dice: float | None
    ap: float | None
    rivals: list[tuple[str, float | None]]
    findings: int | None
    lesions_found: str
    false: int | None
    voxel_precision: float | None
    seconds: float | None
    fit: list[tuple[str, float]]
    trusted: bool | None
    reasons: list[str]
    case_score: float
    unusual: bool
    brain_ml: float
    shape: str
    file: str
    link: str | None = None


@dataclass(frozen=True)
class CaseCard:
    """The card of a case.

    Attributes:
        facts: Facts that do not need the images.
        truth_ml: Volume of the truth, from the results, or else from its image.
        planes: Pictures, a row per plane.
        findings: Cells of the largest findings.
        more: Number of further findings.
        view: Planes and volumes from the images.
    """

    facts: CaseFacts
    truth_ml: float | None
    planes: list[Row]
    findings: list[list[str]]
    more: int
    view: CaseView

    @property
    def viewer(self) -> Viewer | None:
        """Volumes of the interactive view."""
        return self.view.viewer

    @property
    def at(self) -> str:
        """World position where the planes cross, for the interactive view."""
        return " ".join(f"{mm:.1f}" for mm in self.view.at)


def draw_card(run: Run, place: int, scale: Scale) -> CaseCard:
    """The card of a case with its pictures.

    Args:
        run: Run from `read_report_run`.
        place: Position of the case in the run, from 0.
        scale: Scale of the colours, the same for every case.
    """
    case = run.cases[place]
    view = view_case(case, run.threshold)
    planes = draw(view, scale, PICTURES)
    if view.planes and not planes:
        view.notes.append("The pictures of this case were left out to keep the file small.")
    if not view.planes:
        view.notes.append("This case has no image that can be shown.")
    facts = facts_of(run, case, place)
    shown = case.info.findings[:FINDING_ROWS]
    return CaseCard(
        facts=facts,
        truth_ml=view.truth_ml if facts.truth_ml is None else facts.truth_ml,
        planes=planes,
        findings=[_cells(rank, finding) for rank, finding in enumerate(shown, start=1)],
        more=case.info.lesions - len(shown),
        view=view,
    )


def facts_of(run: Run, case: ReportCase, place: int, link: str | None = None) -> CaseFacts:
    """Facts about a case that do not need its images."""
    info, fit = case.info, case.fit
    measured = _measured(run, case.id)
    counts = measured.lesions if measured else None
    return CaseFacts(
        id=case.id,
        place=place,
        truth_ml=measured.lesion_ml if measured else None,
        detected_ml=None if info.threshold is None else info.volume_ml,
        dice=measured.dice.get(run.score) if measured else None,
        ap=measured.ap.get(run.score) if measured else None,
        rivals=_rivals(run, measured),
        findings=None if info.threshold is None else info.lesions,
        lesions_found=f"{counts.found} of {counts.true}" if counts else "",
        false=counts.false if counts else None,
        voxel_precision=counts.voxel_precision if counts else None,
        seconds=sum(info.seconds.values()) if info.seconds else None,
        fit=[
            (words, value) for key, words in FIT_WORDS.items() if (value := finite(getattr(fit, key, None))) is not None
        ],
        trusted=fit.trusted if fit else None,
        reasons=fit.reasons if fit else [],
        case_score=info.case_score,
        unusual=_unusual(run, case),
        brain_ml=info.brain_ml,
        shape=" × ".join(map(str, info.shape)),
        file=case.scan.name if case.scan else DASH,
        link=link,
    )


def _measured(run: Run, case_id: str) -> CaseRow | None:
    rows = run.results.rows if run.results else []
    return next((row for row in rows if row.id == case_id), None)


def _rivals(run: Run, measured: CaseRow | None) -> list[tuple[str, float | None]]:
    """Dice of every baseline, for a case that was evaluated."""
    if measured is None or run.results is None:
        return []
    return [(name, measured.dice.get(name)) for name in run.results.baselines]


def _unusual(run: Run, case: ReportCase) -> bool:
    """Whether a case's fit loss is far above the others of the run; such a fit should not be trusted."""
    losses = [other.fit.loss for other in run.cases if other.fit is not None]
    if case.fit is None or len(losses) < FEWEST_FITS:
        return False
    middle = median(losses)
    spread = median(abs(loss - middle) for loss in losses)
    return spread > 0 and 0.6745 * (case.fit.loss - middle) / spread > OUTLIER


def _cells(rank: int, finding: Finding) -> list[str]:
    """The cells of a finding, in the order of `FINDING_COLUMNS`."""
    place = [decimal(mm, 0) for mm in finding.center_mm]
    return [str(rank), ml(finding.volume_ml), number(finding.peak), number(finding.mean), *place]
