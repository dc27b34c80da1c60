"""A synthetic cohort: individuals from the ICBM152 tissue maps, healthy or with lesions of known truth.

For development, teaching and benchmarks. What it can and cannot show: `docs/explanation/phantom.md`.
"""

from __future__ import annotations

from anofield.phantom.cohort import plan_cohort, write_case, write_cohort
from anofield.phantom.contrast import MODALITIES
from anofield.phantom.layouts import LAYOUTS, Grid, case_name, grid_of
from anofield.phantom.lesions import LESION_KINDS
from anofield.phantom.person import Person, make_person

__all__ = [
    "LAYOUTS",
    "LESION_KINDS",
    "MODALITIES",
    "Grid",
    "Person",
    "case_name",
    "grid_of",
    "make_person",
    "plan_cohort",
    "write_case",
    "write_cohort",
]
