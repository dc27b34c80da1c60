"""Which cases a label or mask belongs to: by its name, by its BIDS entities, or by the folder that it lies in."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

from anofield.data.cohort.case import Case
from anofield.data.cohort.kinds import CONTRASTS, FileKind, kind_of
from anofield.data.scan import stem

INDICES = ("run", "echo", "flip", "inv", "split", "chunk")  # BIDS entities that are numbers: run-01 is run-1
OF_LABELS = ("desc", "label", "hemi")  # BIDS entities that a label has and its scan has not
SEPARATORS = "_-. "
Entities = frozenset[tuple[str, str | int]]


class Claim(NamedTuple):
    """The cases that a file belongs to, and what the file is; `unclear` says why none was chosen among several."""

    ids: tuple[str, ...]
    kind: FileKind
    unclear: str = ""


class Owners:
    """Finds the cases of files.

    Args:
        cases: All cases that files may belong to.
    """

    def __init__(self, cases: Sequence[Case]) -> None:
        self.names = _names_of(cases)
        self.contrasts = _contrasts_of(cases)
        self.homes = _homes_of(cases, self.names)
        self.bids: defaultdict[Entities, list[str]] = defaultdict(list)
        self.words: dict[Entities, set[str]] = {}
        self.sessions: defaultdict[str | int, set[str | int]] = defaultdict(set)
        for case in cases:
            self._add_bids(case)

    def of(self, path: Path, root: Path | None = None) -> Claim | None:
        """The cases that a file belongs to, and what it is; None if its name and folders name no case.

        Args:
            path: The file.
            root: Folder that was searched; folders above it are ignored.
        """
        name = stem(path)
        if self.bids and name.startswith("sub-"):
            return self._by_entities(name)
        return self._by_name(name) or self._by_folder(path, name, root)

    def see(self, path: Path) -> None:
        """Take note of the session that a file of a BIDS tree names."""
        entities, _ = parse_entities_of(stem(path))
        if "sub" in entities and "ses" in entities:
            self.sessions[entities["sub"]].add(entities["ses"])

    def _add_bids(self, case: Case) -> None:
        """Entities of a case: those of its id, else of its scan's name."""
        for name in (stem(case.image), case.id):
            entities, words = parse_entities_of(name)
            if "sub" in entities:
                key = _of_scan(entities)
                if case.id not in self.bids[key]:
                    self.bids[key].append(case.id)
                self.words.setdefault(key, set()).update(words)
                self.see(Path(name))
        for folder in case.image.parents[1:3]:  # sub-*/ses-*/anat/
            if folder.name.startswith("ses-"):
                self.sessions[folder.parent.name.removeprefix("sub-")].update(
                    one.name.removeprefix("ses-") for one in folder.parent.glob("ses-*")
                )

    def _by_entities(self, name: str) -> Claim | None:
        entities, words = parse_entities_of(name)
        key = _of_scan(entities)
        ids = self.bids.get(key, [])
        own = self.words.get(key, set())
        kind = _bids_kind(entities, [word for word in words if word not in own])
        if kind is None or "sub" not in entities or _of_other_contrast(words, {word.lower() for word in own}):
            return None
        if ids or "ses" in entities:
            return Claim(tuple(ids), kind) if ids else None
        return self._of_any_session(key, entities["sub"], kind)

    def _of_any_session(self, key: Entities, subject: str | int, kind: FileKind) -> Claim | None:
        """A file without a session belongs to a scan with one if the subject has no other session."""
        ids = [one for other, some in self.bids.items() if _without_session(other) == key for one in some]
        count = len(self.sessions[subject])
        if not ids:
            return None
        if count == 1:
            return Claim(tuple(ids), kind)
        return Claim((), kind, f"it names no session, and sub-{subject} has {count}")

    def _by_name(self, name: str) -> Claim | None:
        """By the longest beginning of the name that is the name of a case."""
        ends = [len(name), *(n for n in range(len(name) - 1, 0, -1) if name[n] in SEPARATORS)]
        for end in ends:
            if name[:end] in self.names:
                kind = kind_of(name[end:], strict=True)
                if kind is None or _of_other_contrast(name[end:].split("_"), self.contrasts.get(name[:end])):
                    return None
                return Claim(tuple(self.names[name[:end]]), kind)
        return None

    def _by_folder(self, path: Path, name: str, root: Path | None) -> Claim | None:
        """By the nearest folder that is the case's own, or has its name; other words of the name are ignored."""
        for level, folder in enumerate(path.absolute().parents):
            outside = root is not None and not folder.is_relative_to(root.absolute())
            if level > 1 and (outside or root is None):  # two folders, as in <case>/T1w/
                break
            known = self.homes.get(folder) or ([] if outside else self.names.get(folder.name, []))
            if known:
                kind = kind_of(name.removeprefix(folder.name)) or FileKind.OTHER
                return Claim(tuple(known), kind)
        return None


