"""Measure how well a field in training explains healthy held-out subjects: cross-entropy at new points."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional

from anofield.data.lattice import Convention
from anofield.data.store import Store
from anofield.field.codes import CodePrior
from anofield.field.decoder import FieldModule, folded_weights, outputs_at
from anofield.field.feed import Feed, open_feed
from anofield.field.points import PointOptions

SUBJECTS = 8  # the first of the store: enough to show overfitting, and few enough to measure often
POINTS = 2048  # per subject and step
STEPS = 40
RATE = 0.03
PRIOR_WEIGHT = 0.01  # nats per squared Mahalanobis distance and code entry


class HeldOut:
    """Held-out subjects of a training run.

    Args:
        store: Prepared scans of held-out subjects; the first `SUBJECTS` complete ones are used.
        lattice: Position of a voxel in the field, `center` or `corner`.
        device: Device of the field.
    """

    def __init__(self, store: Store, lattice: Convention, device: torch.device) -> None:
        cases = store.require_cases()[:SUBJECTS]
        points = PointOptions(lattice=lattice, count=POINTS, fraction=1.0)
        self._feed: Feed = open_feed(store, cases, points, device=device)
        self._rows = torch.arange(len(cases))

    def cross_entropy(self, field: FieldModule, codes: Tensor) -> float:
        """Fit a code to every subject at random points of the brain, and measure it at other points; nats per point.

        Args:
            field: The field; its training mode is restored.
            codes: Training codes as the field sees them, (case, code): the start and the prior of the fit.
        """
        training = field.training
        field.eval()
        try:
            return self._measure(field, codes.detach())
        finally:
            field.train(training)

    def _measure(self, field: FieldModule, codes: Tensor) -> float:
        prior = CodePrior.fit(codes.cpu())
        fitted = prior.mean.to(codes).repeat(len(self._rows), 1).requires_grad_(True)
        weights = [weight.detach() for weight in folded_weights(field)]
        optimizer = torch.optim.Adam([fitted], lr=RATE)
        schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, STEPS)
        for step in range(STEPS):
            loss = self._loss(field, fitted, weights, step) + PRIOR_WEIGHT * prior.distance(fitted).mean()
            (fitted.grad,) = torch.autograd.grad(loss, [fitted])
            optimizer.step()
            schedule.step()
        with torch.no_grad():
            fresh = [self._loss(field, fitted, weights, STEPS + more) for more in range(4)]
        return float(torch.stack(fresh).mean())

    def _loss(self, field: FieldModule, codes: Tensor, weights: list[Tensor], step: int) -> Tensor:
        points, targets = self._feed.batch(self._rows, step)
        logits = outputs_at(field, points, codes, weights).float().flatten(0, 1)
        return functional.cross_entropy(logits, targets.flatten())
