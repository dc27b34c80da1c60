"""Checks of a baseline that another package installs: every result, and a trial on a made-up head when it is opened."""

from __future__ import annotations

from contextlib import AbstractContextManager, nullcontext
from typing import get_args

import numpy as np

from anofield._plugins import Plugin
from anofield.baselines.base import Baseline, Scored, State
from anofield.data.lattice import Lattice
from anofield.data.prepared import Prepared
from anofield.data.published import lattice_side
from anofield.data.recipe import Recipe
from anofield.detect.options import Tail
from anofield.errors import ExperimentError


def blamed(plugin: Plugin | None, problem: str) -> AbstractContextManager[None]:
    """Turn what a plug-in raises into an error that names it; code of this package (None) raises as it does."""
    return nullcontext() if plugin is None else plugin.blamed(problem)


def score(method: Baseline, plugin: Plugin | None, prepared: Prepared, key: str, tail: Tail) -> Scored:
    """Score a scan and check the result.

    Raises:
        UsageError: A plug-in fails, or returns something else than finite lattice volumes.
        ExperimentError: A baseline of this package returns numbers that are not finite.
    """
    with blamed(plugin, "cannot score a scan"):
        scored = method.score(prepared, key, tail)
    problem = _problem(scored, prepared)
    if problem and plugin is not None:
        raise plugin.refused(problem)
    if problem:
        raise ExperimentError(f"the baseline {problem}", remedy="train the baseline again with --force")
    return scored


def state_of(method: Baseline, plugin: Plugin | None) -> State:
    """The trained state, tensors by name.

    Raises:
        UsageError: A plug-in fails, or its state holds other things than tensors.
    """
    from torch import Tensor

    with blamed(plugin, "cannot give its state"):
        state = dict(method.state())
    if plugin is not None and not all(isinstance(value, Tensor) for value in state.values()):
        raise plugin.refused("has a state that does not consist of torch tensors")
    return state


def try_out(method: Baseline, plugin: Plugin | None) -> None:
    """Let a plug-in score a made-up head, so that a broken one stops the run at once and not every case.

    Raises:
        UsageError: See `score`.
    """
    if plugin is not None:
        for tail in get_args(Tail):
            score(method, plugin, made_up_head(method.recipe), "trial", tail)


def made_up_head(recipe: Recipe) -> Prepared:
    """A ball that holds every class of a recipe, in shells."""
    side, classes = lattice_side(recipe), len(recipe.centers)
    grid = np.indices((side,) * 3, dtype=np.float32) - (side - 1) / 2
    radius = np.sqrt((grid**2).sum(axis=0)) / (0.4 * side)
    brain, first = radius < 1, int(recipe.outside_class)
    shells = first + np.minimum((radius * (classes - first)).astype(np.intp), classes - 1 - first)
    seen = np.where(brain, shells, 0).astype(np.uint8)
    intensity = np.where(brain, np.asarray(recipe.centers, np.float32)[seen], np.float32(0))
    affine = np.diag([180 / side] * 3 + [1.0])
    lattice = Lattice(side, np.eye(4), (side, side, side), affine)
    return Prepared(
        classes=seen, brain=brain, intensity=intensity, label=None, lattice=lattice, recipe=recipe, scale=(0.0, 1.0)
    )


def _problem(scored: object, prepared: Prepared) -> str:
    """What is wrong with the result of a baseline; empty if nothing is."""
    if not isinstance(scored, Scored):
        return f"returns {type(scored).__name__}, not Scored"
    for name, volume in (("anomaly", scored.anomaly), ("restoration", scored.restoration)):
        if volume is None and name == "restoration":
            continue
        if not isinstance(volume, np.ndarray) or volume.shape != prepared.lattice.shape:
            shape = getattr(volume, "shape", type(volume).__name__)
            return f"returns an {name} map of the shape {shape}, not {prepared.lattice.shape}"
        if volume.dtype.kind not in "fiu" or not np.isfinite(volume[prepared.brain].astype(np.float32)).all():
            return f"returns an {name} map that is not finite in the brain"
    return ""
