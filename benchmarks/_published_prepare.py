"""The 2021 preprocessing as its description says it, plainly, for comparison (Naval Marimont & Tarroni 2021).

Written from the steps that the published commands take, not copied from them. The mode pool gathers all shifted copies
of the volume, which is where the published scripts spend most of their time and memory.
"""

from __future__ import annotations

import pickle
from collections import namedtuple
from pathlib import Path

import nibabel as nib
import numpy as np
import torch
from numpy.typing import NDArray
from scipy import ndimage

from anofield.data.classes import PAPER_CENTERS

img_extended = namedtuple("img_extended", "img seg cid")  # the published name and fields


def read(path: Path) -> NDArray[np.float64]:
    """Voxels (i, j, k), float64."""
    return np.asarray(nib.load(path).get_fdata())


def turn(layout: str, volume: NDArray[np.float64]) -> NDArray[np.float64]:
    """The cube of a native volume: 240³ for BraTS, 300³ for HCP."""
    turned = np.transpose(volume, (2, 1, 0))
    if layout == "brats":
        return np.pad(turned, ((42, 43), (0, 0), (0, 0)))
    return np.pad(turned[:, ::-1], ((20, 20), (0, 0), (20, 20)))[:, 5:-6]


def normalise(image: NDArray[np.float64]) -> NDArray[np.float64]:
    """Non-zero voxels clipped to their 2nd and 98th percentile, then to [0, 1]; in place."""
    brain = image != 0
    image[brain] = np.clip(image[brain], *np.percentile(image[brain], (2, 98)))
    low, high = image[brain].min(), image[brain].max()
    image[brain] = (image[brain] - low) / (high - low)
    return image


def mode_pool(classes: NDArray[np.uint8], width: int) -> NDArray[np.uint8]:
    """Most frequent class of every window; ties to the lowest (torch.mode sorts each window)."""
    padded = torch.from_numpy(np.pad(classes, (1, width % 2)).astype(np.int64))
    windows = padded.unfold(0, width, 1).unfold(1, width, 1).unfold(2, width, 1)
    return torch.mode(windows.reshape(*classes.shape, -1), dim=-1).values.numpy().astype(np.uint8)


def compute(
    layout: str,
    volume: NDArray[np.float64],
    label: NDArray[np.float64] | None,
    resolution: int | None,
    window: int | None,
) -> tuple[NDArray[np.uint8], NDArray[np.uint8] | None]:
    """Classes and labels of one case on the cube."""
    image = normalise(turn(layout, volume))
    seg = None if label is None else turn(layout, label).astype(np.uint8)
    if resolution is not None:
        factor = resolution / image.shape[1]
        image = ndimage.zoom(image, factor, order=1)
        seg = None if seg is None else ndimage.zoom(seg, factor, order=1)
    classes = np.abs(image[..., None] - np.array(PAPER_CENTERS)).argmin(-1).astype(np.uint8)
    return (classes if window is None else mode_pool(classes, window)), seg


def write(path: Path, classes: NDArray[np.uint8], label: NDArray[np.uint8] | None, case: str) -> None:
    """One `.nt`: a pickled list of one case."""
    with path.open("wb") as stream:
        pickle.dump([img_extended(classes, label, case)], stream)
