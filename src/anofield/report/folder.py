"""What a run folder and its results folder hold, read without touching an image."""

from __future__ import annotations

import csv
import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from anofield.errors import CohortError, UsageError
from anofield.evaluate.labels import checked_run
from anofield.typing import Json, PathLike


@dataclass(frozen=True)
class CaseFolder:
    """One finished case of a run.

    Attributes:
        id: Case id.
        folder: Where its images lie.
        facts: Content of `case.json`.
        label: Truth the results were measured with, else the one that `detect` was given.
        lesions: Rows of `lesions.tsv`, as text.
    """

    id: str
    folder: Path
    facts: Json
    label: Path | None
    lesions: list[dict[str, str]]

    @property
    def image(self) -> Path | None:
        """The source scan, wherever it is now."""
        return Path(self.facts["image"]) if self.facts.get("image") else None


@dataclass(frozen=True)
class Run:
    """A run with its finished cases; `info`, `results` are empty and `failures` is when the file does not exist."""

    path: Path
    info: Json
    cases: list[CaseFolder]
    failures: list[Json]
    results: Json

    @property
    def score(self) -> str:
        """The run's main score."""
        return str(self.info.get("score") or self.results.get("score") or self.cases[0].facts.get("score") or "")

    @property
    def threshold(self) -> float | None:
        """The calibrated threshold of the main score, if there is one; an unfinished run's from its first case."""
        value = section(self.info, "threshold").get("value") if self.info else self.cases[0].facts.get("threshold")
        return None if value is None else float(value)


def section(content: Json, key: str) -> Json:
    """A nested object, empty if it is missing or null."""
    return content.get(key) or {}


def read_run(run: PathLike, results: PathLike | None = None) -> Run:
    """Read a run folder and, if given, its results folder.

    Raises:
        CohortError: No such folder, no finished case in it, or its `run.json` is damaged.
        UsageError: Another JSON file is damaged, or the results folder holds no `results.json`.
    """
    path = Path(run)
    if not path.is_dir():
        raise CohortError("no such run folder", where=path, remedy="give the output folder of `anofield detect`")
    measured = {} if results is None else _results(Path(results))
    info = _info(path / "run.json")
    _check_belong(measured, info, results or path)
    cases = [_case(folder, section(measured, "labels")) for folder in _finished(path, info.get("cases", []))]
    if not cases:
        raise CohortError(
            "holds no finished case",
            where=path,
            why="a case is finished when its folder holds case.json",
            remedy="give the output folder of `anofield detect`, or run it again: it resumes where it stopped",
        )
    return Run(path, info, cases, _optional(path / "failures.json", []), measured)


def _check_belong(measured: Json, info: Json, where: PathLike) -> None:
    """Refuse results of another run: of another score, or at another calibrated threshold."""
    score, own = measured.get("score"), section(info, "threshold").get("value")
    used = section(section(measured, "thresholds"), str(score)).get("calibrated")
    other_score = bool(score and info.get("score")) and score != info["score"]
    if other_score or (used is not None and own is not None and used != own):
        raise UsageError(
            f"are results of another run: {score} above {used}, not {info.get('score')} above {own}",
            where=where,
            remedy="give the output folder of `anofield evaluate` on this run",
        )


def _info(path: Path) -> Json:
    """Content of `run.json`; empty for a run that has not ended."""
    return checked_run(read_json(path, object), path, ["cases"]) if path.is_file() else {}


def _finished(path: Path, order: list[str]) -> list[Path]:
    """Folders of finished cases, in the run's own order, those it does not list last."""
    place = {str(case): number for number, case in enumerate(order)}
    folders = (file.parent for file in path.glob("*/case.json"))
    return sorted(folders, key=lambda folder: (place.get(folder.name, len(place)), folder.name))


def _case(folder: Path, labels: Json) -> CaseFolder:
    facts = read_json(folder / "case.json", dict)
    name = str(facts.get("id") or folder.name)
    label = labels.get(name) or facts.get("label")
    return CaseFolder(name, folder, facts, Path(label) if label else None, _rows(folder / "lesions.tsv"))


def _rows(path: Path) -> list[dict[str, str]]:
    if not path.is_file():
        return []
    with path.open(encoding="utf-8", newline="") as stream:
        return [
            {key: value or "" for key, value in row.items() if key} for row in csv.DictReader(stream, delimiter="\t")
        ]


def _results(folder: Path) -> Json:
    path = folder if folder.suffix == ".json" else folder / "results.json"
    if not path.is_file():
        raise UsageError("no such file", where=path, remedy="give the output folder of `anofield evaluate`")
    content: Json = read_json(path, dict)
    return content


def _optional(path: Path, empty: Any) -> Any:
    return read_json(path, type(empty)) if path.is_file() else empty


def read_json(path: Path, kind: type) -> Any:
    """Content of a JSON file that holds a `kind`.

    Raises:
        UsageError: It cannot be read or holds something else.
    """
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise UsageError(
            f"cannot be read as JSON ({error})",
            where=path,
            why="the report takes its numbers from it",
            remedy="run the command that wrote it again",
        ) from error
    if not isinstance(content, kind):
        raise UsageError(
            f"does not hold a JSON {kind.__name__}", where=path, remedy="run the command that wrote it again"
        )
    return content
