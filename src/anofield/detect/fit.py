"""Fit of a scan: the code, pose and intensity map with which the field explains the scan best."""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial

import numpy as np
import torch
from scipy import ndimage
from torch import Tensor
from torch.nn import functional

from anofield._random import seed_of
from anofield.data.prepared import Prepared
from anofield.detect.agreement import Agreement, agreement_of
from anofield.detect.decode import placed
from anofield.detect.intensity_map import IntensityMap, fit_intensity_map
from anofield.detect.options import FitOptions
from anofield.detect.pose import Pose, losses_of, quarter_turns, search
from anofield.field.codes import CodePrior
from anofield.field.decoder import Field
from anofield.field.points import axis_coordinates, coordinates_of

SEARCH_POINTS = 2048  # for the first pose; every tilt is tried on the same points, whatever the seed
TURN_POINTS = 8192  # for the orientation, which is judged at the fitted pose
MAP_POINTS = 8192  # for the intensity map and the diagnostics

# Margins in nats of the bounded loss, chosen by hand on healthy brains of OASIS, also stripped 3 mm tighter, and on
# their quarter turns. Best turn with the mean code minus the fitted loss: 0.50 to 0.62 where the orientation is right
# (phantoms 0.30 to 0.37),
# −0.49 to 0.11 where it is wrong. In doubt the turn is fitted as well; its loss minus that of the fit: 0.31 to 0.42
# where the orientation is right, −0.67 to −0.40 where it is wrong.
DOUBT, TURN_MARGIN = 0.2, 0.1
MAP_AT = (
    0.5,
    0.75,
)  # shares of the steps at which the intensity map is fitted: when the code is roughly fitted, and again
POSE_RATE = 0.2  # share of the code's learning rate: a rotation changes in smaller steps (0.06 rad for 0.3 of a code)

# Weight of the squared Mahalanobis distance to the training codes, divided by the number of brain voxels. Neighbouring
# voxels are correlated, so it is far above the ½ for independent voxels. Set by hand in the first version; in the
# phantom's ablation, a fit without it is within the spread between seeds (docs/explanation/detection.md, "no prior").
PRIOR_WEIGHT = 30.0

# c of the bounded loss c (1 − exp(−CE/c)), nats: it limits the effect on the fit of a lesion that no healthy anatomy
# explains. In the ablation ("unbounded loss", "bound 1") other values are within that spread too. With 1 nat the fit of
# a barely trained field fails; with 3 its loss is within 2 % of the unbounded one (tests/detect/test_fit.py).
BOUND = 3.0


@dataclass(frozen=True, kw_only=True)
class Fit:
    """A fitted code and its diagnostics; a diagnostic is None if the procedure did not measure it.

    Attributes:
        code: Fitted code, (code,).
        loss: Mean cross-entropy of the last tenth of the steps, nats per point.
        code_distance: Squared Mahalanobis distance per code entry from the training codes; about 1 is usual.
        contrast: Correlation of observed and expected class over the brain; near 1 if the scan has the contrast
            of the training scans.
        outside: Mean probability that a brain voxel lies outside the brain; None where the recipe has no such class.
        turned: Whether the scan fits clearly better rotated by right angles, which means a wrong orientation; None if
            that was not measured.
        pose: Pose of the head; None if it was not fitted.
        intensity: Map between the intensities of the scan and of the training; None if it was not fitted.
        agreement: Agreement of the scan with the fitted anatomy in most parts of the brain; None if not measured.
    """

    code: Tensor
    loss: float
    code_distance: float
    contrast: float | None
    outside: float | None
    turned: bool | None
    pose: Pose | None
    intensity: IntensityMap | None
    agreement: Agreement | None = None

    def corrected(self, prepared: Prepared) -> Prepared:
        """The scan after the fitted intensity map; the scan itself if none was fitted."""
        return prepared if self.intensity is None else self.intensity.corrected(prepared)


