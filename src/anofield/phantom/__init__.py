"""A synthetic cohort: individuals from tissue maps of templates, healthy or with lesions of known truth.

For development, teaching and benchmarks. What it can and cannot show: `docs/explanation/phantom.md`.
"""
