"""Scores of voxels under the fitted distribution, filters in millimetres, threshold, lesion table."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from importlib.metadata import EntryPoint, entry_points
from typing import Literal

import numpy as np
import torch
from pydantic import BaseModel, ConfigDict, Field
from scipy import ndimage
from torch import Tensor

from anofield.data.lattice import Lattice, bounding_box
from anofield.data.scan import Scan
from anofield.errors import UsageError
from anofield.typing import Affine, FloatVolume, Mask

GROUP = "anofield.scores"  # entry points: name = "package.module:function" with the signature of `deviation`
CONNECTIVITY = np.ones((3, 3, 3), dtype=bool)  # 26 neighbours
WIDEST_MM = 200.0  # a filter wider than a head is a slip of the pen
DEVIATION_FLOOR = 1.0  # classes; better than 0.5 and 0.25 on the phantom (AP +0.01), and steadier where SD is tiny
EDGE_NOISE = 3e-4  # ε of the guided filter, variance of normalised intensity: 1e-3 and 1e-4 differ by 0.003 AP
NATIVE_EDGE_NOISE = 1e-3  # on the scan's own, noisier voxels; 3e-3 costs 0.005 AP

Tail = Literal["bright", "dark", "both"]


class ScoreOptions(BaseModel):
    """Filters and threshold of the anomaly map.

    Attributes:
        tail: Which departures `deviation` counts: brighter than predicted (T2w and FLAIR lesions), darker, or both.
        rim_mm: Depth below the brain's surface of what does not count, because mask and restoration are never exact
            there (Baur et al. 2021 erode the mask); 0 for none.
        minimum_mm: Width of the minimum filter, which removes sulci and rims; below 2 lattice voxels it does nothing.
        gaussian_mm: Full width at half maximum of the Gaussian filter; 0 for none.
        edge_mm: Window of the guided filter (He et al. 2013), last: the blurred map takes the edges of the scan,
            so that a lesion ends where its intensity does; 0 for none (as in 2021).
        native_edge_mm: Window of the guided filter once more, on the scan's own voxels and intensities, for edges finer
            than the lattice; 0 for none.
        standardise: Subtract the voxel-wise healthy mean of the score and divide by its SD before filtering; needs a
            calibration made with it.
        min_lesion_ml: Smaller connected components are no finding.
        procedure: `ifl2021` filters as published (`anofield.detect.published`) and heeds none of the widths above.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    tail: Tail = "bright"
    rim_mm: float = Field(default=0.0, ge=0, le=WIDEST_MM)
    minimum_mm: float = Field(default=9.0, ge=0, le=WIDEST_MM)
    gaussian_mm: float = Field(default=7.0, ge=0, le=WIDEST_MM)
    edge_mm: float = Field(default=15.0, ge=0, le=WIDEST_MM)
    native_edge_mm: float = Field(default=10.0, ge=0, le=WIDEST_MM)
    standardise: bool = False
    min_lesion_ml: float = Field(default=0.1, ge=0, allow_inf_nan=False)
    procedure: Literal["anofield", "ifl2021"] = "anofield"


@dataclass(frozen=True)
class Lesion:
    """One connected component of the detection.

    Attributes:
        volume_ml: Its volume.
        peak, mean: Of the anomaly map inside it.
        center_mm: Centre of mass, world RAS+ mm.
    """

    volume_ml: float
    peak: float
    mean: float
    center_mm: tuple[float, float, float]


def cross_entropy(log_p: Tensor, observed: Tensor, tail: Tail = "bright") -> Tensor:
    """−log p of the observed class, nats; (voxel, class) and (voxel,) → (voxel,). Naval Marimont & Tarroni 2021."""
    return -log_p.gather(1, observed[:, None])[:, 0]


def crps(log_p: Tensor, observed: Tensor, tail: Tail = "bright") -> Tensor:
    """Continuous ranked probability score of the ordered classes, in classes. Gneiting & Raftery 2007, eq. 20."""
    below = log_p.exp().cumsum(dim=1)
    step = torch.arange(log_p.shape[1], device=log_p.device)[None] >= observed[:, None]
    return ((below - step.to(below)) ** 2).sum(dim=1)


