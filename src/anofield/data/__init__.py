"""Preparation: scans become intensity classes on a lattice, a cohort becomes a store; nothing here imports torch."""
