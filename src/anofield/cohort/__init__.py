"""A cohort: cases (id, scan, label, mask) found in an HCP, BraTS or BIDS tree, a folder, a glob, a manifest, a file."""

from __future__ import annotations

from anofield.cohort.bids import find_bids, parse_entities
from anofield.cohort.case import Case, part_of, split_by_subject
from anofield.cohort.find import DATASETS, find_cases
from anofield.cohort.manifest import read_manifest
from anofield.cohort.trees import find_brats, find_folder, find_hcp, looks_like_a_label

__all__ = [
    "DATASETS",
    "Case",
    "find_bids",
    "find_brats",
    "find_cases",
    "find_folder",
    "find_hcp",
    "looks_like_a_label",
    "parse_entities",
    "part_of",
    "read_manifest",
    "split_by_subject",
]
