"""convert_large_kernels changes how a network computes and nothing else."""

import copy
import pickle
from collections.abc import Callable

import pytest
import torch
from large_kernel_nets import ConvNextLike, RepLkLike, SlakLike, UniRepLkLike, depthwise
from mmcv.cnn.bricks import wrappers
from torch import Tensor, nn
from torch.nn.utils import parametrizations, prune

from mmsw.models import ShiftWiseLargeKernel, convert_large_kernels
from mmsw.sparsity import attach_masks
from mmsw.sparsity.layer_masks import masks, set_masks

NETS = [  # network, smallest size, what is replaced, what is left
    (SlakLike, 9, {'tall': (51, 5), 'wide': (5, 51)}, {}),
    (RepLkLike, 9, {'lkb_origin.0': (31, 31)}, {'strided': 'stride 2'}),
    (UniRepLkLike, 9, {'lk_origin': (13, 13), 'dil_9_1': (9, 9)}, {'dil_9_2': 'dilation 2'}),
    (ConvNextLike, 9, {}, {}),
    (ConvNextLike, 7, {'depthwise_conv': (7, 7)}, {}),
]


def pass_both_ways(net: nn.Module, x: Tensor) -> list[Tensor]:
    """Output and the gradients of the map and of all parameters."""
    leaf = x.clone().requires_grad_()
    out = net(leaf)
    return [out, *torch.autograd.grad(out.square().sum(), [leaf, *net.parameters()])]


@pytest.mark.parametrize(('build', 'min_size', 'replaced', 'left'), NETS)
def test_same_function(build: Callable, min_size: int, replaced: dict, left: dict) -> None:
    torch.manual_seed(0)
    net, x = build().double(), torch.randn(2, 3, 56, 64, dtype=torch.float64)
    keys, parameters = list(net.state_dict()), list(net.parameters())
    expected = pass_both_ways(copy.deepcopy(net), x)
    report = convert_large_kernels(net, min_size)
    assert report.replaced == replaced
    assert report.left == left
    assert all(isinstance(net.get_submodule(name), ShiftWiseLargeKernel) for name in replaced)
    assert list(net.state_dict()) == keys
    assert all(a is b for a, b in zip(net.parameters(), parameters, strict=True))
    for found, wanted in zip(pass_both_ways(net, x), expected, strict=True):
        torch.testing.assert_close(found, wanted, rtol=1e-9, atol=1e-9)


def test_sparse_training_goes_on() -> None:
    """Masks, and an optimizer that was there before, step as without the conversion."""
    torch.manual_seed(0)
    net = SlakLike().double()
    attach_masks(net, r'(tall|wide)\.weight')
    set_masks(net, {name: torch.rand(mask.shape) < 0.4 for name, mask in masks(net).items()})
    twin = pickle.loads(pickle.dumps(net))
    optimizers = [torch.optim.AdamW(n.parameters(), lr=1e-3) for n in (net, twin)]
    convert_large_kernels(twin)
    kept = masks(net)
    for _ in range(4):
        x = torch.randn(2, 3, 40, 48, dtype=torch.float64)
        for one, optimizer in zip((net, twin), optimizers, strict=True):
            optimizer.zero_grad()
            one(x).square().mean().backward()
            optimizer.step()
    assert list(twin.state_dict()) == list(net.state_dict())
    for name, tensor in twin.state_dict().items():
        torch.testing.assert_close(tensor, net.state_dict()[name], rtol=1e-7, atol=1e-7)
    for name, mask in kept.items():
        assert torch.equal(twin.get_submodule(name).weight != 0, mask)
    assert torch.equal(copy.deepcopy(twin)(x), twin(x))


def test_pruning_of_torch_goes_on() -> None:
    net = nn.Sequential(depthwise(4, 13, 13, padding=6))
    prune.random_unstructured(net[0], 'weight', amount=0.5)
    x = torch.randn(2, 4, 9, 9)
    expected, keys = net(x), list(net.state_dict())
    assert list(convert_large_kernels(net).replaced) == ['0']
    torch.testing.assert_close(net(x), expected)
    assert list(net.state_dict()) == keys == ['0.bias', '0.weight_orig', '0.weight_mask']
    net(x).sum().backward()
    assert not net[0].weight_orig.grad[net[0].weight_mask == 0].any()


