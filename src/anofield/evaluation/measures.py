"""The two sets of metrics of an evaluation: the full card, and the metrics of the notebook of 2021."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from anofield.curves import Curve
from anofield.evaluation.card import Card, make_card
from anofield.evaluation.evidence import Evidence
from anofield.evaluation.options import Options, Preset
from anofield.evaluation.oracle import mean_threshold, pooled_threshold
from anofield.evaluation.parts import ScoreFigures
from anofield.evaluation.pooled import CaseCounts
from anofield.evaluation.published import notebook_figures
from anofield.evaluation.rules import KINDS, Kind, Space
from anofield.evaluation.summary import all_figures


@dataclass(frozen=True, kw_only=True)
class Measures:
    """One of the two sets of metrics.

    Attributes:
        space: Voxels that count unless options say otherwise.
        kinds: Kinds of threshold that are applied where they are known.
        lesions: Whether lesions, surfaces and the FROC are measured, and not voxels alone.
        figures: Function that computes the figures of one score.
        oracle: Function of pooled curve and coarse counts of the scans that chooses the oracle threshold.
        card: Function of evidence, options and promised quantile that computes all intervals; None for no intervals.
    """

    space: Space
    kinds: tuple[Kind, ...]
    lesions: bool
    figures: Callable[[Evidence, str], ScoreFigures]
    oracle: Callable[[Curve, Sequence[CaseCounts]], float]
    card: Callable[[Evidence, Options, float | None], Card] | None


FULL = Measures(space="brain", kinds=KINDS, lesions=True, figures=all_figures, oracle=mean_threshold, card=make_card)
NOTEBOOK = Measures(
    space="all", kinds=("oracle",), lesions=False, figures=notebook_figures, oracle=pooled_threshold, card=None
)
MEASURES: dict[Preset | None, Measures] = {None: FULL, "ifl2021": NOTEBOOK}
