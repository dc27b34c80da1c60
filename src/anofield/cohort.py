"""A cohort: cases (id, scan, label, mask) found in an HCP, BraTS or BIDS tree, a folder, a glob, a manifest, a file."""

from __future__ import annotations

import csv
import difflib
import glob
import itertools
import os
import re
from collections import Counter, deque
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import NamedTuple

import numpy as np

from anofield.errors import CohortError, UsageError
from anofield.scan import SUFFIXES, stem
from anofield.typing import PathLike

DATASETS = ("auto", "hcp", "brats", "bids", "folder")
HCP_FILES = {"T2w": "T2w_acpc_dc_restore_brain.nii.gz", "T1w": "T1w_acpc_dc_restore_brain.nii.gz"}  # HCP 1200 release
BRATS_ENDINGS = {  # file names of BraTS 2018 to 2021, and of 2023
    "T2w": ("_t2", "-t2w"),
    "T1w": ("_t1", "-t1n"),
    "FLAIR": ("_flair", "-t2f"),
    "T1c": ("_t1ce", "-t1c"),
}
BIDS_DATATYPES = ("anat", "perf", "dwi", "func", "fmap", "pet")  # the suffix decides; these folders may hold volumes
BIDS_INDICES = ("run", "echo", "flip", "inv", "split", "chunk")  # entities that are numbers: run-01 is run-1
BIDS_MASKS = ("mask", "dseg", "roi")  # suffixes of lesion and brain masks
LABEL_WORDS = frozenset(
    (*("seg", "dseg", "probseg", "aseg", "segmentation", "segmentations", "roi", "rois"),
     *("mask", "masks", "brainmask", "lesionmask", "label", "labels", "labelmap"),
     *("labelstr", "labelsts"))  # labelsTr, labelsTs: Medical Segmentation Decathlon
)  # fmt: skip
LABEL_ENDINGS = ("", "_label", "_seg", "_lesion", "_lesion_mask", "_label-lesion_mask", "_dseg", "_mask")
MASK_ENDINGS = ("", "_mask", "_brain_mask", "_brainmask", "_desc-brain_mask", "_seg")
PLACEHOLDERS = ("id", "name", "dir")
MANIFEST_COLUMNS = ("id", "image", "label", "mask", "group", "subject")


@dataclass(frozen=True)
class Case:
    """One scan of a cohort.

    Attributes:
        id: Unique in the cohort; also the name of the case's folder in a run.
        image: Scan file.
        label: Lesion truth on the scan's voxels, if there is one.
        mask: Brain mask on the scan's voxels, if there is one.
        subject: Whom it shows; splits never separate the scans of one subject. Empty means the id.
        group: What a manifest says it belongs to, for example `train` or `test`.
    """

    id: str
    image: Path
    label: Path | None = None
    mask: Path | None = None
    subject: str = ""
    group: str | None = None


def part_of(cases: Sequence[Case], part: str | None) -> tuple[list[Case], str]:
    """The K-th of N parts of a cohort (every N-th case), and what to add to the names of its own files.

    Args:
        cases: The cohort, in an order that every part finds alike.
        part: `K/N`, K from 1; None takes all.

    Raises:
        UsageError: It is not K/N with 1 ≤ K ≤ N.
    """
    if part is None:
        return list(cases), ""
    first, _, count = part.partition("/")
    if not (first.isdigit() and count.isdigit() and 1 <= int(first) <= int(count)):
        raise UsageError(f"--part {part}", remedy="give K/N with K from 1 to N, for example 2/8")
    return list(cases[int(first) - 1 :: int(count)]), f"-{first}-of-{count}"


