"""Counting parameters and multiply-adds of modules, by hand and by brute force."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

from mmsw.analysis.complexity import Cost, complexity
from mmsw.analysis.complexity.operator_work import layer_work, used_blocks
from mmsw.models import ShiftWiseConv2d, ShiftWiseNet
from mmsw.ops import ShiftPattern
from mmsw.ops.assemble import assemble
from mmsw.ops.work import cross_taps
from mmsw.sparsity import magnitude_masks, masked_layers, set_masks


class Functional(nn.Module):
    """Products that no module of a list of known ones would show."""

    def __init__(self) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.zeros(5, 3))
        self.attention = nn.MultiheadAttention(4, 2, batch_first=True)

    def forward(self, x: Tensor) -> Tensor:
        tokens = torch.einsum('bchw,dc->bhwd', x, self.weight)[..., :4].flatten(1, 2)
        return self.attention(tokens, tokens, tokens)[0]


class DataDependent(nn.Module):
    """Cannot run without data."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(3, 2, 1)

    def forward(self, x: Tensor) -> Tensor:
        return self.conv(x)[x[:, :2] > 0].sum() + float(x.sum())


class Stages(ShiftWiseNet):
    """A small network of any version, patterns and numbers of paths."""

    def __init__(self, **settings) -> None:
        settings = dict(big_kernels=(13, 11, 9, 7)) | settings
        super().__init__(dict(depths=[1, 1, 2, 1], dims=[8, 12, 16, 24]), **settings)


def prune(net: nn.Module, share: float, whole: bool = True) -> None:
    """Random masks over whole small kernels, or over single weights."""
    for _, path in masked_layers(net):
        shape = (path.mask.shape[0], 1, 1, 1) if whole else path.mask.shape
        path.set_mask(torch.rand(shape) >= share)


def blocks_of_assembled_arms(layer: ShiftWiseConv2d) -> int:
    """Blocks that are not all zero in the kernels that the operator convolves with."""
    pattern = layer.pattern
    big, n, groups = pattern.big_kernel, pattern.small_kernel, pattern.num_groups
    merged = sum(path.mask * torch.rand(path.mask.shape) for path in layer.paths)
    wide, tall, small = assemble(merged, pattern.tables())
    count = int((small != 0).flatten(1).any(1).sum())
    for arm in (wide, tall):
        first = arm.shape[1] // 2 - big // 2
        slots = arm[:, first : first + groups * n]
        assert torch.count_nonzero(slots) == torch.count_nonzero(arm)
        count += int((slots != 0).reshape(layer.num_active, groups, -1).any(2).sum())
    return count


def test_counts_by_hand() -> None:
    net = nn.Sequential(
        nn.Conv2d(3, 8, 3, stride=2, padding=1),
        nn.BatchNorm2d(8),
        nn.ReLU(),
        nn.Conv2d(8, 8, 5, padding=2, groups=4, bias=False),
        nn.ConvTranspose2d(8, 6, 2, stride=2),
        nn.AdaptiveAvgPool2d(1),
        nn.Flatten(),
        nn.Linear(6, 10),
    )
    net[7].bias.requires_grad_(False)
    result = complexity(net, (10, 14))
    first, grouped, transposed = 5 * 7 * 8 * 27, 5 * 7 * 8 * 2 * 25, 5 * 7 * 8 * 6 * 4
    assert result.total.macs_dense == first + grouped + transposed + 60
    assert result.parts['3'] == Cost(400, 400, 400, grouped, grouped, grouped, grouped)
    assert (result.parameters, result.total.trainable) == (224 + 16 + 400 + 198 + 70, 908 - 10)
    # as mmcv 1.x counts: biases, norms, activations and pooling too, a linear layer's bias not
    deconv_bias = 6 * 10 * 10
    extra = 5 * 7 * 8 + 2 * 5 * 7 * 8 + 5 * 7 * 8 + deconv_bias + 6 * 10 * 14
    assert result.total.release_count == result.total.macs_dense + extra
    assert (result.shape, result.proposals, result.not_run) == ((3, 10, 14), None, ())


def test_products_of_functions_count() -> None:
    result = complexity(Functional(), (6, 7))
    tokens = 42
    projections, attention = 4 * tokens * 4 * 4, 2 * tokens * tokens * 4
    assert result.macs_dense == tokens * 3 * 5 + projections + attention


