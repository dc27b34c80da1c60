"""Lesion-wise detection: the fast counts are those of looking at every lesion and finding one by one."""

from __future__ import annotations

import numpy as np
import pytest
from scipy import ndimage

from anofield.evaluation.lesions import SIZES_ML, Match, components, match, size_bin, size_names

VOXEL_ML = 0.05


def blobs(seed: int, share: float) -> np.ndarray:
    field = ndimage.gaussian_filter(np.random.default_rng(seed).normal(size=(18, 16, 14)), 1.2)
    return field > np.quantile(field, 1 - share)


def brute(truth: np.ndarray, found: np.ndarray, min_ml: float, overlap: float) -> tuple[list[bool], int, int]:
    """Lesions found, findings, false findings, by one component at a time."""

    def parts(mask: np.ndarray) -> list[np.ndarray]:
        left, result = {tuple(at) for at in np.argwhere(mask)}, []
        while left:
            todo, part = [left.pop()], []
            while todo:
                at = todo.pop()
                part.append(at)
                near = {other for other in left if max(abs(a - b) for a, b in zip(at, other, strict=True)) <= 1}
                left -= near
                todo += near
            if len(part) * VOXEL_ML >= min_ml - 1e-9:
                result.append(np.array(part))
        return result

    findings = parts(found)
    inside = np.zeros(truth.shape, bool)
    for part in findings:
        inside[tuple(part.T)] = True
    hits = [bool(inside[tuple(part.T)].mean() >= overlap) for part in parts(truth)]
    return hits, len(findings), sum(not truth[tuple(part.T)].any() for part in findings)


def matched(truth: np.ndarray, found: np.ndarray, min_ml: float = 0.0, overlap: float = 0.1) -> Match:
    return match(truth, components(truth, VOXEL_ML, min_ml), components(found, VOXEL_ML, min_ml), overlap)


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(6))
@pytest.mark.parametrize(("min_ml", "overlap"), [(0.0, 0.1), (0.2, 0.1), (0.2, 0.6)])
def test_counts_equal_looking_at_every_component(seed: int, min_ml: float, overlap: float) -> None:
    truth, found = blobs(seed, 0.05), blobs(seed, 0.07) & blobs(seed + 100, 0.6) | blobs(seed + 200, 0.02)
    result = matched(truth, found, min_ml, overlap)
    hits, findings, false = brute(truth, found, min_ml, overlap)
    assert sorted(result.found.tolist()) == sorted(hits)
    assert (result.findings, result.false) == (findings, false)


def test_components_touch_at_corners() -> None:
    mask = np.zeros((4, 4, 4), bool)
    mask[1, 1, 1] = mask[2, 2, 2] = True
    assert len(components(mask, 1.0, 0.0).volumes_ml) == 1


def test_a_tenth_of_a_lesion_is_enough_and_less_is_not() -> None:
    truth = np.zeros((12, 4, 4), bool)
    truth[1:11, 1, 1] = True  # ten voxels
    one = np.zeros_like(truth)
    assert matched(truth, one).found.tolist() == [False]
    one[5, 1, 1] = True
    assert matched(truth, one).found.tolist() == [True]
    assert matched(truth, one, overlap=0.11).found.tolist() == [False]


def test_a_finding_on_a_lesion_too_small_to_count_is_neither_a_hit_nor_false() -> None:
    truth, found = np.zeros((10, 10, 10), bool), np.zeros((10, 10, 10), bool)
    truth[2, 2, 2] = True
    found[1:4, 1:4, 1:4] = True
    result = matched(truth, found, min_ml=5 * VOXEL_ML)
    assert (len(result.found), result.findings, result.false) == (0, 1, 0)
    result = matched(~np.ones_like(truth), found)
    assert (result.findings, result.false) == (1, 1)
    assert result.false_ml == pytest.approx(27 * VOXEL_ML)


def test_every_volume_has_one_size() -> None:
    volumes = np.array([1e-6, 0.0999, 0.1, 0.5, 1.0, 99.9, 100.0, 1e4])
    assert size_bin(volumes).tolist() == [0, 0, 1, 1, 2, 3, 4, 4]
    assert len(size_names()) == len(SIZES_ML) - 1
