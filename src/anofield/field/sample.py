"""People out of the field: codes (a training person, the prior, between two people) and planes or volumes of them.

The field is continuous, so a picture or volume may have any resolution. Generation from z of a training case and from
z ~ N(0, I)/10 is that of Naval Marimont & Tarroni 2021 (evaluation notebook).
"""

from __future__ import annotations

import difflib
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from nibabel import orientations
from numpy.typing import NDArray
from torch import Tensor

from anofield._files import writing
from anofield.data.lattice import field_coordinates
from anofield.data.prepare import Recipe, published_lattice
from anofield.data.scan import Scan, write_like
from anofield.data.store import lattice_side
from anofield.detect.fit import DECODE_POINTS
from anofield.errors import UsageError
from anofield.field.codes import CodePrior, bounded
from anofield.field.experiment import LATEST, Experiment
from anofield.field.model import Model
from anofield.phantom.layouts import grid_of
from anofield.typing import Affine, PathLike, Volume

Show = Literal["intensity", "class"]
AXES = {"sagittal": 0, "coronal": 1, "axial": 2}  # canvas axis that a plane cuts
PUBLISHED_SPREAD = 0.1  # z ~ N(0, I)/10, Naval Marimont & Tarroni 2021, evaluation notebook
PLANE_RESOLUTIONS, VOLUME_RESOLUTIONS = (2, 4096), (2, 512)  # a 512³ float32 volume is 0.5 GiB
PUBLISHED_GRIDS = {"ifl2021-hcp": "hcp", "ifl2021-brats": "brats"}


@dataclass(frozen=True)
class Table:
    """Codes of the training people as the field sees them.

    Attributes:
        ids: Case ids; row numbers in experiments of 2021, which keep none.
        codes: (case, code), rows within the bound.
        bound: `CodeBound` of the specs.
        epoch: Of the checkpoint.
    """

    ids: list[str]
    codes: Tensor
    bound: float | None
    epoch: int


@dataclass(frozen=True)
class Drawn:
    """Codes to decode, with a name for each: names, and codes (person, code)."""

    names: list[str]
    codes: Tensor


@dataclass(frozen=True)
class Canvas:
    """The field's box divided into R³ voxels, its axes in RAS order whatever the lattice's are.

    Attributes:
        resolution: R, voxels per axis.
        to_lattice: Canvas index → training lattice index, (4, 4).
        affine: Canvas index → world RAS+ mm, (4, 4).
        recipe: Of the experiment.
    """

    resolution: int
    to_lattice: Affine
    affine: Affine
    recipe: Recipe

    def points(self, index: NDArray[np.float64]) -> Tensor:
        """Field coordinates (n, 3) float32 of canvas indices (n, 3); fractions are allowed."""
        lattice = index @ self.to_lattice[:3, :3].T + self.to_lattice[:3, 3]
        return torch.from_numpy(field_coordinates(lattice, lattice_side(self.recipe), self.recipe.lattice)).float()

    def faces_mm(self, axis: int) -> tuple[float, float]:
        """World coordinates of the box's two faces across an axis."""
        step, first = self.affine[axis, axis], self.affine[axis, 3]
        return float(first - 0.5 * step), float(first + (self.resolution - 0.5) * step)

    @property
    def assumed(self) -> str:
        """What the affine takes for granted, in words."""
        if self.recipe.name == "box":
            return f"the {self.recipe.box_mm:g} mm box with the brain's centre of mass at the world's origin"
        source = {"ifl2021-hcp": "HCP S1200 (T2w_acpc_dc_restore)", "ifl2021-brats": "BraTS'18"}[self.recipe.name]
        return f"the world of the published scans of {source}; the 2021 files keep no affine"


