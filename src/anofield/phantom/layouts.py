"""The folder layouts and sampling grids of the three kinds of cohort: HCP, BraTS'18 and BIDS."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np

from anofield.data.published import GRIDS
from anofield.data.recipe import RecipeName
from anofield.errors import UsageError
from anofield.typing import Affine, Shape3

LAYOUTS = ("hcp", "brats", "bids")
CUBE_MM = 208.0  # side of the isotropic grids: the longest synthetic head and a margin
SIZES = (8, 512)  # allowed numbers of voxels per side
HCP_IDS = (100101, 9)  # first number and step: six digits for 99 989 cases

_BRATS_SUFFIX = {"T2w": "t2", "T1w": "t1", "FLAIR": "flair"}


@dataclass(frozen=True)
class Grid:
    """A sampling grid: `affine` `(4, 4)` maps voxel indices to RAS+ mm; its axes run along the world's."""

    shape: Shape3
    affine: Affine

    @property
    def spacing(self) -> tuple[float, float, float]:
        """Voxel widths in mm."""
        x, y, z = np.abs(np.diag(self.affine)[:3])
        return float(x), float(y), float(z)

    @property
    def centre(self) -> np.ndarray[tuple[int], np.dtype[np.float64]]:
        """World coordinates of the middle of the field of view, mm."""
        middle = np.append((np.array(self.shape) - 1) / 2, 1.0)
        return np.asarray((self.affine @ middle)[:3])


@dataclass(frozen=True)
class CasePaths:
    """Paths of the files of one case, relative to the cohort's folder; `None` for files that a layout lacks."""

    image: Path
    label: Path | None
    brain: Path | None = None


def check_layout(layout: str) -> None:
    """Raise `UsageError` for a layout that does not exist."""
    if layout not in LAYOUTS:
        raise UsageError(f"unknown layout {layout!r}", remedy=f"choose one of {', '.join(LAYOUTS)}")


def grid_of(layout: str, size: str | int) -> Grid:
    """The grid of a layout.

    Args:
        layout: One of `LAYOUTS`.
        size: `"native"` for the layout's own grid, or R for R³ isotropic voxels over a 208 mm cube with the
            same centre and the same orientation of storage.

    Raises:
        UsageError: The layout or the size does not exist.
    """
    check_layout(layout)
    native = _NATIVE[layout]
    if size == "native":
        return native
    side = _side(size)
    coarse = tuple(float(np.sign(step)) * CUBE_MM / side for step in np.diag(native.affine)[:3])
    corner = tuple(float(c - step * (side - 1) / 2) for c, step in zip(native.centre, coarse, strict=True))
    return Grid((side, side, side), _affine(coarse, corner))


def case_name(layout: str, number: int, lesion: str | None = None) -> str:
    """The name of a case; it does not tell whether there is a `lesion`.

    >>> case_name("hcp", 0), case_name("brats", 12), case_name("bids", 3)
    ('100101', 'Brats18_ANO_12_1', 'sub-ano0003')
    """
    check_layout(layout)
    if number < 0:
        raise UsageError(f"case number {number} is negative", remedy="count cases from 0")
    if layout == "hcp":
        return _hcp_id(number)
    return f"Brats18_ANO_{number}_1" if layout == "brats" else f"sub-ano{number:04d}"


def case_paths(layout: str, name: str, modality: str, lesion: str | None) -> CasePaths:
    """The files of a case as its layout names them."""
    if layout == "hcp":
        folder = Path(name) / "T1w"
        image = folder / f"{modality}_acpc_dc_restore_brain.nii.gz"
        return CasePaths(image, folder / "lesion_mask.nii.gz" if lesion else None)
    if layout == "brats":
        image = Path(name) / f"{name}_{_BRATS_SUFFIX[modality]}.nii.gz"
        return CasePaths(image, Path(name) / f"{name}_seg.nii.gz")
    truth = Path("derivatives/phantom") / name / "anat"
    return CasePaths(
        Path(name) / "anat" / f"{name}_{modality}.nii.gz",
        truth / f"{name}_label-lesion_mask.nii.gz" if lesion else None,
        truth / f"{name}_desc-brain_mask.nii.gz",
    )


def _hcp_id(number: int) -> str:
    """A six-digit number in the form of HCP subject ids."""
    first, step = HCP_IDS
    if first + step * number > 999_999:
        raise UsageError(
            f"case number {number} has no six-digit id",
            remedy=f"use numbers below {(999_999 - first) // step}",
        )
    return str(first + step * number)


def _side(size: str | int) -> int:
    """The number of voxels per side that a size names."""
    text = str(size)
    if text.isdecimal() and SIZES[0] <= int(text) <= SIZES[1]:
        return int(text)
    raise UsageError(
        f"unknown size {size!r}", remedy=f"give 'native' or a number of voxels from {SIZES[0]} to {SIZES[1]}"
    )


def _affine(steps: tuple[float, ...], offset: tuple[float, ...]) -> Affine:
    """A diagonal affine."""
    affine = np.diag([*steps, 1.0])
    affine[:3, 3] = offset
    return affine


def _published(name: RecipeName) -> Grid:
    """The native grid of a published data set."""
    return Grid(GRIDS[name].shape, GRIDS[name].affine)


_NATIVE = {
    "hcp": _published("ifl2021-hcp"),
    "brats": _published("ifl2021-brats"),
    "bids": Grid((192, 232, 192), _affine((1.0, 1.0, 1.0), (-95.5, -133.5, -90.5))),  # a common 1 mm RAS matrix
}