class _Points:
    """Random points in and around the brain of one scan, with their classes.

    Args:
        prepared: The scan.
        key: Hash of its content.
        options: Options of the fit.
        device: Device of the points.
        turn: Rotation by right angles (3, 3) of the scan; None leaves it as it lies.
    """

    def __init__(
        self, prepared: Prepared, key: str, options: FitOptions, device: torch.device, turn: Tensor | None = None
    ) -> None:
        near = ndimage.binary_dilation(prepared.brain, iterations=options.margin) if options.margin else prepared.brain
        self.index = torch.from_numpy(np.flatnonzero(near))
        self.brain = torch.from_numpy(np.flatnonzero(prepared.brain))
        self.resolution = prepared.lattice.resolution
        self.axis = axis_coordinates(self.resolution, prepared.recipe.lattice)
        self.generator = torch.Generator().manual_seed(seed_of("fit", options.seed, key))
        self.fixed = torch.Generator().manual_seed(seed_of("fit: fixed points", key))
        self.device, self.turn = device, turn
        self.relabel(prepared)

    def relabel(self, prepared: Prepared) -> None:
        """Replace the classes with those of this scan."""
        self.targets = torch.from_numpy(prepared.classes.reshape(-1)).long()

    def draw(self, count: int) -> tuple[Tensor, Tensor]:
        """Field coordinates (n, 3) and classes (n,)."""
        return self.at(self.index[torch.randint(len(self.index), (count,), generator=self.generator)])

    def at(self, flat: Tensor) -> tuple[Tensor, Tensor]:
        """Field coordinates (n, 3) and classes (n,) of flat lattice indices."""
        points = coordinates_of(flat, self.resolution, self.axis)
        points = points if self.turn is None else points @ self.turn.T
        return points.to(self.device), self.targets[flat].to(self.device)

    def some(self, count: int) -> tuple[Tensor, Tensor]:
        """Like `draw`, whatever the seed of the options."""
        return self.at(self.index[torch.randint(len(self.index), (count,), generator=self.fixed)])


def fit_code(
    field: Field, prior: CodePrior, prepared: Prepared, key: str, options: FitOptions, device: torch.device
) -> Fit:
    """Fit a scan, starting from the mean training code.

    Args:
        field: The field, its weights frozen.
        prior: Prior of the training codes.
        prepared: The scan on its lattice.
        key: Hash of the scan's content; with the seed it determines the random points, so that the result does not
            depend on the file name or on other scans of the run.
        options: Options of the fit.
        device: Device of the field.
    """
    cloud = _Points(prepared, key, options, device)
    found = _descend(field, prior, prepared, cloud, options)
    contrast, outside, agreement = _agreement(field, found, prepared, cloud)
    return Fit(
        code=found.code[0].cpu(),
        loss=found.loss,
        code_distance=float(prior.distance(found.code)[0]),
        contrast=contrast,
        outside=outside,
        turned=_is_turned(field, prior, prepared, key, options, found, cloud),
        pose=found.pose,
        intensity=found.intensity,
        agreement=agreement,
    )


@dataclass(frozen=True)
class _Found:
    """Where a descent ended: the code (1, code), the loss of its last tenth, the pose and the intensity map."""

    code: Tensor
    loss: float
    pose: Pose | None
    intensity: IntensityMap | None


