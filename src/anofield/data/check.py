"""A look at every scan before long work: geometry, brain, intensities, label, duplicates, outliers; writes nothing."""

from __future__ import annotations

import hashlib
import textwrap
from collections import Counter, defaultdict
from collections.abc import Callable, Hashable, Iterable, Sequence
from dataclasses import dataclass, field

import nibabel as nib
import numpy as np

from anofield._files import file_hash
from anofield._words import counted
from anofield.data.cohort.case import Case
from anofield.data.parallel import map_cases
from anofield.data.scan import (
    UNREADABLE,
    Geometry,
    Scan,
    brain_mask,
    check_contrast,
    read_geometry,
    read_labels,
    read_scan,
)
from anofield.errors import ScanError
from anofield.typing import Affine, Mask

PERCENTILES = (2, 50, 98)  # of the brain's intensities; the outer two are where the published recipes clip
LABEL_OUTSIDE = 0.01  # share of a label outside the brain that is put down to drawing along the brain's edge
LABEL_LARGE = 0.5  # share of the brain; lesions stay below, tissue maps and parcellations do not
SPREADS = 4.0  # robust standard deviations that a brain volume may be away from the cohort's median ...
LEAST_SPREAD = 0.05  # ... of which one is at least this share of the median: adults vary by about 10 %
SCALE_FACTOR = 100.0  # between intensity ranges; scanners differ by less than this, units (0 to 1, 0 to 4095) by more
ENOUGH = 5  # cases that make a majority or a median worth comparing with
WIDTH = 120  # columns of the table


@dataclass
class Row:
    """What was found in one case; what could not be read stays empty.

    Attributes:
        id, image, subject, group: The case.
        shape, spacing: Voxels and their edges in mm.
        orientation: Where the axes point, for example `RAS`.
        oblique: Largest angle between a voxel axis and its world axis, degrees.
        dtype: Stored type of the voxels.
        brain_ml: Volume of the brain.
        percentiles: `PERCENTILES` of its intensities.
        label_ml, label_values: Volume of the label above 0 and the values it has there.
        mask: Where the brain was taken from, `file` or `non-zero`.
        hash, data_hash: SHA-256 of the file, and of its voxels whatever their stored type, compression and header.
        problems: Why the case cannot be used, each with its remedy.
        warnings: What deserves a look.
        notes: What is worth knowing.
    """

    id: str
    image: str
    subject: str = ""
    group: str | None = None
    shape: tuple[int, ...] = ()
    spacing: tuple[float, ...] = ()
    orientation: str = ""
    oblique: float | None = None
    dtype: str = ""
    brain_ml: float | None = None
    percentiles: tuple[float, ...] = ()
    label_ml: float | None = None
    label_values: tuple[int, ...] = ()
    mask: str = ""
    hash: str = ""
    data_hash: str = ""
    problems: list[str] = field(default_factory=list)
    warnings: list[str] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)


def check_case(case: Case) -> Row:
    """Look at one case; what is wrong with its files goes into the row, and the rest is looked at all the same.

    Memory: the scan as float32, its brain and its label.
    """
    row = Row(case.id, str(case.image), case.subject or case.id, case.group, mask="file" if case.mask else "non-zero")
    try:
        _look_at_header(row, read_geometry(case.image))
        scan = read_scan(case.image)
    except ScanError as error:
        row.problems.append(str(error))
        return row
    row.hash, row.data_hash = file_hash(case.image), _data_hash(scan)
    brain = None
    try:
        brain = brain_mask(scan, case.mask)
        row.brain_ml = np.count_nonzero(brain) * scan.voxel_ml
        row.percentiles = tuple(float(value) for value in np.percentile(scan.data[brain], PERCENTILES))
        check_contrast(scan.data[brain], case.image)
    except ScanError as error:
        row.problems.append(str(error))
    try:
        if case.label is not None:
            _look_at_label(row, case, scan, brain)
    except ScanError as error:
        row.problems.append(str(error))
    return row


def check_cohort(cases: Sequence[Case], *, workers: int = 1, scheduler: str | None = None) -> list[Row]:
    """Look at every case, then at the cohort: duplicates, subjects in two groups, outliers. Writes nothing.

    Args:
        cases: The cases.
        workers, scheduler: As `anofield.data.parallel.map_cases` takes them.

    Returns:
        One row per case, in the order of the cases.
    """
    outcomes = map_cases(check_case, cases, workers=workers, scheduler=scheduler, label="check")
    found: dict[str, Row] = {}
    for outcome in outcomes:
        case = outcome.case
        found[case.id] = outcome.value or Row(case.id, str(case.image), case.subject or case.id, case.group)
        if outcome.failure:
            found[case.id].problems.append(outcome.failure.error)
    rows = [found[case.id] for case in cases]
    _look_for_duplicates(rows)
    _look_for_split_subjects(rows)
    _look_for_other_grids(rows)
    _look_for_other_brains(rows)
    _look_for_other_scales(rows)
    return rows


