"""Blocks that run fused in training, against their layers one by one."""

from __future__ import annotations

import copy

import pytest
import torch
from model_helpers import mini_net, prune_half, randomise_batch_norms, relative_error
from torch import Tensor, nn
from torch.nn.utils import parametrize

from mmsw.models import ShiftWiseNet
from mmsw.models.backbones import fused_block
from mmsw.models.backbones.shiftwise_block import ShiftWiseBlock, ShiftWiseBlockV2
from mmsw.ops.backends import cpp_backend, use_backend

VERSIONS = ('v1', 'v2')
KERNELS = (9, 7, 7, 5)
ARCH = dict(depths=[1, 1, 1, 1], dims=[16, 24, 32, 40])
needs_cpp = pytest.mark.skipif(
    cpp_backend.unavailable_reason() is not None,
    reason=f'cpp: {cpp_backend.unavailable_reason()}',
)


def trained_net(version: str, **kwargs) -> ShiftWiseNet:
    torch.manual_seed(3)
    net = mini_net(version=version, arch=ARCH, big_kernels=KERNELS, **kwargs)
    if kwargs.get('norm_cfg') is None:
        randomise_batch_norms(net)
    for name, parameter in net.named_parameters():
        if 'grn' in name or name.endswith('.norm.bias'):
            nn.init.normal_(parameter, std=0.5)
    prune_half(net)
    return net.train()


def blocks(net: nn.Module) -> list[ShiftWiseBlock]:
    return [block for block in net.modules() if isinstance(block, ShiftWiseBlock)]


def unfused(net: ShiftWiseNet) -> ShiftWiseNet:
    net = copy.deepcopy(net)
    for block in blocks(net):
        block.fused = False
    return net


