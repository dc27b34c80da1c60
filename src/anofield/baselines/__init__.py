"""Baselines that the field must beat: each scores the lattice and gets the same filters and threshold as the field."""
