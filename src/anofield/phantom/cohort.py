"""Synthetic cases written in the trees of HCP, BraTS'18 and BIDS; every file appears complete or not at all."""

from __future__ import annotations

import gzip
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import nibabel as nib
import numpy as np

from anofield._files import write_bytes, write_json
from anofield.data.cohort.own import SYNTHETIC
from anofield.errors import UsageError
from anofield.phantom.layouts import Grid, case_name, case_paths, grid_of
from anofield.phantom.lesions.kinds import LESION_KINDS
from anofield.phantom.person import Look, Person, check_kind, check_modality, make_person
from anofield.phantom.site import check_site
from anofield.phantom.sources import find_sources
from anofield.phantom.tree import LABELS, describe_tree
from anofield.phantom.variety import SIMPLE, UNUSUAL, Variety
from anofield.typing import Json, PathLike, Volume

NO_VALUE = "n/a"  # BIDS
COLUMNS: dict[str, Json] = {  # of participants.tsv, as participants.json describes them
    "group": {
        "Description": "what was simulated",
        "Levels": {"healthy": "no lesion", **{kind: f"lesion of kind {kind}" for kind in LESION_KINDS}},
    },
    "age": {"Description": "age that the simulated atrophy fits", "Units": "year"},
    "traits": {"Description": "healthy, but unusual anatomy", "Levels": UNUSUAL},
}
GZIP_LEVEL = 1  # nibabel's own default: noise does not compress, zeros always do
SCANNER, MNI = 1, 4  # NIfTI-1 codes of the world frame
FRAME = {"hcp": MNI, "brats": SCANNER, "bids": SCANNER}  # HCP's ACPC space carries the MNI code

NAME = "anofield phantom"  # of the dataset
COLIN27 = "the scan of Colin27 (Holmes et al. 1998) in mricron-data"
MADE_FROM = {
    "icbm152": "the ICBM152 2009a tissue maps, averages of 152 people",
    "colin27": COLIN27,
    "mixed": f"the ICBM152 2009a tissue maps, averages of 152 people, and {COLIN27}",
}
OWN_MAPS = "tissue maps of real people; the scans show their anatomy, so the licence of the maps holds for them"
README = """Synthetic skull-stripped brain scans, made by anofield. Their anatomy is made from:
{maps}

{labels}"""
BULLET = "- "


@dataclass(frozen=True)
class Cohort:
    """The properties that all cases of a cohort share.

    Attributes:
        layout: One of `LAYOUTS`.
        size: `"native"` or the number of voxels per side of a 208 mm cube.
        seed: Seed of the cohort.
        modality: One of `MODALITIES`.
        variety: How the healthy people differ from each other.
        site: One of `SITE_CHOICES`, or `None` for the plain table of signals, see `Look`.

    Raises:
        UsageError: The layout, the size, the modality, the site or the template is unknown.
        CohortError: The folder of templates holds no tissue maps.
        MachineError: The package with Colin27 is not installed.
    """

    layout: str
    size: str | int = field(default="native", kw_only=True)
    seed: int = field(default=0, kw_only=True)
    modality: str = field(default="T2w", kw_only=True)
    variety: Variety = field(default=SIMPLE, kw_only=True)
    site: str | None = field(default=None, kw_only=True)

    def __post_init__(self) -> None:
        grid_of(self.layout, self.size)
        check_modality(self.modality)
        check_site(self.site)
        find_sources(self.variety.template)

    @property
    def grid(self) -> Grid:
        """Sampling grid of the scans."""
        return grid_of(self.layout, self.size)


def plan_cohort(
    healthy: int, lesion: int, kinds: Sequence[str] = ("glioma", "small"), first: int = 0
) -> list[tuple[int, str | None]]:
    """Case numbers and lesion kinds: the healthy first, then lesion cases that cycle through `kinds`.

    >>> plan_cohort(1, 3)
    [(0, None), (1, 'glioma'), (2, 'small'), (3, 'glioma')]

    Raises:
        UsageError: A count is negative, a kind is unknown, or lesion cases are wanted without a kind.
    """
    if min(healthy, lesion, first) < 0:
        raise UsageError("counts and the first case number must not be negative", remedy="give 0 or more")
    for kind in kinds:
        check_kind(kind)
    if lesion and not kinds:
        raise UsageError("lesion cases without a kind", remedy=f"name kinds from {', '.join(LESION_KINDS)}")
    groups: list[str | None] = [None] * healthy
    groups += [kinds[i % len(kinds)] for i in range(lesion)]
    return [(first + i, kind) for i, kind in enumerate(groups)]