def find_cases(
    source: PathLike,
    *,
    dataset: str = "auto",
    modality: str = "T2w",
    entities: Mapping[str, str] | None = None,
    label: str | None = None,
    mask: str | None = None,
) -> list[Case]:
    """Find the cases of a cohort, sorted by id.

    Args:
        source: A scan, a folder, a glob pattern or a manifest (`.tsv`, see `read_manifest`).
        dataset: How the folder is laid out, one of `DATASETS`; `auto` looks for the marks of each.
        modality: Which scan of an HCP, BraTS or BIDS tree is meant: `T2w`, `T1w`, `FLAIR`, `T1c`; BIDS: any suffix.
        entities: BIDS entities that a scan's name must have, for example `{"acq": "highres", "run": "1"}`.
        label: Where the lesion truth lies, instead of where the layout has it: a file pattern with `{id}`, `{name}`
            (the scan's file name without suffix) and `{dir}` (its folder), or a folder of files named after the cases.
            A relative one counts from the scan's folder.
        mask: Where the brain masks lie, in the same way.

    Raises:
        CohortError: Nothing there, no scan found, two scans with one id, a manifest that cannot be used, or a label
            or mask that is found for no case.
        UsageError: Unknown data set, placeholder or modality, or entities for a layout that has none.
    """
    if dataset not in DATASETS:
        raise UsageError(f"unknown data set {dataset!r}", remedy=f"choose one of {', '.join(DATASETS)}")
    cases = _unique(_find(source, dataset, modality, entities or {}), source)
    labels = [case.label for case in cases] if label is None else _by_pattern(cases, label, "label", LABEL_ENDINGS)
    masks = [case.mask for case in cases] if mask is None else _by_pattern(cases, mask, "mask", MASK_ENDINGS)
    return [replace(case, label=lb, mask=mk) for case, lb, mk in zip(cases, labels, masks, strict=True)]


def _find(source: PathLike, dataset: str, modality: str, entities: Mapping[str, str]) -> list[Case]:
    if not str(source).strip():
        raise UsageError("the input is empty", remedy="name a scan, a folder, a glob or a manifest")
    path = Path(source)
    if path.is_file():
        kind = "manifest" if path.suffix == ".tsv" else "file"
    else:
        kind = (_recognise(path) if dataset == "auto" else dataset) if path.is_dir() else "glob"
    if kind == "bids":
        return find_bids(path, modality, entities)
    if entities:
        raise UsageError(
            f"entities ({', '.join(entities)}) were asked for",
            where=str(source),
            why=f"only BIDS trees are filtered by entities, and this is taken for a {kind}",
            remedy="leave the filter out, name the layout with --dataset bids, or give a quoted glob",
        )
    if kind == "manifest":
        return read_manifest(path)
    if kind == "file":
        return [Case(stem(path), path)]
    if kind == "glob":
        return _loose(map(Path, sorted(glob.glob(str(source), recursive=True))), None)
    return _FINDERS[kind](path, modality)


def split_by_subject(
    cases: Sequence[Case], fractions: Sequence[float], generator: np.random.Generator
) -> list[list[Case]]:
    """Split cases at random into parts of about the given fractions (summing to at most 1), subjects kept whole."""
    subjects = sorted({case.subject or case.id for case in cases})
    order = [subjects[i] for i in generator.permutation(len(subjects))]
    ends = [round(len(order) * end) for end in np.cumsum([0.0, *fractions])]
    parts = [set(order[start:end]) for start, end in itertools.pairwise(ends)]
    return [[case for case in cases if (case.subject or case.id) in part] for part in parts]


def find_hcp(root: Path, modality: str = "T2w") -> list[Case]:
    """HCP 1200 tree: `<id>/T1w/T2w_acpc_dc_restore_brain.nii.gz`, at any depth below `root`."""
    if modality not in HCP_FILES:
        raise UsageError(f"HCP has no {modality} scans", remedy=f"choose one of {', '.join(HCP_FILES)}")
    found = (p for p in _files(root) if p.name == HCP_FILES[modality] and p.parent.name == "T1w")
    return [Case(image.parents[1].name, image, _beside(image, "lesion_mask.nii.gz")) for image in found]


def find_brats(root: Path, modality: str = "T2w") -> list[Case]:
    """BraTS tree: `<case>/<case>_t2.nii.gz` with `<case>_seg.nii.gz`, at any depth below `root`."""
    if modality not in BRATS_ENDINGS:
        raise UsageError(f"BraTS has no {modality} scans", remedy=f"choose one of {', '.join(BRATS_ENDINGS)}")
    found = ((p, ending) for p in _files(root) for ending in BRATS_ENDINGS[modality] if _is_brats(p, ending))
    return [Case(p.parent.name, p, _beside(p, p.name.replace(f"{ending}.", f"{ending[0]}seg."))) for p, ending in found]


