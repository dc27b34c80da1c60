"""Writes synthetic cases in the trees of HCP, BraTS'18 and BIDS; every file appears whole or not at all."""

from __future__ import annotations

import gzip
from collections.abc import Callable, Sequence
from pathlib import Path

import nibabel as nib
import numpy as np

from anofield._files import write_bytes, write_json
from anofield.errors import UsageError
from anofield.phantom.layouts import Grid, case_name, case_paths, check_layout, grid_of
from anofield.phantom.lesions import LESION_KINDS
from anofield.phantom.person import Person, check_kind, check_modality, make_person
from anofield.typing import Json, PathLike, Volume

BIDS_VERSION = "1.10.0"
GZIP_LEVEL = 1  # nibabel's own default: noise does not compress, zeros always do
SCANNER, MNI = 1, 4  # NIfTI-1 codes of the world frame
FRAME = {"hcp": MNI, "brats": SCANNER, "bids": SCANNER}  # HCP's ACPC space carries the MNI code

README = """Synthetic skull-stripped brain scans, made by anofield from the ICBM152 2009a tissue maps.

No person was scanned. Lesion and brain masks are in derivatives/phantom. Labels of lesion masks:
1 necrosis or dark scar, 2 oedema or small lesion, 4 solid tumour core.
"""


def plan_cohort(
    healthy: int, lesion: int, kinds: Sequence[str] = ("glioma", "small"), first: int = 0
) -> list[tuple[int, str | None]]:
    """Case numbers and lesion kinds: the healthy first, then lesion cases that cycle through `kinds`.

    >>> plan_cohort(1, 3)
    [(0, None), (1, 'glioma'), (2, 'small'), (3, 'glioma')]

    Raises:
        UsageError: A count is negative, or lesion cases are wanted of no kind or of an unknown one.
    """
    if min(healthy, lesion, first) < 0:
        raise UsageError("counts and the first case number must not be negative", remedy="give 0 or more")
    for kind in kinds:
        check_kind(kind)
    if lesion and not kinds:
        raise UsageError("lesion cases of no kind", remedy=f"name kinds from {', '.join(LESION_KINDS)}")
    groups: list[str | None] = [None] * healthy
    groups += [kinds[i % len(kinds)] for i in range(lesion)]
    return [(first + i, kind) for i, kind in enumerate(groups)]


def write_case(
    out: PathLike, layout: str, size: str | int, seed: int, number: int, lesion: str | None, modality: str
) -> Path:
    """Makes one person and writes the scan with its masks; files that exist are replaced.

    Args:
        out: Folder of the cohort; made if missing.
        layout: One of `LAYOUTS`.
        size: `"native"` or the number of voxels per side of a 208 mm cube.
        seed: Seed of the cohort.
        number: Case number, from 0.
        lesion: One of `LESION_KINDS` or `None`.
        modality: One of `MODALITIES`.

    Returns:
        Path of the scan.

    Raises:
        UsageError: An option is unknown.
    """
    grid = grid_of(layout, size)
    check_modality(modality)
    name = case_name(layout, number, lesion)
    person = make_person(seed, number, grid, lesion=lesion, modality=modality)
    paths = case_paths(layout, name, modality, lesion)
    out = Path(out)
    if paths.label is not None:
        _write_nifti(out / paths.label, person.label, grid, layout)
    if paths.brain is not None:
        _write_nifti(out / paths.brain, person.brain.astype(np.uint8), grid, layout)
    if layout == "bids":
        _describe_bids(out)
    return _write_nifti(out / paths.image, _stored(person, layout), grid, layout)


def write_cohort(
    out: PathLike,
    layout: str,
    *,
    healthy: int,
    lesion: int,
    modality: str = "T2w",
    size: str | int = "native",
    seed: int = 0,
    kinds: Sequence[str] = ("glioma", "small"),
    first: int = 0,
    report: Callable[[int, int], None] | None = None,
) -> list[Path]:
    """Writes `healthy` and `lesion` cases numbered from `first`, and BIDS's list of participants.

    `report(done, total)` is called after each case. Arguments and errors are those of `plan_cohort` and
    `write_case`. Returns the scans' paths, in order of case number.
    """
    check_layout(layout)
    plan = plan_cohort(healthy, lesion, kinds, first)
    paths = []
    for number, kind in plan:
        paths.append(write_case(out, layout, size, seed, number, kind, modality))
        if report is not None:
            report(len(paths), len(plan))
    if layout == "bids":
        _list_participants(Path(out), plan)
    return paths


def _stored(person: Person, layout: str) -> Volume:
    """The image as its layout stores it: BraTS has whole numbers, at least 1 inside the brain."""
    if layout != "brats":
        return person.image
    whole = np.clip(np.rint(person.image), 1, np.iinfo(np.int16).max).astype(np.int16)
    return np.where(person.brain, whole, np.int16(0))


def _write_nifti(path: Path, data: Volume, grid: Grid, layout: str) -> Path:
    """Writes a volume with sform and qform in mm."""
    image = nib.Nifti1Image(data, grid.affine)
    code = FRAME[layout]
    image.set_sform(grid.affine, code)
    image.set_qform(grid.affine, code)
    image.header.set_xyzt_units("mm")
    # A zero time stamp keeps the bytes of equal cases equal.
    write_bytes(path, gzip.compress(image.to_bytes(), GZIP_LEVEL, mtime=0))
    return path


def _describe_bids(out: Path) -> None:
    """The files that make a folder and its derivatives BIDS datasets; the same for every case."""
    maker = {"GeneratedBy": [{"Name": "anofield phantom"}]}
    raw: Json = {"Name": "anofield phantom", "BIDSVersion": BIDS_VERSION, "DatasetType": "raw"}
    truth: Json = {**raw, "Name": "anofield phantom: truth", "DatasetType": "derivative", **maker}
    write_json(out / "dataset_description.json", {**raw, **maker})
    write_json(out / "derivatives" / "phantom" / "dataset_description.json", truth)
    write_bytes(out / "README", README.encode())


def _list_participants(out: Path, plan: list[tuple[int, str | None]]) -> None:
    """Adds a cohort's cases to `participants.tsv`; those of an earlier call stay."""
    table = out / "participants.tsv"
    lines = table.read_text().splitlines()[1:] if table.exists() else []
    groups = dict(line.split("\t") for line in lines if line)
    groups.update({case_name("bids", number): kind or "healthy" for number, kind in plan})
    rows = ["participant_id\tgroup", *(f"{name}\t{groups[name]}" for name in sorted(groups))]
    write_bytes(table, ("\n".join(rows) + "\n").encode())
    levels = {"healthy": "no lesion", **{kind: f"lesion of kind {kind}" for kind in LESION_KINDS}}
    write_json(out / "participants.json", {"group": {"Description": "what was simulated", "Levels": levels}})
