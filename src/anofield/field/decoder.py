"""The field: Fourier features of a point and a code of a subject → logits over ordered intensity classes.

`Decoder` is the auto-decoder of Naval Marimont & Tarroni 2021 (after DeepSDF, Park et al. 2019) with the names of
its parameters.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any, Protocol

import torch
from torch import Tensor, nn
from torch.nn import functional

from anofield.errors import UsageError
from anofield.field.specs import PUBLISHED_NETWORK, NetworkSpecs

INTEGERS = {2: torch.int16, 4: torch.int32, 8: torch.int64}  # by bytes of the float type


class Field(Protocol):
    """The part of a field that fitting, scoring and sampling use."""

    code_length: int
    classes: int

    def logits(self, points: Tensor, codes: Tensor) -> Tensor:
        """Logits of the classes at given points.

        Args:
            points: Field coordinates, (case, point, 3).
            codes: One code per case, (case, code).

        Returns:
            (case, point, class).
        """


class FieldModule(nn.Module):
    """A field that is a torch module and can be trained; any module with these attributes can be used."""

    code_length: int
    classes: int

    def logits(self, points: Tensor, codes: Tensor) -> Tensor:
        """Like `Field.logits`, with gradients for the weights and the codes."""
        raise NotImplementedError


def fourier_features(points: Tensor, frequencies: Tensor) -> Tensor:
    """sin and cos of every coordinate times every frequency (order: sin x, sin y, sin z, cos x, cos y, cos z).

    Args:
        points: Field coordinates, (…, 3).
        frequencies: (L,), published as π·2^k for k = 0 … L−1.

    Returns:
        (…, 6 L).
    """
    angles = (points.unsqueeze(-1) * frequencies).flatten(-2)  # (…, 3 L)
    return torch.cat((torch.sin(angles), torch.cos(angles)), dim=-1)


class ReluDropout(torch.autograd.Function):
    """ReLU and dropout in one step, for CPUs, where torch's dropout costs as much as the layer before it.

    One random draw of 64 bits serves four values, so the probability is rounded to 1/32768 (0.2 → 0.20001), and kept
    values are scaled by the exact inverse of what is kept. Only the output is stored: it is 0 exactly where either
    function stops the gradient.
    """

    @staticmethod
    def forward(ctx: Any, x: Tensor, probability: float) -> Tensor:
        """ReLU and dropout of a tensor of any shape and float type."""
        dropped = round(probability * 2**15)
        bits = torch.empty(-(-x.numel() // 4), dtype=torch.int64).random_(-(2**63), None)
        bits16 = bits.view(torch.int16)[: x.numel()].view_as(x).bitwise_and_(2**15 - 1)
        kept = bits16.sub_(dropped).bitwise_right_shift_(15).bitwise_not_()  # 0: dropped, −1 (all bits): kept
        same = INTEGERS[x.element_size()]
        y = functional.relu(x).view(same).bitwise_and_(kept.to(same)).view(x.dtype)
        ctx.scale = 2**15 / (2**15 - dropped)
        y.mul_(ctx.scale)
        ctx.save_for_backward(y)
        return y

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, None]:
        """The scaled gradient where the output is not 0, and 0 elsewhere."""
        (y,) = ctx.saved_tensors
        return torch.ops.aten.threshold_backward(gradients[0], y, 0).mul_(ctx.scale), None


def relu_dropout(x: Tensor, probability: float) -> Tensor:
    """ReLU, then dropout with this probability, by the faster implementation for the device."""
    if not probability:
        return functional.relu(x)
    if x.device.type == "cpu":
        out: Tensor = ReluDropout.apply(x, probability)  # type: ignore[no-untyped-call]
        return out
    return functional.dropout(functional.relu(x), probability)


class WeightNormLinear(nn.Module):
    """Linear layer with weight g · v/‖v‖ per output row (Salimans & Kingma 2016), as torch's hook makes it.

    The parameters have the hook's names and order: an Adam state identifies them by their order alone.
    """

    def __init__(self, inputs: int, outputs: int) -> None:
        super().__init__()
        plain = nn.Linear(inputs, outputs)
        self.bias = nn.Parameter(plain.bias.detach().clone())
        self.weight_g = nn.Parameter(plain.weight.detach().norm(dim=1, keepdim=True))
        self.weight_v = nn.Parameter(plain.weight.detach().clone())

    @property
    def weight(self) -> Tensor:
        """The weight with its norm multiplied in, (outputs, inputs)."""
        return torch._weight_norm(self.weight_v, self.weight_g, 0)


class Decoder(FieldModule):
    """The published decoder, exact; the products that depend on the code alone are computed once per case.

    Args:
        code_length: Length of a code.
        octaves: L of the Fourier features; None feeds raw coordinates. As published, that also adds an output after
            the last class, which no voxel ever has: `forward` returns it, `logits` leaves it out.
        network: Widths, joins, norms and dropout of the layers.

    Raises:
        UsageError: A layer is too narrow for the join.

    Source:
        Naval Marimont & Tarroni, MICCAI 2021; Park et al., CVPR 2019.
    """

    L_mult: Tensor | None
    LATENT_DROPOUT = 0.2  # Park et al. 2019, published code

    def __init__(self, code_length: int, octaves: int | None, network: NetworkSpecs = PUBLISHED_NETWORK) -> None:
        super().__init__()
        self.code_length, self.classes, self.hidden = code_length, network.dim_out, len(network.dims)
        self.latent_in, self.xyz_in_all = set(network.latent_in) - {0}, network.xyz_in_all
        self.dropout_layers, self.dropout_prob = set(network.dropout), network.dropout_prob
        self.latent_dropout = network.latent_dropout
        frequencies = (math.pi * 2.0 ** torch.arange(octaves)).reshape(1, 1, octaves) if octaves else None
        self.register_buffer("L_mult", frequencies)
        self.point_size = 6 * octaves if octaves else 3
        widths = [code_length + self.point_size, *network.dims, self.classes + (0 if octaves else 1)]
        for layer in range(self.hidden + 1):
            outputs = self._outputs(layer, widths[layer + 1])
            normed = layer in network.norm_layers
            module = WeightNormLinear if normed and network.weight_norm else nn.Linear
            self.add_module(f"lin{layer}", module(widths[layer], outputs))
            if normed and not network.weight_norm:
                self.add_module(f"bn{layer}", nn.LayerNorm(outputs))

    def _outputs(self, layer: int, width: int) -> int:
        """Number of outputs of a layer: its width minus the inputs that are joined before the next layer."""
        taken = 0
        if layer + 1 in self.latent_in:
            taken = self.code_length + self.point_size
        elif self.xyz_in_all and layer != self.hidden:
            taken = self.point_size
        if taken >= width:
            raise UsageError(
                f"NetworkSpecs.dims: layer {layer} is {width} wide, and the join takes {taken} of it",
                why="code and point features are joined to its output",
                remedy="make dims larger, or CodeLength or L smaller",
            )
        return width - taken

    def forward(self, points: Tensor, codes: Tensor, weights: Sequence[Tensor] | None = None) -> Tensor:
        """All outputs of the published network: `logits`, and one more class without Fourier features.

        Args:
            points: Field coordinates, (case, point, 3).
            codes: One code per case, (case, code).
            weights: Result of `fold`; None folds them.
        """
        weights = self.fold() if weights is None else weights
        codes = codes.unsqueeze(1)  # (case, 1, code)
        if self.latent_dropout and self.training:
            codes = functional.dropout(codes.expand(-1, points.shape[1], -1), self.LATENT_DROPOUT)
        features = self.features(points)
        x = features  # (case, point, feature)
        for layer, weight in enumerate(weights):
            x = self._linear(layer, weight, x, features, codes)
            if layer == self.hidden:
                break
            norm = getattr(self, f"bn{layer}", None)
            dropped = self.training and layer in self.dropout_layers
            x = relu_dropout(x if norm is None else norm(x), self.dropout_prob if dropped else 0.0)
        return x

    def logits(self, points: Tensor, codes: Tensor) -> Tensor:
        """Logits (case, point, class) at field coordinates (case, point, 3) with codes (case, code)."""
        out: Tensor = self(points, codes)
        return out[..., : self.classes]

    def fold(self) -> list[Tensor]:
        """The weight of every layer, with its weight norm multiplied in, (output, input)."""
        return [getattr(self, f"lin{layer}").weight for layer in range(self.hidden + 1)]

    def features(self, points: Tensor) -> Tensor:
        """Features of points, (case, point, 3) → (case, point, feature)."""
        return points if self.L_mult is None else fourier_features(points, self.L_mult.flatten())

    def _linear(self, layer: int, weight: Tensor, x: Tensor, features: Tensor, codes: Tensor) -> Tensor:
        """One layer on its joined input, without building the join: the code's product is added once per case."""
        bias = getattr(self, f"lin{layer}").bias
        if layer == 0:
            return self._joined(weight, bias, None, features, codes)
        if layer in self.latent_in:
            return self._joined(weight, bias, x, features, codes)
        if self.xyz_in_all:
            own, point = torch.split(weight, [x.shape[-1], self.point_size], dim=1)
            return functional.linear(x, own, bias) + functional.linear(features, point)
        return functional.linear(x, weight, bias)

    def _joined(self, weight: Tensor, bias: Tensor, x: Tensor | None, features: Tensor, codes: Tensor) -> Tensor:
        """Product with [x, code, features], the order of the published concatenation."""
        own = 0 if x is None else x.shape[-1]
        for_x, for_code, for_point = torch.split(weight, [own, self.code_length, self.point_size], dim=1)
        per_case = functional.linear(codes, for_code, bias)  # (case, 1, width); latent dropout: (case, point, width)
        if x is None:
            return functional.linear(features, for_point) + per_case
        both = torch.cat((for_x, for_point), dim=1)
        return functional.linear(torch.cat((x, features), dim=-1), both) + per_case