def test_deformable_convolution_counts_as_a_convolution() -> None:
    from mmcv.ops import DeformConv2dPack

    result = complexity(DeformConv2dPack(3, 4, 3, padding=1), (5, 6))
    assert result.macs_dense == 30 * 27 * (18 + 4)  # its offsets, then itself
    assert result.total.release_count == 30 * (27 * 18 + 18)


def test_shared_parameters_and_repeated_calls() -> None:
    conv = nn.Conv2d(4, 4, 3, padding=1, bias=False)
    other = nn.Conv2d(4, 4, 3, padding=1, bias=False)
    other.weight = conv.weight
    result = complexity(nn.Sequential(conv, conv, other), (4, 5, 6))
    assert (result.parameters, result.macs_dense) == (144, 3 * 30 * 144)


def test_nothing_is_computed_and_the_network_stays_as_it_was() -> None:
    net = Stages(frozen_stages=1)
    net.train()
    modes = [module.training for module in net.modules()]
    state = {name: tensor.clone() for name, tensor in net.state_dict().items()}
    side = 2**17  # one map would take hundreds of GiB
    result = complexity(net, (side, side))
    assert result.macs_dense > 1e12
    assert result.total.trainable < result.parameters
    assert modes == [module.training for module in net.modules()]
    assert all(torch.equal(state[name], tensor) for name, tensor in net.state_dict().items())
    hooks = [(module._forward_hooks, module._forward_pre_hooks) for module in net.modules()]
    assert not any(hook for pair in hooks for hook in pair)


def test_what_needs_data_runs_for_real() -> None:
    assert complexity(DataDependent(), (5, 6)).macs_dense == 30 * 6