def format_rows(rows: Sequence[Row]) -> str:
    """A table of at most `WIDTH` columns, then problems, warnings and notes by case, then one line that sums up."""
    head = ("case", "shape", "mm", "axes", "type", "brain ml", "2/50/98 %", "label ml", "mask", "verdict")
    cells = [head, *map(_cells, rows)]
    widths = [max(len(row[column]) for row in cells) for column in range(len(head))]
    widths[0] = max(8, min(widths[0], WIDTH - sum(widths[1:]) - 2 * (len(head) - 1)))
    table = ["  ".join(_cut(cell, w).ljust(w) for cell, w in zip(row, widths, strict=True)).rstrip() for row in cells]
    said = [line for row in rows for line in _said(row)]
    bad, warned = sum(bool(row.problems) for row in rows), sum(bool(row.warnings) for row in rows)
    total = f"{counted(len(rows), 'scan')}: {len(rows) - bad} usable, {bad} with problems, {warned} with warnings"
    return "\n".join([*(line[:WIDTH] for line in table), "", *said, *([""] if said else []), total])


def _look_at_header(row: Row, geometry: Geometry) -> None:
    row.shape = geometry.shape
    row.spacing = tuple(float(step) for step in nib.affines.voxel_sizes(geometry.affine))
    row.orientation = "".join(code or "?" for code in nib.aff2axcodes(geometry.affine))
    row.oblique = float(np.rad2deg(nib.affines.obliquity(geometry.affine).max()))
    row.dtype = geometry.dtype
    header = geometry.header
    if not isinstance(header, nib.Nifti1Header):  # NIfTI-2 derives from it, MGH has neither form
        return
    if not int(header["sform_code"]) and not int(header["qform_code"]):
        row.warnings.append(
            "its orientation is unknown (sform and qform code 0), left and right may be swapped. "
            "Remedy: convert it again from the source, or set the codes once you know the axes"
        )
    elif int(header["sform_code"]) and int(header["qform_code"]):
        apart = _forms_apart(header, (*geometry.shape, 1, 1, 1)[:3])
        if apart is None or apart > 0.5 * max(row.spacing):
            how = (
                "the qform cannot be read" if apart is None else f"sform and qform put its corners {apart:.1f} mm apart"
            )
            row.warnings.append(
                f"{how}; anofield goes by the sform, other tools may not. "
                "Remedy: see which is right in a viewer, then copy it over the other (`fslorient -copysform2qform`)"
            )


def _forms_apart(header: nib.Nifti1Header, shape: tuple[int, ...]) -> float | None:
    """Largest distance in mm between a corner by sform and by qform, None if the qform is broken."""
    try:
        sform, qform = header.get_sform(), header.get_qform()
    except UNREADABLE:
        return None
    corners = np.array([[*corner, 1] for corner in np.ndindex(2, 2, 2)]) * [*(n - 1 for n in shape), 1]
    moved: Affine = (sform - qform) @ corners.T
    return float(np.linalg.norm(moved[:3], axis=0).max())


def _look_at_label(row: Row, case: Case, scan: Scan, brain: Mask | None) -> None:
    label = read_labels(case.label or "", scan)
    inside = label > 0  # as evaluate counts
    count = int(np.count_nonzero(inside))
    row.label_ml = count * scan.voxel_ml
    row.label_values = tuple(int(value) for value in np.unique(label[inside]))
    if not count:
        row.notes.append("its label is empty: the case counts as healthy")
    if not count or brain is None:
        return
    outside = np.count_nonzero(inside & ~brain) / count
    if outside > LABEL_OUTSIDE:
        row.warnings.append(
            f"{_percent(outside)} of its label ({case.label}) lies outside the brain, where nothing can be found. "
            "Remedy: look at both in a viewer; a flipped label or a mask that cuts the lesion off looks like this"
        )
    share = np.count_nonzero(inside & brain) / np.count_nonzero(brain)
    if share > LABEL_LARGE:
        row.warnings.append(
            f"its label ({case.label}) covers {_percent(share)} of the brain, so it may show tissues, not lesions. "
            "Remedy: give the lesion truth with --label"
        )


def _look_for_duplicates(rows: Sequence[Row]) -> None:
    for twins in _sharing(rows, lambda row: row.data_hash or None):
        for row in twins:
            others = [other for other in twins if other is not row]
            same = "file" if all(other.hash == row.hash for other in others) else "voxels"
            names = ", ".join(other.id for other in others[:3]) + (" ..." if len(others) > 3 else "")
            row.problems.append(
                f"has the same {same} as {names} ({others[0].image}), so one person would count twice. "
                "Remedy: keep one of them"
            )


