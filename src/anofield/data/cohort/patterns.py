"""Labels and masks at a place that the user names: a pattern with placeholders, a folder, a glob or a manifest."""

from __future__ import annotations

import glob
import re
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path

from anofield._words import counted, named
from anofield.data.cohort.case import Case
from anofield.data.cohort.companions import Found, Sought, Usable, sort_out, volumes_below
from anofield.data.cohort.manifest import read_manifest
from anofield.data.scan import stem
from anofield.errors import CohortError, UsageError

PLACEHOLDERS = ("id", "name", "dir")


def find_at(cases: Sequence[Case], place: str, sought: Sought, option: str) -> Found:
    """Find the labels or masks of cases at a place.

    Args:
        cases: The cases.
        place: A pattern with `{id}`, `{name}` (the scan's file name without suffix) or `{dir}` (its folder), a folder,
            a glob, a file, or a manifest (`.tsv`). A relative folder or glob may start in the working directory or in
            the folder of every scan, any other relative path in the folder of every scan.
        sought: What is looked for.
        option: Option that names the place, for errors.

    Raises:
        UsageError: The pattern holds an unknown placeholder.
        CohortError: The manifest cannot be used, or one file is the label of several cases.
    """
    used = re.findall(r"\{(.*?)\}", place)
    if unknown := [name for name in used if name not in PLACEHOLDERS]:
        known = ", ".join(f"{{{name}}}" for name in PLACEHOLDERS)
        raise UsageError(f"{option} {place}: unknown placeholder {{{unknown[0]}}}", remedy=f"use one of {known}")
    here = Path(place).expanduser()
    if here.is_file() and here.suffix == ".tsv":
        return _in_manifest(cases, here, sought)
    if not used and here.is_dir():
        return sort_out(cases, sought, volumes_below(here), here)
    wild = bool(set(place) & set("*?"))
    if not used and wild and (paths := sorted(map(Path, glob.glob(str(here), recursive=True)))):
        return sort_out(cases, sought, paths)
    return _beside(cases, place, sought, by_name=wild and not used)


def first_tried(case: Case, place: str) -> Path:
    """The first path that is tried for a case, for an error."""
    values = {"id": case.id, "name": stem(case.image), "dir": str(case.image.parent.absolute())}
    return case.image.parent / _filled(place, values)


def _beside(cases: Sequence[Case], place: str, sought: Sought, by_name: bool) -> Found:
    """Files of a pattern that starts in the folder of every scan; what a folder holds is sorted out by name."""
    paths = {case.id: _matches(case, place) for case in cases}
    if folders := {path for some in paths.values() for path in some if path.is_dir()}:
        return sort_out(cases, sought, sorted({path for folder in folders for path in volumes_below(folder)}))
    everything = [path for some in paths.values() for path in some]
    found = sort_out(cases, sought, sorted(set(everything))) if by_name else Found()
    shared, usable, taken = Counter(everything), Usable(cases), {p for some in found.files.values() for p in some}
    for case in cases:
        mine = [path for path in paths[case.id] if usable.may_be(path, found, [case])]
        if by_name:  # a file that no other scan has beside it needs no name
            mine = [path for path in mine if shared[path] == 1 and path not in taken]
        if mine and case.id not in found.files:
            found.files[case.id] = usable.once(mine)
    found.strangers = [path for path in found.strangers if not any(path in some for some in found.files.values())]
    _refuse_shared(found, sought, place)
    return found


def _matches(case: Case, place: str) -> list[Path]:
    """Existing files and folders that a pattern names for a case, from the scan's folder or the working directory."""
    values = {"id": case.id, "name": stem(case.image), "dir": str(case.image.parent.absolute())}
    literal = place if set(place) & set("*?") else glob.escape(place)
    wild = _filled(literal, {key: glob.escape(value) for key, value in values.items()})
    for start in (Path(glob.escape(str(case.image.parent))), Path()):
        if found := sorted(map(Path, glob.glob(str(start / wild), recursive=True))):
            return found
    return []


def _filled(place: str, values: Mapping[str, str]) -> Path:
    return Path(re.sub(r"\{(\w+)\}", lambda match: values[match[1]], place)).expanduser()


def _in_manifest(cases: Sequence[Case], path: Path, sought: Sought) -> Found:
    """The label or mask column of a manifest, by id."""
    ids, found, usable = {case.id: case for case in cases}, Found(), Usable(cases)
    for row in read_manifest(path):
        file = row.label if sought.noun == "label" else row.mask
        if file is not None and row.id not in ids:
            found.strangers.append(file)
        elif file is not None and usable.may_be(file, found, [ids[row.id]]):
            found.files[row.id] = [file]
    return found


def _refuse_shared(found: Found, sought: Sought, place: str) -> None:
    """One label for several cases is a mistake; one mask for several is not, in a space that they share."""
    counts = Counter(path for files in found.files.values() for path in files)
    for path in [path for path, count in counts.items() if count > 1 and sought.noun == "label"][:1]:
        ids = [one for one, files in found.files.items() if path in files]
        raise CohortError(
            f"is found as the label of {counted(len(ids), 'case')} ({named(ids)})",
            where=path,
            why=f"{place} does not tell the cases apart",
            remedy="write {id} or {name} into the pattern, or list the labels in a manifest",
        )