def read_table(path: PathLike, epoch: str = LATEST) -> Table:
    """Codes of an experiment's training people.

    Every row is rescaled to the bound, as in training when it is looked up: the last step may have left it outside.

    Raises:
        ExperimentError: No such experiment or checkpoint.
    """
    experiment = Experiment(path)
    checkpoint = experiment.load(epoch)
    bound = experiment.specs.code_bound
    ids = checkpoint.code_ids or [str(row) for row in range(len(checkpoint.codes))]  # published codes name no cases
    return Table(ids, bounded(checkpoint.codes.float(), bound), bound, checkpoint.epoch)


def from_cases(table: Table, ids: Sequence[str]) -> Drawn:
    """Codes of training people.

    Raises:
        UsageError: A case was not trained on; the nearest id is named.
    """
    rows = [_row(table, name) for name in ids]
    return Drawn([table.ids[row] for row in rows], table.codes[rows])


def from_prior(prior: CodePrior, count: int, seed: int, bound: float | None = None) -> Drawn:
    """Codes drawn from the Gaussian of the training codes, rescaled to the bound that training kept.

    One stream per seed, person after person: the first of many are the same as of few.
    """
    # precision = L Lᵀ, so mean + L⁻ᵀ ε has the precision's inverse as its covariance
    factor = torch.linalg.cholesky(prior.precision.cpu().double())
    noise = _noise(count, len(prior.mean), seed).double()
    spread = torch.linalg.solve_triangular(factor.T, noise.T, upper=True).T
    codes = (prior.mean.cpu().double() + spread).float()
    return Drawn([f"prior {number}" for number in range(1, count + 1)], bounded(codes, bound))


def from_published(length: int, count: int, seed: int) -> Drawn:
    """Codes z ~ N(0, I)/10 of the 2021 notebook, whatever the training codes are; not bounded there, nor here."""
    codes = PUBLISHED_SPREAD * _noise(count, length, seed)
    return Drawn([f"N(0, I)/10 {number}" for number in range(1, count + 1)], codes)


def between(table: Table, first: str, last: str, count: int) -> Drawn:
    """Codes from one training person to another, both included.

    The way turns the code's direction (spherical) instead of being straight: codes lie on or near a sphere (with
    `CodeBound` on it) and nearly at right angles, so the middle of a straight line is no person like those trained but
    one nearer to the average. On the quick demo (64 people, no bound) the middle's `CodePrior.distance` is 0.65 this
    way and 0.29 on a straight line, that of the training codes 0.60.

    Raises:
        UsageError: A case was not trained on, or fewer than two people are asked for.
    """
    if count < 2:
        raise UsageError(f"{count} people between two", remedy="give --count 2 (both ends) or more")
    one, other = (table.codes[_row(table, name)] for name in (first, last))
    shares = torch.linspace(0, 1, count)
    middle = [f"{100 * float(share):.0f} %" for share in shares[1:-1]]
    return Drawn([first, *middle, last], interpolate(one, other, shares))


def interpolate(first: Tensor, last: Tensor, shares: Tensor) -> Tensor:
    """Codes (share, code) from `first` to `last`, (code,) each: the direction turns evenly, the norm changes linearly.

    Codes that are (anti)parallel have no plane to turn in and are joined by a straight line. Source: Shoemake 1985.
    """
    share = shares[:, None]
    norms = first.norm(), last.norm()
    angle = torch.acos((first @ last / (norms[0] * norms[1]).clamp_min(1e-12)).clamp(-1, 1))
    if not 1e-3 < float(angle) < np.pi - 1e-3:
        return (1 - share) * first + share * last
    turned: Tensor = torch.sin((1 - share) * angle) * first / norms[0] + torch.sin(share * angle) * last / norms[1]
    norm: Tensor = ((1 - share) * norms[0] + share * norms[1]) / torch.sin(angle)
    return turned * norm


