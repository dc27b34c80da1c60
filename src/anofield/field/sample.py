"""Sample subjects from the field: draw codes (of training subjects, from the prior, between two) and decode them.

The field is continuous, so a picture or volume may have any resolution. Generation from z of a training case and from
z ~ N(0, I)/10 follows Naval Marimont & Tarroni 2021 (evaluation notebook).
"""

from __future__ import annotations

import difflib
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np
import torch
from nibabel import orientations
from numpy.typing import NDArray
from torch import Tensor

from anofield._files import writing
from anofield.data.lattice import field_coordinates
from anofield.data.prepare import steps_of
from anofield.data.published import lattice_side
from anofield.data.recipe import Recipe
from anofield.data.scan import Scan, write_like
from anofield.errors import UsageError
from anofield.field.codes import CodePrior, Codes, bounded
from anofield.field.model import TrainedField
from anofield.field.points import DECODE_POINTS
from anofield.typing import Affine, PathLike, Volume

Show = Literal["intensity", "class"]
Indices = NDArray[np.float64]  # canvas indices (n, 3); fractions are allowed
AXES = {"sagittal": 0, "coronal": 1, "axial": 2}  # canvas axis that a plane cuts
PUBLISHED_SPREAD = 0.1  # z ~ N(0, I)/10, Naval Marimont & Tarroni 2021, evaluation notebook
PLANE_RESOLUTIONS, VOLUME_RESOLUTIONS = (2, 4096), (2, 512)  # a 512³ float32 volume is 0.5 GiB


@dataclass(frozen=True)
class Drawn:
    """Codes to decode, with a name for each.

    Attributes:
        names: One name per subject.
        codes: One code per subject, (subject, code).
    """

    names: list[str]
    codes: Tensor


@dataclass(frozen=True)
class Canvas:
    """The field's box divided into R³ voxels, with axes in RAS order whatever the order of the lattice.

    Attributes:
        resolution: R, voxels per axis.
        to_lattice: Canvas index → training lattice index, (4, 4).
        affine: Canvas index → world RAS+ mm, (4, 4).
        recipe: Recipe of the experiment.
    """

    resolution: int
    to_lattice: Affine
    affine: Affine
    recipe: Recipe

    def points(self, index: Indices) -> Tensor:
        """Field coordinates (n, 3) float32 of canvas indices (n, 3); fractions are allowed."""
        lattice = index @ self.to_lattice[:3, :3].T + self.to_lattice[:3, 3]
        return torch.from_numpy(field_coordinates(lattice, lattice_side(self.recipe), self.recipe.lattice)).float()

    def faces_mm(self, axis: int) -> tuple[float, float]:
        """World coordinates of the box's two faces across an axis."""
        step, first = self.affine[axis, axis], self.affine[axis, 3]
        return float(first - 0.5 * step), float(first + (self.resolution - 0.5) * step)

    @property
    def assumed(self) -> str:
        """The assumption behind the affine, in words."""
        return steps_of(self.recipe).assumption(self.recipe)


def from_cases(trained: Codes, ids: Sequence[str]) -> Drawn:
    """Take the codes of training subjects.

    Raises:
        UsageError: A case was not trained on; the error names the nearest id.
    """
    rows = [_row(trained, name) for name in ids]
    return Drawn([trained.names[row] for row in rows], trained.seen()[rows])


def from_prior(prior: CodePrior, count: int, seed: int, bound: float | None = None) -> Drawn:
    """Draw codes from the Gaussian of the training codes, rescaled to the bound of the training.

    There is one stream per seed, subject after subject: a longer draw starts with the codes of a shorter one.
    """
    # precision = L Lᵀ, so mean + L⁻ᵀ ε has the precision's inverse as its covariance
    factor = torch.linalg.cholesky(prior.precision.cpu().double())
    noise = _noise(count, len(prior.mean), seed).double()
    spread = torch.linalg.solve_triangular(factor.T, noise.T, upper=True).T
    codes = (prior.mean.cpu().double() + spread).float()
    return Drawn([f"prior {number}" for number in range(1, count + 1)], bounded(codes, bound))


def from_published(length: int, count: int, seed: int) -> Drawn:
    """Draw codes z ~ N(0, I)/10 like the 2021 notebook, independent of the training codes and without a bound."""
    codes = PUBLISHED_SPREAD * _noise(count, length, seed)
    return Drawn([f"N(0, I)/10 {number}" for number in range(1, count + 1)], codes)