def find_bids(root: Path, modality: str = "T2w", entities: Mapping[str, str] | None = None) -> list[Case]:
    """BIDS tree, raw or derivative: `sub-*/[ses-*/]<datatype>/*_<suffix>.nii.gz`.

    Lesion and brain masks (`*_label-lesion_mask`, `*_desc-brain_mask`, also `_dseg` and `_roi`) are looked for there
    and under `derivatives/`; one belongs to a scan when all its entities but `desc` and `label` are the scan's.

    Args:
        root: Where the `sub-*` folders are.
        modality: The suffix.
        entities: Values that a scan's name must have; an entity it lacks does not match, indices match as numbers.

    Raises:
        CohortError: No scan has the suffix and the entities; says which there are.
    """
    files = [_bids_name(path) for path in _bids_files(str(root))]
    of_suffix = [file for file in files if file.suffix == modality]
    scans = [file for file in of_suffix if _has(file, entities or {})]
    if not scans:
        raise _nothing_in_bids(root, files, of_suffix, modality, entities or {})
    apart = _bids_files(str(root / "derivatives"), levels=3)
    masks = sorted(file for file in [*files, *map(_bids_name, apart)] if file.suffix in BIDS_MASKS)
    lesions, brains = ({_base(m, modality): Path(m.path) for m in masks[::-1] if _about(m, word)} for word in _SUBJECTS)
    return [
        Case(stem(file.path)[: -len(modality) - 1], Path(file.path), lesions.get(base), brains.get(base), file.subject)
        for file in scans
        for base in [_base(file, modality)]
    ]


def find_folder(root: Path, modality: str = "T2w") -> list[Case]:
    """Every scan below `root`, whatever its modality, but what `looks_like_a_label`."""
    return _loose(sorted(_files(root)), root)


_FINDERS: dict[str, Callable[[Path, str], list[Case]]] = {"hcp": find_hcp, "brats": find_brats, "folder": find_folder}


def looks_like_a_label(path: Path, root: Path | None = None) -> bool:
    """Whether a file is named as a label or mask: its first or last word is one of `LABEL_WORDS`, or it has a `label-`.

    Words are runs of letters, so digits and signs part them. The folders between `root` and the file count as well.

    >>> [looks_like_a_label(Path(name)) for name in ("b_seg.nii", "a_dseg_2.nii", "labelsTr/a.nii", "Seganita_T2w.nii")]
    [True, True, False, False]
    >>> looks_like_a_label(Path("x/labelsTr/a.nii"), Path("x"))
    True
    """
    folders = path.parent.relative_to(root).parts if root else ()
    words = [re.findall("[a-z]+", name.lower()) for name in (stem(path), *folders)]
    outer = {word for run in words if run for word in (run[0], run[-1])}
    return bool(outer & LABEL_WORDS) or re.search("(^|_)label-", stem(path)) is not None


def read_manifest(path: PathLike) -> list[Case]:
    """Cases of a tab-separated table with the columns `id image [label] [mask] [group] [subject]`.

    Args:
        path: The table; its relative paths count from its folder, an empty cell or `n/a` means none.

    Raises:
        CohortError: A column is unknown, missing or there twice, a cell is missing, an id is there twice or cannot
            name a folder, or a file does not exist.
    """
    path = Path(path)
    try:
        with path.open(encoding="utf-8-sig", newline="") as stream:
            rows = enumerate(csv.reader(stream, delimiter="\t", quoting=csv.QUOTE_NONE), 1)
            lines = [(line, row) for line, row in rows if any(map(str.strip, row))]
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise CohortError(f"cannot be read as a table ({error})", where=path, remedy="save it as UTF-8 text") from error
    columns = [name.strip() for name in lines[0][1]] if lines else []
    _check_columns(columns, path)
    cases: dict[str, Case] = {}
    at: dict[str, int] = {}
    for line, row in lines[1:]:
        case = _manifest_case(columns, row, path, line)
        if case.id in cases:
            what = f"lines {at[case.id]} and {line} have the id {case.id!r}"
            raise CohortError(what, where=path, remedy="rename one; results are kept by id")
        cases[case.id], at[case.id] = case, line
    _check_files(cases, at, path)
    return list(cases.values())