def test_hooks_mode_and_frozen_parameters_stay() -> None:
    conv = depthwise(4, 9, 9, padding=4)
    seen = []
    conv.register_forward_hook(lambda layer, args, out: seen.append(layer))
    conv.weight.requires_grad_(False)
    net = nn.Sequential(conv, nn.ReLU()).eval().bfloat16()
    convert_large_kernels(net, small_kernel=3, backend='torch')
    out = net(torch.randn(1, 4, 8, 8).bfloat16())
    assert seen == [conv] == [net[0]]
    assert out.dtype == torch.bfloat16
    assert not conv.training
    assert not conv.weight.requires_grad
    assert (conv.small_kernel, conv.backend) == (3, 'torch')


def test_shared_layers_stay_shared_and_a_second_call_does_nothing() -> None:
    conv = depthwise(4, 9, 9, padding='same')
    net = nn.Sequential(conv, conv)
    assert list(convert_large_kernels(net).replaced) == ['0']
    assert net[0] is net[1]
    again = convert_large_kernels(net)
    assert not again.replaced
    assert not again.left


def test_a_convolution_itself_and_the_wrapper_of_mmcv() -> None:
    conv = wrappers.Conv2d(4, 4, (9, 5), padding=(4, 2), groups=4)
    report = convert_large_kernels(conv)
    assert isinstance(conv, ShiftWiseLargeKernel)
    assert '1 large kernels replaced, 0 left' in str(report)
    assert '(the model itself): 9 x 5' in str(report)


class OwnConv(nn.Conv2d):
    def forward(self, x: Tensor) -> Tensor:
        return super().forward(2 * x)


def test_what_is_left_says_why() -> None:
    own = depthwise(4, 9, 9, padding=4)
    own.forward = lambda x: x
    weighed = parametrizations.weight_norm(depthwise(4, 9, 9, padding=4))
    net = nn.ModuleDict(
        dict(
            full=nn.Conv2d(4, 8, 9, padding=4),
            multiplier=nn.Conv2d(4, 8, 9, padding=4, groups=4),
            valid=depthwise(4, 9, 9),
            one_sided=depthwise(4, 9, 9, padding=(4, 3)),
            even=depthwise(4, 10, 10, padding=5),
            circular=depthwise(4, 9, 9, padding=4, padding_mode='circular'),
            strided=depthwise(4, 9, 9, padding=4, stride=(1, 2)),
            subclass=OwnConv(4, 4, 9, padding=4, groups=4),
            own=own,
            weighed=weighed,
        )
    )
    report = convert_large_kernels(net)
    assert not report.replaced
    assert list(report.left) == list(net)
    reasons = {
        'full': 'not depthwise (4 -> 8, groups=1)',
        'multiplier': 'not depthwise (4 -> 8, groups=4)',
        'valid': 'padding 0 is not "same"',
        'one_sided': 'padding (4, 3) is not "same"',
        'even': 'padding 5 is not "same"',
        'circular': "padding mode 'circular'",
        'strided': 'stride (1, 2)',
        'own': 'a forward of its own',
    }
    assert {name: report.left[name] for name in reasons} == reasons
    assert 'OwnConv' in report.left['subclass']
    assert 'remove_parametrizations' in report.left['weighed']


@pytest.mark.parametrize(
    ('arguments', 'error', 'message'),
    [
        (dict(model='net'), TypeError, 'model must be a torch.nn.Module, got str'),
        (dict(min_size=0), ValueError, 'min_size must be a positive integer, got 0'),
        (dict(small_kernel=2), ValueError, 'small_kernel must be odd, got 2'),
        (dict(backend='numpy'), ValueError, "unknown backend 'numpy'"),
    ],
)
def test_bad_arguments(arguments: dict, error: type, message: str) -> None:
    net = SlakLike()
    with pytest.raises(error, match=message):
        convert_large_kernels(**{**dict(model=net), **arguments})
    assert type(net.tall) is nn.Conv2d
