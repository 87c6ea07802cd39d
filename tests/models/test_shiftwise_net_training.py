"""ShiftWiseNet in training: freezing, norm statistics, recomputation, gradients."""

import copy

import pytest
import torch
from model_helpers import SHORT_KERNELS, mini_net, prune_half, relative_error
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from mmsw.models import ShiftWiseNet

VERSIONS = ('v1', 'v2')
# Parameters up to which stage k freezes, by frozen_stages = k.
FROZEN = {
    -1: (),
    0: ('downsample_layers.0.',),
    1: ('downsample_layers.0.', 'stages.0.'),
    2: ('downsample_layers.0.', 'stages.0.', 'downsample_layers.1.', 'stages.1.'),
    4: ('downsample_layers.', 'stages.'),
}


def step(net: ShiftWiseNet, x: Tensor) -> tuple[Tensor, ...]:
    features = net(x)
    sum((feature * torch.cos(feature)).sum() for feature in features).backward()
    return features


@pytest.mark.parametrize('version', VERSIONS)
def test_every_parameter_gets_a_gradient(version) -> None:
    net = mini_net(version=version)
    prune_half(net)
    if version == 'v2':  # new GRN layers are an identity whose scale has no effect on other layers
        for block in (block for stage in net.stages for block in stage):
            nn.init.normal_(block.grn.gamma)
    step(net, torch.randn(2, 3, 64, 64))
    for name, parameter in net.named_parameters():
        assert parameter.grad is not None, name
        assert torch.isfinite(parameter.grad).all(), name
        assert parameter.grad.abs().max() > 0, name
        if '.paths.' in name:
            mask = net.get_submodule(name.removesuffix('.weight')).mask
            assert (parameter.grad[~mask] == 0).all(), name
            assert (parameter.grad[mask] != 0).any(), name


@pytest.mark.parametrize('version', VERSIONS)
@pytest.mark.parametrize('frozen_stages', sorted(FROZEN))
def test_frozen_stages(version, frozen_stages) -> None:
    net = mini_net(version=version, big_kernels=SHORT_KERNELS, frozen_stages=frozen_stages)
    frozen = FROZEN[frozen_stages]
    for _ in range(2):  # at the start, and after a validation in between
        assert net.train() is net
        expected = {n for n, _ in net.named_parameters() if not (frozen and n.startswith(frozen))}
        assert {n for n, p in net.named_parameters() if p.requires_grad} == expected
        net.eval()
    net.train()
    before = {key: tensor.clone() for key, tensor in net.state_dict().items()}
    step(net, torch.randn(2, 3, 64, 64))
    moved = {k for k, t in net.state_dict().items() if not torch.equal(t, before[k])}
    statistics = {
        key
        for key in before
        if key.endswith(('running_mean', 'running_var', 'num_batches_tracked'))
    }
    assert moved == {key for key in statistics if not (frozen and key.startswith(frozen))}
    assert all((p.grad is None) == (not p.requires_grad) for p in net.parameters())


def test_frozen_stages_do_not_drop_paths() -> None:
    net = mini_net(big_kernels=SHORT_KERNELS, frozen_stages=4, drop_path_rate=0.9).train()
    x = torch.randn(2, 3, 64, 64)
    assert all(torch.equal(a, b) for a, b in zip(net(x), net(x), strict=True))


def test_norm_eval() -> None:
    net = mini_net(big_kernels=SHORT_KERNELS, norm_eval=True)
    assert net.train() is net
    norms = [m for m in net.modules() if isinstance(m, _BatchNorm)]
    assert len(norms) == 25
    assert not any(norm.training for norm in norms)
    assert net.stages[0][0].training
    before = {key: tensor.clone() for key, tensor in net.state_dict().items()}
    step(net, torch.randn(2, 3, 64, 64))
    assert all(torch.equal(t, before[key]) for key, t in net.state_dict().items())
    assert all(norm.weight.grad is not None for norm in norms)