def weighted(map_: Tensor) -> Tensor:
    """A loss; the square of a layer-normalised map hardly depends on anything."""
    drawn = torch.randn(map_.shape, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    return (map_ * drawn).sum()


def step(net: ShiftWiseNet, x: Tensor, seed: int = 0) -> dict[str, Tensor]:
    """Maps, gradients and buffers of a training step, by name."""
    torch.manual_seed(seed)
    dtype = next(net.parameters()).dtype
    x = x.detach().to(dtype, copy=True).requires_grad_()
    maps = net(x)
    sum(map(weighted, maps)).backward()
    found = {f'map {i}': map_.detach() for i, map_ in enumerate(maps)}
    found |= {f'grad {n}': p.grad for n, p in net.named_parameters() if p.grad is not None}
    found |= {n: b.clone() for n, b in net.named_buffers()}
    net.zero_grad()
    return found | {'grad x': x.grad}


def both_ways(net: ShiftWiseNet, x: Tensor, *seeds: int) -> list[dict[str, Tensor]]:
    """The last of some steps, fused and by the layers, each from the state that the network has.

    Copies of a network would cost more than its steps.
    """
    state = copy.deepcopy(net.state_dict())
    found = []
    for fused in (True, False):
        net.load_state_dict(state)
        for block in blocks(net):
            block.fused = fused
        found.append([step(net, x, seed) for seed in seeds or (0,)][-1])
    return found


def assert_same(found: dict[str, Tensor], expected: dict[str, Tensor], bound: float) -> None:
    assert found.keys() == expected.keys()
    grads = [grad.abs().max().item() for name, grad in expected.items() if 'grad' in name]
    for name, tensor in found.items():
        other = expected[name]
        assert tensor.dtype == other.dtype, name
        if not tensor.is_floating_point():
            assert torch.equal(tensor, other), name
        elif tensor.numel():
            least = 1e-30
            if name.startswith('grad') and name.endswith(
                ('grn.beta', '_h.bias', '_v.bias', '_i.bias')
            ):
                least = 0.1 * max(grads)  # behind them, a norm takes out what they add: zero, or so
            scale = max(other.abs().max().item(), least)
            assert (tensor - other).abs().max().item() < bound * scale, name


@pytest.fixture(autouse=True)
def sums_for_small_maps(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(fused_block, 'LEAST_VALUES', 0)


def test_small_maps_take_the_layers(x: Tensor, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.undo()
    net = trained_net('v2')
    calls = calls_of(net, monkeypatch)
    net(x.float())
    assert calls == ['hidden_layer'] * 4


@pytest.fixture
def x() -> Tensor:
    return torch.randn(3, 3, 66, 43, generator=torch.Generator().manual_seed(7)).double()


SETTINGS = {
    'plain': {},
    'dropped paths': dict(drop_path_rate=0.5),
    'no layer scale': dict(layer_scale_init_value=0),
    'statistics frozen': dict(norm_eval=True),
    'stages frozen': dict(frozen_stages=2),
    'cumulative average': dict(norm_cfg=dict(type='BN', momentum=None)),
    'no affine': dict(norm_cfg=dict(type='BN', affine=False)),
    'no statistics': dict(norm_cfg=dict(type='BN', track_running_stats=False)),
    'SyncBN alone': dict(norm_cfg=dict(type='SyncBN')),
    'group norm': dict(norm_cfg=dict(type='GN', num_groups=1)),
    'no ghosts': dict(ghost_ratio=0.0),
}


@pytest.mark.parametrize('setting', SETTINGS)
@pytest.mark.parametrize('version', VERSIONS)
def test_step_equals_that_of_the_layers(version: str, setting: str, x: Tensor) -> None:
    net = trained_net(version, **SETTINGS[setting])
    state = copy.deepcopy(net.state_dict())
    # twice, for the statistics of later batches
    for dtype, bound, seeds in ((torch.float64, 1e-9, (1, 2)), (torch.float32, 1e-3, (1,))):
        net.to(dtype).load_state_dict(state)
        assert_same(*both_ways(net, x, *seeds), bound)


def calls_of(net: ShiftWiseNet, monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """What of the fused form runs from now on."""
    calls: list[str] = []
    for name in ('rows_of', 'hidden_layer'):
        real = getattr(fused_block, name)
        monkeypatch.setattr(
            fused_block,
            name,
            lambda *args, name=name, real=real, **kwargs: [
                calls.append(name),
                real(*args, **kwargs),
            ][1],
        )
    return calls


@needs_cpp
@pytest.mark.parametrize(
    ('version', 'setting', 'sums'),
    [('v1', 'plain', 1), ('v2', 'plain', 2), ('v2', 'SyncBN alone', 2), ('v2', 'group norm', 0)],
)
def test_what_runs_fused(version: str, setting: str, sums: int, x: Tensor, monkeypatch) -> None:
    """Sums of rows need batch norms, the hidden layer does not; in evaluation layers are called."""
    net = trained_net(version, **SETTINGS[setting])
    calls = calls_of(net, monkeypatch)
    net(x.float())
    assert calls.count('hidden_layer') == len(blocks(net)) == 4
    assert calls.count('rows_of') == 4 * sums
    calls.clear()
    net.eval()(x.float())
    with use_backend('torch'):
        net.train()(x.float())
        assert calls == ['hidden_layer'] * 4
    calls.clear()
    for block in blocks(net):
        block.fused = False
    net(x.float())
    assert not calls


def test_arguments_reach_the_blocks() -> None:
    net = mini_net(fused=False, recompute=True)
    assert {(block.fused, block.recompute) for block in blocks(net)} == {(False, True)}
    assert {(block.fused, block.recompute) for block in blocks(mini_net())} == {(True, False)}


@pytest.mark.parametrize('version', VERSIONS)
def test_recomputation_is_exact_and_keeps_less(version: str, x: Tensor) -> None:
    """Bytes that the graph keeps for the backward pass: each storage once, without parameters."""
    net = trained_net(version)
    recomputing = copy.deepcopy(net)
    for block in blocks(recomputing):
        block.recompute = True
    found, expected = step(recomputing, x), step(net, x)
    assert all(torch.equal(found[name], tensor) for name, tensor in expected.items())
    x = torch.randn(2, 3, 160, 160)
    plain, fused, recomputed = (bytes_kept(one, x) for one in (unfused(net), net, recomputing))
    assert recomputed < 0.76 * plain
    assert recomputed < 0.9 * fused < 0.9 * plain


def bytes_kept(net: ShiftWiseNet, x: Tensor) -> int:
    own = {t.untyped_storage().data_ptr() for t in [*net.parameters(), *net.buffers()]}
    storages = {}

    def keep(tensor: Tensor) -> Tensor:
        storage = tensor.untyped_storage()
        if storage.data_ptr() not in own:
            storages[storage.data_ptr()] = storage.nbytes()
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
        maps = net(x.float())
        return sum(storages.values()) if maps else 0


def test_a_hook_on_a_layer_is_called(x: Tensor) -> None:
    net = trained_net('v2').double()
    block = net.stages[1][0]
    expected = net(x)[3]
    for name in (
        *('shift_wise', 'shift_wise.norm_v', 'norm', 'se.up'),
        *('pointwise_conv1', 'act', 'grn', 'norm2'),
    ):
        seen: list[str] = []
        hook = block.get_submodule(name).register_forward_hook(
            lambda *_, seen=seen, name=name: seen.append(name)
        )
        assert relative_error(net(x)[3], expected) < 1e-12, name
        assert seen == [name]
        hook.remove()


def test_a_layer_of_another_kind_is_called(x: Tensor) -> None:
    class Halved(nn.Linear):
        def forward(self, x: Tensor) -> Tensor:
            return super().forward(x) / 2

    class Half(nn.Module):
        def forward(self, weight: Tensor) -> Tensor:
            return weight / 2

    net = trained_net('v2').double()
    changed, parametrised = copy.deepcopy(net), copy.deepcopy(net)
    changed.stages[2][0].pointwise_conv2.__class__ = Halved
    parametrize.register_parametrization(
        parametrised.stages[2][0].pointwise_conv2, 'weight', Half()
    )
    with torch.no_grad():
        net.stages[2][0].pointwise_conv2.weight.mul_(0.5)
    expected = step(net, x)
    for other in (changed, parametrised):
        assert relative_error(step(other, x)['map 3'], expected['map 3']) < 1e-12


@pytest.mark.parametrize('version', VERSIONS)
def test_without_gradients_the_same_bits(version: str, x: Tensor) -> None:
    """Reentrant checkpoints run a part without gradients first, and compute it anew with them."""
    net = trained_net(version)
    again = copy.deepcopy(net)
    with torch.no_grad():
        maps = again(x.float())
    for found, expected in zip(maps, net(x.float()), strict=True):
        assert torch.equal(found, expected)


@pytest.mark.parametrize('version', VERSIONS)
def test_gradients_of_gradients(version: str) -> None:
    """Penalties on gradients differentiate a second time."""
    net = trained_net(version).double()
    found = []
    for one in (net, unfused(net)):
        x = torch.randn(2, 3, 40, 33, generator=torch.Generator().manual_seed(2)).double()
        x.requires_grad_()
        out = weighted(one(x)[2])
        (grad,) = torch.autograd.grad(out, x, create_graph=True)
        weight = one.stages[1][0].pointwise_conv1.weight
        found.append(torch.autograd.grad(grad.square().sum(), [x, weight]))
    for ours, exact in zip(*found, strict=True):
        assert relative_error(ours, exact) < 1e-9


@pytest.mark.parametrize('dtype', [torch.bfloat16, torch.float16])
@pytest.mark.parametrize('version', VERSIONS)
def test_mixed_precision(version: str, dtype: torch.dtype, x: Tensor) -> None:
    """As near to the exact step as the layers, of their types; pruned weights stay at zero."""
    net = trained_net(version, norm_cfg=dict(type='BN'))
    layers = unfused(net)
    exact = step(copy.deepcopy(layers).double(), x)
    errors = []
    for one in (net, layers):
        with torch.autocast('cpu', dtype):
            found = step(one, x)
        errors.append(
            {
                name: relative_error(found[name].double(), exact[name])
                for name in exact
                if 'map' in name
            }
        )
        errors[-1]['types'] = {name: tensor.dtype for name, tensor in found.items()}
        for name, grad in found.items():
            if name.endswith(('paths.0.weight', 'paths.1.weight')):
                mask = dict(one.named_buffers())[
                    name.removeprefix('grad ').replace('weight', 'mask')
                ]
                assert (grad[~mask] == 0).all()
    assert errors[0].pop('types') == errors[1].pop('types')
    assert all(error < 1.5 * errors[1][name] + 1e-3 for name, error in errors[0].items())


def test_channels_last_and_single_positions(x: Tensor) -> None:
    net = trained_net('v2').double()
    expected = step(copy.deepcopy(net), x)
    found = step(net.to(memory_format=torch.channels_last), x.to(memory_format=torch.channels_last))
    assert_same(found, expected, 1e-9)
    small = x[:, :, :17, :9]  # one position in the last stage
    assert_same(*both_ways(net, small), 1e-10)
    with pytest.raises(ValueError, match='more than 1 value per channel'):
        net(small[:1])


def test_one_map_at_a_time(x: Tensor) -> None:
    """Gradients of some parameters alone, and twice from one graph."""
    net = trained_net('v2').double()
    found = []
    for one in (net, unfused(net)):
        named = dict(one.named_parameters())
        weights = [named['stages.1.0.se.up.weight'], named['stages.0.0.shift_wise.norm_h.weight']]
        maps = one(x)
        first = torch.autograd.grad(weighted(maps[3]), weights, retain_graph=True)
        found.append([*first, *torch.autograd.grad(weighted(maps[1]), weights)])
    for ours, exact in zip(*found, strict=True):
        assert relative_error(ours, exact) < 1e-10


class Twice(ShiftWiseBlockV2):
    def branch(self, x: Tensor) -> Tensor:
        return 2 * super().branch(x)


class Shifted(nn.Module):
    """Has what a layer norm has, and is none."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.weight, self.bias = (nn.Parameter(torch.rand(channels)) for _ in range(2))
        self.eps, self.normalized_shape = 1e-6, (channels,)

    def forward(self, x: Tensor) -> Tensor:
        return x * self.weight + self.bias


def own_forward(layer: nn.Module) -> None:
    before = layer.forward
    layer.forward = lambda x: 1.5 * before(x)


def without_bias(block: ShiftWiseBlock) -> None:
    for name in ('pointwise_conv1', 'pointwise_conv2', 'se.down', 'se.up'):
        block.get_submodule(name).register_parameter('bias', None)


CHANGES = {
    'subclass': ('v2', lambda block: setattr(block, '__class__', Twice)),
    'drop path': ('v2', lambda block: setattr(block, 'drop_path', nn.Dropout2d(0.5))),
    'norm of v1': ('v1', lambda block: setattr(block, 'norm', Shifted(24))),
    'RMS norm': ('v1', lambda block: setattr(block, 'norm', nn.RMSNorm(24))),
    'own forward': ('v2', lambda block: own_forward(block.norm2)),
    'own forward of v1': ('v1', lambda block: own_forward(block.act)),
    'no bias': ('v2', without_bias),
    'no bias behind': ('v1', lambda b: b.pointwise_conv2.register_parameter('bias', None)),
    'not counted': ('v2', lambda block: setattr(block.norm, 'num_batches_tracked', None)),
    'norm in evaluation': ('v2', lambda block: block.shift_wise.norm_v.eval()),
}


@pytest.mark.parametrize('change', CHANGES)
def test_changed_blocks_run_as_they_are(change: str, x: Tensor) -> None:
    version, apply = CHANGES[change]
    net = trained_net(version)
    apply(net.stages[1][0])
    net.double()
    assert_same(*both_ways(net, x), 1e-9)


def test_global_hooks_see_every_layer(x: Tensor) -> None:
    net = trained_net('v2')
    counts = []
    for one in (net, unfused(net)):
        seen: list[str] = []
        handle = nn.modules.module.register_module_forward_hook(
            lambda layer, *_, seen=seen: seen.append(type(layer).__name__)
        )
        one(x.float())
        handle.remove()
        counts.append(sorted(seen))
    assert counts[0] == counts[1]


def test_a_map_of_another_width_is_refused() -> None:
    block = trained_net('v2').stages[0][0]
    with pytest.raises((RuntimeError, IndexError)):
        block(torch.randn(2, 17, 9, 9))


@pytest.mark.parametrize('version', VERSIONS)
def test_batched_gradients(version: str) -> None:
    block = trained_net(version).stages[0][0].double()
    x = torch.randn(2, 16, 5, 4, dtype=torch.float64, requires_grad=True)
    out = block(x)
    grads = torch.randn(3, *out.shape, dtype=torch.float64)
    (found,) = torch.autograd.grad(out, x, grads, is_grads_batched=True, retain_graph=True)
    for one, grad in zip(found, grads, strict=True):
        (expected,) = torch.autograd.grad(out, x, grad, retain_graph=True)
        assert relative_error(one, expected) < 1e-9