def folded_weights(field: FieldModule) -> list[Tensor]:
    """Folded weights for `outputs_at`, computed once for many points; empty unless the field is the decoder."""
    return field.fold() if type(field) is Decoder else []


def outputs_at(field: FieldModule, points: Tensor, codes: Tensor, weights: Sequence[Tensor]) -> Tensor:
    """All outputs (case, point, output) at points (case, point, 3) with codes (case, code).

    `weights` come from `folded_weights`. A subclass of the decoder is evaluated like every other field, by its
    `logits`, which it may have overridden.
    """
    return field(points, codes, weights) if type(field) is Decoder else field.logits(points, codes)


class FrozenField:
    """A trained field whose weights no longer change: folded once, multiplied in the chosen precision.

    A pickle holds the weights once; they are folded again when it is loaded.

    Attributes:
        decoder: The field, in eval mode and with frozen parameters.
        bfloat16: Whether matrices are multiplied in bfloat16; logits are always float32.
        code_length: Length of a code.
        classes: Number of intensity classes.
    """

    def __init__(self, decoder: FieldModule, *, bfloat16: bool = False) -> None:
        self.decoder = decoder.requires_grad_(False).eval()
        self.bfloat16 = bfloat16
        self.code_length, self.classes = decoder.code_length, decoder.classes
        self._weights = self._folded()

    def __getstate__(self) -> dict[str, object]:
        return {name: value for name, value in vars(self).items() if name != "_weights"}

    def __setstate__(self, state: dict[str, object]) -> None:
        vars(self).update(state)
        self._weights = self._folded()

    def _folded(self) -> list[Tensor]:
        return [weight.detach() for weight in folded_weights(self.decoder)]

    @property
    def octaves(self) -> int:
        """L of the published decoder; 0 for raw coordinates and for fields without such a number."""
        return self.decoder.point_size // 6 if isinstance(self.decoder, Decoder) else 0

    def logits(self, points: Tensor, codes: Tensor) -> Tensor:
        """(case, point, 3) field coordinates and (case, code) → (case, point, class) float32."""
        with torch.autocast(points.device.type, torch.bfloat16, enabled=self.bfloat16):
            outputs = outputs_at(self.decoder, points, codes, self._weights)
        return outputs[..., : self.classes].float()
