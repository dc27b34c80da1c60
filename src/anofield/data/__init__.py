"""A scan on disk becomes intensity classes on a lattice, and a cohort becomes a store; nothing here imports torch."""