def deviation(log_p: Tensor, observed: Tensor, tail: Tail = "bright") -> Tensor:
    """Observed minus predicted mean class over the predicted SD, the part in the chosen tail; (voxel,).

    Cross-entropy costs one class off as much as nine; this counts how far, and forgives where the field is unsure.
    """
    p = log_p.exp()
    index = torch.arange(log_p.shape[1], device=log_p.device, dtype=p.dtype)
    mean = p @ index
    variance = (p @ index**2 - mean**2).clamp_min(0.0)
    signed = (observed.to(p) - mean) / (variance + DEVIATION_FLOOR**2).sqrt()
    if tail == "both":
        return signed.abs()
    return (signed if tail == "bright" else -signed).clamp_min(0.0)


def tail_probability(log_p: Tensor, observed: Tensor, tail: Tail = "bright") -> Tensor:
    """−log P(class ≥ observed), nats, with half of the observed class (mid-p); (voxel,).

    `dark` takes P(class ≤ observed), `both` twice the smaller tail. What lies on the other side scores near 0.
    """
    p = log_p.exp()
    own = p.gather(1, observed[:, None])[:, 0]
    below = p.cumsum(dim=1).gather(1, observed[:, None])[:, 0] - own / 2
    above = 1 - below
    chosen = {"bright": above, "dark": below, "both": 2 * torch.minimum(above, below)}[tail]
    return -chosen.clamp(1e-6, 1.0).log()


ScoreFunction = Callable[[Tensor, Tensor, Tail], Tensor]
OWN_SCORES: dict[str, ScoreFunction] = {
    "deviation": deviation,
    "crps": crps,
    "cross-entropy": cross_entropy,
    "tail-probability": tail_probability,
}


class Scores(Mapping[str, ScoreFunction]):
    """The scores of this package, then those that others install under `GROUP`, imported when they are asked for.

    A name of this package cannot be taken by another.
    """

    def __getitem__(self, name: str) -> ScoreFunction:
        """The score of a name.

        Raises:
            KeyError: There is none.
            UsageError: An installed one cannot be imported or called.
        """
        return OWN_SCORES[name] if name in OWN_SCORES else _loaded(_installed()[name])

    def __contains__(self, name: object) -> bool:
        return name in OWN_SCORES or name in _installed()

    def __iter__(self) -> Iterator[str]:
        return iter({**OWN_SCORES, **_installed()})

    def __len__(self) -> int:
        return len({**OWN_SCORES, **_installed()})


def _installed() -> dict[str, EntryPoint]:
    return {point.name: point for point in entry_points(group=GROUP)}


def _loaded(point: EntryPoint) -> ScoreFunction:
    try:
        found = point.load()
    except (ImportError, AttributeError) as error:
        raise UsageError(
            f"the score {point.name!r} cannot be imported ({error})",
            where=point.value,
            remedy="mend or uninstall the package that provides it",
        ) from error
    if not callable(found):
        raise UsageError(f"the score {point.name!r} is no function", where=point.value)
    score: ScoreFunction = found
    return score


SCORES = Scores()


def smooth(
    values: FloatVolume, brain: Mask, lattice: Lattice, options: ScoreOptions, guide: FloatVolume | None = None
) -> FloatVolume:
    """Rim, minimum, Gaussian and guided filter, in mm, over brain voxels; (R, R, R) → (R, R, R), 0 outside.

    Args:
        values: Score, any value outside the brain.
        brain: Brain voxels of the lattice.
        lattice: Gives the spacing.
        options: Widths.
        guide: Normalised intensity for the guided filter; None leaves that filter out.
    """
    step = float(lattice.spacing.mean())
    minimum, edge = _odd(options.minimum_mm / step), _odd(options.edge_mm / step)
    if options.rim_mm > 0:
        depth = ndimage.distance_transform_edt(brain, sampling=lattice.spacing) - step / 2
        values = np.where(depth > options.rim_mm, values, 0.0).astype(np.float32)
    if minimum > 1:
        high = np.float32(np.finfo(np.float32).max)
        values = ndimage.minimum_filter(np.where(brain, values, high), size=minimum, mode="nearest")
    if options.gaussian_mm > 0:
        values = _masked_gaussian(values, brain, options.gaussian_mm / step / 2.355)  # FWHM = 2.355 σ
    if edge > 1 and guide is not None:
        values = guided(values, guide, brain, edge)
    return np.where(brain, values, 0.0).astype(np.float32)


