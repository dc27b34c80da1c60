"""Tissue maps of Colin27, one person scanned 27 times (Holmes et al. 1998), from Debian's package `mricron-data`.

The brain is taken as the package has it, stripped. A mixture of three Gaussians with ICBM152's maps as spatial prior
gives the mean of each tissue; a voxel between two means is a mixture of these two tissues.
"""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from anofield.data.volume import read_volume
from anofield.errors import MachineError
from anofield.phantom.align import Head
from anofield.phantom.template import CENTRE, Template, sample
from anofield.typing import FloatVolume, Mask, Volume

FOLDER, OVERRIDE = Path("/usr/share/mricron/templates"), "ANOFIELD_MRICRON"
FILE = "ch2bet.nii.gz"
LICENCE = "BSD-3-clause, as Debian's copyright file of mricron-data says (Chris Rorden, MRIcron)"
PAPER = "Holmes et al., Enhancement of MR images using registration for signal averaging, J Comput Assist Tomogr 1998"
ROUNDS = 20  # of expectation and maximisation; the means no longer change
PRIOR_BLUR_MM, PRIOR_FLOOR = 2.0, 0.05  # the anatomy of one person differs from the average
EDGE_BLUR = 2.0  # voxels: the outline of the brain is no rougher than this
PURE = 0.5  # standard deviations around a mean that count as one tissue


def colin27_file() -> Path:
    """The stripped scan, in the folder that `ANOFIELD_MRICRON` names or in the one of the package.

    Raises:
        MachineError: It is not installed.
    """
    path = Path(os.environ.get(OVERRIDE) or FOLDER) / FILE
    if not path.is_file():
        raise MachineError(
            "the scan of Colin27 is not installed",
            where=path,
            why="the templates colin27 and mixed are made from it",
            remedy=f"run `apt-get install mricron-data`, or set {OVERRIDE} to the folder that holds {FILE}",
        )
    return path


def colin27_head(path: Path, prior: Template) -> Head:
    """Tissue shares of Colin27 from its stripped scan; `prior` is ICBM152."""
    header, image = read_volume(path, np.float32)
    brain = _without_scraps(image > 0)
    chance = _priors(brain, header.affine, prior)  # (tissue, n): fluid, grey, white
    means, spreads = _mixture(image[brain], chance)
    fluid, white = _shares(image[brain], means, spreads)
    shares = [np.zeros(image.shape, np.float32) for _ in range(3)]
    for volume, values in zip(shares, (1 - fluid - white, white, fluid), strict=True):
        volume[brain] = values
    return Head(shares[0], shares[1], shares[2], header.affine)


def _without_scraps(mask: Mask) -> Mask:
    """The largest part of a stripped brain; the stripping left streaks at its edge."""
    parts, _ = ndimage.label(ndimage.binary_opening(mask, ndimage.generate_binary_structure(3, 1), iterations=2))
    counts = np.bincount(parts.ravel())
    counts[0] = 0
    largest = ndimage.binary_fill_holes(parts == counts.argmax()).astype(np.float32)
    return np.asarray(ndimage.gaussian_filter(largest, EDGE_BLUR) > 0.5, dtype=np.bool_)


def _priors(brain: Mask, affine: NDArray[np.float64], prior: Template) -> FloatVolume:
    """Chance `(3, n)` of fluid, grey and white matter at the brain voxels; the scan lies in MNI space."""
    voxels = np.stack(np.nonzero(brain))
    points = (affine[:3, :3] @ voxels + (affine[:3, 3] - CENTRE)[:, None]).astype(np.float32)
    grey, white = (sample(ndimage.gaussian_filter(m, PRIOR_BLUR_MM), points) for m in (prior.grey, prior.white))
    chance = np.stack([np.clip(1 - grey - white, 0, 1), grey, white]) + np.float32(PRIOR_FLOOR)
    return np.asarray(chance / chance.sum(0), dtype=np.float32)


def _mixture(values: Volume, chance: FloatVolume) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Means and standard deviations `(3,)` of fluid, grey and white matter."""
    shares = chance.astype(np.float64)
    for _ in range(ROUNDS):
        weight = shares.sum(1)
        means = shares @ values / weight
        apart = values - means[:, None]
        spreads = np.sqrt((shares * apart**2).sum(1) / weight)
        density = chance * np.exp(-0.5 * (apart / spreads[:, None]) ** 2) / spreads[:, None]
        shares = density / np.maximum(density.sum(0), 1e-30)
    return means, spreads


def _shares(
    values: Volume, means: NDArray[np.float64], spreads: NDArray[np.float64]
) -> tuple[FloatVolume, FloatVolume]:
    """Shares `(n,)` of fluid and of white matter, each linear between the edges of two tissues."""
    low, middle, high = (means + PURE * side * spreads for side in (1, 0, -1))
    grey_low, grey_high = middle[1] - PURE * spreads[1], middle[1] + PURE * spreads[1]
    fluid = np.clip((grey_low - values) / (grey_low - low[0]), 0, 1)
    white = np.clip((values - grey_high) / (high[2] - grey_high), 0, 1)
    return fluid.astype(np.float32), white.astype(np.float32)
