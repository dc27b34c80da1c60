"""Give every case its lesion labels and its brain mask, from the layout or from places that the user names."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import replace
from pathlib import Path

from anofield._progress import say
from anofield._words import counted, named
from anofield.data.cohort.bids import mask_files
from anofield.data.cohort.case import Case
from anofield.data.cohort.companions import LABEL, MASK, Found, Usable, chosen, sort_out
from anofield.data.cohort.kinds import FileKind
from anofield.data.cohort.patterns import find_at, first_tried
from anofield.data.cohort.walk import entries_of
from anofield.errors import CohortError

LAYOUT_LABELS = {  # kinds of names that are labels without being asked for: a dseg of BIDS or HCP shows tissues
    "hcp": LABEL.only(FileKind.LESION),
    "brats": LABEL.only(FileKind.LESION, FileKind.SEGMENTATION),
    "bids": LABEL.only(FileKind.LESION),
}
BRAIN = MASK.only(FileKind.BRAIN_MASK)


def with_own(
    cases: Sequence[Case], layout: str, root: Path, *, labels: bool = True, masks: bool = True, unite: bool = False
) -> list[Case]:
    """The cases with the labels and masks of their layout; what was left out is named on stderr.

    Args:
        cases: The cases; those of a manifest have labels and masks already.
        layout: `hcp`, `brats`, `bids`, `manifest`, or a layout that has neither labels nor masks.
        root: Folder of the layout.
        labels: Whether labels are wanted; without them the cases lose those that they have.
        masks: The same for masks.
        unite: Whether several labels of a case are united.

    Raises:
        CohortError: A case has several labels or masks, or a file of a manifest is a scan or a result of this package.
    """
    beside = _of_layout(cases, layout, root)
    truth = chosen(beside["label"], LABEL, unite=unite) if labels else {}
    brain = chosen(beside["mask"], MASK) if masks else {}
    for wanted, what in ((labels, "label"), (masks, "mask")):
        if wanted:
            beside[what].say(root)
    if masks:
        _say_sources(cases, brain)
    return [_with(case, truth.get(case.id, ()), brain.get(case.id, ())) for case in cases]


def with_given(
    cases: Sequence[Case], *, label: str | None = None, mask: str | None = None, unite: bool = False
) -> list[Case]:
    """The cases with the labels and masks at the places that the user names; None leaves them as they are.

    Args:
        cases: The cases.
        label: Place of the labels, see `find_at`.
        mask: Place of the brain masks.
        unite: Whether several labels of a case are united.

    Raises:
        UsageError: A pattern holds an unknown placeholder.
        CohortError: A case has several labels or masks, no case has a label there, or a case has no mask there.
    """
    if label is not None:
        truth = chosen(labels_at(cases, label), LABEL, unite=unite)
        cases = [_with(case, truth.get(case.id, ()), filter(None, [case.mask])) for case in cases]
    if mask is not None:
        brain = chosen(_masks_at(cases, mask), MASK)
        cases = [replace(case, mask=brain[case.id][0]) for case in cases]
    return list(cases)


def labels_at(cases: Sequence[Case], place: str, option: str = "--label", dataset: str = "auto") -> Found:
    """Labels at a place that the user names; cases without a label and labels without a case are named on stderr.

    Args:
        cases: The cases.
        place: The place, see `find_at`.
        option: Option that names the place, for errors.
        dataset: Layout whose names the labels have; with `auto` and `folder` any name that fits a case.

    Raises:
        UsageError: The pattern holds an unknown placeholder.
        CohortError: No case has a label there, or one file is the label of several cases.
    """
    found = find_at(cases, place, LAYOUT_LABELS.get(dataset, LABEL), option)
    found.say(place)
    if not found.files:
        raise _nothing(cases, place, found, option)
    say_unlabelled([case.id for case in cases if case.id not in found.files], len(cases))
    return found


def say_unlabelled(without: Sequence[str], total: int) -> None:
    """Count and name on stderr the cases without a label, if there are some."""
    if without:
        have = "has" if len(without) == 1 else "have"
        say(f"{len(without)} of {counted(total, 'case')} {have} no label: {named(without, 10)}")


def _masks_at(cases: Sequence[Case], place: str) -> Found:
    """Masks at a place that the user names, one for every case."""
    found = find_at(cases, place, MASK, "--mask")
    if not found.files:
        raise _nothing(cases, place, found, "--mask")
    missing = [case for case in cases if case.id not in found.files]
    if missing:
        raise CohortError(
            f"{len(missing)} of {counted(len(cases), 'case')} have no mask at {place}: "
            f"{named((case.id for case in missing), 10)}",
            where=first_tried(missing[0], place),
            why="without a mask every voxel that is not 0 would be taken for brain",
            remedy="make the missing masks, or list the cases with their masks in a manifest",
        )
    found.say(place)
    return found


def _nothing(cases: Sequence[Case], place: str, found: Found, option: str) -> CohortError:
    ours = f"; {counted(len(found.own), 'file')} there {'was' if len(found.own) == 1 else 'were'} written by anofield"
    nobodys = "no label belongs to any case of the run: " if option == "-t" else ""
    reasons = "".join(f"; {reason}" for reason in found.unclear[:1])
    return CohortError(
        f"{nobodys}{option} finds no file for any of {counted(len(cases), 'case')}{ours if found.own else ''}{reasons}",
        where=first_tried(cases[0], place),
        why=f"this is the first path that was tried; cases are called {named(case.id for case in cases)}",
        remedy="check the place; {id}, {name} and {dir} stand for the case, the scan's name and its folder, and files "
        "in a folder must be named after the cases, like `<case>_seg.nii.gz`",
    )


def _of_layout(cases: Sequence[Case], layout: str, root: Path) -> dict[str, Found]:
    """Labels and masks that the layout has."""
    if layout == "manifest":
        _check_listed(cases)
        return {
            "label": Found({case.id: list(case.labels) for case in cases if case.labels}),
            "mask": Found({case.id: [case.mask] for case in cases if case.mask is not None}),
        }
    if layout not in LAYOUT_LABELS:
        return {"label": Found(), "mask": Found()}
    bids = layout == "bids"
    files = mask_files(root) if bids else _beside(cases)
    labels = sort_out(cases, LAYOUT_LABELS[layout], files, root)
    labels.strangers = []  # of cases that were not asked for
    return {"label": labels, "mask": sort_out(cases, BRAIN, files, root) if bids else Found()}


def _beside(cases: Sequence[Case]) -> list[Path]:
    """Files in the folders of the scans."""
    folders = sorted({case.image.parent for case in cases})
    return [Path(entry.path) for folder in folders for entry in entries_of(str(folder)) if entry.is_file()]


def _check_listed(cases: Sequence[Case]) -> None:
    """Refuse a label or mask of a manifest that is a scan or a result of this package."""
    usable = Usable(cases)
    for case in cases:
        for path in (*case.labels, *filter(None, [case.mask])):
            found = Found()
            if not usable.may_be(path, found, [case]):
                what = "was written by anofield" if found.own else "is a scan"
                raise CohortError(
                    f"is listed as label or mask of {case.id}, but {what}",
                    where=path,
                    remedy="list a label or mask from another source, or n/a",
                )


def _say_sources(cases: Sequence[Case], masks: dict[str, tuple[Path, ...]]) -> None:
    """If only some cases have a mask, say how many take which source of the brain."""
    bare = [case.id for case in cases if case.id not in masks]
    if masks and bare:
        count = f"{len(masks)} of {counted(len(cases), 'scan')}"
        say(f"brain: from a mask in {count}, from the voxels that are not 0 in {len(bare)} ({named(bare, 10)})")


def _with(case: Case, labels: Iterable[Path], masks: Iterable[Path]) -> Case:
    files = tuple(labels)
    return replace(case, label=next(iter(files), None), more_labels=files[1:], mask=next(iter(masks), None))