def _look_for_split_subjects(rows: Sequence[Row]) -> None:
    for scans in _sharing([row for row in rows if row.group], lambda row: row.subject):
        groups = sorted({str(row.group) for row in scans})
        for row in scans if len(groups) > 1 else ():
            others = ", ".join(f"{other.id} ({other.group})" for other in scans if other.group != row.group)
            row.problems.append(
                f"its subject {row.subject} is in {len(groups)} groups, here {row.group} and also {others}: what is "
                "learnt from one would be tested on the other. Remedy: put all scans of a subject into one group"
            )


def _look_for_other_grids(rows: Sequence[Row]) -> None:
    known = [row for row in rows if row.shape]
    if len(known) < ENOUGH:
        return
    (most, count), *_ = Counter(map(_grid, known)).most_common(1)
    for row in known if 2 * count > len(known) else ():
        if _grid(row) != most:
            row.warnings.append(
                f"its grid is {_grid(row)}, that of {count} of {counted(len(known), 'scan')} {most}. "
                "Remedy: none is needed for the box recipe; see that it is the series you mean"
            )


def _look_for_other_brains(rows: Sequence[Row]) -> None:
    known = [row for row in rows if row.brain_ml is not None]
    volumes = np.array([row.brain_ml for row in known], dtype=np.float64)
    if len(known) < ENOUGH:
        return
    middle = float(np.median(volumes))
    spread = max(1.4826 * float(np.median(np.abs(volumes - middle))), LEAST_SPREAD * middle)
    for row, volume in zip(known, volumes, strict=True):
        if abs(volume - middle) > SPREADS * spread:
            row.warnings.append(
                f"its brain has {volume:.0f} ml, the cohort's median is {middle:.0f} ml. "
                "Remedy: look at its brain mask; skull left on or brain cut off looks like this"
            )


def _look_for_other_scales(rows: Sequence[Row]) -> None:
    known = [row for row in rows if row.percentiles and row.percentiles[-1] > row.percentiles[0]]
    ranges = np.array([row.percentiles[-1] - row.percentiles[0] for row in known])
    if len(known) < ENOUGH:
        return
    middle = float(np.median(ranges))
    for row, width in zip(known, ranges, strict=True):
        if max(width / middle, middle / width) > SCALE_FACTOR:
            row.warnings.append(
                f"its brain's intensities span {width:.3g}, the cohort's median span is {middle:.3g}. "
                "Remedy: see that it is the same kind of series (not a map, not normalised otherwise)"
            )


def _sharing(rows: Iterable[Row], key: Callable[[Row], Hashable]) -> list[list[Row]]:
    """The rows that share a key with another, by key."""
    groups: defaultdict[Hashable, list[Row]] = defaultdict(list)
    for row in rows:
        groups[key(row)].append(row)
    return [group for value, group in groups.items() if value is not None and len(group) > 1]


def _data_hash(scan: Scan) -> str:
    digest = hashlib.sha256(repr(scan.data.shape).encode())
    digest.update(np.ascontiguousarray(scan.data.T).data)  # no copy of what nibabel reads, which is in Fortran order
    return digest.hexdigest()


def _grid(row: Row) -> str:
    return f"{_times(row.shape)} at {_mm(row.spacing)} mm"


def _times(numbers: Iterable[object]) -> str:
    return "×".join(map(str, numbers))


def _mm(spacing: Sequence[float]) -> str:
    return _times(f"{round(step, 2):g}" for step in spacing)


def _short(value: float) -> str:
    return f"{value:.0f}" if 1000 <= abs(value) < 1e6 else f"{value:.3g}"


def _percent(share: float) -> str:
    return f"{100 * share:.0f} %"


def _cells(row: Row) -> tuple[str, ...]:
    tilt = f" {row.oblique:.0f}°" if row.oblique is not None and row.oblique >= 0.5 else ""
    brain = "-" if row.brain_ml is None else f"{row.brain_ml:.0f}"
    label = "-" if row.label_ml is None else f"{row.label_ml:.1f}"
    intensity = "/".join(map(_short, row.percentiles)) or "-"
    where = (_times(row.shape) or "-", _mm(row.spacing) or "-", (row.orientation or "-") + tilt, row.dtype or "-")
    verdict = " ".join(f"{n} {word}" for n, word in ((len(row.problems), "bad"), (len(row.warnings), "warn")) if n)
    return (row.id, *where, brain, intensity, label, row.mask.replace("non-zero", "≠0"), verdict or "ok")


def _cut(text: str, width: int) -> str:
    return text if len(text) <= width else f"{text[: width - 2]}.."


def _said(row: Row) -> list[str]:
    """Problems, warnings and notes of a case, wrapped."""
    texts = [("problem", t) for t in row.problems] + [("warning", t) for t in row.warnings]
    texts += [("note", t) for t in row.notes]
    wrapper = textwrap.TextWrapper(WIDTH, subsequent_indent="    ", break_long_words=False, break_on_hyphens=False)
    return [line for kind, text in texts for line in wrapper.wrap(f"{row.id}: {kind}: {text.rstrip('.')}.")]
