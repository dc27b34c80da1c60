"""Fit of a scan: the code, pose and intensity map with which the field explains the scan best."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from scipy import ndimage
from torch import Tensor
from torch.nn import functional

from anofield._random import seed_of
from anofield.data.prepared import Prepared
from anofield.detect.decode import placed
from anofield.detect.intensity_map import IntensityMap, fit_intensity_map
from anofield.detect.options import FitOptions
from anofield.detect.pose import Pose, search
from anofield.field.codes import CodePrior
from anofield.field.decoder import Field
from anofield.field.points import axis_coordinates, coordinates_of

SEARCH_POINTS = 1024  # for the first pose; every rotation is tried on the same points
MAP_POINTS = 8192  # for the intensity map and the diagnostics
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
        turned: Whether a rotation by right angles explains the scan better than any small tilt, which means a
            wrong orientation; None if that was not measured.
        pose: Pose of the head; None if it was not fitted.
        intensity: Map between the intensities of the scan and of the training; None if it was not fitted.
    """

    code: Tensor
    loss: float
    code_distance: float
    contrast: float | None
    outside: float | None
    turned: bool | None
    pose: Pose | None
    intensity: IntensityMap | None

    def corrected(self, prepared: Prepared) -> Prepared:
        """The scan after the fitted intensity map; the scan itself if none was fitted."""
        return prepared if self.intensity is None else self.intensity.corrected(prepared)


class _Points:
    """Random points in and around the brain of one scan, with their classes."""

    def __init__(self, prepared: Prepared, key: str, options: FitOptions, device: torch.device) -> None:
        near = ndimage.binary_dilation(prepared.brain, iterations=options.margin) if options.margin else prepared.brain
        self.index = torch.from_numpy(np.flatnonzero(near))
        self.brain = torch.from_numpy(np.flatnonzero(prepared.brain))
        self.resolution = prepared.lattice.resolution
        self.axis = axis_coordinates(self.resolution, prepared.recipe.lattice)
        self.generator = torch.Generator().manual_seed(seed_of("fit", options.seed, key))
        self.device = device
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
        return points.to(self.device), self.targets[flat].to(self.device)


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
    code = prior.mean.clone()[None].to(device).requires_grad_(True)
    pose, turned = _first_pose(field, code.detach(), cloud, options)
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
    fitted, pose = code.detach(), None if pose is None else pose.detach()
    tail = torch.stack(losses[-max(1, options.iterations // 10) :]).mean()
    contrast, outside = _agreement(field, fitted, pose, prepared, cloud)
    return Fit(
        code=fitted[0].cpu(),
        loss=float(tail),
        code_distance=float(prior.distance(fitted)[0]),
        contrast=contrast,
        outside=outside,
        turned=turned,
        pose=pose,
        intensity=intensity,
    )


def _first_pose(field: Field, code: Tensor, cloud: _Points, options: FitOptions) -> tuple[Pose | None, bool]:
    """Initial pose, and whether the scan's orientation is wrong, both found with the mean code."""
    points, targets = cloud.draw(SEARCH_POINTS)

    def loss(turned: Tensor) -> Tensor:
        """Mean bounded cross-entropy of every candidate pose."""
        with torch.no_grad():
            return _bounded(_entropy(field, turned, code, targets)).mean(dim=1)

    pose, turned = search(loss, points)
    return (None if options.pose == "none" else pose.as_kind(options.pose).to(cloud.device)), turned


def _map(field: Field, code: Tensor, pose: Pose | None, prepared: Prepared, cloud: _Points) -> IntensityMap:
    """Fit the intensity map with the present code."""
    rows, p = _some_brain(field, code, pose, cloud)
    p = p[:, 1:] / p[:, 1:].sum(dim=1, keepdim=True)
    expected = p @ torch.tensor(prepared.recipe.centers[1:], dtype=p.dtype)
    return fit_intensity_map(expected.numpy(), prepared, rows.numpy())


def _agreement(
    field: Field, code: Tensor, pose: Pose | None, prepared: Prepared, cloud: _Points
) -> tuple[float, float | None]:
    """Correlation of observed and expected class, and the mean probability of the outside, over brain voxels."""
    rows, p = _some_brain(field, code, pose, cloud)
    observed, outside = cloud.targets[cloud.brain[rows]].to(p), None
    if prepared.recipe.outside_class:
        outside = float(p[:, 0].mean())
        p = p[:, 1:] / p[:, 1:].sum(dim=1, keepdim=True)
    expected = p @ torch.arange(p.shape[1], dtype=p.dtype)
    pair = torch.corrcoef(torch.stack((observed, expected)))
    return float(pair[0, 1].nan_to_num()), outside


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
