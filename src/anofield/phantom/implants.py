"""A BIDS tree of real scans with implanted lesions, their labels and brain masks."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from anofield._files import write_bytes, write_json
from anofield._words import named
from anofield.data.brain import as_stripped
from anofield.data.cohort.case import Case
from anofield.data.scan import write_like
from anofield.errors import CohortError, ScanError, UsageError
from anofield.phantom.contrast import MODALITIES
from anofield.phantom.host import host_of
from anofield.phantom.onto import implant_in
from anofield.phantom.person import check_kind
from anofield.phantom.tree import LABELS, TRUTH, describe_tree
from anofield.typing import Json, PathLike

NAME = "anofield phantom --onto"  # of the dataset
README = f"""Real brain scans with lesions that anofield implanted; every session of a subject is one kind of lesion.
The licence of the scans holds for these files as well.

{LABELS}"""


@dataclass(frozen=True)
class Implants:
    """What is implanted into every scan of a cohort: one lesion of each kind, each into a copy of its own.

    Attributes:
        kinds: Kinds of lesions, of `LESION_KINDS`.
        seed: Seed of the lesions.
        modality: Contrast of scans whose names do not tell it; `None` if all do.

    Raises:
        UsageError: There is no kind, or an unknown one.
    """

    kinds: tuple[str, ...]
    seed: int = 0
    modality: str | None = None

    def __post_init__(self) -> None:
        if not self.kinds:
            raise UsageError("no kind of lesion was given", remedy="name kinds with --kinds")
        for kind in self.kinds:
            check_kind(kind)

    def contrast(self, case: Case) -> str:
        """Contrast of a scan.

        Raises:
            UsageError: Nothing tells it.
            ScanError: Lesions have no signals for it.
        """
        known = case.contrast or self.modality
        if not known:
            raise UsageError(
                "its contrast is unknown", where=case.image, remedy="name it with --modality, for example T1w"
            )
        if known not in MODALITIES:
            raise ScanError(
                f"is {known}",
                where=case.image,
                why="the signals of lesions are not known for it",
                remedy=f"give scans in {', '.join(MODALITIES)}",
            )
        return known


def subjects_of(cases: Sequence[Case]) -> dict[str, str]:
    """Labels of BIDS subjects by case id: the ids without contrast and without characters that BIDS does not allow.

    Raises:
        CohortError: Two ids give the same label.
    """
    found: dict[str, str] = {}
    for case in cases:
        name = case.id.removeprefix("sub-").removesuffix(case.contrast)
        found[case.id] = re.sub("[^A-Za-z0-9]", "", name) or "scan"
    labels = [label.lower() for label in found.values()]
    if twice := [name for name, label in found.items() if labels.count(label.lower()) > 1]:
        raise CohortError(
            f"the ids {named(twice)} differ only in their contrast or in characters that BIDS does not allow",
            remedy="list the scans in a manifest with other ids",
        )
    return found


def write_implants(case: Case, *, out: PathLike, subjects: dict[str, str], implants: Implants) -> list[Path]:
    """Write a scan with one lesion of each kind, on its own voxels and with its own geometry.

    Args:
        case: The scan of a healthy person, skull-stripped or with a brain mask.
        out: Folder of the tree; made if missing.
        subjects: BIDS labels of subjects by case id, see `subjects_of`.
        implants: The lesions.

    Returns:
        Paths of the scans, in the order of the kinds.

    Raises:
        ScanError: The scan cannot be used, is not stripped, is labelled already, or has another contrast.
        UsageError: Its contrast is unknown.
    """
    if case.labels:
        raise ScanError(
            f"has a lesion label ({case.labels[0].name})",
            where=case.image,
            why="the truth of an implanted lesion would not be the whole truth",
            remedy="give scans of healthy people",
        )
    modality = implants.contrast(case)
    host = host_of(as_stripped(case.image, case.mask), modality)
    scan, subject, paths = host.native.scan, subjects[case.id], []
    for kind in implants.kinds:
        name, folder = f"sub-{subject}_ses-{kind}", Path(f"sub-{subject}") / f"ses-{kind}" / "anat"
        done = implant_in(host, kind, implants.seed)
        maps = {"label-lesion_mask": done.label, "desc-brain_mask": host.native.brain.astype(np.uint8)}
        for suffix, volume in maps.items():
            write_like(scan, volume, Path(out) / TRUTH / folder / f"{name}_{suffix}.nii.gz", description="")
        paths.append(Path(out) / folder / f"{name}_{modality}.nii.gz")
        write_like(scan, done.image, paths[-1], description="")
    return paths


def describe_implants(out: PathLike, subjects: dict[str, str]) -> None:
    """Write the files that make a folder and its derivatives BIDS datasets; add to the list of subjects.

    Raises:
        UsageError: The folder is another dataset.
    """
    describe_tree(out, NAME, README)
    table = Path(out) / "participants.tsv"
    known = table.read_text().splitlines()[1:] if table.exists() else []
    rows = sorted({*known, *(f"sub-{label}\t{name}" for name, label in subjects.items())})
    write_bytes(table, "".join(f"{row}\n" for row in ("participant_id\tsource_id", *rows)).encode())
    columns: Json = {"source_id": {"Description": "id of the scan that the lesion was implanted into"}}
    write_json(Path(out) / "participants.json", columns)