def sharpen(
    values: FloatVolume, intensity: FloatVolume, brain: Mask, affine: Affine, options: ScoreOptions
) -> FloatVolume:
    """Guided filter of `native_edge_mm` on the scan's own voxels (i, j, k), within the brain's bounding box.

    Args:
        values: Map, 0 outside the brain.
        intensity: Normalised intensity, any value outside the brain.
        brain: Brain voxels.
        affine: Voxel → world mm.
        options: Width; 0 changes nothing.
    """
    step = float(np.linalg.norm(affine[:3, :3], axis=0).mean())
    width = _odd(options.native_edge_mm / step)
    box = bounding_box(brain)
    if width <= 1 or box is None:
        return values
    found = np.zeros_like(values)
    found[box] = guided(values[box], intensity[box], brain[box], width, NATIVE_EDGE_NOISE)
    return found


def guided(values: FloatVolume, guide: FloatVolume, brain: Mask, width: int, noise: float = EDGE_NOISE) -> FloatVolume:
    """Guided filter over the brain voxels of cubes of `width` voxels, not below 0. He, Sun & Tang 2013, eqs. 5 to 8.

    In every cube the result is the linear function of the guide that is nearest to the values.
    """
    values, guide = (np.where(brain, v, 0.0).astype(np.float32) for v in (values, guide))
    weight = ndimage.uniform_filter(brain.astype(np.float32), width, mode="constant")

    def mean(volume: FloatVolume) -> FloatVolume:
        total = ndimage.uniform_filter(np.where(brain, volume, 0.0).astype(np.float32), width, mode="constant")
        return np.asarray(np.divide(total, weight, out=np.zeros_like(total), where=weight > 0.5 / width**3))

    of_guide, of_values = mean(guide), mean(values)
    slope = (mean(guide * values) - of_guide * of_values) / (mean(guide**2) - of_guide**2 + np.float32(noise))
    found = mean(slope) * guide + mean(of_values - slope * of_guide)
    return np.asarray(np.maximum(found, 0.0) * brain, dtype=np.float32)


def masked_mean(values: FloatVolume, brain: Mask, width: int) -> FloatVolume:
    """Mean over the brain voxels of a cube of `width` voxels; 0 where there are none."""
    weight = ndimage.uniform_filter(brain.astype(np.float32), width, mode="constant")
    total = ndimage.uniform_filter(np.where(brain, values, 0.0).astype(np.float32), width, mode="constant")
    return np.asarray(np.divide(total, weight, out=np.zeros_like(total), where=weight > 0.5 / width**3))


def _masked_gaussian(values: FloatVolume, brain: Mask, sigma: float) -> FloatVolume:
    """Gaussian mean over brain voxels; σ in voxels."""
    weight = ndimage.gaussian_filter(brain.astype(np.float32), sigma, mode="constant")
    total = ndimage.gaussian_filter(np.where(brain, values, 0.0).astype(np.float32), sigma, mode="constant")
    return np.asarray(np.divide(total, weight, out=np.zeros_like(total), where=weight > 1e-4))


def find_lesions(anomaly: FloatVolume, mask: Mask, scan: Scan, min_ml: float) -> tuple[Mask, list[Lesion]]:
    """26-connected components of a mask on the scan's voxels, the largest first; those below `min_ml` are dropped."""
    labels, count = ndimage.label(mask, structure=CONNECTIVITY)
    index = np.arange(1, count + 1)
    sizes = np.bincount(labels.reshape(-1), minlength=count + 1)[1:] * scan.voxel_ml
    kept = index[sizes >= min_ml]
    lesions = []
    boxes = ndimage.find_objects(labels)
    for label in kept[np.argsort(-sizes[kept - 1], kind="stable")]:
        box = boxes[label - 1]
        inside = labels[box] == label
        values = anomaly[box][inside]
        at = np.argwhere(inside).mean(axis=0) + [axis.start for axis in box]
        x, y, z = scan.affine[:3, :3] @ at + scan.affine[:3, 3]
        volume = float(sizes[label - 1])
        lesions.append(Lesion(volume, float(values.max()), float(values.mean()), (float(x), float(y), float(z))))
    return np.isin(labels, kept), lesions


def _odd(width: float) -> int:
    """Nearest odd number of voxels, at least 1."""
    return max(1, 2 * round((width - 1) / 2) + 1)
