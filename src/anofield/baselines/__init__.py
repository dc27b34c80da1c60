"""What a result must beat: each baseline scores the lattice, and is filtered and thresholded as any other score."""
