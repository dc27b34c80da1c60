"""The tail of a detection: whether lesions are brighter or darker than healthy tissue, by the contrast of the training.

White matter is bright in T1w, and what replaces it (oedema, demyelination, gliosis, scars) is darker; in T2w, FLAIR and
PDw the same lesions are brighter (Osborn 2016, «Diagnostic Imaging: Brain»).
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TypeVar

import numpy as np
import torch
from scipy import ndimage

from anofield._progress import say, say_once
from anofield._words import counted, named
from anofield.data.cohort.case import Case, printable
from anofield.data.lattice import Convention
from anofield.data.origin import SEVERAL, Origin, contrast_of
from anofield.data.prepare import steps_of
from anofield.data.published import lattice_side
from anofield.data.tissue_order import contrast_by_tissues
from anofield.detect.method import Method
from anofield.detect.options import RunOptions, Tail
from anofield.field.model import TrainedField
from anofield.field.points import DECODE_POINTS, axis_coordinates

Chosen = TypeVar("Chosen", bound=RunOptions)

TAILS: dict[str, Tail] = {"T1w": "dark", "UNIT1": "dark", "T2w": "bright", "FLAIR": "bright", "PDw": "bright"}
MEANINGS = {
    "bright": "lesions are brighter than healthy tissue",
    "dark": "lesions are darker than healthy tissue",
    "both": "lesions may be brighter or darker than healthy tissue",
}
LEARNED_AT = 40  # points per axis at which the mean anatomy of an old experiment is looked at; 5 mm in a 200 mm box


def tail_of_contrast(contrast: str) -> Tail:
    """Departures that count in scans of a contrast; both where that is not known, or where there are several contrasts.

    >>> [tail_of_contrast(name) for name in ("T1w", "FLAIR", "T2starw", "T1w+T2w", "")]
    ['dark', 'bright', 'both', 'both', 'both']
    """
    return TAILS.get(contrast, "both")


def settled(options: Chosen, method: Method) -> Chosen:
    """The options with a plain tail instead of `auto`; a line on stderr says once which one, and why."""
    if options.filters.tail != "auto":
        return options
    tail = tail_of_contrast(method.origin.contrast)
    say_once(f"tail {tail}: {_reason(tail, method.origin)}; --tail changes it")
    return options.with_tail(tail)


def say_other_contrasts(cases: Sequence[Case], method: Method) -> None:
    """Name on stderr the scans whose names say another contrast than that of the training scans."""
    other = [(case, found) for case in cases if (found := other_contrast(case, method.origin))]
    if other:
        names = named(f"{printable(case.id)}: {found}" for case, found in other)
        say(f"{counted(len(other), 'scan')} named as of another contrast than {method.origin.contrast}, "
            f"the contrast of the training scans ({names})")  # fmt: skip


def other_contrast(case: Case, origin: Origin) -> str:
    """The contrast of a scan by its name if it is none of the training's; empty if it is, or if one is not known."""
    found = contrast_of(case)
    known = origin.contrast.split(SEVERAL)
    return found if found and origin.contrast and found not in known else ""


def origin_of_field(trained: TrainedField) -> Origin:
    """Where the training scans come from; a contrast that the experiment does not keep is learned from its field."""
    known = trained.origin or Origin()
    people = known.people or len(trained.codes)
    contrast = known.contrast
    if not contrast:
        contrast = _contrast_of_mean(trained)
        known = known.model_copy(update={"learned": bool(contrast)})
    return known.model_copy(update={"people": people, "contrast": contrast})


def _reason(tail: Tail, origin: Origin) -> str:
    if not origin.contrast:
        return f"the contrast of the training scans is not known, so {MEANINGS[tail]}"
    learned = ", as the order of their tissues says" if origin.learned else ""
    return f"{MEANINGS[tail]} in {origin.contrast}, the contrast of the training scans{learned}"


def _contrast_of_mean(trained: TrainedField) -> str:
    """Contrast of the field's anatomy at the mean code, by the order of its tissues."""
    recipe = trained.recipe
    p = _mean_classes(trained, recipe.lattice)
    first = 1 if recipe.outside_class else 0
    brain = ndimage.binary_fill_holes(p.argmax(axis=-1) > 0)
    values = p[..., first:] @ np.array(recipe.centers[first:]) / p[..., first:].sum(axis=-1).clip(1e-6)
    affine, side = steps_of(recipe).assumed_affine(recipe), lattice_side(recipe)
    spacing = float(np.linalg.norm(affine[:3, :3], axis=0).mean()) * side / LEARNED_AT
    return contrast_by_tissues(values, brain, spacing)


def _mean_classes(trained: TrainedField, convention: Convention) -> np.ndarray[tuple[int, ...], np.dtype[np.float64]]:
    """Class probabilities at the mean code on a coarse lattice, (R, R, R, class)."""
    points = torch.cartesian_prod(*[axis_coordinates(LEARNED_AT, convention)] * 3)
    code = trained.prior.mean[None].to(trained.device)
    with torch.no_grad():
        parts = [trained.field.logits(some.to(trained.device)[None], code)[0] for some in points.split(DECODE_POINTS)]
        p = torch.softmax(torch.cat(parts).double(), dim=-1).cpu().numpy()
    return np.asarray(p.reshape(LEARNED_AT, LEARNED_AT, LEARNED_AT, -1))
