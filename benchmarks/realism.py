"""Phantom figures beside real ones: tissue contrast, fluid in the sulci, noise, sharpness and spread of intensities.

Usage: ANOFIELD_REAL=FOLDER python benchmarks/realism.py [--people 2] [--modality T1w T2w FLAIR]
[--kind colin27] [--no-real].
Without ANOFIELD_REAL, the folder of the real scans, only the phantom is measured.

Tissue maps (0 outside, 1 fluid, 2 grey, 3 white matter) come with the people of OASIS. Elsewhere `tissue_map` makes
them from T1w; for the phantom, from a T1w scan of the same person without a site and without noise.
"""

from __future__ import annotations

import argparse
import os
from collections.abc import Iterator
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
from scipy import ndimage

from anofield.phantom.contrast import MODALITIES
from anofield.phantom.layouts import grid_of
from anofield.phantom.person import Look, make_person
from anofield.phantom.site import SITES
from anofield.typing import Classes, FloatVolume, Mask

FLUID, GREY, WHITE = 1, 2, 3
OUTER_MM = 15.0  # depth of the sulci
OASIS = ("oas1000", "oas1113")  # 20 and 54 years old
MAD = 1.4826  # standard deviation of a normal distribution over its median absolute deviation
BIAS_MM = 15.0
COLUMNS = (
    "brain", "contrast", "grey/white", "fluid/white", "CNR", "noise, %", "border, mm",
    "spread of grey, white, %", "fluid, %", "fluid of outer 15 mm, %",
)  # fmt: skip


@dataclass(frozen=True)
class Brain:
    """A stripped scan of 1 mm voxels with a map of its tissues; `healthy` leaves lesions out."""

    name: str
    modality: str
    image: FloatVolume
    shown: Mask
    tissue: Classes
    healthy: Mask


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--people", type=int, default=2, help="phantom people per row")
    parser.add_argument("--seed", type=int, default=5)
    parser.add_argument("--modality", nargs="+", default=["T1w", "T2w", "FLAIR"], choices=MODALITIES)
    parser.add_argument("--kind", nargs="+", default=list(varieties()), choices=list(varieties()), help="phantoms")
    parser.add_argument("--no-real", action="store_true", help="measure only the phantom")
    chosen = parser.parse_args()
    print("| " + " | ".join(COLUMNS) + " |\n" + "|---" * len(COLUMNS) + "|")
    for brain in () if chosen.no_real else real_brains():
        if brain.modality in chosen.modality:
            print(row(brain.name, brain.modality, [figures(brain)]), flush=True)
    for kind in chosen.kind:
        for site in (None, *SITES) if kind == "icbm152" else (None, "A"):
            for modality in chosen.modality:
                name = f"{kind}, {'table' if site is None else f'site {site}'}"
                people = (phantom(chosen.seed, n, modality, site, kind) for n in range(chosen.people))
                print(row(name, modality, [figures(brain) for brain in people]), flush=True)


def varieties() -> dict[str, dict[str, Any]]:
    """Options of `make_person` by the name of what is varied."""
    found: dict[str, dict[str, Any]] = {"icbm152": {}}
    try:
        from anofield.phantom.variety import FULL_VARIETY, Variety
    except ImportError:
        return found
    found["full variety"] = {"variety": FULL_VARIETY}
    found["colin27"] = {"variety": Variety(template="colin27")}
    return found


def real_brains() -> Iterator[Brain]:
    """Two people of OASIS with their tissue maps and one patient without the lesions."""
    if not os.environ.get("ANOFIELD_REAL"):
        return
    root = Path(os.environ["ANOFIELD_REAL"])
    for name in OASIS:
        image = volume(root / "oasis" / "brains" / f"{name}_T1w.nii.gz")
        tissue = volume(root / "oasis" / "tissues" / f"{name}_tissues.nii.gz").astype(np.uint8)
        made = tissue_map(image, image > 0)
        agree = [2 * ((made == t) & (tissue == t)).sum() / ((made == t).sum() + (tissue == t).sum()) for t in (1, 2, 3)]
        print(f"<!-- {name}: Dice of tissue_map with the given fluid, grey, white: {np.round(agree, 2)} -->")
        yield Brain(name, "T1w", image, image > 0, tissue, image > 0)
    folder = root / "ms26"
    scans = {modality: volume(folder / f"{modality}.nii.gz") for modality in ("T1w", "T2w", "FLAIR")}
    healthy = ~ndimage.binary_dilation(volume(folder / "lesion.nii.gz") > 0, iterations=3)
    shown = ndimage.binary_fill_holes(np.any([scan > 0 for scan in scans.values()], axis=0))  # fluid may be 0 on T1w
    tissue = tissue_map(scans["T1w"], shown)
    for modality, image in scans.items():
        yield Brain("ms26", modality, image, shown, tissue, healthy)


def phantom(seed: int, number: int, modality: str, site: str | None, kind: str) -> Brain:
    """A healthy phantom person at a site."""
    look = Look(modality=modality, site=site)
    person = make_person(seed, number, grid_of("brats", "native"), look=look, **varieties()[kind])
    return Brain("phantom", modality, person.image, person.brain, phantom_tissue(seed, number, kind), person.brain)


@lru_cache(maxsize=8)
def phantom_tissue(seed: int, number: int, kind: str) -> Classes:
    """Tissues of a phantom person."""
    look = Look(modality="T1w", noise=0.0)
    plain = make_person(seed, number, grid_of("brats", "native"), look=look, **varieties()[kind])
    return tissue_map(plain.image, plain.brain)


