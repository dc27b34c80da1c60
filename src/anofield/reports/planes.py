"""Three orthogonal planes through the finding of a case, cut along the voxel axes nearest to world axes."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np

from anofield.data.background import with_zero_background
from anofield.data.labels import APART, corners_apart
from anofield.data.lattice import surroundings
from anofield.data.volume import read_volume
from anofield.detect.findings import components
from anofield.errors import ScanError
from anofield.reports.folder import ReportCase
from anofield.reports.numerals import decimal
from anofield.reports.viewer import Viewer, pack
from anofield.typing import Affine, Volume

MARGIN_MM = 4.0  # around the brain, so that an outline at its border stays visible
WINDOW = (0.5, 99.5)  # percentiles of the brain's intensities shown as black and white
TOP_PERCENTILE = 99.9  # of the anomaly map inside the brain: the bright end of a case's colour scale
# name: (axis that the plane cuts, marks left, right, top, bottom), radiological: the patient's right on the left
VIEWS = {
    "axial": (2, ("R", "L", "A", "P")),
    "coronal": (1, ("R", "L", "S", "I")),
    "sagittal": (0, ("A", "P", "S", "I")),
}


@dataclass(frozen=True)
class World:
    """A volume whose axes run, as nearly as voxels allow, to the right, anterior and superior.

    Attributes:
        data: (x, y, z).
        affine: Voxel index → world, RAS+ mm.
    """

    data: Volume
    affine: Affine

    @property
    def spacing(self) -> Any:
        """Voxel edge lengths in mm, (3,)."""
        return np.linalg.norm(self.affine[:3, :3], axis=0)

    @property
    def voxel_ml(self) -> float:
        """Volume of one voxel in millilitres."""
        return float(np.prod(self.spacing)) / 1000.0

    def mm(self, index: Any) -> Any:
        """World position of a voxel, (3,) mm."""
        return self.affine[:3, :3] @ np.asarray(index, dtype=float) + self.affine[:3, 3]

    def tilt(self) -> float:
        """Largest angle between a voxel axis and its world axis, degrees."""
        cosines = np.diag(self.affine[:3, :3]) / self.spacing
        return float(np.degrees(np.arccos(np.clip(cosines, -1.0, 1.0))).max())


@dataclass(frozen=True)
class Plane:
    """One plane of a case as it is drawn.

    Attributes:
        name: `axial`, `coronal` or `sagittal`.
        size: Width and height in mm.
        marks: Letters of the directions at the left, right, top and bottom edge.
        where: World coordinate of the plane, for example `z = 12 mm`.
        images: Slice of every image by its name, (row, column); row 0 at the top, column 0 at the left.
    """

    name: str
    size: tuple[float, float]
    marks: tuple[str, str, str, str]
    where: str
    images: dict[str, Volume]


@dataclass
class CaseView:
    """The planes and volumes of a case.

    Attributes:
        planes: Axial, coronal, sagittal; empty if the case has no image that can be read.
        window: Intensities drawn black and white.
        truth_ml: Volume of the truth, if it is known.
        centre: Description of the point where the planes cross.
        at: World position where the planes cross, mm.
        viewer: Volumes of the interactive view.
        notes: Notes on missing parts.
    """

    planes: list[Plane] = field(default_factory=list)
    window: tuple[float, float] = (0.0, 1.0)
    truth_ml: float | None = None
    centre: str = ""
    at: tuple[float, ...] = (0.0, 0.0, 0.0)
    viewer: Viewer | None = None
    notes: list[str] = field(default_factory=list)


def read_world(path: Path, *, scan: bool = False) -> World:
    """Read an image and turn its voxel axes to RAS order; a scan gets 0 as its background.

    Raises:
        ScanError: The file is missing, unreadable or not 3-D.
    """
    header, data = read_volume(path, np.float32)
    turn = nib.io_orientation(header.affine)
    affine = header.affine @ nib.orientations.inv_ornt_aff(turn, data.shape)
    turned_data = nib.apply_orientation(with_zero_background(data) if scan else data, turn)
    return World(np.nan_to_num(turned_data), affine)


def cut(data: Volume, view: str, index: int) -> Volume:
    """Plane `index` of an (x, y, z) array in RAS order, as (row, column) with the marks of `VIEWS`.

    Both shown axes are reversed: rows run downwards from superior or anterior, columns from the patient's right
    (axial, coronal) or from anterior (sagittal).
    """
    axis, _ = VIEWS[view]
    return turned(np.take(data, index, axis=axis))


def turned(plane: Volume) -> Volume:
    """A plane whose two axes run in RAS order, as (row, column) with the marks of `VIEWS`."""
    shown: Volume = np.flip(plane).T
    return shown


def view_case(case: ReportCase, threshold: float | None = None) -> CaseView:
    """Read the images of a case, cut the three planes and pack the volumes of the interactive view.

    Args:
        case: The case.
        threshold: Calibrated threshold of the run; None without one.
    """
    view = CaseView()
    volumes = _volumes(case, view)
    if not volumes:
        return view
    first = next(iter(volumes.values()))
    index, view.centre = centre(volumes, first)
    view.at = tuple(float(mm) for mm in first.mm(index))
    view.centre += f", at ({', '.join(decimal(mm, 0) for mm in view.at)}) mm"
    if first.tilt() > 3.0:
        view.notes.append(f"The planes follow the voxels, up to {first.tilt():.0f}° off the world axes.")
    box = _box(volumes, first)
    view.window = _window(volumes, box)
    view.truth_ml = float((volumes["truth"].data > 0).sum()) * first.voxel_ml if "truth" in volumes else None
    view.planes = [_plane(name, volumes, first, index, box) for name in VIEWS]
    view.viewer = pack(volumes, _shown(volumes), box, view.window, threshold)
    return view


def bright_end(case: ReportCase) -> float | None:
    """`TOP_PERCENTILE` of a case's anomaly map inside the brain; None without a map that can be read."""
    try:
        values = read_world(case.case.image).data
    except ScanError:  # the case's card reports it
        return None
    values = values[values != 0]
    return float(np.percentile(values, TOP_PERCENTILE)) if values.size else None