def parse_entities(text: str) -> dict[str, str]:
    """BIDS entities written as on the command line.

    >>> parse_entities("acq=highres,run=1")
    {'acq': 'highres', 'run': '1'}

    Raises:
        UsageError: Something else than `key=value` pairs.
    """
    pairs = [pair.strip().partition("=") for pair in text.split(",") if pair.strip()]
    if not all(key and sign and value for key, sign, value in pairs):
        raise UsageError(f"--filter {text}", remedy="write it like acq=highres,run=1")
    return {key.strip(): value.strip().removeprefix(f"{key.strip()}-") for key, _, value in pairs}


class _BidsName(NamedTuple):
    """A file of a BIDS tree, its name taken apart; sorts by path."""

    path: str
    entities: tuple[tuple[str, str], ...]
    words: frozenset[str]  # parts that are neither entity nor suffix, as in sub-1_lesion_mask
    suffix: str

    @property
    def subject(self) -> str:
        return "sub-" + dict(self.entities).get("sub", "")


_SUBJECTS = ("lesion", "brain")  # what a mask can show


def _bids_name(path: str) -> _BidsName:
    *parts, suffix = stem(path).split("_")
    pairs = [part.partition("-") for part in parts]
    entities = tuple((key, value) for key, sign, value in pairs if sign)
    return _BidsName(path, entities, frozenset(key for key, sign, _ in pairs if not sign), suffix)


def _bids_files(folder: str, levels: int = 0) -> Iterator[str]:
    """Volumes in `sub-*/[ses-*/]<datatype>/`, the `sub-*` up to `levels` folders deeper."""
    for entry in _entries(folder):
        if entry.name in BIDS_DATATYPES and entry.is_dir():
            yield from (e.path for e in _entries(entry.path) if e.name.endswith(SUFFIXES))
        elif entry.name.startswith(("sub-", "ses-")) and entry.is_dir():
            yield from _bids_files(entry.path)
        elif levels and entry.is_dir():
            yield from _bids_files(entry.path, levels - 1)


def _has(file: _BidsName, wanted: Mapping[str, str]) -> bool:
    own = dict(file.entities)
    return all(key in own and _index(key, own[key]) == _index(key, value) for key, value in wanted.items())


def _index(key: str, value: str) -> str | int:
    return int(value) if key in BIDS_INDICES and value.isdecimal() else value


def _base(file: _BidsName, modality: str) -> object:
    """What a mask and its scan have in common."""
    return (
        frozenset(pair for pair in file.entities if pair[0] not in ("desc", "label")),
        file.words - {*_SUBJECTS, modality},
    )


def _about(mask: _BidsName, what: str) -> bool:
    own = dict(mask.entities)
    return any(what in word.lower() for word in (own.get("desc", ""), own.get("label", ""), *mask.words))


def _nothing_in_bids(
    root: Path, files: list[_BidsName], of_suffix: list[_BidsName], modality: str, wanted: Mapping[str, str]
) -> CohortError:
    if of_suffix:
        pairs = sorted({pair for file in of_suffix for pair in file.entities if pair[0] != "sub"})
        there = [f"{key} ({', '.join(v for _, v in some)})" for key, some in itertools.groupby(pairs, lambda p: p[0])]
        asked = ", ".join(f"{key}-{value}" for key, value in wanted.items())
        what = f"none of {len(of_suffix)} {modality} scans has {asked}"
        return CohortError(what, where=root, remedy=f"filter by what there is: {', '.join(there) or 'no entities'}")
    counts = Counter(file.suffix for file in files if file.suffix not in BIDS_MASKS)
    there = [f"{suffix} ({count})" for suffix, count in counts.most_common()]
    remedy = "give the folder that holds the sub-* folders, or another layout: --dataset"
    if there:
        remedy = f"choose with --modality what there is: {', '.join(there)}"
    return CohortError(f"no {modality} scans found in sub-*/[ses-*/]*/", where=root, remedy=remedy)


