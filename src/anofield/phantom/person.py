"""One synthetic person on a grid: anatomy, lesion, contrast and noise, each from its own random stream."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from anofield.errors import UsageError
from anofield.phantom.anatomy import Anatomy, draw_anatomy, find_brain_voxels, fractions
from anofield.phantom.contrast import MODALITIES, draw_contrast, healthy_signal, scanned, table_levels, with_lesions
from anofield.phantom.layouts import Grid
from anofield.phantom.lesions.kinds import LESION_KINDS, draw_lesion
from anofield.phantom.lesions.lesion import covered, no_layers
from anofield.phantom.site import check_site
from anofield.phantom.spline import Axes
from anofield.phantom.template import HALF_EXTENT
from anofield.phantom.variation import draw_individual
from anofield.phantom.variety import SIMPLE, Variety
from anofield.phantom.visit import Visit
from anofield.typing import Classes, FloatVolume, Mask, Volume

FIELD_MARGIN_MM = 14.0  # beyond the template's box that a displaced head may reach


@dataclass(frozen=True)
class Person:
    """A skull-stripped scan with its truth; all volumes `(i, j, k)` on `grid`.

    `image` is zero outside `brain` and positive inside; `label` is 0 for healthy tissue. `age` is in years, `None`
    where the variety has no ages; `traits` names what is unusual in the healthy anatomy, from `UNUSUAL`. At a
    site whose skull stripping errs, `brain` is what the scan shows, and lesion voxels that were cut off are not
    labelled.
    """

    image: FloatVolume
    brain: Mask
    label: Classes
    grid: Grid
    lesion: str | None
    age: float | None = None
    traits: tuple[str, ...] = ()


def check_kind(kind: str) -> None:
    """Raise `UsageError` for a lesion kind that does not exist."""
    if kind not in LESION_KINDS:
        raise UsageError(f"unknown lesion kind {kind!r}", remedy=f"choose from {', '.join(LESION_KINDS)}")


def check_modality(modality: str) -> None:
    """Raise `UsageError` for a modality that does not exist."""
    if modality not in MODALITIES:
        raise UsageError(f"unknown modality {modality!r}", remedy=f"choose one of {', '.join(MODALITIES)}")


@dataclass(frozen=True, kw_only=True)
class Look:
    """How a person is scanned.

    Attributes:
        modality: One of `MODALITIES`.
        lesion_contrast: Factor on the lesion's difference from the tissue that it replaces; 0 hides it.
        noise: Factor on the person's own noise level; 0 for none.
        site: One of `SITE_CHOICES`: a scanner with its sequences and faults. `None`: the plain table of signals.

    Raises:
        UsageError: The modality or the site is unknown or a factor is negative.
    """

    modality: str = "T2w"
    lesion_contrast: float = 1.0
    noise: float = 1.0
    site: str | None = None

    def __post_init__(self) -> None:
        check_modality(self.modality)
        check_site(self.site)
        if (factor := min(self.lesion_contrast, self.noise)) < 0:
            raise UsageError(f"the factor {factor} is negative", remedy="give 0 or more")


USUAL = Look()


def make_person(
    seed: int,
    number: int,
    grid: Grid,
    *,
    lesion: str | None = None,
    look: Look = USUAL,
    variety: Variety = SIMPLE,
) -> Person:
    """The person `number` of the cohort `seed`, as scanned on `grid`.

    The head sits in the middle of the grid's field of view; in mm from there the anatomy and the lesion are
    the same on every grid and for every modality. A lesion changes only its own tissue and what it displaces.

    Args:
        seed: Seed of the cohort.
        number: Case number, from 0.
        grid: Sampling grid; its axes must be parallel to those of the world.
        lesion: One of `LESION_KINDS`, or `None` for a healthy person.
        look: Modality, contrast of the lesion and noise.
        variety: How healthy people differ; what is switched on leaves the other random draws as they are.

    Raises:
        UsageError: The lesion is unknown, a number is negative, or the grid is oblique.
    """
    _check(seed, number, grid, lesion)
    *seeds, own_seed = np.random.SeedSequence([seed, number]).spawn(5)
    anatomy_rng, contrast_rng, noise_rng, lesion_rng = (np.random.default_rng(s) for s in seeds)
    individual = draw_individual(own_seed, variety)
    anatomy = draw_anatomy(anatomy_rng, individual)
    contrast = draw_contrast(contrast_rng, look.modality)
    visit = None if look.site is None else Visit.of(look.site, seed, number, look.modality)
    if visit is not None:
        contrast = visit.contrast(contrast)
    box, axes = _head_lattice(anatomy, grid)
    voxels, spacing = find_brain_voxels(anatomy, axes), round(max(grid.spacing), 3)
    if lesion is None:
        parts = fractions(anatomy, voxels, spacing)
        layers, label = no_layers(voxels)
    else:
        plan = draw_lesion(lesion_rng, lesion, anatomy)
        parts = fractions(anatomy, voxels, spacing, plan.displacement(voxels.head))
        layers, label = covered(plan, voxels, parts, spacing)
    levels = table_levels(look.modality) if visit is None else visit.site.lesion_signals(look.modality)
    signal = with_lesions(healthy_signal(contrast, voxels, parts), layers, levels, look.lesion_contrast)
    if visit is None:
        brain = np.zeros(grid.shape, np.bool_)
        brain[box] = voxels.inside
        image = _filled(brain, scanned(signal, contrast, voxels, noise_rng, look.noise))
        volumes = image, brain, _filled(brain, label)
    else:
        volumes = visit.scan(signal, label, voxels, contrast, grid, box, look.noise)
    return Person(*volumes, grid, lesion, individual.age, individual.traits)


def _head_lattice(anatomy: Anatomy, grid: Grid) -> tuple[tuple[slice, slice, slice], Axes]:
    """The box of voxels that the head can reach, and the head coordinates of its three axes in mm."""
    boxes, axes = [], []
    for i, reach in enumerate(HALF_EXTENT + FIELD_MARGIN_MM):
        world = grid.affine[i, i] * np.arange(grid.shape[i]) + grid.affine[i, 3]
        head = (world - grid.centre[i] - anatomy.shift[i]) / anatomy.zoom
        close = np.flatnonzero(np.abs(head) <= reach)
        boxes.append(slice(int(close[0]), int(close[-1]) + 1) if len(close) else slice(0, 1))
        axes.append(head[boxes[-1]])
    return (boxes[0], boxes[1], boxes[2]), (axes[0], axes[1], axes[2])


def _filled(brain: Mask, values: Volume) -> Volume:
    """A volume that holds `values` `(n,)` at the brain voxels and zero elsewhere."""
    volume = np.zeros(brain.shape, values.dtype)
    volume[brain] = values
    return volume


def _check(seed: int, number: int, grid: Grid, lesion: str | None) -> None:
    """Raise `UsageError` for arguments that `make_person` cannot use."""
    if seed < 0 or number < 0:
        raise UsageError(f"seed {seed} and case number {number} must not be negative", remedy="count from 0")
    if lesion is not None:
        check_kind(lesion)
    linear = grid.affine[:3, :3]
    if np.any(linear != np.diag(np.diag(linear))) or not np.all(np.diag(linear)):
        raise UsageError("the grid is oblique or permuted", remedy="use a grid from grid_of()")
