"""The published network, training step and files, written plainly from the description of the 2021 system.

No speed-up of the project is in here: every point carries its own copy of the code through every concatenation, weight
norm is torch's hook, the penalty is summed point by point. What the project does otherwise must agree with this.
"""

from __future__ import annotations

import json
import math
import warnings
from collections import OrderedDict
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from anofield.field.decoder import relu_dropout
from anofield.field.specs import Specs


def features_of(points: Tensor, octaves: int | None) -> Tensor:
    """(point, 3) → (point, 6 L): sin of x at every octave, of y, of z, then cos; or the coordinates themselves."""
    if octaves is None:
        return points
    waves = [math.pi * 2.0**k for k in range(octaves)]
    return torch.stack([f(points[:, axis] * w) for f in (torch.sin, torch.cos) for axis in range(3) for w in waves], 1)


class PublishedNetwork(nn.Module):
    """Takes `NetworkSpecs` as they stand in `specs.json`; input (point, code + 3), output (point, class)."""

    def __init__(
        self,
        code_length: int,
        octaves: int | None,
        dims: Sequence[int],
        dim_out: int,
        dropout: Sequence[int] | None = None,
        dropout_prob: float = 0.0,
        norm_layers: Sequence[int] | None = (),
        latent_in: Sequence[int] = (),
        weight_norm: bool = False,
        xyz_in_all: bool | None = None,
        latent_dropout: bool = False,
    ) -> None:
        super().__init__()
        self.masked = same_masks  # (x, probability, training); the published function is functional.dropout
        self.octaves, self.last, self.latent_in, self.xyz_in_all = octaves, len(dims), latent_in, xyz_in_all
        self.dropout, self.probability, self.latent_dropout = dropout or (), dropout_prob, latent_dropout
        if octaves is not None:
            self.register_buffer("L_mult", torch.tensor([[[math.pi * 2.0**k for k in range(octaves)]]]))
        feature = 3 if octaves is None else 6 * octaves
        incoming = code_length + feature
        for layer, width in enumerate([*dims, dim_out + (octaves is None)]):
            outgoing = width
            if layer + 1 in latent_in:
                outgoing = width - code_length - feature
            elif xyz_in_all and layer < self.last:
                outgoing = width - feature
            linear = nn.Linear(incoming, outgoing)
            if weight_norm and layer in (norm_layers or ()):
                with warnings.catch_warnings():
                    warnings.simplefilter("ignore", FutureWarning)  # newer torch would like its newer weight norm
                    linear = nn.utils.weight_norm(linear)
            setattr(self, f"lin{layer}", linear)
            if not weight_norm and layer in (norm_layers or ()):
                setattr(self, f"bn{layer}", nn.LayerNorm(outgoing))
            incoming = width

    def forward(self, rows: Tensor) -> Tensor:
        code, feature = rows[:, :-3], features_of(rows[:, -3:], self.octaves)
        if self.latent_dropout:
            code = functional.dropout(code, 0.2, self.training)
        x = torch.cat([code, feature], dim=1)
        for layer in range(self.last):
            x = torch.relu(self._normed(layer, self._linear(layer, x, code, feature)))
            if layer in self.dropout:
                x = self.masked(x, self.probability, self.training)
        return self._linear(self.last, x, code, feature)

    def _linear(self, layer: int, x: Tensor, code: Tensor, feature: Tensor) -> Tensor:
        if layer and layer in self.latent_in:
            x = torch.cat([x, code, feature], dim=1)
        elif layer and self.xyz_in_all:
            x = torch.cat([x, feature], dim=1)
        return getattr(self, f"lin{layer}")(x)

    def _normed(self, layer: int, x: Tensor) -> Tensor:
        return getattr(self, f"bn{layer}")(x) if hasattr(self, f"bn{layer}") else x


def same_masks(x: Tensor, probability: float, training: bool) -> Tensor:
    """Dropout with the masks that the project draws: of what a ReLU left, it is the project's ReLU with dropout."""
    return relu_dropout(x, probability) if training else x


def joined(points: Tensor, codes: Tensor) -> Tensor:
    """(case, point, 3) and (case, code) → (case · point, code + 3), case by case."""
    return torch.cat([codes.repeat_interleave(points.shape[1], dim=0), points.reshape(-1, 3)], dim=1)


