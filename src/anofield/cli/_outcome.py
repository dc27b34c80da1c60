"""What `detect` and `baseline NAME detect` print about a run, and how they end."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from anofield._words import counted
from anofield.cli._options import finish
from anofield.cli._tables import table

if TYPE_CHECKING:
    from anofield.detect.run import Run
    from anofield.detect.run_folder import CaseInfo

Strict = Annotated[bool, typer.Option("--strict", help="End with exit code 3 if a scan is not trusted.")]


def end_run(run: Run, folder: Path, *, strict: bool, as_json: bool) -> None:
    """Print a run, name its failures, and end with 0, 3 (some failed, or with `strict` some are not trusted) or 4.

    Args:
        run: The run.
        folder: Folder of the run as the user named it.
        strict: Whether a scan that is not trusted counts as a failure.
        as_json: Whether the run is printed as JSON.
    """
    finish(
        run.plain(),
        run.failures,
        len(run.cases),
        as_json=as_json,
        text=run_text(run.cases, folder, written=not run.read_only),
    )
    if strict and run.untrusted:
        raise typer.Exit(3)


def run_text(cases: Sequence[CaseInfo], folder: Path, *, written: bool = True) -> str:
    """One line per case, then the folder, then the number of cases that are not trusted if there are any.

    Args:
        cases: Cases of the run.
        folder: Folder of the run as the user named it.
        written: Whether the run was written; otherwise it was only read.
    """
    rows = table([(case.id, *_findings(case), _distrust(case)) for case in cases], right=(1, 3))
    untrusted = sum(case.trusted is False for case in cases)
    last = f"{untrusted} of {counted(len(cases), 'scan')} {'is' if untrusted == 1 else 'are'} not trusted"
    where = f"{'written to' if written else 'read from'} {folder}"
    return "\n".join([*filter(None, [rows]), where, *([last] if untrusted else [])])


def _findings(case: CaseInfo) -> tuple[str, str, str]:
    """Number of findings, its noun, and their volume; without a threshold, a note that it is missing."""
    if case.threshold is None:
        return "", "anomaly map only: the model is not calibrated (anofield calibrate)", ""
    number, noun = counted(case.lesions, "finding").split()
    return number, noun, f"{case.volume_ml:.2f} ml"


def _distrust(case: CaseInfo) -> str:
    return f"NOT TRUSTED: {'; '.join(case.reasons)}" if case.trusted is False else ""
