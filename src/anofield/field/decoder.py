"""The field: Fourier features of a point and a code of a person → logits over ordered intensity classes.

`Decoder` is the auto-decoder of Naval Marimont & Tarroni 2021 (after DeepSDF, Park et al. 2019), with its names.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any, Protocol

import torch
from torch import Tensor, nn
from torch.nn import functional

from anofield.errors import UsageError

INTEGERS = {2: torch.int16, 4: torch.int32, 8: torch.int64}  # by bytes of the float type


class Field(Protocol):
    """What fitting, scoring and sampling need of a field."""

    code_length: int
    classes: int

    def logits(self, points: Tensor, codes: Tensor) -> Tensor:
        """Logits of the classes at points.

        Args:
            points: Field coordinates, (case, point, 3).
            codes: One code per case, (case, code).

        Returns:
            (case, point, class).
        """


class FieldModule(nn.Module):
    """A field that is a torch module, so that it can be trained; any module with these attributes will do."""

    code_length: int
    classes: int

    def logits(self, points: Tensor, codes: Tensor) -> Tensor:
        """As `Field.logits`, with gradients for the weights and the codes."""
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
    """ReLU and dropout in one, for CPUs, where torch's dropout costs as much as the layer before it.

    One random draw of 64 bits serves four values, so the probability is rounded to 1/32768 (0.2 → 0.20001), and kept
    values are scaled by the exact inverse of what is kept. Only the output is stored: it is 0 exactly where either
    function stops the gradient.
    """

    @staticmethod
    def forward(ctx: Any, x: Tensor, probability: float) -> Tensor:
        """Any shape, any float type."""
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
        """The gradient where the output is not 0, scaled."""
        (y,) = ctx.saved_tensors
        return torch.ops.aten.threshold_backward(gradients[0], y, 0).mul_(ctx.scale), None


def relu_dropout(x: Tensor, probability: float) -> Tensor:
    """ReLU, then dropout with this probability, the quicker way of the device."""
    if not probability:
        return functional.relu(x)
    if x.device.type == "cpu":
        out: Tensor = ReluDropout.apply(x, probability)  # type: ignore[no-untyped-call]
        return out
    return functional.dropout(functional.relu(x), probability)


class WeightNormLinear(nn.Module):
    """Linear layer with weight g · v/‖v‖ per output row (Salimans & Kingma 2016), as torch's hook made it.

    Names and order of the parameters are the hook's: an Adam state knows them by their order alone.
    """

    def __init__(self, inputs: int, outputs: int) -> None:
        super().__init__()
        plain = nn.Linear(inputs, outputs)
        self.bias = nn.Parameter(plain.bias.detach().clone())
        self.weight_g = nn.Parameter(plain.weight.detach().norm(dim=1, keepdim=True))
        self.weight_v = nn.Parameter(plain.weight.detach().clone())

    @property
    def weight(self) -> Tensor:
        """(outputs, inputs)."""
        return torch._weight_norm(self.weight_v, self.weight_g, 0)


class Decoder(FieldModule):
    """The published decoder, exact, with what depends on the code alone computed once per case.

    Args:
        code_length: Length of a code.
        octaves: L of the Fourier features; None feeds raw coordinates. As published, that also adds an output after
            the last class, which no voxel ever has: `forward` gives it, `logits` leaves it out.
        dims: Width of every hidden layer.
        classes: Number of ordered intensity classes (`dim_out`).
        latent_in: Layers whose input is joined with code and features.
        norm_layers: Layers with weight norm (`weight_norm`), otherwise layer norm after them; the published code
            makes a layer norm for the output layer as well, and never applies it.
        weight_norm: See `norm_layers`.
        dropout: Layers followed by dropout in training.
        dropout_prob: Its probability.
        xyz_in_all: Join the point's features to the input of every layer but the first.
        latent_dropout: Dropout of 0.2 on the code in training, drawn for every point anew; the skip gets the same.

    Raises:
        UsageError: A layer is too narrow for the join.

    Source:
        Naval Marimont & Tarroni, MICCAI 2021; Park et al., CVPR 2019.
    """

    L_mult: Tensor | None
    LATENT_DROPOUT = 0.2  # Park et al. 2019, published code

    def __init__(
        self,
        code_length: int,
        octaves: int | None,
        *,
        dims: Sequence[int] = (512,) * 8,
        classes: int = 10,
        latent_in: Sequence[int] = (4,),
        norm_layers: Sequence[int] = tuple(range(8)),
        weight_norm: bool = True,
        dropout: Sequence[int] = tuple(range(8)),
        dropout_prob: float = 0.2,
        xyz_in_all: bool = False,
        latent_dropout: bool = False,
    ) -> None:
        super().__init__()
        self.code_length, self.classes, self.hidden = code_length, classes, len(dims)
        self.latent_in, self.xyz_in_all = set(latent_in) - {0}, xyz_in_all
        self.dropout_layers, self.dropout_prob, self.latent_dropout = set(dropout), dropout_prob, latent_dropout
        frequencies = (math.pi * 2.0 ** torch.arange(octaves)).reshape(1, 1, octaves) if octaves else None
        self.register_buffer("L_mult", frequencies)
        self.point_size = 6 * octaves if octaves else 3
        joined = code_length + self.point_size
        widths = [joined, *dims, classes if octaves else classes + 1]
        for layer in range(self.hidden + 1):
            outputs = widths[layer + 1]
            if layer + 1 in self.latent_in:
                outputs -= joined
            elif xyz_in_all and layer != self.hidden:
                outputs -= self.point_size
            if outputs < 1:
                raise UsageError(
                    f"NetworkSpecs.dims: layer {layer} is {widths[layer + 1]} wide, of which the join takes "
                    f"{widths[layer + 1] - outputs}",
                    why="code and point features are joined to its output",
                    remedy="make dims larger, or CodeLength or L smaller",
                )
            normed = layer in norm_layers
            module = WeightNormLinear if normed and weight_norm else nn.Linear
            self.add_module(f"lin{layer}", module(widths[layer], outputs))
            if normed and not weight_norm:
                self.add_module(f"bn{layer}", nn.LayerNorm(outputs))

    def forward(self, points: Tensor, codes: Tensor, weights: Sequence[Tensor] | None = None) -> Tensor:
        """All outputs of the published network: as `logits`, and one more class without Fourier features.

        Args:
            points: Field coordinates, (case, point, 3).
            codes: (case, code).
            weights: From `fold`, if they are at hand.
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
        """(case, point, 3) field coordinates and (case, code) → (case, point, class)."""
        out: Tensor = self(points, codes)
        return out[..., : self.classes]

    def fold(self) -> list[Tensor]:
        """The weight of every layer with its weight norm multiplied out, (output, input)."""
        return [getattr(self, f"lin{layer}").weight for layer in range(self.hidden + 1)]

    def features(self, points: Tensor) -> Tensor:
        """(case, point, 3) → (case, point, feature)."""
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
    """What `outputs_at` can be given, so that weights are folded once for many points; nothing but for the decoder."""
    return field.fold() if type(field) is Decoder else []