def between(trained: Codes, first: str, last: str, count: int) -> Drawn:
    """Interpolate codes from one training subject to another, both included.

    The code's direction turns (spherical interpolation). Codes lie on or near a sphere (with `CodeBound` on it) and
    nearly at right angles, so the middle of a straight line would be nearer to the average than any training subject.
    On the quick demo (64 subjects, no bound) the middle's `CodePrior.distance` is 0.65 on this path and 0.29 on a
    straight line; that of the training codes is 0.60.

    Raises:
        UsageError: A case was not trained on, or fewer than two subjects are asked for.
    """
    if count < 2:
        raise UsageError(f"--count {count} between two subjects", remedy="give --count 2 (both ends) or more")
    seen = trained.seen()
    one, other = (seen[_row(trained, name)] for name in (first, last))
    shares = torch.linspace(0, 1, count)
    middle = [f"{100 * float(share):.0f} %" for share in shares[1:-1]]
    return Drawn([first, *middle, last], interpolate(one, other, shares))


def interpolate(first: Tensor, last: Tensor, shares: Tensor) -> Tensor:
    """Interpolate codes (share, code) from `first` to `last`, (code,) each; the direction turns evenly.

    The norm changes linearly. Parallel and antiparallel codes have no plane to turn in: their path is straight.

    Source:
        Shoemake 1985.
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
    """Canvas of a recipe's box at any resolution; None takes that of the training lattice.

    Voxels divide the training lattice's extent evenly, so a position in mm is the same at every resolution, for both
    conventions of field coordinates.
    """
    side = lattice_side(recipe)
    count = side if resolution is None else resolution
    world = steps_of(recipe).assumed_affine(recipe)
    to_lattice = orientations.inv_ornt_aff(orientations.io_orientation(world), (side,) * 3)
    ratio = side / count
    scale = np.diag([ratio, ratio, ratio, 1.0])
    scale[:3, 3] = (ratio - 1) / 2
    to_lattice = np.asarray(to_lattice @ scale, dtype=np.float64)
    return Canvas(count, to_lattice, np.asarray(world @ to_lattice), recipe)


def to_canvas(volume: Volume, recipe: Recipe) -> Volume:
    """Reorient a volume of the training lattice (R, R, R) to the axes of `canvas_of(recipe)`."""
    turns = orientations.io_orientation(steps_of(recipe).assumed_affine(recipe))
    return np.asarray(orientations.apply_orientation(volume, turns))


def plane_index(canvas: Canvas, plane: str, at: str) -> float:
    """Canvas index of a plane; it may be a fraction.

    Args:
        canvas: Canvas of the box.
        plane: `axial`, `coronal` or `sagittal`.
        at: World coordinate (`12mm`), or share of the way from the left, posterior or inferior face (`0.5`).

    Raises:
        UsageError: `at` is neither, or lies outside the box.
    """
    axis = AXES[plane]
    low, high = canvas.faces_mm(axis)
    text = at.strip().lower().replace("−", "-")
    try:
        mm = float(text[:-2]) if text.endswith("mm") else low + float(text) * (high - low)
    except ValueError as error:
        raise UsageError(
            f"--at {at}: is not a position", remedy="give a fraction such as 0.5, or mm such as 12mm"
        ) from error
    if not low <= mm <= high:
        raise UsageError(
            f"--at {at}: lies outside the box",
            why=f"its {plane} planes run from {low:g}mm to {high:g}mm, as a fraction from 0 to 1",
            remedy="choose a position in between",
        )
    return float((mm - canvas.affine[axis, 3]) / canvas.affine[axis, axis])


def plane_mm(canvas: Canvas, plane: str, index: float) -> float:
    """World coordinate of a plane's canvas index."""
    axis = AXES[plane]
    return float(canvas.affine[axis, 3] + index * canvas.affine[axis, axis])


def decode_plane(
    trained: TrainedField, code: Tensor, canvas: Canvas, plane: str, index: float, show: Show = "intensity"
) -> Volume:
    """Decode one plane of a subject, (R, R) along the two remaining canvas axes (x, y, z order).

    Args:
        trained: The field and its device.
        code: (code,).
        canvas: Where to decode.
        plane: `axial`, `coronal` or `sagittal`.
        index: Canvas index from `plane_index`.
        show: Quantity, `intensity` (expected normalised intensity, float32) or `class` (most probable class, uint8).
    """
    count = canvas.resolution
    decode = _decoder(trained, code, canvas, show)

    def values(flat: NDArray[np.intp]) -> Volume:
        """Values at flat indices of the plane."""
        return decode(np.insert(_unraveled(flat, (count, count)), AXES[plane], index, axis=1))

    return _in_chunks(values, count**2, show).reshape(count, count)