def _descend(field: Field, prior: CodePrior, prepared: Prepared, cloud: _Points, options: FitOptions) -> _Found:
    """Fit code, pose and intensity map by Adam on random points, from the mean code and the best tilt."""
    code = prior.mean.clone()[None].to(cloud.device).requires_grad_(True)
    pose = _first_pose(field, code.detach(), cloud, options)
    groups = [{"params": [code], "lr": options.learning_rate}]
    if pose is not None:
        groups.append({"params": pose.parameters(), "lr": POSE_RATE * options.learning_rate})
    optimizer = torch.optim.Adam(groups)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, options.iterations)
    weight = PRIOR_WEIGHT / max(int(prepared.brain.sum()), 1)
    mapped = options.intensity == "smooth" and prepared.recipe.outside_class
    map_at = {int(share * options.iterations) for share in MAP_AT} if mapped else set()
    losses, intensity = [], None
    for step in range(options.iterations):
        if step in map_at:
            intensity = _map(field, code.detach(), pose, prepared, cloud)
            cloud.relabel(intensity.corrected(prepared))
        points, targets = cloud.draw(options.points)
        entropy = _entropy(field, placed(points, pose)[None], code, targets)[0]
        loss = _bounded(entropy).mean() + weight * field.code_length * prior.distance(code)[0]
        if pose is not None:
            loss = loss + weight * pose.cost()
        optimizer.zero_grad(set_to_none=True)
        loss.backward()
        optimizer.step()
        schedule.step()
        losses.append(entropy.detach().mean())
    tail = torch.stack(losses[-max(1, options.iterations // 10) :]).mean()
    return _Found(code.detach(), float(tail), None if pose is None else pose.detach(), intensity)


def _first_pose(field: Field, code: Tensor, cloud: _Points, options: FitOptions) -> Pose | None:
    """Initial pose, found with the mean code; None if no pose is fitted."""
    if options.pose == "none":
        return None
    points, targets = cloud.some(SEARCH_POINTS)
    return search(partial(_mean_loss, field, code, targets), points).as_kind(options.pose).to(cloud.device)


def _is_turned(
    field: Field,
    prior: CodePrior,
    prepared: Prepared,
    key: str,
    options: FitOptions,
    found: _Found,
    cloud: _Points,
) -> bool:
    """Whether the scan fits clearly better rotated by right angles: by the best of 23 rotations, which is fitted too.

    The second fit is only made where the rotation with the mean code comes near to what was fitted, see `DOUBT`.
    """
    points, targets = cloud.some(TURN_POINTS)
    at_mean = partial(_mean_loss, field, prior.mean[None].to(cloud.device), targets)
    turns = quarter_turns().to(points)
    some = slice(None, SEARCH_POINTS)
    rough = losses_of(partial(_mean_loss, field, prior.mean[None].to(points), targets[some]), points[some], turns)
    best = rough.topk(3, largest=False).indices
    losses = losses_of(at_mean, points, turns[best])
    fitted = float(_mean_loss(field, found.code, targets, placed(points, found.pose)[None])[0])
    if float(losses.min()) > fitted + DOUBT:
        return False
    turn = turns[best[losses.argmin()]].cpu()
    other = _Points(prepared, key, options, cloud.device, turn)
    again = _descend(field, prior, prepared, other, options)
    points, targets = other.some(TURN_POINTS)
    return float(_mean_loss(field, again.code, targets, placed(points, again.pose)[None])[0]) < fitted - TURN_MARGIN


def _mean_loss(field: Field, code: Tensor, targets: Tensor, points: Tensor) -> Tensor:
    """Mean bounded cross-entropy of points (k, n, 3) with classes (n,) and one code (1, code), (k,)."""
    with torch.no_grad():
        return _bounded(_entropy(field, points, code, targets)).mean(dim=1)


def _map(field: Field, code: Tensor, pose: Pose | None, prepared: Prepared, cloud: _Points) -> IntensityMap:
    """Fit the intensity map with the present code."""
    rows, p = _some_brain(field, code, pose, cloud)
    p = p[:, 1:] / p[:, 1:].sum(dim=1, keepdim=True)
    expected = p @ torch.tensor(prepared.recipe.centers[1:], dtype=p.dtype)
    return fit_intensity_map(expected.numpy(), prepared, rows.numpy())


def _agreement(
    field: Field, found: _Found, prepared: Prepared, cloud: _Points
) -> tuple[float, float | None, Agreement]:
    """Correlation of observed and expected class, mean probability of the outside, and the agreement, in the brain."""
    rows, p = _some_brain(field, found.code, found.pose, cloud)
    flat = cloud.brain[rows]
    observed, outside = cloud.targets[flat], None
    if prepared.recipe.outside_class:
        outside = float(p[:, 0].mean())
        p = torch.cat((torch.zeros_like(p[:, :1]), p[:, 1:] / p[:, 1:].sum(dim=1, keepdim=True)), dim=1)
    expected = p @ torch.arange(p.shape[1], dtype=p.dtype)
    pair = torch.corrcoef(torch.stack((observed.to(p), expected)))
    places = np.stack(np.unravel_index(flat.numpy(), prepared.lattice.shape), axis=1)
    return float(pair[0, 1].nan_to_num()), outside, agreement_of(p.numpy(), observed.numpy(), places)


def _some_brain(field: Field, code: Tensor, pose: Pose | None, cloud: _Points) -> tuple[Tensor, Tensor]:
    """Evenly spread brain voxels, as rows of `flatnonzero(brain)`, and their class probabilities on the CPU."""
    rows = torch.linspace(0, len(cloud.brain) - 1, min(MAP_POINTS, len(cloud.brain))).long()
    with torch.no_grad():
        points, _ = cloud.at(cloud.brain[rows])
        return rows, torch.softmax(field.logits(placed(points, pose)[None], code)[0].float(), dim=-1).cpu()


def _entropy(field: Field, points: Tensor, codes: Tensor, targets: Tensor) -> Tensor:
    """Cross-entropy (case, point) at points (case, point, 3); targets (case, point) or (point,)."""
    logits = field.logits(points, codes).float()
    return functional.cross_entropy(logits.transpose(1, 2), targets.expand(logits.shape[:2]), reduction="none")


def _bounded(entropy: Tensor) -> Tensor:
    """c (1 − exp(−CE/c)): like the cross-entropy where that is small, never above c."""
    return BOUND * (1 - torch.exp(-entropy / BOUND))