def parse_entities_of(name: str) -> tuple[dict[str, str | int], list[str]]:
    """BIDS entities of a file name without suffix, and its other words.

    >>> parse_entities_of("sub-1_run-02_label-lesion_mask")
    ({'sub': '1', 'run': 2, 'label': 'lesion'}, ['mask'])
    """
    parts = [part.partition("-") for part in name.split("_")]
    entities = {
        key: int(value) if key in INDICES and value.isdecimal() else value for key, sign, value in parts if sign
    }
    return entities, [key for key, sign, _ in parts if not sign]


def _of_scan(entities: Mapping[str, str | int]) -> Entities:
    return frozenset(pair for pair in entities.items() if pair[0] not in OF_LABELS)


def _without_session(entities: Entities) -> Entities:
    return frozenset(pair for pair in entities if pair[0] != "ses")


def _bids_kind(entities: Mapping[str, str | int], words: Sequence[str]) -> FileKind | None:
    """What a BIDS file is; a `label-` that is neither lesion nor brain is a tissue."""
    if kind_of("_".join(words), strict=True) is None:
        return None
    about = [str(entities.get(key, "")) for key in ("label", "desc")]
    kind = kind_of("_".join([*about, *words])) or FileKind.OTHER
    said = "label" in entities and kind in (FileKind.SEGMENTATION, FileKind.MASK, FileKind.PLAIN)
    return FileKind.OTHER if said and kind_of(about[0]) is FileKind.OTHER else kind


def _names_of(cases: Sequence[Case]) -> dict[str, list[str]]:
    """Names that files may begin with, and the cases that have them.

    These are the id, the name of the scan if no other scan has it, and both without channel or contrast at the end.
    """
    names: defaultdict[str, list[str]] = defaultdict(list)
    stems: defaultdict[str, list[str]] = defaultdict(list)
    for case in cases:
        names[case.id].append(case.id)
        stems[stem(case.image)].append(case.id)
    for name, ids in stems.items():
        if name and len(ids) == 1 and name not in names:
            names[name] = ids
    for name, ids in [*names.items()]:
        short, _, end = name.rpartition("_")
        channel = len(end) == 4 and end.isdecimal()  # nnU-Net: a_0000
        if short and (channel or end.lower() in CONTRASTS) and short not in {case.id for case in cases}:
            names[short] += [one for one in ids if one not in names[short]]
    return dict(names)


def _contrasts_of(cases: Sequence[Case]) -> dict[str, set[str]]:
    """Contrasts of scans by their name without it: `a_T2w` and `a_FLAIR` give `a`: t2w and flair."""
    found: defaultdict[str, set[str]] = defaultdict(set)
    for name in {name for case in cases for name in (case.id, stem(case.image))}:
        short, _, end = name.rpartition("_")
        if short and end.lower() in CONTRASTS:
            found[short].add(end.lower())
    return found


def _of_other_contrast(words: Sequence[str], own: set[str] | None) -> bool:
    """Whether a label was drawn on another contrast than that of its scans, as far as both are known."""
    drawn = {word.lower() for word in words} & CONTRASTS
    return bool(drawn and own and own & CONTRASTS and not drawn & own)


def _homes_of(cases: Sequence[Case], names: Mapping[str, list[str]]) -> dict[Path, list[str]]:
    """Folders of a case's own, which have its name and hold its scan, as in HCP and BraTS trees."""
    found: defaultdict[Path, list[str]] = defaultdict(list)
    for case in cases:
        for folder in case.image.absolute().parents[:2]:
            if case.id in names.get(folder.name, ()):
                found[folder].append(case.id)
    return dict(found)