def decode_volume(
    trained: TrainedField,
    code: Tensor,
    canvas: Canvas,
    show: Show = "intensity",
    tell: Callable[[], None] = lambda: None,
) -> Volume:
    """Decode a subject on the whole canvas, (R, R, R) in RAS order; needs some tens of megabytes besides the result.

    Args:
        trained: The field and its device.
        code: (code,).
        canvas: Where to decode.
        show: See `decode_plane`.
        tell: Function that is called after every `DECODE_POINTS` points.
    """
    shape = (canvas.resolution,) * 3
    decode = _decoder(trained, code, canvas, show)
    return _in_chunks(lambda flat: decode(_unraveled(flat, shape)), shape[0] ** 3, show, tell).reshape(shape)


def volume_steps(canvas: Canvas) -> int:
    """Number of calls of `tell` by `decode_volume`."""
    return -int(-(canvas.resolution**3) // DECODE_POINTS)


def shown_values(recipe: Recipe) -> tuple[float, ...]:
    """Intensity shown for each class: its centre, or 0 for class 0 where that class means the outside."""
    return (0.0, *recipe.centers[1:]) if recipe.outside_class else recipe.centers


def write_volume(path: PathLike, data: Volume, canvas: Canvas, description: str) -> None:
    """Write a volume (x, y, z), or one per subject (x, y, z, subject), as NIfTI with the canvas's affine.

    Raises:
        MachineError: The folder cannot be written or the disk is full.
    """
    path = Path(path)
    with writing(path):
        path.parent.mkdir(parents=True, exist_ok=True)
    write_like(Scan(data, canvas.affine, None, path), data, path, description=description)


def check_resolution(resolution: int, limits: tuple[int, int]) -> int:
    """Check that a resolution lies within the limits, and return it.

    Raises:
        UsageError: The resolution lies outside the limits.
    """
    if not limits[0] <= resolution <= limits[1]:
        raise UsageError(f"--res {resolution}", remedy=f"give {limits[0]} to {limits[1]} voxels per axis")
    return resolution


def unlearned_octaves(trained: TrainedField, canvas: Canvas) -> str:
    """Warning about a canvas that is finer than the training lattice; empty if there is nothing to warn about.

    Octave k has a wavelength of R/2^k lattice voxels. If that is below 2, its values between the training points were
    never learned and appear as a fine pattern.
    """
    side, octaves = lattice_side(trained.recipe), trained.field.octaves
    above = sum(side / 2**octave < 2 for octave in range(octaves))
    if canvas.resolution <= side or not above:
        return ""
    return (
        f"finer than the training lattice ({side}): {above} of {octaves} octaves are above its Nyquist frequency and "
        f"appear as a pattern between its points; --res {side} shows what was learned"
    )


def _row(trained: Codes, name: str) -> int:
    names = trained.names
    if name in names:
        return names.index(name)
    near = difflib.get_close_matches(name, names, n=1, cutoff=0.0)
    raise UsageError(
        f"no training case {name!r} (nearest: {near[0]!r})",
        why="only training subjects have a code",
        remedy=f"give the id of a training case, for example {', '.join(names[:3])}",
    )


def _noise(count: int, length: int, seed: int) -> Tensor:
    """Normal numbers (subject, code), drawn subject by subject."""
    generator = torch.Generator().manual_seed(seed)
    return torch.stack([torch.randn(length, generator=generator) for _ in range(count)])


def _unraveled(flat: NDArray[np.intp], shape: tuple[int, ...]) -> NDArray[np.float64]:
    return np.stack(np.unravel_index(flat, shape), axis=1).astype(np.float64)


def _decoder(trained: TrainedField, code: Tensor, canvas: Canvas, show: Show) -> Callable[[Indices], Volume]:
    """A function from canvas indices (n, 3) to the values shown there, (n,)."""
    levels = torch.tensor(shown_values(canvas.recipe))
    codes = code[None].to(trained.device)

    def decode(index: Indices) -> Volume:
        """Values at canvas indices (n, 3)."""
        points = canvas.points(index).to(trained.device)[None]  # (1, point, 3)
        with torch.no_grad():
            logits = trained.field.logits(points, codes)[0].float().cpu()
        found = torch.softmax(logits, dim=-1) @ levels if show == "intensity" else logits.argmax(dim=-1)
        return np.asarray(found.numpy())

    return decode


def _in_chunks(
    values: Callable[[NDArray[np.intp]], Volume], count: int, show: Show, tell: Callable[[], None] = lambda: None
) -> Volume:
    """Values at `count` flat indices, computed `DECODE_POINTS` at a time."""
    found: Volume = np.empty(count, dtype=np.float32 if show == "intensity" else np.uint8)
    for start in range(0, count, DECODE_POINTS):
        flat = np.arange(start, min(start + DECODE_POINTS, count))
        found[flat] = values(flat)
        tell()
    return found
