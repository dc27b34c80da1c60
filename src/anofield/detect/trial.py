"""Trial of a score that another package installs: it is called on made-up log-probabilities before the first scan."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import cache, partial
from typing import get_args

import torch
from torch import Tensor

from anofield._plugins import Plugin
from anofield.detect.options import Tail

ScoreFunction = Callable[[Tensor, Tensor, Tail], Tensor]
CLASSES = (3, 6, 10)  # numbers of classes of the trial
UNLIKELY = -200.0  # a log-probability whose exponential is 0 in float32
RANDOM = 64  # random voxels of the trial


@cache
def tried(plugin: Plugin) -> ScoreFunction:
    """Import an installed score and try it; the result is remembered.

    The score is called as a detection calls it: with (voxel, class) float32 log-probabilities on the CPU, the observed
    classes and each tail. The voxels include what real scans hold: classes whose probability is exactly 0, which have a
    log-probability of −∞, and fields that are certain, right or wrong. The returned function checks every result of the
    score in the same way.

    Raises:
        UsageError: The score cannot be imported or called, changes its arguments, or does not return one finite number
            per voxel that depends on nothing but its arguments.
    """
    score = plugin.load()
    if not callable(score):
        raise plugin.refused("is not a function")
    checked = partial(_checked, plugin, score)
    for log_p, observed in (voxels(classes) for classes in CLASSES):
        for tail in get_args(Tail):
            given = log_p.clone(), observed.clone()
            values = checked(*given, tail)
            if not (torch.equal(given[0], log_p) and torch.equal(given[1], observed)):
                raise plugin.refused("changes its arguments")
            if not torch.equal(values, checked(*given, tail)):
                raise plugin.refused("returns other values when it is called again with the same arguments")
    return checked


def voxels(classes: int) -> tuple[Tensor, Tensor]:
    """Log-probabilities (voxel, class) float32 and observed classes (voxel,) of a trial.

    As in a brain whose recipe reserves class 0 for the outside, half of the voxels give class 0 a probability of 0. The
    observed class may be very unlikely, but its log-probability is always finite.
    """
    rows = [(row, seen) for row in _rows(classes) for seen in range(classes) if row[seen] > -torch.inf]
    return torch.stack([row for row, _ in rows]), torch.tensor([seen for _, seen in rows])


def _rows(classes: int) -> Iterator[Tensor]:
    """Log-probabilities of the classes at one voxel each, (class,)."""
    generator = torch.Generator().manual_seed(0)
    logits = [torch.zeros(classes), *torch.randn(RANDOM, classes, generator=generator)]
    logits += [torch.where(torch.arange(classes) == one, 0.0, UNLIKELY) for one in range(classes)]
    for row in logits:
        yield torch.log_softmax(row, dim=0)
        yield torch.log_softmax(torch.cat((torch.tensor([-torch.inf]), row[1:])), dim=0)
    for one in range(classes):  # certain: every other class has probability 0
        yield torch.where(torch.arange(classes) == one, 0.0, -torch.inf)


def _checked(plugin: Plugin, score: ScoreFunction, log_p: Tensor, observed: Tensor, tail: Tail) -> Tensor:
    """Call an installed score and check its result, (voxel,)."""
    with torch.no_grad(), plugin.blamed(f"cannot be computed for the tail {tail!r}"):
        values = score(log_p, observed, tail)
    if not isinstance(values, Tensor):
        raise plugin.refused(f"returns {type(values).__name__}, not a torch tensor")
    if values.shape != observed.shape:
        raise plugin.refused(f"returns the shape {tuple(values.shape)} for {len(observed)} voxels")
    if values.dtype == torch.bool or values.is_complex():
        raise plugin.refused(f"returns {values.dtype}, not real numbers")
    values = values.detach().cpu().float()
    wrong = ~torch.isfinite(values)
    if wrong.any():
        row = int(wrong.nonzero()[0, 0])
        p = ", ".join(f"{one:.3g}" for one in log_p[row].exp().tolist())
        raise plugin.refused(
            f"is not finite: {float(values[row])} for the probabilities ({p}), observed class {int(observed[row])} and "
            f"the tail {tail!r}"
        )
    return values
