"""What counters, tracers, exporters and transforms of others see of the operators."""

import importlib.util
import io
from collections.abc import Callable
from contextlib import nullcontext

import pytest
import torch
from shift_wise_literal import relative_error
from torch import Tensor, nn
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.utils.flop_counter import FlopCounterMode

from mmsw.analysis.complexity.operator_work import layer_work
from mmsw.models import ShiftWiseConv2d, ShiftWiseNet
from mmsw.ops import ShiftPattern, shift_add, shift_wise_conv2d

needs_onnx = pytest.mark.skipif(
    any(importlib.util.find_spec(name) is None for name in ('onnx', 'onnxscript', 'onnxruntime')),
    reason='onnx: onnx, onnxscript or onnxruntime is not installed',
)


def make_layer(deployed: bool, **kwargs) -> ShiftWiseConv2d:
    torch.manual_seed(0)
    layer = ShiftWiseConv2d(8, 8, 7, num_reps=2, **kwargs).eval()
    for norm in (layer.norm_h, layer.norm_v, layer.norm_i):
        nn.init.normal_(norm.running_mean)
        nn.init.uniform_(norm.weight)
    if deployed:
        layer.switch_to_deploy()
    return layer


def flops(call: Callable[[], Tensor]) -> dict[str, int]:
    with FlopCounterMode(display=False) as counter:
        call().sum().backward()
    counts = counter.get_flop_counts()['Global']
    return {str(op).partition('.')[2]: count for op, count in counts.items()}


def test_flops_of_a_layer_and_its_gradients(every_backend: str) -> None:
    x = torch.randn(2, 8, 9, 7, requires_grad=True)
    layer = make_layer(False)
    expected = 2 * layer_work(layer, 2, 9, 7)[0]
    assert flops(lambda: layer(x)) == {
        'shift_wise_conv2d': expected,
        'shift_wise_conv2d_grad_input': expected,
        'shift_wise_conv2d_grad_weight': expected,
    }
    folded = make_layer(True)
    with FlopCounterMode(display=False) as counter, torch.no_grad():
        folded(x)
    assert counter.get_total_flops() == 2 * layer_work(folded, 2, 9, 7)[0]


@pytest.mark.parametrize('version', ['v1', 'v2'])
def test_flops_of_a_folded_block(version: str) -> None:
    """Ghost channels count one multiply-add for each position, like in ``complexity``."""
    arch = dict(depths=[1, 1, 1, 1], dims=[16, 8, 8, 8])
    net = ShiftWiseNet(arch, version, out_indices=(0,)).eval().switch_to_deploy()
    block = net.stages[0][0]
    ghosts = 16 - block.num_active
    assert ghosts > 0
    counts = []
    for mode in (nullcontext(), FakeTensorMode(allow_non_fake_inputs=True)):
        with mode, FlopCounterMode(display=False) as counter, torch.no_grad():
            block(torch.zeros(2, 16, 9, 7))
        found = counter.get_flop_counts()['Global'].items()
        counts += [count for op, count in found if 'cross_conv' in str(op)]
    known, unknown = counts
    assert known == 2 * layer_work(block, 2, 9, 7)[0]
    assert unknown * block.num_active == 16 * (known - 2 * ghosts * 2 * 9 * 7)


def test_flops_of_the_second_step(every_backend: str) -> None:
    """Additions: two arms of two groups and the identity, on 2 channels of 4 x 5, 3 times."""
    conv_out = torch.randn(1, 4, 6, 7, requires_grad=True)
    pattern = ShiftPattern.draw(5, 3, 2, 3)
    expected = 3 * (2 * 2 + 1) * 2 * 4 * 5
    found = flops(lambda: torch.stack(shift_add(conv_out, pattern)))
    assert found == {'shift_add': expected, 'shift_add_grad': expected}


@pytest.mark.parametrize('named', [False, True])
@pytest.mark.parametrize('deployed', [False, True])
def test_a_traced_layer_holds_plain_operators(
    every_backend: str, deployed: bool, named: bool
) -> None:
    layer = make_layer(deployed, backend=every_backend if named else None)
    traced = torch.jit.trace(layer, torch.randn(2, 8, 9, 7))
    assert 'mmsw::' not in str(traced.inlined_graph)
    for shape in ((2, 8, 9, 7), (1, 8, 3, 20)):
        x = torch.randn(shape)
        assert relative_error(traced(x), layer(x)) < 1e-5


