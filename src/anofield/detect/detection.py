"""One scan before the threshold: prepared, fitted, decoded, scored on the lattice, filtered, back on its own voxels."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from anofield.data.cohort.case import Case
from anofield.data.lattice import to_native
from anofield.data.prepare import Prepared, prepare_case
from anofield.detect import published as ifl2021
from anofield.detect.elastic import Elastic, align
from anofield.detect.fit import Fit, FitOptions, decode, fit_code
from anofield.detect.intensity import BASELINES
from anofield.detect.method import RunOptions, Scorer
from anofield.detect.pose import Pose
from anofield.detect.reference import Standard
from anofield.detect.scores import SCORES, ScoreOptions, Tail, masked_mean, sharpen, smooth
from anofield.field.model import Model
from anofield.typing import Affine, FloatVolume, Mask


@dataclass(frozen=True)
class Examined:
    """A scan after fit and decoding, before the filters.

    Attributes:
        prepared, mapped: On the lattice; the latter after the fitted intensity map.
        fit: Of the scan; None if the method fits no code.
        values: Score per name on the lattice, (R, R, R), 0 outside the brain.
        seconds: Per stage.
        restoration: Healthy version of the scan in normalised intensity, (R, R, R); None if the method has none.
    """

    prepared: Prepared
    mapped: Prepared
    fit: Fit | None
    values: dict[str, FloatVolume]
    seconds: dict[str, float]
    restoration: FloatVolume | None

    @property
    def pose(self) -> Pose | None:
        """Where the head lies in the field, if that was fitted."""
        return None if self.fit is None else self.fit.pose


def examine_with(model: Model | Scorer, case: Case, options: RunOptions, fit: Fit | None = None) -> Examined:
    """Examine one scan with the field, or with any other method.

    Args:
        model: From `load_model`, or another method such as `load_baseline` opens.
        case: The scan.
        options: Of the run.
        fit: If it is known already, the field does not fit again.

    Raises:
        ScanError: The scan or its mask cannot be used.
    """
    if isinstance(model, Model):
        return examine(case, model, options.names, options.fit or FitOptions(), options.filters.tail, fit=fit)
    start = time.perf_counter()
    prepared = prepare_case(Case(case.id, case.image, None, case.mask), model.recipe)
    ready = time.perf_counter()
    found = model.analyse(prepared, case.id, options)
    seconds = {"prepare": ready - start, **found.seconds}
    return Examined(prepared, prepared, None, found.maps, seconds, found.restoration)


def examine(
    case: Case,
    model: Model,
    names: Sequence[str],
    options: FitOptions,
    tail: Tail,
    *,
    fit: Fit | None = None,
) -> Examined:
    """Prepare, fit and decode one scan.

    Args:
        case: The scan.
        model: From `load_model`.
        names: Scores to compute.
        options: Of the fit.
        tail: Departures that the scores count.
        fit: If it is known already, it is not done again.

    Raises:
        ScanError: The scan or its mask cannot be used.
    """
    start = time.perf_counter()
    prepared = prepare_case(Case(case.id, case.image, None, case.mask), model.recipe)
    ready = time.perf_counter()
    fit = fit or fit_code(model.field, model.prior, prepared, case.id, options, model.device)
    fitted = time.perf_counter()
    mapped = fit.corrected(prepared)
    if options.procedure == "ifl2021":
        log_p, everywhere = ifl2021.decode(model.field, fit.code, prepared, model.device)
        values = {name: _lattice_score(name, log_p, mapped, tail) for name in names}
        values |= {"cross-entropy": everywhere} if "cross-entropy" in names else {}
    else:
        stride = options.step(prepared.lattice.resolution)
        place = fit.pose if options.elastic_mm == 0 else _aligned(model, fit, mapped, options.elastic_mm, stride)
        log_p = decode(model.field, fit.code, prepared, model.device, place, stride)
        values = {name: _lattice_score(name, log_p, mapped, tail) for name in names}
    seconds = {"prepare": ready - start, "fit": fitted - ready, "score": time.perf_counter() - fitted}
    expected = log_p.exp() @ torch.tensor(prepared.recipe.centers, dtype=log_p.dtype)
    return Examined(prepared, mapped, fit, values, seconds, on_lattice(expected, prepared))


def _aligned(model: Model, fit: Fit, prepared: Prepared, width_mm: float, stride: int) -> Elastic:
    """The elastic displacement of the fitted anatomy onto the scan."""
    p = decode(model.field, fit.code, prepared, model.device, fit.pose, stride).exp()
    expected = p @ torch.arange(p.shape[1], dtype=p.dtype)
    return align(on_lattice(expected, prepared), prepared, fit.pose, width_mm, stride)


def native_map(examined: Examined, name: str, filters: ScoreOptions, reference: Mapping[str, Standard]) -> FloatVolume:
    """The filtered score in the scan's own voxels, (i, j, k), 0 outside the brain.

    As published, the score counts outside the brain too.
    """
    prepared, values = examined.mapped, examined.values[name]
    if filters.procedure == "ifl2021":
        return to_native(ifl2021.smooth(values), prepared.lattice).astype(np.float32)
    if filters.standardise:
        values = reference[name].applied(values, prepared, examined.pose)
    coarse = smooth(values, prepared.brain, prepared.lattice, filters, prepared.intensity)
    return sharpen(to_brain(coarse, prepared), *_native_guide(prepared), filters)


def _native_guide(prepared: Prepared) -> tuple[FloatVolume, Mask, Affine]:
    """Normalised intensity of the scan's own voxels, its brain and its affine."""
    shift, scale = prepared.scale
    normalised = np.clip((prepared.scan.data - shift) / scale, 0.0, 1.0).astype(np.float32)
    return normalised, prepared.native_brain, prepared.scan.affine


def _lattice_score(name: str, log_p: Tensor, prepared: Prepared, tail: Tail) -> FloatVolume:
    """One score on the lattice, before the filters."""
    if name in BASELINES:
        return BASELINES[name](prepared, tail)
    observed = torch.from_numpy(prepared.classes[prepared.brain]).long()
    return on_lattice(SCORES[name](log_p, observed, tail), prepared)


def restored(normalised: FloatVolume, prepared: Prepared) -> FloatVolume:
    """A lattice volume of normalised intensities (R, R, R) in the scan's own voxels and units."""
    normalised = to_brain(normalised, prepared)
    shift, scale = prepared.scale
    return np.where(prepared.native_brain, normalised * scale + shift, 0.0).astype(np.float32)


def on_lattice(values: Tensor, prepared: Prepared) -> FloatVolume:
    """Values of the brain voxels (voxel,) as a lattice volume (R, R, R), 0 elsewhere."""
    volume = np.zeros(prepared.lattice.shape, dtype=np.float32)
    volume[prepared.brain] = values.numpy()
    return volume


def to_brain(volume: FloatVolume, prepared: Prepared) -> FloatVolume:
    """Lattice → native voxels; the brain's rim is continued one voxel outwards first, so that it does not fade."""
    rim = masked_mean(volume, prepared.brain, 3)
    native = to_native(np.where(prepared.brain, volume, rim), prepared.lattice)
    return np.where(prepared.native_brain, native, 0.0).astype(np.float32)
