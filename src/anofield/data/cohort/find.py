"""Find the cases of a cohort in trees, folders, globs, manifests and files."""

from __future__ import annotations

import glob
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path

from anofield.data.cohort.attach import with_given, with_own
from anofield.data.cohort.bids import find_bids
from anofield.data.cohort.case import Case, cohort_of, printable
from anofield.data.cohort.cohort import OTHER_GROUP, Cohort, LeftOut, told_of
from anofield.data.cohort.contrast import canonical, counts_of
from anofield.data.cohort.loose import find_folder, loose_scans, named_scans, of_contrasts
from anofield.data.cohort.manifest import manifest_cases
from anofield.data.cohort.own import is_result, own_folder
from anofield.data.cohort.trees import find_brats, find_hcp, recognise
from anofield.data.scan import SUFFIXES
from anofield.errors import CohortError, UsageError
from anofield.typing import PathLike

DATASETS = ("auto", "hcp", "brats", "bids", "folder")
DEFAULT = ("T2w",)  # contrast of a tree if none is named
_TREES: dict[str, Callable[[Path, Sequence[str], list[LeftOut]], list[Case]]] = {"hcp": find_hcp, "brats": find_brats}


def find_cases(
    source: PathLike | Sequence[PathLike],
    *,
    dataset: str = "auto",
    modality: str | Sequence[str] | None = None,
    entities: Mapping[str, str | Sequence[str]] | None = None,
    group: str | Sequence[str] | None = None,
    label: str | None = None,
    mask: str | None = None,
    unite: bool = False,
) -> Cohort:
    """Find the cases of a cohort, sorted by id.

    Args:
        source: A scan, a folder, a glob pattern or a manifest (`.tsv`, see `read_manifest`), or several of them.
        dataset: Layout of the folders, one of `DATASETS`; `auto` recognises it.
        modality: Contrasts of the scans, such as `T2w` or `["T1w", "FLAIR"]`; BIDS: any suffix. By default `T2w` in an
            HCP, BraTS or BIDS tree; elsewhere all scans, which then must have one contrast by their names.
        entities: BIDS entities that a scan's name must have, for example `{"acq": "highres", "run": ["1", "2"]}`.
        group: Groups of a manifest that are taken; by default all.
        label: Place of the lesion labels, if they are not where the layout has them: a file pattern with `{id}`,
            `{name}` (the scan's file name without suffix) and `{dir}` (its folder), a folder or glob of files named
            after the cases, or a manifest. A relative path starts at the scan's folder or the working directory.
        mask: Place of the brain masks, in the same forms; every case must have one.
        unite: Whether a case may have several labels, which are then united: a voxel counts if one of them labels it.

    Returns:
        A list of `Case`, whose attribute `left_out` has the files that were not taken, each with the reason.

    Raises:
        CohortError: A source does not exist or holds no scan, or is a result of this package; scans have several
            contrasts and none was named; ids clash or cannot name folders; a manifest cannot be used or lacks a group;
            `label` finds no file for any case or `mask` none for one of them; or a case has several labels or masks.
        UsageError: The data set, placeholder or modality is unknown, or the layout has no entities or groups.
    """
    if dataset not in DATASETS:
        raise UsageError(f"unknown data set {dataset!r}", remedy=f"choose one of {', '.join(DATASETS)}")
    sources = [source] if isinstance(source, str | Path) else list(source)
    where, left = ", ".join(map(str, sources)), list[LeftOut]()
    wanted = tuple(dict.fromkeys(words_of(modality)))
    beside = partial(with_own, labels=label is None, masks=mask is None, unite=unite)
    found = list[Case]()
    for one in sources:
        kind = _kind(one, dataset)
        found += beside(_find(one, kind, wanted, entities or {}, left), kind, Path(one))
    cases = _of_groups(_once(found, left), words_of(group), where, left)
    _check_contrasts(cases, wanted, where)
    cases = _unique(cases, where, left)
    return Cohort(with_given(cases, label=label, mask=mask, unite=unite), left)


def words_of(given: str | Sequence[str] | None) -> list[str]:
    """Names that were given one by one or in texts with commas.

    >>> words_of(["T2w,FLAIR", "T1w"]), words_of("train"), words_of(None)
    (['T2w', 'FLAIR', 'T1w'], ['train'], [])
    """
    texts = [given] if isinstance(given, str) else given or ()
    return [word.strip() for text in texts for word in text.split(",") if word.strip()]