def canvas_of(recipe: Recipe, resolution: int | None = None) -> Canvas:
    """The box of a recipe at any resolution; None takes the lattice that the field was trained on.

    Voxels divide the training lattice's extent evenly, so a place in mm is the same at every resolution, for both
    conventions of field coordinates.
    """
    side = lattice_side(recipe)
    count = side if resolution is None else resolution
    world = _lattice_affine(recipe, side)
    to_lattice = orientations.inv_ornt_aff(orientations.io_orientation(world), (side,) * 3)
    ratio = side / count
    scale = np.diag([ratio, ratio, ratio, 1.0])
    scale[:3, 3] = (ratio - 1) / 2
    to_lattice = np.asarray(to_lattice @ scale, dtype=np.float64)
    return Canvas(count, to_lattice, np.asarray(world @ to_lattice), recipe)


def to_canvas(volume: Volume, recipe: Recipe) -> Volume:
    """A volume of the training lattice (R, R, R), its axes turned to those of `canvas_of(recipe)`."""
    turns = orientations.io_orientation(_lattice_affine(recipe, lattice_side(recipe)))
    return np.asarray(orientations.apply_orientation(volume, turns))


def plane_index(canvas: Canvas, plane: str, at: str) -> float:
    """Canvas index (a fraction is allowed) of a plane.

    Args:
        canvas: The box.
        plane: `axial`, `coronal` or `sagittal`.
        at: `12mm`, a world coordinate, or `0.5`, a share of the way from the left, posterior or inferior face.

    Raises:
        UsageError: It is neither, or lies outside the box.
    """
    axis = AXES[plane]
    low, high = canvas.faces_mm(axis)
    text = at.strip().lower().replace("−", "-")
    try:
        mm = float(text[:-2]) if text.endswith("mm") else low + float(text) * (high - low)
    except ValueError as error:
        raise UsageError(f"--at {at}: is no place", remedy="give a fraction such as 0.5, or mm such as 12mm") from error
    if not low <= mm <= high:
        raise UsageError(
            f"--at {at}: lies outside the box",
            why=f"its {plane} planes run from {low:g}mm to {high:g}mm, as a fraction from 0 to 1",
            remedy="choose a place in between",
        )
    return float((mm - canvas.affine[axis, 3]) / canvas.affine[axis, axis])


def plane_mm(canvas: Canvas, plane: str, index: float) -> float:
    """World coordinate of a plane's canvas index."""
    axis = AXES[plane]
    return float(canvas.affine[axis, 3] + index * canvas.affine[axis, axis])


def decode_plane(
    model: Model, code: Tensor, canvas: Canvas, plane: str, index: float, show: Show = "intensity"
) -> Volume:
    """One plane of a person, (R, R) along the two remaining canvas axes (x, y, z order).

    Args:
        model: Field, recipe and device.
        code: (code,).
        canvas: Where.
        plane: `axial`, `coronal` or `sagittal`.
        index: From `plane_index`.
        show: `intensity`: expected normalised intensity, float32; `class`: the most probable class, uint8.
    """
    count = canvas.resolution

    def places(flat: NDArray[np.intp]) -> NDArray[np.float64]:
        return np.insert(_unraveled(flat, (count, count)), AXES[plane], index, axis=1)

    return _decode(model, code, canvas, places, count**2, show).reshape(count, count)


def decode_volume(
    model: Model, code: Tensor, canvas: Canvas, show: Show = "intensity", tell: Callable[[], None] = lambda: None
) -> Volume:
    """A person on the whole canvas, (R, R, R) in RAS order; beside the result some tens of megabytes are needed.

    Args:
        model: Field, recipe and device.
        code: (code,).
        canvas: Where.
        show: As in `decode_plane`.
        tell: Called after every `DECODE_POINTS` points.
    """
    shape = (canvas.resolution,) * 3
    return _decode(model, code, canvas, lambda flat: _unraveled(flat, shape), shape[0] ** 3, show, tell).reshape(shape)