class PublishedTraining:
    """Network, code table and Adam of a training in 2021; steps are taken on points from outside."""

    def __init__(self, specs: Specs, cases: int) -> None:
        self.specs, self.epoch = specs, 0
        network: Any = specs.dump()["NetworkSpecs"]
        self.network = PublishedNetwork(specs.code_length, specs.octaves, **network)
        self.codes = nn.Embedding(cases, specs.code_length, max_norm=specs.code_bound)
        nn.init.normal_(self.codes.weight.data, 0.0, specs.code_init_std_dev / math.sqrt(specs.code_length))
        self.adam = torch.optim.Adam([{"params": self.network.parameters()}, {"params": self.codes.parameters()}])
        self.logs: dict[str, Any] = {
            "loss": [], "learning_rate": [], "timing": [], "latent_magnitude": [], "param_magnitude": {}
        }  # fmt: skip

    def loss(self, points: Tensor, targets: Tensor, rows: Tensor, epoch: int) -> Tensor:
        """§3: summed over points, per case of the batch."""
        code = self.codes(rows.repeat_interleave(points.shape[1]))  # (case · point, code)
        logits = self.network(torch.cat([code, points.reshape(-1, 3)], dim=1))
        loss = functional.cross_entropy(logits, targets.reshape(-1), reduction="sum") / len(rows)
        if self.specs.code_regularization:
            weight = self.specs.code_regularization_lambda * min(1, epoch / 100)
            loss = loss + weight * torch.linalg.vector_norm(code, dim=1).sum() / len(rows)
        return loss

    def step(self, points: Tensor, targets: Tensor, rows: Tensor) -> None:
        """One epoch of one step."""
        self.epoch += 1
        rates = [rate.rate(self.epoch) for rate in self.specs.learning_rate_schedule]
        for group, rate in zip(self.adam.param_groups, rates, strict=True):
            group["lr"] = rate
        self.adam.zero_grad()
        loss = self.loss(points, targets, rows, self.epoch)
        loss.backward()
        if self.specs.gradient_clip_norm is not None:
            nn.utils.clip_grad_norm_(self.network.parameters(), self.specs.gradient_clip_norm)
        self.adam.step()
        self._log(loss.item(), rates)

    def _log(self, loss: float, rates: list[float]) -> None:
        self.logs["loss"].append(loss)
        self.logs["learning_rate"].append(rates)
        self.logs["timing"].append(0.1)
        self.logs["latent_magnitude"].append(self.codes.weight.data.norm(dim=1).mean())  # a tensor, as published
        for name, value in self.network.named_parameters():
            self.logs["param_magnitude"].setdefault(name, []).append(float(value.data.norm()))

    def save(self, folder: Path, name: str, *, specs: dict[str, Any], prefix: str = "", old: bool = False) -> None:
        """The files of 2021.

        Args:
            folder: Experiment directory.
            name: `latest` or an epoch.
            specs: Content of `specs.json`.
            prefix: `module.` as several GPUs left it.
            old: Codes, Adam's counter and its settings as first versions wrote them, in files of before torch 1.6.
        """
        folder.mkdir(parents=True, exist_ok=True)
        (folder / "specs.json").write_text(json.dumps(specs))
        model = OrderedDict((prefix + key, value) for key, value in self.network.state_dict().items())
        codes: Any = self.codes.weight.data[:, None] if old else self.codes.state_dict()
        content = {
            "ModelParameters": {"model_state_dict": model},
            "LatentCodes": {"latent_codes": codes},
            "OptimizerParameters": {"optimizer_state_dict": adam_of_2021(self.adam.state_dict()) if old else
                                    self.adam.state_dict()},
        }  # fmt: skip
        for part, held in content.items():
            (folder / part).mkdir(exist_ok=True)
            path = folder / part / f"{name}.pth"
            torch.save({"epoch": self.epoch, **held}, path, _use_new_zipfile_serialization=not old)
        torch.save({"epoch": self.epoch, **self.logs}, folder / "Logs.pth")


def adam_of_2021(state: dict[str, Any]) -> dict[str, Any]:
    """Adam's state as torch 1.8 wrote it: whole counters, no word of how it computes."""
    entries = {key: {**entry, "step": int(entry["step"])} for key, entry in state["state"].items()}
    kept = ("lr", "betas", "eps", "weight_decay", "amsgrad", "params")
    return {"state": entries, "param_groups": [{key: group[key] for key in kept} for group in state["param_groups"]]}
