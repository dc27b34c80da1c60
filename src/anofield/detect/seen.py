"""Scans that a method knows: those it was trained on and those it was calibrated on, whatever their names."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import partial
from itertools import zip_longest
from typing import Any

import numpy as np

from anofield._progress import say_once
from anofield.data.cohort.case import Case
from anofield.data.parallel import Spread, in_order, map_cases
from anofield.data.scan import as_scan
from anofield.detect.calibration import Calibrated
from anofield.detect.method import Method
from anofield.detect.run_folder import Seen
from anofield.errors import UsageError

NAMED = 3  # scans that an error names
TOO_LOW = "the model fits its training scans too well, so the threshold would be too low"


def training_contents(method: Method) -> dict[str, str]:
    """Ids of the training scans by the hash of their content; only those whose content is known."""
    pairs = zip_longest(method.training_contents, method.training_ids[: len(method.training_contents)], fillvalue="?")
    return {content: case_id for content, case_id in pairs if content}


def say_if_unknown(method: Method) -> None:
    """Say on stderr, once, that training scans can only be recognised by their ids, if their contents were not kept."""
    if method.training_ids and not any(method.training_contents):
        say_once(f"{method.path}: the contents of its training scans are not known; only their ids are compared")


def seen_as(content: str, method: Method, calibrated: Calibrated | None) -> Seen | None:
    """What a scan was used for earlier; None if that is not known.

    Args:
        content: `Scan.content_hash` of the scan.
        method: The field or a baseline.
        calibrated: The calibration in use; None without one.
    """
    uses: Mapping[str, str] = training_contents(method)
    if content in uses:
        return Seen(role="training", id=uses[content])
    healthy = calibrated.contents if calibrated is not None else {}
    return Seen(role="calibration", id=healthy[content]) if content in healthy else None


def refuse_known(cases: Sequence[Case], method: Method, spread: Spread) -> None:
    """Refuse healthy scans that the method was trained on, by id and by content, and scans that are given twice.

    Every scan is read once more for that, which takes far less time than its fit. A scan that cannot be read is left to
    the calibration, which records it.

    Args:
        cases: Healthy scans to calibrate on.
        method: The field or a baseline.
        spread: Where the scans are read.

    Raises:
        UsageError: A case has the id or the content of a training scan, or two cases have the same content.
    """
    say_if_unknown(method)
    if shared := sorted(set(method.training_ids) & {case.id for case in cases}):
        raise UsageError(
            f"{len(shared)} of {len(cases)} healthy scans have the id of a training scan ({', '.join(shared[:NAMED])})",
            why=TOO_LOW,
            remedy="calibrate on healthy subjects that were not used for training; rename scans of other subjects",
        )
    known, contents = training_contents(method), _contents_of(cases, method, spread)
    if same := [f"{case_id} is {known[content]}" for case_id, content in contents.items() if content in known]:
        raise UsageError(
            f"{len(same)} of {len(cases)} healthy scans are training scans under other names "
            f"({', '.join(same[:NAMED])})",
            why=TOO_LOW,
            remedy="calibrate on healthy subjects that were not used for training",
        )
    first: dict[str, str] = {}
    for case_id, content in contents.items():
        if first.setdefault(content, case_id) != case_id:
            raise UsageError(
                f"the healthy scans {first[content]} and {case_id} are the same scan",
                why="it would count twice in the threshold",
                remedy="remove one of them",
            )


def _contents_of(cases: Sequence[Case], method: Method, spread: Spread) -> dict[str, str]:
    """Hash of the content of every scan that can be read, by id, in the order of the cases."""
    work = partial(_content_of, dtype=method.recipe.kind.dtype)
    outcomes = in_order(map_cases(work, cases, spread=spread, label="calibrate: reading"), cases)
    return {outcome.case.id: outcome.value for outcome in outcomes if outcome.value is not None}


def _content_of(case: Case, *, dtype: type[np.floating[Any]]) -> str:
    return as_scan(case.image, dtype=dtype).content_hash
