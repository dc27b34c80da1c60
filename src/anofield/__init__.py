"""Unsupervised anomaly detection in brain MRI with an implicit field of healthy anatomy."""

__version__ = "0.1.0"
