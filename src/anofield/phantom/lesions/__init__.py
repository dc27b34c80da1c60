"""Lesions with truth, planned in mm before voxels exist.

A lesion is planned on the coarse lattice of the head frame, so that it is the same on every output grid. Each
of its parts is a level in mm, positive inside; cover and label follow from the level.
"""
