"""A run against lesion labels: voxels, lesions, surfaces, whole scans, and how sure the figures are."""
