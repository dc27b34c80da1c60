"""One person's visit to a site: the scan that the site makes of a head.

The random numbers of a visit are those of child 16 of the person's seed, so that the streams of anatomy, contrast,
noise and lesion stay as they are without a site.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np

from anofield.phantom.anatomy import BrainVoxels
from anofield.phantom.contrast import FLOOR, Contrast
from anofield.phantom.layouts import Grid
from anofield.phantom.scanner import Quality, acquired
from anofield.phantom.site import Site, site_named
from anofield.phantom.spline import Axes, draw_field
from anofield.phantom.stripping import edge_distance, stripped
from anofield.typing import Classes, FloatVolume, Mask, Volume

STREAM = 16  # child of the person's seed sequence
TISSUE_SD = 0.03  # per person of one site, relative, of each tissue's signal
BIAS_WIDTH = 120.0  # mm
COIL_REACH = 85.0  # mm from the middle of the head to its surface
# Layers outside the brain's edge and where each ends, in mm: fluid, dura, bone, marrow. By hand, for a thin vault.
LAYERS = (("fluid", 1.5), ("dura", 2.5), ("bone", 4.5), ("marrow", 7.0))
LAYER_WIDTH, LAYER_SD = 15.0, 0.8  # mm, over which the layers' depth varies, and by how much


@dataclass(frozen=True)
class Visit:
    """A person at a site: `streams` are for contrast, surroundings, scanner and stripping."""

    site: Site
    modality: str
    streams: tuple[np.random.Generator, ...]

    @classmethod
    def of(cls, name: str, seed: int, number: int, modality: str) -> Visit:
        """The visit of person `number` of cohort `seed` to the site `name`, perhaps one drawn at random."""
        sequence = np.random.SeedSequence([seed, number], spawn_key=(STREAM,))
        first, *rest = (np.random.default_rng(child) for child in sequence.spawn(5))
        return cls(site_named(name, first), modality, tuple(rest))

    def contrast(self, person: Contrast) -> Contrast:
        """A person's contrast here; only the unevenness of the tissues is the person's own."""
        rng, site = self.streams[0], self.site
        signals = site.signals(self.modality)
        spread = np.exp(TISSUE_SD * rng.standard_normal(2))
        return replace(
            person,
            units=rng.uniform(*site.units),
            tissue=(signals["grey"] * spread[0], 1.0, signals["fluid"] * spread[1]),
            bias=draw_field(rng, BIAS_WIDTH, rng.uniform(*site.bias)),
            noise=rng.uniform(*site.noise),
        )

    def scan(
        self,
        signal: FloatVolume,
        label: Classes,
        voxels: BrainVoxels,
        contrast: Contrast,
        grid: Grid,
        box: tuple[slice, slice, slice],
        noise: float,
    ) -> tuple[FloatVolume, Mask, Classes]:
        """The stripped scan, the brain that it shows and the labels in it, each `(i, j, k)` on `grid`.

        Args:
            signal: Signal at the brain voxels, white matter at 1, `(n,)`.
            label: Labels at the brain voxels, `(n,)`.
            voxels: The brain voxels of the box.
            contrast: The person's contrast at this site.
            grid: Grid of the scan.
            box: The voxels of `grid` that the head can reach.
            noise: Factor on the noise.
        """
        _, around_rng, scanner_rng, stripping_rng = self.streams
        edge = edge_distance(voxels.inside, grid.spacing)
        head = self._around(edge, voxels.axes, around_rng, contrast.tissue[2])
        head[voxels.inside] = signal
        head *= np.exp(contrast.bias.on(voxels.axes)[0] + np.log1p(self.site.coil) * _outward(voxels.axes))
        image = self._acquired(head, grid, contrast.noise * noise, scanner_rng)
        image = np.maximum(image, np.float32(FLOOR)) * np.float32(contrast.units)
        truth = np.zeros(edge.shape, np.uint8)
        truth[voxels.inside] = label
        brain = stripped(edge, voxels.axes, self.site.stripping, stripping_rng)
        brain = _with_lesion(brain, voxels.inside, truth)
        return (
            _on_grid(grid, box, np.where(brain, image, np.float32(0))),
            _on_grid(grid, box, brain),
            _on_grid(grid, box, np.where(brain, truth, np.uint8(0))),
        )

    def _acquired(self, head: FloatVolume, grid: Grid, noise: float, rng: np.random.Generator) -> FloatVolume:
        """The magnitude image of a head by this site's scanner."""
        motion = float(rng.uniform(*self.site.motion))
        quality = Quality(noise=noise, motion=motion, filtered=self.site.filtered)
        return acquired(head, grid.spacing, self.site.protocols[self.modality], quality, rng)

    def _around(self, edge: FloatVolume, axes: Axes, rng: np.random.Generator, fluid: float) -> FloatVolume:
        """Signal `(i, j, k)` of the layers outside the brain, zero inside it."""
        away = -edge + draw_field(rng, LAYER_WIDTH, LAYER_SD).on(axes)[0]
        signals = {**self.site.signals(self.modality), "fluid": fluid}
        head = np.zeros(edge.shape, np.float32)
        for name, end in reversed(LAYERS):
            head[away < end] = signals[name]
        return head


def _with_lesion(shown: Mask, brain: Mask, truth: Classes) -> Mask:
    """The mask of a scan, grown by the right brain where it would cut off more than half of a lesion."""
    cut = (truth[shown] > 0).sum() < 0.5 * (truth > 0).sum()
    return shown | brain if cut else shown


def _on_grid(grid: Grid, box: tuple[slice, slice, slice], values: Volume) -> Volume:
    """A volume of the grid that holds `values` in a box and zero elsewhere."""
    volume = np.zeros(grid.shape, values.dtype)
    volume[box] = values
    return volume


def _outward(axes: Axes) -> Volume:
    """Squared distance from the middle of the head over its reach, `(i, j, k)`: 0 in the middle, 1 at the surface."""
    x, y, z = np.ix_(*((axis.astype(np.float32) / COIL_REACH) ** 2 for axis in axes))
    return np.asarray(np.minimum(x + y + z, 1.5))
