"""What PyTorch's own machinery makes of the operators: opcheck, torch.compile, torch.export."""

import subprocess
import sys
from pathlib import Path

import pytest
import torch
from shift_wise_literal import relative_error
from torch import Tensor, nn

from mmsw.ops import ShiftPattern, depthwise_library, shift_add, shift_wise_conv2d, use_backend
from mmsw.ops.library import (
    cross_conv2d_op,
    grad_input_op,
    grad_weight_op,
    shift_add_grad_op,
    shift_add_op,
    shift_wise_conv2d_op,
)


class Layer(nn.Module):
    """A pattern and its weight, as in the layers of the networks."""

    def __init__(self, *sizes: int, backend: str | None = None) -> None:
        super().__init__()
        self.pattern = ShiftPattern.draw(*sizes)
        side = self.pattern.small_kernel
        count = self.pattern.channels * self.pattern.num_groups
        self.weight = nn.Parameter(torch.randn(count, 1, side, side))
        self.backend = backend

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        return shift_wise_conv2d(x, self.weight, self.pattern, backend=self.backend)


class TwoSteps(Layer):
    """The same layer through the intermediate."""

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        padding = self.pattern.small_kernel - 1
        conv_out = nn.functional.conv2d(x, self.weight, padding=padding, groups=x.shape[1])
        return shift_add(conv_out, self.pattern, backend=self.backend)


needs_torch_2_6 = pytest.mark.skipif(
    not hasattr(torch.compiler, 'set_stance'),
    reason='torch-2.6: before it, dynamic=True also makes the integers of a module symbolic',
)


@pytest.fixture(autouse=True)
def _fresh_compiler() -> None:
    torch.compiler.reset()


def outputs_and_gradients(call, x: Tensor, layer: Layer) -> list[Tensor]:
    x = x.detach().clone().requires_grad_()
    outputs = call(x)
    torch.manual_seed(3)
    grads = [torch.randn(out.shape, dtype=out.dtype) for out in outputs]
    return [*outputs, *torch.autograd.grad(outputs, (x, layer.weight), grads)]


def operator_cases() -> list:
    cases = []
    for dtype, layout in (
        (torch.float32, torch.contiguous_format),
        (torch.bfloat16, torch.contiguous_format),
        (torch.float16, torch.channels_last),
    ):

        def random(*shape: int, dtype=dtype, layout=layout) -> Tensor:
            made = torch.randn(shape).to(dtype)
            if len(shape) == 4:
                made = made.contiguous(memory_format=layout)
            return made.requires_grad_()

        pattern = ShiftPattern.draw(5, 3, 3, 2)
        mask = torch.tensor([True, False, True] * 2) if dtype != torch.bfloat16 else None
        x, weight, conv_out = random(2, 3, 4, 6), random(6, 1, 3, 3), random(2, 6, 6, 8)
        grads = [random(2, 3, 4, 6) for _ in range(3)]
        name = f'{dtype}-{layout}'.replace('torch.', '')
        for op, arguments in (
            (shift_add_op, (conv_out,)),
            (shift_add_grad_op, (*grads,)),
            (shift_wise_conv2d_op, (x, weight, mask)),
            (grad_input_op, (*grads, weight, mask)),
            (grad_weight_op, (*grads, x, mask)),
        ):
            label = f'{op._qualname.removeprefix("mmsw::")}-{name}'
            cases.append(pytest.param(op, (*arguments, *pattern.tables()), id=label))
        kernels = random(3, 7, 3), random(3, 5, 3), random(3)
        cases.append(pytest.param(cross_conv2d_op, (x, *kernels), id=f'cross_conv2d-{name}'))
        large = random(3, 1, 7, 4)
        for op, arguments in (
            (depthwise_library.depthwise_conv2d_op, (x, large, random(3))),
            (depthwise_library.grad_input_op, (grads[0], large)),
            (depthwise_library.grad_weight_op, (grads[0], x, 7, 4)),
        ):
            label = f'{op._qualname.removeprefix("mmsw::")}-{name}'
            cases.append(pytest.param(op, (*arguments, 5), id=label))
    return cases


@pytest.mark.parametrize(('op', 'arguments'), operator_cases())
def test_opcheck(op, arguments: tuple) -> None:
    torch.library.opcheck(op, (*arguments, 'torch'))


def test_every_operator_is_checked() -> None:
    registered = {
        name for name in torch._C._dispatch_get_all_op_names() if name.startswith('mmsw::')
    }
    checked = {case.values[0]._qualname for case in operator_cases()}
    assert registered == checked


@pytest.mark.parametrize('backend', [None, 'torch'])
@pytest.mark.parametrize('module', [Layer, TwoSteps])
def test_compiled_equals_eager(module: type[Layer], backend: str | None) -> None:
    layer = module(13, 3, 3, 2, backend=backend)
    compiled = torch.compile(layer, fullgraph=True, backend='aot_eager')
    x = torch.randn(2, 3, 9, 20)
    found, expected = (outputs_and_gradients(call, x, layer) for call in (compiled, layer))
    for ours, target in zip(found, expected, strict=True):
        assert relative_error(ours, target) < 1e-5
        assert ours.stride() == target.stride()


def test_compiled_channels_last_keeps_the_strides_of_eager() -> None:
    layer = Layer(13, 3, 3, 2)
    compiled = torch.compile(layer, fullgraph=True, backend='eager')
    x = torch.randn(2, 3, 9, 20).contiguous(memory_format=torch.channels_last)
    for found, expected in zip(compiled(x), layer(x), strict=True):
        assert found.stride() == expected.stride()
        assert relative_error(found, expected) < 1e-5


