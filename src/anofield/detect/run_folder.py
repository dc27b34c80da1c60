"""Which cases of a run folder are finished: `case.json` says so, and the files it was written with are there."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from pathlib import Path

from anofield._progress import say
from anofield._words import counted
from anofield.data.cohort.case import Case
from anofield.typing import Json

CASE_FILE = "case.json"
OUTPUTS = ("anomaly.nii.gz", "mask.nii.gz", "lesions.tsv", "restoration.nii.gz")


def read_case(folder: Path) -> Json | None:
    """Content of a case's `case.json`; None if the case is not finished, or the file does not say which case it is."""
    try:
        content: Json = json.loads((folder / CASE_FILE).read_text())
    except (OSError, ValueError):
        return None
    kinds = {"id": str, "key": str, "files": list}
    usable = isinstance(content, dict) and all(isinstance(content.get(name), kind) for name, kind in kinds.items())
    return content if usable else None


def outputs(folder: Path) -> list[str]:
    """Names of the files of a detection in its folder, `case.json` aside."""
    scores = sorted(path.name for path in folder.glob("score-*.nii.gz"))
    return [name for name in OUTPUTS if (folder / name).exists()] + scores


def whole(folder: Path, content: Json) -> bool:
    """Whether no file that a case was written with is missing or empty; what they hold is not looked at."""
    paths = [folder / str(name) for name in content["files"]]
    return all(path.is_file() and path.stat().st_size > 0 for path in paths)


def finished_cases(out: Path, others: Sequence[Case], key_of: Callable[[Case], str]) -> set[str]:
    """Ids of the cases that would not be done again; how many another procedure finished is said on stderr.

    Args:
        out: Folder of the run.
        others: Cases that may be finished.
        key_of: Hash of all that a case's result would depend on now, to be compared with the `key` of its `case.json`.
    """
    done = {case: content for case in others if (content := read_case(out / case.id)) is not None}
    same = {case for case, content in done.items() if content["key"] == key_of(case)}
    if strange := len(done) - len(same):
        text = f"{counted(strange, 'finished case')} of another procedure, model, precision or scan"
        say(f"{out}: {text} left out of run.json; detect with these options does them again")
    return {case.id for case in same if whole(out / case.id, done[case])}
