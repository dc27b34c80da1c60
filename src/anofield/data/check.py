"""Checks of a cohort before long work: geometry, brain, intensities, labels, duplicates, outliers."""

from __future__ import annotations

import shutil
import sys
import textwrap
from collections import Counter, defaultdict
from collections.abc import Callable, Hashable, Iterable, Sequence
from dataclasses import dataclass, field

import nibabel as nib
import numpy as np
from rich.cells import cell_len

from anofield._words import counted, named
from anofield.data.background import holes
from anofield.data.brain import check_contrast, read_brain
from anofield.data.cohort.case import Case, cohort_of
from anofield.data.header import Header, Nifti
from anofield.data.labels import read_truth
from anofield.data.parallel import HERE, Spread, map_cases
from anofield.data.scan import (
    Scan,
    format_shape,
    format_spacing,
    orientation,
    read_geometry,
    read_scan,
)
from anofield.data.volume import volume_hash
from anofield.data.whole import LOOK, doubts, half
from anofield.errors import ScanError
from anofield.typing import Affine, Mask

PERCENTILES = (2, 50, 98)  # of the brain's intensities; the published recipes clip at the outer two
LABEL_OUTSIDE = 0.01  # share of a label that may lie outside the brain, because labels are drawn along its edge
HOLES = 0.01  # share of the brain that may be enclosed background
SPREADS = 4.0  # robust standard deviations by which a brain volume may differ from the cohort's median
LEAST_SPREAD = 0.05  # smallest such standard deviation, as a share of the median: adults vary by about 10 %
SCALE_FACTOR = 100.0  # between intensity ranges; scanners differ by less than this, units (0 to 1, 0 to 4095) by more
ENOUGH = 5  # fewest cases for a comparison with their majority or median
HEADS = ("case", "shape", "mm", "axes", "type", "brain ml", "2/50/98 %", "label ml", "mask", "verdict")
WIDTH = 120  # columns of the text if stdout is not a terminal