def centre(volumes: dict[str, World], first: World) -> tuple[Any, str]:
    """Voxel where the planes cross, (3,), and its description."""
    if "truth" in volumes and (volumes["truth"].data > 0).any():
        return _inside_largest(volumes["truth"].data > 0, first.spacing), "the centre of the largest true lesion"
    if "detected" in volumes and (volumes["detected"].data > 0).any():
        strength = volumes["anomaly"].data if "anomaly" in volumes else volumes["detected"].data
        inside = np.where(volumes["detected"].data > 0, strength, -np.inf)
        return np.array(np.unravel_index(np.argmax(inside), inside.shape)), "the strongest finding"
    brain = _brain(volumes)
    middle = np.argwhere(brain).mean(axis=0) if brain.any() else (np.array(brain.shape) - 1) / 2
    return np.rint(middle).astype(int), "the centre of the brain"


def _volumes(case: ReportCase, view: CaseView) -> dict[str, World]:
    """Images of a case that can be read and lie on the voxels of the first; notes those that are left out."""
    files = [
        ("anomaly", case.case.image),
        ("scan", case.scan),
        ("restoration", case.case.folder / "restoration.nii.gz"),
        ("detected", case.case.folder / "mask.nii.gz"),
        *(("truth", path) for path in case.case.labels),
    ]
    volumes: dict[str, World] = {}
    for name, path in files:
        if name == "scan" and case.changed:
            view.notes.append(f"The scan at {path} has changed since the detection and is not shown.")
            continue
        image = _readable(name, path, view) if path else None
        if image is None:
            continue
        if volumes and not _same_voxels(image, next(iter(volumes.values()))):
            view.notes.append(f"{path} does not lie on the voxels of the other images and is not shown.")
            continue
        if name in volumes:  # several labels of one case are united
            image = replace(image, data=np.maximum(image.data, volumes[name].data))
        volumes[name] = image
    return volumes


def _readable(name: str, path: Path, view: CaseView) -> World | None:
    missing = {
        "anomaly": "The anomaly map is missing.",
        "scan": f"The source scan is no longer at {path}; the planes are drawn without it.",
        "restoration": "No restoration was written for this case.",
        "detected": "No mask of findings was written for this case.",
        "truth": f"The truth is no longer at {path}.",
    }
    if not path.is_file():
        view.notes.append(missing[name])
        return None
    try:
        return read_world(path, scan=name == "scan")
    except ScanError as error:
        view.notes.append(str(error))
        return None


def _same_voxels(image: World, other: World) -> bool:
    """Whether two images share shape and place, within half a voxel at the corners."""
    shape = image.data.shape
    return shape == other.data.shape and corners_apart(image.affine, other.affine, shape)[0] <= APART


def _brain(volumes: dict[str, World]) -> Volume:
    """Voxels of the brain, as far as the images show it: maps of this package are 0 outside the brain."""
    ours = [volumes[name].data != 0 for name in ("anomaly", "restoration") if name in volumes]
    brain: Volume = np.logical_or.reduce(ours) if ours else next(iter(volumes.values())).data != 0
    return brain if brain.any() or "scan" not in volumes else volumes["scan"].data != 0


def _inside_largest(mask: Volume, spacing: Any) -> Any:
    """Voxel of the largest component that is nearest to its centre of mass; the centre itself may lie outside."""
    labels, count = components(mask)
    largest = 1 + int(np.argmax(np.bincount(labels.ravel(), minlength=count + 1)[1:]))
    voxels = np.argwhere(labels == largest)
    return voxels[np.argmin(np.linalg.norm((voxels - voxels.mean(axis=0)) * spacing, axis=1))]


def _box(volumes: dict[str, World], first: World) -> tuple[slice, ...]:
    """Bounding box of the brain and of every outline, with a margin."""
    shown = _shown(volumes)
    return surroundings(np.asarray(shown, dtype=np.bool_), np.ceil(MARGIN_MM / first.spacing).astype(int).tolist())


def _shown(volumes: dict[str, World]) -> Volume:
    """The brain, the truth and the findings."""
    shown = _brain(volumes)
    for name in ("truth", "detected"):
        shown = shown | (volumes[name].data > 0) if name in volumes else shown
    return shown


def _window(volumes: dict[str, World], box: tuple[slice, ...]) -> tuple[float, float]:
    """Intensities of the scan (else of the restoration) drawn black and white, computed without background."""
    source = volumes.get("scan") or volumes.get("restoration")
    if source is None:
        return 0.0, 1.0
    values = source.data[box][_brain(volumes)[box]]
    values = values[values != 0]
    if values.size == 0:
        return 0.0, 1.0
    low, high = (float(v) for v in np.percentile(values, WINDOW))
    return low, high if high > low else low + 1.0


def _plane(name: str, volumes: dict[str, World], first: World, index: Any, box: tuple[slice, ...]) -> Plane:
    axis, marks = VIEWS[name]
    images = {key: cut(image.data[box], name, int(index[axis]) - box[axis].start) for key, image in volumes.items()}
    rows, columns = next(iter(images.values())).shape
    across, down = (float(first.spacing[a]) for a in range(3) if a != axis)
    where = f"{'xyz'[axis]} = {decimal(first.mm(index)[axis], 0)} mm"
    return Plane(name, (columns * across, rows * down), marks, where, images)