def outputs_at(field: FieldModule, points: Tensor, codes: Tensor, weights: Sequence[Tensor]) -> Tensor:
    """(case, point, 3) and (case, code) → all outputs (case, point, output), from `folded_weights` where there are any.

    A subclass of the decoder goes the way of every other field, by its `logits`, which it may have changed.
    """
    return field(points, codes, weights) if type(field) is Decoder else field.logits(points, codes)


class FrozenField:
    """A trained field whose weights no longer change: folded once, multiplied in the precision of choice.

    Attributes:
        decoder: The field, in eval mode, its parameters frozen.
        bfloat16: Whether matrices are multiplied in bfloat16; logits are float32 all the same.
        code_length, classes: Of the field.
    """

    def __init__(self, decoder: FieldModule, *, bfloat16: bool = False) -> None:
        self.decoder = decoder.requires_grad_(False).eval()
        self.bfloat16 = bfloat16
        self.code_length, self.classes = decoder.code_length, decoder.classes
        self._weights = [weight.detach() for weight in folded_weights(decoder)]

    @property
    def octaves(self) -> int:
        """L of the published decoder; 0 for raw coordinates and where a field has no such number."""
        return self.decoder.point_size // 6 if isinstance(self.decoder, Decoder) else 0

    def logits(self, points: Tensor, codes: Tensor) -> Tensor:
        """(case, point, 3) field coordinates and (case, code) → (case, point, class) float32."""
        with torch.autocast(points.device.type, torch.bfloat16, enabled=self.bfloat16):
            outputs = outputs_at(self.decoder, points, codes, self._weights)
        return outputs[..., : self.classes].float()
