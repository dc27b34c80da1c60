"""Sites: where a person is scanned, from the signal of the sequence to the errors of skull stripping.

A site stands for one scanner with one protocol per modality and one way of preparing scans. The sites are made up;
their figures are chosen by hand within what is usual, and sequences follow public protocols where one is named.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import partial

import numpy as np

from anofield.errors import UsageError
from anofield.phantom import matter
from anofield.phantom.scanner import Protocol
from anofield.phantom.signal import GradientEcho, InversionRecovery, Mprage, Sequence, SpinEcho, nulling_time
from anofield.phantom.stripping import Stripping


@dataclass(frozen=True, kw_only=True)
class Site:
    """A scanner and how its scans are prepared.

    Attributes:
        name: Letter, or a name for the reader.
        tesla: Field strength, one of `matter.FIELDS`.
        protocols: How each of `contrast.MODALITIES` is acquired.
        units: Range of the white-matter signal, in the units of the scans.
        bias: Range of the standard deviation of the smooth bias that is left in the scans.
        coil: Signal at the surface of the head over that in the middle, less 1.
        noise: Range of the standard deviation per channel in a voxel of 1 mm³, white matter at 1; a larger voxel
            has less, and a protocol multiplies it.
        motion: Range of the motion during a scan, mm and degrees.
        filtered: How softly k-space ends: 0 rings, 1 is a Hann window.
        stripping: Errors of skull stripping.
    """

    name: str
    tesla: float
    protocols: Mapping[str, Protocol]
    units: tuple[float, float]
    bias: tuple[float, float]
    coil: float
    noise: tuple[float, float]
    motion: tuple[float, float]
    filtered: float
    stripping: Stripping

    def signals(self, modality: str) -> dict[str, float]:
        """Signal of grey and white matter, fluid and the surroundings of the brain, white matter at 1."""
        sequence = self.protocols[modality].sequence
        matters = {**matter.TISSUE[self.tesla], **matter.SURROUND[self.tesla]}
        white = sequence.signal(matters["white"])
        return {name: sequence.signal(one) / white for name, one in matters.items()}

    def lesion_signals(self, modality: str) -> dict[str, tuple[float, float]]:
        """Signal of both ends of every lesion matter, white matter at 1."""
        sequence = self.protocols[modality].sequence
        white = sequence.signal(matter.TISSUE[self.tesla]["white"])
        ends = {name: matter.lesion(name, self.tesla) for name in matter.LESION}
        return {name: (sequence.signal(a) / white, sequence.signal(b) / white) for name, (a, b) in ends.items()}


# Echo times of T2w and FLAIR are those of a spin echo of the same contrast. Trains of echoes below 180° decay more
# slowly than their nominal TE says: for a real T2w scan with a TE of 120 ms (Lesjak et al. 2017) the equation gives 2.0
# for grey matter and 5.8 for fluid, and 1.4 and 3.0 were measured. The noise factors follow the noise of such scans.

# Isotropic 1 mm at 3 T, well kept. T1w: MPRAGE as in ADNI-3. T2w and FLAIR: TR and TI as in HCP and UK Biobank.
_A = (1.0, 1.0, 1.0)
SITE_A = Site(
    name="A",
    tesla=3.0,
    protocols={
        "T1w": Protocol(sequence=Mprage(2300, 3, 900, 9, 7.1, 192), voxel=_A),
        "T2w": Protocol(sequence=SpinEcho(3200, 85), voxel=_A, noise=2.0),
        "FLAIR": Protocol(sequence=InversionRecovery(5000, 115, 1700), voxel=_A, noise=2.5),
    },
    units=(250.0, 400.0),
    bias=(0.02, 0.04),
    coil=0.03,
    noise=(0.025, 0.04),
    motion=(0.0, 0.0),
    filtered=0.4,
    stripping=Stripping(shift=(-0.3, 0.3), local=0.3, holes=0.0),
)

# An older 1.5 T scanner with 1.2 mm voxels. T1w: MPRAGE as in OASIS (Marcus et al. 2007, J Cogn Neurosci 19:1498).
_B = (1.2, 1.2, 1.2)
SITE_B = Site(
    name="B",
    tesla=1.5,
    protocols={
        "T1w": Protocol(sequence=Mprage(1460, 4, 640, 10, 9.7, 128), voxel=_B),
        "T2w": Protocol(sequence=SpinEcho(5600, 90), voxel=_B, noise=1.3),
        "FLAIR": Protocol(sequence=InversionRecovery(8000, 110, 2200), voxel=_B, noise=1.6),
    },
    units=(60.0, 120.0),
    bias=(0.06, 0.12),
    coil=0.15,
    noise=(0.08, 0.12),
    motion=(0.0, 0.2),
    filtered=0.3,
    stripping=Stripping(shift=(-1.5, 0.5), local=0.6, holes=0.2),
)

# A 3 T scanner in clinical use: axial slices of 5 mm with a gap of 1 mm, tilted as the front and back of the corpus
# callosum are; fewer lines along the phase than along the readout.
_slices = partial(Protocol, voxel=(0.9, 1.3, 5.0), slices=2, gap=1.0, tilt=12.0)
SITE_C = Site(
    name="C",
    tesla=3.0,
    protocols={
        "T1w": _slices(sequence=GradientEcho(250, 2.5, 80)),
        "T2w": _slices(sequence=SpinEcho(4500, 90), noise=1.6),
        "FLAIR": _slices(sequence=InversionRecovery(9000, 95, 2300), noise=2.0),
    },
    units=(500.0, 900.0),
    bias=(0.03, 0.08),
    coil=-0.12,
    noise=(0.08, 0.12),
    motion=(0.2, 0.7),
    filtered=0.0,
    stripping=Stripping(shift=(-3.0, 3.0), local=1.0, holes=0.7),
)

SITES = {site.name: site for site in (SITE_A, SITE_B, SITE_C)}
RANDOM = "random"  # name of the choice that sends every person to a site of their own
RANDOM_UNITS = (50.0, 2000.0)  # signal of white matter, drawn log-uniformly
SITE_CHOICES = (*SITES, RANDOM)


def check_site(name: str | None) -> None:
    """Raise `UsageError` for a site that does not exist; `None` is the plain table of signals."""
    if name is not None and name not in SITE_CHOICES:
        raise UsageError(f"unknown site {name!r}", remedy=f"choose one of {', '.join(SITE_CHOICES)}")


def site_named(name: str, rng: np.random.Generator) -> Site:
    """The site of a name of `SITE_CHOICES`; a random one is drawn from `rng`."""
    check_site(name)
    return random_site(rng) if name == RANDOM else SITES[name]


def random_site(rng: np.random.Generator) -> Site:
    """A site drawn from what is usual: field strength, sequences, voxels or slices, and all faults."""
    tesla = float(rng.choice(matter.FIELDS))
    return Site(
        name=RANDOM,
        tesla=tesla,
        protocols={modality: _random_protocol(rng, modality, tesla) for modality in ("T1w", "T2w", "FLAIR")},
        units=(float(np.exp(rng.uniform(*np.log(RANDOM_UNITS)))),) * 2,
        bias=(rng.uniform(0.02, 0.12),) * 2,
        coil=rng.uniform(-0.15, 0.2),
        noise=(rng.uniform(0.025, 0.08),) * 2,
        motion=(0.0, rng.choice([0.0, 0.2, 0.7])),
        filtered=rng.uniform(0.0, 0.6),
        stripping=Stripping(
            shift=(rng.uniform(-3.0, 0.0), rng.uniform(0.0, 3.0)),
            local=rng.uniform(0.2, 1.0),
            holes=rng.uniform(0, 0.7),
        ),
    )


def _random_protocol(rng: np.random.Generator, modality: str, tesla: float) -> Protocol:
    """A protocol of a random site; T1w is isotropic twice as often as not, T2w and FLAIR half as often."""
    isotropic = bool(rng.uniform() < (2 / 3 if modality == "T1w" else 1 / 3))
    sequence = _random_sequence(rng, modality, tesla, isotropic)
    side = rng.uniform(0.9, 1.3)
    factor = rng.uniform(1.0, 1.5) * (1.0 if modality == "T1w" else 1.6)
    if isotropic:
        return Protocol(sequence=sequence, voxel=(side, side, side), noise=factor * side**3)
    axis = int(rng.choice([0, 1, 2], p=[0.15, 0.15, 0.7]))  # mostly axial
    thick, phase = rng.uniform(3.0, 5.0), 1 if axis != 1 else 0
    voxel = [side, side, side]
    voxel[phase], voxel[axis] = side * rng.uniform(1.0, 1.5), thick
    return Protocol(
        sequence=sequence,
        voxel=(voxel[0], voxel[1], voxel[2]),
        slices=axis,
        gap=thick * rng.uniform(0.0, 0.25),
        tilt=rng.uniform(-15.0, 15.0),
        phase=phase,
        noise=factor * float(np.prod(voxel)) ** 0.7,  # larger voxels are scanned faster
    )


def _random_sequence(rng: np.random.Generator, modality: str, tesla: float, isotropic: bool) -> Sequence:
    """A sequence with times about those of the named sites."""
    if modality == "T2w":
        return SpinEcho(rng.uniform(3000, 6000), rng.uniform(75, 105))
    if modality == "FLAIR":
        tr = rng.uniform(5000, 9500)
        ti = nulling_time(tr, matter.TISSUE[tesla]["fluid"].t1) * rng.uniform(0.90, 0.97)
        return InversionRecovery(tr, rng.uniform(85, 115), ti)
    if not isotropic:
        return GradientEcho(rng.uniform(200, 300), 2.5, rng.uniform(70, 90))
    if rng.uniform() < 0.3:
        return GradientEcho(rng.uniform(18, 28), 5, rng.uniform(25, 32))
    return Mprage(rng.uniform(1800, 2400), 3, rng.uniform(850, 1000), rng.uniform(8, 10), 7.5, 176)
