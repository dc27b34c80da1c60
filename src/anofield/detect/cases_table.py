"""`cases.tsv` of a run: one line per finished case, with its findings and whether it can be trusted."""

from __future__ import annotations

import csv
import io
from collections.abc import Iterable
from pathlib import Path

from anofield._files import write_text
from anofield.detect.run_folder import CaseInfo

CASES_FILE = "cases.tsv"
COLUMNS = ("id", "volume_ml", "findings", "case_score", "trusted", "reasons", "seen")
TRUST = {True: "yes", False: "no", None: "not judged"}


def write_cases(run: Path, cases: Iterable[CaseInfo]) -> None:
    """Write `cases.tsv`; a cell with a tab, a quote or a line break is quoted.

    Args:
        run: Folder of the run.
        cases: Its finished cases.
    """
    text = io.StringIO()
    table = csv.writer(text, dialect="excel-tab", lineterminator="\n")
    table.writerow(COLUMNS)
    table.writerows(_row(case) for case in cases)
    write_text(run / CASES_FILE, text.getvalue())


def _row(case: CaseInfo) -> tuple[str, ...]:
    """Cells of a case; volume and number of findings are empty without a threshold."""
    found = ("", "") if case.threshold is None else (f"{case.volume_ml:.3f}", str(case.lesions))
    seen = "" if case.seen is None else str(case.seen)
    return (case.id, *found, f"{case.case_score:.6g}", TRUST[case.trusted], "; ".join(case.reasons), seen)
