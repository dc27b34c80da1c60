"""Find the lesion labels and brain masks of cases: the one place that decides which file is the label of a case.

`check`, `prepare`, `calibrate`, `detect` and `evaluate` use it. Names have one order of meaning (`LABEL`, `MASK`). A
scan is never its own label, and what this package wrote itself is never a label or a mask.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from anofield._progress import say
from anofield._words import counted, named
from anofield.data.cohort.case import Case
from anofield.data.cohort.kinds import FileKind, kind_of
from anofield.data.cohort.own import is_result, own_folder
from anofield.data.cohort.owners import Owners
from anofield.data.cohort.walk import files_below
from anofield.data.scan import stem
from anofield.data.volume import volume_hash
from anofield.errors import CohortError


@dataclass(frozen=True)
class Sought:
    """What is looked for.

    Attributes:
        noun: Its name in texts and of its option.
        ranks: Kinds of names that it may have; the file with the lowest rank is taken.
    """

    noun: str
    ranks: Mapping[FileKind, int]

    def only(self, *kinds: FileKind) -> Sought:
        """The same with fewer kinds of names."""
        return Sought(self.noun, {kind: rank for kind, rank in self.ranks.items() if kind in kinds})


LABEL = Sought("label", {FileKind.LESION: 0, FileKind.SEGMENTATION: 0, FileKind.PLAIN: 1, FileKind.MASK: 2})
BIDS_LABEL = Sought(
    "label", {FileKind.LESION: 0, FileKind.SEGMENTATION: 1, FileKind.PLAIN: 2, FileKind.MASK: 3}
)  # a dseg shows tissues
MASK = Sought(
    "mask", {FileKind.BRAIN_MASK: 0, FileKind.MASK: 1, FileKind.BRAIN: 2, FileKind.PLAIN: 3, FileKind.SEGMENTATION: 4}
)
TRUTHS = (FileKind.LESION, FileKind.SEGMENTATION)  # names that say that a file is a label


@dataclass
class Found:
    """Files that were found.

    Attributes:
        files: Files of each case that has some, those of the lowest rank.
        strangers: Labels that belong to no case.
        own: Files that were left out because this package wrote them.
        unclear: Files that were left out because their case is unclear, with the reason.
    """

    files: dict[str, list[Path]] = field(default_factory=dict)
    strangers: list[Path] = field(default_factory=list)
    own: list[Path] = field(default_factory=list)
    unclear: list[str] = field(default_factory=list)

    def say(self, where: object) -> None:
        """Name on stderr what was left out."""
        if self.strangers:
            text = (
                f"{counted(len(self.strangers), 'label')} there {'belongs' if len(self.strangers) == 1 else 'belong'}"
            )
            say(f"{where}: {text} to no case: {named(path.name for path in self.strangers)}")
        if self.own:
            text = f"{counted(len(self.own), 'file')} left out that anofield wrote itself"
            say(f"{where}: {text}: {named(map(str, self.own))}")
        for reason in self.unclear:
            say(reason)


def volumes_below(root: Path) -> list[Path]:
    """Volumes below a folder, sorted; folders that this package wrote are left out, except `root` itself."""
    ours: dict[Path, bool] = {root: False}

    def inside(folder: Path) -> bool:
        """Whether a folder lies in a folder of this package."""
        if folder not in ours:
            ours[folder] = inside(folder.parent) or bool(own_folder(folder))
        return ours[folder]

    return sorted(path for path in files_below(root, []) if is_volume(path) and not inside(path.parent))


def is_volume(path: Path) -> bool:
    """Whether a file has the name of a volume; an `.img` belongs to its `.hdr`."""
    return stem(path) != path.name and path.suffix.lower() != ".img"


def sort_out(cases: Sequence[Case], sought: Sought, paths: Iterable[Path], root: Path | None = None) -> Found:
    """Find the cases of some files by name, BIDS entities or folder, and keep the files of the lowest rank per case.

    Args:
        cases: The cases.
        sought: What is looked for.
        paths: Files.
        root: Folder that was searched, if one was.
    """
    owners, found, usable = Owners(cases), Found(), Usable(cases)
    by_id, ranked = {case.id: case for case in cases}, defaultdict[str, list[tuple[int, Path]]](list)
    volumes = [path for path in paths if is_volume(path)]
    for path in volumes:
        owners.see(path)
    claims = [(path, owners.of(path, root)) for path in volumes]
    for path, claim in claims:
        if claim is None:
            continue
        if "anofield" in stem(path):  # the name of a detection is no label's, but say that it was seen
            usable.of_us(path, found)
        ranks = BIDS_LABEL.ranks if sought is LABEL and stem(path).startswith("sub-") else sought.ranks
        if claim.kind not in ranks or not usable.may_be(path, found, [by_id[one] for one in claim.ids]):
            continue
        if claim.unclear:
            found.unclear.append(f"{path}: not taken as {sought.noun}: {claim.unclear}")
        for one in claim.ids:
            ranked[one].append((ranks[claim.kind], path))
    for one, files in ranked.items():
        found.files[one] = usable.once(path for rank, path in files if rank == min(files)[0])
    if sought.noun == "label":
        plain = any(claim is not None and claim.kind is FileKind.PLAIN for path, claim in claims if _taken(path, found))
        nobodys = [path for path, claim in claims if claim is None and _named_as_label(path, plain)]
        found.strangers = [path for path in nobodys if usable.may_be(path, found, ())]
    return found


def _taken(path: Path, found: Found) -> bool:
    return any(path in files for files in found.files.values())


def _named_as_label(path: Path, plain: bool) -> bool:
    """Whether a file of no case has the name of a label; if labels are `plain`, named as their cases, others may be."""
    kind = kind_of(stem(path))
    return kind in TRUTHS or (plain and kind is FileKind.OTHER)


class Usable:
    """Tells files that may be labels from scans and from results of this package.

    Args:
        cases: Cases whose scans are no labels.
    """

    def __init__(self, cases: Sequence[Case]) -> None:
        self.scans = {place for case in cases if (place := _place(case.image)) is not None}

    def may_be(self, path: Path, found: Found, cases: Sequence[Case]) -> bool:
        """Whether a file may be the label or mask of cases; a result of this package is added to `found.own`."""
        if _place(path) in self.scans or any(_same_content(path, case.image) for case in cases):
            return False
        return not self.of_us(path, found)

    def of_us(self, path: Path, found: Found) -> bool:
        """Whether this package wrote the file, which is then added to `found.own`."""
        if not is_result(path):
            return False
        if path not in found.own:
            found.own.append(path)
        return True

    @staticmethod
    def once(paths: Iterable[Path]) -> list[Path]:
        """The files without links to, and copies of, those before them."""
        kept: list[Path] = []
        for path in paths:
            if not any(_place(path) == _place(other) or _same_content(path, other) for other in kept):
                kept.append(path)
        return kept


def chosen(found: Found, sought: Sought, *, unite: bool = False) -> dict[str, tuple[Path, ...]]:
    """The files of every case that has some: one, or all of them if they are united.

    Args:
        found: The files.
        sought: What was looked for.
        unite: Whether several files of a case are united.

    Raises:
        CohortError: A case has several files that are not united; the error lists them.
    """
    several = {one: files for one, files in found.files.items() if len(files) > 1}
    if several and not unite:
        lists = [f"{one}: {', '.join(map(str, files))}" for one, files in sorted(several.items())[:3]]
        more = f"; and {len(several) - 3} more" if len(several) > 3 else ""
        also = ", or unite them with --unite-labels (a voxel counts if one of them labels it)"
        raise CohortError(
            f"{counted(len(several), 'case')} with several {sought.noun}s ({'; '.join(lists)}{more})",
            why="which of them is right cannot be guessed",
            remedy=f"choose one by a pattern for the {sought.noun}s{also if sought.noun == 'label' else ''}",
        )
    return {one: tuple(files) for one, files in found.files.items() if files}


def _place(path: Path) -> tuple[int, int] | None:
    """Device and inode of a file, the same for all links to it; None if there is no file."""
    try:
        about = path.stat()
    except OSError:
        return None
    return (about.st_dev, about.st_ino) if path.is_file() else None


def _same_content(path: Path, other: Path) -> bool:
    """Whether two files hold the same bytes; empty files are not compared."""
    try:
        size = path.stat().st_size
        return bool(size) and size == other.stat().st_size and volume_hash(path) == volume_hash(other)
    except OSError:
        return False