class SecondStep(nn.Module):
    """``shift_add`` alone, of patterns whose arms reach far or not at all beyond the map."""

    def __init__(self, *sizes: int) -> None:
        super().__init__()
        self.pattern = ShiftPattern.draw(*sizes)

    def forward(self, conv_out: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        return shift_add(conv_out, self.pattern)


@pytest.mark.parametrize(
    'sizes', [(13, 3, 2, 2), (5, 5, 2, 3), (7, 1, 2, 1), (9, 7, 1, 2)], ids=str
)
def test_the_second_step_is_traced_as_plain_operators(every_backend: str, sizes: tuple) -> None:
    step = SecondStep(*sizes).double()
    border, kernels = 2 * step.pattern.margin, len(step.pattern.shift_hv)
    inputs = [
        torch.randn(1, kernels, h + border, w + border, dtype=torch.float64)
        for h, w in ((6, 9), (1, 1), (20, 3))
    ]
    traced = torch.jit.trace(step, inputs[0])
    assert 'mmsw::' not in str(traced.inlined_graph)
    for conv_out in inputs:
        for found, expected in zip(traced(conv_out), step(conv_out), strict=True):
            assert relative_error(found, expected) < 1e-12


@needs_onnx
@pytest.mark.parametrize('dynamo', [False, True], ids=['torchscript', 'dynamo'])
@pytest.mark.parametrize('deployed', [False, True])
def test_onnx(deployed: bool, dynamo: bool) -> None:
    import onnx
    import onnxruntime

    layer = make_layer(deployed)
    sizes = {2: torch.export.Dim('h', max=512), 3: torch.export.Dim('w', max=512)}
    options = (
        dict(dynamic_shapes=(sizes,))
        if dynamo
        else dict(dynamic_axes={'x': {2: 'h', 3: 'w'}}, opset_version=17)
    )
    file = io.BytesIO()
    example = torch.randn(2, 8, 9, 12)
    torch.onnx.export(layer, (example,), file, dynamo=dynamo, input_names=['x'], **options)
    model = onnx.load_from_string(file.getvalue())
    assert {node.domain for node in model.graph.node} == {''}
    session = onnxruntime.InferenceSession(file.getvalue())
    for shape in ((2, 8, 9, 12), (2, 8, 20, 5)):
        x = torch.randn(shape)
        (found,) = session.run(None, {'x': x.numpy()})
        assert relative_error(torch.from_numpy(found), layer(x)) < 1e-5


def check_export(model: nn.Module, channels: int, smallest: int, shapes: list) -> None:
    sizes = {2: torch.export.Dim('h', min=smallest, max=2048)}
    sizes[3] = torch.export.Dim('w', min=smallest, max=2048)
    program = torch.export.export(
        model, (torch.randn(2, channels, 64, 96),), dynamic_shapes=(sizes,)
    )
    assert 'mmsw' not in {
        node.target.namespace for node in program.graph.nodes if hasattr(node.target, 'namespace')
    }
    for shape in shapes:
        x = torch.randn(2, channels, *shape)
        with torch.no_grad():
            found, expected = program.module()(x), model(x)
        pairs = (
            [(found, expected)] if isinstance(found, Tensor) else zip(found, expected, strict=True)
        )
        for ours, target in pairs:
            assert relative_error(ours, target) < 1e-5


@pytest.mark.parametrize('deployed', [False, True])
def test_exported_layer(deployed: bool) -> None:
    check_export(make_layer(deployed), 8, 32, [(32, 32), (64, 96), (128, 33)])


@pytest.mark.slow
@pytest.mark.ci
@pytest.mark.parametrize('deployed', [False, True])
def test_exported_network(deployed: bool) -> None:
    """From 33 pixels on: torch itself tells a last map of one row from the others."""
    torch.manual_seed(0)
    net = ShiftWiseNet(arch=dict(depths=[1, 1, 1, 1], dims=[8, 8, 8, 8])).eval()
    if deployed:
        for layer in [part for part in net.modules() if isinstance(part, ShiftWiseConv2d)]:
            layer.switch_to_deploy()
    check_export(net, 3, 33, [(33, 40), (64, 96), (128, 33)])


def test_transforms(every_backend: str) -> None:
    """Gradients per sample, and a batch of layers with tables of their own."""
    pattern = ShiftPattern.draw(5, 3, 2, 1)
    x, weight = torch.randn(3, 1, 2, 4, 4).double(), torch.randn(4, 1, 3, 3).double()

    def loss(weight: Tensor, x: Tensor) -> Tensor:
        return sum(out.square().sum() for out in shift_wise_conv2d(x, weight, pattern))

    found = torch.vmap(torch.func.grad(loss), (None, 0))(weight, x)
    for sample, grad in zip(x, found, strict=True):
        leaf = weight.clone().requires_grad_()
        (expected,) = torch.autograd.grad(loss(leaf, sample), leaf)
        assert relative_error(grad, expected) < 1e-12

    class Layer(nn.Module):
        def __init__(self, seed: int) -> None:
            super().__init__()
            self.pattern = ShiftPattern.draw(5, 3, 2, 1, seed)

        def forward(self, x: Tensor) -> Tensor:
            return shift_wise_conv2d(x, weight, self.pattern)[0]

    layers = [Layer(seed) for seed in range(3)]
    buffers = {
        k: torch.stack([part.state_dict()[k] for part in layers]) for k in layers[0].state_dict()
    }
    one = Layer(9)
    found = torch.vmap(lambda b, x: torch.func.functional_call(one, b, (x,)))(buffers, x)
    for layer, sample, out in zip(layers, x, found, strict=True):
        assert relative_error(out, layer(sample)) < 1e-12
