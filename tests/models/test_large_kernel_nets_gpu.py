"""SLaK, operator variants and converted networks on a GPU, and what runs around them there."""

import copy

import numpy as np
import pytest
import torch
from large_kernel_nets import ConvNextLike, RepLkLike, SlakLike
from model_helpers import (
    MINI,
    SHORT_KERNELS,
    loss_of,
    mini_net,
    prune_half,
    randomise_batch_norms,
    relative_error,
)
from torch import Tensor, nn

from mmsw.models import ShiftWiseConv2d, ShiftWiseNet, SLaK, convert_large_kernels
from mmsw.ops import use_backend
from mmsw.ops.backends import cuda_backend
from mmsw.sparsity import attach_masks, masks
from mmsw.sparsity.layer_masks import set_masks

if (reason := cuda_backend.unavailable_reason()) is not None:
    pytest.skip(f'cuda: {reason}', allow_module_level=True)

VARIANTS = [
    dict(padding='same'),
    dict(branch_weights=True),
    dict(position=True),
    dict(identity='blur'),
    dict(padding='same', branch_weights=True, position=True, identity='blur'),
]
FORMS = pytest.mark.parametrize('decomposed', [True, False], ids=['decomposed', 'square'])


@pytest.fixture(autouse=True)
def _plain_float32() -> None:
    """Products of PyTorch round to 10 bits otherwise, which hides errors of others."""
    torch.backends.cudnn.allow_tf32 = False
    torch.backends.cuda.matmul.allow_tf32 = False


def slak(**settings) -> SLaK:
    settings = dict(arch=MINI, width_factor=1.0, layer_scale_init_value=1.0) | settings
    return SLaK(**dict(big_kernels=(21, 13, 9, 5)) | settings)


def assert_step_as_on_the_cpu(net: nn.Module, x: Tensor) -> None:
    """Gradients of a float32 step on the GPU against those in float64 on the CPU."""
    net = net.double()
    on_gpu = copy.deepcopy(net).float().cuda()
    with use_backend('torch'):
        loss_of(net(x.double())).backward()
    with use_backend('cuda'):
        loss_of(on_gpu(x.cuda())).backward()
    # Some gradients are zero but for rounding: a norm takes away what the one before it adds.
    small = 1e-3 * max(p.grad.abs().max() for p in net.parameters() if p.grad is not None)
    for (name, found), expected in zip(on_gpu.named_parameters(), net.parameters(), strict=True):
        if expected.grad is None:
            assert found.grad is None, name
            continue
        error = (found.grad.cpu() - expected.grad).abs().max()
        assert error < 5e-4 * expected.grad.abs().max().clamp_min(small), name


@pytest.mark.parametrize('deployed', [False, True])
@pytest.mark.parametrize('shift_wise', [False, True], ids=['plain', 'shift-wise'])
def test_golden_features(shift_wise, deployed, data_dir) -> None:
    start = dict(type='Pretrained', checkpoint=str(data_dir / 'backbone_slak_mini_checkpoint.pth'))
    net = SLaK(MINI, width_factor=1.0, shift_wise=shift_wise, init_cfg=start)
    net.init_weights()
    net.eval().cuda()
    if deployed:
        net.switch_to_deploy()
    golden = np.load(data_dir / 'backbone_slak_mini_io.npz')
    with torch.no_grad(), use_backend('cuda'):
        features = net(torch.from_numpy(golden['image']).cuda())
    for index, feature in enumerate(features):
        expected = torch.from_numpy(golden[f'feature{index}'])
        assert relative_error(feature.cpu(), expected) < 2e-5, index


@FORMS
@pytest.mark.parametrize('settings', [{}, {'with_cp': True}], ids=str)
@pytest.mark.parametrize('shift_wise', [False, True], ids=['plain', 'shift-wise'])
def test_a_step_of_slak(shift_wise, settings, decomposed) -> None:
    net = slak(shift_wise=shift_wise, decomposed=decomposed, drop_path_rate=0.0, **settings)
    randomise_batch_norms(net)
    assert_step_as_on_the_cpu(net.train(), torch.randn(2, 3, 70, 64))


@FORMS
@pytest.mark.parametrize('size', [(64, 64), (70, 33), (20, 7)], ids=str)
def test_shift_wise_is_the_same_network(size, decomposed) -> None:
    plain = slak(decomposed=decomposed).cuda().double().eval()
    randomise_batch_norms(plain)
    shifted = slak(decomposed=decomposed, shift_wise=True).cuda().double().eval()
    shifted.load_state_dict(plain.state_dict())
    image = torch.randn(2, 3, *size, device='cuda', dtype=torch.float64)
    with torch.no_grad(), use_backend('cuda'):
        for found, expected in zip(shifted(image), plain(image), strict=True):
            assert relative_error(found, expected) < 1e-11


@pytest.mark.parametrize(
    ('build', 'smallest'), [(SlakLike, 9), (RepLkLike, 9), (ConvNextLike, 7)], ids=str
)
def test_converted_networks_take_the_same_step(build, smallest) -> None:
    net = build().double()
    report = convert_large_kernels(net, smallest)
    assert report.replaced
    assert_step_as_on_the_cpu(net, torch.randn(2, 3, 56, 64))