def _find(
    source: PathLike,
    kind: str,
    wanted: Sequence[str],
    entities: Mapping[str, str | Sequence[str]],
    left: list[LeftOut],
) -> list[Case]:
    """The cases of one source, without results of this package unless the source is the file itself."""
    path = Path(source)
    if kind == "bids":
        return _without_results(find_bids(path, wanted or DEFAULT, entities, left), left)
    if entities:
        raise UsageError(
            f"entities ({', '.join(entities)}) were asked for",
            where=str(source),
            why=f"only BIDS trees can be filtered by entities, and this looks like a {kind}",
            remedy="leave the filter out, name the layout with --dataset bids, or give a quoted glob",
        )
    wanted = tuple(map(canonical, wanted))
    if kind == "manifest":
        return of_contrasts(manifest_cases(path, wanted, left), wanted, left)
    if kind == "file":
        return named_scans([path], None, wanted, left)
    if kind in _TREES:
        return _without_results(_TREES[kind](path, wanted or DEFAULT, left), left)
    if kind == "folder":
        return _without_results(find_folder(path, wanted, left), left)
    paths = sorted(Path(one) for one in glob.glob(str(source), recursive=True))
    folders = (one for one in paths if one.is_dir() and "**" not in path.parts)
    left += [LeftOut(one, "a glob names files, not folders", what="folder") for one in folders]
    return _without_results(loose_scans(paths, _fixed_part(path), wanted, left), left)


def _kind(source: PathLike, dataset: str) -> str:
    """What a source is: a layout of a folder, `manifest`, `file` or `glob`.

    Raises:
        UsageError: It is empty.
        CohortError: It is a folder of results of this package.
    """
    if not str(source).strip():
        raise UsageError("the input is empty", remedy="name a scan, a folder, a glob or a manifest")
    path = Path(source)
    if path.is_dir():
        if what := own_folder(path):
            why = "what it holds was made from scans"
            raise CohortError(f"is {what}", where=path, why=why, remedy="give the folder of the scans themselves")
        return recognise(path) if dataset == "auto" else dataset
    if path.is_file() or path.is_symlink():  # a link whose file is missing fails by its name, when it is read
        return "manifest" if path.suffix.lower() == ".tsv" else "file"
    return "glob"


def _fixed_part(pattern: Path) -> Path:
    """The folder above the first wildcard of a pattern."""
    parts = pattern.parent.parts
    count = next((number for number, part in enumerate(parts) if glob.has_magic(part)), len(parts))
    return Path(*parts[:count])


def _without_results(cases: list[Case], left: list[LeftOut]) -> list[Case]:
    made = {case.image for case in cases if is_result(case.image)}
    left += [LeftOut(path, "written by anofield") for path in sorted(made)]
    return [case for case in cases if case.image not in made]


def _once(cases: Sequence[Case], left: list[LeftOut]) -> list[Case]:
    """The cases without scans that several sources named."""
    found: dict[tuple[str, Path], Case] = {}
    for case in cases:
        key = (case.id, case.image.absolute())
        if key in found:
            left.append(LeftOut(case.image, "named twice"))
            found[key] = _with_more(found[key], case)
        else:
            found[key] = case
    return list(found.values())


def _with_more(case: Case, other: Case) -> Case:
    """A case with what only the other source of the same scan says about it: a label, a mask, a group, a subject."""
    labels = case.labels or other.labels
    return replace(
        case,
        label=next(iter(labels), None),
        more_labels=labels[1:],
        mask=case.mask or other.mask,
        group=case.group or other.group,
        subject=case.subject or other.subject,
    )


def _of_groups(cases: list[Case], groups: Sequence[str], where: str, left: list[LeftOut]) -> list[Case]:
    """The cases of these groups of a manifest; all without groups.

    Raises:
        UsageError: No case has a group.
        CohortError: A group does not exist.
    """
    if not groups:
        return cases
    there = [case.group for case in cases if case.group]
    if not there:
        raise UsageError(
            f"--group {','.join(groups)} selects no scan",
            where=where,
            why="only a manifest with a column `group` has groups",
            remedy="leave it out, or make such a manifest with `anofield split`",
        )
    if unknown := [group for group in groups if group not in there]:
        remedy = f"choose one of the groups of its scans: {counts_of(there)}"
        raise CohortError(f"no scan has the group {unknown[0]!r}", where=where, remedy=remedy)
    left += [LeftOut(c.image, OTHER_GROUP, c.group or "none") for c in cases if c.group not in groups]
    return [case for case in cases if case.group in groups]


def _check_contrasts(cases: Sequence[Case], wanted: Sequence[str], where: str) -> None:
    there = [case.contrast for case in cases if case.contrast]
    if len(set(there)) > 1 and not wanted:
        unknown = len(cases) - len(there)
        first = next(iter(dict.fromkeys(sorted(there, key=there.count, reverse=True))))
        raise CohortError(
            f"scans of several contrasts: {counts_of(there)}" + (f", unknown {unknown}" if unknown else ""),
            where=where,
            why="a field learns and judges one contrast",
            remedy=f"choose one with --modality {first}; --modality {','.join(dict.fromkeys(there))} takes all",
        )


def _unique(cases: list[Case], where: str, left: list[LeftOut]) -> list[Case]:
    if not cases:
        raise CohortError(
            "no scans found",
            where=printable(where),
            why=f"left out: {told_of(left)}" if left else "",
            remedy=f"give a file, a folder or a quoted glob ({', '.join(SUFFIXES)}), or name the layout: --dataset",
        )
    return sorted(cohort_of(cases, printable(where)), key=lambda case: case.id)
