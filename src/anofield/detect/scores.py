"""Scores: distance of each voxel from the expected classes, before any filter or threshold."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping

import torch
from torch import Tensor

from anofield._plugins import Plugin, installed
from anofield._progress import say_once
from anofield.data.prepared import Prepared
from anofield.detect.options import FieldOptions, RunOptions, Tail
from anofield.detect.trial import ScoreFunction, tried
from anofield.errors import UsageError
from anofield.typing import FloatVolume

DEVIATION_FLOOR = 1.0  # classes; better than 0.5 and 0.25 on the phantom (AP +0.01), and more stable where SD is tiny


def cross_entropy(log_p: Tensor, observed: Tensor, tail: Tail = "bright") -> Tensor:
    """−log p of the observed class, nats; (voxel, class) and (voxel,) → (voxel,). Naval Marimont & Tarroni 2021."""
    return -log_p.gather(1, observed[:, None])[:, 0]


def crps(log_p: Tensor, observed: Tensor, tail: Tail = "bright") -> Tensor:
    """Continuous ranked probability score of the ordered classes, in classes. Gneiting & Raftery 2007, eq. 20."""
    below = log_p.exp().cumsum(dim=1)
    step = torch.arange(log_p.shape[1], device=log_p.device)[None] >= observed[:, None]
    return ((below - step.to(below)) ** 2).sum(dim=1)


def deviation(log_p: Tensor, observed: Tensor, tail: Tail = "bright") -> Tensor:
    """Observed minus predicted mean class, over the predicted SD, limited to the chosen tail; (voxel,).

    Unlike cross-entropy, it grows with the distance between the classes, and it is lower where the field is uncertain.
    """
    p = log_p.exp()
    index = torch.arange(log_p.shape[1], device=log_p.device, dtype=p.dtype)
    mean = p @ index
    variance = (p @ index**2 - mean**2).clamp_min(0.0)
    signed = (observed.to(p) - mean) / (variance + DEVIATION_FLOOR**2).sqrt()
    if tail == "both":
        return signed.abs()
    return (signed if tail == "bright" else -signed).clamp_min(0.0)


def tail_probability(log_p: Tensor, observed: Tensor, tail: Tail = "bright") -> Tensor:
    """−log P(class ≥ observed), nats, with half of the observed class (mid-p); (voxel,).

    `dark` takes P(class ≤ observed), `both` twice the smaller tail. Departures to the other side score near 0.
    """
    p = log_p.exp()
    own = p.gather(1, observed[:, None])[:, 0]
    below = p.cumsum(dim=1).gather(1, observed[:, None])[:, 0] - own / 2
    above = 1 - below
    chosen = {"bright": above, "dark": below, "both": 2 * torch.minimum(above, below)}[tail]
    return -chosen.clamp(1e-6, 1.0).log()


def intensity_score(prepared: Prepared, tail: Tail = "bright") -> FloatVolume:
    """Normalised intensity of the scan, (R, R, R); inverted for dark lesions, distance from the median for both tails.

    On T2w and FLAIR a threshold on intensity is a strong detector (Meissen et al. 2021), which a method must beat.
    """
    if tail == "bright":
        return prepared.intensity
    middle = float(sorted(prepared.intensity[prepared.brain])[int(prepared.brain.sum()) // 2])
    away = prepared.intensity - middle
    return abs(away) if tail == "both" else -away


ScanScore = Callable[[Prepared, Tail], FloatVolume]
SCAN_SCORES: dict[str, ScanScore] = {"intensity": intensity_score}  # baselines that use only the scan, without a fit
OWN_SCORES: dict[str, ScoreFunction] = {
    "deviation": deviation,
    "crps": crps,
    "cross-entropy": cross_entropy,
    "tail-probability": tail_probability,
}


class Scores(Mapping[str, ScoreFunction]):
    """The scores of this package, then those that other packages install, imported and tried at first use.

    Another package cannot replace a score of this package.
    """

    def __getitem__(self, name: str) -> ScoreFunction:
        """The score of a name.

        Raises:
            KeyError: There is no such score.
            UsageError: An installed score cannot be imported, or fails the trial, see `anofield.detect.trial`.
        """
        return OWN_SCORES[name] if name in OWN_SCORES else tried(_installed()[name])

    def __contains__(self, name: object) -> bool:
        return name in OWN_SCORES or name in _installed()

    def __iter__(self) -> Iterator[str]:
        return iter({**OWN_SCORES, **_installed()})

    def __len__(self) -> int:
        return len({**OWN_SCORES, **_installed()})


SCORES = Scores()


def _installed() -> dict[str, Plugin]:
    return installed("score", own=(*OWN_SCORES, *SCAN_SCORES))


def score_names() -> list[str]:
    """Names of all scores: those of the field, then those that use only the scan."""
    return [*SCORES, *SCAN_SCORES]


def makers_of(names: Iterable[str]) -> dict[str, str]:
    """The package and its version of each of these scores that another package installs."""
    plugins = _installed()
    return {name: plugins[name].package for name in names if name in plugins}


def usable_scores() -> list[str]:
    """Like `score_names`, without the installed scores that fail; each of these is named on stderr, once."""
    usable = []
    for name in score_names():
        try:
            SCORES.get(name)
        except UsageError as error:
            say_once(f"left out: {error}")
        else:
            usable.append(name)
    return usable


def load_scores(options: RunOptions) -> None:
    """Import and try the scores of a run before its first scan: a broken one stops the run at once and not every case.

    Raises:
        UsageError: A score cannot be imported, or fails the trial.
    """
    if isinstance(options, FieldOptions):  # the score of a baseline is the baseline
        for name in options.names:
            SCORES.get(name)
