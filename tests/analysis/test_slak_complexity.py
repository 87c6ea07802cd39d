"""Counts of SLaK, plain, shift-wise, folded and sparse, against the sum written out."""

from __future__ import annotations

import pytest
import torch

from mmsw import sparsity
from mmsw.analysis.complexity import complexity
from mmsw.models import SLaK

DIMS, KERNELS, N, SIDE = (8, 12, 16, 20), (15, 9, 7, 5), 5, 64
SETTINGS = dict(arch=dict(depths=[1, 1, 1, 1], dims=list(DIMS)), big_kernels=KERNELS)


def expected_macs(decomposed: bool) -> int:
    """Stem and downsampling, large kernels, two linear layers, stage by stage."""
    total, before, patch = 0, 3, 4
    for stage, (dim, m) in enumerate(zip(DIMS, KERNELS, strict=True)):
        positions = (SIDE // 2 ** (stage + 2)) ** 2
        large = 2 * m * N if decomposed else m * m
        total += positions * (before * dim * patch**2 + dim * (large + N * N) + 2 * 4 * dim * dim)
        before, patch = dim, 2
    return total


@pytest.mark.parametrize('shift_wise', [False, True])
@pytest.mark.parametrize('decomposed', [True, False])
def test_training_form(decomposed, shift_wise) -> None:
    net = SLaK(**SETTINGS, width_factor=1.0, decomposed=decomposed, shift_wise=shift_wise)
    count = complexity(net, (SIDE, SIDE)).total
    assert count.macs_dense == count.macs_used == expected_macs(decomposed)
    assert count.parameters == sum(p.numel() for p in net.parameters())
    assert (count.macs_naive > count.macs_dense) == shift_wise


@pytest.mark.parametrize('decomposed', [True, False])
def test_folded_form_counts_whole_blocks(decomposed) -> None:
    net = SLaK(**SETTINGS, width_factor=1.0, decomposed=decomposed)
    with torch.no_grad():
        for name, weight in net.named_parameters():
            if 'conv.weight' in name:
                weight.fill_(0.1)  # no block is empty by chance
    count = complexity(net.switch_to_deploy(), (SIDE, SIDE)).total
    extra = 0
    for stage, (dim, m) in enumerate(zip(DIMS, KERNELS, strict=True)):
        positions = (SIDE // 2 ** (stage + 2)) ** 2
        arms = 2 * -(-m // N) * N * N if decomposed else m * m
        extra += positions * dim * (arms - (2 * m * N if decomposed else m * m) - N * N)
    assert count.macs_dense == count.macs_used == expected_macs(decomposed) + extra


def test_pruned_weights_are_not_counted_as_used() -> None:
    net = SLaK(**SETTINGS, width_factor=1.0)
    (name,) = sparsity.attach_masks(net, r'stages\.0\.0\.large_kernel\.vertical\.conv\.weight')
    mask = torch.ones(8, 1, 15, 5, dtype=torch.bool)
    mask[:, :, :3] = False
    sparsity.set_masks(net, {name: mask})
    count = complexity(net, (SIDE, SIDE)).total
    assert count.parameters - count.parameters_used == 8 * 3 * 5


def test_published_count_of_the_tiny_network() -> None:
    """8.74 G and 50.7 M are published, with the classifier of 1,000,996 parameters."""
    with torch.device('meta'):
        net = SLaK('tiny', output_norm=False)
    count = complexity(net, (224, 224)).total
    assert round((count.parameters + 1_000_996) / 1e6, 1) == 50.7
    assert abs(count.macs_dense / 1e9 - 8.74) < 0.04