@pytest.mark.parametrize('version', VERSIONS)
@pytest.mark.parametrize('momentum', [0.1, None])
@pytest.mark.parametrize('norm', ['BN', 'SyncBN'])
def test_recomputation_equals_plain(version, momentum, norm) -> None:
    """with_cp: same outputs, gradients and statistics to the bit, dropped paths included.

    SyncBN is what every published config has; without a process group it normalises alone.
    """
    plain = mini_net(
        version=version,
        big_kernels=SHORT_KERNELS,
        drop_path_rate=0.5,
        norm_cfg=dict(type=norm, momentum=momentum),
    )
    prune_half(plain)
    saving = copy.deepcopy(plain)
    recomputed = []
    for stage in saving.stages:
        for block in stage:
            block.with_cp = True
            block.shift_wise.paths[0].register_forward_hook(lambda *_: recomputed.append(1))
    outputs = []
    for net in (plain, saving):
        x = torch.randn(4, 3, 64, 64, generator=torch.Generator().manual_seed(5)).requires_grad_()
        for seed in (1, 2):  # twice, for the statistics of later batches
            torch.manual_seed(seed)
            features = step(net, x)
        outputs.append((*features, x.grad))
    assert len(recomputed) == 2 * 2 * 5
    for found, target in zip(*reversed(outputs), strict=True):
        assert torch.equal(found, target)
    for (name, p), q in zip(saving.named_parameters(), plain.parameters(), strict=True):
        assert torch.equal(p.grad, q.grad), name
    for (name, p), q in zip(saving.named_buffers(), plain.buffers(), strict=True):
        assert torch.equal(p, q), name
    counts = {int(b) for n, b in saving.named_buffers() if n.endswith('num_batches_tracked')}
    assert counts == {2}
    norms = [m for m in saving.modules() if isinstance(m, _BatchNorm)]
    assert {norm.momentum for norm in norms} == {momentum}
    assert all(norm.track_running_stats for norm in norms)


def test_recomputation_leaves_norms_without_statistics_alone() -> None:
    net = mini_net(
        big_kernels=SHORT_KERNELS, with_cp=True, norm_cfg=dict(type='BN', track_running_stats=False)
    )
    step(net, torch.randn(2, 3, 64, 64))
    assert not any(m.track_running_stats for m in net.modules() if isinstance(m, _BatchNorm))


def test_with_cp_argument_reaches_the_blocks() -> None:
    net = mini_net(big_kernels=SHORT_KERNELS, with_cp=True)
    calls = []
    net.stages[0][0].shift_wise.paths[0].register_forward_hook(lambda *_: calls.append(1))
    net.eval()
    net(torch.randn(1, 3, 64, 64))
    with torch.no_grad():
        net.train()(torch.randn(2, 3, 64, 64))
    assert len(calls) == 2, 'nothing is recomputed without a backward pass'
    step(net, torch.randn(2, 3, 64, 64))
    assert len(calls) == 4


def test_recomputation_with_frozen_stages() -> None:
    net = mini_net(big_kernels=SHORT_KERNELS, with_cp=True, frozen_stages=2)
    step(net, torch.randn(2, 3, 64, 64))
    trainable = [(n, p) for n, p in net.named_parameters() if p.requires_grad]
    assert all(p.grad is not None for _, p in trainable)


@pytest.mark.parametrize('dtype', [torch.bfloat16, torch.float16])
@pytest.mark.parametrize('version', VERSIONS)
def test_autocast_trains(version, dtype) -> None:
    net = mini_net(version=version, big_kernels=SHORT_KERNELS)
    with torch.autocast('cpu', dtype):
        features = net(torch.randn(2, 3, 64, 64))
        sum(feature.float().square().mean() for feature in features).backward()
    for name, parameter in net.named_parameters():
        assert parameter.grad.dtype == torch.float32, name
        assert torch.isfinite(parameter.grad).all(), name


@pytest.mark.parametrize('version', VERSIONS)
def test_autocast_features(version) -> None:
    net = mini_net(version=version, big_kernels=SHORT_KERNELS).eval()
    x = torch.randn(1, 3, 64, 64)
    with torch.no_grad():
        expected = net(x)
        with torch.autocast('cpu', torch.bfloat16):
            found = net(x)
    for out, target in zip(found, expected, strict=True):
        assert relative_error(out.float(), target) < 0.1


def test_compiled_network_equals_plain() -> None:
    torch.compiler.reset()
    arch = dict(depths=[1, 1, 1, 1], dims=[8, 8, 8, 8])
    net = mini_net(arch=arch, big_kernels=SHORT_KERNELS).eval()
    x = torch.randn(1, 3, 64, 64)
    with torch.no_grad():
        compiled = torch.compile(net, fullgraph=True, backend='eager')(x)
        for out, target in zip(compiled, net(x), strict=True):
            assert relative_error(out, target) < 1e-5


def test_every_module_takes_hooks_on_its_backward_pass() -> None:
    """One that works in place would refuse them."""
    net = mini_net()
    called = set()
    for name, module in net.named_modules():
        module.register_full_backward_hook(lambda *_, name=name: called.add(name))
    step(net, torch.randn(2, 3, 64, 64))
    assert any(name.endswith('.act') for name in called)