@pytest.mark.parametrize('big', [3, 7, 9, 13])
def test_cross_taps(big: int) -> None:
    groups = -(-big // 3)
    assert cross_taps(big, 3) == (2 * groups + 1) * 9
    assert 0 <= cross_taps(big, 3, whole_arms=True) - cross_taps(big, 3) <= 2 * 3 * 2


@pytest.mark.parametrize('whole', [True, False])
@pytest.mark.parametrize(
    ('big', 'small', 'num_reps', 'num_paths', 'ghost_ratio', 'version'),
    [
        (13, 3, 1, 1, 0.0, 'v2'),
        (13, 3, 4, 2, 0.23, 'v2'),
        (11, 5, 2, 3, 0.5, 'v1'),
        (7, 7, 3, 1, 0.0, 'v1'),
        (51, 3, 4, 2, 0.23, 'v2'),
    ],
)
def test_used_blocks_are_those_of_the_assembled_arms(
    big: int, small: int, num_reps: int, num_paths: int, ghost_ratio: float, version: str,
    whole: bool,
) -> None:  # fmt: skip
    for share in (0.0, 0.5, 0.9, 0.99):
        layer = ShiftWiseConv2d(
            10, 10, big, small, ghost_ratio, num_paths, num_reps, version, norm_cfg=dict(type='BN')
        )
        prune(layer, share, whole)
        cost = complexity(layer, (10, 4, 6)).modules['']
        positions, groups = 4 * 6, -(-big // small)
        assert cost.macs_used == positions * small**2 * blocks_of_assembled_arms(layer)
        assert cost.macs_dense == positions * layer.num_active * cross_taps(big, small)
        border = 2 * (small - 1 - small // 2)
        filters = num_paths * layer.num_active * groups
        assert cost.macs_naive == filters * small**2 * (4 + border) * (6 + border)
        assert cost.release_count == cost.macs_naive
        if share == 0:
            assert cost.macs_used == cost.macs_dense


def test_one_filter_left() -> None:
    layer = ShiftWiseConv2d(4, 4, 13, ghost_ratio=0.0, num_paths=2, num_reps=1)
    for keep in range(4 * 5):
        mask = torch.zeros(20, 1, 1, 1, dtype=torch.bool)
        layer.paths[0].set_mask(mask)
        mask[keep] = True
        layer.paths[1].set_mask(mask)
        result = complexity(layer, (4, 6, 6))
        is_identity = bool((layer.pattern.identity_index == keep).any())
        assert result.macs_used == 36 * 9 * (2 + is_identity)
        assert result.parameters_used == result.parameters - 39 * 9
    layer.paths[1].set_mask(torch.zeros(20, 1, 1, 1, dtype=torch.bool))
    assert complexity(layer, (4, 6, 6)).macs_used == 0


def test_repetitions_fill_the_gaps() -> None:
    keep = torch.arange(8 * 17) % 2 == 0
    one, eight = (ShiftPattern.draw(51, 3, 8, num_reps) for num_reps in (1, 8))
    few, many = used_blocks(keep, one), used_blocks(keep, eight)
    assert few == 2 * int(keep.sum()) + int(keep[one.identity_index].sum())
    assert 1.8 * few < many <= 8 * 35


@pytest.mark.slow
@pytest.mark.parametrize(
    ('num_reps', 'num_paths', 'percent'),
    [
        pytest.param(4, 2, [99.9, 92, 53], marks=pytest.mark.ci),
        (4, 1, [98, 72, 32]),
        (1, 2, [91, 51, 19]),
        (1, 1, [70, 30, 10]),
    ],
)
def test_what_pruning_saves_in_the_operator(
    num_reps: int, num_paths: int, percent: list[float]
) -> None:
    """The table of docs/complexity.md."""
    net = ShiftWiseNet(num_reps=num_reps, num_paths=num_paths)
    found = []
    for sparsity in (0.3, 0.7, 0.9):
        set_masks(net, magnitude_masks(net, sparsity))
        modules = complexity(net, (512, 2048)).modules
        layers = [cost for name, cost in modules.items() if name.endswith('.shift_wise')]
        dense, used = (sum(getattr(c, f) for c in layers) for f in ('macs_dense', 'macs_used'))
        found.append(100 * used / dense)
    assert found == pytest.approx(percent, abs=0.6)


@pytest.mark.parametrize('version', ['v1', 'v2'])
def test_networks_dense_sparse_and_folded(version: str) -> None:
    net = Stages(version=version)
    dense = complexity(net, (64, 96))
    assert dense.parameters == dense.parameters_used == sum(p.numel() for p in net.parameters())
    assert dense.macs_used == dense.macs_dense
    assert set(dense.parts) >= {'downsample_layers', 'stages', 'norm0'}
    assert sum(dense.parts.values(), Cost()) == dense.total

    set_masks(net, magnitude_masks(net, 0.7))
    sparse = complexity(net, (64, 96))
    pruned = sum(int((~path.mask).sum()) for _, path in masked_layers(net))
    assert sparse.parameters_used == dense.parameters - pruned
    assert sparse.macs_used < sparse.macs_dense == dense.macs_dense
    assert sparse.total.macs_naive == dense.total.macs_naive

    operator = sum(
        cost.macs_dense for name, cost in dense.modules.items() if name.endswith('.shift_wise')
    )
    net.switch_to_deploy()
    folded = complexity(net, (64, 96))
    sizes = [(16, 24), (8, 12), (4, 6), (2, 3)]
    blocks = [(b, size) for stage, size in zip(net.stages, sizes, strict=True) for b in stage]
    arms = sum(buffer.numel() for buffer in net.buffers())
    assert folded.parameters == sum(p.numel() for p in net.parameters()) + arms
    work = [layer_work(block, 1, *size) for block, size in blocks]
    assert folded.macs_dense - sum(dense for dense, _, _ in work) == dense.macs_dense - operator
    assert folded.macs_dense - folded.macs_used == sum(dense - used for dense, used, _ in work) > 0
    assert folded.parameters_used < folded.parameters


def test_stages_that_are_not_built_cost_nothing() -> None:
    whole, net = complexity(Stages(), (64, 96)), Stages(out_indices=(0, 1, 2))
    found = complexity(net, (64, 96))
    assert found.parameters == sum(p.numel() for p in net.parameters()) < whole.parameters
    assert not found.not_run
    assert found.modules == {name: whole.modules[name] for name in found.modules}
    assert not [name for name in found.modules if 'stages.3' in name or 'layers.3' in name]


def test_folded_dense_network_uses_every_block() -> None:
    net = Stages(big_kernels=(13, 11, 9, 7))
    net.switch_to_deploy()
    result = complexity(net, (64, 64))
    assert result.macs_used == result.macs_dense


@pytest.mark.parametrize(
    ('shape', 'message'),
    [((0, 8), 'all positive'), ((8,), 'shape must be'), ((3.0, 8, 8), r'got \(3\.0, 8, 8\)')],
)
def test_bad_shapes(shape: tuple, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        complexity(nn.Identity(), shape)
    with pytest.raises(ValueError, match='expected 1 or more proposals'):
        complexity(nn.Identity(), (8, 8), proposals=5, mask_proposals=6)
