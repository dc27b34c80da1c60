"""Synthetic anomalies: they stay in the brain, look like a scan, and their severity is what was changed."""

from __future__ import annotations

import pytest
import torch

from anofield.baselines.heads import brain_centers
from anofield.baselines.synthetic import EDGE_MM, RANGES, SIZES_MM, corrupted, random_ranges, random_shapes
from anofield.data.recipe import Recipe
from helpers import CENTERS

RECIPE = Recipe(resolution=64, centers=CENTERS)
MM = 200 / 64


def generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def crops(count: int, seed: int = 0) -> torch.Tensor:
    """Balls of brain with a random class in each block of 4³ voxels."""
    draw = torch.randint(len(CENTERS) - 1, (count, 1, 8, 8, 8), generator=generator(seed))
    classes = draw.repeat_interleave(4, 2).repeat_interleave(4, 3).repeat_interleave(4, 4)
    axis = torch.arange(32) - 15.5
    inside = torch.meshgrid(axis, axis, axis, indexing="ij")
    brain = torch.stack(inside).norm(dim=0) < 14
    return torch.where(brain, brain_centers(RECIPE)[classes], 0)


def test_images_change_only_in_the_brain_to_values_of_a_scan() -> None:
    healthy = crops(24)
    seen, severity = corrupted(healthy, crops(24, 1), RECIPE, generator())
    changed = seen != healthy
    assert not seen[healthy == 0].any() and (seen[healthy > 0] > 0).all()
    assert torch.isin(seen.unique(), torch.tensor([0.0, *CENTERS[1:]])).all()
    assert (severity >= 0).all() and (severity <= 1).all()
    assert torch.equal(severity > 0, changed.flatten(1).any(1))
    assert changed.flatten(1).any(1).float().mean() > 0.9
    assert changed.float().mean() < 0.3


def test_an_image_without_brain_stays_empty() -> None:
    nothing = torch.zeros((2, 1, 16, 16, 16))
    seen, severity = corrupted(nothing, nothing, RECIPE, generator())
    assert not seen.any() and not severity.any()


def test_the_stronger_the_severity_the_larger_the_change() -> None:
    healthy = crops(32)
    seen, severity = corrupted(healthy, crops(32, 1), RECIPE, generator())
    greatest = (seen - healthy).abs().flatten(1).amax(1)
    both = torch.corrcoef(torch.stack([severity, greatest]))[0, 1]
    assert both > 0.4


def test_shapes_are_as_large_as_stated() -> None:
    shapes = random_shapes(torch.ones((16, 1, 48, 48, 48), dtype=torch.bool), MM, generator())
    assert shapes.min() >= 0 and shapes.max() <= 1
    volumes = (shapes > 0.5).flatten(1).sum(1) * MM**3
    assert (volumes < 3 * (SIZES_MM[1] + EDGE_MM) ** 3).all()
    assert (volumes > 0).all()
    assert volumes.max() > 3 * volumes.min()


def test_ranges_belong_to_the_intensities_of_the_shape() -> None:
    image = torch.full((1, 1, 8, 8, 8), float(CENTERS[1]))
    image[..., 4:] = float(CENTERS[-1])
    mask = torch.zeros_like(image)
    mask[..., :2] = 1  # only the darkest class
    found = random_ranges(image, mask, RECIPE, generator())
    assert found[..., :3].min() == 1 and found[..., 6:].max() == 0
    assert RANGES >= 2


@pytest.mark.parametrize("seed", [0, 1])
def test_the_seed_decides(seed: int) -> None:
    healthy, foreign = crops(3), crops(3, 1)
    one, again, other = (corrupted(healthy, foreign, RECIPE, generator(s))[0] for s in (seed, seed, seed + 7))
    assert torch.equal(one, again) and not torch.equal(one, other)