def _recognise(root: Path) -> str:
    if (root / "dataset_description.json").is_file() or any(
        next(root.glob(f"sub-*/{session}anat"), None) for session in ("", "ses-*/")
    ):
        return "bids"
    for path in _files(root):
        if path.name in HCP_FILES.values() and path.parent.name == "T1w":
            return "hcp"
        if any(_is_brats(path, ending) for endings in BRATS_ENDINGS.values() for ending in endings):
            return "brats"
    return "folder"


def _is_brats(path: Path, ending: str) -> bool:
    return path.name.endswith(SUFFIXES) and stem(path) == path.parent.name + ending


def _loose(paths: Iterable[Path], root: Path | None) -> list[Case]:
    scans = [p for p in paths if p.name.endswith(SUFFIXES) and not p.name.startswith(".") and not p.is_dir()]
    kept = [Case(stem(p), p) for p in scans if not looks_like_a_label(p, root)]
    if scans and not kept:
        raise CohortError(
            f"all {len(scans)} files are named as labels or masks ({scans[0].name})",
            where=root or scans[0].parent,
            remedy="give one of them by its own name, or list the scans in a manifest",
        )
    return kept


def _files(root: Path) -> Iterator[Path]:
    """Files below a folder, hidden ones and those in hidden folders left out; every folder once, links last."""
    waiting, seen = deque([root]), set()
    while waiting:
        folder = waiting.popleft()
        place = folder.stat()
        if (place.st_dev, place.st_ino) in seen:
            continue
        seen.add((place.st_dev, place.st_ino))
        for entry in _entries(str(folder)):
            if not entry.is_dir():
                yield Path(entry.path)
            elif entry.is_symlink():
                waiting.append(Path(entry.path))
            else:
                waiting.appendleft(Path(entry.path))


def _entries(folder: str) -> list[os.DirEntry[str]]:
    """What a folder holds but for hidden names; nothing if there is no such folder."""
    try:
        with os.scandir(folder) as entries:
            return [entry for entry in entries if not entry.name.startswith(".")]
    except FileNotFoundError:
        return []
    except OSError as error:
        what = f"the folder cannot be read ({error.strerror})"
        raise CohortError(what, where=folder, remedy="check its permissions") from error


def _beside(image: Path, name: str) -> Path | None:
    path = image.with_name(name)
    return path if path.is_file() else None


def _by_pattern(cases: Sequence[Case], pattern: str, what: str, endings: Sequence[str]) -> list[Path | None]:
    """The label or mask of every case by a pattern or in a folder; none where a case has none, unless all have none."""
    unknown = [name for name in re.findall(r"\{(.*?)\}", pattern) if name not in PLACEHOLDERS]
    if unknown:
        known = ", ".join(f"{{{name}}}" for name in PLACEHOLDERS)
        raise UsageError(f"--{what} {pattern}: unknown placeholder {{{unknown[0]}}}", remedy=f"there are {known}")
    tried = [_candidates(case, pattern, endings) for case in cases]
    found = [[p for p in paths if p.is_file() and p != case.image] for case, paths in zip(cases, tried, strict=True)]
    if not any(found):
        raise CohortError(
            f"--{what} finds no file for any of {len(cases)} cases",
            where=tried[0][0],
            why="this is the first path that was tried",
            remedy="check the pattern; {id}, {name} and {dir} stand for the case, the scan's name and its folder",
        )
    several = [(case.id, paths) for case, paths in zip(cases, found, strict=True) if len(paths) > 1]
    if several:
        (name, paths), *_ = several
        text = f"--{what} {pattern} finds {len(paths)} files: {paths[0]} and {paths[1]}"
        raise CohortError(text, where=name, remedy="make the pattern narrower, so that one is left")
    return [paths[0] if paths else None for paths in found]