@pytest.mark.parametrize('options', VARIANTS, ids=str)
@pytest.mark.parametrize('version', ['v1', 'v2'])
def test_a_step_of_operator_variants(version, options) -> None:
    net = mini_net(version=version, small_kernel=3, big_kernels=(31, 13, 13, 13), **options)
    with torch.no_grad():
        for name, parameter in net.named_parameters():
            if '.variant.' in name:
                parameter.normal_()
    prune_half(net)
    assert_step_as_on_the_cpu(net.train(), torch.randn(2, 3, 64, 64))


@pytest.mark.parametrize('options', VARIANTS, ids=str)
def test_folded_operator_variants(options) -> None:
    layer = ShiftWiseConv2d(8, 8, 31, **options)
    with torch.no_grad():
        for parameter in layer.parameters():
            parameter.normal_()
    prune_half(layer)
    randomise_batch_norms(layer)
    x = torch.randn(2, 8, 40, 35)
    with torch.no_grad():
        exact = copy.deepcopy(layer).double().eval()
        with use_backend('torch'):
            expected = exact(x.double())
        layer.cuda().eval()
        with use_backend('cuda'):
            assert relative_error(layer(x.cuda()).cpu().double(), expected) < 1e-5
            layer.switch_to_deploy()
            assert relative_error(layer(x.cuda()).cpu().double(), expected) < 1e-5


@pytest.mark.parametrize('dtype', [torch.float16, torch.bfloat16], ids=str)
@pytest.mark.parametrize('shift_wise', [False, True], ids=['plain', 'shift-wise'])
def test_mixed_precision_trains_slak_and_keeps_its_zeros(shift_wise, dtype) -> None:
    net = slak(shift_wise=shift_wise, big_kernels=SHORT_KERNELS, drop_path_rate=0.0).cuda()
    layers = [name.removesuffix('.weight') for name in attach_masks(net, r'\.conv\.weight$')]
    chosen = masks(net)
    set_masks(net, {name: torch.rand_like(chosen[name].float()) < 0.5 for name in layers})
    optimizer = torch.optim.AdamW(net.parameters(), lr=1e-3)
    scaler = torch.amp.GradScaler('cuda', enabled=dtype == torch.float16)
    x, losses = torch.randn(2, 3, 64, 64, device='cuda'), []
    for _ in range(8):
        optimizer.zero_grad()
        with torch.autocast('cuda', dtype=dtype):
            loss = sum(feature.float().square().mean() for feature in net(x))
        scaler.scale(loss).backward()
        scaler.step(optimizer)
        scaler.update()
        losses.append(loss.item())
    assert losses[-1] < losses[0]
    assert layers
    for name in layers:
        layer = net.get_submodule(name)
        assert not layer.weight[~layer.mask].any(), name
        assert layer.weight[layer.mask].all(), name


@pytest.mark.parametrize('build', ['v1', 'v2', 'slak', 'equ-slak'])
def test_a_graph_of_a_folded_network(build) -> None:
    """A graph that was captured once computes what the network does for other images."""
    if build in ('v1', 'v2'):
        net: ShiftWiseNet | SLaK = mini_net(version=build)
    else:
        net = slak(shift_wise=build == 'equ-slak')
    randomise_batch_norms(net)
    net.eval().switch_to_deploy()
    net.cuda()
    image = torch.randn(2, 3, 96, 64, device='cuda')
    with torch.no_grad(), use_backend('cuda'):
        stream = torch.cuda.Stream()
        with torch.cuda.stream(stream):
            net(image)  # compares the backend with torch, which cannot be captured
        torch.cuda.synchronize()
        graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(graph):
            features = net(image)
        image.normal_()
        graph.replay()
        for found, expected in zip(features, net(image), strict=True):
            assert relative_error(found, expected) < 1e-6


@pytest.mark.parametrize('shift_wise', [False, True], ids=['plain', 'shift-wise'])
def test_compiled_slak(shift_wise) -> None:
    net = slak(shift_wise=shift_wise, big_kernels=SHORT_KERNELS).cuda().eval()
    x = torch.randn(2, 3, 96, 64, device='cuda')
    torch.compiler.reset()
    with torch.no_grad(), use_backend('cuda'):
        expected = net(x)
        found = torch.compile(net, backend='aot_eager')(x)
    for one, other in zip(found, expected, strict=True):
        assert relative_error(one, other) < 1e-4


def test_exported_network_runs_on_the_gpu() -> None:
    """An exported program holds plain operators of torch; it is moved, and gives the same."""
    net = mini_net(big_kernels=SHORT_KERNELS).eval()
    randomise_batch_norms(net)
    net.switch_to_deploy()
    x = torch.randn(1, 3, 64, 96)
    with torch.no_grad():
        expected = net(x)
        net.cuda()
        program = torch.export.export(net, (x.cuda(),))
        assert not any('mmsw' in str(node.target) for node in program.graph.nodes)
        for found, wanted in zip(program.module()(x.cuda()), expected, strict=True):
            assert relative_error(found.cpu(), wanted) < 2e-5