@pytest.mark.parametrize('dtype', [torch.bfloat16, torch.float16], ids=str)
def test_compiled_under_autocast(dtype: torch.dtype) -> None:
    layer = Layer(13, 3, 3, 2)
    compiled = torch.compile(layer, fullgraph=True, backend='aot_eager')
    x = torch.randn(2, 3, 9, 20)
    with torch.autocast('cpu', dtype=dtype):
        found, expected = (outputs_and_gradients(call, x, layer) for call in (compiled, layer))
    for ours, target in zip(found, expected, strict=True):
        assert ours.dtype == target.dtype
        assert relative_error(ours, target) < 2e-2


@needs_torch_2_6
@pytest.mark.parametrize('module', [Layer, TwoSteps])
def test_one_dynamic_graph_serves_every_size(module: type[Layer]) -> None:
    layer = module(13, 3, 3, 2)
    compiled = torch.compile(layer, fullgraph=True, backend='aot_eager', dynamic=True)
    for index, shape in enumerate([(2, 3, 9, 20), (3, 3, 30, 5), (5, 3, 2, 3)]):
        x = torch.randn(shape)
        with torch.compiler.set_stance('fail_on_recompile' if index else 'default'):
            found = outputs_and_gradients(compiled, x, layer)
        for ours, target in zip(found, outputs_and_gradients(layer, x, layer), strict=True):
            assert relative_error(ours, target) < 1e-5


@needs_torch_2_6
@pytest.mark.parametrize(
    'sizes', [(51, 3, 3, 2), (49, 3, 3, 4), (47, 3, 3, 1), (51, 5, 2, 2)], ids=str
)
def test_compiled_weight_gradient_of_long_arms(sizes: tuple) -> None:
    """The defect of oneDNN that torch_backend.py describes must not come back through autograd."""
    layer = Layer(*sizes)
    exact = Layer(*sizes).double()
    exact.load_state_dict(layer.state_dict())
    compiled = torch.compile(layer, fullgraph=True, backend='aot_eager', dynamic=True)
    wrong = []
    for length in range(2, 73, 8):
        for shape in ((length, 6), (6, length)):
            x = torch.randn(2, sizes[2], *shape)
            found = outputs_and_gradients(compiled, x, layer)[-1]
            x = x.double().requires_grad_()
            torch.manual_seed(3)
            grads = [torch.randn(x.shape).double() for _ in range(3)]
            (expected,) = torch.autograd.grad(exact(x), exact.weight, grads)
            if relative_error(found, expected) > 1e-5:
                wrong.append(shape)
    assert not wrong


def test_compiled_code_follows_use_backend() -> None:
    layer = Layer(5, 3, 2, 1)
    compiled = torch.compile(layer, fullgraph=True, backend='eager')
    x = torch.randn(1, 2, 4, 4)
    expected = layer(x)
    with use_backend('torch'):
        found = compiled(x)
    for ours, target in zip((*found, *compiled(x)), (*expected, *expected), strict=True):
        assert relative_error(ours, target) < 1e-6


@pytest.mark.slow
@pytest.mark.ci
def test_inductor_equals_eager() -> None:
    layer = Layer(13, 3, 3, 2)
    compiled = torch.compile(layer, fullgraph=True)
    x = torch.randn(2, 3, 9, 20)
    found, expected = (outputs_and_gradients(call, x, layer) for call in (compiled, layer))
    assert all(out.is_contiguous() for out in found[:3])
    for ours, target in zip(found, expected, strict=True):
        assert relative_error(ours, target) < 1e-5


def export(layer: Layer, x: Tensor) -> torch.export.ExportedProgram:
    batch, height, width = (torch.export.Dim(name, max=512) for name in ('b', 'h', 'w'))
    dynamic = {'x': {0: batch, 2: height, 3: width}}
    return torch.export.export(layer.eval(), (x,), dynamic_shapes=dynamic)


def test_exported_program_holds_plain_operators_only() -> None:
    program = export(Layer(13, 3, 3, 2), torch.randn(2, 3, 9, 11))
    targets = {str(node.target) for node in program.graph.nodes if node.op == 'call_function'}
    assert targets
    assert not {target for target in targets if not target.startswith(('aten.', '<built-in'))}


def test_exported_program_runs_without_mmsw(tmp_path: Path) -> None:
    layer = Layer(13, 3, 3, 2)
    program = export(layer, torch.randn(2, 3, 9, 11))
    torch.export.save(program, tmp_path / 'layer.pt2')
    x = torch.randn(1, 3, 17, 6)
    torch.save(x, tmp_path / 'x.pt')
    script = (
        'import sys, torch\n'
        "layer = torch.export.load('layer.pt2').module()\n"
        "torch.save(layer(torch.load('x.pt', weights_only=True)), 'out.pt')\n"
        "assert not [name for name in sys.modules if name.split('.')[0] == 'mmsw']\n"
    )
    done = subprocess.run(
        [sys.executable, '-c', script],
        cwd=tmp_path,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout
    expected = layer(x)
    for found, target, exported in zip(
        torch.load(tmp_path / 'out.pt', weights_only=True),
        expected,
        program.module()(x),
        strict=True,
    ):
        assert torch.equal(found, exported)
        assert found.stride() == target.stride()
        assert relative_error(found, target) < 1e-5