def _candidates(case: Case, pattern: str, endings: Sequence[str]) -> list[Path]:
    """Where the file of a case may be: what is there in a folder or by wildcards, or else the first path thought of."""
    values = {"id": case.id, "name": stem(case.image), "dir": str(case.image.parent.absolute())}
    plain = Path(_filled(pattern, values)).expanduser()
    path = case.image.parent / plain  # an absolute one stays itself
    folder = next((f for f in (plain, path) if f.is_dir()), None)
    if folder:
        names = [f"{key}{end}{suffix}" for end in endings for key in (case.id, values["name"]) for suffix in SUFFIXES]
        there = (folder / name for name in names if (folder / name).is_file() and folder / name != case.image)
        return [next(there, folder / names[0])]
    if not set(pattern) & set("*?"):
        return [path]
    quoted = {key: glob.escape(value) for key, value in {**values, "parent": str(case.image.parent)}.items()}
    wild = Path(quoted["parent"]) / Path(_filled(pattern, quoted)).expanduser()
    return sorted(map(Path, glob.glob(str(wild), recursive=True))) or [path]


def _filled(pattern: str, values: Mapping[str, str]) -> str:
    return re.sub(r"\{(\w+)\}", lambda match: values[match[1]], pattern)


def _check_columns(columns: list[str], path: Path) -> None:
    for name in columns:
        if name not in MANIFEST_COLUMNS:
            near = difflib.get_close_matches(name, MANIFEST_COLUMNS, n=1, cutoff=0.0)[0]
            raise CohortError(
                f"line 1: unknown column {name!r}",
                where=path,
                remedy=f"did you mean {near!r}? Tab-separated columns are {' '.join(MANIFEST_COLUMNS)}",
            )
    missing = [f"{name!r} is missing" for name in ("id", "image") if name not in columns]
    wrong = missing or [f"{name!r} is there twice" for name in MANIFEST_COLUMNS if columns.count(name) > 1]
    if wrong:
        remedy = "the first line names the columns, parted by tabs"
        raise CohortError(f"line 1: the column {wrong[0]}", where=path, remedy=remedy)


def _manifest_case(columns: list[str], row: list[str], path: Path, line: int) -> Case:
    if len(row) > len(columns):
        what = f"line {line}: {len(row)} cells in {len(columns)} columns"
        raise CohortError(what, where=path, remedy="remove the tabs that are too many")
    cells = {name: "" if cell.strip() == "n/a" else cell.strip() for name, cell in zip(columns, row, strict=False)}
    empty = [name for name in ("id", "image") if not cells.get(name)]
    if empty:
        raise CohortError(f"line {line}: no {empty[0]}", where=path, remedy="fill the cell in, or remove the line")
    if re.search(r"[/\\]|^\.", cells["id"]):
        what = f"line {line}: the id {cells['id']!r} cannot name a folder"
        raise CohortError(what, where=path, remedy="use no slashes and no leading dot")
    label, mask = (path.parent / cells[key] if cells.get(key) else None for key in ("label", "mask"))
    subject, group = cells.get("subject", ""), cells.get("group") or None
    return Case(cells["id"], path.parent / cells["image"], label, mask, subject, group)


def _check_files(cases: Mapping[str, Case], at: Mapping[str, int], path: Path) -> None:
    for what in ("image", "label", "mask"):
        files = [(at[case.id], file) for case in cases.values() if (file := getattr(case, what)) is not None]
        missing = [f"line {line}: {file}" for line, file in files if not file.is_file()]
        if missing:
            more = f" and {len(missing) - 3} more" if len(missing) > 3 else ""
            raise CohortError(
                f"{len(missing)} of {len(files)} {what} files do not exist ({'; '.join(missing[:3])}{more})",
                where=path,
                remedy=f"paths count from {path.parent}; write n/a where there is none",
            )


def _unique(cases: list[Case], source: PathLike) -> list[Case]:
    if not cases:
        raise CohortError(
            "no scans found",
            where=str(source),
            remedy=f"give a file, a folder or a quoted glob ({', '.join(SUFFIXES)}), or name the layout: --dataset",
        )
    first: dict[str, Case] = {}
    for case in cases:
        if case.id in first:
            raise CohortError(
                f"two scans have the id {case.id!r}: {first[case.id].image} and {case.image}",
                where=str(source),
                why="one would overwrite the results of the other",
                remedy="rename one, or run the two folders one by one",
            )
        first[case.id] = case
    return sorted(cases, key=lambda case: case.id)