@dataclass
class Row:
    """Result of the check of one case; a field stays empty if its file could not be read.

    Attributes:
        id: Id of the case.
        image: Path of the scan.
        subject: Subject of the scan.
        group: Group of the case in a manifest.
        shape: Voxels per axis.
        spacing: Voxel edges in mm.
        orientation: Directions of the axes, for example `RAS`.
        oblique: Largest angle between a voxel axis and its world axis, degrees.
        dtype: Stored type of the voxels.
        brain_ml: Volume of the brain.
        percentiles: `PERCENTILES` of the brain's intensities.
        label_ml: Volume of the label above 0.
        label_values: Values of the label above 0.
        mask: Source of the brain mask, `file` or `non-zero`.
        hash: SHA-256 of the file.
        data_hash: SHA-256 of its voxels in RAS order; stored type and order, compression and header do not count.
        problems: Reasons why the case cannot be used, each with its remedy.
        warnings: Signs of a possible error, each with its remedy.
        notes: Further remarks.
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
    """Check one case; an error in one file is recorded in the row, and the other files are still checked.

    Memory: the scan as float32, its brain and its label.
    """
    row = Row(case.id, str(case.image), case.subject or case.id, case.group, mask="file" if case.mask else "non-zero")
    try:
        _look_at_header(row, read_geometry(case.image))
        scan = read_scan(case.image)
    except ScanError as error:
        row.problems.append(str(error))
        return row
    row.hash, row.data_hash = volume_hash(case.image), scan.voxel_hash
    brain = None
    try:
        brain, notes = read_brain(scan, case.mask)
        row.notes += notes
        row.brain_ml = np.count_nonzero(brain) * scan.voxel_ml
        row.percentiles = tuple(float(value) for value in np.percentile(scan.data[brain], PERCENTILES))
        check_contrast(scan.data[brain], case.image)
        _look_for_holes(row, brain)
        signs = [f"{doubt}. Remedy: {LOOK}" for doubt in doubts(brain, scan.affine)]
        (row.problems if half(brain, scan.affine) else row.warnings).extend(signs)
    except ScanError as error:
        row.problems.append(str(error))
    try:
        if case.labels:
            _look_at_label(row, case, scan, brain)
    except ScanError as error:
        row.problems.append(str(error))
    return row


def check_cohort(cases: Sequence[Case], *, spread: Spread = HERE) -> list[Row]:
    """Check every case, then the cohort: duplicates, subjects in two groups, outliers. Writes nothing.

    Args:
        cases: The cases.
        spread: Local processes or scheduler that check them.

    Returns:
        One row per case, in the order of the cases.
    """
    cases = cohort_of(cases)
    outcomes = map_cases(check_case, cases, spread=spread, label="check")
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


def format_rows(rows: Sequence[Row], width: int = WIDTH) -> str:
    """Format rows as plain text: a table, then the problems, warnings and notes of each case, then a summary line.

    Args:
        rows: Rows from `check_cohort`.
        width: Columns of the text; if the table is wider, every name has a line of its own; nothing is cut.
    """
    said = "\n".join(line for row in rows for line in _said(row, width))
    bad, warned = sum(bool(row.problems) for row in rows), sum(bool(row.warnings) for row in rows)
    total = f"{counted(len(rows), 'scan')}: {len(rows) - bad} usable, {bad} with problems, {warned} with warnings"
    return "\n\n".join(part for part in (_table(rows, width), said, total) if part)


def terminal_width() -> int:
    """Number of columns of the terminal; `WIDTH` if stdout is not a terminal."""
    return shutil.get_terminal_size((WIDTH, 1)).columns if sys.stdout.isatty() else WIDTH


def _table(rows: Sequence[Row], width: int) -> str:
    """A line per case below a heading; where that is too wide, every name has a line of its own above the others."""
    cells = [(row.id, *_cells(row)) for row in rows]
    lines = _columns([HEADS, *cells])
    if max(map(len, lines)) <= width:
        return "\n".join(lines)
    head, *below = _columns([one[1:] for one in (HEADS, *cells)])
    pairs = [line for row, rest in zip(rows, below, strict=True) for line in (row.id, f"  {rest}")]
    return "\n".join([HEADS[0], f"  {head}", *pairs])


def _columns(rows: Sequence[Sequence[str]]) -> list[str]:
    """Rows as lines, each column as wide as its widest cell."""
    widths = [max(map(cell_len, column)) for column in zip(*rows, strict=True)]
    padded = ([cell + " " * (wide - cell_len(cell)) for cell, wide in zip(row, widths, strict=True)] for row in rows)
    return ["  ".join(row).rstrip() for row in padded]


def _look_at_header(row: Row, header: Header) -> None:
    row.shape = header.shape
    row.spacing = tuple(float(step) for step in nib.affines.voxel_sizes(header.affine))
    row.orientation = orientation(header.affine)
    row.oblique = float(np.rad2deg(nib.affines.obliquity(header.affine).max()))
    row.dtype = header.dtype.name
    if header.unit not in ("mm", "unknown"):
        row.warnings.append(
            f"its header gives lengths in {header.unit}s; anofield takes them for mm, other tools may not. "
            "Remedy: set the unit to mm in the header, or convert it again from the source"
        )
    geometry = header.geometry
    if int(geometry["sform_code"]) and int(geometry["qform_code"]):
        apart = _forms_apart(geometry)
        if header.broken_qform or apart > 0.5 * max(row.spacing):
            how = (
                "the qform cannot be read"
                if header.broken_qform
                else f"sform and qform put its corners {apart:.1f} mm apart"
            )
            row.warnings.append(
                f"{how}; anofield uses the sform, other tools may not. "
                "Remedy: check in a viewer which is right, then copy it to the other (`fslorient -copysform2qform`)"
            )


def _forms_apart(geometry: Nifti) -> float:
    """Largest distance in mm between a corner's positions by sform and by qform."""
    sform, qform, shape = geometry.get_sform(), geometry.get_qform(), (*geometry.get_data_shape(), 1, 1, 1)[:3]
    corners = np.array([[*corner, 1] for corner in np.ndindex(2, 2, 2)]) * [*(n - 1 for n in shape), 1]
    moved: Affine = (sform - qform) @ corners.T
    return float(np.linalg.norm(moved[:3], axis=0).max())


def _look_for_holes(row: Row, brain: Mask) -> None:
    """Warn of a brain that is not solid, because some of its voxels have the value of the background."""
    share = np.count_nonzero(holes(brain)) / np.count_nonzero(brain)
    if share > HOLES:
        row.warnings.append(
            f"{100 * share:.1f} % of its brain are enclosed voxels with the value of the background; they count as "
            "outside and are not examined. Remedy: give a brain mask with --mask if they are brain"
        )


