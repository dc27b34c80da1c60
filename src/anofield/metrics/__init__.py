"""Metrics of anomaly maps: voxels, lesions, surfaces, whole scans, and how sure their figures are."""
