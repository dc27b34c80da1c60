"""Baselines whose network is trained in steps: their settings, the loop of the training, the weights."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Callable
from typing import Any

import torch
from pydantic import Field
from torch import Tensor, nn

from anofield._progress import Progress
from anofield.baselines.base import Baseline, Settings, State
from anofield.data.store import Store
from anofield.errors import ExperimentError

WIDEST = 256  # channels and code entries: the networks then have at most 200 million weights
LOSS_PARTS = 20  # equal parts of the training; the mean loss of each is kept

Draw = Callable[[torch.Generator], Tensor]  # images of one step; all random numbers come from the generator


class NetworkSettings(Settings):
    """Settings of a network that is trained in steps.

    Attributes:
        steps: Adam steps.
        batch: Images per step.
        learning_rate: Learning rate of the first step; it falls to 0 along half a cosine.
        width: Channels of the first level.
        augment: Whether training heads are moved at random (`anofield.baselines.heads.random_moves`).
    """

    steps: int = Field(default=2000, ge=1)
    batch: int = Field(default=32, ge=1)
    learning_rate: float = Field(default=2e-3, gt=0)
    width: int = Field(default=16, ge=1, le=WIDEST)
    augment: bool = True


class NetworkBaseline(Baseline):
    """Base class of baselines that train one network on images of healthy subjects."""

    settings_type = NetworkSettings

    settings: NetworkSettings
    net: Any = None

    @abstractmethod
    def make(self) -> nn.Module:
        """Make the network, with random weights from torch's global generator."""

    @abstractmethod
    def images_of(self, store: Store) -> Draw:
        """What draws the images of a step, on the CPU."""

    @abstractmethod
    def loss(self, images: Tensor, generator: torch.Generator) -> Tensor:
        """Loss of the training, a scalar; images as `images_of` draws them."""

    def train(self, store: Store) -> None:
        """Train with Adam; images, noise and initial weights depend only on the seed.

        Raises:
            ExperimentError: The loss became infinite or NaN.
        """
        draw = self.images_of(store)
        self.net = self._fresh().train()
        settings, generator = self.settings, torch.Generator().manual_seed(self.settings.seed)
        optimizer = torch.optim.Adam(self.net.parameters(), lr=settings.learning_rate)
        schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, settings.steps)
        losses = torch.zeros(settings.steps)
        with Progress("train", settings.steps) as progress:
            for step in range(settings.steps):
                loss = self.loss(draw(generator).to(self.device), generator)
                optimizer.zero_grad(set_to_none=True)
                loss.backward()
                optimizer.step()
                schedule.step()
                losses[step] = float(loss.detach())
                progress.advance(f"loss {float(losses[step]):.4f}")
        if not losses.isfinite().all():
            raise ExperimentError("the training diverged", remedy="set a lower learning_rate")
        self.losses = [float(part.mean()) for part in losses.chunk(LOSS_PARTS)]
        self.net.eval().requires_grad_(False)

    def state(self) -> State:
        """Weights of the network."""
        return {name: value.detach().cpu().clone() for name, value in self.net.state_dict().items()}

    def restore(self, state: State) -> None:
        """Load the weights."""
        self.net = self._fresh()
        self.net.load_state_dict(state)
        self.net.eval().requires_grad_(False)

    def _fresh(self) -> nn.Module:
        """Make the network with weights from the seed; torch's global generator is not changed."""
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(self.settings.seed)
            return self.make().to(self.device)
