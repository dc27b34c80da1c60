"""A synthetic cohort: individuals from the ICBM152 tissue maps, healthy or with lesions of known truth.

For development, teaching and benchmarks. What it can and cannot show: `docs/explanation/phantom.md`.
"""