def write_case(out: PathLike, cohort: Cohort, number: int, lesion: str | None = None) -> Path:
    """Make one person and write the scan with its masks; existing files are replaced.

    Args:
        out: Folder of the cohort; made if missing.
        cohort: Properties that the case shares with the other cases.
        number: Case number, from 0.
        lesion: One of `LESION_KINDS` or `None`.

    Returns:
        Path of the scan.

    Raises:
        UsageError: The number is negative, the kind of lesion unknown, or the folder another BIDS dataset.
    """
    return _write_person(Path(out), cohort, number, lesion)[0]


def write_cohort(
    out: PathLike,
    cohort: Cohort,
    plan: Sequence[tuple[int, str | None]],
    report: Callable[[int, int], None] | None = None,
) -> list[Path]:
    """Write the cases of a plan, and BIDS's list of participants.

    Args:
        out: Folder of the cohort; made if missing.
        cohort: Properties that the cases share.
        plan: Case numbers and lesion kinds, see `plan_cohort`.
        report: Function that is called with (done, total) after each case.

    Returns:
        Paths of the scans, in the order of the plan.
    """
    paths, rows = [], {}
    for number, kind in plan:
        path, person = _write_person(Path(out), cohort, number, kind)
        paths.append(path)
        rows[case_name(cohort.layout, number)] = _participant(person)
        if report is not None:
            report(len(paths), len(plan))
    if cohort.layout == "bids":
        _list_participants(Path(out), rows)
    return paths


def _write_person(out: Path, cohort: Cohort, number: int, lesion: str | None) -> tuple[Path, Person]:
    """Path of the scan and the person, see `write_case`."""
    layout = cohort.layout
    name = case_name(layout, number, lesion)
    if layout == "bids":
        _describe_bids(out, cohort)  # first: it refuses the folder of another dataset
    look = Look(modality=cohort.modality, site=cohort.site)
    person = make_person(cohort.seed, number, cohort.grid, lesion=lesion, look=look, variety=cohort.variety)
    paths = case_paths(layout, name, cohort.modality, lesion)
    if paths.label is not None:
        _write_nifti(out / paths.label, person.label, cohort)
    if paths.brain is not None:
        _write_nifti(out / paths.brain, person.brain.astype(np.uint8), cohort)
    return _write_nifti(out / paths.image, _stored(person, layout), cohort), person


def _stored(person: Person, layout: str) -> Volume:
    """The image as its layout stores it: BraTS has whole numbers, at least 1 inside the brain."""
    if layout != "brats":
        return person.image
    whole = np.clip(np.rint(person.image), 1, np.iinfo(np.int16).max).astype(np.int16)
    return np.where(person.brain, whole, np.int16(0))


def _write_nifti(path: Path, data: Volume, cohort: Cohort) -> Path:
    """Write a volume with sform and qform in mm."""
    affine, code = cohort.grid.affine, FRAME[cohort.layout]
    image = nib.Nifti1Image(data, affine)
    image.set_sform(affine, code)
    image.set_qform(affine, code)
    image.header.set_xyzt_units("mm")
    image.header["descrip"] = SYNTHETIC.encode()  # a model says what it was trained on
    # A zero time stamp keeps the bytes of equal cases equal.
    write_bytes(path, gzip.compress(image.to_bytes(), GZIP_LEVEL, mtime=0))
    return path


def _describe_bids(out: Path, cohort: Cohort) -> None:
    """Describe the tree; the README also names what the cases of earlier calls were made from."""
    readme = out / "README"
    known = readme.read_text(encoding="utf-8").splitlines() if readme.exists() else []
    maps = {line for line in known if line.startswith(BULLET)}
    maps.add(BULLET + MADE_FROM.get(cohort.variety.template, OWN_MAPS) + ".")
    describe_tree(out, NAME, README.format(maps="\n".join(sorted(maps)), labels=LABELS))


def _participant(person: Person) -> dict[str, str]:
    """The row of a person in `participants.tsv`; what a person does not have is missing."""
    row = {"group": person.lesion or "healthy"}
    if person.age is not None:
        row["age"] = f"{person.age:.1f}"
    if person.traits:
        row["traits"] = ",".join(person.traits)
    return row


def _list_participants(out: Path, people: dict[str, dict[str, str]]) -> None:
    """Add a cohort's cases to `participants.tsv`; those of an earlier call stay, empty columns are left out."""
    table = out / "participants.tsv"
    header, *lines = table.read_text().splitlines() if table.exists() else ["participant_id"]
    names = header.split("\t")[1:]
    kept = {name: dict(zip(names, values, strict=False)) for name, *values in (x.split("\t") for x in lines if x)}
    kept |= people
    columns = [name for name in COLUMNS if any(row.get(name, NO_VALUE) != NO_VALUE for row in kept.values())]
    rows = ["\t".join(["participant_id", *columns])]
    rows += ["\t".join([name, *(kept[name].get(column, NO_VALUE) for column in columns)]) for name in sorted(kept)]
    write_bytes(table, ("\n".join(rows) + "\n").encode())
    write_json(out / "participants.json", {column: COLUMNS[column] for column in columns})
