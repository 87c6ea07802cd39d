"""Structures that masks have by construction are recognised, and none where there is none."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from mmsw.sparsity import pattern_of


def random(*shape: int, kept: float = 0.5) -> Tensor:
    return torch.rand(shape, generator=torch.Generator().manual_seed(0)) < kept


def best(rows: int, groups: int, kept: int, length: int) -> Tensor:
    """Of each group, the ``kept`` largest of random numbers."""
    values = torch.rand(rows, groups, length, generator=torch.Generator().manual_seed(1))
    mask = torch.zeros(rows, groups, length, dtype=torch.bool)
    return mask.scatter(2, values.topk(kept, dim=2).indices, True).flatten(1)


def filters(*shape: int) -> Tensor:
    mask = torch.ones(shape, dtype=torch.bool)
    mask[::3] = False
    return mask


def channels(*shape: int) -> Tensor:
    mask = torch.ones(shape, dtype=torch.bool)
    mask[:, 1::4] = False
    return mask


TILES = random(4, 6).repeat_interleave(8, 0).repeat_interleave(4, 1)


@pytest.mark.parametrize(
    ('mask', 'kind'),
    [
        (torch.ones(3, 5, dtype=torch.bool), 'dense'),
        (torch.ones(0, 5, dtype=torch.bool), 'dense'),
        (torch.zeros(3, 5, dtype=torch.bool), 'filter'),
        (filters(7, 5), 'filter'),
        (filters(7, 1, 5, 5), 'filter'),
        (channels(7, 5), 'channel'),
        (channels(7, 6, 3, 2), 'channel'),
        (filters(7, 6, 3, 2) & channels(7, 6, 3, 2), 'filter+channel'),
        (TILES, 'block 8x4'),
        (TILES.T.contiguous(), 'block 4x8'),
        (TILES.view(32, 6, 2, 2), 'block 8x4'),
        (random(9, 7)[:, :, None, None].expand(9, 7, 3, 3), 'block 1x9'),
        (random(5, 14).repeat_interleave(2, 0), 'block 2x1'),
        (best(6, 5, 2, 4), '2:4'),
        (best(6, 5, 1, 4), '1:4'),
        (best(6, 5, 2, 4).view(6, 5, 2, 2), '2:4'),
        (best(6, 5, 4, 8), '4:8'),
        (best(6, 5, 4, 16), '4:16'),
        (best(6, 5, 2, 4) & filters(6, 20), '2:4'),
        (random(32, 64), 'weight'),
        (random(32, 64, kept=0.02), 'weight'),
        (random(8, 1, 5, 5), 'weight'),
        (best(6, 5, 3, 4), 'weight'),
    ],
)
def test_structures(mask: Tensor, kind: str) -> None:
    assert pattern_of(mask).kind == kind


def test_counts() -> None:
    pattern = pattern_of(filters(7, 6, 3, 2) & channels(7, 6, 3, 2))
    assert (pattern.filters_pruned, pattern.filters) == (3, 7)
    assert (pattern.channels_pruned, pattern.channels) == (2, 6)
    assert (pattern.pruned, pattern.total) == (7 * 6 * 6 - 4 * 4 * 6, 7 * 6 * 6)
    assert pattern.sparsity == pytest.approx(1 - 16 / 42)
    assert str(pattern) == 'filter+channel, 156/252 weights pruned (61.90%)'


@pytest.mark.parametrize(
    ('mask', 'fits'),
    [
        (best(6, 5, 2, 4), True),
        (best(6, 5, 4, 8), False),
        (torch.zeros(3, 8, dtype=torch.bool), True),
        (torch.ones(0, 8, dtype=torch.bool), False),
        (torch.zeros(3, 6, dtype=torch.bool), False),
        (torch.ones(3, 8, dtype=torch.bool), False),
    ],
)
def test_what_hardware_for_2_4_takes(mask: Tensor, fits: bool) -> None:
    assert pattern_of(mask).fits_2_4 is fits


def test_a_few_zeros_by_chance_hide_no_structure() -> None:
    mask = filters(200, 100)
    mask[1, 5] = mask[4, 9] = False
    assert pattern_of(mask).kind == 'filter'
    mask[7, 7] = False
    assert pattern_of(mask).kind == 'weight'
    alone = torch.ones(200, 100, dtype=torch.bool)
    alone[1, 5] = False
    assert pattern_of(alone).kind == 'weight'


def test_what_is_no_mask_is_refused() -> None:
    with pytest.raises(TypeError, match='must be boolean'):
        pattern_of(torch.ones(2, 2))
    with pytest.raises(ValueError, match=r'at least two dimensions, got \[3\]'):
        pattern_of(torch.ones(3, dtype=torch.bool))
