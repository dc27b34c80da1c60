"""The two procedures of a detection by the field: this package's own and the published one.

A procedure defines every step from a prepared scan to its filtered maps, so that steps of the two cannot be mixed.
"""

from __future__ import annotations

import time
from collections.abc import Mapping
from typing import Protocol, TypeVar

import numpy as np
import torch
from torch import Tensor

from anofield.data.brain import StrippedScan
from anofield.data.lattice import to_native
from anofield.data.prepared import Prepared
from anofield.detect import published
from anofield.detect.decode import Person, decode, expected_class, on_lattice
from anofield.detect.elastic import align
from anofield.detect.filters import masked_mean, sharpen, smooth
from anofield.detect.fit import Fit, fit_code
from anofield.detect.method import Analysis
from anofield.detect.options import DetectOptions, Filters, Options, PublishedOptions, RunOptions, ScoreOptions, Tail
from anofield.detect.reference import Standard
from anofield.detect.scores import SCAN_SCORES, SCORES
from anofield.field.model import TrainedField
from anofield.typing import FloatVolume

Wanted = TypeVar("Wanted", bound=Options)


class Procedure(Protocol):
    """Interface of a procedure: fit, decoding, scores and filters that belong together."""

    def analyse(
        self, trained: TrainedField, prepared: Prepared, key: str, options: RunOptions, fit: Fit | None
    ) -> Analysis:
        """Fit (unless the fit is known), decode and score one scan."""

    def native_map(
        self, native: StrippedScan, analysis: Analysis, name: str, filters: Filters, standard: Standard | None
    ) -> FloatVolume:
        """The filtered score in the scan's own voxels, (i, j, k).

        Args:
            native: The scan in its own voxels.
            analysis: Result of `analyse` for the scan.
            name: Name of the score.
            filters: Options of the filters.
            standard: Healthy mean and SD of the score; None if it is not standardised.
        """


class Anofield:
    """This package's own procedure: code, pose and alignment are fitted, filters are in mm and follow edges."""

    def analyse(
        self, trained: TrainedField, prepared: Prepared, key: str, options: RunOptions, fit: Fit | None
    ) -> Analysis:
        """Fit (unless the fit is known), decode and score one scan."""
        chosen = _as(DetectOptions, options).fit
        start = time.perf_counter()
        fit = fit or fit_code(trained.field, trained.prior, prepared, key, chosen, trained.device)
        fitted = time.perf_counter()
        corrected, stride = fit.corrected(prepared), chosen.step(prepared.lattice.resolution)
        person = Person(trained.field, fit.code, trained.device, fit.pose)
        if chosen.elastic_mm:
            expected = on_lattice(expected_class(decode(person, corrected, stride)), corrected)
            moved = align(expected, corrected, fit.pose, chosen.elastic_mm, stride)
            person = Person(trained.field, fit.code, trained.device, moved)
        log_p = decode(person, prepared, stride)
        maps = {name: lattice_score(name, log_p, corrected, options.tail) for name in options.names}
        return Analysis(
            maps=maps,
            restoration=restoration(log_p, prepared),
            corrected=corrected,
            fit=fit,
            seconds={"fit": fitted - start, "score": time.perf_counter() - fitted},
        )

    def native_map(
        self, native: StrippedScan, analysis: Analysis, name: str, filters: Filters, standard: Standard | None
    ) -> FloatVolume:
        """The filtered score in the scan's own voxels, (i, j, k), 0 outside the brain."""
        prepared, values = analysis.corrected, analysis.maps[name]
        if standard is not None:
            values = standard.applied(values, prepared, analysis.pose)
        widths = _as(ScoreOptions, filters)
        coarse = smooth(values, prepared.brain, prepared.lattice, widths, prepared.intensity)
        shift, scale = prepared.scale
        guide = np.clip((native.scan.data - shift) / scale, 0.0, 1.0).astype(np.float32)
        return sharpen(to_brain(coarse, prepared, native), guide, native.brain, native.scan.affine, widths)


class Published:
    """The procedure of Naval Marimont & Tarroni 2021, see `anofield.detect.published`."""

    def analyse(
        self, trained: TrainedField, prepared: Prepared, key: str, options: RunOptions, fit: Fit | None
    ) -> Analysis:
        """Fit (unless the fit is known), decode and score one scan."""
        start = time.perf_counter()
        fit = fit or published.fit(trained, prepared, key, _as(PublishedOptions, options).seed)
        fitted = time.perf_counter()
        log_p, everywhere = published.decode(trained.field, fit.code, prepared, trained.device)
        maps = {name: lattice_score(name, log_p, prepared, options.tail) for name in options.names}
        return Analysis(
            maps={**maps, "cross-entropy": everywhere},
            restoration=restoration(log_p, prepared),
            corrected=prepared,
            fit=fit,
            seconds={"fit": fitted - start, "score": time.perf_counter() - fitted},
        )

    def native_map(
        self, native: StrippedScan, analysis: Analysis, name: str, filters: Filters, standard: Standard | None
    ) -> FloatVolume:
        """The filtered score in the scan's own voxels, (i, j, k); as published, it is not 0 outside the brain."""
        smoothed = published.smooth(analysis.maps[name])
        return to_native(smoothed, analysis.corrected.lattice).astype(np.float32)


PROCEDURES: Mapping[str, Procedure] = {"anofield": Anofield(), "ifl2021": Published()}


def lattice_score(name: str, log_p: Tensor, prepared: Prepared, tail: Tail) -> FloatVolume:
    """One score on the lattice before the filters, (R, R, R)."""
    if name in SCAN_SCORES:
        return SCAN_SCORES[name](prepared, tail)
    observed = torch.from_numpy(prepared.classes[prepared.brain]).long()
    return on_lattice(SCORES[name](log_p, observed, tail), prepared)


def restoration(log_p: Tensor, prepared: Prepared) -> FloatVolume:
    """Expected normalised intensity on the lattice, (R, R, R)."""
    return on_lattice(log_p.exp() @ torch.tensor(prepared.recipe.centers, dtype=log_p.dtype), prepared)


def to_brain(volume: FloatVolume, prepared: Prepared, native: StrippedScan) -> FloatVolume:
    """Resample lattice → native voxels; the brain is first extended by one voxel, so that its rim does not fade."""
    rim = masked_mean(volume, prepared.brain, 3)
    values = to_native(np.where(prepared.brain, volume, rim), prepared.lattice)
    return np.where(native.brain, values, 0.0).astype(np.float32)


def _as(kind: type[Wanted], options: Options) -> Wanted:
    """Check that the options have the class that a procedure needs, and return them."""
    if not isinstance(options, kind):
        raise TypeError(f"{kind.__name__} are needed, not {type(options).__name__}")
    return options
