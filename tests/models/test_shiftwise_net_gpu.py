"""ShiftWiseNet on a GPU: the authors' results, gradients, mixed precision, compilers, sparsity."""

import copy

import numpy as np
import pytest
import torch
from model_helpers import (
    MINI,
    SHORT_KERNELS,
    loss_of,
    mini_net,
    prune_half,
    randomise_batch_norms,
    relative_error,
)

from mmsw.models import ShiftWiseNet
from mmsw.ops import use_backend
from mmsw.ops.backends import cuda_backend

if (reason := cuda_backend.unavailable_reason()) is not None:
    pytest.skip(f'cuda: {reason}', allow_module_level=True)

VERSIONS = ('v1', 'v2')


@pytest.fixture(autouse=True)
def _plain_float32() -> None:
    """Products of PyTorch round to 10 bits otherwise, which hides errors of others."""
    torch.backends.cudnn.allow_tf32 = False
    torch.backends.cuda.matmul.allow_tf32 = False


@pytest.mark.parametrize('deployed', [False, True])
@pytest.mark.parametrize('version', VERSIONS)
def test_golden_features(version, deployed, data_dir) -> None:
    path = data_dir / f'backbone_{version}_mini_checkpoint.pth'
    net = ShiftWiseNet(MINI, version, init_cfg=dict(type='Pretrained', checkpoint=str(path)))
    net.init_weights()
    net.eval().cuda()
    if deployed:
        net.switch_to_deploy()
    golden = np.load(data_dir / f'backbone_{version}_mini_io.npz')
    with torch.no_grad(), use_backend('cuda'):
        features = net(torch.from_numpy(golden['image']).cuda())
    for index, feature in enumerate(features):
        expected = torch.from_numpy(golden[f'feature{index}'])
        assert relative_error(feature.cpu(), expected) < 2e-5, index


@pytest.mark.parametrize(
    'form', [{}, {'fused': False}, {'recompute': True}, {'with_cp': True}], ids=str
)
@pytest.mark.parametrize('version', VERSIONS)
def test_a_training_step_equals_the_one_of_the_cpu(version, form) -> None:
    net = mini_net(version=version, big_kernels=SHORT_KERNELS, **form).double()
    prune_half(net)
    on_gpu = copy.deepcopy(net).float().cuda()
    x = torch.randn(2, 3, 64, 64)
    with use_backend('torch'):
        loss_of(net(x.double())).backward()
    with use_backend('cuda'):
        loss_of(on_gpu(x.cuda())).backward()
    # Some gradients are zero but for rounding: a norm takes away what the one before it adds.
    small = 1e-3 * max(parameter.grad.abs().max() for parameter in net.parameters())
    for (name, found), expected in zip(
        on_gpu.named_parameters(), net.named_parameters(), strict=True
    ):
        error = (found.grad.cpu() - expected[1].grad).abs().max()
        assert error < 2e-4 * expected[1].grad.abs().max().clamp_min(small), name


@pytest.mark.parametrize('dtype', [torch.float16, torch.bfloat16], ids=str)
def test_mixed_precision_keeps_the_zeros(dtype) -> None:
    net = mini_net(big_kernels=SHORT_KERNELS).cuda()
    prune_half(net)
    optimizer = torch.optim.AdamW(net.parameters(), lr=1e-3)
    scaler = torch.amp.GradScaler('cuda', enabled=dtype == torch.float16)
    losses = []
    x = torch.randn(2, 3, 64, 64, device='cuda')
    for _ in range(8):
        optimizer.zero_grad()
        with torch.autocast('cuda', dtype=dtype):
            loss = sum(feature.float().square().mean() for feature in net(x))
        scaler.scale(loss).backward()
        scaler.step(optimizer)
        scaler.update()
        losses.append(loss.item())
    assert losses[-1] < losses[0]
    for name, layer in net.named_modules():
        if hasattr(layer, 'set_mask'):
            assert not layer.weight[~layer.mask].any(), name


@pytest.mark.parametrize('size', [(64, 96), (224, 224)], ids=str)
@pytest.mark.parametrize('version', VERSIONS)
def test_the_folded_network_equals_the_trained_one(version, size) -> None:
    net = mini_net(version=version).cuda().eval()
    randomise_batch_norms(net)
    x = torch.randn(3, 3, *size, device='cuda')
    folded = copy.deepcopy(net)
    folded.switch_to_deploy()
    with torch.no_grad():
        expected = copy.deepcopy(net).double()(x.double())
        for found, wanted in zip(folded(x), expected, strict=True):
            assert relative_error(found, wanted) < 2e-5


def test_compiled_network() -> None:
    net = mini_net(big_kernels=SHORT_KERNELS).cuda().eval()
    x = torch.randn(2, 3, 96, 64, device='cuda')
    with torch.no_grad(), use_backend('cuda'):
        expected = net(x)  # compares the backend with torch, which a compiler could not trace
        found = torch.compile(net)(x)
    for one, other in zip(found, expected, strict=True):
        assert relative_error(one, other) < 1e-4
