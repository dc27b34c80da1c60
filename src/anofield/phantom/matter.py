"""Relaxation times and proton density of healthy tissue, lesions and what surrounds the brain, at 1.5 and 3 T.

Times in ms. A lesion matter has two ends, from the mildest to the most marked; a lesion lies between them.
"""

from __future__ import annotations

from dataclasses import replace

from anofield.phantom.signal import Matter

FIELDS = (1.5, 3.0)  # T

# Density of grey and white matter: water content of Neeb et al. 2008 (NeuroImage 42:1094), rounded.
# T2 of grey and white matter: Stanisz et al. 2005 (Magn Reson Med 54:507).
# T1 of grey and white matter: in vivo, Rooney et al. 2007 (Magn Reson Med 57:308) at 1.5 T and Wansapura et al. 1999
# (J Magn Reson Imaging 9:531) at 3 T, both within the range of the review of Bojorquez et al. 2017 (Magn Reson Imaging
# 35:69). The 1820 ms of Stanisz et al. for grey matter at 3 T are above what others find.
# Fluid: T1 of Rooney et al. 2007; T2 of Spijkerman et al. 2018 (MAGMA 31:415), 3 T, taken for 1.5 T too.
TISSUE = {
    1.5: {"grey": Matter(1188, 95, 0.82), "white": Matter(656, 72, 0.70), "fluid": Matter(4300, 2000, 1.0)},
    3.0: {"grey": Matter(1331, 99, 0.82), "white": Matter(832, 69, 0.70), "fluid": Matter(4300, 2000, 1.0)},
}

# What stripping leaves outside the brain. Fat and marrow: de Bazelaire et al. 2004 (Radiology 230:652),
# subcutaneous fat and vertebral marrow; fat's T2 in trains of echoes is longer. Dura and bone are chosen by hand:
# dura like dense collagen, bone without signal.
SURROUND = {
    1.5: {"dura": Matter(900, 45, 0.70), "bone": Matter(300, 2, 0.15), "marrow": Matter(549, 49, 0.85)},
    3.0: {"dura": Matter(1000, 40, 0.70), "bone": Matter(300, 2, 0.15), "marrow": Matter(586, 49, 0.85)},
}

# Chosen by hand, at 3 T. The ranges follow published ones where there are any: T2 of oedema and tumour (Oh et al. 2005,
# J Magn Reson Imaging 21:701), T1 and T2 of glioma and its surroundings (Badve et al. 2017, AJNR 38:492), longer T1 and
# T2 of multiple sclerosis lesions (Larsson et al. 1988, Magn Reson Med 7:43) and of infarcts; cavities are almost
# fluid. Blood of some days (deoxyhaemoglobin) has a short T2, old blood (free methaemoglobin) a short T1 (Bradley
# 1993, Radiology 189:15). The dark scar holds iron and few protons. Infiltration and dysplasia lie near grey matter.
LESION = {
    "oedema": (Matter(1350, 125, 0.84), Matter(1750, 190, 0.90)),
    "core": (Matter(1350, 110, 0.82), Matter(1800, 160, 0.88)),
    "necrosis": (Matter(2400, 300, 0.92), Matter(3000, 600, 0.96)),
    "spot": (Matter(1150, 115, 0.80), Matter(1700, 180, 0.88)),
    "dark": (Matter(1500, 38, 0.55), Matter(1300, 50, 0.65)),
    "infarct": (Matter(1300, 125, 0.82), Matter(1800, 210, 0.90)),
    "cavity": (Matter(3000, 700, 0.96), Matter(4000, 1500, 0.99)),
    "blood": (Matter(1600, 35, 0.82), Matter(1250, 52, 0.85)),
    "old-blood": (Matter(420, 130, 0.82), Matter(360, 160, 0.86)),
    "infiltration": (Matter(1330, 92, 0.81), Matter(1240, 103, 0.83)),
    "dysplasia": (Matter(1250, 98, 0.81), Matter(1420, 120, 0.84)),
}
# T1 at 1.5 T over that at 3 T, for lesions: by hand, between white (0.79) and grey matter (0.89). Long T1 are those of
# nearly free water, which hardly depend on the field.
T1_SHARE, LONG_T1 = 0.85, 2000.0


def lesion(name: str, tesla: float) -> tuple[Matter, Matter]:
    """Both ends of a lesion matter at a field strength of `FIELDS`; T2 and density are those of 3 T."""
    low, high = LESION[name]
    return (low, high) if tesla == 3.0 else (_at_lower_field(low), _at_lower_field(high))


def _at_lower_field(matter: Matter) -> Matter:
    """Lesion matter of 3 T at 1.5 T."""
    return matter if matter.t1 > LONG_T1 else replace(matter, t1=T1_SHARE * matter.t1)