def volume(path: Path) -> FloatVolume:
    """The voxels of a file."""
    return np.asarray(nib.load(path).dataobj, dtype=np.float32)


def tissue_map(image: FloatVolume, brain: Mask) -> Classes:
    """Three tissues of a T1w scan: nearest of three means, after division by the smooth white-matter signal."""
    bias = np.ones_like(image)
    for _ in range(3):
        values = image[brain] / bias[brain]
        means = three_means(values)
        tissue = np.zeros(image.shape, np.uint8)
        tissue[brain] = 1 + np.abs(values[:, None] - means[None, :]).argmin(1)
        white = tissue == WHITE
        smooth = [ndimage.gaussian_filter(v.astype(np.float32), BIAS_MM) for v in (image * white, white)]
        bias = smooth[0] / np.maximum(smooth[1], 1e-3)
    return tissue


def three_means(values: FloatVolume) -> FloatVolume:
    """Means of fluid, grey and white matter on T1w, `(3,)` (Lloyd 1982)."""
    values = values[:: max(len(values) // 200_000, 1)]
    means = np.quantile(values, [0.05, 0.35, 0.8])
    for _ in range(40):
        nearest = np.abs(values[:, None] - means[None, :]).argmin(1)
        means = np.array([values[nearest == i].mean() for i in range(3)])
    return means


def figures(brain: Brain) -> dict[str, float]:
    """The figures of one scan; ratios to white matter and percentages of its signal."""
    brain = cropped(brain)
    depth = ndimage.distance_transform_edt(np.pad(brain.tissue > 0, 1))[1:-1, 1:-1, 1:-1]
    outer = (depth > 0) & (depth <= OUTER_MM)
    pure = {t: ndimage.binary_erosion(brain.tissue == t) & brain.healthy for t in (FLUID, GREY, WHITE)}
    pure[GREY] &= outer  # deep grey matter has iron and myelin
    pure[FLUID] = ndimage.binary_erosion(pure[FLUID])
    grey, white = (float(np.median(brain.image[pure[t]])) for t in (GREY, WHITE))
    deep = brain.image[pure[FLUID]]
    noise = noise_of(brain.image, pure[WHITE])
    return {
        "grey": grey / white,
        "fluid": float(np.median(deep)) / white,
        "cnr": abs(grey - white) / noise,
        "noise": 100 * noise / white,
        "border": border_width(brain, abs(grey - white)),
        "grey_spread": 100 * spread(brain.image[(brain.tissue == GREY) & brain.healthy]),
        "white_spread": 100 * spread(brain.image[(brain.tissue == WHITE) & brain.healthy]),
        "fluid_share": 100 * float((brain.tissue == FLUID).sum() / (brain.tissue > 0).sum()),
        "outer_share": 100 * float((brain.tissue[outer] == FLUID).mean()),
    }


def cropped(brain: Brain) -> Brain:
    """The box around the head, with two voxels of margin."""
    box = ndimage.find_objects(((brain.tissue > 0) | brain.shown).astype(np.uint8))[0]
    box = tuple(slice(max(part.start - 2, 0), part.stop + 2) for part in box)
    volumes = (brain.image, brain.shown, brain.tissue, brain.healthy)
    return Brain(brain.name, brain.modality, *(volume[box] for volume in volumes))


def noise_of(image: FloatVolume, white: Mask) -> float:
    """Noise per voxel: robust spread of a voxel against its six neighbours; too low where a scan was smoothed."""
    around = ndimage.convolve(image, ndimage.generate_binary_structure(3, 1) / 6.0)
    away = (image * (1 + 1 / 6.0) - around)[ndimage.binary_erosion(white)]  # voxel - mean of its neighbours
    return MAD * float(np.median(np.abs(away - np.median(away)))) / np.sqrt(7 / 6)


def border_width(brain: Brain, contrast: float) -> float:
    """Distance in mm over which the signal changes from grey to white: contrast over the median slope there."""
    smooth = ndimage.gaussian_filter(brain.image, 0.6)
    slope = np.sqrt(sum(np.square(part) for part in np.gradient(smooth)))
    white = brain.tissue == WHITE
    border = (brain.tissue == GREY) & ndimage.binary_dilation(white) & brain.healthy
    border &= ~ndimage.binary_dilation(brain.tissue <= FLUID)
    return contrast / float(np.median(slope[border]))


def spread(values: FloatVolume) -> float:
    """Robust standard deviation over the median."""
    middle = np.median(values)
    return MAD * float(np.median(np.abs(values - middle)) / middle)


def row(name: str, modality: str, people: list[dict[str, float]]) -> str:
    """A line of the table: means over people."""
    mean = {key: float(np.mean([person[key] for person in people])) for key in people[0]}
    border = f"{mean['border']:.1f}" if modality == "T1w" else "–"  # elsewhere grey and white differ too little
    return (
        f"| {name} | {modality} | {mean['grey']:.2f} | {mean['fluid']:.2f} | {mean['cnr']:.1f} | {mean['noise']:.1f} "
        f"| {border} | {mean['grey_spread']:.0f}, {mean['white_spread']:.0f} "
        f"| {mean['fluid_share']:.0f} | {mean['outer_share']:.0f} |"
    )


if __name__ == "__main__":
    main()
