"""Where the cases and their labels are: run folders, label trees, the results of a validation run."""

from __future__ import annotations

import glob
import json
from collections.abc import Mapping, Sequence
from pathlib import Path

from anofield._words import counted
from anofield.data.cohort.case import Case
from anofield.data.cohort.find import find_cases
from anofield.data.scan import stem
from anofield.detect.run_folder import read_case
from anofield.errors import CohortError, UsageError
from anofield.typing import Json, PathLike

RUN_KEYS: dict[str, type | tuple[type, ...]] = {
    "cases": list,
    "score": str,
    "scores": list,
    "baselines": list,
    "threshold": (dict, type(None)),
    "thresholds": dict,
    "options": dict,
}  # of `run.json`, as far as it is read again
LABEL_ENDINGS = ("", "_seg", "_mask", "_lesion_mask", "_label-lesion_mask", "_label", "_truth")


def read_run(run: Path) -> Json:
    """Content of `run.json`.

    Raises:
        CohortError: No run, `run.json` is damaged, or no finished case in it.
    """
    try:
        about = json.loads((run / "run.json").read_text())
    except (OSError, ValueError) as error:
        raise CohortError(
            "is not a finished run", where=run, why=str(error), remedy="run `anofield detect` with this folder as -o"
        ) from error
    content = checked_run(about, run / "run.json")
    if not content["cases"]:
        raise CohortError("has no finished case", where=run, remedy="look into failures.json")
    return content


def checked_run(about: object, path: Path, needed: Sequence[str] = tuple(RUN_KEYS)) -> Json:
    """Content of a `run.json`, once it is known to hold what is read from it.

    Args:
        about: What the file holds.
        path: The file.
        needed: Keys that may not be missing.

    Raises:
        CohortError: It holds no object, a key is missing, or its value is of another type.
    """
    if not isinstance(about, dict):
        why = f"it holds no JSON object but {about!r:.40}"
    else:
        wrong = [key for key in RUN_KEYS if not _has(about, key, needed)]
        if not wrong:
            return about
        why = f"missing or of another type: {', '.join(wrong)}"
    raise CohortError("is damaged", where=path, why=why, remedy="run `anofield detect` again: finished cases are kept")


def _has(about: Json, key: str, needed: Sequence[str]) -> bool:
    """Whether a key has a value of its type; lists are of names."""
    if key not in about:
        return key not in needed
    value = about[key]
    names = not isinstance(value, list) or all(isinstance(name, str) for name in value)
    return isinstance(value, RUN_KEYS[key]) and names


def labelled_cases(run: Path, cases: Sequence[str], labels: PathLike | None, dataset: str = "auto") -> list[Case]:
    """Every case of a run that has a label, by id; `image` is its folder in the run.

    Args:
        run: Folder of the run.
        cases: Its case ids.
        labels: Tree, folder or glob of labels; None takes those found beside the scans when they were detected.
        dataset: Layout of `labels`.

    Raises:
        CohortError: No case has one.
    """
    if labels is None:
        known = {case_id: (read_case(run / case_id) or {}).get("label") for case_id in cases}
        found = {case_id: Path(path) for case_id, path in known.items() if path}
    else:
        found = _match(cases, labels, dataset)
    if not found:
        raise CohortError(
            "no label belongs to any case of the run",
            where=str(labels or run),
            why=f"the run has cases such as {', '.join(list(cases)[:3])}",
            remedy="give -t the folder of labels; files must be named after the cases, like `<case>_seg.nii.gz`",
        )
    return [Case(case_id, run / case_id, label=found[case_id]) for case_id in sorted(found)]


def healthy_cases(run: PathLike | None, about: Json, taken: Sequence[Case]) -> list[Case]:
    """All cases of a run of healthy people; their labels, if any, are not looked at.

    Raises:
        CohortError: No run.
        UsageError: It was made with another checkpoint, options or scores, or shares a case with the run evaluated.
    """
    if run is None:
        return []
    beside = read_run(Path(run))
    differing = [key for key in ("model_hash", "options") if beside.get(key) != about.get(key)]
    if differing:
        raise UsageError(
            f"the healthy run differs in {' and '.join(differing)}",
            where=run,
            why="its scores and the threshold would not belong together",
            remedy="detect the healthy scans with the same experiment and options",
        )
    shared = sorted({case.id for case in taken} & set(beside["cases"]))
    if shared:
        raise UsageError(
            f"shares {counted(len(shared), 'case')} with the run evaluated ({', '.join(shared[:3])})",
            where=run,
            why="the same scan would count as ill and as healthy",
            remedy="give a run of healthy people only",
        )
    return [Case(case_id, Path(run) / case_id) for case_id in beside["cases"]]


def validation_thresholds(results: PathLike | None, names: Sequence[str], cases: Sequence[str]) -> dict[str, float]:
    """The thresholds with the best Dice on another cohort, per score that it has.

    Args:
        results: Results folder of `anofield evaluate` on the validation cohort, or its `results.json`; None for none.
        names: Scores wanted.
        cases: Ids of the test cases.

    Raises:
        UsageError: No results there, none of the scores, or a test case is among the validation cases.
    """
    if results is None:
        return {}
    content = _results(Path(results))
    shared = sorted(set(content["labels"]) & set(cases))
    if shared:
        raise UsageError(
            f"shares {counted(len(shared), 'case')} with the test ({', '.join(shared[:3])})",
            where=results,
            why="a threshold chosen on the test labels is the oracle's, which is reported anyway",
            remedy="evaluate a cohort of other people and give its results folder",
        )
    values = {name: content["scores"].get(name, {}).get("threshold_oracle") for name in names}
    found = {name: float(value) for name, value in values.items() if value is not None}
    if not found:
        raise UsageError(
            "holds a threshold for none of the run's scores",
            where=results,
            why=f"it has {', '.join(content['scores']) or 'none'}; the run has {', '.join(names)}",
            remedy="evaluate a validation run with the same scores, whose cases have lesions",
        )
    return found


def _results(path: Path) -> Json:
    path = path if path.suffix == ".json" else path / "results.json"
    try:
        content: Json = json.loads(path.read_text())
        missing = [key for key in ("scores", "labels") if not isinstance(content.get(key), Mapping)]
    except (OSError, ValueError, AttributeError) as error:
        raise UsageError(
            "cannot be read", where=path, why=str(error), remedy="give the output folder of `anofield evaluate`"
        ) from error
    if missing:
        raise UsageError(f"has no {missing[0]}", where=path, remedy="give the output folder of `anofield evaluate`")
    return content


def _match(cases: Sequence[str], labels: PathLike, dataset: str) -> dict[str, Path]:
    wanted = set(cases)
    try:
        tree = find_cases(labels, dataset=dataset)
    except CohortError:
        tree = []
    found = {case.id: case.label for case in tree if case.id in wanted and case.label is not None}
    if found:
        return found
    loose = (
        Path(labels).rglob("*.nii*") if Path(labels).is_dir() else map(Path, glob.iglob(str(labels), recursive=True))
    )
    by_name = {stem(path): path for path in sorted(loose)}
    pairs = (
        (case_id, by_name[case_id + end]) for case_id in cases for end in LABEL_ENDINGS if case_id + end in by_name
    )
    return dict(pairs)
