"""From tissue to the signal of a scanner: signal per modality, lesion signal, bias field and Rician noise."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TypeAlias

import numpy as np

from anofield.phantom.anatomy import BrainVoxels, Fractions
from anofield.phantom.lesions.lesion import Layer
from anofield.phantom.spline import Spline, draw_field
from anofield.typing import FloatVolume

MODALITIES = ("T2w", "T1w", "FLAIR")

# Signal of grey matter and fluid with white matter at 1: orders and ratios of turbo spin echo T2w, MPRAGE
# and FLAIR at 3 T, rounded; no sequence is simulated. T2w is proton density · exp(−95 ms/T2) with T2 of 69 ms in
# white and 99 ms in grey matter (Stanisz et al. 2005), density 0.7 and 0.8, fluid long and dense.
SIGNAL = {"T2w": (1.60, 4.20), "T1w": (0.72, 0.30), "FLAIR": (1.18, 0.35)}
# Lowest and highest signal of lesion tissue on the same scale. On T2w the same formula with T2 of 130 to 250 ms for
# oedema, 100 to 170 ms for solid tumour, 300 ms and more for necrosis: between grey matter and fluid, so that
# brightness alone does not find it.
LESION_SIGNAL = {
    "oedema": {"T2w": (2.20, 3.10), "T1w": (0.60, 0.80), "FLAIR": (1.50, 2.00)},
    "core": {"T2w": (1.80, 2.60), "T1w": (0.55, 0.75), "FLAIR": (1.25, 1.70)},
    "necrosis": {"T2w": (3.20, 4.00), "T1w": (0.35, 0.50), "FLAIR": (0.55, 0.95)},
    "spot": {"T2w": (2.20, 3.00), "T1w": (0.62, 0.82), "FLAIR": (1.45, 2.00)},
    "dark": {"T2w": (0.30, 0.60), "T1w": (0.30, 0.50), "FLAIR": (0.35, 0.60)},
    "infarct": {"T2w": (2.00, 3.00), "T1w": (0.55, 0.78), "FLAIR": (1.45, 2.00)},
    "cavity": {"T2w": (3.60, 4.30), "T1w": (0.28, 0.38), "FLAIR": (0.35, 0.60)},
    # Blood of some days (deoxyhaemoglobin) or its rim, and blood of weeks (free methaemoglobin): Bradley 1993.
    "blood": {"T2w": (0.30, 0.70), "T1w": (0.55, 0.80), "FLAIR": (0.35, 0.70)},
    "old-blood": {"T2w": (2.20, 3.40), "T1w": (1.10, 1.35), "FLAIR": (1.40, 2.00)},
    # Tissue with the signal of grey matter.
    "infiltration": {"T2w": (1.45, 1.75), "T1w": (0.70, 0.80), "FLAIR": (1.15, 1.35)},
    "dysplasia": {"T2w": (1.55, 1.95), "T1w": (0.68, 0.76), "FLAIR": (1.20, 1.50)},
}
CONTRAST_SD = 0.06  # per person, relative, of each tissue's signal
UNITS = (200.0, 900.0)  # scanner units of white matter, as found across sites
REGIONAL_WIDTH, REGIONAL_SD = 24.0, (0.04, 0.03, 0.10)  # mm; grey, white, fluid (flow): healthy unevenness
BIAS_WIDTH, BIAS_SD = 140.0, (0.02, 0.10)  # mm; from restored to raw scans
NOISE = (0.02, 0.05)  # standard deviation per channel, white matter at 1
FLOOR = 0.01  # lowest signal inside the brain, white matter at 1: only the outside is zero

Levels: TypeAlias = Mapping[str, tuple[float, float]]  # of lesion matters: both ends of their signal, white matter at 1


@dataclass(frozen=True)
class Contrast:
    """One person's scanner: tissue signals, their regional unevenness, bias field, units and noise."""

    units: float
    tissue: tuple[float, float, float]  # grey, white, fluid
    regional: tuple[Spline, Spline, Spline]
    bias: Spline
    noise: float


def draw_contrast(rng: np.random.Generator, modality: str) -> Contrast:
    """A random scanner for one modality; every modality of a person takes the same draws."""
    grey, fluid = SIGNAL[modality]
    spread = np.exp(CONTRAST_SD * rng.standard_normal(3))
    return Contrast(
        units=rng.uniform(*UNITS),
        tissue=(grey * spread[0], 1.0, fluid * spread[2]),
        regional=tuple(draw_field(rng, REGIONAL_WIDTH, sd) for sd in REGIONAL_SD),  # type: ignore[arg-type]
        bias=draw_field(rng, BIAS_WIDTH, rng.uniform(*BIAS_SD)),
        noise=rng.uniform(*NOISE),
    )


def table_levels(modality: str) -> Levels:
    """Signals of lesion tissue of the table for one modality."""
    return {matter: signals[modality] for matter, signals in LESION_SIGNAL.items()}


def healthy_signal(contrast: Contrast, voxels: BrainVoxels, parts: Fractions) -> FloatVolume:
    """Signal of the healthy tissue at the brain voxels `(n,)`, white matter at 1, without bias or noise."""
    total = np.zeros(voxels.depth.shape, np.float32)
    mixed = zip((parts.grey, parts.white, parts.csf), contrast.tissue, contrast.regional, strict=True)
    for part, signal, unevenness in mixed:
        total += part * np.float32(signal) * (1 + voxels.field(unevenness))
    return total


def with_lesions(signal: FloatVolume, layers: list[Layer], levels: Levels, strength: float) -> FloatVolume:
    """Signal after each lesion layer has covered it; `strength` scales the difference from the tissue."""
    for layer in layers:
        low, high = levels[layer.matter]
        level = np.float32(low + layer.brightness * (high - low)) * layer.texture
        signal[layer.where] += layer.cover * np.float32(strength) * (level - signal[layer.where])
    return signal


def scanned(
    signal: FloatVolume, contrast: Contrast, voxels: BrainVoxels, rng: np.random.Generator, noise: float
) -> FloatVolume:
    """Scanner units after bias field and Rician noise, `(n,)`; `noise` multiplies the person's own level."""
    sigma = np.float32(contrast.noise * noise)
    biased = signal * np.exp(voxels.field(contrast.bias))
    real = biased + sigma * rng.standard_normal(signal.shape, dtype=np.float32)
    imaginary = sigma * rng.standard_normal(signal.shape, dtype=np.float32)
    magnitude = np.maximum(np.hypot(real, imaginary), np.float32(FLOOR))
    return np.asarray(magnitude * np.float32(contrast.units), dtype=np.float32)