def volume_steps(canvas: Canvas) -> int:
    """How often `decode_volume` calls `tell`."""
    return -int(-(canvas.resolution**3) // DECODE_POINTS)


def shown_values(recipe: Recipe) -> tuple[float, ...]:
    """Intensity that stands for each class: its centre, but 0 for a class 0 that is kept for the outside."""
    return (0.0, *recipe.centers[1:]) if recipe.outside_class else recipe.centers


def write_volume(path: PathLike, data: Volume, canvas: Canvas, description: str) -> None:
    """Write a volume (x, y, z) or people side by side in time (x, y, z, person) as NIfTI with the canvas's affine.

    Raises:
        MachineError: The folder cannot be written or the disk is full.
    """
    path = Path(path)
    with writing(path):
        path.parent.mkdir(parents=True, exist_ok=True)
    write_like(Scan(data, canvas.affine, None, path), data, path, description=description)


def check_resolution(resolution: int, limits: tuple[int, int]) -> int:
    """The resolution, if it lies within the limits.

    Raises:
        UsageError: It does not.
    """
    if not limits[0] <= resolution <= limits[1]:
        raise UsageError(f"--res {resolution}", remedy=f"give {limits[0]} to {limits[1]} voxels per axis")
    return resolution


def unlearned_octaves(model: Model, canvas: Canvas) -> str:
    """What to know about a canvas finer than the training lattice, in words; empty if there is nothing.

    Octave k has a wavelength of R/2^k lattice voxels; below 2 its course between the training points was never learned
    and shows as a fine pattern.
    """
    side, octaves = lattice_side(model.recipe), model.field.octaves
    above = sum(side / 2**octave < 2 for octave in range(octaves))
    if canvas.resolution <= side or not above:
        return ""
    return (
        f"finer than the training lattice ({side}): {above} of {octaves} octaves are above its Nyquist frequency and "
        f"show as a pattern between its points; --res {side} shows what was learned"
    )


def _row(table: Table, name: str) -> int:
    if name in table.ids:
        return table.ids.index(name)
    near = difflib.get_close_matches(name, table.ids, n=1, cutoff=0.0)
    raise UsageError(
        f"no training case {name!r} (nearest: {near[0]!r})",
        why="only people of the training have a code",
        remedy=f"give the id of a training case, for example {', '.join(table.ids[:3])}",
    )


def _noise(count: int, length: int, seed: int) -> Tensor:
    """Normal numbers (person, code), drawn person by person."""
    generator = torch.Generator().manual_seed(seed)
    return torch.stack([torch.randn(length, generator=generator) for _ in range(count)])


def _lattice_affine(recipe: Recipe, side: int) -> Affine:
    """Training lattice index → world RAS+ mm; see `Canvas.assumed`."""
    if recipe.name != "box":
        native = grid_of(PUBLISHED_GRIDS[recipe.name], "native").affine
        return published_lattice(recipe.name, recipe.resolution, native).affine
    step = recipe.box_mm / side
    affine = np.diag([step, step, step, 1.0])
    affine[:3, 3] = -step * (side - 1) / 2
    return affine


def _unraveled(flat: NDArray[np.intp], shape: tuple[int, ...]) -> NDArray[np.float64]:
    return np.stack(np.unravel_index(flat, shape), axis=1).astype(np.float64)


def _decode(
    model: Model,
    code: Tensor,
    canvas: Canvas,
    places: Callable[[NDArray[np.intp]], NDArray[np.float64]],
    count: int,
    show: Show,
    tell: Callable[[], None] = lambda: None,
) -> Volume:
    """Values at `count` places, chunk by chunk, flat."""
    values: NDArray[Any] = np.empty(count, dtype=np.float32 if show == "intensity" else np.uint8)
    levels = torch.tensor(shown_values(canvas.recipe))
    codes = code[None].to(model.device)
    with torch.no_grad():
        for start in range(0, count, DECODE_POINTS):
            flat = np.arange(start, min(start + DECODE_POINTS, count))
            points = canvas.points(places(flat)).to(model.device)[None]  # (1, point, 3)
            logits = model.field.logits(points, codes)[0].float().cpu()
            found = torch.softmax(logits, dim=-1) @ levels if show == "intensity" else logits.argmax(dim=-1)
            values[flat] = found.numpy()
            tell()
    return values
