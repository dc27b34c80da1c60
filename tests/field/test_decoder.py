"""The decoder: the published network, number by number, whatever way its products are taken."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch

from anofield.errors import UsageError
from anofield.field.decoder import Decoder, FrozenField, fourier_features
from anofield.field.model import build_field
from anofield.field.specs import NetworkSpecs
from helpers import tiny_specs
from oracle import PublishedNetwork, joined

VARIANTS: dict[str, dict[str, Any]] = {
    "published": {},
    "xyz_in_all": {"xyz_in_all": True},
    "layer norm": {"weight_norm": False},
    "some layers normed": {"norm_layers": (0, 2)},
    "output layer normed": {"norm_layers": (0, 4)},
    "layer norm of the output layer, never applied": {"norm_layers": (0, 4), "weight_norm": False},
    "latent dropout": {"latent_dropout": True},
    "raw coordinates": {"octaves": None},
    "no skip": {"latent_in": ()},
    "several skips": {"latent_in": (1, 3)},
    "skip into the output layer": {"latent_in": (4,)},
    "all at once": {"xyz_in_all": True, "latent_in": (2, 3), "weight_norm": False, "octaves": None},
}


SETTINGS: dict[str, Any] = {
    "dims": (40,) * 4, "dim_out": 5, "latent_in": (2,), "norm_layers": (0, 1, 2, 3), "dropout": (0, 1, 2),
    "dropout_prob": 0.2, "weight_norm": True,
}  # fmt: skip


def small(octaves: int | None = 2, **options: Any) -> Decoder:
    torch.manual_seed(0)
    decoder = Decoder(7, octaves, NetworkSpecs(**{**SETTINGS, **options})).double()
    for name, value in decoder.named_parameters():
        if not name.startswith("lin0"):
            value.data += 0.1 * torch.randn_like(value)  # so that g is not the norm of v
    return decoder.eval()


def plain(octaves: int | None = 2, **options: Any) -> PublishedNetwork:
    """The published network with the weights of `small`, every name and shape as in its files."""
    network = PublishedNetwork(7, octaves, **{**SETTINGS, **options})
    network.load_state_dict(small(octaves, **options).state_dict())
    return network.double().eval()


@pytest.mark.parametrize("training", [False, True])
@pytest.mark.parametrize("variant", VARIANTS)
def test_outputs_and_gradients_are_those_of_the_published_network(variant: str, training: bool) -> None:
    decoder, network = small(**VARIANTS[variant]).train(training), plain(**VARIANTS[variant]).train(training)
    points, codes = torch.rand(3, 11, 3).double() * 2 - 1, torch.randn(3, 7).double().requires_grad_(True)
    weights = torch.randn(33, 5 + (decoder.L_mult is None)).double()
    results = []
    for module, outputs in (
        (decoder, lambda: decoder(points, codes)),
        (network, lambda: network(joined(points, codes))),
    ):
        torch.manual_seed(4)  # the same dropout masks
        found = outputs().flatten(0, -2)
        names, leaves = zip(*module.named_parameters(), strict=True)
        gradients = torch.autograd.grad((found * weights).sum(), [codes, *leaves], allow_unused=True)
        results.append({"outputs": found, **dict(zip(("codes", *names), gradients, strict=True))})
    assert list(results[0]) == list(results[1])  # Adam's state goes by the order of the parameters
    torch.testing.assert_close(*results, rtol=1e-5, atol=1e-5)


def test_float32_stays_within_1e_5_of_the_published_network() -> None:
    points, codes = torch.rand(2, 50, 3) * 2 - 1, torch.randn(2, 7)
    found = small().float()(points, codes).flatten(0, 1)
    torch.testing.assert_close(found, plain().float()(joined(points, codes)), rtol=1e-5, atol=1e-5)


def test_the_output_that_no_class_has_is_left_out_of_the_logits() -> None:
    decoder = small(None)
    points, codes = torch.rand(2, 9, 3).double(), torch.randn(2, 7).double()
    assert decoder(points, codes).shape == (2, 9, 6)
    assert torch.equal(decoder.logits(points, codes), decoder(points, codes)[..., :5])


def test_published_configuration_has_the_published_parameters() -> None:
    decoder: Any = Decoder(256, 10)
    norm = {f"lin{layer}.{part}" for layer in range(8) for part in ("weight_g", "weight_v", "bias")}
    assert set(decoder.state_dict()) == norm | {"lin8.weight", "lin8.bias", "L_mult"}
    assert sum(value.numel() for value in decoder.parameters()) == 1_847_698
    assert decoder.lin3.weight_v.shape == (512 - 316, 512)
    assert decoder.lin4.weight_g.shape == (512, 1)
    assert decoder.L_mult.shape == (1, 1, 10)
    torch.testing.assert_close(decoder.L_mult.flatten(), math.pi * 2.0 ** torch.arange(10))


def test_features_are_ordered_sines_first_then_by_axis_then_by_octave() -> None:
    point, frequencies = torch.tensor([[0.1, -0.4, 0.7]]), torch.tensor([math.pi, 2 * math.pi])
    expected = [f(u * w) for f in (math.sin, math.cos) for u in (0.1, -0.4, 0.7) for w in (math.pi, 2 * math.pi)]
    torch.testing.assert_close(fourier_features(point, frequencies)[0], torch.tensor(expected))


def test_every_case_is_decoded_with_its_own_code() -> None:
    decoder = small()
    points, codes = torch.rand(1, 9, 3).double().expand(3, -1, -1), torch.randn(3, 7).double()
    together = decoder.logits(points, codes)
    for case in range(3):
        alone = decoder.logits(points[case : case + 1], codes[case : case + 1])
        torch.testing.assert_close(together[case], alone[0])
    torch.testing.assert_close(decoder.logits(points, codes.flip(0)), together.flip(0))
    assert not torch.allclose(together[0], together[1])


@pytest.mark.parametrize("options", [{"dropout_prob": 0.5}, {"dropout_prob": 0.0, "latent_dropout": True}])
def test_dropout_acts_in_training_and_never_in_eval(options: dict[str, Any]) -> None:
    decoder = small(**options)
    points, codes = torch.rand(1, 30, 3).double(), torch.randn(1, 7).double()
    assert torch.equal(decoder(points, codes), decoder(points, codes))
    decoder.train()
    assert not torch.equal(decoder(points, codes), decoder(points, codes))


def test_layers_too_narrow_for_the_join_are_named() -> None:
    network = {"dims": [16, 16, 16], "dim_out": 4, "latent_in": [2]}
    with pytest.raises(UsageError, match=r"dims: layer 1 is 16 wide.*18") as caught:
        build_field(tiny_specs(NetworkSpecs=network))
    assert caught.value.remedy


class TestFrozen:
    def test_gives_the_logits_of_the_decoder(self) -> None:
        decoder = small().float()
        points, codes = torch.rand(2, 50, 3) * 2 - 1, torch.randn(2, 7)
        expected = decoder.logits(points, codes).detach()
        frozen = FrozenField(decoder)
        torch.testing.assert_close(frozen.logits(points, codes), expected)
        assert (frozen.code_length, frozen.classes) == (7, 5)

    def test_passes_gradients_to_codes_and_points_alone(self) -> None:
        frozen = FrozenField(small().float())
        points, codes = (torch.rand(1, 20, 3) * 2 - 1).requires_grad_(), torch.randn(1, 7, requires_grad=True)
        frozen.logits(points, codes).square().sum().backward()
        assert points.grad is not None and codes.grad is not None
        assert all(value.grad is None for value in frozen.decoder.parameters())

    def test_in_bfloat16_is_close(self) -> None:
        decoder = small().float()
        points, codes = torch.rand(1, 500, 3) * 2 - 1, torch.randn(1, 7)
        exact = FrozenField(decoder).logits(points, codes).softmax(dim=-1)
        rounded = FrozenField(decoder, bfloat16=True).logits(points, codes)
        assert rounded.dtype == torch.float32
        torch.testing.assert_close(rounded.softmax(dim=-1), exact, rtol=0, atol=0.02)