def _look_at_label(row: Row, case: Case, scan: Scan, brain: Mask | None) -> None:
    label = read_truth(case.labels, scan, brain)
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
            f"{_percent(outside)} of its label ({named(map(str, case.labels))}) lies outside the brain, where nothing "
            "can be found. Remedy: look at both in a viewer; the label may be flipped, or the mask may cut off a lesion"
        )


def _look_for_duplicates(rows: Sequence[Row]) -> None:
    for twins in _sharing(rows, lambda row: row.data_hash or None):
        for row in twins:
            others = [other for other in twins if other is not row]
            same = "file" if all(other.hash == row.hash for other in others) else "voxels"
            names = named(other.id for other in others)
            row.problems.append(
                f"has the same {same} as {names} ({others[0].image}), so one subject would count twice. "
                "Remedy: keep one of them"
            )


def _look_for_split_subjects(rows: Sequence[Row]) -> None:
    for scans in _sharing([row for row in rows if row.group], lambda row: row.subject):
        groups = sorted({str(row.group) for row in scans})
        for row in scans if len(groups) > 1 else ():
            others = ", ".join(f"{other.id} ({other.group})" for other in scans if other.group != row.group)
            row.problems.append(
                f"its subject {row.subject} is in {len(groups)} groups, here {row.group} and also {others}: a model "
                "could be trained and tested on the same subject. Remedy: put all scans of a subject into one group"
            )


def _look_for_other_grids(rows: Sequence[Row]) -> None:
    known = [row for row in rows if row.shape]
    if len(known) < ENOUGH:
        return
    (most, count), *_ = Counter(map(_grid, known)).most_common(1)
    for row in known if 2 * count > len(known) else ():
        if _grid(row) != most:
            row.warnings.append(
                f"its grid is {_grid(row)}; {count} of {counted(len(known), 'scan')} have {most}. "
                "Remedy: none is needed for the box recipe; check that it is the intended series"
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
                "Remedy: look at its brain mask, which may include skull or leave out parts of the brain"
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
                "Remedy: check that it is the same kind of series (not a map, not normalised in another way)"
            )


def _sharing(rows: Iterable[Row], key: Callable[[Row], Hashable]) -> list[list[Row]]:
    """Groups of two or more rows with the same key; rows whose key is None are left out."""
    groups: defaultdict[Hashable, list[Row]] = defaultdict(list)
    for row in rows:
        groups[key(row)].append(row)
    return [group for value, group in groups.items() if value is not None and len(group) > 1]


def _grid(row: Row) -> str:
    return f"{format_shape(row.shape)} at {format_spacing(row.spacing)} mm"


def _short(value: float) -> str:
    return f"{value:.0f}" if 1000 <= abs(value) < 1e6 else f"{value:.3g}"


def _percent(share: float) -> str:
    return f"{100 * share:.0f} %"


def _cells(row: Row) -> tuple[str, ...]:
    tilt = f" {row.oblique:.0f}°" if row.oblique is not None and row.oblique >= 0.5 else ""
    brain = "-" if row.brain_ml is None else f"{row.brain_ml:.0f}"
    label = "-" if row.label_ml is None else f"{row.label_ml:.1f}"
    intensity = "/".join(map(_short, row.percentiles)) or "-"
    grid = (format_shape(row.shape), format_spacing(row.spacing), row.orientation + tilt, row.dtype)
    verdict = " ".join(f"{n} {word}" for n, word in ((len(row.problems), "bad"), (len(row.warnings), "warn")) if n)
    return (
        *(cell or "-" for cell in grid),
        brain,
        intensity,
        label,
        row.mask.replace("non-zero", "≠0"),
        verdict or "ok",
    )


def _said(row: Row, width: int) -> list[str]:
    """Problems, warnings and notes of a case, wrapped."""
    texts = [("problem", t) for t in row.problems] + [("warning", t) for t in row.warnings]
    texts += [("note", t) for t in row.notes]
    wrapper = textwrap.TextWrapper(width, subsequent_indent="    ", break_long_words=False, break_on_hyphens=False)
    return [line for kind, text in texts for line in wrapper.wrap(f"{row.id}: {kind}: {text.rstrip('.')}.")]
