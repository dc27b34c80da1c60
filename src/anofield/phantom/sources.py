"""Where the templates of a cohort come from: built-in names, or a folder with the tissue maps of several people."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np

from anofield.data.header import Header
from anofield.data.scan import is_scan_name, stem
from anofield.data.volume import read_volume
from anofield.errors import CohortError, ScanError, UsageError
from anofield.phantom.align import Head
from anofield.phantom.colin import colin27_file
from anofield.phantom.variety import TEMPLATES
from anofield.typing import FloatVolume

FLUID, GREY, WHITE = 1, 2, 3  # labels of tissue maps
TISSUES = ("grey", "white", "fluid")
# Names of probability maps: BIDS derivatives, SPM and CAT (c1, p1, mwp1), FSL FAST (pve_0 is fluid), and plain words.
TOKENS = {
    "grey": re.compile(r"label-GM|(?<![a-z])gr[ae]y(?:matter)?|(?<![a-z])gm(?![a-z])|^m?w?[cp]1|pve_1", re.IGNORECASE),
    "white": re.compile(r"label-WM|(?<![a-z])white(?:matter)?|(?<![a-z])wm(?![a-z])|^m?w?[cp]2|pve_2", re.IGNORECASE),
    "fluid": re.compile(r"label-CSF|(?<![a-z])fluid|(?<![a-z])csf(?![a-z])|^m?w?[cp]3|pve_0", re.IGNORECASE),
}
WHOLE = 1e-3  # distance from a whole number that is rounding
BRAIN_ML = (500.0, 2600.0)  # of adults with the fluid around the brain, and some room
LEAST_SHARE = 0.1  # of the brain that is grey, and that is white matter; adults have 0.3 and more
LARGEST_VOXEL_MM = 2.5  # cortex is 2 to 4 mm thick


@dataclass(frozen=True)
class Source:
    """The files of one template; `stamp` changes with them. ICBM152 has none."""

    name: str
    kind: Literal["icbm152", "t1w", "labels", "shares"]
    files: tuple[Path, ...] = ()
    stamp: tuple[tuple[int, int], ...] = ()


ICBM152 = Source("icbm152", "icbm152")


def find_sources(template: str) -> tuple[Source, ...]:
    """The templates of a name of `TEMPLATES`, or of a folder, in the order of their names.

    Raises:
        UsageError: There is neither such a template nor such a folder.
        CohortError: The folder holds no tissue maps, or a person lacks some.
        MachineError: The package with Colin27 is not installed.
    """
    if template == "icbm152":
        return (ICBM152,)
    if template == "colin27":
        return (_stamped("colin27", "t1w", (colin27_file(),)),)
    if template == "mixed":
        return ICBM152, _stamped("colin27", "t1w", (colin27_file(),))
    folder = Path(template)
    if not folder.is_dir():
        raise UsageError(
            f"there is no template and no folder {template!r}",
            remedy=f"choose from {', '.join(TEMPLATES)}, or name a folder with tissue maps in NIfTI",
        )
    return _in_folder(folder)


def read_head(source: Source) -> Head:
    """The tissue maps of a person of a folder.

    Raises:
        ScanError: A map cannot be read, or does not hold what a tissue map of a brain holds.
    """
    head = _read_labels(source.files[0]) if source.kind == "labels" else _read_shares(source.files)
    _check_brain(head, source.files[0])
    return head


def _in_folder(folder: Path) -> tuple[Source, ...]:
    """The people of a folder, in the order of their names."""
    files = sorted(p for p in folder.rglob("*") if is_scan_name(p) and not _hidden(p, folder) and p.is_file())
    people: dict[str, dict[str, Path]] = {}
    for path in files:
        tissue, person = _tissue_of(path)
        maps = people.setdefault(str(path.parent.relative_to(folder) / person), {})
        if tissue in maps:
            raise CohortError(
                f"holds two maps of one person and tissue ({maps[tissue].name} and {path.name})",
                where=folder,
                remedy="keep one of them",
            )
        maps[tissue] = path
    if not people:
        remedy = "give label maps with 1 fluid, 2 grey, 3 white, or three probability maps of each person"
        raise CohortError("holds no tissue maps in NIfTI", where=folder, remedy=remedy)
    return tuple(_person(name, maps, folder) for name, maps in sorted(people.items()))


def _person(name: str, maps: dict[str, Path], folder: Path) -> Source:
    """The source of one person; three probability maps, or one label map."""
    if "labels" in maps:
        return _stamped(name, "labels", (maps["labels"],))
    if missing := [tissue for tissue in TISSUES if tissue not in maps]:
        raise CohortError(
            f"the map of {missing[0]} matter is missing beside {next(iter(maps.values())).name}".replace(
                "fluid matter", "fluid"
            ),
            where=folder,
            why="a person needs probability maps of grey matter, white matter and fluid",
            remedy="name them like sub-1_label-GM_probseg, c1sub-1 or sub-1_pve_1, or give one label map",
        )
    return _stamped(name, "shares", tuple(maps[tissue] for tissue in TISSUES))


def _tissue_of(path: Path) -> tuple[str, str]:
    """Tissue of a probability map, or `labels`; and the name of its person, without the tissue."""
    name = stem(path)
    for tissue, token in TOKENS.items():
        if token.search(name):
            return tissue, token.sub("", name)
    return "labels", name


def _hidden(path: Path, folder: Path) -> bool:
    return any(part.startswith(".") for part in path.relative_to(folder).parts)


def _stamped(name: str, kind: Literal["t1w", "labels", "shares"], files: tuple[Path, ...]) -> Source:
    """A source with size and time of its files."""
    about = [path.stat() for path in files]
    return Source(name, kind, files, tuple((one.st_size, one.st_mtime_ns) for one in about))


def _read_labels(path: Path) -> Head:
    """A label map with 1 fluid, 2 grey matter, 3 white matter."""
    header, values = read_volume(path, np.float32)
    _check_voxels(header, path)
    found = np.unique(values)
    if (
        not np.isfinite(found).all()
        or np.abs(found - np.rint(found)).max() > WHOLE
        or not set(np.rint(found))
        <= {
            0,
            FLUID,
            GREY,
            WHITE,
        }
    ):
        some = ", ".join(f"{value:g}" for value in found[:6])
        raise ScanError(
            f"is no tissue map: its values are {some}{', …' if len(found) > 6 else ''}",
            where=path,
            why="a label map has 0 outside, 1 fluid, 2 grey matter and 3 white matter",
            remedy="translate its labels, or name probability maps by their tissue (label-GM, label-WM, label-CSF)",
        )
    grey, white, fluid = ((np.rint(values) == label).astype(np.float32) for label in (GREY, WHITE, FLUID))
    return Head(grey, white, fluid, header.affine)


def _read_shares(files: tuple[Path, ...]) -> Head:
    """Probability maps of grey matter, white matter and fluid on the same voxels."""
    maps: list[FloatVolume] = []
    first: Header | None = None
    for path in files:
        header, values = read_volume(path, np.float32)
        _check_voxels(header, path)
        first = first or header
        if header.shape[:3] != first.shape[:3] or not np.allclose(header.affine, first.affine, atol=1e-2):
            raise ScanError(
                f"does not lie on the voxels of {files[0].name}",
                where=path,
                why="the maps of a person are added voxel by voxel",
                remedy="resample it to that map",
            )
        _check_shares(values, path)
        maps.append(values)
    assert first is not None  # noqa: S101 - there are three files
    total = np.maximum(maps[0] + maps[1] + maps[2], 1)
    return Head(maps[0] / total, maps[1] / total, maps[2] / total, first.affine)


def _check_shares(values: FloatVolume, path: Path) -> None:
    if np.isfinite(values).all() and values.min() >= -WHOLE and values.max() <= 1 + WHOLE:
        return
    raise ScanError(
        f"is no probability map: its values reach from {np.nanmin(values):g} to {np.nanmax(values):g}",
        where=path,
        remedy="give shares from 0 to 1",
    )


def _check_voxels(header: Header, path: Path) -> None:
    """Refuse voxels that are too large to hold a cortex."""
    if (largest := float(np.linalg.norm(header.affine[:3, :3], axis=0).max())) > LARGEST_VOXEL_MM:
        raise ScanError(
            f"has voxels {largest:.1f} mm wide, the limit is {LARGEST_VOXEL_MM} mm",
            where=path,
            why="the cortex would be lost",
            remedy="give maps of about 1 mm",
        )


def _check_brain(head: Head, path: Path) -> None:
    """Refuse maps that are empty, are no adult brain, or whose header turns the head."""
    ml = float(abs(np.linalg.det(head.affine[:3, :3]))) / 1000
    brain, grey, white = (float(volume.sum(dtype=np.float64)) for volume in (head.brain, head.grey, head.white))
    if not BRAIN_ML[0] <= brain * ml <= BRAIN_ML[1]:
        raise ScanError(
            f"holds {brain * ml:.0f} ml of tissue and fluid, adults have {BRAIN_ML[0]:.0f} to {BRAIN_ML[1]:.0f} ml",
            where=path,
            remedy="check that the map is complete, and the voxel size in its header",
        )
    for tissue, amount in (("grey", grey), ("white", white)):
        if amount < LEAST_SHARE * brain:
            raise ScanError(
                f"only {100 * amount / brain:.0f} % of the brain is {tissue} matter",
                where=path,
                remedy="check the labels: 1 fluid, 2 grey matter, 3 white matter",
            )
