"""Comparison of all methods on suites of people: trained once per world, given the same help, one table per suite.

A world (`world`) trains every method on the same people. A suite (`suites`) calibrates and tests them on groups of
people (`people`) that differ from the training in one way. A row (`rows`) is a method with or without the pose of the
field. `measure` computes a row's figures in memory, `pairs` compares rows over the same resamples, `tables` writes
them.

A benchmark is resumed where it stopped: `worlds/` holds what is trained, `SUITE/rows/ROW.json` a row that is done.
"""

from anofield.benchmark.run import run_benchmark
from anofield.benchmark.sizes import FULL, QUICK, Sizes

__all__ = ["FULL", "QUICK", "Sizes", "run_benchmark"]
